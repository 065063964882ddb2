//! Configuration of a memory transport, in code or by a URL.
//!
//! Settings are checked once, by [`MemoryTransport::open`](crate::MemoryTransport::open) or
//! [`MemoryConfig::from_url`], never by the setters: a value out of range is an error that names
//! the field, not a panic.

use std::time::Duration;

use tidings_core::settings::{ConnectionUrl, Setting, SettingError};
use tidings_core::{Error, Result, Timestamp};

impl MemoryConfig {
    /// Default of [`MemoryConfig::partitions`].
    pub const DEFAULT_PARTITIONS: u32 = 1;

    /// Default of [`MemoryConfig::retention_records`].
    pub const DEFAULT_RETENTION_RECORDS: u64 = 1_000_000;

    /// Default of [`MemoryConfig::retention_bytes`]: 1 GiB.
    pub const DEFAULT_RETENTION_BYTES: u64 = 1 << 30;

    /// Default of [`MemoryConfig::max_record_bytes`]: 64 MiB.
    pub const DEFAULT_MAX_RECORD_BYTES: u64 = 64 << 20;

    /// Default of [`MemoryConfig::max_unanswered_records`].
    pub const DEFAULT_MAX_UNANSWERED_RECORDS: usize = 100_000;

    /// Default of [`MemoryConfig::max_unanswered_bytes`]: 64 MiB.
    pub const DEFAULT_MAX_UNANSWERED_BYTES: usize = 64 << 20;

    /// Default of [`MemoryConfig::max_delayed_records`].
    pub const DEFAULT_MAX_DELAYED_RECORDS: usize = 100_000;

    /// Default of [`MemoryConfig::max_delayed_bytes`]: 64 MiB.
    pub const DEFAULT_MAX_DELAYED_BYTES: usize = 64 << 20;

    /// Maximum number of partitions of a topic.
    pub const MAX_PARTITIONS: u32 = 10_000;
}

/// The parameters of a URL.
const PARAMETERS: [&str; 11] = [
    "partitions",
    "auto_create",
    "retention_records",
    "retention_bytes",
    "retention",
    "max_record_bytes",
    "max_unanswered_records",
    "max_unanswered_bytes",
    "max_delayed_records",
    "max_delayed_bytes",
    "start_time",
];

/// Settings of a memory transport.
///
/// ```
/// # use tidings_memory::MemoryConfig;
/// let config = MemoryConfig::new().with_partitions(3).with_auto_create(false);
/// let same = MemoryConfig::from_url("memory://?partitions=3&auto_create=false")?;
/// assert_eq!(config, same);
/// # Ok::<_, tidings_core::Error>(())
/// ```
///
/// Bounds keep a forgotten transport from eating the machine's memory; they are generous for tests.
/// A topic's own settings ([`Topic`](tidings_core::Topic)) take precedence where both exist.
///
/// A program that must not create topics by a typo disables [`auto_create`](Self::auto_create):
///
/// ```
/// # use tidings_core::{ErrorKind, PublisherExt, Record, Transport};
/// # use tidings_memory::{MemoryConfig, MemoryTransport};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidings_core::Result<()> {
/// let transport = MemoryTransport::open(MemoryConfig::new().with_auto_create(false))?;
/// let publisher = transport.publisher().await?;
/// let error = publisher.publish_one(Record::new("ordres", "1")).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// Number of partitions of a topic created by its first publish or subscription:
    /// [`MemoryConfig::DEFAULT_PARTITIONS`]. A dead-letter topic (`-dlq`) and that of its states (`-dlq-state`) get one.
    pub partitions: u32,
    /// Whether a topic's first publish or subscription creates it (the default); otherwise the call fails as
    /// `NotFound`.
    pub auto_create: bool,
    /// Records kept per partition: [`MemoryConfig::DEFAULT_RETENTION_RECORDS`]. The oldest are dropped first, read or
    /// not; a group that had not read them learns it from [`Assignment::missing`](tidings_core::Assignment::missing).
    pub retention_records: u64,
    /// Bytes kept per partition unless the topic sets its own limit: [`MemoryConfig::DEFAULT_RETENTION_BYTES`]. One
    /// record is always kept.
    pub retention_bytes: u64,
    /// How long records are kept, by their timestamps, unless the topic sets its own limit; `None`, the default,
    /// means forever.
    pub retention: Option<Duration>,
    /// The largest record in bytes, unless the topic sets its own limit: [`MemoryConfig::DEFAULT_MAX_RECORD_BYTES`].
    pub max_record_bytes: u64,
    /// Maximum number of unanswered records of a publisher: [`MemoryConfig::DEFAULT_MAX_UNANSWERED_RECORDS`]. Answers
    /// are delayed only by [`Faults`](crate::Faults).
    pub max_unanswered_records: usize,
    /// Maximum number of unanswered bytes of a publisher: [`MemoryConfig::DEFAULT_MAX_UNANSWERED_BYTES`].
    pub max_unanswered_bytes: usize,
    /// Maximum number of delayed records that wait: [`MemoryConfig::DEFAULT_MAX_DELAYED_RECORDS`]. Further ones are
    /// refused as `Unavailable`.
    pub max_delayed_records: usize,
    /// Maximum number of bytes of delayed records that wait: [`MemoryConfig::DEFAULT_MAX_DELAYED_BYTES`]. A single
    /// record may be larger.
    pub max_delayed_bytes: usize,
    /// Initial time of the transport's clock; `None`, the default, means the wall clock's time. It advances by
    /// tokio's clock, so it stands still while that is paused.
    pub start_time: Option<Timestamp>,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            partitions: MemoryConfig::DEFAULT_PARTITIONS,
            auto_create: true,
            retention_records: MemoryConfig::DEFAULT_RETENTION_RECORDS,
            retention_bytes: MemoryConfig::DEFAULT_RETENTION_BYTES,
            retention: None,
            max_record_bytes: MemoryConfig::DEFAULT_MAX_RECORD_BYTES,
            max_unanswered_records: MemoryConfig::DEFAULT_MAX_UNANSWERED_RECORDS,
            max_unanswered_bytes: MemoryConfig::DEFAULT_MAX_UNANSWERED_BYTES,
            max_delayed_records: MemoryConfig::DEFAULT_MAX_DELAYED_RECORDS,
            max_delayed_bytes: MemoryConfig::DEFAULT_MAX_DELAYED_BYTES,
            start_time: None,
        }
    }
}

