//! A reader of whole topics, one section of a partition at a time.

mod group;
mod position;
mod unreadable;

use tidings_core::{Admin, Error, ErrorKind, Name, Result, SeekTo, StoredRecord, TopicPartition, Transport};

use self::group::GroupReader;
use self::position::PositionReader;
use self::unreadable::UnreadableRanges;

/// Reads by position where the transport can, and else as the only member of a group.
#[derive(Debug)]
pub(super) enum Reader {
    ByPosition(PositionReader),
    InGroup(GroupReader),
}

impl Reader {
    /// Opens a reader of all of `partitions`. A group that it needs is new, and named after `prefix`.
    pub(super) async fn open(
        transport: &dyn Transport,
        prefix: &str,
        topics: Vec<Name>,
        partitions: &[TopicPartition],
    ) -> Result<Self> {
        match transport.log_reader().await {
            Ok(log) => Ok(Self::ByPosition(PositionReader::new(log))),
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                Ok(Self::InGroup(GroupReader::open(transport, prefix, topics, partitions).await?))
            }
            Err(error) => Err(error),
        }
    }

    /// Leaves the group and deletes it, if there is one.
    pub(super) async fn close(&self, admin: &dyn Admin) -> Result<()> {
        match self {
            Self::ByPosition(_) => Ok(()),
            Self::InGroup(reader) => reader.close(admin).await,
        }
    }

    /// Returns the ranges that cannot be read, as errors, and the number of their offsets.
    pub(super) fn unreadable(&self) -> (Vec<Error>, u64) {
        let ranges: &UnreadableRanges = match self {
            Self::ByPosition(reader) => reader.unreadable(),
            Self::InGroup(reader) => reader.unreadable(),
        };
        (ranges.errors(), ranges.records())
    }

    /// Drops records that were read ahead, since a log has changed.
    pub(super) fn forget(&mut self) {
        if let Self::ByPosition(reader) = self {
            reader.forget();
        }
    }

    /// Returns the position at which to read from `to` on.
    pub(super) async fn seek(&self, at: &TopicPartition, to: SeekTo) -> Result<u64> {
        match self {
            Self::ByPosition(reader) => reader.seek(at, to).await,
            Self::InGroup(reader) => reader.seek(at, to).await,
        }
    }

    /// Reads `from..until` of a partition until `wanted` has enough; returns the offset that it reached. It reaches
    /// `until` also where the rest cannot be read, which [`unreadable`](Self::unreadable) names.
    pub(super) async fn read(
        &mut self,
        at: &TopicPartition,
        from: u64,
        until: u64,
        wanted: impl FnMut(&StoredRecord) -> Result<bool>,
    ) -> Result<u64> {
        match self {
            Self::ByPosition(reader) => reader.read(at, from, until, wanted).await,
            Self::InGroup(reader) => reader.read(at, from, until, wanted).await,
        }
    }
}
