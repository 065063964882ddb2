//! Bad input: each record is dead-lettered with its bytes, or skipped by policy; neighbouring records are not delayed,
//! and the letter contains the position and the reason.

mod common;

use std::time::Duration;

use common::{Log, caught_up, letters, publish, start, topics};
use serde::{Deserialize, Serialize};
use tidings_core::codec::{Codec, Json};
use tidings_core::{
    BoxError, DeadLetter, Delivery, Envelope, EnvelopeRef, ErrorKind, Header, Headers, Name, Record, Timestamp,
};
use tidings_macros::Event;
use tidings_memory::MemoryTransport;
use tidings_service::{Router, Service, State, UnknownTypes};
use uuid::Uuid;

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(topic = "t", type = "user.named", key = "id", crate = "tidings_core")]
struct Named {
    id: String,
    name: String,
}

async fn named(event: Named, State(log): State<Log>) {
    log.add(event.name);
}

fn good(name: &str) -> Record {
    let (event, source) = (Named { id: "k".into(), name: name.into() }, Name::from_static("test"));
    let envelope = EnvelopeRef::new(Uuid::now_v7(), Timestamp::now(), &source, &event);
    tidings_core::codec::encode(envelope, "").expect("it encodes")
}

/// Publishes `bad` between two good records of its key; returns its letter, if there is one.
async fn between(bad: Record) -> Option<DeadLetter> {
    between_with(bad, |service| service).await
}

async fn between_with(bad: Record, set: impl Fn(Service) -> Service) -> Option<DeadLetter> {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let service = Service::new("s", Router::new().on(named).with_state(log.clone()));
    let service = start(set(service), &transport).await;
    publish(&transport, vec![good("before"), bad.clone(), good("after")]).await;
    caught_up(&service).await;
    assert_eq!(log.lines(), ["before", "after"], "its neighbours are handled");
    let letter = letters(&transport, "t-dlq").await.pop();
    if let Some(letter) = &letter {
        assert_eq!((letter.origin.to_string().as_str(), letter.record.offset), ("t[0]", 1));
        assert_eq!((&letter.record.key, &letter.record.value), (&bad.key, &bad.value), "byte for byte");
        assert_eq!(letter.record.headers, bad.headers, "byte for byte");
        assert!(!letter.error.is_empty() && letter.service == "s");
    }
    letter
}

async fn undecodable(bad: Record, says: &str) {
    let letter = between(bad.with_key("k")).await.expect("a letter");
    assert_eq!((letter.kind, letter.attempts), (ErrorKind::Undecodable, 0));
    assert!(letter.error.contains(says), "{:?} says nothing of {says:?}", letter.error);
}

fn typed(value: impl Into<bytes::Bytes>) -> Record {
    Record::new("t", value).with_header("eventType", "user.named")
}

#[tokio::test(start_paused = true)]
async fn garbage_bytes() {
    undecodable(Record::new("t", vec![0, 159, 146, 150]), "read the JSON envelope").await;
}

#[tokio::test(start_paused = true)]
async fn garbage_under_a_good_header() {
    undecodable(typed(vec![0, 159, 146, 150]), "read user.named from JSON").await;
}

