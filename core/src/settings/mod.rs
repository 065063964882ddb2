//! Settings as text: connection URLs, `host:port` and the values of parameters and environment variables.
//!
//! All schemes are parsed here, and no error repeats a text that may contain a secret: it names the part of the URL
//! or the setting, and the expected form. Other transports and stores can use the same rules through
//! [`ConnectionUrl::parse`].

mod address;
mod url;
mod value;

pub use self::address::Address;
pub use self::url::ConnectionUrl;
pub use self::value::{Setting, SettingError};
