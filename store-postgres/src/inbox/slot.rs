//! The transaction of a delivery, and its extractor.
//!
//! A delivery has at most one transaction. It lies in a slot, from which a layer or the handler
//! takes it and to which it returns on drop; the inbox takes it last. If it is not there then, the
//! handler has leaked it, and nothing is committed.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Postgres, Transaction};
use tidings_core::{BoxError, Delivery, Error, ErrorKind, unavailable};
use tidings_service::{FromDelivery, Requirement};

use crate::config::PostgresConfig;
use crate::error::failed;
use crate::store::PostgresStore;

/// The transaction of a delivery: the handler's writes and the completion of its events commit atomically.
///
/// An argument of handlers behind [`PostgresStore::inbox`]. The transaction begins when it is first extracted and is
/// returned on drop, so that a layer and then the handler can extract it in turn, but never concurrently. A handler
/// that keeps it after its return, as in a task, fails.
///
/// ```no_run
/// # use serde::{Deserialize, Serialize};
/// # use tidings_core::{BoxError, Delivery};
/// use tidings_postgres::Tx;
///
/// async fn count(delivery: Delivery, mut tx: Tx) -> Result<(), BoxError> {
///     sqlx::query("UPDATE totals SET events = events + 1 WHERE topic = $1")
///         .bind(delivery.topic().as_str())
///         .execute(&mut **tx)
///         .await?;
///     Ok(())
/// }
/// ```
pub struct Tx {
    /// Present until drop.
    transaction: Option<Transaction<'static, Postgres>>,
    slot: Slot,
}

/// The name under which the inbox provides the transaction to [`Tx`].
pub(super) const TRANSACTION: &str = "tidings-postgres transaction";

/// Slot of the transaction while it is not extracted.
#[derive(Clone)]
pub(super) struct Slot(Arc<Inner>);

struct Inner {
    store: PostgresStore,
    /// Statement that begins the transaction.
    begin: Arc<str>,
    state: Mutex<State>,
}

enum State {
    /// The transaction has not begun.
    Untouched,
    /// It has begun and is not extracted.
    Here(Transaction<'static, Postgres>),
    /// It is extracted, or the inbox has taken it for the end.
    Taken,
}

impl Slot {
    /// Creates a slot whose transaction has not begun.
    pub(super) fn new(store: PostgresStore, ttl: Duration) -> Self {
        let begin = begin(store.config(), ttl).into();
        Self(Arc::new(Inner { store, begin, state: Mutex::new(State::Untouched) }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the transaction, beginning it if needed.
    ///
    /// # Errors
    /// The transaction is already extracted, or it can't be begun.
    pub(super) async fn take(&self) -> Result<Transaction<'static, Postgres>, BoxError> {
        let state = std::mem::replace(&mut *self.state(), State::Taken);
        match state {
            State::Here(transaction) => Ok(transaction),
            State::Untouched => self.begin().await.inspect_err(|_| *self.state() = State::Untouched),
            State::Taken => {
                Err(Error::new(ErrorKind::Invalid, "take the transaction of a delivery: it is still in use").into())
            }
        }
    }

    /// Begins the transaction, bounded by the time a silent server is waited for.
    async fn begin(&self) -> Result<Transaction<'static, Postgres>, BoxError> {
        let doing = "begin the transaction of a delivery";
        let store = &self.0.store;
        let text = AssertSqlSafe(Arc::clone(&self.0.begin));
        match store.bounded(store.pool().begin_with(text)).await {
            Ok(begun) => begun.map_err(|error| unavailable(failed(doing, error)).into()),
            // If dropped while it waits, the connection returns to the pool, which tests it before its next use.
            Err(_) => {
                Err(unavailable(Error::new(ErrorKind::Unavailable, format!("{doing}: no answer in time"))).into())
            }
        }
    }

    /// Returns the transaction for the next extraction.
    pub(super) fn give_back(&self, transaction: Transaction<'static, Postgres>) {
        *self.state() = State::Here(transaction);
    }

    /// Takes the transaction if it has begun and is not extracted.
    pub(super) fn take_begun(&self) -> Option<Transaction<'static, Postgres>> {
        let mut state = self.state();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Here(transaction) => Some(transaction),
            other => {
                *state = other;
                None
            }
        }
    }
}

/// Returns `BEGIN` with timeouts below the lease's ttl: the locks of a frozen process's transaction must not block
/// its successor, which owns the events after that time.
fn begin(config: &PostgresConfig, ttl: Duration) -> String {
    let limit = ttl.mul_f64(2.0 / 3.0).max(Duration::from_millis(1));
    let settings = [
        ("lock_timeout", config.lock_timeout),
        ("idle_in_transaction_session_timeout", config.idle_in_transaction_timeout),
    ];
    let mut text = "BEGIN".to_owned();
    for (name, _) in settings.into_iter().filter(|(_, session)| *session > limit) {
        text.push_str(&format!("; SET LOCAL {name} = {}", limit.as_millis()));
    }
    text
}

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tx")
    }
}

impl Deref for Tx {
    type Target = Transaction<'static, Postgres>;

    fn deref(&self) -> &Self::Target {
        self.transaction.as_ref().expect("it is there until the drop")
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.transaction.as_mut().expect("it is there until the drop")
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if let Some(transaction) = self.transaction.take() {
            self.slot.give_back(transaction);
        }
    }
}

impl<S: Sync> FromDelivery<S> for Tx {
    /// # Errors
    /// The handler is not behind [`PostgresStore::inbox`], or the database can't be reached: not the record's fault,
    /// so it waits. Or the transaction is already extracted.
    async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, BoxError> {
        let Some(slot) = delivery.extensions().get::<Slot>() else {
            let what = "take the transaction of a delivery: the handler is not behind the layer `store.inbox()`";
            return Err(unavailable(Error::new(ErrorKind::Invalid, what)).into());
        };
        Ok(Self { transaction: Some(slot.take().await?), slot: slot.clone() })
    }

    fn requirement() -> Option<Requirement> {
        let text = "its argument `Tx` needs the inbox: add `.layer(store.inbox())` to the router, after the handler";
        Some(Requirement::layer(TRANSACTION, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_stay_below_the_time_to_live() {
        let config = PostgresConfig::new("postgres://localhost");
        assert_eq!(begin(&config, Duration::from_secs(60)), "BEGIN");
        assert_eq!(
            begin(&config, Duration::from_secs(3)),
            "BEGIN; SET LOCAL lock_timeout = 2000; SET LOCAL idle_in_transaction_session_timeout = 2000"
        );
    }
}
