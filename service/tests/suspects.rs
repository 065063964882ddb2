//! Records that were in flight when leases expired: handled with nothing else in flight, and dead-lettered only for
//! crashes of their own.

mod common;
#[path = "common/odd.rs"]
mod odd;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use common::{Log, caught_up, letters, publish, start, topics};
use odd::Odd;
use tidings_core::{BoxError, Claim, Delivery, ErrorKind, History, Record, reject};
use tidings_macros::Event;
use tidings_memory::{Faults, MemoryStore, MemoryTransport, PublishFault};
use tidings_service::{Router, Service, State};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

const KILLER: &str =
    r#"{"eventId":"0190163d-8694-739b-aea5-966c26f8ad91","eventType":"x","timestamp":1,"source":"s","payload":{}}"#;

const KILLER_ID: &str = "0190163d-8694-739b-aea5-966c26f8ad91";

fn record(key: &'static str, value: &'static str) -> Record {
    Record::new("t", value).with_key(key)
}

fn text(record: &tidings_core::StoredRecord) -> String {
    String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned()
}

/// Restarts the service each time it is killed, until all is settled; returns the number of restarts.
async fn survive(transport: &MemoryTransport, killed: &Notify, service: impl Fn() -> Service) -> usize {
    for crashes in 0..20 {
        let running = start(service(), transport).await;
        let caught_up = timeout(Duration::from_secs(3_600), running.caught_up());
        tokio::select! {
            () = killed.notified() => {}
            done = caught_up => {
                done.expect("it ends").expect("it runs");
                return crashes;
            }
        }
        drop(running);
        // The next service starts when all claims of this one are free: it then claims the whole batch.
        sleep(Duration::from_secs(60)).await;
    }
    panic!("it is never given up");
}

async fn buried(transport: &MemoryTransport) -> Vec<String> {
    letters(transport, "t-dlq").await.iter().map(|letter| text(&letter.record)).collect()
}

/// A handler of two kinds of records.
#[derive(Debug, Clone, Default)]
struct Deadly {
    killed: Arc<Notify>,
    harmless: Arc<AtomicBool>,
    log: Log,
}

