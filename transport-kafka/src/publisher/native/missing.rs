//! Partitions that brokers do not know, or may not describe to this user.

use std::time::{Duration, Instant};

use tidings_core::{Error, ErrorKind, Result, TopicPartition};

use super::questions::Found;

/// For this time brokers may not yet know a new topic.
const PATIENCE: Duration = Duration::from_secs(2);
/// Answers further apart than this say nothing about the time between them.
const GAP: Duration = Duration::from_secs(5);

/// The first and the last of the successive answers that a partition is missing.
#[derive(Debug, Default)]
pub(super) struct Missing(Option<(Instant, Instant)>);

impl Missing {
    /// Records the answer to a lookup. Returns the error with which the partition's batches end, if brokers have answered
    /// for [`PATIENCE`] that it is missing.
    pub(super) fn note(&mut self, at: &TopicPartition, found: &Found, now: Instant) -> Option<Error> {
        let (_, count) = found.iter().find(|(topic, _)| *topic == at.topic)?;
        let error = missing(at, count);
        let since =
            self.0.filter(|(_, last)| now.saturating_duration_since(*last) < GAP).map_or(now, |(since, _)| since);
        self.0 = error.is_some().then_some((since, now));
        error.filter(|_| now.saturating_duration_since(since) >= PATIENCE)
    }
}

/// Returns the permanent error of a partition.
fn missing(at: &TopicPartition, count: &Result<u32>) -> Option<Error> {
    match count {
        Ok(count) if at.partition < *count => None,
        Ok(_) => Some(Error::new(ErrorKind::NotFound, "there is no such partition")),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Denied) => {
            Some(Error::new(error.kind(), error.report()))
        }
        Err(_) => None,
    }
}
