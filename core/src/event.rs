//! Events: their types, topics, keys and versions.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use crate::codec::{Codec, Downcast, Upcast};
use crate::{Error, ErrorKind, Name, Result};

/// A message type: its payload, its topic, its stable name and its key.
///
/// Write `#[derive(Event)]` rather than implementing it by hand. This is what the derive writes for `#[event(topic =
/// "user-events", type = "user.registered", key = "user_id")]`:
///
/// ```
/// use tidings_core::{Event, Key, Version, codec::Json};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct UserRegistered { user_id: String }
///
/// impl Event for UserRegistered {
///     type Codec = Json;
///     const TOPIC: &'static str = "user-events";
///     const TYPE: &'static str = "user.registered";
///     fn key(&self) -> Option<std::borrow::Cow<'_, [u8]>> { self.user_id.to_key() }
/// }
/// assert_eq!(UserRegistered { user_id: "u1".into() }.key().as_deref(), Some(&b"u1"[..]));
/// assert_eq!(UserRegistered::VERSION, Version::new(1, 0));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "not an event",
    note = "add `#[derive(Serialize, Deserialize, Event)] #[event(topic = \"...\", type = \"...\")]` to `{Self}`"
)]
pub trait Event: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The codec that writes the event. Reading follows the record's `content-type`.
    type Codec: Codec;
    /// The topic that the event is published to, without a service's prefix.
    const TOPIC: &'static str;
    /// The event's stable name on the wire, such as `user.registered`.
    const TYPE: &'static str;
    /// The version of the payload. A handler accepts its major version, and those of the event's upcasts.
    const VERSION: Version = Version::new(1, 0);
    /// The older version that is read as this event, directly or through a chain. A handler of this event takes both.
    const UPCAST: Option<Upcast<Self>> = None;
    /// The older version that this event can be written as, where [`EventVersions`](crate::codec::EventVersions)
    /// select it.
    const DOWNCAST: Option<Downcast<Self>> = None;

    /// Returns the partition key; events of one key are handled in order. `None`: the event has no order.
    fn key(&self) -> Option<Cow<'_, [u8]>>;
}

/// A type that can be an event's key: text as UTF-8, integers as decimal text, UUIDs hyphenated, bytes unchanged.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an event's key",
    label = "not a key type",
    note = "keys are strings, integers, UUIDs, bytes, or an `Option` of these; `key = expression` may convert"
)]
pub trait Key {
    /// Returns the key's bytes; `None` is no key.
    fn to_key(&self) -> Option<Cow<'_, [u8]>>;
}

impl Key for str {
    fn to_key(&self) -> Option<Cow<'_, [u8]>> {
        Some(Cow::Borrowed(self.as_bytes()))
    }
}

impl Key for [u8] {
    fn to_key(&self) -> Option<Cow<'_, [u8]>> {
        Some(Cow::Borrowed(self))
    }
}

macro_rules! borrowed_keys { ($($t:ty as $borrowed:ty),*) => { $(
    impl Key for $t {
        fn to_key(&self) -> Option<Cow<'_, [u8]>> {
            <$borrowed as Key>::to_key(self)
        }
    }
)* } }
borrowed_keys!(String as str, Box<str> as str, Arc<str> as str, Vec<u8> as [u8], Bytes as [u8]);

macro_rules! text_keys { ($($t:ty),*) => { $(
    impl Key for $t {
        fn to_key(&self) -> Option<Cow<'_, [u8]>> {
            Some(Cow::Owned(self.to_string().into_bytes()))
        }
    }
)* } }
text_keys!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, Uuid);

impl Key for Name {
    fn to_key(&self) -> Option<Cow<'_, [u8]>> {
        Some(Cow::Borrowed(self.as_bytes()))
    }
}

impl<T: Key> Key for Option<T> {
    fn to_key(&self) -> Option<Cow<'_, [u8]>> {
        self.as_ref().and_then(Key::to_key)
    }
}

impl<T: Key + ?Sized> Key for &T {
    fn to_key(&self) -> Option<Cow<'_, [u8]>> {
        (**self).to_key()
    }
}

impl Key for Cow<'_, str> {
    fn to_key(&self) -> Option<Cow<'_, [u8]>> {
        Some(Cow::Borrowed(self.as_bytes()))
    }
}

