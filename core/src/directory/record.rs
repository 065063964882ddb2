//! The record of an instance, and its form in a topic.

use std::time::Duration;

use uuid::Uuid;

use crate::{Error, ErrorKind, Header, Name, Record, Result, StoredRecord, Timestamp};

/// The names of the headers of an entry in a topic.
mod header_names {
    pub(super) const SERVICE: &str = "service";
    pub(super) const INSTANCE: &str = "instance";
    pub(super) const GROUP: &str = "group";
    pub(super) const VERSION: &str = "version";
    pub(super) const OPS_URL: &str = "ops-url";
    pub(super) const STARTED: &str = "started";
    pub(super) const REFRESHED: &str = "refreshed";
    pub(super) const TTL_MS: &str = "ttl-ms";
    pub(super) const SETTINGS: &str = "settings";
    pub(super) const HANDLER: &str = "handler";
}

/// The namespace of digests of topologies. Stored digests are compared across programs, so it must not change.
const TOPOLOGY_NAMESPACE: Uuid = Uuid::from_u128(0x6f1c_9c5e_6f2b_4c7f_9a51_3c0f_3a53_7d21);
/// The longest text of an entry, in bytes.
const MAX_TEXT: usize = 1 << 10;
/// The most handlers of an entry.
const MAX_HANDLERS: usize = 1_000;

/// A handler of an instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct DirectoryHandler {
    /// The topic that it reads, with the service's prefix; empty for a handler of all topics.
    pub topic: Name,
    /// The handler's name: by default the type of its events.
    pub name: Name,
}

impl DirectoryHandler {
    /// Creates a handler of a topic.
    pub fn new(topic: impl Into<Name>, name: impl Into<Name>) -> Self {
        Self { topic: topic.into(), name: name.into() }
    }
}

/// The record that a running instance of a service keeps of itself. It contains no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectoryEntry {
    /// The service.
    pub service: Name,
    /// The instance's id, unique among the instances of the service.
    pub instance: String,
    /// The consumer group.
    pub group: Name,
    /// The version of the program; may be empty.
    pub version: String,
    /// The state of the service, such as `running`.
    pub state: String,
    /// The URL of the instance's ops endpoint, for operators.
    pub ops_url: Option<String>,
    /// The time at which the service started.
    pub started: Timestamp,
    /// The time at which the entry was written, by the instance's clock.
    pub refreshed: Timestamp,
    /// How long the entry is valid from then on.
    pub ttl: Duration,
    /// The digest of the settings.
    pub settings: String,
    /// The handlers.
    pub handlers: Vec<DirectoryHandler>,
}

impl DirectoryEntry {
    /// Creates the entry of an instance that started now.
    pub fn new(service: impl Into<Name>, instance: impl Into<String>, ttl: Duration) -> Self {
        let now = Timestamp::now();
        Self {
            service: service.into(),
            instance: instance.into(),
            group: Name::default(),
            version: String::new(),
            state: String::new(),
            ops_url: None,
            started: now,
            refreshed: now,
            ttl,
            settings: String::new(),
            handlers: Vec::new(),
        }
    }

    /// Sets the version of the program.
    #[must_use]
    pub fn with_version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Adds a handler.
    #[must_use]
    pub fn with_handler(mut self, handler: DirectoryHandler) -> Self {
        self.handlers.push(handler);
        self
    }

