//! The last acts of a service.

use std::time::Duration;

use tidings_core::{Error, ErrorKind, Result};
use tokio::time::timeout;

use super::Coordinator;

/// How long each of them may take.
const FINISH_STEP: Duration = Duration::from_secs(5);

impl Coordinator {
    /// The last acts: the publisher flushes, the lease's claims are freed, the group is left.
    pub(super) async fn finish(&mut self) {
        let late = |what| Error::new(ErrorKind::Unavailable, format!("{what}: no answer"));
        let said = |done: std::result::Result<Result<()>, _>, what| done.unwrap_or_else(|_| Err(late(what)));
        let closed = timeout(FINISH_STEP, self.shared.publisher.close(FINISH_STEP)).await;
        if let Err(error) = said(closed, "close the publisher") {
            tracing::warn!(error = %error.report(), "the publisher was closed with records unanswered");
        }
        // Claims are freed when nothing can be at work by them any more; a handler that blocks its thread may be.
        if !self.stop_workers().await {
            tracing::error!(service = %self.shared.service, "a handler blocks its thread; its claims end with their ttl");
        } else if let Some(claims) = &self.shared.store
            && let Err(error) = said(timeout(FINISH_STEP, claims.retire()).await, "end the lease")
        {
            tracing::warn!(error = %error.report(), "the lease ends with its ttl");
        }
        if let Err(error) = said(timeout(FINISH_STEP, self.consumer.close()).await, "leave the group") {
            tracing::warn!(error = %error.report(), "the group takes a session timeout to notice");
        }
    }

    /// Waits until the claims of what was given up are given back, and the attempts that were made are written down with
    /// them.
    pub(super) async fn give_claims_back(&mut self) {
        if let Some(claims) = &self.shared.store
            && timeout(FINISH_STEP, claims.all_given_back()).await.is_err()
        {
            tracing::warn!(service = %self.shared.service, "attempts made before the end are not all written down");
        }
    }

    /// Ends the worker tasks. A task whose thread is blocked can't be ended: `false`, and it is not waited for.
    async fn stop_workers(&mut self) -> bool {
        self.tasks.abort_all();
        let stopped = async { while self.tasks.join_next().await.is_some() {} };
        timeout(FINISH_STEP, stopped).await.is_ok()
    }
}
