//! The inbox: what a handler writes and that its events are done commit together, or neither.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod lost;
mod others;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use common::{
    TOPIC, TestResult, caught_up, config, database, delivery, effects, handle, letters, number, patient, publish,
    record, start, store, transport, written,
};
use sqlx::{AssertSqlSafe, PgPool};
use tidings_core::{
    BoxError, Claim, Delivery, EventRef, Failure, IdempotencyStore, Lease, Name, Outcome, RawBatch, reject,
};
use tidings_postgres::{PostgresStore, Tx};
use tidings_service::{BatchOptions, FromDelivery, HandlerExt, Router, Service, State};
use tidings_testbed::Suite;
use tokio::sync::oneshot;
use uuid::Uuid;

fn main() -> ExitCode {
    Suite::new()
        .with_case("an_effect_and_that_its_event_is_done_are_committed_together", committed_together)
        .with_case("a_duplicate_never_reaches_the_handler", duplicates)
        .with_case("a_failure_a_panic_and_a_timeout_undo_everything", failures_undo)
        .with_case("a_batch_is_one_transaction_and_the_failing_record_is_found", batches)
        .with_case("a_handler_that_keeps_its_transaction_has_failed", kept)
        .with_case("a_transaction_goes_back_and_can_be_taken_again", taken_again)
        .with_case("a_claim_that_was_taken_over_can_not_be_committed", taken_over)
        .with_case("a_dead_holder_can_not_commit_though_nobody_took_over", dead_lease)
        .with_case("an_older_epoch_can_not_commit", older_epoch)
        .with_case("what_a_service_without_claims_has_done_is_undone_here", done_elsewhere)
        .with_case("a_commit_whose_answer_is_lost_is_looked_up", lost::answer)
        .with_case("a_commit_that_never_arrived_is_handled_again", lost::commit)
        .with_case("a_claim_is_never_kept_waiting_by_a_transaction", claims_do_not_wait)
        .with_case("a_claim_sees_what_is_done_meanwhile_whatever_isolation_the_database_sets", others::isolation)
        .with_case("a_handler_that_writes_the_done_row_itself_loses_nothing", others::own_row)
        .with_case("a_shared_table_may_lie_in_a_schema_called_tidings", others::name_like_ours)
        .with_case("returned_events_without_an_outbox_are_refused", returned_events)
        .with_case("a_service_that_lacks_the_inbox_or_its_store_does_not_start", incomplete)
        .run()
}

#[derive(Debug, Clone)]
struct Sums {
    table: Arc<str>,
    calls: Arc<AtomicUsize>,
}

impl Sums {
    async fn new(pool: &PgPool) -> TestResult<Self> {
        Ok(Self { table: effects(pool).await?.into(), calls: Arc::default() })
    }

    async fn write(&self, tx: &mut Tx, n: i64) -> Result<(), sqlx::Error> {
        let insert = AssertSqlSafe(format!("INSERT INTO {} VALUES ($1)", self.table));
        sqlx::query(insert).bind(n).execute(&mut ***tx).await.map(drop)
    }
}

fn service(store: &PostgresStore, router: Router) -> Service {
    Service::new("orders", router).with_idempotency(store.clone())
}

async fn incomplete() -> TestResult {
    let (store, transport) = (store().await?, transport(1).await?);
    let router = || Router::new().on_topic(TOPIC, async |_: Delivery, _: Tx| {});
    let refused = async |service: Service| service.start(&transport).await.unwrap_err().to_string();

    let text = refused(service(&store, router())).await;
    assert!(text.contains("`Tx` needs the inbox: add `.layer(store.inbox())`"), "{text}");
    let text = refused(Service::new("orders", router().layer(store.inbox()))).await;
    assert!(text.contains("call `Service::with_idempotency(store)`"), "{text}");
    service(&store, router().layer(store.inbox())).start(&transport).await?.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}

async fn committed_together() -> TestResult {
    let (store, transport) = (store().await?, transport(2).await?);
    let sums = Sums::new(store.pool()).await?;
    let handler = async |delivery: Delivery, State(sums): State<Sums>, mut tx: Tx| -> Result<(), BoxError> {
        Ok(sums.write(&mut tx, number(delivery.record())).await?)
    };
    let router = Router::new().on_topic(TOPIC, handler).layer(store.inbox()).with_state(sums.clone());
    let running = start(service(&store, router), &transport).await?;
    publish(&transport, (0..50).map(|n| record(Uuid::now_v7(), n)).collect()).await?;
    caught_up(&running).await?;
    running.shutdown(Duration::from_secs(10)).await?;
    assert_eq!(written(store.pool(), &sums.table).await?, (0..50).collect::<Vec<_>>());
    Ok(())
}

