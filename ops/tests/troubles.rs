//! Troubles at night: ten minutes after each began, the last 20 lines of the log and `/status` alone name its cause and
//! its remedy, by exact codes and words. On memory, on a paused clock; those that only Kafka can show are in
//! `integration/tests/troubles.rs`.

mod common;
#[path = "common/night.rs"]
mod night;

use std::time::Duration;

use common::{ask_with, caught_up, publish, topics};
use night::{Log, Seen};
use tidings_core::{BoxError, Delivery, Record, Timestamp, TopicPartition, reject};
use tidings_memory::{MemoryConfig, MemoryStore, MemoryTransport};
use tidings_ops::{Ops, Role, Tokens};
use tidings_service::{HandlerExt, Router, Service, ServiceHandle};
use tokio::time::sleep;

const TEN_MINUTES: Duration = Duration::from_secs(600);
const HOUR: Duration = Duration::from_secs(3_600);
const TOKEN: &str = "viewer-token-0123456789";

/// A service in trouble.
struct Night {
    transport: MemoryTransport,
    log: Log,
    /// It ends with its handle.
    _service: ServiceHandle,
    probes: axum::Router,
}

async fn night(service: Service) -> Night {
    night_on(MemoryTransport::new(), service).await
}

async fn night_on(transport: MemoryTransport, service: Service) -> Night {
    let log = Log::captured();
    topics(&transport, &["t"], 1).await;
    let service = service.start(&transport).await.expect("it starts");
    caught_up(&service).await;
    Night { transport, log, probes: probes(&service), _service: service }
}

fn probes(service: &ServiceHandle) -> axum::Router {
    let tokens = Tokens::new().with_token(Role::Viewer, TOKEN).expect("a long token");
    Ops::new().with_service(service).with_tokens(tokens).router()
}

fn meter(router: Router) -> Service {
    Service::new("meter", router)
}

fn ignores() -> Router {
    Router::new().on_topic("t", (async |_: Delivery| {}).named("ignores"))
}

fn record(key: usize) -> Record {
    Record::new("t", "secret-payload").with_key(key.to_string())
}

impl Night {
    async fn publish(&self, count: usize) {
        publish(&self.transport, (0..count).map(record).collect()).await;
    }

    /// Publishes a record per second for ten minutes, and looks.
    async fn under_load(&self) -> Seen {
        for second in 0..TEN_MINUTES.as_secs() as usize {
            publish(&self.transport, vec![record(second % 10)]).await;
            sleep(Duration::from_secs(1)).await;
        }
        self.look().await
    }

    async fn look(&self) -> Seen {
        let status = ask_with(&self.probes, "/status", TOKEN).await.1;
        Seen::new(self.log.last_lines(true), &status)
    }
}

