//! A dependency that is down, as reported to the coordinator.

use super::assigned::AssignmentId;
use super::messages::{Cause, Events, WorkerEvent};

/// Pauses an assignment's partition with a cause until it is dropped.
#[derive(Debug)]
pub(crate) struct Trouble {
    events: Events,
    assignment: AssignmentId,
    cause: Cause,
}

impl Trouble {
    /// Reports that a dependency of the assignment's records is down.
    pub(crate) fn raise(events: &Events, assignment: AssignmentId, cause: Cause, text: &str) -> Self {
        let raised = WorkerEvent::Trouble { assignment, cause, raised: true, text: text.to_owned() };
        // If the coordinator is gone, nothing is paused any more.
        let _ = events.send(raised);
        Self { events: events.clone(), assignment, cause }
    }

    pub(crate) fn cause(&self) -> Cause {
        self.cause
    }
}

impl Drop for Trouble {
    fn drop(&mut self) {
        let (assignment, cause) = (self.assignment, self.cause);
        let _ = self.events.send(WorkerEvent::Trouble { assignment, cause, raised: false, text: String::new() });
    }
}
