//! Bytes as JSON: text where they are printable text, else base64.

use ::bytes::Bytes;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes: a JSON string where they are printable text, else `{"base64": ".."}`. Both forms are read.
///
/// ```
/// use tidings_ops_api::wire::Text;
///
/// let json = |bytes: &'static [u8]| serde_json::to_string(&Text(bytes.into())).unwrap();
/// assert_eq!(json(b"ann"), "\"ann\"");
/// assert_eq!(json(&[255, 0]), "{\"base64\":\"/wA=\"}");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Text(pub Bytes);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form<'a> {
    Text(std::borrow::Cow<'a, str>),
    Coded { base64: String },
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match plain(&self.0) {
            Some(text) => Form::Text(text.into()).serialize(serializer),
            None => Form::Coded { base64: STANDARD.encode(&self.0) }.serialize(serializer),
        }
    }
}

/// Returns `bytes` as text if they are text without control characters, which would take six bytes each in JSON.
fn plain(bytes: &[u8]) -> Option<&str> {
    let is_allowed = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    let text = str::from_utf8(bytes).ok()?;
    (bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') || text.chars().all(is_allowed)).then_some(text)
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Form::deserialize(deserializer)? {
            Form::Text(text) => Ok(Self(text.into_owned().into())),
            Form::Coded { base64 } => STANDARD
                .decode(&base64)
                .map(|bytes| Self(bytes.into()))
                .map_err(|_| D::Error::custom("expected base64 with padding")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};

    use super::*;

    proptest! {
        #[test]
        fn bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..40), text in ".{0,20}") {
            for bytes in [Bytes::from(bytes), Bytes::from(text)] {
                let json = serde_json::to_string(&Text(bytes.clone())).unwrap();
                assert_eq!(serde_json::from_str::<Text>(&json).unwrap().0, bytes, "{json}");
            }
        }
    }
}
