//! The action for a record, before any handler is called.

use tidings_core::{Error, ErrorKind, Name, Redriven, StoredRecord, codec};

use super::shared::Shared;
use crate::settings::UnknownTypes;
use crate::table::Lookup;

/// The action for a record, before any handler is called.
pub(crate) enum Verdict {
    Handler(usize),
    Skip(&'static str),
    Undecodable(Error),
    /// Dead-lettered by policy, which is no failure.
    Unwanted(Error),
}

impl Verdict {
    /// Returns the action for `record` of `topic`.
    pub(crate) fn of(shared: &Shared, topic: &Name, record: &StoredRecord) -> Self {
        if !record.headers.is_empty()
            && let Some(redriven) = Redriven::of(topic, &record.headers)
            && !redriven.is_for(&shared.identity.service)
        {
            return Self::Skip("redriven for another service");
        }
        match shared.table.lookup(topic, record) {
            Lookup::Handler(handler) => Self::Handler(handler),
            Lookup::Tombstone => Self::Skip("a null value"),
            Lookup::UnknownType => Self::of_unknown_type(shared.policy.unknown, record),
            Lookup::Undecodable(error) => Self::Undecodable(error),
        }
    }

    fn of_unknown_type(policy: UnknownTypes, record: &StoredRecord) -> Self {
        match policy {
            UnknownTypes::Skip => Self::Skip("a type without a handler"),
            UnknownTypes::DeadLetter => {
                let name = codec::routing(record).map(|routing| routing.event_type().to_owned()).unwrap_or_default();
                let text = format!("route {name:?}: no handler takes this type");
                Self::Unwanted(Error::new(ErrorKind::Undecodable, text))
            }
        }
    }
}
