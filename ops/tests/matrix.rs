//! The probes' answers to each trouble, with exact codes and reasons, on a paused clock. A blocked handler and a
//! blocked engine need real threads: `server.rs` has them.

mod common;

use std::time::Duration;

use common::{ask, caught_up, publish, topics};
use tidings_core::{BoxError, Delivery, ErrorKind, Record, reject};
use tidings_memory::{MemoryStore, MemoryTransport};
use tidings_ops::Ops;
use tidings_service::telemetry::{HealthMonitor, HealthOptions, HealthReason, PartitionSnapshot, PartitionState};
use tidings_service::{HandlerExt, Retry, Router, Service, ServiceHandle};
use tokio::time::{Instant, sleep};

/// How late an answer may be after its threshold.
const LATE: Duration = Duration::from_secs(2);
const RETRY_AFTER: Duration = Duration::from_secs(300);
const UNREADY_AFTER: Duration = HealthOptions::DEFAULT_UNREADY_AFTER;

/// A service with its probes.
struct Probed {
    service: ServiceHandle,
    probes: axum::Router,
}

async fn probed(service: Service, transport: &MemoryTransport, health: HealthOptions) -> Probed {
    topics(transport, &["t"], 1).await;
    let retry = Retry::exponential(Duration::from_millis(100)).without_jitter();
    let service = service.with_retry(retry).start(transport).await.expect("it starts");
    let probes = Ops::new().with_service(&service).with_health(health).router();
    caught_up(&service).await;
    let probed = Probed { service, probes };
    probed.answers((200, "ok\n"), (200, "ok\n")).await;
    probed
}

impl Probed {
    /// Checks the answers of both probes now.
    async fn answers(&self, live: (u16, &str), ready: (u16, &str)) {
        for (path, (code, body)) in [("/livez", live), ("/readyz", ready)] {
            let answer = ask(&self.probes, path).await;
            assert_eq!((answer.0.as_u16(), answer.1.as_str()), (code, body), "{path}: {:#?}", self.service.snapshot());
        }
    }

    /// Waits until `/readyz` answers this, and returns for how long; until then it answers `before`.
    async fn becomes(&self, before: (u16, &str), wanted: (u16, &str)) -> Duration {
        let begun = Instant::now();
        loop {
            let (code, body) = ask(&self.probes, "/readyz").await;
            let answer = (code.as_u16(), body.as_str());
            assert_eq!(ask(&self.probes, "/livez").await.0, 200);
            if answer == wanted {
                return begun.elapsed();
            }
            assert_eq!(answer, before, "after {:?}: {:#?}", begun.elapsed(), self.service.snapshot());
            assert!(
                begun.elapsed() < Duration::from_secs(300),
                "{wanted:?} never comes: {:#?}",
                self.service.snapshot()
            );
            sleep(Duration::from_millis(100)).await;
        }
    }
}

const OK: (u16, &str) = (200, "ok\n");

fn meter(router: Router) -> Service {
    Service::new("meter", router)
}

fn ignores() -> Router {
    Router::new().on_topic("t", async |_: Delivery| {})
}

fn forever() -> Router {
    Router::new().on_topic("t", (async |_: Delivery| std::future::pending::<()>().await).named("forever"))
}

