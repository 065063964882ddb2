//! Crashes of servers, sessions and services under load: no effect is lost, none is there twice.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "only a part of it is needed here")]
mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use common::{
    TOPIC, TestResult, caught_up, config, database, delivery, effects, handle, letters, number, publish, record, start,
    transport, written,
};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::AssertSqlSafe;
use tidings_core::{BoxError, Claim, Delivery, EventRef, IdempotencyStore, Name, Outcome};
use tidings_memory::MemoryTransport;
use tidings_postgres::{PostgresConfig, PostgresStore, Tx};
use tidings_service::{FromDelivery, Router, Service, ServiceHandle, State};
use tidings_testbed::{Postgres, PostgresOptions, Shutdown, Suite};
use uuid::Uuid;

/// Says to this program that it is a zombie, of the schema, the table and the event in it.
const ZOMBIE: &str = "TIDINGS_ZOMBIE";
/// How many events wait at most while the server is tormented.
const MOST_WAITING: i64 = 2_000;
/// How many events are handled between two blows.
const BETWEEN_BLOWS: u64 = 20;
/// How long a zombie's lease lives: a busy machine must bring it from there to where it is frozen.
const TTL: Duration = Duration::from_secs(5);
/// Where they are frozen: before the transaction, in it before it locks anything, and before its end.
const PLACES: usize = 3;
/// How long the server would let a zombie's transaction do nothing by its own limit, were there none by the lease's life.
const FROZEN_FOR_GOOD: Duration = Duration::from_secs(600);

fn main() -> ExitCode {
    if let Ok(told) = std::env::var(ZOMBIE) {
        return zombie(&told);
    }
    Suite::new()
        .with_case("restarts_and_killed_sessions_lose_and_double_nothing", || crashes(2, 20))
        .with_case("a_frozen_service_commits_nothing_and_blocks_nobody", || zombies(PLACES))
        .with_soak("soak_twenty_restarts_and_five_hundred_killed_sessions", || crashes(20, 500))
        .with_soak("soak_thirty_zombies", || zombies(30))
        .run()
}

async fn write(delivery: Delivery, State(table): State<Arc<str>>, mut tx: Tx) -> Result<(), BoxError> {
    let insert = AssertSqlSafe(format!("INSERT INTO {table} VALUES ($1)"));
    sqlx::query(insert).bind(number(delivery.record())).execute(&mut **tx).await?;
    Ok(())
}

/// The events are published as the service goes, so that there is work throughout.
async fn crashes(restarts: usize, kills: usize) -> TestResult {
    let postgres = Postgres::start(PostgresOptions::new()).await?;
    let quick = config(&postgres.url())
        .with_acquire_timeout(Duration::from_secs(2))
        .with_answer_within(Duration::from_secs(10));
    let transport = transport(4).await?;
    let store = at_last(async || Ok(PostgresStore::connect_with(quick.clone()).await?)).await?;
    let table = at_last(async || effects(store.pool()).await).await?;
    let router = || Router::new().on_topic(TOPIC, write).layer(store.inbox()).with_state(Arc::from(table.as_str()));
    let service = || Service::new("orders", router()).with_idempotency(store.clone());
    let running = Arc::new(at_last(async || start(service(), &transport).await).await?);

    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(load(transport.clone(), Arc::clone(&running), Arc::clone(&stop)));
    let mut random = fastrand::Rng::new();
    for round in 0..restarts {
        for _ in 0..kills / restarts {
            // Something is under way: services that only try to connect have nothing to lose.
            handled(&running, BETWEEN_BLOWS).await?;
            tokio::time::sleep(Duration::from_millis(random.u64(0..20))).await;
            let sessions = postgres.backends()?;
            if let Some(session) = random.choice(&sessions) {
                // One that has ended since is as good as killed.
                let killed = if random.u8(..10) == 0 {
                    postgres.kill_backend(session.pid)
                } else {
                    postgres.terminate_backend(session.pid)
                };
                drop(killed);
            }
        }
        handled(&running, BETWEEN_BLOWS).await?;
        postgres.restart(Shutdown::Immediate).await?;
        println!("restarted {} of {restarts} times", round + 1);
    }
    stop.store(true, SeqCst);
    let published = load.await??;
    let stopped = Instant::now();
    caught_up(&running).await?;
    println!("caught up {:?} after the last restart", stopped.elapsed());
    // The witness shares no code with us.
    let counted = postgres.sql(&format!("SELECT count(*), count(DISTINCT n), max(n) FROM {table}")).await?;
    assert_eq!(counted, format!("{published}|{published}|{}", published - 1));
    assert_eq!(letters(&transport).await?, 0);
    println!("{published} events, each of them once");
    Arc::into_inner(running).unwrap().shutdown(Duration::from_secs(10)).await?;
    Ok(())
}

/// Returns the final result of `attempt`: a busy machine may need longer for a connection than the store waits for one here.
async fn at_last<T>(mut attempt: impl AsyncFnMut() -> TestResult<T>) -> TestResult<T> {
    let began = Instant::now();
    loop {
        match attempt().await {
            Err(error) if began.elapsed() > common::LIMIT => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            done => return done,
        }
    }
}

