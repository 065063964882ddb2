//! The layer around all handlers: records attempts, and injects failures.
//!
//! It is the outermost layer of the service, so that a retry passes it again and an injected
//! failure looks to the service like the handler's own.

use std::sync::Arc;

use tidings_core::{BoxError, Delivery, Outcome, report};
use tidings_service::Next;

use crate::journal::Journal;
use crate::trace::RecordId;

/// Records an attempt and its end; fails it without calling the handler if an injection says so.
pub(crate) async fn watch(journal: Arc<Journal>, delivery: Delivery, next: Next) -> Result<Outcome, BoxError> {
    let attempt = delivery.attempt();
    let origin = delivery.origin().clone();
    let record_ids = delivery.records().map(|record| RecordId::new(&origin, record.offset)).collect();
    let injected = journal.begun(&delivery.context().handler, &origin, attempt, delivery.records());
    let mut unfinished = Unfinished { journal: Some(journal), record_ids, attempt };
    let result = match injected {
        Some(error) => Err(error),
        None => next.run(delivery).await,
    };
    if let (Some(journal), Err(error)) = (unfinished.journal.take(), &result) {
        journal.failed(&unfinished.record_ids, attempt, &report(error.as_ref()));
    }
    result
}

/// An attempt in progress; if it is dropped, the attempt is recorded as cancelled.
struct Unfinished {
    journal: Option<Arc<Journal>>,
    record_ids: Vec<RecordId>,
    attempt: u32,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(journal) = self.journal.take() {
            let how = if std::thread::panicking() { "panicked" } else { "was cancelled before it completed" };
            journal.failed(&self.record_ids, self.attempt, &format!("the handler {how}"));
        }
    }
}
