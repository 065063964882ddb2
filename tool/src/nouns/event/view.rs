//! Records as JSON: texts as they are, other bytes as base64, so that an export can be imported byte for byte.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidings_core::{Header, Headers, Record, StoredRecord, Timestamp, TopicPartition, codec};

use crate::console::visible;
use crate::exit::one_line;
use crate::input::show_time;

/// The longest value that a table shows, in characters.
const SHOWN: usize = 160;

/// A record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventView {
    /// The topic.
    pub(crate) topic: String,
    /// The partition's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) partition: Option<u32>,
    /// The offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) offset: Option<u64>,
    /// The time in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timestamp: Option<i64>,
    /// The time in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) time: Option<String>,
    /// The event's type, if the record has one.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) event_type: Option<String>,
    /// The event's id, if the record has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    /// The key; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<Text>,
    /// The value; absent for a tombstone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<Text>,
    /// The headers, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) headers: Vec<HeaderView>,
    /// The payload, decoded by this program's type; absent without such a type. Not published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) payload: Option<Value>,
    /// Reason why this program's type cannot decode the value. Not published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) undecodable: Option<String>,
}

/// A header of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeaderView {
    /// The name.
    name: Text,
    /// The value; absent for null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Text>,
}

/// Bytes: a text if they are UTF-8, else base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Text {
    /// The bytes as text.
    Plain(String),
    /// Other bytes.
    Base64 {
        /// The bytes in base64.
        base64: String,
    },
}

impl From<&Bytes> for Text {
    fn from(bytes: &Bytes) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Plain(text.to_owned()),
            Err(_) => Self::Base64 { base64: STANDARD.encode(bytes) },
        }
    }
}

impl Text {
    /// Returns the bytes.
    pub(crate) fn bytes(&self) -> Result<Bytes, String> {
        match self {
            Self::Plain(text) => Ok(Bytes::from(text.clone())),
            Self::Base64 { base64 } => {
                STANDARD.decode(base64).map(Bytes::from).map_err(|_| "base64: not base64".to_owned())
            }
        }
    }

    /// Shows the beginning in one line.
    pub(crate) fn shown(&self) -> String {
        let (mark, text) = match self {
            Self::Plain(text) => ("", text.as_str()),
            Self::Base64 { base64 } => ("base64:", base64.as_str()),
        };
        let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN).collect();
        let more = if text.chars().nth(SHOWN).is_some() { ".." } else { "" };
        format!("{mark}{line}{more}")
    }
}

impl EventView {
    /// Creates the view of a record; without payload it has neither key, value nor headers.
    pub(crate) fn new(partition: &TopicPartition, record: &StoredRecord, payload: bool) -> Self {
        let head = codec::peek(record).ok();
        let header =
            |header: &Header| HeaderView { name: (&header.name).into(), value: header.value.as_ref().map(Text::from) };
        Self {
            topic: partition.topic.as_str().to_owned(),
            partition: Some(partition.partition),
            offset: Some(record.offset),
            timestamp: Some(record.timestamp.millis()),
            time: Some(show_time(record.timestamp)),
            event_type: head.as_ref().map(|head| head.event_type.clone().into_owned()),
            id: head.as_ref().map(|head| head.id.to_string()),
            key: record.key.as_ref().filter(|_| payload).map(Text::from),
            value: record.value.as_ref().filter(|_| payload).map(Text::from),
            headers: if payload { record.headers.iter().map(header).collect() } else { Vec::new() },
            payload: None,
            undecodable: None,
        }
    }

    /// Adds the payload as decoded by a type of the program.
    pub(crate) fn with_decoded(mut self, decoded: Option<Result<Value, String>>) -> Self {
        match decoded {
            Some(Ok(payload)) => self.payload = Some(payload),
            Some(Err(error)) => self.undecodable = Some(error),
            None => {}
        }
        self
    }