/// Waits until this number of further events is handled.
async fn handled(running: &ServiceHandle, more: u64) -> TestResult {
    let goal = running.status().await.totals.handled + more;
    let working = async {
        while running.status().await.totals.handled < goal {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    match tokio::time::timeout(common::LIMIT, working).await {
        Ok(()) => Ok(()),
        Err(_) => Err(format!("it does not go on: {:#?}", running.status().await).into()),
    }
}

/// Publishes for as long as there is not more to do than would be done in some seconds.
async fn load(transport: MemoryTransport, running: Arc<ServiceHandle>, stop: Arc<AtomicBool>) -> TestResult<i64> {
    let mut published = 0;
    while !stop.load(SeqCst) {
        let handled = i64::try_from(running.status().await.totals.handled)?;
        if published - handled < MOST_WAITING {
            publish(&transport, (published..published + 20).map(|n| record(Uuid::now_v7(), n)).collect()).await?;
            published += 20;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(published)
}

/// Processes that are frozen in the middle of a delivery, for longer than their lease lives.
async fn zombies(count: usize) -> TestResult {
    let url = database().await?;
    let settings = config(url);
    let store = PostgresStore::connect_with(settings.clone()).await?;
    let table = effects(store.pool()).await?;
    let totals = AssertSqlSafe(format!("CREATE TABLE totals_{table} AS SELECT 0::bigint AS sum"));
    sqlx::query(totals).execute(store.pool()).await?;
    for n in 0..count {
        let event = Uuid::now_v7();
        let child = Frozen::start(&format!("{url} {} {table} {event} {}", settings.schema, n % PLACES))?;
        let frozen = Instant::now();
        // The successor has the event as soon as the lease is expired, and is not blocked for as long as the other is frozen.
        let lease = store.acquire_lease(&Name::from("orders"), Duration::from_secs(60)).await?;
        let events = [EventRef::new(event, "order.placed")];
        while !matches!(store.claim(&lease, &events).await?[0], Claim::Granted(_)) {
            assert!(frozen.elapsed() < common::LIMIT, "the claim was never free");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let taken = Instant::now();
        while let Err(error) = effect(&store, &table, delivery(&lease, &[(event, 1)]), None).await {
            assert!(taken.elapsed() < common::LIMIT, "{error}");
        }
        println!("zombie {}: the successor was done {:?} after it had the claim", n + 1, taken.elapsed());
        let end = child.thaw()?;
        // It may find that the event is done, which settles it as well; what counts are the effects.
        assert!(end.starts_with("refused") || end == "settled\n", "the zombie said {end:?}");
        let n = i64::try_from(n)? + 1;
        assert_eq!(written(store.pool(), &table).await?, vec![1; usize::try_from(n)?], "one effect for each event");
        let sum: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT sum FROM totals_{table}")))
            .fetch_one(store.pool())
            .await?;
        assert_eq!(sum, n);
        println!("zombie {n} {}", end.trim());
    }
    Ok(())
}

/// Handles a delivery as a service does: writes an effect, and takes a lock that all deliveries want.
async fn effect(
    store: &PostgresStore,
    table: &str,
    delivery: Delivery,
    pauses: Option<Pauses>,
) -> Result<Outcome, BoxError> {
    let table = table.to_owned();
    handle(store, delivery, move |delivery| {
        let table = table.clone();
        async move {
            pause(pauses, 0);
            let mut tx = Tx::from_delivery(&delivery, &()).await?;
            pause(pauses, 1);
            let update = format!("UPDATE totals_{table} SET sum = sum + 1");
            sqlx::query(AssertSqlSafe(update)).execute(&mut **tx).await?;
            let insert = format!("INSERT INTO {table} VALUES (1)");
            sqlx::query(AssertSqlSafe(insert)).execute(&mut **tx).await?;
            drop(tx);
            pause(pauses, 2);
            Ok(Outcome::handled())
        }
    })
    .await
}

/// Where a zombie waits to be frozen.
#[derive(Debug, Clone, Copy)]
struct Pauses(usize);

fn pause(pauses: Option<Pauses>, place: usize) {
    if pauses.is_some_and(|pauses| pauses.0 == place) {
        println!("here");
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).unwrap();
    }
}

/// A process in the middle of a delivery.
struct Frozen(Child);

impl Frozen {
    fn start(told: &str) -> TestResult<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(ZOMBIE, told)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line)?;
        let frozen = Self(child);
        if line != "here\n" {
            return Err(format!("the zombie said {line:?}").into());
        }
        kill_process(frozen.pid(), Signal::STOP)?;
        Ok(frozen)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    /// Lets it go on; what it says at its end.
    fn thaw(mut self) -> TestResult<String> {
        kill_process(self.pid(), Signal::CONT)?;
        self.0.stdin.take().unwrap().write_all(b"go on\n")?;
        let mut end = String::new();
        BufReader::new(self.0.stdout.take().unwrap()).read_line(&mut end)?;
        Ok(end)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// The other process: claims an event, and handles it without renewing its lease.
fn zombie(told: &str) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let words: Vec<_> = told.split(' ').collect();
    let [url, schema, table, event, place] = words[..] else { panic!("{told}") };
    let handled = runtime.block_on(async {
        let config = PostgresConfig::new(url).with_schema(schema).with_idle_in_transaction_timeout(FROZEN_FOR_GOOD);
        let store = PostgresStore::connect_with(config).await.unwrap();
        let event: Uuid = event.parse().unwrap();
        let lease = store.acquire_lease(&Name::from("orders"), TTL).await.unwrap();
        let claims = store.claim(&lease, &[EventRef::new(event, "order.placed")]).await.unwrap();
        assert!(matches!(claims[0], Claim::Granted(_)));
        effect(&store, table, delivery(&lease, &[(event, 1)]), Some(Pauses(place.parse().unwrap()))).await
    });
    match handled {
        Ok(_) => println!("settled"),
        Err(error) => println!("refused: {error}"),
    }
    ExitCode::SUCCESS
}