impl MemoryConfig {
    /// Creates a configuration with the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Parses `memory://?partitions=3&auto_create=false`. Parameters have the names of the fields; durations have a
    /// unit (`500ms`, `30s`, `5m`, `12h`, `7d`), sizes may have one (`64KiB`), and `start_time` is in milliseconds
    /// since the Unix epoch.
    ///
    /// # Errors
    /// [`Invalid`](tidings_core::ErrorKind::Invalid), naming the part of the URL or the parameter and the expected
    /// form. Errors never contain the URL.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tidings_core::ErrorKind;
    /// # use tidings_memory::MemoryConfig;
    /// let config = MemoryConfig::from_url("memory://?retention=12h&max_record_bytes=64KiB")?;
    /// assert_eq!(config.retention, Some(Duration::from_secs(12 * 3_600)));
    /// assert_eq!(config.max_record_bytes, 64 << 10);
    ///
    /// let error = MemoryConfig::from_url("memory://?partition=3").unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Invalid);
    /// # Ok::<_, tidings_core::Error>(())
    /// ```
    pub fn from_url(url: &str) -> Result<Self> {
        let config = Self::read(url).map_err(in_context)?;
        config.check()?;
        Ok(config)
    }

    /// Reads the URL without checking ranges. A user, a host or a path is refused rather than
    /// ignored: it suggests a URL meant for another transport.
    fn read(url: &str) -> Result<Self, SettingError> {
        let url = ConnectionUrl::parts(url)?;
        let expected = |expected: &str| Err(SettingError::expected("the URL", expected));
        if url.scheme() != "memory" {
            return expected("the scheme memory://");
        }
        if url.username().is_some() || url.password().is_some() {
            return expected("neither a user nor a password in memory://");
        }
        if !url.hosts().is_empty() || !url.path().is_empty() {
            return expected("neither a host nor a path in memory://");
        }
        let mut config = Self::default();
        url.for_each_parameter(&PARAMETERS, |setting| config.set(&setting))?;
        Ok(config)
    }

    /// Sets the field that a parameter names.
    fn set(&mut self, setting: &Setting<'_>) -> Result<(), SettingError> {
        match setting.name() {
            "partitions" => self.partitions = setting.number()?,
            "auto_create" => self.auto_create = setting.boolean()?,
            "retention_records" => self.retention_records = setting.number()?,
            "retention_bytes" => self.retention_bytes = setting.bytes()?,
            "retention" => self.retention = Some(setting.duration()?),
            "max_record_bytes" => self.max_record_bytes = setting.bytes()?,
            "max_unanswered_records" => self.max_unanswered_records = setting.number()?,
            "max_unanswered_bytes" => self.max_unanswered_bytes = setting.bytes()?,
            "max_delayed_records" => self.max_delayed_records = setting.number()?,
            "max_delayed_bytes" => self.max_delayed_bytes = setting.bytes()?,
            "start_time" => self.start_time = Some(Timestamp::from_millis(setting.number()?)),
            name => return Err(SettingError::unknown(name, &PARAMETERS)),
        }
        Ok(())
    }

