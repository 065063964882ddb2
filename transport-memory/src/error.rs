//! Errors and locking of this crate.
//!
//! Texts follow one form, `verb: subject and consequence`; the verb is the caller's.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tidings_core::{Error, ErrorKind, TopicPartition, check_topic_name};

/// Locks `mutex`, ignoring poisoning: each change under a lock is complete before anything can panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the error for a missing topic; as in Kafka, an invalid topic name is `Invalid`.
pub(crate) fn no_topic(verb: &str, topic: &str) -> Error {
    let missing = || Error::new(ErrorKind::NotFound, format!("{verb}: there is no topic {topic:?}"));
    check_topic_name(topic).err().unwrap_or_else(missing)
}

/// Returns the error for a group without members and commits.
pub(crate) fn no_group(verb: &str, group: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("{verb}: there is no group {group:?}"))
}

/// Returns the error for changing a group while members read: they would overwrite the change.
pub(crate) fn has_members(verb: &str, group: &str) -> Error {
    Error::new(ErrorKind::Conflict, format!("{verb}: group {group:?} has members"))
}

/// Returns the error for a partition that the member has lost; the caller drops its work on it.
pub(crate) fn not_owned(verb: &str, partition: &TopicPartition) -> Error {
    Error::new(ErrorKind::Fenced, format!("{verb}: {partition} is no longer assigned to this member"))
}

pub(crate) fn closed(verb: &str, what: &str) -> Error {
    Error::new(ErrorKind::Closed, format!("{verb}: the {what} is closed"))
}

/// Returns the error of an injected fault. Its text says so, lest a log of a test is taken for a
/// bug.
pub(crate) fn injected(verb: &str, kind: ErrorKind) -> Error {
    Error::new(kind, format!("{verb}: injected fault"))
}

/// Returns the error that [`Faults::unreadable`](crate::Faults::unreadable) reports for bytes.
pub(crate) fn unreadable() -> Error {
    Error::new(ErrorKind::Undecodable, "read records: unknown bytes (injected fault)")
}
