//! Events returned by handlers: published before their delivery is settled, with ids that a repeat derives again.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{Log, caught_up, letters, publish, records, start, topics};
use serde::{Deserialize, Serialize};
use tidings_core::{Batch, BoxError, Caused, Envelope, EnvelopeRef, ErrorKind, Name, Record, Timestamp, codec};
use tidings_macros::Event;
use tidings_memory::{MemoryTransport, PublishFault};
use tidings_service::{BatchOptions, HandlerExt, Router, Service, State};
use uuid::Uuid;

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(topic = "asked", type = "asked", key = "id", crate = "tidings_core")]
struct Asked {
    id: u32,
}

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(topic = "answered", type = "answered", key = "id", crate = "tidings_core")]
struct Answered {
    id: u32,
    part: u32,
}

fn asked(id: u32) -> Record {
    let (event, source) = (Asked { id }, Name::from_static("test"));
    let id = Uuid::from_u128(id.into());
    codec::encode(EnvelopeRef::new(id, Timestamp::from_millis(1), &source, &event), "").expect("it encodes")
}

async fn answers(transport: &MemoryTransport) -> Vec<Envelope<Answered>> {
    let records = records(transport, "answered").await;
    records.iter().map(|record| codec::decode(record).expect("an answer")).collect()
}

#[tokio::test(start_paused = true)]
async fn they_carry_where_they_come_from() {
    let transport = MemoryTransport::new();
    topics(&transport, &["asked", "answered"]).await;
    let router =
        Router::new().on(async |e: Asked| vec![Answered { id: e.id, part: 0 }, Answered { id: e.id, part: 1 }]);
    let service = start(Service::new("s", router), &transport).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    publish(&transport, vec![asked(7).with_header("traceparent", trace)]).await;
    caught_up(&service).await;
    let records = records(&transport, "answered").await;
    assert_eq!(records.len(), 2);
    for record in &records {
        let header = |name| record.headers.get_str(name).unwrap_or_default().to_owned();
        assert_eq!(header("causation-id"), Uuid::from_u128(7).to_string());
        assert_eq!(header("correlation-id"), Uuid::from_u128(7).to_string());
        assert!(header("traceparent").starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
        assert!(!header("traceparent").contains("b7ad6b7169203331"), "a span of its own");
    }
    let answers = answers(&transport).await;
    assert_ne!(answers[0].id, answers[1].id, "equal ones are told apart by their index");
    assert_eq!(answers[0].source, "s");
}

#[tokio::test(start_paused = true)]
async fn a_repeat_of_the_handler_derives_the_same_ids() {
    let transport = MemoryTransport::new();
    topics(&transport, &["asked", "answered"]).await;
    let runs = Arc::new(AtomicU32::new(0));
    let router = Router::new().on(async |e: Asked, State(runs): State<Arc<AtomicU32>>| {
        runs.fetch_add(1, Ordering::SeqCst);
        [0, 1].map(|part| Answered { id: e.id, part }).into_iter().collect::<Vec<_>>()
    });
    let service = start(Service::new("s", router.with_state(runs.clone())), &transport).await;
    // The second event is refused permanently once: that counts as the handler's error, so the handler runs again.
    let second = |record: &Record| record.value.as_deref().is_some_and(|v| v.ends_with(br#""part":1}}"#));
    transport.faults().publish(PublishFault::new(ErrorKind::TooLarge).with_topic("answered").with_matching(second));
    publish(&transport, vec![asked(1)]).await;
    caught_up(&service).await;
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    let answers = answers(&transport).await;
    assert_eq!(answers.len(), 3, "the first one twice");
    assert_eq!((answers[0].id, answers[0].payload.part), (answers[1].id, answers[1].payload.part));
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_publisher_never_runs_the_handler_again() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["asked", "answered"]).await;
    let runs = Arc::new(AtomicU32::new(0));
    let router = Router::new().on(async |e: Asked, State(runs): State<Arc<AtomicU32>>| {
        runs.fetch_add(1, Ordering::SeqCst);
        Answered { id: e.id, part: 0 }
    });
    let service = Service::new("s", router.with_state(runs.clone())).with_observer(Arc::new(log.clone()));
    let service = start(service, &transport).await;
    publish(&transport, vec![asked(1)]).await;
    transport.faults().publish(PublishFault::new(ErrorKind::Unavailable).with_topic("answered").with_times(20));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(log.lines().is_empty(), "not settled before its event is published");
    caught_up(&service).await;
    assert_eq!((runs.load(Ordering::SeqCst), answers(&transport).await.len()), (1, 1));
    assert_eq!(log.lines(), ["handled 0"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_refused_for_good_is_the_handlers_error() {
    let transport = MemoryTransport::new();
    topics(&transport, &["asked", "answered"]).await;
    let router = Router::new().on(async |e: Asked| Answered { id: e.id, part: 0 });
    let service = start(Service::new("s", router), &transport).await;
    transport.faults().publish(PublishFault::new(ErrorKind::TooLarge).with_topic("answered").with_times(100));
    publish(&transport, vec![asked(1)]).await;
    caught_up(&service).await;
    let letter = letters(&transport, "asked-dlq").await.pop().expect("a letter");
    assert_eq!((letter.kind, letter.attempts), (ErrorKind::TooLarge, 4));
}

#[tokio::test(start_paused = true)]
async fn a_batch_handler_names_the_cause_of_each() {
    async fn answer(batch: Batch<Asked>) -> Result<Vec<Caused<Answered>>, BoxError> {
        Ok(batch.iter().map(|event| event.causes(Answered { id: event.payload.id, part: 0 })).collect())
    }
    let transport = MemoryTransport::new();
    topics(&transport, &["asked", "answered"]).await;
    let router = Router::new().on(answer.batch(BatchOptions::new(10).with_wait(Duration::ZERO)));
    let service = start(Service::new("s", router), &transport).await;
    publish(&transport, vec![asked(1), asked(2), asked(3)]).await;
    caught_up(&service).await;
    let mut causes: Vec<_> = records(&transport, "answered")
        .await
        .iter()
        .map(|record| record.headers.get_str("causation-id").unwrap_or_default().to_owned())
        .collect();
    causes.sort();
    assert_eq!(causes, [1, 2, 3].map(|id: u128| Uuid::from_u128(id).to_string()));
}
