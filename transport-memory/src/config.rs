//! How a memory transport is set up, in code or by a URL.

use std::str::FromStr;
use std::time::Duration;

use tidings_core::{Error, ErrorKind, Result, Timestamp};

/// The default of [`MemoryConfig::partitions`].
pub const DEFAULT_PARTITIONS: u32 = 1;
/// The default of [`MemoryConfig::retention_records`].
pub const DEFAULT_RETENTION_RECORDS: u64 = 1_000_000;
/// The default of [`MemoryConfig::retention_bytes`]: 1 GiB.
pub const DEFAULT_RETENTION_BYTES: u64 = 1 << 30;
/// The default of [`MemoryConfig::max_record_bytes`]: 64 MiB.
pub const DEFAULT_MAX_RECORD_BYTES: u64 = 64 << 20;
/// The default of [`MemoryConfig::max_unanswered_records`].
pub const DEFAULT_MAX_UNANSWERED_RECORDS: usize = 100_000;
/// The default of [`MemoryConfig::max_unanswered_bytes`]: 64 MiB.
pub const DEFAULT_MAX_UNANSWERED_BYTES: usize = 64 << 20;
/// The most partitions that a topic may have.
pub const MAX_PARTITIONS: u32 = 10_000;

/// How a memory transport is set up.
///
/// ```
/// # use tidings_memory::MemoryConfig;
/// let config = MemoryConfig::new().with_partitions(3).with_auto_create(false);
/// let same = MemoryConfig::from_url("memory://?partitions=3&auto_create=false")?;
/// assert_eq!(config, same);
/// # Ok::<_, tidings_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// How many partitions a topic gets that is created by its first publish or subscription: [`DEFAULT_PARTITIONS`].
    /// A dead-letter topic (`-dlq`) gets one.
    pub partitions: u32,
    /// Whether a topic is created by its first publish or subscription (the default); otherwise it is `NotFound`.
    pub auto_create: bool,
    /// Records kept per partition: [`DEFAULT_RETENTION_RECORDS`]. The oldest are dropped first, read or not; a group that
    /// had not read them is told, by [`Assignment::missing`](tidings_core::Assignment::missing).
    pub retention_records: u64,
    /// Bytes kept per partition, where the topic does not say: [`DEFAULT_RETENTION_BYTES`]. One record is always kept.
    pub retention_bytes: u64,
    /// How long records are kept, by their timestamps, where the topic does not say; `None`, the default, is for ever.
    pub retention: Option<Duration>,
    /// The largest record in bytes, where the topic does not say: [`DEFAULT_MAX_RECORD_BYTES`].
    pub max_record_bytes: u64,
    /// Records that a publisher may have unanswered: [`DEFAULT_MAX_UNANSWERED_RECORDS`]. Only answers that
    /// [`Faults`](crate::Faults) delay are ever waited for.
    pub max_unanswered_records: usize,
    /// Bytes that a publisher may have unanswered: [`DEFAULT_MAX_UNANSWERED_BYTES`].
    pub max_unanswered_bytes: usize,
    /// What the transport's clock shows when it is opened; `None`, the default, is the wall clock's time. It goes on by
    /// tokio's clock, so that it stands still where that is paused.
    pub start_time: Option<Timestamp>,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            partitions: DEFAULT_PARTITIONS,
            auto_create: true,
            retention_records: DEFAULT_RETENTION_RECORDS,
            retention_bytes: DEFAULT_RETENTION_BYTES,
            retention: None,
            max_record_bytes: DEFAULT_MAX_RECORD_BYTES,
            max_unanswered_records: DEFAULT_MAX_UNANSWERED_RECORDS,
            max_unanswered_bytes: DEFAULT_MAX_UNANSWERED_BYTES,
            start_time: None,
        }
    }
}

