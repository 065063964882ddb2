//! The inbox layer.
//!
//! The layer puts a [`Slot`] into each delivery; the transaction begins when the handler first
//! takes it, so a handler that takes none costs one statement at the end. Layers outside of this
//! one see the result of the commit, layers inside see the handler's.

use std::sync::Arc;
use std::task::{Context, Poll};

use tidings_core::{BoxError, Delivery, Error, ErrorKind, Lease, Outcome, unavailable};
use tidings_service::{BoxFuture, Requirement};
use tower_layer::Layer;
use tower_service::Service;

use super::commit;
use super::slot::{Slot, TRANSACTION};
use super::verdict;
use crate::outbox::Outbox;
use crate::store::PostgresStore;

impl PostgresStore {
    /// Returns the inbox layer: it gives a handler a [`Tx`](super::Tx), and commits the handler's writes and its
    /// events' completion atomically. A failure, a panic or a timeout rolls back all of it. A batch is one
    /// transaction; if one of its records fails, it is found by bisecting the batch.
    ///
    /// The service's idempotency store must be this one:
    ///
    /// ```no_run
    /// # use tidings_core::{BoxError, Delivery};
    /// use tidings_postgres::{PostgresStore, Tx};
    /// use tidings_service::{Router, Service};
    ///
    /// # async fn count(_: Delivery, tx: Tx) {}
    /// # async fn example() -> tidings_core::Result<()> {
    /// let store = PostgresStore::connect("postgres://localhost/orders").await?;
    /// let router = Router::new().on_topic("orders", count).layer(store.inbox());
    /// let service = Service::new("orders", router).with_idempotency(store);
    /// # Ok(()) }
    /// ```
    ///
    /// An error of the database (a lost connection, a serialization failure, a full disk, a missing table or right)
    /// is not the record's fault: the record waits until the database recovers. A constraint violation or a failed
    /// conversion is the record's fault.
    pub fn inbox(&self) -> InboxLayer {
        InboxLayer { store: self.clone(), outbox: None }
    }
}

const NEEDS_STORE: &str = "the inbox completes events that its store has claimed: call `Service::with_idempotency(store)` with the same store";

/// The layer returned by [`PostgresStore::inbox`].
///
/// A router refuses to start if a handler takes a [`Tx`](super::Tx) without this layer, or if the
/// service has no idempotency store.
#[derive(Debug, Clone)]
pub struct InboxLayer {
    store: PostgresStore,
    outbox: Option<Outbox>,
}

impl InboxLayer {
    /// Writes the events that a handler returns into `outbox`, in the delivery's transaction: its effects, its
    /// events' completion and the returned events commit atomically. A [`Relay`](crate::Relay) publishes them.
    /// Without an outbox, a handler behind the inbox can't return events. The outbox must be in the same database.
    #[must_use]
    pub fn with_outbox(mut self, outbox: Outbox) -> Self {
        self.outbox = Some(outbox);
        self
    }
}

impl<S> Layer<S> for InboxLayer {
    type Service = Inbox<S>;

    fn layer(&self, inner: S) -> Inbox<S> {
        Requirement::provide(TRANSACTION);
        Requirement::idempotency_store(NEEDS_STORE).declare();
        Inbox { store: self.store.clone(), outbox: self.outbox.clone(), inner }
    }
}

/// A handler behind the [inbox](PostgresStore::inbox).
///
/// It is as ready as the handler.
#[derive(Debug, Clone)]
pub struct Inbox<S> {
    store: PostgresStore,
    outbox: Option<Outbox>,
    inner: S,
}

impl<S> Service<Delivery> for Inbox<S>
where
    S: Service<Delivery, Response = Outcome>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = Outcome;
    type Error = BoxError;
    type Future = BoxFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut delivery: Delivery) -> BoxFuture {
        let Some(lease) = delivery.lease().cloned() else {
            // Either no store is configured, which is a mistake, or the lease has just expired: then the service
            // acquires a new one.
            let what = "begin a delivery: its events are not claimed; the service needs `with_idempotency(store)`";
            return Box::pin(async move { Err(unavailable(Error::new(ErrorKind::Unavailable, what)).into()) });
        };
        let slot = Slot::new(self.store.clone(), lease.ttl);
        delivery.extensions_mut().insert(slot.clone());
        let handled = self.inner.call(delivery.clone());
        let (store, outbox) = (self.store.clone(), self.outbox.clone());
        Box::pin(async move {
            let result = handled.await.map_err(Into::into);
            end(&store, outbox.as_ref(), &delivery, &lease, &slot, result).await
        })
    }
}

/// Commits the handler's work or rolls it back.
///
/// A failed handler's transaction is rolled back before its error is judged: nothing of it remains.
async fn end(
    store: &PostgresStore,
    outbox: Option<&Outbox>,
    delivery: &Delivery,
    lease: &Arc<Lease>,
    slot: &Slot,
    result: Result<Outcome, BoxError>,
) -> Result<Outcome, BoxError> {
    match result {
        Ok(mut outcome) => {
            commit::publish(store, outbox, slot, &mut outcome, delivery.len()).await?;
            commit::settle(store, delivery, lease, slot, outcome).await
        }
        Err(error) => {
            if let Some(transaction) = slot.take_begun() {
                commit::roll_back(store, transaction).await;
            }
            Err(verdict::of_handler(error, delivery.len()))
        }
    }
}