#[tokio::test(start_paused = true)]
async fn the_store_is_down() {
    let store = MemoryStore::new();
    let night = night(meter(ignores()).with_idempotency(store.clone())).await;
    store.faults().down();
    let seen = night.under_load().await;
    seen.log(&["tidings::store: the lease could not be renewed", "error=\"renew the lease: injected fault\""]);
    seen.status(&["store_unavailable"], &["check that the store runs, its disk, and the credentials"]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_slow() {
    let slow = async |_: Delivery| sleep(Duration::from_secs(30)).await;
    let night = night(meter(Router::new().on_topic("t", slow.named("slow")))).await;
    let seen = night.under_load().await;
    seen.status(&["partition_slow"], &["add instances or workers, or make the handler faster"]);
    let handler = &seen.status["handlers"][0];
    assert_eq!((&handler["handler"], handler["mean_seconds"].as_f64()), (&"slow".into(), Some(30.0)), "{seen}");
}

#[tokio::test(start_paused = true)]
async fn a_handler_never_returns() {
    let forever = async |_: Delivery| std::future::pending::<()>().await;
    let forever = Router::new().on_topic("t", forever.named("forever"));
    let night = night(meter(forever).with_handler_timeout(None)).await;
    let seen = night.under_load().await;
    seen.log(&["the partition is stalled", "offset=0", "handler=\"forever\"", "cause=\"handler\""]);
    seen.status(
        &["partition_stalled"],
        &["see `holding` of the stalled partition: its offset, handler, attempt and cause"],
    );
    let holding = &seen.status["partitions"][0]["holding"];
    assert_eq!((&holding["handler"], &holding["cause"]), (&"forever".into(), &"handler".into()), "{seen}");
}

#[tokio::test(start_paused = true)]
async fn a_record_is_poison() {
    let fails = async |delivery: Delivery| {
        if delivery.record().key.as_deref() == Some(b"7") { Err(BoxError::from("no such user")) } else { Ok(()) }
    };
    let night = night(meter(Router::new().on_topic("t", fails.named("fails")))).await;
    night.publish(10).await;
    sleep(TEN_MINUTES).await;
    let seen = night.look().await;
    seen.log(&["a record is given up", "handler=\"fails\"", "offset=7", "error=\"no such user\"", "redrive"]);
    seen.status(&[], &["dead_letters", "fix the cause that the log and the letters name, then redrive them"]);
}

#[tokio::test(start_paused = true)]
async fn an_instance_has_no_partition() {
    let first = night(meter(ignores())).await;
    let second = meter(ignores()).start(&first.transport).await.expect("it starts");
    sleep(TEN_MINUTES).await;
    let second =
        Night { probes: probes(&second), _service: second, transport: first.transport.clone(), log: first.log.clone() };
    let seen = second.look().await;
    seen.log(&["this instance has no partition", "members=2", "add partitions"]);
    seen.status(&[], &["standby", "add partitions, or run fewer instances"]);
}

#[tokio::test(start_paused = true)]
async fn dead_letters_cannot_be_written() {
    let rejects = async |_: Delivery| Err::<(), BoxError>(reject("no").into());
    let night = night(meter(Router::new().on_topic("t", rejects.named("rejects"))).with_breaker(None)).await;
    night.transport.faults().set_dead_letters_down(true);
    let seen = night.under_load().await;
    seen.log(&["a dead letter could not be written; its partition waits", "offset=0", "error="]);
    let remedy = "check that the dead-letter topic exists, has room, and may be written to";
    seen.status(&["dead_letters_unwritable"], &[remedy]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_cannot_be_read() {
    let night = night(meter(ignores())).await;
    night.transport.faults().unreadable(&TopicPartition::new("t", 0), 3..5);
    let seen = night.under_load().await;
    seen.log(&["records cannot be read", "offset=3", "next_offset=5", "error=", "skipped"]);
    seen.status(&["partition_unreadable"], &["raise the limit that it names, or skip the range"]);
    assert_eq!(seen.status["partitions"][0]["unreadable_from"], 3, "{seen}");
}

/// The broker's clock, by which records get their timestamps, is right: that of the service's host is off.
async fn clock_is_off(right: Timestamp, wanted: f64) {
    let transport = MemoryTransport::open(MemoryConfig::new().with_start_time(right)).expect("it opens");
    let seen = night_on(transport, meter(ignores())).await.under_load().await;
    // The test's start takes a part of a second of its own.
    let line = if wanted > 0.0 { "ahead_seconds=3" } else { "ahead_seconds=-3" };
    seen.log(&[
        "the clock of this host and the timestamps of new records differ",
        line,
        "check the time synchronisation",
    ]);
    seen.status(&[], &["clock", "time lags are wrong", "check the time synchronisation of this host"]);
    let ahead = seen.status["partitions"][0]["clock_ahead_seconds"].as_f64().expect("it is known");
    assert!((ahead - wanted).abs() < 10.0, "{seen}");
}

#[tokio::test(start_paused = true)]
async fn the_clock_is_an_hour_ahead() {
    clock_is_off(Timestamp::now().saturating_sub(HOUR), 3_600.0).await;
}

#[tokio::test(start_paused = true)]
async fn the_clock_is_an_hour_behind() {
    clock_is_off(Timestamp::now().saturating_add(HOUR), -3_600.0).await;
}
