//! The dependencies that an assignment's records wait for.

use std::collections::BTreeMap;

use crate::engine::messages::Cause;
use crate::status::PauseReason;

/// The causes that some record waits for, each with the number of records and the last text.
#[derive(Debug, Default)]
pub(super) struct Troubles(BTreeMap<Cause, (usize, String)>);

impl Troubles {
    /// Counts a record that begins to wait for `cause`, or does not any more; returns whether any record waits for it.
    pub(super) fn count(&mut self, cause: Cause, raised: bool, text: String) -> bool {
        let (count, last) = self.0.entry(cause).or_default();
        if raised {
            (*count, *last) = (*count + 1, text);
        } else {
            *count = count.saturating_sub(1);
        }
        let is_down = *count > 0;
        if !is_down {
            self.0.remove(&cause);
        }
        is_down
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the text of the cause that leads to this pause.
    pub(super) fn text(&self, reason_of_pause: PauseReason) -> Option<&str> {
        self.iter().find(|(cause, _)| reason(*cause) == reason_of_pause).map(|(_, text)| text)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Cause, &str)> {
        self.0.iter().map(|(cause, (_, text))| (*cause, text.as_str()))
    }
}

/// Returns the reason of the pause that a cause leads to.
pub(super) fn reason(cause: Cause) -> PauseReason {
    match cause {
        Cause::Handler => PauseReason::Handler,
        Cause::Store => PauseReason::Store,
        Cause::DeadLetters => PauseReason::DeadLetters,
        Cause::Publisher => PauseReason::Publisher,
    }
}
