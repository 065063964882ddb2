//! `dead-letter show`.

use bytes::Bytes;
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use tidings_core::{DeadLetter, LetterId};

use super::list::state_of;
use super::{open, parse_id, show_id};
use crate::context::{Context, Query};
use crate::exit::Failure;
use crate::input::show_time;
use crate::output::{Table, View, or_dash};
use crate::services::Services;

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The letter, as `dead-letter list` prints it
    #[arg(value_name = "ID", value_parser = parse_id)]
    id: LetterId,
    /// Show the key, the headers and the value, too
    #[arg(long)]
    payload: bool,
}

/// A letter.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ShownLetter {
    /// The identity: service, topic, partition and offset of the record.
    id: String,
    /// The event's id, if it can be read.
    event_id: Option<String>,
    /// The type of the event, if it can be read.
    event_type: Option<String>,
    /// The handler; empty if none was reached.
    handler: String,
    /// The kind of the error.
    kind: String,
    /// The error with its sources. It may repeat a part of the payload.
    error: String,
    /// The number of attempts.
    attempts: u32,
    /// The number of redrives before.
    redrives: u32,
    /// The time of the record (RFC 3339).
    recorded_at: String,
    /// The time of the final failure (RFC 3339).
    failed_at: String,
    /// `open`, `parked`, `redriven` or `discarded`.
    state: String,
    /// Who resolved it.
    resolved_by: Option<String>,
    /// When it was resolved (RFC 3339).
    resolved_at: Option<String>,
    /// Why it was resolved.
    reason: Option<String>,
    /// The size of the value in bytes; absent if it is null.
    value_bytes: Option<usize>,
    /// The payload; absent unless it was asked for.
    payload: Option<Payload>,
}

/// A record's payload.
#[derive(Debug, Serialize, JsonSchema)]
struct Payload {
    /// The key.
    key: Option<Shown>,
    /// The headers, in their order.
    headers: Vec<(String, Option<Shown>)>,
    /// The value.
    value: Option<Shown>,
    /// The event's payload, decoded by this program's type; absent without such a type.
    event: Option<Value>,
    /// Reason why this program's type cannot decode the value.
    undecodable: Option<String>,
}

/// Bytes: JSON where they are JSON, else text, else hexadecimal digits.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Shown {
    Json(Value),
    Text(String),
    Hex(String),
}

impl Shown {
    fn new(bytes: &Bytes) -> Self {
        let text = std::str::from_utf8(bytes).ok();
        // A plain word or number is a text.
        let json = text.filter(|text| text.starts_with(['{', '['])).and_then(|text| serde_json::from_str(text).ok());
        match (json, text) {
            (Some(json), _) => Self::Json(json),
            (None, Some(text)) => Self::Text(text.to_owned()),
            (None, None) => Self::Hex(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Json(json) => json.to_string(),
            Self::Text(text) => text.escape_debug().to_string(),
            Self::Hex(digits) => format!("0x{digits}"),
        }
    }
}

impl ShownLetter {
    fn new(letter: &DeadLetter, services: &Services, with_payload: bool) -> Self {
        let resolution = letter.resolution.as_ref();
        let record = &letter.record;
        let header = |header: &tidings_core::Header| {
            (String::from_utf8_lossy(&header.name).into_owned(), header.value.as_ref().map(Shown::new))
        };
        let payload = || {
            let (event, undecodable) = match services.decode(&letter.origin.topic, record) {
                Some(Ok(event)) => (Some(event), None),
                Some(Err(error)) => (None, Some(error)),
                None => (None, None),
            };
            Payload {
                key: record.key.as_ref().map(Shown::new),
                headers: record.headers.iter().map(header).collect(),
                value: record.value.as_ref().map(Shown::new),
                event,
                undecodable,
            }
        };
        Self {
            id: show_id(&letter.id()),
            event_id: letter.event_id().map(|id| id.to_string()),
            event_type: letter.event_type(),
            handler: letter.handler.as_str().to_owned(),
            kind: letter.kind.as_str().to_owned(),
            error: letter.error.clone(),
            attempts: letter.attempts,
            redrives: letter.redrives(),
            recorded_at: show_time(record.timestamp),
            failed_at: show_time(letter.failed_at),
            state: state_of(letter).to_owned(),
            resolved_by: resolution.map(|resolution| resolution.by.clone()),
            resolved_at: resolution.map(|resolution| show_time(resolution.at)),
            reason: resolution.map(|resolution| resolution.reason.clone()),
            value_bytes: record.value.as_ref().map(Bytes::len),
            payload: with_payload.then(payload),
        }
    }
}

impl Query for Show {
    type View = ShownLetter;

