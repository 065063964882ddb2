//! Renews the service's lease in a separate task, which the coordinator's work cannot delay.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::workers::Workers;
use crate::engine::shared::Shared;
use crate::logs;

/// The first wait after a failed renewal; doubled each time, up to the renewal interval.
const RENEWAL_RETRY: Duration = Duration::from_millis(100);

/// How long a consumer has to report lost partitions after a poll.
const TO_SAY: Duration = Duration::from_millis(50);

/// The task that renews the lease; aborted when this is dropped.
#[derive(Debug)]
pub(super) struct Renewing {
    task: JoinHandle<()>,
    /// Requests to poll the group before a new lease is registered, with the time limit of each.
    asks: mpsc::UnboundedReceiver<(oneshot::Sender<()>, Duration)>,
}

impl Renewing {
    /// Renews the lease until the returned value is dropped.
    ///
    /// An expired lease means that this process was suspended or disconnected, so the group may have reassigned its
    /// partitions as well. That must be known before a new lease exists, under which workers would begin the records
    /// they have.
    pub(super) fn start(shared: &Arc<Shared>, workers: Workers) -> Option<Self> {
        let claims = shared.backends.store.clone()?;
        let shared = shared.clone();
        let (to_coordinator, asks) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            loop {
                let pause = tokio::time::sleep(claims.renewal());
                tokio::select! {
                    () = pause => {}
                    () = shared.lease_fenced.notified() => {}
                }
                let mut wait = RENEWAL_RETRY;
                loop {
                    // The lease's time counts from before the group was polled: if this process is suspended after the
                    // poll, the lease has expired when it resumes.
                    let since = Instant::now();
                    if claims.lease().is_none() {
                        ask_the_group(&shared, &to_coordinator, claims.renewal()).await;
                    }
                    match claims.renew(since).await {
                        Ok(true) if claims.lease().is_some() => break,
                        Ok(_) => continue,
                        Err(error) => not_renewed(&shared, &error),
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(claims.renewal());
                }
                workers.wake();
            }
        });
        Some(Self { task, asks })
    }

    /// Waits for a request to poll the group; for ever, if no lease is kept.
    pub(super) async fn wants_to_know(renewing: &mut Option<Self>) -> Asked {
        if let Some(Self { asks, .. }) = renewing
            && let Some((done, limit)) = asks.recv().await
        {
            return Asked { done, until: Instant::now() + TO_SAY.min(limit / 2) };
        }
        pending().await
    }

    /// Stops accepting requests to poll the group.
    pub(super) fn stop_asking(&mut self) {
        self.asks.close();
        while self.asks.try_recv().is_ok() {}
    }
}

/// The group was polled, by a new call of `next`: a pending call need not check again on its own.
#[derive(Debug)]
pub(super) struct Asked {
    done: oneshot::Sender<()>,
    until: Instant,
}

impl Asked {
    /// Waits until the consumer has had time to report lost partitions. Poll it after the consumer's `next`.
    pub(super) async fn had_time(asked: &Option<Self>) {
        match asked {
            Some(asked) => sleep_until(asked.until).await,
            None => pending().await,
        }
    }

    pub(super) fn done(self) {
        let _ = self.done.send(());
    }
}

impl Drop for Renewing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Lets the coordinator poll the group, and waits until it has, at most `limit`.
async fn ask_the_group(
    shared: &Shared,
    asks: &mpsc::UnboundedSender<(oneshot::Sender<()>, Duration)>,
    limit: Duration,
) {
    let (done, asked) = oneshot::channel();
    if asks.send((done, limit)).is_ok() && timeout(limit, asked).await.is_err() {
        let service = shared.identity.service.as_str();
        logs::GroupNotPolled { service: &service, limit_ms: &logs::millis(limit) }.log();
    }
}

fn not_renewed(shared: &Shared, error: &Error) {
    logs::LeaseNotRenewed { service: &shared.identity.service.as_str(), error: &error.report() }.log();
}
