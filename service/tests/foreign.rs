//! Events of other services on a shared topic: their type is checked first, and they do not count as failures.

mod common;

use common::{Log, caught_up, letters, publish, start, topics};
use serde::{Deserialize, Serialize};
use tidings_core::{Delivery, ErrorKind, Record};
use tidings_macros::Event;
use tidings_memory::MemoryTransport;
use tidings_service::{HandlerExt, Router, Service, State, Status, UnknownTypes};
use uuid::Uuid;

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(topic = "t", type = "ours", key = "name", crate = "tidings_core")]
struct Ours {
    name: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(topic = "t", type = "ours", version = 2, key = "name", crate = "tidings_core")]
struct OursTwo {
    name: String,
}

fn body(id: &str, event_type: &str, version: &str) -> String {
    format!(
        r#"{{"eventId":{id},"eventType":"{event_type}","timestamp":1,"version":{version},"payload":{{"name":"n"}}}}"#
    )
}

fn id() -> String {
    format!("\"{}\"", Uuid::now_v7())
}

fn in_headers(event_type: &'static str, version: &str, value: String) -> Record {
    Record::new("t", value).with_header("eventType", event_type).with_header("version", version.to_owned())
}

/// The foreign events that a reader of the whole envelope would fail on.
fn foreign() -> Vec<Record> {
    vec![
        Record::new("t", body(&id(), "theirs", "\"v2\"")),
        Record::new("t", body(&id(), "theirs", "[2]")),
        Record::new("t", body("\"order-7\"", "theirs", "\"1.0\"")),
        Record::new("t", body("7", "theirs", "{\"major\":[1,null]}")),
        Record::new("t", r#"{"eventType":"theirs"}"#),
        in_headers("theirs", "v2", "{".into()),
        in_headers("theirs", "\u{fffd}", body("7", "theirs", "1")),
        in_headers("theirs", "2.0", body("7", "else", "1")).with_header("content-type", "application/avro"),
        Record::new("t", "?").with_header("eventType", "theirs").with_header("version", vec![0xff]),
    ]
}

/// Runs a service over `records` and one event of its own; returns its final status and the errors of its letters.
async fn run(records: Vec<Record>, set: impl FnOnce(Service) -> Service) -> (Status, Vec<(ErrorKind, String)>, Log) {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let router = Router::new().on(async |event: Ours, State(log): State<Log>| log.add(event.name));
    let service = start(set(Service::new("s", router.with_state(log.clone()))), &transport).await;
    publish(&transport, records).await;
    publish(&transport, vec![Record::new("t", body(&id(), "ours", "\"1.0\""))]).await;
    caught_up(&service).await;
    let letters = letters(&transport, "t-dlq").await;
    (service.status().await, letters.into_iter().map(|letter| (letter.kind, letter.error)).collect(), log)
}

#[tokio::test(start_paused = true)]
async fn a_foreign_event_is_skipped_whatever_its_version_and_id_are() {
    let count = foreign().len() as u64;
    let (status, letters, log) = run(foreign(), |service| service).await;
    assert_eq!(letters, []);
    assert_eq!((status.totals.skipped, status.totals.dead_lettered), (count, 0));
    assert_eq!(log.lines(), ["n"]);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_event_that_is_buried_by_policy_is_named_by_its_type() {
    let count = foreign().len();
    let (_, letters, _) = run(foreign(), |service| service.with_unknown_types(UnknownTypes::DeadLetter)).await;
    assert_eq!(letters.len(), count);
    assert!(letters.iter().all(|(_, error)| error.contains("\"theirs\"")), "{letters:?}");
}

#[tokio::test(start_paused = true)]
async fn no_number_of_foreign_events_opens_the_circuit_breaker() {
    for policy in [UnknownTypes::Skip, UnknownTypes::DeadLetter] {
        let before = tokio::time::Instant::now();
        let many = std::iter::repeat_with(foreign).take(60).flatten().collect();
        let (status, _, log) = run(many, |service| service.with_unknown_types(policy)).await;
        assert_eq!(log.lines(), ["n"]);
        assert!(status.problems.is_empty(), "{:?}", status.problems);
        assert!(before.elapsed().as_secs() < 5, "it never held back: {:?}", before.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_of_a_type_that_is_handled_is_judged_by_its_version_and_id() {
    for (record, says) in [
        (Record::new("t", body(&id(), "ours", "\"v2\"")), "version"),
        (Record::new("t", body("\"order-7\"", "ours", "\"1.0\"")), "eventId"),
        (in_headers("ours", "v1", body(&id(), "ours", "\"1.0\"")), "version"),
        (in_headers("ours", "1.0", body(&id(), "ours", "\"2.0\"")), "version"),
        (in_headers("ours", "1.0", body(&id(), "theirs", "\"1.0\"")), "eventType"),
        (Record::new("t", body(&id(), "ours", "\"2.0\"")).with_header("eventType", "ours"), "2.0"),
    ] {
        let (_, letters, log) = run(vec![record], |service| service).await;
        assert_eq!(log.lines(), ["n"], "{says}");
        assert!(letters.len() == 1 && letters[0].1.contains(says), "{says}: {letters:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_tells_the_version_where_the_headers_tell_the_type_alone() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let router = Router::new()
        .on(async |_: Ours, State(log): State<Log>| log.add("one"))
        .on(async |_: OursTwo, State(log): State<Log>| log.add("two"));
    let service = start(Service::new("s", router.with_state(log.clone())), &transport).await;
    for version in ["2", "\"2.3\"", "2.0", "null", "\"1.0\""] {
        let record = Record::new("t", body(&id(), "ours", version)).with_key("k").with_header("eventType", "ours");
        publish(&transport, vec![record]).await;
    }
    caught_up(&service).await;
    assert_eq!(log.lines(), ["two", "two", "two", "one", "one"]);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_event_goes_to_the_topics_handler_where_there_is_one() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let router = Router::new()
        .on(async |_: Ours, State(log): State<Log>| log.add("typed"))
        .on_topic("t", (async |_: Delivery, State(log): State<Log>| log.add("raw")).named("raw"));
    let service = start(Service::new("s", router.with_state(log.clone())), &transport).await;
    let count = foreign().len();
    publish(&transport, foreign()).await;
    caught_up(&service).await;
    assert_eq!(log.lines(), vec!["raw"; count]);
}
