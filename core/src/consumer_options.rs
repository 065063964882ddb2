//! Options of a consumer: its group, topics, timeouts and bounds.
//!
//! Each of the three times detects another fault of a member: `session_timeout` a process that crashed or is cut off
//! from the broker, `max_idle` one that runs and does not read, `revocation_deadline` one that does not release a
//! partition.

use std::time::Duration;

use crate::name::check_instance_id;
use crate::{Error, ErrorKind, Name, Result, Start, check_topic_name};

impl ConsumerOptions {
    /// The default of [`ConsumerOptions::session_timeout`].
    pub const DEFAULT_SESSION_TIMEOUT: Duration = Duration::from_secs(45);

    /// The default of [`ConsumerOptions::max_idle`].
    pub const DEFAULT_MAX_IDLE: Duration = Duration::from_secs(300);

    /// The default of [`ConsumerOptions::revocation_deadline`].
    pub const DEFAULT_REVOCATION_DEADLINE: Duration = Duration::from_secs(30);

    /// The default of [`ConsumerOptions::max_buffered_bytes`]: 32 MiB.
    pub const DEFAULT_MAX_BUFFERED_BYTES: usize = 32 << 20;

    /// The default of [`ConsumerOptions::max_batch_records`].
    pub const DEFAULT_MAX_BATCH_RECORDS: usize = 5_000;
}

/// Options with which a consumer joins a group and reads.
///
/// ```
/// use tidings_core::{ConsumerOptions, Start};
///
/// let options = ConsumerOptions::new("audit", ["orders", "payments"]).with_start(Start::Latest);
/// assert_eq!((options.group.as_str(), options.topics.len()), ("audit", 2));
/// assert_eq!(options.session_timeout, ConsumerOptions::DEFAULT_SESSION_TIMEOUT);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConsumerOptions {
    /// The consumer group.
    pub group: Name,
    /// The topics to read.
    pub topics: Vec<Name>,
    /// The start position of the group; see [`Start`].
    pub start: Start,
    /// The time without an answer to heartbeats after which the member is removed. Default:
    /// [`ConsumerOptions::DEFAULT_SESSION_TIMEOUT`].
    pub session_timeout: Duration,
    /// The time within which `next` must be called after a step was yielded. Default:
    /// [`ConsumerOptions::DEFAULT_MAX_IDLE`].
    pub max_idle: Duration,
    /// The upper limit of a revocation's duration. Default: [`ConsumerOptions::DEFAULT_REVOCATION_DEADLINE`].
    pub revocation_deadline: Duration,
    /// The limit of bytes fetched ahead, not counting one record. Default:
    /// [`ConsumerOptions::DEFAULT_MAX_BUFFERED_BYTES`].
    pub max_buffered_bytes: usize,
    /// The limit of records in one [`Fetched`](crate::Fetched). Default:
    /// [`ConsumerOptions::DEFAULT_MAX_BATCH_RECORDS`].
    pub max_batch_records: usize,
    /// The name of a static member (KIP-345): a restart within the session timeout moves no partition. The rule of
    /// topic names applies: see [`check_topic_name`](crate::check_topic_name).
    pub instance_id: Option<Name>,
}

impl ConsumerOptions {
    /// Creates options for a member of `group` that reads `topics` from the earliest record.
    pub fn new<T: Into<Name>>(group: impl Into<Name>, topics: impl IntoIterator<Item = T>) -> Self {
        Self {
            group: group.into(),
            topics: topics.into_iter().map(Into::into).collect(),
            start: Start::default(),
            session_timeout: ConsumerOptions::DEFAULT_SESSION_TIMEOUT,
            max_idle: ConsumerOptions::DEFAULT_MAX_IDLE,
            revocation_deadline: ConsumerOptions::DEFAULT_REVOCATION_DEADLINE,
            max_buffered_bytes: ConsumerOptions::DEFAULT_MAX_BUFFERED_BYTES,
            max_batch_records: ConsumerOptions::DEFAULT_MAX_BATCH_RECORDS,
            instance_id: None,
        }
    }

