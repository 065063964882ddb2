//! Wrappers that record what is changed through them.
//!
//! Each method that changes something records its intent before and its result after. Reading methods are forwarded.
//! `deny(missing_trait_methods)` makes a method that a trait gets later, with a default, an error here until it is
//! decided which of the two it is.

mod acls;
mod admin;
mod call;
mod cluster;
mod letters;
mod log_reader;
mod publisher;
mod transactor;
mod transport;

pub use self::letters::{AuditedLetters, letter_resources};
pub use self::transport::Audited;