impl MemoryConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads `memory://?partitions=3&auto_create=false`. Parameters have the names of the fields; durations are a whole
    /// number with a unit (`500ms`, `30s`, `5m`, `12h`, `7d`), `start_time` is in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid), naming the parameter: an unknown one, one that is given twice, or a value that it
    /// can't take.
    pub fn from_url(url: &str) -> Result<Self> {
        let rest = url.strip_prefix("memory://").ok_or_else(|| invalid("the URL does not begin with memory://"))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !matches!(place, "" | "/") {
            return Err(invalid(format!("memory:// takes neither a host nor a path, not {place:?}")));
        }
        let mut config = Self::default();
        let mut seen = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| invalid(format!("{part:?} has no value")))?;
            if seen.contains(&name) {
                return Err(invalid(format!("{name} is given twice")));
            }
            seen.push(name);
            config.set(name, value)?;
        }
        config.check()?;
        Ok(config)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "partitions" => self.partitions = parse(name, value)?,
            "auto_create" => self.auto_create = parse(name, value)?,
            "retention_records" => self.retention_records = parse(name, value)?,
            "retention_bytes" => self.retention_bytes = parse(name, value)?,
            "retention" => self.retention = Some(parse_duration(name, value)?),
            "max_record_bytes" => self.max_record_bytes = parse(name, value)?,
            "max_unanswered_records" => self.max_unanswered_records = parse(name, value)?,
            "max_unanswered_bytes" => self.max_unanswered_bytes = parse(name, value)?,
            "start_time" => self.start_time = Some(Timestamp::from_millis(parse(name, value)?)),
            _ => return Err(invalid(format!("unknown parameter {name:?}"))),
        }
        Ok(())
    }

    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid), naming the field.
    pub(crate) fn check(&self) -> Result<()> {
        if self.partitions == 0 || self.partitions > MAX_PARTITIONS {
            return Err(invalid(format!("partitions must be 1 to {MAX_PARTITIONS}, not {}", self.partitions)));
        }
        let positive = [
            ("retention_records", self.retention_records),
            ("retention_bytes", self.retention_bytes),
            ("max_record_bytes", self.max_record_bytes),
            ("max_unanswered_records", self.max_unanswered_records as u64),
            ("max_unanswered_bytes", self.max_unanswered_bytes as u64),
        ];
        match positive.iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(invalid(format!("{name} must not be 0"))),
            None => Ok(()),
        }
    }

    /// See [`Self::partitions`].
    #[must_use]
    pub fn with_partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self
    }

    /// See [`Self::auto_create`].
    #[must_use]
    pub fn with_auto_create(mut self, auto_create: bool) -> Self {
        self.auto_create = auto_create;
        self
    }

    /// See [`Self::retention_records`].
    #[must_use]
    pub fn with_retention_records(mut self, records: u64) -> Self {
        self.retention_records = records;
        self
    }

    /// See [`Self::retention_bytes`].
    #[must_use]
    pub fn with_retention_bytes(mut self, bytes: u64) -> Self {
        self.retention_bytes = bytes;
        self
    }

    /// See [`Self::retention`].
    #[must_use]
    pub fn with_retention(mut self, retention: Duration) -> Self {
        self.retention = Some(retention);
        self
    }

    /// See [`Self::max_record_bytes`].
    #[must_use]
    pub fn with_max_record_bytes(mut self, bytes: u64) -> Self {
        self.max_record_bytes = bytes;
        self
    }

    /// See [`Self::max_unanswered_records`].
    #[must_use]
    pub fn with_max_unanswered_records(mut self, records: usize) -> Self {
        self.max_unanswered_records = records;
        self
    }

    /// See [`Self::max_unanswered_bytes`].
    #[must_use]
    pub fn with_max_unanswered_bytes(mut self, bytes: usize) -> Self {
        self.max_unanswered_bytes = bytes;
        self
    }

    /// See [`Self::start_time`].
    #[must_use]
    pub fn with_start_time(mut self, time: Timestamp) -> Self {
        self.start_time = Some(time);
        self
    }
}

fn invalid(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Invalid, format!("configure the memory transport: {what}"))
}

fn parse<T: FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| invalid(format!("{name} can't be {value:?}")))
}

fn parse_duration(name: &str, value: &str) -> Result<Duration> {
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = value.split_at(digits);
    let number: u64 = parse(name, number)?;
    let seconds = |per: u64| number.checked_mul(per).map(Duration::from_secs);
    let duration = match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3_600),
        "d" => seconds(86_400),
        _ => None,
    };
    duration.ok_or_else(|| invalid(format!("{name} can't be {value:?}: write 500ms, 30s, 5m, 12h or 7d")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_of_the_url_sets_its_field() {
        let url = "memory://?partitions=2&auto_create=false&retention_records=3&retention_bytes=4&retention=5m\
                   &max_record_bytes=6&max_unanswered_records=7&max_unanswered_bytes=8&start_time=9";
        let wanted = MemoryConfig {
            partitions: 2,
            auto_create: false,
            retention_records: 3,
            retention_bytes: 4,
            retention: Some(Duration::from_secs(300)),
            max_record_bytes: 6,
            max_unanswered_records: 7,
            max_unanswered_bytes: 8,
            start_time: Some(Timestamp::from_millis(9)),
        };
        assert_eq!(MemoryConfig::from_url(url).unwrap(), wanted);
        assert_eq!(MemoryConfig::from_url("memory://").unwrap(), MemoryConfig::default());
    }

    #[test]
    fn a_wrong_url_is_refused_by_the_parameters_name() {
        let cases = [
            ("memory://?partition=3", "unknown parameter \"partition\""),
            ("memory://?partitions=0", "partitions must be 1"),
            ("memory://?partitions=x", "partitions can't be \"x\""),
            ("memory://?partitions", "\"partitions\" has no value"),
            ("memory://?partitions=1&partitions=2", "partitions is given twice"),
            ("memory://?retention=5", "write 500ms"),
            ("memory://?retention=99999999999999999d", "retention can't be"),
            ("memory://?max_record_bytes=0", "max_record_bytes must not be 0"),
            ("memory://host", "neither a host"),
            ("kafka://", "memory://"),
        ];
        for (url, part) in cases {
            let error = MemoryConfig::from_url(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(part), "{url}: {error}");
        }
    }
}
