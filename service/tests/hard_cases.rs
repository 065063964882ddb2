//! Hard cases: shutdown, revocation, half-completed store calls and batches, at critical moments.

#[expect(dead_code, reason = "only a part of it is needed here")]
mod common;

use bytes::Bytes;
use common::{Log, publish, start, topics};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tidings_core::{BoxError, Delivery, ErrorKind, Record, Transport};
use tidings_memory::{MemoryStore, MemoryTransport};
use tidings_service::{BatchOptions, HandlerExt, Router, Service, State};

fn rec(topic: &'static str, key: &str, value: &str) -> Record {
    Record::new(topic, Bytes::copy_from_slice(value.as_bytes())).with_key(Bytes::copy_from_slice(key.as_bytes()))
}
fn value(d: &Delivery) -> String {
    String::from_utf8_lossy(d.record().value.as_deref().unwrap_or_default()).into_owned()
}
async fn wait(mut done: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never");
}

#[tokio::test(start_paused = true)]
async fn final_commit_is_made_though_others_were_made_while_draining() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let router = Router::new().on_topic("t", async |d: Delivery, State(log): State<Log>| {
        let n: u64 = value(&d).parse().unwrap();
        log.add(format!("begun {n}"));
        tokio::time::sleep(Duration::from_millis(1_000 * n + 300)).await;
        log.add(format!("ended {n}"));
    });
    let service = start(Service::new("s", router.with_state(log.clone())).with_workers(1), &transport).await;
    publish(&transport, (0..6).map(|n| rec("t", &n.to_string(), &n.to_string())).collect()).await;
    wait(|| log.lines().len() >= 6).await;
    service.shutdown(Duration::from_secs(30)).await.unwrap();
    let ended = log.lines().iter().filter(|l| l.starts_with("ended")).count() as u64;
    let lag = transport.admin().await.unwrap().group_lag(&"s-group".into()).await.unwrap();
    assert_eq!((ended, lag[0].committed), (6, Some(6)));
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_though_partitions_come_while_draining() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    let admin = transport.admin().await.unwrap();
    for r in admin
        .create_topics(&[tidings_core::Topic::new("t").with_partitions(4), tidings_core::Topic::new("t-dlq")])
        .await
        .unwrap()
    {
        r.unwrap();
    }
    let router = || {
        Router::new().on_topic("t", async |_: Delivery, State(log): State<Log>| {
            log.add("begun");
            tokio::time::sleep(Duration::from_secs(5)).await;
        })
    };
    let first = start(Service::new("s", router().with_state(log.clone())), &transport).await;
    let second = start(Service::new("s", router().with_state(log.clone())), &transport).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    publish(&transport, (0..16).map(|n| rec("t", &n.to_string(), "x")).collect()).await;
    wait(|| log.lines().len() >= 16).await;
    let stopping = tokio::spawn(first.shutdown(Duration::from_secs(10)));
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(second); // a crash or a quick leave of the other one
    tokio::time::timeout(Duration::from_secs(3_000), stopping).await.expect("shutdown hangs").unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failed_release_does_not_hold_the_event_for_ever() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let store = MemoryStore::new();
    let router = Router::new().on_topic("t", async |d: Delivery, State(log): State<Log>| {
        log.add(format!("begun {}", value(&d)));
        if log.lines().len() == 1 {
            std::future::pending::<()>().await;
        }
    });
    let service = Service::new("s", router.with_state(log.clone()))
        .with_workers(1)
        .with_concurrency(1)
        .with_idempotency(store.clone())
        .with_revocation_deadline(Duration::from_secs(2))
        .with_handler_timeout(None);
    let service = start(service, &transport).await;
    publish(&transport, vec![rec("t", "a", "1"), rec("t", "b", "2")]).await;
    wait(|| log.lines().len() == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    store.faults().fail_calls(1, ErrorKind::Unavailable); // one call fails: the release of the revocation
    transport.faults().rebalance("s-group");
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    println!("{:?} {:?}", log.lines(), service.status().await);
    assert!(log.lines().len() >= 3, "{:?}", log.lines());
}

