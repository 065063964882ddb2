//! Searching and printing chains of errors.
//!
//! ```
//! use tidings::{Error, ErrorKind, error};
//!
//! let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
//! let error = Error::caused_by(ErrorKind::Denied, "open the store", denied);
//! assert_eq!(error::report(&error), "open the store: permission denied");
//! assert_eq!(error::find_error(&error).map(Error::kind), Some(ErrorKind::Denied));
//! ```

pub use tidings_core::{find_error, report};
