//! Claims whose answers from the store are lost or late.

#[expect(dead_code, reason = "only a part of it is needed here")]
mod common;
#[path = "common/odd.rs"]
mod odd;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use common::{Log, caught_up, publish, start, topics};
use odd::Odd;
use tidings_core::{Delivery, ErrorKind, RawBatch, Record, Topic, Transport, reject};
use tidings_macros::Event;
use tidings_memory::{Faults, MemoryTransport, PublishFault};
use tidings_service::{BatchOptions, HandlerExt, Retry, Router, Service, State};
use tokio::time::sleep;

const EVENT: &str =
    r#"{"eventId":"0190163d-8694-739b-aea5-966c26f8ad91","eventType":"x","timestamp":1,"source":"s","payload":{}}"#;

fn service(topic: &'static str, log: &Log, store: &Odd) -> Service {
    let handler = async |delivery: Delivery, State(log): State<Log>| {
        log.add(format!("begun {}", delivery.topic()));
        if log.lines().len() == 1 {
            std::future::pending::<()>().await;
        }
        sleep(Duration::from_secs(5)).await;
        log.add("ended");
    };
    Service::new("s", Router::new().on_topic(topic, handler).with_state(log.clone()))
        .with_group(topic)
        .with_workers(2)
        .with_handler_timeout(None)
        .with_revocation_deadline(Duration::from_secs(1))
        .with_idempotency(store.clone())
}

/// The claim is released twice, because the first answer was lost; in between the partition is assigned again. The
/// event must not be claimed yet: the second release would end the new claim, and another service could claim the
/// event, too.
#[tokio::test(start_paused = true)]
async fn what_is_being_given_back_is_not_claimed_again_yet() {
    for seed in 0..8 {
        let (transport, log) = (MemoryTransport::new(), Log::default());
        topics(&transport, &["t", "twin"]).await;
        let store = Odd { denied_releases: Arc::new(AtomicUsize::new(1)), ..Odd::default() };
        let first = start(service("t", &log, &store).with_seed(seed), &transport).await;
        let other = start(service("twin", &log, &store), &transport).await;
        publish(&transport, vec![Record::new("t", EVENT).with_key("k")]).await;
        sleep(Duration::from_secs(1)).await;
        transport.faults().rebalance("t");
        sleep(Duration::from_millis(2_500)).await;
        publish(&transport, vec![Record::new("twin", EVENT).with_key("k")]).await;
        sleep(Duration::from_secs(60)).await;
        assert_eq!(log.lines(), ["begun t", "begun t", "ended"], "seed {seed}");
        assert_eq!(other.status().await.totals.duplicates, 1);
        drop((first, other));
    }
}

/// A store whose claims take a second.
fn slow() -> Odd {
    Odd { claim_takes: Duration::from_secs(1), ..Odd::default() }
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_claims_are_asked_for_shares_the_next_call() {
    let (transport, store) = (MemoryTransport::new(), slow());
    topics(&transport, &["t"]).await;
    let handler = async |_: Delivery| {};
    let service = Service::new("s", Router::new().on_topic("t", handler)).with_workers(1);
    let running = start(service.with_idempotency(store.clone()), &transport).await;
    for value in 0..10 {
        publish(&transport, vec![Record::new("t", value.to_string()).with_key("k")]).await;
        // Much less than a claim takes, and enough for the record to be fetched.
        sleep(Duration::from_millis(50)).await;
    }
    caught_up(&running).await;
    assert_eq!(store.claims.lines(), ["claim 1", "claim 9"]);
    assert_eq!(running.status().await.totals.handled, 10);
}

#[tokio::test(start_paused = true)]
async fn what_is_claimed_while_its_partition_is_revoked_goes_back_at_once() {
    let (transport, store, log) = (MemoryTransport::new(), slow(), Log::default());
    let two = [Topic::new("t").with_partitions(2), Topic::new("t-dlq")];
    transport.admin().await.expect("an admin").create_topics(&two).await.expect("topics");
    let service = |log: Log| {
        let handler = async |delivery: Delivery, State(log): State<Log>| {
            log.add(format!("partition {}", delivery.partition()));
            sleep(Duration::from_secs(20)).await;
        };
        let router = Router::new().on_topic("t", handler).with_state(log);
        Service::new("s", router).with_workers(1).with_concurrency(1).with_idempotency(store.clone())
    };
    let in_each = |n: u32| (0..2).map(|p| Record::new("t", format!("{n} {p}")).with_partition(p)).collect::<Vec<_>>();
    let _first = start(service(log.clone()), &transport).await;
    publish(&transport, in_each(0)).await;
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(log.lines().len(), 1, "one is handled, for long, and nothing else begins beside it");
    publish(&transport, in_each(1)).await;
    sleep(Duration::from_millis(200)).await;
    // The claims of both partitions are in flight when one partition is revoked.
    let (second, began) = (Log::default(), tokio::time::Instant::now());
    let _second = start(service(second.clone()), &transport).await;
    while second.lines().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(15), "the other one has the claim of what it has given up");
        sleep(Duration::from_millis(100)).await;
    }
}