#[tokio::test(start_paused = true)]
async fn a_batch_does_not_overtake_what_waits_in_its_lane() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let env = |kind: &str, n: u32| {
        rec(
            "t",
            "k",
            &format!(
                r#"{{"eventId":"0190163d-8694-739b-aea5-966c26f8ad9{n}","eventType":"{kind}","timestamp":1,"source":"s","payload":{{"n":{n}}}}}"#
            ),
        )
    };
    #[derive(serde::Serialize, serde::Deserialize, tidings_macros::Event)]
    #[event(topic = "t", type = "a", key = "n", crate = "tidings_core")]
    struct A {
        n: u32,
    }
    #[derive(serde::Serialize, serde::Deserialize, tidings_macros::Event)]
    #[event(topic = "t", type = "b", key = "n", crate = "tidings_core")]
    struct B {
        n: u32,
    }
    let a = async |batch: tidings_core::Batch<A>, State(log): State<Log>| {
        for e in batch.into_iter() {
            log.add(format!("{}", e.payload.n));
        }
    };
    let b = async |e: B, State(log): State<Log>| log.add(format!("{}", e.n));
    let router = Router::new().on(a.batch(BatchOptions::new(10))).on(b);
    let _service = start(Service::new("s", router.with_state(log.clone())).with_workers(1), &transport).await;
    publish(&transport, vec![env("a", 1), env("b", 2), env("a", 3)]).await;
    wait(|| log.lines().len() == 3).await;
    assert_eq!(log.lines(), ["1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn batches_keep_to_the_concurrency() {
    let transport = MemoryTransport::new();
    topics(&transport, &["t"]).await;
    let state = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let h = async |_: tidings_core::RawBatch, State(s): State<Arc<(AtomicUsize, AtomicUsize)>>| {
        let now = s.0.fetch_add(1, SeqCst) + 1;
        s.1.fetch_max(now, SeqCst);
        tokio::time::sleep(Duration::from_secs(1)).await;
        s.0.fetch_sub(1, SeqCst);
    };
    let router = Router::new().on_topic("t", h.batch(BatchOptions::new(2))).with_state(state.clone());
    let _service = start(Service::new("s", router).with_workers(1).with_concurrency(4), &transport).await;
    publish(&transport, (0..1000).map(|n| rec("t", &n.to_string(), "x")).collect()).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(state.1.load(SeqCst) <= 4, "{} at once", state.1.load(SeqCst));
}

#[tokio::test(start_paused = true)]
async fn a_retry_does_not_hold_up_a_revocation() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let router = Router::new().on_topic("t", async |_: Delivery, State(log): State<Log>| -> Result<(), BoxError> {
        log.add("run");
        tokio::time::sleep(Duration::from_secs(1)).await;
        Err("no".into())
    });
    let service = Service::new("s", router.with_state(log.clone()))
        .with_retry(tidings_service::Retry::exponential(Duration::from_secs(60)).without_jitter())
        .start(&transport)
        .await
        .unwrap();
    publish(&transport, vec![rec("t", "a", "1")]).await;
    wait(|| log.lines().len() == 1).await;
    let before = tokio::time::Instant::now();
    service.shutdown(Duration::from_secs(30)).await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_not_begun_by_a_dead_lease() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let store = MemoryStore::new();
    let h = async |_: tidings_core::RawBatch, State(log): State<Log>| log.add("run");
    let router = Router::new()
        .on_topic("t", h.batch(BatchOptions::new(10).with_wait(Duration::from_secs(10))))
        .with_state(log.clone());
    let _service = start(
        Service::new("s", router)
            .with_workers(1)
            .with_lease_ttl(Duration::from_secs(3))
            .with_idempotency(store.clone()),
        &transport,
    )
    .await;
    publish(&transport, vec![rec("t", "a", "1")]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    store.faults().down();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(log.lines().len(), 0, "begun though its claim has been free to take for seconds");
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_batch_keeps_the_order() {
    for seed in 0..20 {
        let (transport, log) = (MemoryTransport::new(), Log::default());
        topics(&transport, &["t"]).await;
        let h = async |b: tidings_core::RawBatch, State(log): State<Log>| -> Result<(), BoxError> {
            let first = log.lines().is_empty();
            let v: Vec<_> =
                b.0.records().map(|r| String::from_utf8_lossy(r.value.as_deref().unwrap()).into_owned()).collect();
            if first {
                log.add("down");
                return Err(tidings_core::unavailable("db").into());
            }
            for v in v {
                log.add(v);
            }
            Ok(())
        };
        let router = Router::new().on_topic("t", h.batch(BatchOptions::new(4))).with_state(log.clone());
        let _s = start(Service::new("s", router).with_workers(1).with_seed(seed), &transport).await;
        publish(&transport, (1..5).map(|n| rec("t", "k", &n.to_string())).collect()).await;
        wait(|| log.lines().len() == 5).await;
        assert_eq!(log.lines(), ["down", "1", "2", "3", "4"], "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn shutdown_does_not_wait_for_a_blocked_thread() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let (unblock, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = Arc::new(std::sync::Mutex::new(blocked));
    let router = Router::new().on_topic("t", move |_: Delivery, State(log): State<Log>| {
        let blocked = Arc::clone(&blocked);
        async move {
            log.add("begun");
            let _ = blocked.lock().expect("nobody panics with it").recv();
        }
    });
    let service = start(Service::new("s", router.with_state(log.clone())).with_workers(1), &transport).await;
    publish(&transport, vec![rec("t", "a", "1")]).await;
    wait(|| log.lines().len() == 1).await;
    // Waiting here would never end: the handler ends only after this.
    let stopping = service.shutdown(Duration::from_secs(1));
    tokio::time::timeout(Duration::from_secs(180), stopping).await.expect("it does not wait").unwrap();
    unblock.send(()).expect("the handler is blocked still");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_of_claim_does_not_hold_the_event_for_ever() {
    use tidings_core::{Claim, EventRef, IdempotencyStore, Lease, Name, ReleasedClaim, Result, Timestamp};
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    #[derive(Debug)]
    struct Lossy(MemoryStore, AtomicUsize);
    #[tidings_core::async_trait]
    impl IdempotencyStore for Lossy {
        async fn acquire_lease(&self, s: &Name, t: Duration) -> Result<Lease> {
            self.0.acquire_lease(s, t).await
        }
        async fn claim(&self, h: &Lease, e: &[EventRef]) -> Result<Vec<Claim>> {
            let a = self.0.claim(h, e).await;
            if self.1.fetch_add(1, SeqCst) == 0 {
                return Err(tidings_core::Error::new(ErrorKind::Indeterminate, "the answer is lost"));
            }
            a
        }
        async fn renew(&self, h: &Lease) -> Result<()> {
            self.0.renew(h).await
        }
        async fn complete(&self, h: &Lease, e: &[EventRef]) -> Result<Vec<Result<()>>> {
            self.0.complete(h, e).await
        }
        async fn release(&self, h: &Lease, e: &[ReleasedClaim]) -> Result<()> {
            self.0.release(h, e).await
        }
        async fn retire(&self, h: &Lease) -> Result<()> {
            self.0.retire(h).await
        }
        async fn purge(&self, s: &Name, t: Timestamp) -> Result<u64> {
            self.0.purge(s, t).await
        }
        fn guarantees(&self) -> tidings_core::Guarantees {
            self.0.guarantees()
        }
    }
    let router = Router::new().on_topic("t", async |_: Delivery, State(log): State<Log>| log.add("run"));
    let _service = start(
        Service::new("s", router.with_state(log.clone()))
            .with_idempotency(Lossy(MemoryStore::new(), AtomicUsize::new(0))),
        &transport,
    )
    .await;
    publish(&transport, vec![rec("t", "a", "1")]).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(log.lines().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_handler_at_a_hundredth_of_the_speed_needs_no_more_memory_and_stays_in_the_group() {
    const BOUND: usize = 256 << 10;
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let router = Router::new().on_topic("t", async |_: Delivery, State(log): State<Log>| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        log.add("handled");
    });
    let service = Service::new("s", router.with_state(log.clone()))
        .with_delivery_order(tidings_service::DeliveryOrder::Partition)
        .with_max_bytes_in_flight(BOUND)
        .with_max_span(u64::MAX);
    let service = start(service, &transport).await;
    let admin = transport.admin().await.unwrap();
    let members = async || {
        let group = admin.describe_group(&"s-group".into()).await.unwrap();
        group.members.into_iter().map(|member| (member.id, member.partitions.len())).collect::<Vec<_>>()
    };
    let at_first = members().await;
    assert_eq!(at_first.len(), 1);
    let (value, mut most) = ("x".repeat(1_000), 0);
    // Ten minutes' worth, and then more than that again: beyond every session and idle limit.
    for second in 0..1_800 {
        if second < 600 {
            publish(&transport, (0..100).map(|n| rec("t", &n.to_string(), &value)).collect()).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        most = most.max(service.status().await.bytes_in_flight);
        assert!(second % 60 > 0 || members().await == at_first, "after {second} s");
    }
    assert!(most > BOUND / 2 && most <= BOUND, "{most} bytes");
    let handled = log.lines().len();
    assert!((1_700..=1_800).contains(&handled), "{handled}");
    let lag = admin.group_lag(&"s-group".into()).await.unwrap().iter().map(|p| p.lag()).sum::<Option<u64>>().unwrap();
    assert!(lag >= 60_000 - handled as u64, "{lag}");
}
