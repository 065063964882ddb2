//! Stored form of an audit record's events: a list of `<partition>@<offset> <id>`.

use std::borrow::Cow;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tidings_core::audit::AuditedEvent;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

/// Digits of the largest number.
const DIGITS: usize = 20;
/// Length of the longest event as text: a partition, an offset, an id and the separators.
const LONGEST: usize = 2 * DIGITS + Hyphenated::LENGTH + 2;

/// The events of a record.
#[derive(Debug, Default)]
pub(crate) struct Places<'a>(Cow<'a, [AuditedEvent]>);

impl<'a> Places<'a> {
    /// Typical size of an event in a record, in bytes.
    pub(crate) const BYTES: usize = 52;

    pub(crate) const fn of(events: &'a [AuditedEvent]) -> Self {
        Self(Cow::Borrowed(events))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_events(self) -> Vec<AuditedEvent> {
        self.0.into_owned()
    }
}

impl Serialize for Places<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Place))
    }
}

impl<'de> Deserialize<'de> for Places<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let places = Vec::<Read>::deserialize(deserializer)?;
        Ok(Self(places.into_iter().map(|Read(event)| event).collect()))
    }
}

/// An event to be written.
struct Place<'a>(&'a AuditedEvent);

impl Serialize for Place<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = Text { bytes: [0; LONGEST], length: 0 };
        serializer.serialize_str(text.write(self.0))
    }
}

/// The text of an event, without `fmt`, which would take most of the time of recording an event.
struct Text {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Text {
    fn write(&mut self, event: &AuditedEvent) -> &str {
        self.number(event.partition.into());
        self.push(b"@");
        self.number(event.offset);
        if let Some(id) = event.id {
            self.push(b" ");
            let mut text = [0; Hyphenated::LENGTH];
            self.push(id.hyphenated().encode_lower(&mut text).as_bytes());
        }
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    fn number(&mut self, mut number: u64) {
        let (mut digits, mut first) = ([b'0'; DIGITS], DIGITS);
        while number > 0 || first == DIGITS {
            first -= 1;
            digits[first] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self.push(&digits[first..]);
    }
}

/// An event to be read.
struct Read(AuditedEvent);

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let parsed = || {
            let (position, id) = text.split_once(' ').map_or((&*text, None), |(position, id)| (position, Some(id)));
            let (partition, offset) = position.split_once('@')?;
            let id = id.map(|id| Uuid::try_parse(id).ok());
            let id = if let Some(id) = id { Some(id?) } else { None };
            Some(AuditedEvent::new(partition.parse().ok()?, offset.parse().ok()?, id))
        };
        parsed().map(Self).ok_or_else(|| D::Error::custom("expected an event as <partition>@<offset> <id>"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_stored_as_positions_and_ids() {
        let id = Uuid::from_u128(0x0193_9bd5_7b6c_7000_8000_0000_0000_0001);
        let events = [
            AuditedEvent::new(0, 0, None),
            AuditedEvent::new(7, 1_000, Some(id)),
            AuditedEvent::new(u32::MAX, u64::MAX, Some(Uuid::max())),
        ];
        let text = serde_json::to_string(&Places::of(&events)).unwrap();
        let stored = r#"["0@0","7@1000 01939bd5-7b6c-7000-8000-000000000001","4294967295@18446744073709551615 ffffffff-ffff-ffff-ffff-ffffffffffff"]"#;
        assert_eq!(text, stored);
        assert_eq!(serde_json::from_str::<Places<'_>>(&text).unwrap().into_events(), events);
    }

    #[test]
    fn other_texts_are_no_events() {
        for text in ["", "7", "7@", "@7", "7@x", "x@7", "7@7 ", "7@7 x", "-1@7"] {
            assert!(serde_json::from_str::<Places<'_>>(&format!("[{text:?}]")).is_err(), "{text}");
        }
    }
}
