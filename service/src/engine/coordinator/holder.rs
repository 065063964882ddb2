//! Keeping the service's holder alive, in a task of its own: nothing that the coordinator does may delay it.

use std::time::Duration;

use tokio::task::JoinHandle;

use super::Coordinator;
use crate::engine::work::Order;

/// The first wait after a renewal that failed; doubled each time, up to the time between renewals.
const RENEWAL_RETRY: Duration = Duration::from_millis(100);

/// A task that ends with this.
#[derive(Debug)]
pub(super) struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Coordinator {
    /// Renews the holder for as long as the returned guard lives.
    pub(super) fn keep_holder(&self) -> Option<AbortOnDrop> {
        let claims = self.shared.store.clone()?;
        let shared = self.shared.clone();
        let workers = self.workers.clone();
        Some(AbortOnDrop(tokio::spawn(async move {
            loop {
                let pause = tokio::time::sleep(claims.renewal());
                tokio::select! {
                    () = pause => {}
                    () = shared.holder_fenced.notified() => {}
                }
                let mut wait = RENEWAL_RETRY;
                while let Err(error) = claims.renew().await {
                    tracing::warn!(error = %error.report(), "the holder could not be renewed");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(claims.renewal());
                }
                workers.iter().for_each(|worker| drop(worker.send(Order::Wake)));
            }
        })))
    }
}
