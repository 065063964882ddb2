//! Control headers count only where they belong, and one event id on two topics can be two events.

mod common;

use common::{Log, caught_up, publish, records, start, topics};
use serde::{Deserialize, Serialize};
use tidings_core::{
    DeadLetter, Delivery, Envelope, ErrorKind, Outcome, PublishOptions, PublisherExt, Record, StoredRecord, Timestamp,
    Topic, TopicPartition, Transport, codec, dead_letter_topic, headers,
};
use tidings_macros::Event;
use tidings_memory::{MemoryStore, MemoryTransport};
use tidings_service::{EventPublisher, Router, Service, State};
use uuid::Uuid;

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(topic = "t", type = "noted", key = "name", crate = "tidings_core")]
struct Noted {
    name: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(topic = "u", type = "noted", key = "name", crate = "tidings_core")]
struct NotedElsewhere {
    name: String,
}

fn noted() -> Record {
    codec::encode(Envelope::new(Noted { name: "n".into() }).as_ref(), "").expect("it can be written")
}

/// A record that was redriven to `t` for the service `theirs`.
fn redriven() -> Record {
    let stored = StoredRecord::from_record(noted(), 0, Timestamp::default());
    DeadLetter::new("theirs", TopicPartition::new("t", 0), stored, ErrorKind::Failed).to_redrive()
}

fn raw(topic: &'static str, log: &Log) -> Router {
    let add = async move |delivery: Delivery, State(log): State<Log>| log.add(delivery.topic().to_string());
    Router::new().on_topic(topic, add).with_state(log.clone())
}

/// Returns how many records a service `ours` handles, given `record` on its topic.
async fn handled(topic: &'static str, record: Record) -> usize {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &[topic]).await;
    let service = start(Service::new("ours", raw(topic, &log)), &transport).await;
    publish(&transport, vec![record]).await;
    caught_up(&service).await;
    log.lines().len()
}

#[tokio::test(start_paused = true)]
async fn a_redrive_for_another_service_is_skipped_on_its_topic_alone() {
    assert_eq!(handled("t", redriven()).await, 0);
    let mut passed_on = redriven();
    passed_on.topic = "elsewhere".into();
    assert_eq!(handled("elsewhere", passed_on).await, 1);
    assert_eq!(handled("t", noted().with_header("redrive-for", "theirs")).await, 1, "no redrive wrote that");
    let old = noted().with_header("redrive-for", "theirs").with_header("redrive-count", "1");
    assert_eq!(handled("t", old).await, 1, "nor that: it names no topic");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_passes_a_redriven_record_on_makes_a_record_for_everybody() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t", "u"]).await;
    // Forwarded by outcome and by the context's publisher, to another topic and to the same one again.
    let pass_on = async |delivery: Delivery| {
        let mut outcome = Outcome::handled();
        if !delivery.record().headers.contains("again") {
            let headers = delivery.record().headers.clone().with("again", "1");
            let record = |topic: &'static str| Record::new(topic, "v").with_headers(headers.clone());
            outcome.push(record("t"));
            let publisher = delivery.context().publisher.clone().expect("a service has one");
            publisher.publish_one(record("u")).await.expect("memory takes it");
            publisher.publish(vec![record("t")]).await.remove(0).expect("memory takes it");
        }
        outcome
    };
    let theirs = start(Service::new("theirs", Router::new().on_topic("t", pass_on)), &transport).await;
    let ours = start(Service::new("ours", raw("t", &log).merge(raw("u", &log))), &transport).await;
    publish(&transport, vec![redriven()]).await;
    caught_up(&theirs).await;
    caught_up(&ours).await;
    let mut lines = log.lines();
    lines.sort();
    assert_eq!(lines, ["t", "t", "u"]);
    for record in records(&transport, "u").await {
        assert!(!record.headers.iter().any(|header| headers::steers_delivery(&header.name)), "{:?}", record.headers);
    }
}