/// By the service's own clock the lease has expired, and it begins nothing under its claims; by the store's clock it
/// is still valid. The claims are then made again by the same lease, which would find its own events held.
#[tokio::test(start_paused = true)]
async fn claims_of_a_lease_that_lived_on_are_had_again() {
    let (transport, store, log) = (MemoryTransport::new(), Odd::default(), Log::default());
    topics(&transport, &["t"]).await;
    let handler = async |_: Delivery, State((log, store)): State<(Log, Odd)>| {
        log.add("begun");
        if log.lines().len() == 1 {
            store.denies_renewals.store(true, SeqCst);
            return Err("at first");
        }
        Ok(())
    };
    let router = Router::new().on_topic("t", handler).with_state((log.clone(), store.clone()));
    let retry = Retry::exponential(Duration::from_secs(20)).without_jitter();
    let service = Service::new("s", router).with_retry(retry).with_lease_ttl(Duration::from_secs(9));
    let running = service.with_idempotency(store.clone()).start(&transport).await.expect("it starts");
    publish(&transport, vec![Record::new("t", "1")]).await;
    sleep(Duration::from_secs(25)).await;
    assert_eq!(log.lines(), ["begun"], "nothing begins by a lease that may be dead");
    store.denies_renewals.store(false, SeqCst);
    caught_up(&running).await;
    assert_eq!(running.status().await.totals.handled, 1);
}

/// Records waiting for a full batch were claimed by two leases, the first of which has expired.
#[tokio::test(start_paused = true)]
async fn a_batch_with_a_dead_leases_claims_keeps_the_others() {
    let (transport, store) = (MemoryTransport::new(), Odd::default());
    topics(&transport, &["t"]).await;
    let handler = async |_: RawBatch| {};
    let options = BatchOptions::new(10).with_wait(Duration::from_secs(60));
    let service = Service::new("s", Router::new().on_topic("t", handler.batch(options)));
    let service = service.with_workers(1).with_lease_ttl(Duration::from_secs(9)).with_idempotency(store.clone());
    let running = start(service, &transport).await;
    publish(&transport, vec![Record::new("t", "1")]).await;
    sleep(Duration::from_secs(1)).await;
    store.inner.faults().down();
    sleep(Duration::from_secs(20)).await;
    store.inner.faults().up();
    sleep(Duration::from_secs(10)).await;
    publish(&transport, vec![Record::new("t", "2")]).await;
    caught_up(&running).await;
    assert_eq!(running.status().await.totals.handled, 2);
    assert_eq!(store.claims.lines(), ["claim 1", "claim 1", "claim 1"], "only the dead one's claim is asked for again");
}

