//! The JSON bodies of requests and answers, and their conversions from and to core's types.
//!
//! The names of the fields are a wire format: they stay when a Rust name changes.

mod about;
mod acls;
mod audit;
mod bytes;
mod cluster;
mod decisions;
mod groups;
mod letters;
mod records;
mod services;
mod stores;
mod topics;

use serde::{Deserialize, Serialize};
use tidings_core::{Error, ErrorKind, Name, Result, TopicPartition};

pub use self::about::{About, Kept};
pub use self::acls::{Acl, AclQuery, Acls};
pub use self::audit::{AuditRecord, AuditRecords};
pub use self::bytes::Text;
pub use self::cluster::{Alter, Broker, Cluster, Config, Configs, LogDir, Resource};
pub use self::decisions::{
    Discard, Discarded, Granted, Grants, Lease, Leasing, Redrive, Redriven, Refusal, Refused, Resolve,
};
pub use self::groups::{AlterOffsets, Group, GroupNames, Lag, Lags, Member, Moved, NewOffset, Place, Reset, Resets};
pub use self::letters::{Buried, Checked, Count, Id, Letter, Letters, LettersIn, Query, Resolution, Stores};
pub use self::records::{Header, OffsetsAt, Position, Publish, ReadAt, ReadRecords, Record, Stored, UnreadableAt};
pub use self::services::{
    Accepted, Drain, Held, Holding, Pause, Reason, Seek, ServiceHandler, ServicePartition, ServiceState,
    ServiceSummary, Services, Skip, Skipped, Sought, Totals,
};
pub use self::stores::{AreDone, Done, EventId};
pub use self::topics::{Create, Grow, Health, Names, Partition, Topic, TopicState};

/// The answer about one of the things that a request names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Each<T> {
    /// It is done.
    Ok(T),
    /// It is not.
    Error(crate::ErrorBody),
}

impl<T> Each<T> {
    /// Creates the answer of a result.
    pub fn of(answer: Result<T>) -> Self {
        match answer {
            Ok(value) => Self::Ok(value),
            Err(error) => Self::Error((&error).into()),
        }
    }

    /// Returns the result.
    ///
    /// # Errors
    /// That of the answer.
    pub fn into_result(self) -> Result<T> {
        match self {
            Self::Ok(value) => Ok(value),
            Self::Error(body) => Err(body.into()),
        }
    }
}

/// The answers about all things that a request names, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Answers<T> {
    /// One for each.
    pub answers: Vec<Each<T>>,
}

impl<T> Answers<T> {
    /// Creates the answers of results.
    pub fn of<U>(answers: Vec<Result<U>>, convert: impl Fn(U) -> T) -> Self {
        Self { answers: answers.into_iter().map(|answer| Each::of(answer.map(&convert))).collect() }
    }
}

/// An empty object: a request or an answer that says nothing more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Nothing {}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct At {
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: u32,
}

impl From<&TopicPartition> for At {
    fn from(partition: &TopicPartition) -> Self {
        Self { topic: partition.topic.to_string(), partition: partition.partition }
    }
}

impl From<At> for TopicPartition {
    fn from(at: At) -> Self {
        Self::new(at.topic, at.partition)
    }
}

fn names(names: Vec<String>) -> Vec<Name> {
    names.into_iter().map(Name::from).collect()
}

/// Returns the error of a text that is none of those expected.
fn unknown(field: &str, found: &str, expected: &str) -> Error {
    Error::new(ErrorKind::Invalid, format!("{field}: expected {expected}, found {found:?}"))
}
