//! The stored form of audit records: CloudEvents 1.0 as JSON.
//!
//! Names of fields are stored and must not change. Every text is bounded, so that no record is larger than
//! [`MAX_BYTES`] and none is refused by a broker for its size.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidings_core::audit::{AuditOutcome, AuditPhase, AuditRecord, Principal, StoredAudit};
use tidings_core::{Error, ErrorKind, Name, Result, Timestamp};
use uuid::Uuid;

use crate::chain::Checkpoint;
use crate::places::Places;

/// The longest text of a record, in bytes; longer ones are cut.
pub const MAX_TEXT: usize = 1 << 10;
/// The most resources of a record, and the most entries of each of its maps; [`AuditRecord::omitted`] counts the others.
pub const MAX_RESOURCES: usize = 200;
/// The most events of a record.
pub const MAX_EVENTS: usize = 1_000;

/// Initial capacity of an encoded record in bytes, without its events.
const ROOM: usize = 1 << 10;
const TYPE_PREFIX: &str = "tidings.audit.";
const TYPE_SUFFIX: &str = ".v1";
/// The verb of the records that state the end of their chain.
pub(crate) const CHECKPOINT: &str = "chain.checkpoint";
/// How the bytes of a checkpoint begin: fields are written in the order of the struct below.
const CHECKPOINT_START: &[u8] = br#"{"specversion":"1.0","type":"tidings.audit.chain.checkpoint.v1""#;

#[derive(Serialize, Deserialize)]
struct CloudEvent<'a> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    id: Uuid,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    subject: Option<Cow<'a, str>>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    datacontenttype: Cow<'a, str>,
    #[serde(borrow)]
    data: Data<'a>,
}

type Fields<'a, T> = BTreeMap<Cow<'a, str>, T>;

#[derive(Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Data<'a> {
    #[serde(borrow)]
    phase: Cow<'a, str>,
    #[serde(borrow)]
    principal: Who<'a>,
    #[serde(borrow, skip_serializing_if = "Vec::is_empty")]
    resources: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "is_zero")]
    omitted: u64,
    #[serde(borrow, skip_serializing_if = "BTreeMap::is_empty")]
    before: Fields<'a, Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "BTreeMap::is_empty")]
    after: Fields<'a, Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "str::is_empty")]
    reason: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    result: Option<Outcome<'a>>,
    #[serde(borrow, skip_serializing_if = "BTreeMap::is_empty")]
    counts: Fields<'a, u64>,
    #[serde(borrow, skip_serializing_if = "BTreeMap::is_empty")]
    failures: Fields<'a, Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    correlation_id: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    plan: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Places::is_empty")]
    events: Places<'a>,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Who<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    authenticated_by: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    address: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    instance: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Outcome<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "str::is_empty")]
    message: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    intent: Option<Uuid>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn cut(text: &str) -> Cow<'_, str> {
    Cow::Borrowed(&text[..text.floor_char_boundary(MAX_TEXT)])
}

fn cut_option(text: Option<&String>) -> Option<Cow<'_, str>> {
    text.map(|text| cut(text))
}

fn cut_map(map: &BTreeMap<String, String>) -> Fields<'_, Cow<'_, str>> {
    map.iter().take(MAX_RESOURCES).map(|(name, value)| (cut(name), cut(value))).collect()
}

/// Encodes a record of the writer `source`.
///
/// # Errors
/// [`ErrorKind::Invalid`]: it cannot be written as JSON, which no record is known to cause.
pub(crate) fn encode(source: &str, record: &AuditRecord) -> Result<Bytes> {
    let left_out =
        record.resources.len().saturating_sub(MAX_RESOURCES) + record.events.len().saturating_sub(MAX_EVENTS);
    let data = Data {
        phase: if record.outcome().is_some() { "result" } else { "intent" }.into(),
        principal: Who {
            name: cut(&record.principal.name),
            authenticated_by: cut(&record.principal.authenticated_by),
            address: cut_option(record.principal.address.as_ref()),
            instance: cut_option(record.principal.instance.as_ref()),
        },
        resources: record.resources.iter().take(MAX_RESOURCES).map(|resource| cut(resource)).collect(),
        omitted: record.omitted + left_out as u64,
        before: cut_map(&record.before),
        after: cut_map(&record.after),
        reason: cut(&record.reason),
        result: outcome_of(record),
        counts: record.counts.iter().take(MAX_RESOURCES).map(|(name, count)| (cut(name), *count)).collect(),
        failures: cut_map(&record.failures),
        correlation_id: cut_option(record.correlation_id.as_ref()),
        plan: cut_option(record.plan.as_ref()),
        events: Places::of(&record.events[..record.events.len().min(MAX_EVENTS)]),
    };
    let event = CloudEvent {
        specversion: "1.0".into(),
        kind: format!("{TYPE_PREFIX}{}{TYPE_SUFFIX}", cut(&record.verb)).into(),
        id: record.id,
        source: cut(source),
        subject: record.resources.first().map(|resource| cut(resource)),
        time: rfc3339(record.time).into(),
        datacontenttype: "application/json".into(),
        data,
    };
    let invalid = |e| Error::caused_by(ErrorKind::Invalid, "encode an audit record", e);
    let mut bytes = Vec::with_capacity(ROOM + record.events.len() * Places::BYTES);
    serde_json::to_writer(&mut bytes, &event).map_err(invalid)?;
    Ok(bytes.into())
}

fn outcome_of(record: &AuditRecord) -> Option<Outcome<'_>> {
    let AuditPhase::Result { intent, outcome } = &record.phase else { return None };
    let (kind, message) = match outcome {
        AuditOutcome::Denied { error } => (Some(ErrorKind::Denied), error.as_str()),
        AuditOutcome::Failed { kind, error } => (Some(*kind), error.as_str()),
        _ => (None, ""),
    };
    let kind = kind.map(|kind| kind.as_str().into());
    Some(Outcome { status: outcome.as_str().into(), kind, message: cut(message), intent: *intent })
}

