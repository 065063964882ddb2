//! Keeping the service's lease alive, in a task of its own: nothing that the coordinator does may delay it.

use std::future::pending;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::Coordinator;
use crate::engine::work::Order;

/// The first wait after a renewal that failed; doubled each time, up to the time between renewals.
const RENEWAL_RETRY: Duration = Duration::from_millis(100);

/// How long a consumer has to say what it has lost, once it is asked.
const TO_SAY: Duration = Duration::from_millis(50);

/// The task that renews the lease; it ends with this.
#[derive(Debug)]
pub(super) struct Renewing {
    task: JoinHandle<()>,
    /// Who wants the group to be asked before a new lease is registered, and for how long they wait.
    asks: mpsc::UnboundedReceiver<(oneshot::Sender<()>, Duration)>,
}

impl Renewing {
    /// Waits until somebody wants the group to be asked; for ever, where no lease is kept.
    pub(super) async fn wants_to_know(renewing: &mut Option<Self>) -> Asked {
        if let Some(Self { asks, .. }) = renewing
            && let Some((done, limit)) = asks.recv().await
        {
            return Asked { done, until: Instant::now() + TO_SAY.min(limit / 2) };
        }
        pending().await
    }

    /// From now on the group is not asked any more.
    pub(super) fn stop_asking(&mut self) {
        self.asks.close();
        while self.asks.try_recv().is_ok() {}
    }
}

/// The group was asked, by a new call of `next`: one that waits already need not look again before it is told to.
#[derive(Debug)]
pub(super) struct Asked {
    done: oneshot::Sender<()>,
    until: Instant,
}

impl Asked {
    /// Waits until the consumer has had its time to say what is lost. To be polled behind its `next`.
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

/// Has the coordinator ask the group, and waits until it has; no longer than `limit`.
async fn ask_the_group(asks: &mpsc::UnboundedSender<(oneshot::Sender<()>, Duration)>, limit: Duration) {
    let (done, asked) = oneshot::channel();
    if asks.send((done, limit)).is_ok() && timeout(limit, asked).await.is_err() {
        tracing::warn!(?limit, "the group was not asked before a new lease was registered");
    }
}

impl Coordinator {
    /// Renews the lease for as long as what is returned lives.
    ///
    /// A lease whose time is over says that this process was stopped, or cut off. So the group may have given its
    /// partitions away, too: that must be known before a new lease is there, by which workers would begin what they have.
    pub(super) fn keep_lease(&self) -> Option<Renewing> {
        let claims = self.shared.store.clone()?;
        let shared = self.shared.clone();
        let workers = self.workers.clone();
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
                    // The lease's time counts from before the group was asked: if this process is stopped behind that,
                    // it is over when it goes on.
                    let since = Instant::now();
                    if claims.lease().is_none() {
                        ask_the_group(&to_coordinator, claims.renewal()).await;
                    }
                    match claims.renew(since).await {
                        Ok(true) if claims.lease().is_some() => break,
                        Ok(_) => continue,
                        Err(error) => tracing::warn!(error = %error.report(), "the lease could not be renewed"),
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(claims.renewal());
                }
                workers.iter().for_each(|worker| drop(worker.send(Order::Wake)));
            }
        });
        Some(Renewing { task, asks })
    }
}