    /// Shows the payload, or the beginning of the value, in one line.
    pub(crate) fn content(&self) -> Option<String> {
        let decoded = self.payload.as_ref().map(|payload| Text::Plain(payload.to_string()).shown());
        decoded.or_else(|| self.value.as_ref().map(Text::shown))
    }

    /// Converts the view to a record to be published. Its partition and time are kept only if asked for.
    pub(crate) fn record(&self, topic: Option<&str>, partition: bool, time: bool) -> Result<Record, String> {
        if self.value.is_none() && self.payload.is_some() {
            // It would be published as a tombstone.
            return Err("payload: it is not published; give the value".to_owned());
        }
        let mut record = Record::new(topic.unwrap_or(&self.topic), Bytes::new());
        record.value = self.value.as_ref().map(Text::bytes).transpose()?;
        record.key = self.key.as_ref().map(Text::bytes).transpose()?;
        record.partition = self.partition.filter(|_| partition);
        record.timestamp = self.timestamp.filter(|_| time).map(Timestamp::from_millis);
        let mut headers = Headers::new();
        for header in &self.headers {
            let name = header.name.bytes()?;
            headers.push(match &header.value {
                Some(value) => Header::new(name, value.bytes()?),
                None => Header::null(name),
            });
        }
        Ok(record.with_headers(headers))
    }

    /// Shows the record in one line.
    pub(crate) fn line(&self) -> String {
        let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
        let place = format!("{}[{}]@{}", self.topic, number(self.partition.map(u64::from)), number(self.offset));
        let mut line = format!("{}  {place}", self.time.as_deref().unwrap_or("-"));
        let parts = [
            ("type", self.event_type.clone()),
            ("key", self.key.as_ref().map(Text::shown)),
            (if self.payload.is_some() { "payload" } else { "value" }, self.content()),
            ("undecodable", self.undecodable.clone()),
        ];
        parts.into_iter().filter_map(|(name, part)| Some((name, part?))).for_each(|(name, part)| {
            // Names and errors of foreign records may contain control characters.
            line.push_str(&format!("  {name}={}", visible(&one_line(&part))));
        });
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_byte_for_byte() {
        let headers = Headers::new().with("a", "1").with("a", vec![0xff]);
        let mut stored =
            StoredRecord::new(7, Timestamp::from_millis(5)).with_value(vec![0xfe, 0]).with_headers(headers);
        stored.headers.push(Header::null("n"));
        let view = EventView::new(&TopicPartition::new("t", 2), &stored, true);
        let text = serde_json::to_string(&view).unwrap();
        let back: EventView = serde_json::from_str(&text).unwrap();
        assert_eq!(back, view);
        let record = back.record(None, true, true).unwrap();
        assert_eq!((record.key, record.value, record.headers), (None, stored.value, stored.headers));
        assert_eq!((record.partition, record.timestamp), (Some(2), Some(Timestamp::from_millis(5))));
        let other = back.record(Some("u"), false, false).unwrap();
        assert_eq!((other.topic.as_str(), other.partition, other.timestamp), ("u", None, None));
    }

    #[test]
    fn a_payload_without_a_value_is_no_tombstone() {
        let view: EventView = serde_json::from_str(r#"{"topic": "t", "payload": {"id": 1}}"#).unwrap();
        assert!(view.record(None, false, false).unwrap_err().contains("give the value"));
    }

    #[test]
    fn without_payload_nothing_of_it_is_shown() {
        let stored = StoredRecord::new(7, Timestamp::from_millis(5)).with_key("secret").with_value("secret");
        let view = EventView::new(&TopicPartition::new("t", 2), &stored, false);
        assert!(!serde_json::to_string(&view).unwrap().contains("secret") && !view.line().contains("secret"));
    }

    #[test]
    fn a_line_has_no_control_characters() {
        let mut view: EventView = serde_json::from_str(r#"{"topic": "t", "type": "a\u001b[2J"}"#).unwrap();
        view.undecodable = Some("unknown variant `\u{1b}]0;x\u{7}\n`".to_owned());
        assert!(!view.line().contains(char::is_control), "{:?}", view.line());
    }
}