    /// Sets the start position of the group.
    #[must_use]
    pub fn with_start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Sets [`session_timeout`](Self::session_timeout).
    #[must_use]
    pub fn with_session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// Sets [`max_idle`](Self::max_idle).
    #[must_use]
    pub fn with_max_idle(mut self, max_idle: Duration) -> Self {
        self.max_idle = max_idle;
        self
    }

    /// Sets [`revocation_deadline`](Self::revocation_deadline).
    #[must_use]
    pub fn with_revocation_deadline(mut self, deadline: Duration) -> Self {
        self.revocation_deadline = deadline;
        self
    }

    /// Sets [`max_buffered_bytes`](Self::max_buffered_bytes).
    #[must_use]
    pub fn with_max_buffered_bytes(mut self, bytes: usize) -> Self {
        self.max_buffered_bytes = bytes;
        self
    }

    /// Sets [`max_batch_records`](Self::max_batch_records).
    #[must_use]
    pub fn with_max_batch_records(mut self, records: usize) -> Self {
        self.max_batch_records = records;
        self
    }

    /// Makes the consumer a static member of this name.
    #[must_use]
    pub fn with_instance_id(mut self, id: impl Into<Name>) -> Self {
        self.instance_id = Some(id.into());
        self
    }

    /// Checks the options before a transport uses them: names that are empty or invalid, and durations and limits of
    /// zero are refused.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid), naming the field.
    pub fn check(&self) -> Result<()> {
        let wrong = |field: &str, expected: &str| {
            Err(Error::new(ErrorKind::Invalid, format!("consumer options, {field}: expected {expected}")))
        };
        if self.group.is_empty() {
            return wrong("group", "a name");
        }
        if self.topics.is_empty() {
            return wrong("topics", "one or more");
        }
        for topic in &self.topics {
            check_topic_name(topic).map_err(|e| e.in_context("consumer options, topics"))?;
        }
        if let Some(id) = &self.instance_id {
            check_instance_id(id).map_err(|e| e.in_context("consumer options, instance_id"))?;
        }
        let times = [
            ("session_timeout", self.session_timeout),
            ("max_idle", self.max_idle),
            ("revocation_deadline", self.revocation_deadline),
        ];
        if let Some((field, _)) = times.iter().find(|(_, time)| time.is_zero()) {
            return wrong(field, "more than zero");
        }
        let limits = [("max_batch_records", self.max_batch_records), ("max_buffered_bytes", self.max_buffered_bytes)];
        match limits.iter().find(|(_, limit)| *limit == 0) {
            Some((field, _)) => wrong(field, "1 or more"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_option_is_refused_by_its_name() {
        let options = || ConsumerOptions::new("g", ["t"]);
        let none = Duration::ZERO;
        for (options, field) in [
            (ConsumerOptions::new("", ["t"]), "group"),
            (ConsumerOptions::new("g", Vec::<&str>::new()), "topics"),
            (ConsumerOptions::new("g", ["t", "a b"]), "\"a b\""),
            (options().with_instance_id(""), "instance_id"),
            (options().with_instance_id("a b"), "\"a b\""),
            (options().with_instance_id("."), "instance_id"),
            (options().with_instance_id("i".repeat(250)), "instance_id"),
            (options().with_session_timeout(none), "session_timeout"),
            (options().with_max_idle(none), "max_idle"),
            (options().with_revocation_deadline(none), "revocation_deadline"),
            (options().with_max_batch_records(0), "max_batch_records"),
            (options().with_max_buffered_bytes(0), "max_buffered_bytes"),
        ] {
            let error = options.check().expect_err(field);
            assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains(field), "{field}: {error}");
        }
        assert!(options().with_instance_id("i".repeat(249)).check().is_ok());
    }
}
