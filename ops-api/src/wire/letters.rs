//! Dead letters: queries, and letters with or without their payload.

use serde::{Deserialize, Serialize};
use tidings_core::{DeadLetter, DeadLetterStore, Error, ErrorKind, LetterId, LetterQuery, LetterState, Name};
use tidings_core::{ResolutionKind, Result, Timestamp};

use super::bytes::Text;
use super::records::Stored;
use super::{At, unknown};

/// The stores of dead letters of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stores {
    /// Each store, by its name.
    pub stores: std::collections::BTreeMap<String, super::Kept>,
}

impl Stores {
    /// Creates the answer of these stores.
    pub fn of(stores: impl IntoIterator<Item = (String, super::Kept)>) -> Self {
        Self { stores: stores.into_iter().collect() }
    }
}

/// The identity of a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Id {
    /// The service that could not handle the record.
    pub service: String,
    /// The topic of the record.
    pub topic: String,
    /// The partition of the record.
    pub partition: u32,
    /// The offset of the record.
    pub offset: u64,
}

impl From<&LetterId> for Id {
    fn from(id: &LetterId) -> Self {
        let At { topic, partition } = (&id.origin).into();
        Self { service: id.service.to_string(), topic, partition, offset: id.offset }
    }
}

impl From<Id> for LetterId {
    fn from(wire: Id) -> Self {
        Self::new(wire.service, At { topic: wire.topic, partition: wire.partition }.into(), wire.offset)
    }
}

/// Selects letters. A field that is left out selects all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    /// These letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<Id>>,
    /// Those of this service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Those of records of this topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Those of this handler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// Those of records of this key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Text>,
    /// Those of events of this type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// Those of this kind of error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Those whose error contains this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Those of failures at this time or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// Those of failures before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
    /// `open` (the default), `parked`, `closed` or `any`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Those after this one, in the order of listing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Id>,
    /// The most letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

const STATES: [(LetterState, &str); 4] = [
    (LetterState::Open, "open"),
    (LetterState::Parked, "parked"),
    (LetterState::Closed, "closed"),
    (LetterState::Any, "any"),
];

impl From<&LetterQuery> for Query {
    fn from(query: &LetterQuery) -> Self {
        let state = STATES.iter().find(|(state, _)| *state == query.state).map(|(_, text)| (*text).to_owned());
        Self {
            ids: query.ids.as_ref().map(|ids| ids.iter().map(Id::from).collect()),
            service: query.service.as_ref().map(Name::to_string),
            topic: query.topic.as_ref().map(Name::to_string),
            handler: query.handler.as_ref().map(Name::to_string),
            key: query.key.clone().map(Text),
            event_type: query.event_type.clone(),
            kind: query.kind.map(|kind| kind.as_str().to_owned()),
            error: query.error.clone(),
            since_ms: query.since.map(Timestamp::millis),
            until_ms: query.until.map(Timestamp::millis),
            state,
            after: query.after.as_ref().map(Id::from),
            limit: query.limit,
        }
    }
}

impl TryFrom<Query> for LetterQuery {
    type Error = Error;

    fn try_from(wire: Query) -> Result<Self> {
        let mut query = Self::default();
        query.ids = wire.ids.map(|ids| ids.into_iter().map(LetterId::from).collect());
        query.service = wire.service.map(Name::from);
        query.topic = wire.topic.map(Name::from);
        query.handler = wire.handler.map(Name::from);
        query.key = wire.key.map(|key| key.0);
        query.event_type = wire.event_type;
        query.kind = wire.kind.as_deref().map(kind).transpose()?;
        query.error = wire.error;
        query.since = wire.since_ms.map(Timestamp::from_millis);
        query.until = wire.until_ms.map(Timestamp::from_millis);
        query.state = wire.state.as_deref().map_or(Ok(LetterState::Open), state)?;
        query.after = wire.after.map(LetterId::from);
        query.limit = wire.limit;
        Ok(query)
    }
}

fn state(text: &str) -> Result<LetterState> {
    let known = STATES.iter().find(|(_, known)| *known == text).map(|(state, _)| *state);
    known.ok_or_else(|| unknown("state", text, "open, parked, closed or any"))
}

/// Returns the kind of this name. An unknown one would be read as `failed`, and select other letters.
fn kind(text: &str) -> Result<ErrorKind> {
    let kind = ErrorKind::from_name(text);
    if kind.as_str() == text { Ok(kind) } else { Err(unknown("kind", text, "the name of a kind of error")) }
}

/// A request about letters of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LettersIn {
    /// The store's name.
    pub store: String,
    /// The letters.
    #[serde(default)]
    pub query: Query,
}

/// Letters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Letters {
    /// The letters.
    pub letters: Vec<Letter>,
    /// Whether more are selected than one answer has: ask for those after the last one.
    pub more: bool,
    /// The ranges that cannot be read, each with its cause; only the first ones if there are very many.
    pub unreadable: Vec<crate::ErrorBody>,
    /// The number of offsets of all ranges that cannot be read.
    #[serde(default)]
    pub unreadable_records: u64,
}