    /// Checks all ranges, since fields are public and may be set without the setters.
    ///
    /// # Errors
    /// [`Invalid`](tidings_core::ErrorKind::Invalid), naming the field.
    pub(crate) fn check(&self) -> Result<()> {
        if self.partitions == 0 || self.partitions > MemoryConfig::MAX_PARTITIONS {
            let expected = format_args!("1 to {}", MemoryConfig::MAX_PARTITIONS);
            return Err(in_context(SettingError::expected("partitions", expected)));
        }
        let positive = [
            ("retention_records", self.retention_records),
            ("retention_bytes", self.retention_bytes),
            ("max_record_bytes", self.max_record_bytes),
            ("max_unanswered_records", self.max_unanswered_records as u64),
            ("max_unanswered_bytes", self.max_unanswered_bytes as u64),
            ("max_delayed_records", self.max_delayed_records as u64),
            ("max_delayed_bytes", self.max_delayed_bytes as u64),
        ];
        match positive.iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(in_context(SettingError::expected(*name, "1 or more"))),
            None => Ok(()),
        }
    }

    /// Sets [`partitions`](Self::partitions).
    ///
    /// From 1 to [`MAX_PARTITIONS`](Self::MAX_PARTITIONS).
    #[must_use]
    pub fn with_partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self
    }

    /// Sets [`auto_create`](Self::auto_create).
    ///
    /// A dead-letter topic is created on demand only if this is set, too.
    #[must_use]
    pub fn with_auto_create(mut self, auto_create: bool) -> Self {
        self.auto_create = auto_create;
        self
    }

    /// Sets [`retention_records`](Self::retention_records).
    ///
    /// 1 or more, for each partition.
    #[must_use]
    pub fn with_retention_records(mut self, records: u64) -> Self {
        self.retention_records = records;
        self
    }

    /// Sets [`retention_bytes`](Self::retention_bytes).
    ///
    /// 1 or more, for each partition.
    #[must_use]
    pub fn with_retention_bytes(mut self, bytes: u64) -> Self {
        self.retention_bytes = bytes;
        self
    }

    /// Sets [`retention`](Self::retention).
    ///
    /// [`Duration::MAX`] keeps records forever, as does not calling it.
    #[must_use]
    pub fn with_retention(mut self, retention: Duration) -> Self {
        self.retention = Some(retention);
        self
    }

    /// Sets [`max_record_bytes`](Self::max_record_bytes).
    ///
    /// 1 or more. A dead-letter topic accepts some more than this, for the headers that describe
    /// the failure.
    #[must_use]
    pub fn with_max_record_bytes(mut self, bytes: u64) -> Self {
        self.max_record_bytes = bytes;
        self
    }

    /// Sets [`max_unanswered_records`](Self::max_unanswered_records).
    ///
    /// 1 or more. At the bound a publish waits for answers before it stores further records.
    #[must_use]
    pub fn with_max_unanswered_records(mut self, records: usize) -> Self {
        self.max_unanswered_records = records;
        self
    }

    /// Sets [`max_unanswered_bytes`](Self::max_unanswered_bytes).
    ///
    /// 1 or more. A single record that is larger than the bound is stored alone.
    #[must_use]
    pub fn with_max_unanswered_bytes(mut self, bytes: usize) -> Self {
        self.max_unanswered_bytes = bytes;
        self
    }

    /// Sets [`max_delayed_records`](Self::max_delayed_records).
    ///
    /// 1 or more. Further delayed records are refused as `Unavailable`.
    #[must_use]
    pub fn with_max_delayed_records(mut self, records: usize) -> Self {
        self.max_delayed_records = records;
        self
    }

    /// Sets [`max_delayed_bytes`](Self::max_delayed_bytes).
    ///
    /// 1 or more. A single record that is larger than the bound is held back alone.
    #[must_use]
    pub fn with_max_delayed_bytes(mut self, bytes: usize) -> Self {
        self.max_delayed_bytes = bytes;
        self
    }

    /// Sets [`start_time`](Self::start_time).
    ///
    /// ```
    /// # use tidings_core::Timestamp;
    /// # use tidings_memory::{MemoryConfig, MemoryTransport};
    /// let start = Timestamp::from_millis(1_700_000_000_000);
    /// let transport = MemoryTransport::open(MemoryConfig::new().with_start_time(start))?;
    /// assert!(transport.now() >= start);
    /// # Ok::<_, tidings_core::Error>(())
    /// ```
    #[must_use]
    pub fn with_start_time(mut self, time: Timestamp) -> Self {
        self.start_time = Some(time);
        self
    }
}