#[tokio::test(start_paused = true)]
async fn json_of_another_shape() {
    undecodable(typed("[1, 2]"), "read user.named from JSON").await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_field() {
    let value = format!(
        r#"{{"eventId":"{}","eventType":"user.named","timestamp":1,"source":"x","payload":{{"id":"1"}}}}"#,
        Uuid::now_v7()
    );
    undecodable(typed(value), "missing field `name`").await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_major_version() {
    let mut bad = good("x");
    bad.headers.set("version", "7.0");
    undecodable(bad, "7.0").await;
}

#[tokio::test(start_paused = true)]
async fn a_header_that_contradicts_the_body() {
    let value = format!(
        r#"{{"eventId":"{}","eventType":"user.lost","timestamp":1,"source":"x","payload":{{"id":"1","name":"n"}}}}"#,
        Uuid::now_v7()
    );
    undecodable(typed(value), "user.lost").await;
}

#[tokio::test(start_paused = true)]
async fn invalid_utf_8_in_a_header() {
    undecodable(Record::new("t", "{}").with_header("eventType", vec![0xff, 0xfe]), "eventType").await;
}

#[tokio::test(start_paused = true)]
async fn a_content_type_that_nobody_knows() {
    undecodable(typed("x").with_header("content-type", "application/x-mystery"), "x-mystery").await;
}

#[tokio::test(start_paused = true)]
async fn a_value_of_fifty_megabytes() {
    undecodable(typed(vec![b'x'; 50 << 20]), "read user.named from JSON").await;
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_headers() {
    let mut bad = Record::new("t", "?");
    bad.headers = (0..10_000).map(|n| Header::new(format!("h{n}"), "v")).collect::<Headers>();
    undecodable(bad, "read the JSON envelope").await;
}

#[tokio::test(start_paused = true)]
async fn a_null_value_is_skipped() {
    assert!(between(Record::tombstone("t").with_key("k")).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_empty_key_is_a_key() {
    let mut record = good("before");
    record.key = Some(bytes::Bytes::new());
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let service = start(Service::new("s", Router::new().on(named).with_state(log.clone())), &transport).await;
    publish(&transport, vec![record]).await;
    caught_up(&service).await;
    assert_eq!(log.lines(), ["before"]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_type_is_skipped_or_buried_by_policy() {
    let stranger = || {
        let mut record = good("x");
        let text = String::from_utf8(record.value.expect("a value").to_vec()).expect("JSON");
        record.value = Some(text.replace("user.named", "user.strange").into());
        record.headers.set("eventType", "user.strange");
        record
    };
    assert!(between(stranger()).await.is_none());
    let buried = between_with(stranger(), |service| service.with_unknown_types(UnknownTypes::DeadLetter)).await;
    assert!(buried.expect("a letter").error.contains("user.strange"));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_ends_in_a_letter_that_says_so() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let router = Router::new().on(async |event: Named, State(log): State<Log>| {
        assert!(event.name != "bad", "this one is bad");
        log.add(event.name);
    });
    let service = start(Service::new("s", router.with_state(log.clone())), &transport).await;
    publish(&transport, vec![good("before"), good("bad"), good("after")]).await;
    caught_up(&service).await;
    assert_eq!(log.lines(), ["before", "after"]);
    let letter = letters(&transport, "t-dlq").await.pop().expect("a letter");
    assert_eq!((letter.attempts, letter.handler.as_str()), (4, "user.named"));
    assert!(letter.error.contains("this one is bad"), "{}", letter.error);
}

/// Panics when it is formatted.
#[derive(Debug)]
struct Unshown;

impl std::fmt::Display for Unshown {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("cannot be shown")
    }
}

impl std::error::Error for Unshown {}

/// Panics when it is dropped.
struct Undropped;

impl Drop for Undropped {
    fn drop(&mut self) {
        panic!("cannot be dropped")
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_panics_itself_ends_in_a_letter() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let router = Router::new().on(async |event: Named, State(log): State<Log>| match event.name.as_str() {
        "unshown" => Err(Unshown),
        "undropped" => std::panic::panic_any(Undropped),
        _ => {
            log.add(event.name);
            Ok(())
        }
    });
    let service = start(Service::new("s", router.with_state(log.clone())), &transport).await;
    publish(&transport, ["unshown", "undropped", "after"].map(good).into()).await;
    caught_up(&service).await;
    assert_eq!(log.lines(), ["after"]);
    let letters = letters(&transport, "t-dlq").await;
    assert_eq!(letters.len(), 2);
    assert!(letters.iter().any(|letter| letter.error.contains("cannot be shown")), "{letters:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_ends_in_a_letter_that_says_so() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let router = Router::new().on(async |event: Named, State(log): State<Log>| {
        if event.name == "bad" {
            std::future::pending::<()>().await;
        }
        log.add(event.name);
    });
    let service = Service::new("s", router.with_state(log.clone())).with_handler_timeout(Duration::from_secs(3));
    let service = start(service, &transport).await;
    publish(&transport, vec![good("bad"), good("after")]).await;
    caught_up(&service).await;
    assert_eq!(log.lines(), ["after"]);
    assert!(letters(&transport, "t-dlq").await[0].error.contains("not done after 3s"));
}

/// Uses real time and two threads: a thread cannot be blocked on a paused clock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_blocks_its_thread_is_reported_and_holds_up_only_its_own_keys() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let (unblock, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = std::sync::Arc::new(std::sync::Mutex::new(blocked));
    let router = Router::new().on_topic("t", {
        let (log, blocked) = (log.clone(), blocked.clone());
        move |d: Delivery| {
            let (log, blocked) = (log.clone(), blocked.clone());
            async move {
                if d.offset() == 0 {
                    // Handlers must not block. This one ends by itself when the test does.
                    let _ = blocked.lock().map(|blocked| blocked.recv_timeout(Duration::from_secs(60)));
                }
                log.add(d.offset().to_string());
                Ok::<(), BoxError>(())
            }
        }
    });
    let service = Service::new("s", router).with_workers(2).with_commit_interval(Duration::from_millis(50));
    let service = start(service, &transport).await;
    publish(&transport, vec![Record::new("t", "x").with_key("stuck")]).await;
    let reported = async {
        while !service.status().await.problems.iter().any(|p| p.contains("blocked its thread")) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reported).await.expect("it is reported");
    unblock.send(()).expect("it waits");
    caught_up(&service).await;
    assert_eq!(log.lines(), ["0"]);
}

#[test]
fn the_content_type_of_an_event_is_json_by_default() {
    assert_eq!(good("x").headers.get_str("content-type"), Some(Json::CONTENT_TYPE));
    let _: Envelope<Named> = Envelope::new(Named { id: String::new(), name: String::new() });
}

/// A null value reaches the handler as empty bytes: ag2ai/faststream#2932, platformatic/kafka#217.
#[tokio::test(start_paused = true)]
async fn a_tombstone_is_not_an_empty_value() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let router = Router::new().on_topic("t", async |delivery: Delivery, State(log): State<Log>| {
        log.add(format!("{:?}", delivery.record().value));
    });
    let service = start(Service::new("s", router.with_state(log.clone())), &transport).await;
    publish(&transport, vec![Record::tombstone("t").with_key("k"), Record::new("t", "").with_key("k")]).await;
    caught_up(&service).await;
    assert_eq!(log.lines(), ["None", "Some(b\"\")"]);
}