    /// Returns whether the entry is valid at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.refreshed.saturating_add(self.ttl) >= now
    }

    /// Returns the digest of topics and handlers, equal for equal ones in any order.
    pub fn topology(&self) -> String {
        let mut handlers: Vec<_> = self.handlers.iter().collect();
        handlers.sort();
        let texts: Vec<_> = handlers.iter().map(|handler| format!("{}\0{}", handler.topic, handler.name)).collect();
        Uuid::new_v5(&TOPOLOGY_NAMESPACE, texts.join("\0\0").as_bytes()).simple().to_string()
    }

    /// Encodes the entry as a record of a compacted topic.
    pub fn to_record(&self, topic: impl Into<Name>) -> Record {
        let millis = |time: Timestamp| time.millis().to_string();
        let mut headers = vec![
            (header_names::SERVICE, cut(&self.service)),
            (header_names::INSTANCE, cut(&self.instance)),
            (header_names::GROUP, cut(&self.group)),
            (header_names::VERSION, cut(&self.version)),
            (header_names::STARTED, millis(self.started)),
            (header_names::REFRESHED, millis(self.refreshed)),
            (header_names::TTL_MS, self.ttl.as_millis().to_string()),
            (header_names::SETTINGS, cut(&self.settings)),
        ];
        headers.extend(self.ops_url.iter().map(|url| (header_names::OPS_URL, cut(url))));
        // Neither a topic nor a type has a space in it.
        let handlers = self.handlers.iter().take(MAX_HANDLERS);
        headers.extend(handlers.map(|of| (header_names::HANDLER, cut(&format!("{} {}", of.topic, of.name)))));
        let mut record = Record::new(topic, cut(&self.state)).with_key(key(&self.service, &self.instance));
        record.headers = headers.into_iter().map(|(name, value)| Header::new(name, value)).collect();
        record
    }

    /// Decodes an entry.
    ///
    /// # Errors
    /// [`Undecodable`](ErrorKind::Undecodable): the record is no entry; the message names the header.
    pub fn from_record(record: &StoredRecord) -> Result<Self> {
        let text = |name: &'static str| record.headers.get_str(name).ok_or_else(|| undecodable(record.offset, name));
        fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
            text.parse().ok()
        }
        let time =
            |name| number(text(name)?).map(Timestamp::from_millis).ok_or_else(|| undecodable(record.offset, name));
        let ttl = number(text(header_names::TTL_MS)?).map(Duration::from_millis);
        let ttl = ttl.ok_or_else(|| undecodable(record.offset, header_names::TTL_MS))?;
        let handler = |header: &Header| {
            let text = str::from_utf8(header.value.as_ref()?).ok()?;
            let (topic, name) = text.split_once(' ')?;
            Some(DirectoryHandler::new(topic.to_owned(), name.to_owned()))
        };
        let handlers = record.headers.iter().filter(|header| header.name == header_names::HANDLER.as_bytes());
        let state = record.value.as_deref().and_then(|value| str::from_utf8(value).ok());
        Ok(Self {
            service: text(header_names::SERVICE)?.to_owned().into(),
            instance: text(header_names::INSTANCE)?.to_owned(),
            group: text(header_names::GROUP)?.to_owned().into(),
            version: text(header_names::VERSION)?.to_owned(),
            state: state.unwrap_or_default().to_owned(),
            ops_url: record.headers.get_str(header_names::OPS_URL).map(str::to_owned),
            started: time(header_names::STARTED)?,
            refreshed: time(header_names::REFRESHED)?,
            ttl,
            settings: text(header_names::SETTINGS)?.to_owned(),
            handlers: handlers.filter_map(handler).collect(),
        })
    }
}

/// Returns the key of an instance's records. Its parts are in the headers: it only has to tell instances apart.
pub(super) fn key(service: &Name, instance: &str) -> String {
    format!("{service}/{instance}")
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}

fn undecodable(offset: u64, header: &str) -> Error {
    let text = format!("read the directory entry at offset {offset}: its header {header} is missing or malformed");
    Error::new(ErrorKind::Undecodable, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> DirectoryEntry {
        let mut entry = DirectoryEntry::new("billing", "host-1", Duration::from_millis(1_500)).with_version("1.0");
        entry.group = "billing-group".into();
        entry.state = "running".to_owned();
        entry.ops_url = Some("http://10.0.0.7:9400".to_owned());
        entry.settings = "d1".to_owned();
        entry.with_handler(DirectoryHandler::new("orders", "a name")).with_handler(DirectoryHandler::new("", "rest"))
    }

    #[test]
    fn an_entry_survives_a_topic() {
        let record = StoredRecord::from_record(entry().to_record("directory"), 0, Timestamp::now());
        assert_eq!(DirectoryEntry::from_record(&record).unwrap(), entry_like(&record));
    }

    /// The entry with the times of the record.
    fn entry_like(record: &StoredRecord) -> DirectoryEntry {
        let read = DirectoryEntry::from_record(record).unwrap();
        DirectoryEntry { started: read.started, refreshed: read.refreshed, ..entry() }
    }

    #[test]
    fn other_records_are_refused() {
        for name in ["service", "instance", "started", "refreshed", "ttl-ms"] {
            let mut record = StoredRecord::from_record(entry().to_record("directory"), 7, Timestamp::now());
            record.headers.set(name, vec![0xff]);
            let error = DirectoryEntry::from_record(&record).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Undecodable);
            assert!(error.to_string().contains(name) && error.to_string().contains("offset 7"), "{error}");
        }
    }

    #[test]
    fn the_order_of_handlers_does_not_count() {
        let mut other = entry();
        other.handlers.reverse();
        assert_eq!(other.topology(), entry().topology());
        other.handlers.pop();
        assert_ne!(other.topology(), entry().topology());
    }
}