/// Prefixes `error` with the task, as all errors of this file are shown.
fn in_context(error: SettingError) -> Error {
    Error::from(error).in_context("configure the memory transport")
}

#[cfg(test)]
mod tests {
    use tidings_core::ErrorKind;

    use super::*;

    #[test]
    fn every_parameter_of_the_url_sets_its_field() {
        let url = "memory://?partitions=2&auto_create=false&retention_records=3&retention_bytes=4&retention=5m\
                   &max_record_bytes=6&max_unanswered_records=7&max_unanswered_bytes=8&start_time=9\
                   &max_delayed_records=10&max_delayed_bytes=11";
        let wanted = MemoryConfig {
            partitions: 2,
            auto_create: false,
            retention_records: 3,
            retention_bytes: 4,
            retention: Some(Duration::from_secs(300)),
            max_record_bytes: 6,
            max_unanswered_records: 7,
            max_unanswered_bytes: 8,
            max_delayed_records: 10,
            max_delayed_bytes: 11,
            start_time: Some(Timestamp::from_millis(9)),
        };
        assert_eq!(MemoryConfig::from_url(url).unwrap(), wanted);
        assert_eq!(MemoryConfig::from_url("memory://").unwrap(), MemoryConfig::default());
    }

    #[test]
    fn a_wrong_url_is_refused_by_the_parameters_name() {
        let cases = [
            ("memory://?partition=3", "partition: no such setting, did you mean partitions?"),
            ("memory://?partitoins=3", "did you mean partitions?"),
            ("memory://?autocreate=true", "did you mean auto_create?"),
            ("memory://?x=3", "parameter 1: no such setting, expected partitions, auto_create"),
            ("memory://?partitions=0", "partitions: expected 1 to 10000"),
            ("memory://?partitions=10001", "partitions: expected 1 to 10000"),
            ("memory://?partitions=x", "partitions: expected a number"),
            ("memory://?partitions=-1", "partitions: expected a number"),
            ("memory://?partitions=99999999999999999999", "partitions: expected a number"),
            ("memory://?partitions", "parameter 1: expected name=value"),
            ("memory://?partitions=", "partitions: expected a number"),
            ("memory://?partitions=1&partitions=2", "partitions: duplicate parameter"),
            ("memory://?partitions=1;auto_create=true", "partitions: expected a number"),
            ("memory://?auto_create=yes", "auto_create: expected true or false"),
            ("memory://?retention=5", "such as 500ms"),
            ("memory://?retention=99999999999999999d", "retention: expected a duration"),
            ("memory://?retention=-1s", "retention: expected a duration"),
            ("memory://?max_record_bytes=0", "max_record_bytes: expected 1 or more"),
            ("memory://?max_record_bytes=1KB", "max_record_bytes: expected bytes"),
            ("memory://?start_time=now", "start_time: expected a number"),
            ("memory://?partitions=1 ", "the path or the parameters: expected percent-encoded"),
            ("memory://?partitions=%zz", "the path or the parameters: expected percent-encoded"),
            ("memory://host", "neither a host"),
            ("memory://host:1", "neither a host"),
            ("memory://host:0", "the host: expected"),
            ("memory://host:99999", "the host: expected"),
            ("memory://::1", "the host: expected"),
            ("memory://a b", "the host: expected"),
            ("memory://a;b", "the host: expected"),
            ("memory://a,b", "neither a host"),
            ("memory:///path", "nor a path"),
            ("memory://user@", "neither a user"),
            ("memory://user:PASSWORD@host", "neither a user"),
            ("memory://user:PASSWORD]", "the host: expected"),
            ("memory://user:12?PASSWORD@host", "no @ after the hosts"),
            ("memory://#x", "%23"),
            ("memory:", "expected a scheme and ://"),
            ("memory:/", "expected a scheme and ://"),
            ("memory", "expected a scheme and ://"),
            ("", "expected a scheme and ://"),
            ("kafka://", "memory://"),
            (" memory://", "expected a scheme of letters"),
        ];
        for (url, part) in cases {
            let error = MemoryConfig::from_url(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            let shown = format!("{error} {error:?}");
            assert!(error.to_string().contains(part) && !shown.contains("PASSWORD"), "{url}: {error}");
        }
    }
}
