//! The time at which the handler of a delivery began.

use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

/// Tells the engine when the innermost handler of a delivery is first polled. Layers may wait before that, in their
/// own tasks, too; the handler's timeout does not include it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Begun(Arc<OnceLock<Instant>>);

impl Begun {
    /// Returns the mark of a handler that began at `at`.
    pub(crate) fn since(at: Instant) -> Self {
        Self(Arc::new(OnceLock::from(at)))
    }

    /// Records that the handler begins now.
    pub(crate) fn mark(&self) {
        self.0.get_or_init(Instant::now);
    }

    /// Returns when the handler began.
    pub(crate) fn at(&self) -> Option<Instant> {
        self.0.get().copied()
    }

    /// Returns whether this is the only mark left of its delivery: no handler can begin with it.
    pub(crate) fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}
