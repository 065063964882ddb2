//! Settings as text: connection URLs, `host:port` and the values of parameters and environment variables.
//!
//! All schemes are parsed here, and no error repeats a text that may contain a secret: it names the part of the URL or
//! the setting, and the expected form. Other transports and stores can use the same rules through
//! [`ConnectionUrl::parse`].
//!
//! A backend's config reads a URL in three steps:
//!
//! ```
//! use std::time::Duration;
//! use tidings_core::settings::ConnectionUrl;
//!
//! let url = ConnectionUrl::parse("nats://app:s3cr3t@a,b:4223?ping=5s")?;
//! let hosts: Vec<_> = url.hosts().iter().map(|host| host.clone().or_port(4222).to_string()).collect();
//! let mut ping = Duration::from_secs(60);
//! url.for_each_parameter(&["ping"], |setting| Ok(ping = setting.duration()?))?;
//!
//! assert_eq!(hosts, ["a:4222", "b:4223"]);
//! assert_eq!(ping, Duration::from_secs(5));
//!
//! let error = ConnectionUrl::parse("nats://a?pong=5s")?.for_each_parameter(&["ping"], |_| Ok(())).unwrap_err();
//! assert_eq!(error.to_string(), "pong: no such setting, did you mean ping?");
//! # Ok::<(), tidings_core::Error>(())
//! ```

mod address;
mod url;
mod value;

pub use self::address::Address;
pub use self::url::ConnectionUrl;
pub use self::value::{Setting, SettingError};
