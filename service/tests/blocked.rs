//! Threads that are blocked: which handler is named, and when an engine is dead.

#[expect(dead_code, reason = "only a part of it is needed here")]
#[path = "common/bent.rs"]
mod bent;
#[expect(dead_code, reason = "only a part of it is needed here")]
mod common;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bent::Bent;
use common::{publish, topics};
use tidings_core::{Delivery, Record, TopicPartition};
use tidings_memory::MemoryTransport;
use tidings_service::telemetry::{Health, HealthOptions, HealthReason};
use tidings_service::{HandlerExt, Router, Service, ServiceHandle};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

/// Long enough for anything on a busy machine.
const LONG: Duration = Duration::from_secs(60);
const LIVE_AFTER: Duration = Duration::from_millis(1_500);

fn runtime(threads: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(threads).enable_all().build().expect("threads")
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn health(service: &ServiceHandle) -> Health {
    Health::of(&service.snapshot(), &HealthOptions::default().with_live_after(LIVE_AFTER))
}

fn has(service: &ServiceHandle, reason: HealthReason) -> bool {
    health(service).findings.iter().any(|finding| finding.reason == reason)
}

/// Calls that block their thread, one after the other, each until the test releases it.
#[derive(Clone)]
struct Gate {
    begun: Sender<()>,
    release: Arc<Mutex<Receiver<()>>>,
}

/// The test's side of a gate.
struct Gatekeeper {
    begun: Receiver<()>,
    release: Sender<()>,
}

fn gate() -> (Gate, Gatekeeper) {
    let ((begun, has_begun), (release, released)) = (channel(), channel());
    (Gate { begun, release: Arc::new(Mutex::new(released)) }, Gatekeeper { begun: has_begun, release })
}

impl Gate {
    fn block(&self) {
        let _ = self.begun.send(());
        let _ = self.release.lock().map(|released| released.recv());
    }
}

impl Gatekeeper {
    fn begun(&self) {
        self.begun.recv_timeout(LONG).expect("it begins to block");
    }
}

/// A service whose handler blocks its thread at the gate.
async fn blocking(name: &'static str, transport: &MemoryTransport, gate: Gate, workers: usize) -> ServiceHandle {
    topics(transport, &[name]).await;
    let router = Router::new().on_topic(name, move |_: Delivery| {
        let gate = gate.clone();
        async move { gate.block() }
    });
    let service = Service::new(name, router).with_workers(workers).with_seed(7);
    service.start(transport).await.expect("it starts")
}

async fn idle(transport: &MemoryTransport) -> ServiceHandle {
    topics(transport, &["idle"]).await;
    let service = Service::new("idle", Router::new().on_topic("idle", async |_: Delivery| {}));
    let service = service.start(transport).await.expect("it starts");
    service.caught_up().await.expect("it runs");
    service
}

#[test]
fn the_handler_that_blocks_in_a_later_poll_is_named() {
    let (runtime, transport, (gate, keeper)) = (runtime(2), MemoryTransport::new(), gate());
    let go = Arc::new(Notify::new());
    let service = runtime.block_on(async {
        topics(&transport, &["blocks", "other"]).await;
        let waits = go.clone();
        let blocks = move |_: Delivery| {
            let (gate, waits) = (gate.clone(), waits.clone());
            async move {
                waits.notified().await;
                gate.block();
            }
        };
        let router = Router::new()
            .on_topic("blocks", blocks.named("blocks"))
            .on_topic("other", (async |_: Delivery| {}).named("other"));
        let service = Service::new("s", router).with_workers(1).start(&transport).await.expect("it starts");
        publish(&transport, vec![Record::new("blocks", "1")]).await;
        until("it waits", || service.snapshot().partitions.iter().any(|partition| partition.in_flight > 0));
        publish(&transport, vec![Record::new("other", "1")]).await;
        service
    });
    until("the other one is done", || service.snapshot().handlers.iter().any(|handler| handler.totals.handled == 1));
    go.notify_one();
    keeper.begun();
    let busy = || service.snapshot().tasks.workers.into_iter().next();
    until("the worker is busy", || busy().is_some());
    assert_eq!(busy().and_then(|worker| worker.handler).as_deref(), Some("blocks"));
    drop(keeper);
}

#[test]
fn a_handler_of_another_service_that_blocks_the_thread_kills_no_engine() {
    let (runtime, transport, (gate, keeper)) = (runtime(1), MemoryTransport::new(), gate());
    let (blocking, idle) = runtime.block_on(async {
        let services = (blocking("blocks", &transport, gate, 1).await, idle(&transport).await);
        publish(&transport, vec![Record::new("blocks", "1")]).await;
        services
    });
    keeper.begun();
    for service in [&idle, &blocking] {
        until("it says that it waits for a thread", || {
            assert!(health(service).live, "{:?}", service.snapshot().tasks);
            has(service, HealthReason::HandlerBlocked)
        });
        assert!(health(service).ready && service.snapshot().tasks.starved >= 2 * LIVE_AFTER);
    }
    drop(keeper);
    until("the reason is gone", || !has(&idle, HealthReason::HandlerBlocked));
}

#[test]
fn more_workers_than_threads_that_block_in_turn_kill_no_engine() {
    let (runtime, transport, (gate, keeper)) = (runtime(1), MemoryTransport::new(), gate());
    let service = runtime.block_on(async {
        let service = blocking("blocks", &transport, gate, 3).await;
        let records = (0..30).map(|n| Record::new("blocks", "x").with_key(n.to_string()));
        publish(&transport, records.collect()).await;
        service
    });
    keeper.begun();
    until("the thread is blocked for long", || service.snapshot().tasks.starved > Duration::from_secs(7));
    for _ in 0..29 {
        keeper.release.send(()).expect("it blocks");
        keeper.begun();
        let since = Instant::now();
        until("a while", || {
            assert!(health(&service).live, "{:?}", service.snapshot().tasks);
            since.elapsed() > Duration::from_millis(20)
        });
    }
    drop(keeper);
}

/// Its partition is to be paused, which the transport never answers: the coordinator waits, and the runtime works.
#[test]
fn an_engine_that_waits_while_the_runtime_works_is_dead() {
    let (runtime, transport) = (runtime(1), Bent::new(MemoryTransport::new()));
    let service = runtime.block_on(bent(&transport));
    assert!(health(&service).live);
    transport.hang("pause");
    service.pause_partitions([TopicPartition::new("t", 0)]).expect("it runs");
    until("it is dead", || !health(&service).live);
    assert!(has(&service, HealthReason::EngineBlocked) && !has(&service, HealthReason::HandlerBlocked));
}

#[test]
fn an_engine_that_blocks_its_own_thread_is_dead() {
    for threads in [1, 3] {
        let (runtime, transport) = (runtime(threads), Bent::new(MemoryTransport::new()));
        let service = runtime.block_on(bent(&transport));
        let release = transport.block("pause");
        service.pause_partitions([TopicPartition::new("t", 0)]).expect("it runs");
        until("it is dead", || !health(&service).live);
        assert!(has(&service, HealthReason::EngineBlocked));
        drop(release);
        until("it lives again", || health(&service).live);
    }
}

#[test]
fn an_engine_whose_runtime_is_gone_is_dead() {
    let (runtime, transport) = (runtime(1), Bent::new(MemoryTransport::new()));
    let service = runtime.block_on(bent(&transport));
    runtime.shutdown_timeout(LONG);
    until("it is dead", || !health(&service).live);
}

async fn bent(transport: &Bent) -> ServiceHandle {
    topics(&transport.inner, &["t"]).await;
    let service = Service::new("s", Router::new().on_topic("t", async |_: Delivery| {}));
    let service = service.start(transport).await.expect("it starts");
    service.caught_up().await.expect("it runs");
    service
}
