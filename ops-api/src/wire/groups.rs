//! Consumer groups and their committed offsets.

use serde::{Deserialize, Serialize};
use tidings_core::{Error, Timestamp, TopicPartition};
use tidings_core::{GroupDescription, GroupState, MemberDescription, PartitionLag, PartitionReset, ResetTo, SeekTo};

use super::{At, unknown};

/// A group, in a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupNames {
    /// The group.
    pub group: String,
}

/// The present state of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Group {
    /// The name.
    pub name: String,
    /// `empty`, `rebalancing`, `stable` or `unknown`.
    pub state: String,
    /// The members.
    pub members: Vec<Member>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Member {
    /// The id that the broker assigned.
    pub id: String,
    /// The client's name for itself.
    pub client: String,
    /// The assigned partitions.
    pub partitions: Vec<At>,
}

const STATES: [(GroupState, &str); 3] =
    [(GroupState::Empty, "empty"), (GroupState::Rebalancing, "rebalancing"), (GroupState::Stable, "stable")];

impl From<GroupDescription> for Group {
    fn from(group: GroupDescription) -> Self {
        let member = |member: MemberDescription| Member {
            id: member.id,
            client: member.client,
            partitions: member.partitions.iter().map(At::from).collect(),
        };
        let state = STATES.iter().find(|(known, _)| *known == group.state).map_or("unknown", |(_, text)| text);
        let members = group.members.into_iter().map(member).collect();
        Self { name: group.name.to_string(), state: state.to_owned(), members }
    }
}

impl From<Group> for GroupDescription {
    fn from(wire: Group) -> Self {
        let member = |member: Member| {
            let partitions = member.partitions.into_iter().map(Into::into).collect();
            MemberDescription::new(member.id, member.client, partitions)
        };
        let known = STATES.iter().find(|(_, text)| *text == wire.state);
        let state = known.map_or(GroupState::Unknown, |(state, _)| *state);
        Self::new(wire.name, state, wire.members.into_iter().map(member).collect())
    }
}

/// The lag of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Lags {
    /// The lag of each partition.
    pub partitions: Vec<Lag>,
}

/// The lag of a group on a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Lag {
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: u32,
    /// The committed next offset to read, if any.
    pub committed: Option<u64>,
    /// The oldest offset in the log.
    pub start: u64,
    /// The offset of the next record.
    pub end: u64,
    /// The number of offsets still to be read; `None` where it is unknown.
    pub lag: Option<u64>,
    /// Why the log's bounds are unknown, if they are.
    pub unknown: Option<String>,
}

impl Lags {
    /// Creates the answer of these partitions.
    pub fn of(partitions: Vec<PartitionLag>) -> Self {
        let lag = |lag: PartitionLag| Lag {
            lag: lag.lag(),
            topic: lag.partition.topic.to_string(),
            partition: lag.partition.partition,
            committed: lag.committed,
            start: lag.start,
            end: lag.end,
            unknown: lag.unknown,
        };
        Self { partitions: partitions.into_iter().map(lag).collect() }
    }

    /// Returns the partitions.
    pub fn into_lags(self) -> Vec<PartitionLag> {
        let lag = |wire: Lag| {
            let at = At { topic: wire.topic, partition: wire.partition };
            let mut lag = PartitionLag::new(at.into(), wire.committed, wire.start, wire.end);
            lag.unknown = wire.unknown;
            lag
        };
        self.partitions.into_iter().map(lag).collect()
    }
}

/// A place in a log: `"earliest"`, `"latest"`, `{"offset": 7}`, `{"time_ms": 0}`, or, for resets, `{"shift": -5}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Place {
    /// The oldest record.
    Earliest,
    /// The end of the log.
    Latest,
    /// This offset, or the nearest one in the log.
    Offset(u64),
    /// The first record of this time or a later one, in milliseconds since 1970.
    TimeMs(i64),
    /// Forward by this number of offsets.
    Shift(i64),
}

impl TryFrom<SeekTo> for Place {
    type Error = Error;

    fn try_from(to: SeekTo) -> Result<Self, Error> {
        Ok(match to {
            SeekTo::Offset(offset) => Self::Offset(offset),
            SeekTo::Earliest => Self::Earliest,
            SeekTo::Latest => Self::Latest,
            SeekTo::Time(time) => Self::TimeMs(time.millis()),
            other => return Err(unknown("to", &format!("{other:?}"), "a place that HTTP knows")),
        })
    }
}

impl TryFrom<Place> for SeekTo {
    type Error = Error;

    fn try_from(place: Place) -> Result<Self, Error> {
        match place {
            Place::Offset(offset) => Ok(Self::Offset(offset)),
            Place::Earliest => Ok(Self::Earliest),
            Place::Latest => Ok(Self::Latest),
            Place::TimeMs(millis) => Ok(Self::Time(Timestamp::from_millis(millis))),
            Place::Shift(_) => Err(unknown("to", "shift", "earliest, latest, offset or time_ms")),
        }
    }
}

impl TryFrom<ResetTo> for Place {
    type Error = Error;

    fn try_from(to: ResetTo) -> Result<Self, Error> {
        match to {
            ResetTo::Position(place) => place.try_into(),
            ResetTo::Shift(by) => Ok(Self::Shift(by)),
            other => Err(unknown("to", &format!("{other:?}"), "a place that HTTP knows")),
        }
    }
}

impl TryFrom<Place> for ResetTo {
    type Error = Error;

    fn try_from(place: Place) -> Result<Self, Error> {
        match place {
            Place::Shift(by) => Ok(Self::Shift(by)),
            place => place.try_into().map(Self::Position),
        }
    }
}

/// A request to move the committed offsets of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reset {
    /// The group.
    pub group: String,
    /// The topics.
    pub topics: Vec<String>,
    /// Where to.
    pub to: Place,
}

/// A request to set committed offsets of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlterOffsets {
    /// The group.
    pub group: String,
    /// The offsets.
    pub offsets: Vec<NewOffset>,
}

/// An offset to commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewOffset {
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
}

impl AlterOffsets {
    /// Creates the request.
    pub fn new(group: &str, offsets: &[(TopicPartition, u64)]) -> Self {
        let new = |(at, offset): &(TopicPartition, u64)| NewOffset {
            topic: at.topic.to_string(),
            partition: at.partition,
            offset: *offset,
        };
        Self { group: group.to_owned(), offsets: offsets.iter().map(new).collect() }
    }

    /// Returns the offsets.
    pub fn into_offsets(self) -> Vec<(TopicPartition, u64)> {
        self.offsets.into_iter().map(|new| (TopicPartition::new(new.topic, new.partition), new.offset)).collect()
    }
}

/// The changes of a reset, made or planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Resets {
    /// The change of each partition.
    pub partitions: Vec<Moved>,
}

/// The change of a partition's committed offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Moved {
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: u32,
    /// The offset committed before.
    pub from: Option<u64>,
    /// The offset committed then.
    pub to: u64,
}

impl Resets {
    /// Creates the answer of these changes.
    pub fn of(resets: Vec<PartitionReset>) -> Self {
        let moved = |reset: PartitionReset| {
            let At { topic, partition } = (&reset.partition).into();
            Moved { topic, partition, from: reset.from, to: reset.to }
        };
        Self { partitions: resets.into_iter().map(moved).collect() }
    }

    /// Returns the changes.
    pub fn into_resets(self) -> Vec<PartitionReset> {
        let reset = |moved: Moved| {
            let at = At { topic: moved.topic, partition: moved.partition };
            PartitionReset::new(at.into(), moved.from, moved.to)
        };
        self.partitions.into_iter().map(reset).collect()
    }
}
