//! The end of a delivery's transaction.
//!
//! The order is fixed: first the events that the handler returned are written to the outbox, then
//! its events are marked as done, which checks claim, lease and epoch and is the last statement,
//! then the transaction commits. So the check and the commit are as close as they can be, and a
//! handler that has lost its claim commits nothing.
//!
//! A commit may lose its answer. Then the transaction's id is asked for until the server knows its
//! end; the delivery is neither repeated nor given up before that is clear.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Postgres, Row, Transaction};
use tidings_core::{
    BoxError, Delivery, Error, ErrorKind, EventRef, IdempotencyStore, Lease, Name, Outcome, Result, codec, event_id_of,
    held, rolled_back, unavailable,
};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::slot::Slot;
use super::verdict;
use crate::error::{failed, failed_write, is_lock_timeout, is_lost};
use crate::idempotency::in_order;
use crate::outbox::Outbox;
use crate::store::PostgresStore;
use crate::wire::storable;

/// How long to resolve a commit without an answer before it counts as an outage.
const RESOLVE_WITHIN: Duration = Duration::from_secs(60);
/// Initial backoff of the resolution; doubled up to [`LONGEST_LOOK`].
const FIRST_LOOK: Duration = Duration::from_millis(20);
/// Upper bound of that backoff.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// Status of a transaction: in progress also while the server still commits for a vanished client; aborted after a
/// crash and recovery.
const STATUS: &str = "SELECT pg_xact_status($1::text::xid8)";

/// Result of the transaction's last statement.
struct Settled {
    /// `settled`, `done`, or the reason for which this delivery may not complete.
    verdict: String,
    /// Id of the transaction, to ask for its end.
    xid: String,
}

/// Writes the events that the handler returned into the outbox, in its transaction.
///
/// # Errors
/// Without an outbox the delivery waits: its events would be lost. The transaction is rolled back
/// if the outbox can't be written.
pub(super) async fn publish(
    store: &PostgresStore,
    outbox: Option<&Outbox>,
    slot: &Slot,
    outcome: &mut Outcome,
    deliveries: usize,
) -> Result<(), BoxError> {
    let records = outcome.take_records();
    if records.is_empty() {
        return Ok(());
    }
    let Some(outbox) = outbox else {
        // Done before they are published, they would be lost with this process.
        let what = "commit a delivery: its handler returned events, which the inbox can't publish without an outbox";
        return Err(unavailable(Error::new(ErrorKind::Invalid, what)).into());
    };
    let mut transaction = slot.take().await?;
    let written = store.bounded(outbox.put(&mut transaction, records)).await;
    let error = match written {
        Ok(Ok(())) => {
            slot.give_back(transaction);
            return Ok(());
        }
        Ok(Err(error)) => error,
        Err(_) => Error::new(ErrorKind::Unavailable, "write to the outbox: no answer in time"),
    };
    roll_back(store, transaction).await;
    Err(verdict::of_handler(error.into(), deliveries))
}

/// Marks the delivery's events as done, checks that this lease still owns them, and commits.
///
/// # Errors
/// A delivery that lost its claim is held, not failed: its new owner handles it. An error of the
/// database makes it wait, an error of its data counts as the handler's.
pub(super) async fn settle(
    store: &PostgresStore,
    delivery: &Delivery,
    lease: &Lease,
    slot: &Slot,
    outcome: Outcome,
) -> Result<Outcome, BoxError> {
    let mut transaction = slot.take().await?;
    let events = events(delivery);
    let settled = match write_done(store, delivery, lease, &events, &mut transaction).await {
        Ok(settled) => settled,
        Err(error) => {
            roll_back(store, transaction).await;
            return Err(of_settle(error, delivery.len()));
        }
    };
    match settled.verdict.as_str() {
        "settled" => commit(store, transaction, lease, &events, &settled.xid, delivery.len()).await,
        "done" => {
            roll_back(store, transaction).await;
            done_by_another(store, lease, &events).await
        }
        verdict => {
            roll_back(store, transaction).await;
            let what = match verdict {
                "claim" => "its claim was taken over",
                "epoch" => "its partition was reassigned",
                _ => "its lease expired",
            };
            Err(held(Error::new(ErrorKind::Fenced, format!("commit a delivery: {what}"))).into())
        }
    }
    .map(|()| outcome.with_completed())
}

/// Returns the delivery's events as the store knows them. A record that can't be read has an id
/// derived from its position.
fn events(delivery: &Delivery) -> Vec<EventRef> {
    // Each record is read once, and the name of a type is kept for the next record, which mostly has the same.
    let mut last = Name::default();
    let known = |id| delivery.context().id_in_store(delivery.topic(), id);
    let event = |record| {
        let Ok(head) = codec::peek(record) else {
            return EventRef::new(known(event_id_of(delivery.origin(), record)), Name::default());
        };
        if last != *head.event_type {
            last = Name::from(head.event_type.into_owned());
        }
        EventRef::new(known(head.id), last.clone())
    };
    delivery.records().map(event).collect()
}

/// Executes the transaction's last statement.
async fn write_done(
    store: &PostgresStore,
    delivery: &Delivery,
    lease: &Lease,
    events: &[EventRef],
    transaction: &mut Transaction<'static, Postgres>,
) -> Result<Settled, sqlx::Error> {
    let (ids, types) = in_order(events, store.done());
    let context = delivery.context();
    let query = sqlx::query(store.texts().settle.clone())
        .bind(lease.id)
        .bind(storable(&lease.scope))
        .bind(&ids)
        .bind(&types)
        .bind(storable(&context.group))
        .bind(storable(delivery.topic()))
        .bind(i64::from(delivery.partition()))
        .bind(delivery.epoch().cast_signed());
    let answered = store.bounded(query.fetch_one(&mut **transaction)).await;
    let row = answered.unwrap_or_else(|_| Err(silent()))?;
    Ok(Settled { verdict: row.try_get("verdict")?, xid: row.try_get("xid")? })
}