fn assert_near(took: Duration, threshold: Duration) {
    assert!(took >= threshold.saturating_sub(LATE) && took <= threshold + LATE, "{took:?}, not {threshold:?}");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_has_not_joined_its_group_is_not_ready() {
    let transport = MemoryTransport::new();
    topics(&transport, &["t"], 1).await;
    let service = meter(ignores()).start(&transport).await.unwrap();
    let probes = Ops::new().with_service(&service).router();
    assert_eq!(ask(&probes, "/readyz").await.1, "not ready: starting\n");
    assert_eq!(ask(&probes, "/livez").await.1, "ok\n");
    caught_up(&service).await;
    assert_eq!(ask(&probes, "/readyz").await.1, "ok\n");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_down_makes_it_unready_and_never_dead() {
    let transport = MemoryTransport::new();
    let probed = probed(meter(ignores()), &transport, HealthOptions::default()).await;
    transport.faults().down();
    let took = probed.becomes(OK, (503, "not ready: broker_unreachable\n")).await;
    assert_near(took, UNREADY_AFTER);
    // Also when the member gives its partitions up by itself, and an hour later.
    for seconds in std::iter::repeat_n(1, 120).chain([3_600]) {
        sleep(Duration::from_secs(seconds)).await;
        probed.answers(OK, (503, "not ready: broker_unreachable\n")).await;
    }
    transport.faults().up();
    let took = probed.becomes((503, "not ready: broker_unreachable\n"), OK).await;
    assert!(took <= Duration::from_secs(20), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_was_paused_for_long_is_not_stalled_when_it_resumes() {
    let transport = MemoryTransport::new();
    let takes_long = async |_: Delivery| sleep(Duration::from_secs(3)).await;
    let probed = probed(meter(Router::new().on_topic("t", takes_long)), &transport, HealthOptions::default()).await;
    probed.service.pause().unwrap();
    publish(&transport, vec![Record::new("t", "1")]).await;
    probed.becomes(OK, (200, "degraded: paused\n")).await;
    sleep(Duration::from_secs(600)).await;
    probed.service.resume().unwrap();
    for _ in 0..40 {
        sleep(Duration::from_millis(500)).await;
        let stalled = |partition: &PartitionSnapshot| partition.state == PartitionState::Stalled;
        assert!(!probed.service.snapshot().partitions.iter().any(stalled), "{:?}", probed.service.snapshot());
    }
    probed.answers(OK, OK).await;
}

#[tokio::test(start_paused = true)]
async fn no_limit_for_stalls_is_none() {
    let transport = MemoryTransport::new();
    topics(&transport, &["t"], 1).await;
    let fails = async |_: Delivery| Err::<(), BoxError>("no".into());
    let service = meter(Router::new().on_topic("t", fails)).with_stall_after(Duration::MAX);
    let service = service.with_retry(Retry::exponential(RETRY_AFTER).with_cap(RETRY_AFTER).without_jitter());
    let service = service.start(&transport).await.unwrap();
    let probed = Probed { probes: Ops::new().with_service(&service).router(), service };
    publish(&transport, vec![Record::new("t", "1")]).await;
    sleep(Duration::from_secs(120)).await;
    probed.answers(OK, OK).await;
    assert!(probed.service.snapshot().partitions[0].holding.is_some(), "it was looked into");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_makes_it_unready_once_it_is_needed() {
    let (transport, store) = (MemoryTransport::new(), MemoryStore::new());
    let service = meter(ignores()).with_idempotency(store.clone());
    let probed = probed(service, &transport, HealthOptions::default()).await;
    store.faults().down();
    publish(&transport, vec![Record::new("t", "1")]).await;
    let took = probed.becomes(OK, (503, "not ready: store_unavailable\n")).await;
    assert_near(took, UNREADY_AFTER);
    store.faults().up();
    caught_up(&probed.service).await;
    probed.becomes((503, "not ready: store_unavailable\n"), OK).await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_denied_degrades_it() {
    let transport = MemoryTransport::new();
    let rejects = async |_: Delivery| Err::<(), BoxError>(reject("no").into());
    let service = meter(Router::new().on_topic("t", rejects)).with_breaker(None);
    let probed = probed(service, &transport, HealthOptions::default()).await;
    transport.faults().set_dead_letters_down(true);
    publish(&transport, vec![Record::new("t", "1")]).await;
    let took = probed.becomes(OK, (200, "degraded: dead_letters_unwritable\n")).await;
    assert!(took <= LATE, "{took:?}");
    transport.faults().set_dead_letters_down(false);
    caught_up(&probed.service).await;
    probed.becomes((200, "degraded: dead_letters_unwritable\n"), OK).await;
}

#[tokio::test(start_paused = true)]
async fn a_poison_record_is_no_trouble_of_the_service() {
    let transport = MemoryTransport::new();
    let fails = async |_: Delivery| Err::<(), BoxError>("no".into());
    let probed = probed(meter(Router::new().on_topic("t", fails)), &transport, HealthOptions::default()).await;
    publish(&transport, vec![Record::new("t", "1")]).await;
    caught_up(&probed.service).await;
    assert_eq!(probed.service.snapshot().totals().dead_lettered, 1);
    probed.answers(OK, OK).await;
}

#[tokio::test(start_paused = true)]
async fn an_error_that_no_retry_mends_ends_the_engine_and_only_a_restart_helps() {
    let transport = MemoryTransport::new();
    let probed = probed(meter(ignores()), &transport, HealthOptions::default()).await;
    transport.faults().fail_fetches(1, ErrorKind::Denied);
    let ended = tokio::time::timeout(Duration::from_secs(300), probed.service.stopped()).await;
    ended.expect("it ends").unwrap_err();
    probed.answers((503, "not live: engine_failed\n"), (503, "not ready: engine_failed\n")).await;
}

#[tokio::test(start_paused = true)]
async fn a_lag_of_a_million_is_a_reason_only_above_a_limit() {
    const LAG: usize = 1_000_000;
    let transport = MemoryTransport::new();
    let probed = probed(meter(forever()), &transport, HealthOptions::default()).await;
    let limited = HealthOptions::default().with_max_lag(LAG as u64 - 1).with_fail_ready_on([HealthReason::LagHigh]);
    let strict = Ops::new().with_service(&probed.service).with_health(limited).router();
    assert_eq!(ask(&strict, "/readyz").await.1, "ok\n");
    let record = Record::new("t", "1");
    for _ in 0..LAG / 20_000 {
        publish(&transport, vec![record.clone(); 20_000]).await;
    }
    sleep(Duration::from_secs(7)).await;
    assert_eq!(probed.service.snapshot().lag(), LAG as u64);
    probed.answers(OK, OK).await;
    let (code, body) = ask(&strict, "/readyz").await;
    assert_eq!((code.as_u16(), body.as_str()), (503, "not ready: lag_high\n"));
}

#[tokio::test(start_paused = true)]
async fn a_member_without_a_partition_is_ready_and_stands_by() {
    let transport = MemoryTransport::new();
    let first = probed(meter(ignores()), &transport, HealthOptions::default()).await;
    let second = meter(ignores()).start(&transport).await.unwrap();
    let probes = Ops::new().with_service(&first.service).with_service(&second).router();
    // A member that gets no partition is never told so: it has joined when it could ask for positions for a while.
    sleep(Duration::from_secs(30)).await;
    let (code, body) = ask(&probes, "/readyz?verbose").await;
    assert_eq!((code.as_u16(), body.as_str()), (200, "[+] service 1: ready\n[+] service 2: ready, standby\nok\n"));
}

#[tokio::test(start_paused = true)]
async fn a_rebalance_is_no_reason() {
    let transport = MemoryTransport::new();
    let probed = probed(meter(forever()), &transport, HealthOptions::default()).await;
    publish(&transport, vec![Record::new("t", "1")]).await;
    sleep(Duration::from_secs(1)).await;
    transport.faults().rebalance("meter-group");
    for _ in 0..300 {
        // The delivery is not done: the partition is given back only at the deadline of the revocation.
        probed.answers(OK, OK).await;
        sleep(Duration::from_millis(100)).await;
    }
    assert!(probed.service.snapshot().counters.rebalances > 1);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_drains_is_not_ready_at_once_and_not_dead_afterwards() {
    let transport = MemoryTransport::new();
    let probed = probed(meter(forever()), &transport, HealthOptions::default()).await;
    publish(&transport, vec![Record::new("t", "1")]).await;
    sleep(Duration::from_secs(1)).await;
    let Probed { service, probes } = probed;
    let ending = tokio::spawn(service.shutdown(Duration::from_secs(25)));
    sleep(Duration::from_millis(100)).await;
    let (code, body) = ask(&probes, "/readyz").await;
    assert_eq!((code.as_u16(), body.as_str()), (503, "not ready: draining\n"));
    assert_eq!(ask(&probes, "/livez").await.1, "ok\n");
    ending.await.unwrap().unwrap();
    assert_eq!(ask(&probes, "/readyz").await.1, "not ready: stopped\n");
    assert_eq!(ask(&probes, "/livez").await.1, "ok\n");
}

#[tokio::test(start_paused = true)]
async fn a_stall_degrades_it_and_fails_readiness_where_that_is_wanted() {
    let transport = MemoryTransport::new();
    let service = meter(forever()).with_handler_timeout(None);
    let probed = probed(service, &transport, HealthOptions::default()).await;
    let wanted = HealthOptions::default().with_fail_ready_on([HealthReason::PartitionStalled]);
    let strict = Ops::new().with_service(&probed.service).with_health(wanted).router();
    publish(&transport, vec![Record::new("t", "1")]).await;
    let took = probed.becomes(OK, (200, "degraded: partition_stalled\n")).await;
    assert_near(took, Service::DEFAULT_STALL_AFTER);
    assert_eq!(ask(&strict, "/readyz").await.1, "not ready: partition_stalled\n");
}

#[tokio::test(start_paused = true)]
async fn a_reason_changes_at_most_once_in_ten_seconds() {
    let transport = MemoryTransport::new();
    let probed = probed(meter(ignores()), &transport, HealthOptions::default()).await;
    let (mut last, mut changes) = (String::new(), 0);
    for turn in 0..600 {
        // An operator who pauses and resumes each half second.
        let done = if turn % 2 == 0 { probed.service.pause() } else { probed.service.resume() };
        done.unwrap();
        sleep(Duration::from_millis(500)).await;
        let (_, body) = ask(&probed.probes, "/readyz").await;
        if body != last {
            (last, changes) = (body, changes + 1);
        }
    }
    let most = 300 / HealthMonitor::HOLD.as_secs() + 1;
    assert!(changes <= most && changes > 2, "{changes} changes");
}