impl Deadly {
    async fn handle(&self, delivery: &Delivery) {
        if text(delivery.record()) == KILLER && !self.harmless.load(SeqCst) {
            self.killed.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

/// The other records only happen to be in flight at the crash.
#[tokio::test(start_paused = true)]
async fn only_the_record_that_kills_is_buried_for_it() {
    let (transport, store, deadly) = (MemoryTransport::new(), MemoryStore::new(), Deadly::default());
    topics(&transport, &["t"]).await;
    let handler = async |delivery: Delivery, State(deadly): State<Deadly>| {
        deadly.handle(&delivery).await;
        // Never done before the other one kills the process.
        sleep(Duration::from_secs(1)).await;
        deadly.log.add(text(delivery.record()));
    };
    let service = || {
        let router = Router::new().on_topic("t", handler).with_state(deadly.clone());
        Service::new("s", router).with_workers(1).with_idempotency(store.clone())
    };
    publish(&transport, vec![record("k", KILLER), record("a", "1"), record("b", "2"), record("c", "3")]).await;
    let crashes = survive(&transport, &deadly.killed, service).await;
    assert_eq!(buried(&transport).await, [KILLER], "after {crashes} crashes");
    let mut handled = deadly.log.lines();
    handled.sort();
    assert_eq!(handled, ["1", "2", "3"]);

    // After a fix it is redriven: it starts anew, though the store remembers its crashes.
    deadly.harmless.store(true, SeqCst);
    let letter = letters(&transport, "t-dlq").await.remove(0);
    publish(&transport, vec![letter.to_redrive()]).await;
    let running = start(service(), &transport).await;
    caught_up(&running).await;
    assert_eq!(buried(&transport).await.len(), 1, "it is handled");
    assert_eq!(deadly.log.lines().last().map(String::as_str), Some(KILLER));
}

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, Event)]
#[event(topic = "out", type = "followed", key = &self.key, crate = "tidings_core")]
struct Followed {
    key: String,
}

/// The events returned by a record's handler are still being published: its claim ends only after that.
#[tokio::test(start_paused = true)]
async fn a_suspect_is_settled_before_the_next_one_begins() {
    let (transport, store, deadly) = (MemoryTransport::new(), MemoryStore::new(), Deadly::default());
    topics(&transport, &["t", "out"]).await;
    publish(&transport, vec![record("a", "innocent"), record("k", KILLER)]).await;
    transport.faults().delay_publishes(Duration::from_secs(1));
    let handler = async |delivery: Delivery, State(deadly): State<Deadly>| {
        deadly.handle(&delivery).await;
        Followed { key: text(delivery.record()) }
    };
    let service = || {
        let router = Router::new().on_topic("t", handler).with_state(deadly.clone());
        Service::new("s", router).with_workers(1).with_idempotency(store.clone())
    };
    survive(&transport, &deadly.killed, service).await;
    assert_eq!(buried(&transport).await, [KILLER]);
}

/// A topic that is unavailable for long delays the records published to it, and nothing else.
#[tokio::test(start_paused = true)]
async fn a_suspect_that_can_not_publish_holds_up_no_others() {
    let (transport, store, deadly) = (MemoryTransport::new(), MemoryStore::new(), Deadly::default());
    topics(&transport, &["t", "out"]).await;
    let handler = async |delivery: Delivery, State(deadly): State<Deadly>| {
        deadly.handle(&delivery).await;
        deadly.log.add(text(delivery.record()));
        (text(delivery.record()) == "innocent").then(|| Followed { key: "k".to_owned() })
    };
    let service = || {
        let router = Router::new().on_topic("t", handler).with_state(deadly.clone());
        Service::new("s", router).with_workers(1).with_idempotency(store.clone())
    };
    publish(&transport, vec![record("a", "innocent"), record("k", KILLER)]).await;
    let down = PublishFault::new(ErrorKind::Unavailable).with_topic("out").with_times(Faults::UNTIL_HEALED);
    transport.faults().publish(down);
    for _ in 0..2 {
        let running = start(service(), &transport).await;
        deadly.killed.notified().await;
        drop(running);
        sleep(Duration::from_secs(60)).await;
    }
    deadly.harmless.store(true, SeqCst);
    let _running = start(service(), &transport).await;
    sleep(Duration::from_secs(60)).await;
    assert!(deadly.log.lines().contains(&KILLER.to_owned()), "{:?}", deadly.log.lines());
}

fn granted(crashes: u32) -> Claim {
    Claim::Granted(History::new(crashes, 0))
}

async fn scripted(store: Odd, claims: Vec<Claim>) -> (MemoryTransport, Log, tidings_service::ServiceHandle) {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    store.script.lock().expect("no test panics with it").extend(claims);
    let handler = async |_: Delivery, State(log): State<Log>| log.add("begun");
    let router = Router::new().on_topic("t", handler).with_state(log.clone());
    let service = start(Service::new("s", router).with_workers(1).with_idempotency(store), &transport).await;
    publish(&transport, vec![Record::new("t", "1")]).await;
    (transport, log, service)
}

/// Another service held it when its turn to run alone came, and crashed with it; or its history was lost.
#[tokio::test(start_paused = true)]
async fn a_suspect_that_was_held_is_judged_by_its_next_claim() {
    let held = Claim::Held { at_most: Duration::from_millis(1) };
    let (transport, log, service) = scripted(Odd::default(), vec![granted(4), held, granted(5)]).await;
    caught_up(&service).await;
    assert_eq!((buried(&transport).await.len(), log.lines().len()), (1, 0));

    let (transport, log, service) = scripted(Odd::default(), vec![granted(2), held]).await;
    caught_up(&service).await;
    assert_eq!((buried(&transport).await.len(), log.lines().len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_suspect_does_not_begin_by_a_claim_that_came_too_late() {
    let store = Odd { late: true, ..Odd::default() };
    let (_transport, log, service) = scripted(store, vec![granted(3); 9]).await;
    sleep(Duration::from_secs(600)).await;
    assert!(log.lines().is_empty(), "{:?}", service.status().await);
}

/// A store that never releases one claim does not keep a suspect's turn from coming.
#[tokio::test(start_paused = true)]
async fn a_suspect_has_its_turn_though_a_claim_is_never_given_back() {
    let (transport, log, store) = (MemoryTransport::new(), Log::default(), Odd::default());
    topics(&transport, &["t"]).await;
    *store.keeps.lock().expect("no test panics with it") = Some(KILLER_ID.parse().expect("an id"));
    let handler = async |delivery: Delivery, State(log): State<Log>| -> Result<(), BoxError> {
        if text(delivery.record()) == KILLER {
            return Err(reject("it is buried, and its claim given back").into());
        }
        log.add(text(delivery.record()));
        Ok(())
    };
    let router = Router::new().on_topic("t", handler).with_state(log.clone());
    let service = Service::new("s", router).with_workers(1).with_idempotency(store.clone());
    let _running = start(service, &transport).await;
    publish(&transport, vec![record("a", KILLER)]).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(buried(&transport).await, [KILLER]);
    store.script.lock().expect("no test panics with it").push_back(granted(4));
    publish(&transport, vec![record("b", "suspect")]).await;
    sleep(Duration::from_secs(120)).await;
    assert_eq!(log.lines(), ["suspect"]);
}
