//! Waiting for notifications.
//!
//! A notification only wakes the relay, which then reads the table: a lost or late one costs a poll
//! interval, never a record.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::task::AbortHandle;

use super::Shared;
use crate::PostgresStore;
use crate::outbox::delayed::NOTICE;
use crate::outbox::lane::channel;

/// Backoff after a failed connection; the relay polls meanwhile.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A task that wakes the relay; dropping this ends it.
#[derive(Debug)]
pub(super) struct Listener(AbortHandle);

impl Listener {
    /// Starts the task. It reconnects for as long as it lives.
    pub(super) fn start(store: &PostgresStore, shared: Arc<Shared>) -> Self {
        let (store, channel) = (store.clone(), channel(store.names()));
        let task = tokio::spawn(async move {
            loop {
                if let Err(error) = listen(&store, &channel, &shared).await {
                    tracing::debug!(%error, "LISTEN failed; the outbox is polled instead");
                }
                // Notifications sent in the meantime were missed.
                shared.wake.notify_one();
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        });
        Self(task.abort_handle())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Listens until something fails.
async fn listen(store: &PostgresStore, channel: &str, shared: &Shared) -> sqlx::Result<()> {
    // A separate pool: the listener keeps a connection of its pool, and the store's connections are for the service.
    let options = store.pool().connect_options().as_ref().clone();
    let limit = store.config().acquire_timeout;
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(limit).connect_lazy_with(options);
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(channel).await?;
    shared.wake.notify_one();
    while let Some(notice) = listener.try_recv().await? {
        if notice.payload() == NOTICE {
            shared.delayed.store(true, Ordering::Release);
        }
        shared.wake.notify_one();
    }
    Ok(())
}