#[tokio::test(start_paused = true)]
async fn a_publisher_refuses_a_reserved_header_by_its_name() {
    let transport = MemoryTransport::new();
    topics(&transport, &["t"]).await;
    let publisher = EventPublisher::new(&transport, "api");
    let options = PublishOptions::default().with_header("redrive-for", "theirs");
    let error = publisher.publish_with(&Noted { name: "n".into() }, options).await.expect_err("it is reserved");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("redrive-for"), "{error}");
    let nil = publisher.publish_with(&Noted { name: "n".into() }, PublishOptions::default().with_id(Uuid::nil())).await;
    assert_eq!(nil.expect_err("no event has it").kind(), ErrorKind::Invalid);
}

/// Publishes one event id to two topics; returns the handlers that received it.
async fn on_both_topics(set: impl FnOnce(Service) -> Service) -> Vec<String> {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t", "u"]).await;
    let id = Uuid::now_v7();
    let one = codec::encode(Envelope::new(Noted { name: "n".into() }).with_id(id).as_ref(), "").expect("written");
    let other = Envelope::new(NotedElsewhere { name: "n".into() }).with_id(id);
    let other = codec::encode(other.as_ref(), "").expect("written");
    let router = Router::new()
        .on(async |_: Noted, State(log): State<Log>| log.add("t"))
        .on(tidings_service::HandlerExt::named(async |_: NotedElsewhere, State(log): State<Log>| log.add("u"), "u"));
    let service = Service::new("s", router.with_state(log.clone())).with_idempotency(MemoryStore::new());
    let service = start(set(service), &transport).await;
    publish(&transport, vec![one.clone(), one]).await;
    publish(&transport, vec![other.clone(), other]).await;
    caught_up(&service).await;
    let mut lines = log.lines();
    lines.sort();
    lines
}

#[tokio::test(start_paused = true)]
async fn one_event_on_two_topics_is_handled_once_or_once_per_topic() {
    assert_eq!(on_both_topics(|service| service).await.len(), 1);
    assert_eq!(on_both_topics(Service::with_scope_per_topic).await, ["t", "u"]);
}

#[tokio::test(start_paused = true)]
async fn two_records_with_the_nil_id_are_two_dead_letters() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let router = Router::new().on(async |_: Noted, State(log): State<Log>| log.add("handled"));
    let service = Service::new("s", router.with_state(log.clone())).with_idempotency(MemoryStore::new());
    let service = start(service, &transport).await;
    let nil = |name: &str| {
        let body = format!(
            r#"{{"eventId":"{}","eventType":"noted","timestamp":1,"payload":{{"name":"{name}"}}}}"#,
            Uuid::nil()
        );
        Record::new("t", body)
    };
    publish(&transport, vec![nil("one"), nil("two")]).await;
    caught_up(&service).await;
    let letters = common::letters(&transport, "t-dlq").await;
    assert_eq!(letters.iter().map(|letter| letter.kind).collect::<Vec<_>>(), [ErrorKind::Undecodable; 2]);
    assert_eq!((log.lines().len(), service.status().await.totals.duplicates), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn two_services_with_handlers_of_one_name_derive_two_events() {
    #[derive(Debug, Clone, Serialize, Deserialize, Event)]
    #[event(topic = "out", type = "check.done", key = "name", crate = "tidings_core")]
    struct CheckDone {
        name: String,
    }
    let transport = MemoryTransport::new();
    let admin = transport.admin().await.expect("memory has an admin");
    let names = ["t", "out"].map(|name| [Topic::new(name), Topic::new(dead_letter_topic(name))]);
    admin.create_topics(&names.concat()).await.expect("memory is up");
    let router = || {
        let check = async |event: Noted| CheckDone { name: event.name };
        Router::new().on(tidings_service::HandlerExt::named(check, "check"))
    };
    let one = start(Service::new("fraud", router()), &transport).await;
    let two = start(Service::new("stock", router()), &transport).await;
    publish(&transport, vec![noted()]).await;
    caught_up(&one).await;
    caught_up(&two).await;
    let derived = records(&transport, "out").await;
    let ids: std::collections::HashSet<_> =
        derived.iter().map(|record| codec::peek(record).expect("ours").id).collect();
    assert_eq!((derived.len(), ids.len()), (2, 2));
}