async fn duplicates() -> TestResult {
    let (store, transport) = (store().await?, transport(1).await?);
    let sums = Sums::new(store.pool()).await?;
    let handler = async |delivery: Delivery, State(sums): State<Sums>, mut tx: Tx| -> Result<(), BoxError> {
        sums.calls.fetch_add(1, SeqCst);
        Ok(sums.write(&mut tx, number(delivery.record())).await?)
    };
    let router = Router::new().on_topic(TOPIC, handler).layer(store.inbox()).with_state(sums.clone());
    let running = start(service(&store, router), &transport).await?;
    let id = Uuid::now_v7();
    publish(&transport, vec![record(id, 1)]).await?;
    caught_up(&running).await?;
    publish(&transport, vec![record(id, 1), record(id, 1)]).await?;
    caught_up(&running).await?;
    assert_eq!((sums.calls.load(SeqCst), written(store.pool(), &sums.table).await?), (1, vec![1]));
    assert_eq!(running.status().await.totals.duplicates, 2);
    Ok(())
}

async fn failures_undo() -> TestResult {
    let (store, transport) = (store().await?, transport(1).await?);
    let sums = Sums::new(store.pool()).await?;
    // The first three attempts fail in a way of their own, after the effect was written.
    let handler = async |delivery: Delivery, State(sums): State<Sums>, mut tx: Tx| -> Result<(), BoxError> {
        sums.write(&mut tx, number(delivery.record())).await?;
        match sums.calls.fetch_add(1, SeqCst) {
            0 => Err("oops".into()),
            1 => panic!("oops"),
            2 => std::future::pending().await,
            _ => Ok(()),
        }
    };
    let router = Router::new().on_topic(TOPIC, handler).layer(store.inbox()).with_state(sums.clone());
    // Longer than a busy machine holds up the other attempts, shorter than the server lets a transaction do nothing.
    let service = service(&store, router).with_handler_timeout(Some(Duration::from_secs(8)));
    let running = start(service, &transport).await?;
    publish(&transport, vec![record(Uuid::now_v7(), 7)]).await?;
    caught_up(&running).await?;
    assert_eq!((sums.calls.load(SeqCst), written(store.pool(), &sums.table).await?), (4, vec![7]));
    assert_eq!(letters(&transport).await?, 0);
    Ok(())
}

async fn batches() -> TestResult {
    let (store, transport) = (store().await?, transport(1).await?);
    let sums = Sums::new(store.pool()).await?;
    publish(&transport, (0..100).map(|n| record(Uuid::now_v7(), n)).collect()).await?;
    let handler = async |batch: RawBatch, State(sums): State<Sums>, mut tx: Tx| -> Result<(), BoxError> {
        sums.calls.fetch_add(1, SeqCst);
        for record in batch.0.records() {
            sums.write(&mut tx, number(record)).await?;
            if number(record) == 41 {
                return Err(reject("nobody wants it").into());
            }
        }
        Ok(())
    };
    let options = BatchOptions::new(100).with_wait(Duration::from_secs(1));
    let router = Router::new().on_topic(TOPIC, handler.batch(options)).layer(store.inbox()).with_state(sums.clone());
    let running = start(service(&store, router).with_workers(1), &transport).await?;
    caught_up(&running).await?;
    let all_but_one: Vec<_> = (0..100).filter(|n| *n != 41).collect();
    assert_eq!(written(store.pool(), &sums.table).await?, all_but_one);
    assert_eq!(letters(&transport).await?, 1);
    let calls = sums.calls.load(SeqCst);
    assert!(calls < 40, "{calls} calls: one by one it would be a hundred");
    Ok(())
}

/// A lease that has claimed these events.
async fn claimed(store: &PostgresStore, ttl: Duration, events: &[(Uuid, i64)]) -> TestResult<Lease> {
    let lease = store.acquire_lease(&Name::from("orders"), ttl).await?;
    for claim in store.claim(&lease, &refs(events)).await? {
        assert!(matches!(claim, Claim::Granted(_)), "{claim:?}");
    }
    Ok(lease)
}

fn refs(events: &[(Uuid, i64)]) -> Vec<EventRef> {
    events.iter().map(|(id, _)| EventRef::new(*id, "order.placed")).collect()
}

const LONG: Duration = Duration::from_secs(60);

async fn tx(delivery: &Delivery) -> Result<Tx, BoxError> {
    Tx::from_delivery(delivery, &()).await
}

async fn write_all(sums: Sums, delivery: Delivery) -> Result<Outcome, BoxError> {
    let mut tx = tx(&delivery).await?;
    for record in delivery.records() {
        sums.write(&mut tx, number(record)).await?;
    }
    Ok(Outcome::handled())
}