/// A letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Letter {
    /// Its identity.
    #[serde(flatten)]
    pub id: Id,
    /// The handler; empty if none was reached.
    pub handler: String,
    /// The type of the event, if it is known.
    pub event_type: Option<String>,
    /// The kind of the last error.
    pub kind: String,
    /// The last error, which may repeat parts of the record; empty where the record was not asked for.
    #[serde(default)]
    pub error: String,
    /// The number of attempts.
    pub attempts: u32,
    /// The time of the final failure.
    pub failed_at_ms: i64,
    /// The size of the record, in bytes.
    pub size: usize,
    /// The resolution of the letter; `None` while it is open.
    pub resolution: Option<Resolution>,
    /// The record; `None` where it was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Stored>,
}

/// A decision about letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolution {
    /// `redriven`, `discarded` or `parked`.
    pub kind: String,
    /// Who decided.
    pub by: String,
    /// Why; empty where the record was not asked for.
    #[serde(default)]
    pub reason: String,
    /// When; by default now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<i64>,
}

impl From<&tidings_core::Resolution> for Resolution {
    fn from(resolution: &tidings_core::Resolution) -> Self {
        Self {
            kind: resolution.kind.as_str().to_owned(),
            by: resolution.by.clone(),
            reason: resolution.reason.clone(),
            at_ms: Some(resolution.at.millis()),
        }
    }
}

impl TryFrom<Resolution> for tidings_core::Resolution {
    type Error = Error;

    fn try_from(wire: Resolution) -> Result<Self> {
        let kind = ResolutionKind::from_name(&wire.kind)
            .ok_or_else(|| unknown("kind", &wire.kind, "redriven, discarded or parked"))?;
        let at = wire.at_ms.map_or_else(Timestamp::now, Timestamp::from_millis);
        Ok(Self::new(kind, wire.by).with_reason(wire.reason).with_at(at))
    }
}

impl Letter {
    /// Creates the form of a letter: with its record, the text of its error and the reason of its resolution, or without.
    pub fn of(letter: &DeadLetter, whole: bool) -> Self {
        Self {
            id: (&letter.id()).into(),
            handler: letter.handler.to_string(),
            event_type: letter.event_type(),
            kind: letter.kind.as_str().to_owned(),
            error: if whole { letter.error.clone() } else { String::new() },
            attempts: letter.attempts,
            failed_at_ms: letter.failed_at.millis(),
            size: letter.record.size(),
            resolution: letter.resolution.as_ref().map(|resolution| {
                let mut resolution = Resolution::from(resolution);
                if !whole {
                    // Free text, which may repeat parts of the record as well.
                    resolution.reason.clear();
                }
                resolution
            }),
            record: whole.then(|| (&letter.record).into()),
        }
    }
}

impl TryFrom<Letter> for DeadLetter {
    type Error = Error;

    fn try_from(wire: Letter) -> Result<Self> {
        let missing = || Error::new(ErrorKind::Invalid, "record: a letter to be buried needs its record");
        let record = wire.record.ok_or_else(missing)?.into();
        let id = LetterId::from(wire.id);
        let kind = ErrorKind::from_name(&wire.kind);
        let mut letter = Self::new(id.service, id.origin, record, kind).with_handler(wire.handler);
        letter.error = wire.error;
        letter.attempts = wire.attempts;
        letter.failed_at = Timestamp::from_millis(wire.failed_at_ms);
        letter.resolution = wire.resolution.map(TryInto::try_into).transpose()?;
        Ok(letter)
    }
}

/// A number of letters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Count {
    /// The number.
    pub count: u64,
    /// The ranges that cannot be read, as of a list.
    #[serde(default)]
    pub unreadable: Vec<crate::ErrorBody>,
    /// The number of offsets of all ranges that cannot be read.
    #[serde(default)]
    pub unreadable_records: u64,
}

impl Count {
    /// Creates the answer of a store.
    pub fn new(count: u64, store: &dyn DeadLetterStore) -> Self {
        let unreadable = store.unreadable().iter().map(crate::ErrorBody::from).collect();
        Self { count, unreadable, unreadable_records: store.unreadable_records() }
    }
}

/// A request to bury letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Buried {
    /// The store's name.
    pub store: String,
    /// The letters, with their records.
    pub letters: Vec<Letter>,
}

/// A request to check that letters of topics can be buried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checked {
    /// The store's name.
    pub store: String,
    /// The topics of the records.
    pub topics: Vec<String>,
}

#[cfg(test)]
mod tests {
    use tidings_core::TopicPartition;

    use super::*;

    #[test]
    fn a_query_keeps_every_condition() {
        let id = |offset| LetterId::new("svc", TopicPartition::new("t", 1), offset);
        let mut query = LetterQuery::default().with_ids([id(1), id(2)]).with_service("svc").with_topic("t");
        query = query.with_handler("h").with_key(vec![0_u8, 255]).with_event_type("e").with_kind(ErrorKind::Denied);
        query = query.with_error("text").with_state(LetterState::Parked).with_after(id(3)).with_limit(4);
        query = query.with_times(Some(Timestamp::from_millis(5)), Some(Timestamp::from_millis(6)));
        let expected = format!("{query:?}");
        assert!(!expected.contains("None"), "a new condition: add it here and to the wire: {expected}");
        let json = serde_json::to_string(&Query::from(&query)).unwrap();
        let read = LetterQuery::try_from(serde_json::from_str::<Query>(&json).unwrap()).unwrap();
        assert_eq!(format!("{read:?}"), expected);
    }

    #[test]
    fn the_answer_of_an_older_endpoint_to_a_discard_is_read() {
        let answer: crate::wire::Discarded = serde_json::from_str(r#"{"count":3}"#).unwrap();
        assert_eq!((answer.count, answer.more), (3, false));
    }
}