/// Claims that wait to be repeated, or are being repeated.
async fn is_revoked_at_once(store: Odd, after: Duration) {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let handler = async |_: Delivery, State(log): State<Log>| log.add("begun");
    let service = || Service::new("s", Router::new().on_topic("t", handler).with_state(log.clone())).with_workers(1);
    let running = start(service().with_idempotency(store.clone()), &transport).await;
    store.inner.faults().down();
    publish(&transport, vec![Record::new("t", "1")]).await;
    sleep(after).await;
    let began = tokio::time::Instant::now();
    transport.faults().rebalance("s-group");
    while running.status().await.partitions.iter().all(|partition| partition.epoch < 3) {
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", running.status().await);
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_store_that_is_down_holds_no_revocation_up() {
    is_revoked_at_once(Odd::default(), Duration::from_secs(1)).await;
    is_revoked_at_once(slow(), Duration::from_millis(500)).await;
}

/// The store cannot tell two deliveries of one event apart if one service has both.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_a_repeats_claim_takes_no_claim_away() {
    let (transport, store, log) = (MemoryTransport::new(), Odd::default(), Log::default());
    topics(&transport, &["t", "twin"]).await;
    let handler = async |delivery: Delivery, State(log): State<Log>| {
        log.add(format!("begun {}", delivery.topic()));
        sleep(Duration::from_secs(5)).await;
    };
    let router = Router::new().on_topic("t", handler).on_topic("twin", handler).with_state(log.clone());
    let running = start(Service::new("s", router).with_idempotency(store.clone()), &transport).await;
    publish(&transport, vec![Record::new("t", EVENT)]).await;
    sleep(Duration::from_secs(1)).await;
    store.inner.faults().lose_answers(1);
    publish(&transport, vec![Record::new("twin", EVENT), Record::new("twin", "another")]).await;
    caught_up(&running).await;
    assert_eq!(log.lines(), ["begun t", "begun twin"]);
    let totals = running.status().await.totals;
    assert_eq!((totals.handled, totals.duplicates), (2, 1));
}

/// No other lease has claimed the event since: the claim of the expired lease still holds.
#[tokio::test(start_paused = true)]
async fn what_was_handled_when_the_store_went_down_is_not_handled_again() {
    let (transport, store, log) = (MemoryTransport::new(), Odd::default(), Log::default());
    topics(&transport, &["t"]).await;
    let handler = async |_: Delivery, State((log, store)): State<(Log, Odd)>| {
        log.add("begun");
        store.inner.faults().down();
    };
    let router = Router::new().on_topic("t", handler).with_state((log.clone(), store.clone()));
    let service = Service::new("s", router).with_lease_ttl(Duration::from_secs(9)).with_idempotency(store.clone());
    let running = start(service, &transport).await;
    publish(&transport, vec![Record::new("t", "1")]).await;
    sleep(Duration::from_secs(60)).await;
    store.inner.faults().up();
    caught_up(&running).await;
    assert_eq!((log.lines().len(), running.status().await.totals.handled), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_completion_without_an_answer_is_asked_for_again() {
    let (transport, store) = (MemoryTransport::new(), Odd::default());
    topics(&transport, &["t"]).await;
    store.short_completes.store(2, SeqCst);
    let service = Service::new("s", Router::new().on_topic("t", async |_: Delivery| {})).with_workers(1);
    let running = start(service.with_idempotency(store.clone()), &transport).await;
    publish(&transport, vec![Record::new("t", "1"), Record::new("t", "2")]).await;
    caught_up(&running).await;
    assert_eq!(running.status().await.totals.handled, 2);
}

/// As when a commit stalls: the item had been released by then, and no other code would end it.
#[tokio::test(start_paused = true)]
async fn a_claim_that_is_carried_out_after_its_release_is_given_back_again() {
    let (transport, store) = (MemoryTransport::new(), Odd::default());
    topics(&transport, &["t"]).await;
    store.late_claims.store(1, SeqCst);
    let service = Service::new("s", Router::new().on_topic("t", async |_: Delivery| {}));
    let running = start(service.with_idempotency(store.clone()), &transport).await;
    publish(&transport, vec![Record::new("t", "1")]).await;
    caught_up(&running).await;
    assert_eq!(running.status().await.totals.handled, 1);
}

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, Event)]
#[event(topic = "out", type = "followed", crate = "tidings_core")]
struct Followed;

/// A record that waits for `down` is not retried if its partition is revoked during the call: the next owner processes
/// it.
async fn is_given_up_with_its_partition(down: &'static str) {
    let (transport, store) = (MemoryTransport::new(), Odd::default());
    topics(&transport, &["t", "out"]).await;
    publish(&transport, vec![Record::new("t", if down == "out" { "good" } else { "bad" })]).await;
    transport.faults().delay_publishes(Duration::from_secs(40));
    transport
        .faults()
        .publish(PublishFault::new(ErrorKind::Unavailable).with_topic(down).with_times(Faults::UNTIL_HEALED));
    let service = |log: &Log| {
        let handler = async |delivery: Delivery, State(log): State<Log>| {
            log.add("begun");
            let good = delivery.record().value.as_deref() == Some(b"good");
            if good { Ok(Followed) } else { Err(reject("on purpose")) }
        };
        let router = Router::new().on_topic("t", handler).with_state(log.clone());
        let service = Service::new("s", router).with_workers(1).with_revocation_deadline(Duration::from_secs(1));
        service.with_idempotency(store.clone())
    };
    let (first, second) = (Log::default(), Log::default());
    let _first = start(service(&first), &transport).await;
    let _second = start(service(&second), &transport).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!((first.lines().len(), second.lines().len()), (1, 0));
    transport.faults().rebalance("s-group");
    sleep(Duration::from_secs(200)).await;
    assert_eq!(second.lines(), ["begun"], "the one that has given {down} up still has its claim");
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_published_or_buried_is_given_up_with_its_partition() {
    is_given_up_with_its_partition("out").await;
    is_given_up_with_its_partition("t-dlq").await;
}