async fn kept() -> TestResult {
    let store = store().await?;
    let sums = Sums::new(store.pool()).await?;
    let events = [(Uuid::now_v7(), 1)];
    let lease = claimed(&store, LONG, &events).await?;
    let (keep, kept) = oneshot::channel();
    let keep = Arc::new(std::sync::Mutex::new(Some(keep)));
    let written_by = sums.clone();
    let error = handle(&store, delivery(&lease, &events), move |delivery| {
        let (sums, keep) = (written_by.clone(), Arc::clone(&keep));
        async move {
            let mut tx = tx(&delivery).await?;
            sums.write(&mut tx, 1).await?;
            drop(keep.lock().unwrap().take().unwrap().send(tx));
            Ok(Outcome::handled())
        }
    })
    .await
    .unwrap_err();
    assert!(error.to_string().contains("it is still in use"), "{error}");
    drop(kept.await?);
    assert_eq!(store.claim(&lease, &refs(&events)).await?.len(), 1);
    assert!(written(store.pool(), &sums.table).await?.is_empty());
    Ok(())
}

async fn taken_again() -> TestResult {
    let store = store().await?;
    let sums = Sums::new(store.pool()).await?;
    let events = [(Uuid::now_v7(), 1)];
    let lease = claimed(&store, LONG, &events).await?;
    let written_by = sums.clone();
    let outcome = handle(&store, delivery(&lease, &events), move |delivery| {
        let sums = written_by.clone();
        async move {
            let mut first = tx(&delivery).await?;
            sums.write(&mut first, 1).await?;
            assert!(tx(&delivery).await.is_err(), "two had it at once");
            drop(first);
            let mut second = tx(&delivery).await?;
            sums.write(&mut second, 2).await?;
            Ok(Outcome::handled())
        }
    })
    .await?;
    assert!(outcome.is_completed());
    assert_eq!(written(store.pool(), &sums.table).await?, [1, 2]);
    Ok(())
}

async fn taken_over() -> TestResult {
    let store = store().await?;
    let sums = Sums::new(store.pool()).await?;
    let events = [(Uuid::now_v7(), 1), (Uuid::now_v7(), 2)];
    let lease = claimed(&store, LONG, &events).await?;
    let (other, written_by) = (store.clone(), sums.clone());
    let (by, first) = (lease.clone(), events[..1].to_vec());
    let error = handle(&store, delivery(&lease, &events), move |delivery| {
        let (store, sums, by, first) = (other.clone(), written_by.clone(), by.clone(), first.clone());
        async move {
            let outcome = write_all(sums, delivery).await;
            // One of the two goes to another.
            let release: Vec<_> = first.iter().map(|(id, _)| tidings_core::ReleasedClaim::new(*id, 0)).collect();
            store.release(&by, &release).await?;
            claimed(&store, LONG, &first).await?;
            outcome
        }
    })
    .await
    .unwrap_err();
    assert_eq!(Failure::of(error.as_ref()), Failure::Held, "{error}");
    assert!(written(store.pool(), &sums.table).await?.is_empty());
    Ok(())
}

async fn dead_lease() -> TestResult {
    let store = store().await?;
    let sums = Sums::new(store.pool()).await?;
    let events = [(Uuid::now_v7(), 1)];
    let lease = claimed(&store, LONG, &events).await?;
    let (other, written_by) = (store.clone(), sums.clone());
    let schema_holder = lease.clone();
    let error = handle(&store, delivery(&lease, &events), move |delivery| {
        let (store, sums, lease) = (other.clone(), written_by.clone(), schema_holder.clone());
        async move {
            let outcome = write_all(sums, delivery).await;
            store.retire(&lease).await?;
            outcome
        }
    })
    .await
    .unwrap_err();
    assert_eq!(Failure::of(error.as_ref()), Failure::Held, "{error}");
    assert!(written(store.pool(), &sums.table).await?.is_empty());
    Ok(())
}

async fn older_epoch() -> TestResult {
    let store = store().await?;
    let sums = Sums::new(store.pool()).await?;
    for (n, epoch, commits) in [(1, 5, true), (2, 7, true), (3, 6, false), (4, 7, true)] {
        let events = [(Uuid::now_v7(), n)];
        let lease = claimed(&store, LONG, &events).await?;
        let written_by = sums.clone();
        let delivery = delivery(&lease, &events).with_epoch(epoch);
        let handled = handle(&store, delivery, move |delivery| write_all(written_by.clone(), delivery)).await;
        assert_eq!(handled.is_ok(), commits, "epoch {epoch}: {handled:?}");
    }
    assert_eq!(written(store.pool(), &sums.table).await?, [1, 2, 4]);
    Ok(())
}