    async fn run(&self, cx: &Context) -> Result<ShownLetter, Failure> {
        let letters = open(cx, &[self.id.origin.topic.as_str().to_owned()]).await?;
        let found = letters.get(&self.id).await;
        let unreadable = letters.store().unreadable();
        letters.close().await?;
        match found? {
            Some(letter) => Ok(ShownLetter::new(&letter, &cx.services, self.payload)),
            None => Err(match unreadable.into_iter().next() {
                Some(error) => {
                    let what = format!("find the letter {}, which may be one that cannot be read", show_id(&self.id));
                    Failure::from(error.in_context(what))
                }
                None => Failure::failed(format!("the letter {} does not exist", show_id(&self.id)))
                    .with_hint("see `tidings dead-letter list --state any`"),
            }),
        }
    }
}

impl View for ShownLetter {
    const ITEMS: Option<&'static str> = None;

    fn tables(&self) -> Vec<Table> {
        let optional = |value: &Option<String>| or_dash(value.as_ref());
        let mut rows = vec![
            ("letter", self.id.clone()),
            ("event", optional(&self.event_id)),
            ("type", optional(&self.event_type)),
            ("handler", or_dash(Some(&self.handler).filter(|handler| !handler.is_empty()))),
            ("kind", self.kind.clone()),
            ("error", self.error.clone()),
            ("attempts", self.attempts.to_string()),
            ("redrives", self.redrives.to_string()),
            ("recorded", self.recorded_at.clone()),
            ("failed", self.failed_at.clone()),
            ("state", self.state.clone()),
        ];
        if let (Some(by), Some(at), Some(reason)) = (&self.resolved_by, &self.resolved_at, &self.reason) {
            rows.extend([("by", by.clone()), ("at", at.clone()), ("reason", reason.clone())]);
        }
        rows.push(("value", self.value_bytes.map_or("null".to_owned(), |bytes| format!("{bytes} bytes"))));
        let rows = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]);
        let mut tables = vec![Table::new(&["PROPERTY", "VALUE"]).with_rows(rows)];
        tables.extend(self.payload.as_ref().map(Payload::table));
        tables
    }

    fn notes(&self) -> Vec<String> {
        let hint = "Key, headers and value: --payload.".to_owned();
        if self.payload.is_some() { Vec::new() } else { vec![hint] }
    }
}

impl Payload {
    fn table(&self) -> Table {
        let shown = |shown: &Option<Shown>| shown.as_ref().map_or("null".to_owned(), Shown::text);
        let headers = self.headers.iter().map(|(name, value)| vec![format!("header {name}"), shown(value)]);
        let rows = std::iter::once(vec!["key".to_owned(), shown(&self.key)]);
        let value = vec!["value".to_owned(), shown(&self.value)];
        let decoded = [("event", self.event.as_ref().map(Value::to_string)), ("undecodable", self.undecodable.clone())];
        let decoded = decoded.into_iter().filter_map(|(name, text)| Some(vec![name.to_owned(), text?]));
        Table::new(&["PAYLOAD", "CONTENT"]).with_rows(rows.chain(headers).chain([value]).chain(decoded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_what_they_are() {
        let shown = |bytes: &'static [u8]| Shown::new(&Bytes::from_static(bytes)).text();
        assert_eq!(shown(b"{\"a\": 1}"), "{\"a\":1}");
        assert_eq!(shown(b"u-1\n"), "u-1\\n");
        assert_eq!(shown(b"{half"), "{half");
        assert_eq!(shown(b"\xff\x00"), "0xff00");
    }
}
