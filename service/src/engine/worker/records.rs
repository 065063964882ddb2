//! The records of one delivery.

use crate::engine::assigned::AssignmentId;
use crate::engine::record::{PendingRecord, Stage};

/// The records of one delivery, of one assignment and one handler. Usually one, which needs no list.
#[derive(Debug)]
pub(super) enum Records {
    One(PendingRecord),
    Many(Vec<PendingRecord>),
}

impl Records {
    pub(super) fn as_slice(&self) -> &[PendingRecord] {
        match self {
            Self::One(record) => std::slice::from_ref(record),
            Self::Many(records) => records,
        }
    }

    /// Returns the number of the handler.
    pub(super) fn handler(&self) -> Option<usize> {
        self.as_slice().first()?.handler.map(|handler| handler as usize)
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [PendingRecord] {
        match self {
            Self::One(record) => std::slice::from_mut(record),
            Self::Many(records) => records,
        }
    }

    pub(super) fn into_vec(self) -> Vec<PendingRecord> {
        match self {
            Self::One(record) => vec![record],
            Self::Many(records) => records,
        }
    }

    pub(super) fn advance(&mut self, stage: Stage) {
        self.as_mut_slice().iter_mut().for_each(|record| record.advance(stage));
    }

    /// Returns whether the delivery is of this assignment.
    pub(super) fn is_of(&self, assignment: AssignmentId) -> bool {
        self.as_slice().first().is_some_and(|record| record.assignment() == assignment)
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.as_slice().iter().any(|record| record.id.assigned.is_cancelled())
    }
}

/// A delivery that was started.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) records: Records,
    /// The delivery is a probe of the circuit breaker: its result decides whether others may start.
    pub(super) probe: bool,
}
