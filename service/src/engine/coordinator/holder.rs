//! Keeping the service's holder alive, in a task of its own: nothing that the coordinator does may delay it.

use std::time::Duration;

use tidings_core::{Consumer, Result, Step};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Coordinator, Next};
use crate::engine::work::Order;

/// The first wait after a renewal that failed; doubled each time, up to the time between renewals.
const RENEWAL_RETRY: Duration = Duration::from_millis(100);

/// The task that renews the holder; it ends with this.
#[derive(Debug)]
pub(super) struct Renewing {
    task: JoinHandle<()>,
    /// Who wants the group to be asked before a new holder is registered.
    asks: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
}

impl Renewing {
    /// Waits until somebody wants the group to be asked; for ever, if no holder is kept.
    pub(super) async fn asks(renewing: &mut Option<Self>) -> oneshot::Sender<()> {
        if let Some(Self { asks, .. }) = renewing
            && let Some(ask) = asks.recv().await
        {
            return ask;
        }
        std::future::pending().await
    }
}

impl Drop for Renewing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Has the coordinator ask the group, and waits until it has obeyed; no longer than `limit`.
async fn ask_the_group(asks: &mpsc::UnboundedSender<oneshot::Sender<()>>, limit: Duration) {
    let (done, obeyed) = oneshot::channel();
    if asks.send(done).is_ok() && timeout(limit, obeyed).await.is_err() {
        tracing::warn!(?limit, "the group was not asked before a new holder was registered");
    }
}

impl Coordinator {
    /// Renews the holder for as long as what is returned lives.
    ///
    /// A holder whose time is over says that this process was stopped, or cut off. So the group may have given its
    /// partitions away, too: that must be known before a new holder is there, by which workers would begin what they have.
    pub(super) fn keep_holder(&self) -> Option<Renewing> {
        let claims = self.shared.store.clone()?;
        let shared = self.shared.clone();
        let workers = self.workers.clone();
        let (to_coordinator, asks) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            loop {
                let pause = tokio::time::sleep(claims.renewal());
                tokio::select! {
                    () = pause => {}
                    () = shared.holder_fenced.notified() => {}
                }
                let mut wait = RENEWAL_RETRY;
                loop {
                    if claims.holder().is_none() {
                        ask_the_group(&to_coordinator, claims.renewal()).await;
                    }
                    match claims.renew().await {
                        Ok(true) => break,
                        Ok(false) => continue,
                        Err(error) => tracing::warn!(error = %error.report(), "the holder could not be renewed"),
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(claims.renewal());
                }
                workers.iter().for_each(|worker| drop(worker.send(Order::Wake)));
            }
        });
        Some(Renewing { task, asks })
    }

    /// Takes all that the group has to say of what is no longer this service's.
    pub(super) async fn ask_anew<'a>(&mut self, consumer: &'a dyn Consumer, next: &mut Next<'a>) -> Result<()> {
        loop {
            // Another call, and not the one that waits: that one need not look again before it is told to.
            *next = consumer.next();
            let step = tokio::select! {
                biased;
                step = &mut *next => step,
                () = std::future::ready(()) => return Ok(()),
            };
            let goes_on = matches!(step, Ok(Step::Lost(_) | Step::Revoking(_) | Step::Assigned(_)));
            self.take_step(step)?;
            if !goes_on {
                *next = consumer.next();
                return Ok(());
            }
        }
    }
}