/// The table that KafkaJS services write into, and a store on it.
async fn shared() -> TestResult<(PostgresStore, String)> {
    let pool = PgPool::connect(database().await?).await?;
    let table = format!("processed_{}", Uuid::now_v7().simple());
    let sql = format!(
        "CREATE TABLE {table} (event_id UUID, event_type VARCHAR(100), service_name VARCHAR(50),
         processed_at TIMESTAMP, UNIQUE (event_id, service_name))"
    );
    sqlx::query(AssertSqlSafe(sql)).execute(&pool).await?;
    let config = config(database().await?).with_shared_done_table(table.clone());
    Ok((PostgresStore::connect_with(config).await?, table))
}

async fn done_elsewhere() -> TestResult {
    let (store, table) = shared().await?;
    let (sums, transport) = (Sums::new(store.pool()).await?, transport(1).await?);
    let ids: Vec<_> = (0..8).map(|_| Uuid::now_v7()).collect();
    publish(&transport, ids.iter().zip(0..).map(|(id, n)| record(*id, n)).collect()).await?;
    // While the first call is at work, the other service does two of the events.
    let done_there: Arc<[Uuid]> = [ids[2], ids[5]].into();
    let state = (sums.clone(), store.pool().clone(), table.clone(), done_there, Arc::new(AtomicBool::new(false)));
    type Shared = (Sums, PgPool, String, Arc<[Uuid]>, Arc<AtomicBool>);
    let handler = async |batch: RawBatch, State(state): State<Shared>, mut tx: Tx| -> Result<(), BoxError> {
        let (sums, pool, table, there, before) = state;
        for record in batch.0.records() {
            sums.write(&mut tx, number(record)).await?;
        }
        if !before.swap(true, SeqCst) {
            let insert = format!("INSERT INTO {table} SELECT id, 'order.placed', 'orders', now() FROM unnest($1) id");
            sqlx::query(AssertSqlSafe(insert)).bind(&there[..]).execute(&pool).await?;
        }
        Ok(())
    };
    let options = BatchOptions::new(8).with_wait(Duration::from_secs(1));
    let router = Router::new().on_topic(TOPIC, handler.batch(options)).layer(store.inbox()).with_state(state);
    // One worker: another one's batch would do an event of the other service at the same time as that.
    let running = start(service(&store, router).with_workers(1), &transport).await?;
    caught_up(&running).await?;
    assert_eq!(written(store.pool(), &sums.table).await?, [0, 1, 3, 4, 6, 7]);
    assert_eq!(letters(&transport).await?, 0);
    let count = AssertSqlSafe(format!("SELECT count(*) FROM {table} WHERE service_name = 'orders'"));
    let done: i64 = sqlx::query_scalar(count).fetch_one(store.pool()).await?;
    assert_eq!(done, 8, "each side sees what the other has done");
    Ok(())
}

async fn claims_do_not_wait() -> TestResult {
    let store = PostgresStore::connect_with(patient(config(database().await?))).await?;
    let events = [(Uuid::now_v7(), 1)];
    let lease = claimed(&store, LONG, &events).await?;
    // As a transaction does that is frozen before its COMMIT.
    let locked = AssertSqlSafe(format!("SELECT FROM {}.claims FOR UPDATE", schema(&store)));
    let mut frozen = store.pool().begin().await?;
    sqlx::query(locked).execute(&mut *frozen).await?;
    store.retire(&lease).await?;
    let other = store.acquire_lease(&Name::from("orders"), LONG).await?;
    // Well within what the server would wait for a lock.
    let claims = tokio::time::timeout(Duration::from_secs(30), store.claim(&other, &refs(&events))).await??;
    assert!(matches!(claims[0], Claim::Held { .. }), "{claims:?}");
    frozen.rollback().await?;
    assert!(matches!(store.claim(&other, &refs(&events)).await?[0], Claim::Granted(_)));
    Ok(())
}

/// The schema is nothing that a store tells.
fn schema(store: &PostgresStore) -> String {
    let text = format!("{store:?}");
    let (_, rest) = text.split_once("schema: \"").unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

async fn returned_events() -> TestResult {
    let store = store().await?;
    let events = [(Uuid::now_v7(), 1)];
    let lease = claimed(&store, LONG, &events).await?;
    let error = handle(&store, delivery(&lease, &events), |_| async {
        let mut outcome = Outcome::handled();
        outcome.push(record(Uuid::now_v7(), 2));
        Ok(outcome)
    })
    .await
    .unwrap_err();
    assert_eq!(Failure::of(error.as_ref()), Failure::Unavailable, "{error}");
    assert!(matches!(store.claim(&lease, &refs(&events)).await?[0], Claim::Held { .. }), "nothing is done");
    Ok(())
}