/// Decodes the contents of a stored record, without verifying its hash.
///
/// ```
/// use tidings_audit::{Auditor, MemoryAudit, decode};
/// use tidings_core::audit::{AuditRecord, AuditSink, Principal};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidings_core::Result<()> {
/// let sink = MemoryAudit::new();
/// let intent = AuditRecord::intent(Principal::new("ann"), "topic.create").with_resource("topic:orders");
/// Auditor::new(sink.clone()).begin(intent).await?;
/// let stored = sink.read(None, 10).await?.records;
/// assert_eq!(decode(&stored[0])?.principal.name, "ann");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`ErrorKind::Undecodable`]: the bytes are no audit record; the message names the chain and the number.
pub fn decode(stored: &StoredAudit) -> Result<AuditRecord> {
    let wrong = |why: &str| {
        let StoredAudit { chain, seq, .. } = stored;
        Error::new(ErrorKind::Undecodable, format!("decode the audit record {seq} of the chain {chain}: {why}"))
    };
    let event: CloudEvent<'_> = serde_json::from_slice(&stored.bytes).map_err(|e| wrong(&e.to_string()))?;
    let verb = event.kind.strip_prefix(TYPE_PREFIX).and_then(|verb| verb.strip_suffix(TYPE_SUFFIX));
    let verb = verb.ok_or_else(|| wrong("its type is unknown"))?;
    let time = parse_rfc3339(&event.time).ok_or_else(|| wrong("its time is no RFC 3339"))?;
    let data = event.data;
    let owned = |map: Fields<'_, Cow<'_, str>>| {
        map.into_iter().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
    };
    let mut principal = Principal::new(data.principal.name).with_authentication(data.principal.authenticated_by);
    principal.address = data.principal.address.map(Cow::into_owned);
    principal.instance = data.principal.instance.map(Cow::into_owned);
    let mut record = AuditRecord::intent(principal, Name::from(verb));
    (record.id, record.time) = (event.id, time);
    record.phase = phase_of(data.result);
    record.resources = data.resources.into_iter().map(Cow::into_owned).collect();
    record.omitted = data.omitted;
    (record.before, record.after) = (owned(data.before), owned(data.after));
    record.reason = data.reason.into_owned();
    record.counts = data.counts.into_iter().map(|(name, count)| (name.into_owned(), count)).collect();
    record.failures = owned(data.failures);
    record.correlation_id = data.correlation_id.map(Cow::into_owned);
    record.plan = data.plan.map(Cow::into_owned);
    record.events = data.events.into_events();
    Ok(record)
}

fn phase_of(result: Option<Outcome<'_>>) -> AuditPhase {
    let Some(Outcome { status, kind, message, intent }) = result else { return AuditPhase::Intent };
    let error = message.into_owned();
    let outcome = match &*status {
        "ok" => AuditOutcome::Ok,
        "denied" => AuditOutcome::Denied { error },
        "failed" => AuditOutcome::Failed { kind: ErrorKind::from_name(kind.as_deref().unwrap_or_default()), error },
        _ => AuditOutcome::Unknown,
    };
    AuditPhase::Result { intent, outcome }
}

/// Builds the record that states the end of a chain.
pub(crate) fn checkpoint_record(source: &str, head: &Checkpoint) -> AuditRecord {
    let mut record = AuditRecord::intent(Principal::new(source), CHECKPOINT)
        .with_resource(format!("chain:{}", head.chain))
        .with_after("seq", head.seq.to_string())
        .with_after("hash", head.hash.to_string());
    record.phase = AuditPhase::Result { intent: None, outcome: AuditOutcome::Ok };
    record
}

/// Returns whether a record states the end of its chain, by the beginning of its bytes: a chain writes such records about
/// itself, between those of changes.
///
/// ```
/// use tidings_audit::{Auditor, MemoryAudit, is_checkpoint};
/// use tidings_core::audit::{AuditRecord, Principal};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidings_core::Result<()> {
/// let sink = MemoryAudit::new();
/// let auditor = Auditor::new(sink.clone());
/// auditor.denied(AuditRecord::intent(Principal::new("ann"), "topic.create"), "viewers create no topics").await?;
/// auditor.checkpoint().await?;
/// let checkpoints: Vec<bool> = sink.records().iter().map(is_checkpoint).collect();
/// assert_eq!(checkpoints, [false, false, true], "an intent, its result and the checkpoint");
/// # Ok(())
/// # }
/// ```
pub fn is_checkpoint(stored: &StoredAudit) -> bool {
    stored.bytes.starts_with(CHECKPOINT_START)
}

/// Returns the end of the chain that a checkpoint states; `None` if it is no checkpoint of ours.
pub(crate) fn checkpoint_in(stored: &StoredAudit) -> Option<Checkpoint> {
    let record = decode(stored).ok()?;
    let chain = record.resources.first()?.strip_prefix("chain:")?.to_owned();
    Some(Checkpoint::new(
        chain,
        record.after.get("seq")?.parse().ok()?,
        tidings_core::audit::AuditHash::parse(record.after.get("hash")?)?,
    ))
}

/// The years that RFC 3339 can write.
const LAST: Duration = Duration::from_secs(253_402_300_799);

fn rfc3339(time: Timestamp) -> String {
    let since = Duration::from_millis(u64::try_from(time.millis()).unwrap_or(0)).min(LAST);
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    humantime::parse_rfc3339(text).ok().map(|time: SystemTime| time.into())
}
