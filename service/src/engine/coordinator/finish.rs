//! The final steps of a service.

use std::time::Duration;

use tidings_core::{Error, ErrorKind, Result};
use tokio::time::timeout;

use super::Coordinator;

/// The time limit of each final step.
const FINISH_STEP: Duration = Duration::from_secs(5);

impl Coordinator {
    /// Performs the final steps: flushes the publisher, releases the lease's claims, leaves the group.
    pub(super) async fn finish(&mut self) {
        let late = |what| Error::new(ErrorKind::Unavailable, format!("{what}: no answer"));
        let said = |done: std::result::Result<Result<()>, _>, what| done.unwrap_or_else(|_| Err(late(what)));
        let closed = timeout(FINISH_STEP, self.shared.backends.publisher.close(FINISH_STEP)).await;
        if let Err(error) = said(closed, "close the publisher") {
            tracing::warn!(error = %error.report(), "the publisher was closed with records unanswered");
        }
        // Claims are released once no work can run under them; a handler that blocks its thread may still run.
        if !self.stop_workers().await {
            tracing::error!(service = %self.shared.identity.service, "a handler blocks its thread; its claims end with their ttl");
        } else if let Some(claims) = &self.shared.backends.store
            && let Err(error) = said(timeout(FINISH_STEP, claims.retire()).await, "end the lease")
        {
            tracing::warn!(error = %error.report(), "the lease ends with its ttl");
        }
        if let Err(error) = said(timeout(FINISH_STEP, self.consumer.close()).await, "leave the group") {
            tracing::warn!(error = %error.report(), "the group takes a session timeout to notice");
        }
    }

    /// Waits until the claims of dropped deliveries are released, which also persists their attempt counts.
    pub(super) async fn give_claims_back(&mut self) {
        if let Some(claims) = &self.shared.backends.store
            && timeout(FINISH_STEP, claims.all_given_back()).await.is_err()
        {
            tracing::warn!(service = %self.shared.identity.service, "attempts made before the end are not all written down");
        }
    }

    /// Stops the worker tasks. A task whose thread is blocked cannot be stopped: returns `false` without waiting for
    /// it.
    async fn stop_workers(&mut self) -> bool {
        self.tasks.abort_all();
        let stopped = async { while self.tasks.join_next().await.is_some() {} };
        timeout(FINISH_STEP, stopped).await.is_ok()
    }
}