/// Returns the client's error for a silent server.
fn silent() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}

/// Converts the error of the last statement, which rolled back the transaction.
fn of_settle(error: sqlx::Error, records: usize) -> BoxError {
    let doing = "record done events";
    if is_lock_timeout(&error) {
        // Another transaction completes the same events and has not ended.
        return held(failed(doing, error)).into();
    }
    let error = failed(doing, error);
    verdict::of_handler(error.into(), records)
}

/// Handles an event completed by others, such as a service that shares the table and does not use claims. The work
/// here was rolled back. A single event is settled by that; in a batch, the completed ones must be determined.
async fn done_by_another(store: &PostgresStore, lease: &Lease, events: &[EventRef]) -> Result<(), BoxError> {
    if events.len() > 1 {
        let what = "commit a batch: some of its events are done already";
        return Err(rolled_back([], Error::new(ErrorKind::Conflict, what)).into());
    }
    // A handler that writes the row itself finds its own, which was rolled back with all its work.
    if !is_done(store, lease, events).await.map_err(unavailable)? {
        let what = "commit a delivery: its event was done in this very transaction; the inbox alone may write that";
        return Err(unavailable(Error::new(ErrorKind::Conflict, what)).into());
    }
    // The event is done; this only ends the claim.
    store.complete(lease, events).await.map(drop).map_err(|error| unavailable(error).into())
}

/// Asks on a connection of its own, outside the transaction that was rolled back.
async fn is_done(store: &PostgresStore, lease: &Lease, events: &[EventRef]) -> Result<bool> {
    let doing = "check whether an event is done";
    let ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
    let mut connection = store.acquire(doing).await?;
    let answered = store.bounded(are_done(store, &mut connection, lease, &ids)).await;
    store.judge(doing, &mut connection, answered)
}

/// Commits. An error that the server reports at the end, such as a deferred constraint, counts as
/// the handler's.
async fn commit(
    store: &PostgresStore,
    transaction: Transaction<'static, Postgres>,
    lease: &Lease,
    events: &[EventRef],
    xid: &str,
    records: usize,
) -> Result<(), BoxError> {
    let doing = "commit a delivery";
    let answered = store.bounded(transaction.commit()).await.unwrap_or_else(|_| Err(silent()));
    match answered {
        Ok(()) => Ok(()),
        Err(error) if is_lost(&error) => {
            tracing::warn!(error = %error, "a commit was not answered; checking whether it took effect");
            match timeout(RESOLVE_WITHIN, is_committed(store, lease, events, xid)).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(unavailable(failed(doing, error)).into()),
                // The handler runs again, and finds its own event if it was committed after all.
                Err(_) => Err(unavailable(failed_write(doing, error)).into()),
            }
        }
        // A constraint that is checked at the end, a serialization failure.
        Err(error) => Err(verdict::of_handler(failed(doing, error).into(), records)),
    }
}

/// Determines how a transaction ended, waiting as long as needed.
async fn is_committed(store: &PostgresStore, lease: &Lease, events: &[EventRef], xid: &str) -> bool {
    let (ids, _) = in_order(events, store.done());
    let mut wait = FIRST_LOOK;
    loop {
        let asked = Instant::now();
        match store.bounded(look(store, lease, &ids, xid)).await {
            Ok(Ok(Some(committed))) => return committed,
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                tracing::debug!(error = %error.report(), "cannot query the database yet; the query is repeated")
            }
            Err(_) => tracing::debug!("the database does not answer yet; the query is repeated"),
        }
        sleep(wait.saturating_sub(asked.elapsed())).await;
        wait = (wait * 2).min(LONGEST_LOOK);
    }
}

/// Returns whether the events are done; `None` while the transaction is in progress. The order matters: rows that are
/// missing after the transaction ended will not appear.
async fn look(store: &PostgresStore, lease: &Lease, ids: &[Uuid], xid: &str) -> Result<Option<bool>> {
    let doing = "check whether a transaction was committed";
    let mut connection = store.acquire(doing).await?;
    let status = sqlx::query_scalar::<_, Option<String>>(STATUS).bind(xid).fetch_one(&mut *connection).await;
    let status = match status {
        Ok(status) => status,
        // This server never had the transaction: it is a different one, after a failover.
        Err(error) if is_unknown_transaction(&error) => None,
        Err(error) => return Err(failed(doing, error)),
    };
    if status.as_deref() == Some("in progress") {
        return Ok(None);
    }
    are_done(store, &mut connection, lease, ids).await.map(Some).map_err(|e| failed(doing, e))
}

/// Checks whether all of these events are done.
async fn are_done(
    store: &PostgresStore,
    connection: &mut PgConnection,
    lease: &Lease,
    ids: &[Uuid],
) -> sqlx::Result<bool> {
    let count = sqlx::query_scalar(store.texts().count_done.clone()).bind(storable(&lease.scope)).bind(ids);
    let count: i64 = count.fetch_one(connection).await?;
    Ok(usize::try_from(count) == Ok(ids.len()))
}

/// `invalid_parameter_value`: a number from the future.
fn is_unknown_transaction(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|e| e.code()).as_deref() == Some("22023")
}

/// Rolls a transaction back. If the server can't be reached, it does so when the connection ends.
pub(super) async fn roll_back(store: &PostgresStore, transaction: Transaction<'static, Postgres>) {
    match store.bounded(transaction.rollback()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a transaction ended with its connection"),
        Err(_) => tracing::debug!("a transaction was abandoned: no answer in time"),
    }
}