/// The version of a payload, `major.minor`; on the wire it is the text `"1.0"`.
///
/// A new minor version only adds fields that older readers may ignore. A new major version needs an
/// [upcast](crate::codec::Upcast) from the older one, or its own handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version {
    /// The major version: changes that older readers cannot read.
    pub major: u32,
    /// The minor version: changes that older readers can ignore.
    pub minor: u32,
}

impl Version {
    /// Creates the version `major.minor`.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Returns the version that a bare number stands for.
    pub(crate) fn of_number(major: u64) -> Option<Self> {
        u32::try_from(major).ok().map(|major| Self::new(major, 0))
    }

    /// Returns the version's text on the wire; the common versions are not allocated.
    pub fn to_text(self) -> Cow<'static, str> {
        match (self.major, self.minor) {
            (1, 0) => Cow::Borrowed("1.0"),
            (2, 0) => Cow::Borrowed("2.0"),
            _ => Cow::Owned(self.to_string()),
        }
    }

    /// Returns the version's text as [`to_text`](Self::to_text) does, for a header.
    pub fn to_bytes(self) -> Bytes {
        match self.to_text() {
            Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
            Cow::Owned(text) => text.into(),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl std::str::FromStr for Version {
    type Err = Error;

    /// Parses `"2"`, `"2.1"` and, of longer texts such as `"2.1.7"`, the first two numbers.
    fn from_str(text: &str) -> Result<Self> {
        if text == "1.0" {
            return Ok(Self::new(1, 0));
        }
        // `parse` accepts a sign as well.
        let number = |part: &str| part.parse::<u32>().ok().filter(|_| !part.starts_with('+'));
        let mut parts = text.split('.');
        let major = parts.next().and_then(number);
        let minor = parts.next().map_or(Some(0), number);
        match (major, minor) {
            (Some(major), Some(minor)) => Ok(Self { major, minor }),
            _ => Err(Error::new(
                ErrorKind::Undecodable,
                format!("read the version {:?}: expected text such as \"1.0\"", shortened(text)),
            )),
        }
    }
}

/// The limit of characters of foreign text in an error message.
const SHOWN_CHARS: usize = 64;

pub(crate) fn shortened(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_text())
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Version;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a version such as \"1.0\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Version, E> {
                text.parse().map_err(|e: Error| E::custom(e))
            }
            // Some services write the number 1 for the text "1.0".
            fn visit_u64<E: de::Error>(self, major: u64) -> Result<Version, E> {
                let wrong = || E::invalid_value(de::Unexpected::Unsigned(major), &self);
                Version::of_number(major).ok_or_else(wrong)
            }
            // 1.0 is the same number. The number 1.10 cannot be distinguished from 1.1.
            fn visit_f64<E: de::Error>(self, major: f64) -> Result<Version, E> {
                let whole = (major.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&major)).then_some(major);
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within the range")]
                let version = whole.map(|major| Version::new(major as u32, 0));
                version.ok_or_else(|| E::invalid_value(de::Unexpected::Float(major), &self))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_other_services_write_them() {
        assert_eq!("1.0".parse::<Version>().unwrap(), Version::new(1, 0));
        assert_eq!("2".parse::<Version>().unwrap(), Version::new(2, 0));
        assert_eq!("2.1.7".parse::<Version>().unwrap(), Version::new(2, 1));
        for bad in ["", "v1", "1.x", "-1", "+1", "1.+0", "99999999999"] {
            assert_eq!(bad.parse::<Version>().unwrap_err().kind(), ErrorKind::Undecodable, "{bad:?}");
        }
        assert_eq!(serde_json::from_str::<Version>("3").unwrap(), Version::new(3, 0));
        assert_eq!(serde_json::from_str::<Version>("\"1.2\"").unwrap(), Version::new(1, 2));
    }

    #[test]
    fn keys_are_text_or_bytes_as_they_are() {
        let key = |k: &dyn Key| k.to_key().map(Cow::into_owned);
        assert_eq!(key(&42_u32), Some(b"42".to_vec()));
        assert_eq!(key(&"é"), Some("é".as_bytes().to_vec()));
        assert_eq!(key(&Uuid::nil()), Some(b"00000000-0000-0000-0000-000000000000".to_vec()));
        assert_eq!(key(&None::<String>), None);
        assert_eq!(key(&String::new()), Some(Vec::new()));
    }
}
