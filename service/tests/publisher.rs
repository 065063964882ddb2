//! The event publisher: the records it writes, and how it connects and closes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidings_core::{
    Admin, BoxError, Consumer, ConsumerOptions, DeadLetterSink, Delivery, DeliveryContext, Envelope, Error, ErrorKind,
    Guarantees, Headers, Position, Publisher, ReadLimits, Record, RecordBatch, Result, StoredRecord, Timestamp,
    TopicPartition, TraceParent, Transport, async_trait, codec,
};
use tidings_macros::Event;
use tidings_memory::MemoryTransport;
use tidings_service::{EventPublisher, PublishOptions, Router, Service};
use uuid::Uuid;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "users", type = "user.registered", key = "user_id")]
struct Registered {
    user_id: String,
}

fn registered(id: &str) -> Registered {
    Registered { user_id: id.into() }
}

/// Keeps what is published, and fails to connect a configured number of times.
#[derive(Debug, Clone, Default)]
struct Recorder(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    failures: AtomicUsize,
    connects: AtomicUsize,
    traces: AtomicBool,
    records: Mutex<Vec<Record>>,
}

impl Recorder {
    fn records(&self) -> Vec<StoredRecord> {
        let records = self.0.records.lock().expect("no test panics while it holds the lock").clone();
        records.into_iter().map(|record| StoredRecord::from_record(record, 0, Timestamp::default())).collect()
    }

    fn envelope(&self, place: usize) -> Envelope<Registered> {
        codec::decode(&self.records()[place]).expect("the publisher wrote it")
    }
}

#[async_trait]
impl Transport for Recorder {
    fn system(&self) -> &'static str {
        "recorder"
    }

    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        self.0.connects.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        let left = self.0.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        match left {
            Ok(_) => Err(Error::new(ErrorKind::Unavailable, "connect")),
            Err(_) => Ok(Arc::new(self.clone())),
        }
    }

    async fn consumer(&self, _: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        Err(Error::new(ErrorKind::Unsupported, "consume"))
    }

    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        Err(Error::new(ErrorKind::Unsupported, "bury"))
    }

    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        Err(Error::new(ErrorKind::Unsupported, "administer"))
    }

    fn writes_trace_context(&self) -> bool {
        self.0.traces.load(Ordering::Relaxed)
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees::all()
    }
}

#[async_trait]
impl Publisher for Recorder {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let mut all = self.0.records.lock().expect("no test panics while it holds the lock");
        let start = all.len() as u64;
        let positions = (start..start + records.len() as u64).map(|offset| Ok(Position::new(0, offset))).collect();
        all.extend(records);
        positions
    }

    async fn close(&self, _: Duration) -> Result<()> {
        Ok(())
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees::all()
    }
}

#[tokio::test]
async fn an_event_gets_a_new_id_its_source_and_a_trace() {
    let transport = Recorder::default();
    let events = EventPublisher::new(&transport, "api-gateway").with_topic_prefix("test.");
    events.publish(&registered("u1")).await.unwrap();
    let envelope = transport.envelope(0);
    assert_eq!(envelope.id.get_version_num(), 7);
    assert_eq!((&*envelope.source, envelope.payload.user_id.as_str()), ("api-gateway", "u1"));
    let record = &transport.records()[0];
    assert_eq!(record.key.as_deref(), Some(&b"u1"[..]));
    assert!(record.headers.get_str("traceparent").unwrap().parse::<TraceParent>().is_ok());
    assert_eq!(transport.0.records.lock().unwrap()[0].topic, "test.users");
}

#[tokio::test]
async fn options_are_written_where_readers_look() {
    let transport = Recorder::default();
    let events = EventPublisher::new(&transport, "api");
    let (id, cause, trace) = (Uuid::from_u128(1), Uuid::from_u128(2), TraceParent::new_root());
    let options = PublishOptions::default()
        .with_id(id)
        .with_timestamp(Timestamp::from_millis(5))
        .with_correlation_id("order-7")
        .with_causation_id(cause)
        .with_traceparent(trace)
        .with_header("tenant", "acme");
    events.publish_with(&registered("u1"), options).await.unwrap();
    let envelope = transport.envelope(0);
    assert_eq!((envelope.id, envelope.timestamp.millis()), (id, 5));
    let headers = &transport.records()[0].headers;
    let expected = [
        ("correlation-id", "order-7".to_owned()),
        ("causation-id", cause.to_string()),
        ("traceparent", trace.to_string()),
        ("tenant", "acme".to_owned()),
    ];
    for (name, value) in expected {
        assert_eq!(headers.get_str(name), Some(&*value), "{name}");
    }
}

#[tokio::test]
async fn a_header_of_our_own_is_refused_by_its_name() {
    let events = EventPublisher::new(&Recorder::default(), "api");
    let options = PublishOptions::default().with_header("eventType", "another");
    let error = events.publish_with(&registered("u1"), options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("eventType"), "{error}");
}

#[tokio::test]
async fn an_envelope_is_sent_as_it_is() {
    let transport = Recorder::default();
    let events = EventPublisher::new(&transport, "api");
    let named = Envelope::new(registered("u1")).with_id(Uuid::from_u128(9)).with_source("elsewhere");
    events.publish_envelope(&named).await.unwrap();
    events.publish_envelope(&Envelope::new(registered("u2"))).await.unwrap();
    assert_eq!(transport.envelope(0), named);
    assert_eq!(transport.envelope(1).source, "api");
}

#[tokio::test]
async fn what_follows_from_a_delivery_is_in_its_trace_and_flow() {
    let transport = Recorder::default();
    let trace = TraceParent::new_root();
    let headers = Headers::new().with("traceparent", trace.to_string()).with("correlation-id", "flow");
    let records = vec![StoredRecord::new(3, Timestamp::default()).with_headers(headers)];
    let delivery =
        Delivery::new(RecordBatch::new(TopicPartition::new("t", 0), records), DeliveryContext::new("s", "h"));
    let options = PublishOptions::following(&delivery);
    EventPublisher::new(&transport, "api").publish_with(&registered("u1"), options).await.unwrap();
    let headers = &transport.records()[0].headers;
    assert_eq!(headers.get_str("correlation-id"), Some("flow"));
    assert_eq!(headers.get_str("causation-id"), Some(&*delivery.event_id().to_string()));
    let written: TraceParent = headers.get_str("traceparent").unwrap().parse().unwrap();
    assert_eq!(written.trace_id(), trace.trace_id());
    assert_ne!(written.span_id(), trace.span_id());
}

#[tokio::test]
async fn no_trace_is_made_up_where_the_publisher_writes_it() {
    let transport = Recorder::default();
    transport.0.traces.store(true, Ordering::Relaxed);
    let (events, trace) = (EventPublisher::new(&transport, "api"), TraceParent::new_root());
    events.publish(&registered("a")).await.unwrap();
    assert!(events.publish_all(&[registered("b")]).await[0].is_ok());
    events.publish_with(&registered("c"), PublishOptions::default().with_traceparent(trace)).await.unwrap();
    let traces: Vec<_> =
        transport.records().iter().map(|r| r.headers.get_str("traceparent").map(str::to_owned)).collect();
    assert_eq!(traces, [None, None, Some(trace.to_string())]);
}

#[tokio::test]
async fn several_events_have_an_answer_each_and_one_trace() {
    let transport = Recorder::default();
    let answers = EventPublisher::new(&transport, "api").publish_all(&[registered("a"), registered("b")]).await;
    let offsets: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().offset).collect();
    assert_eq!(offsets, [0, 1]);
    assert_ne!(transport.envelope(0).id, transport.envelope(1).id);
    let trace = |place: usize| -> TraceParent {
        transport.records()[place].headers.get_str("traceparent").unwrap().parse().unwrap()
    };
    assert_eq!(trace(0).trace_id(), trace(1).trace_id());
    assert_ne!(trace(0).span_id(), trace(1).span_id());
}

#[tokio::test]
async fn a_transport_that_holds_nothing_back_names_the_outbox() {
    let transport = Recorder::default();
    let events = EventPublisher::new(&transport, "api");
    let error = events.publish_after(&registered("u1"), Duration::from_secs(60)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("outbox"), "{error}");
    let counted = events.stats().snapshot();
    assert_eq!((counted.published, counted.failed, counted.calls), (0, 1, 1), "a failure is counted");
    assert_eq!(events.cancel(Uuid::from_u128(1)).await.unwrap_err().kind(), ErrorKind::Unsupported);
    assert!(transport.0.records.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_handler_publishes_an_event_an_hour_later_in_the_flow_of_its_own() {
    let hour = Duration::from_secs(3_600);
    let transport = MemoryTransport::new();
    let handler = async |user: Envelope<Registered>, delivery: Delivery| -> std::result::Result<(), BoxError> {
        if user.payload.user_id == "u1" {
            let publisher = delivery.publisher().ok_or("no publisher")?;
            publisher.publish_after(&registered("u1 again"), Duration::from_secs(3_600)).await?;
            publisher.publish_at(&registered("u1 at once"), Timestamp::from_millis(0)).await?;
        }
        Ok(())
    };
    let service = Service::new("users", Router::new().on(handler)).start(&transport).await.unwrap();
    let events = EventPublisher::new(&transport, "api");
    let options = PublishOptions::default().with_correlation_id("flow");
    events.publish_with(&registered("u1"), options).await.unwrap();
    tokio::time::sleep(hour / 2).await;
    assert_eq!(service.status().await.totals.handled, 2);
    tokio::time::sleep(hour).await;
    assert_eq!(service.status().await.totals.handled, 3);
    let reader = transport.log_reader().await.unwrap();
    for offset in 0..3 {
        let read = reader.read(&TopicPartition::new("users", 0), offset, ReadLimits::default()).await.unwrap();
        assert_eq!(read.batch.records()[0].headers.get_str("correlation-id"), Some("flow"));
    }
}

#[tokio::test]
async fn concurrent_first_uses_connect_once() {
    let transport: Arc<dyn Transport> = Arc::new(Recorder::default());
    let recorder = Recorder::default();
    let events = EventPublisher::new(&recorder, "api");
    let clone = events.clone();
    let (a, b) = (registered("a"), registered("b"));
    let (first, second) = tokio::join!(events.publish(&a), clone.publish(&b));
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(recorder.0.connects.load(Ordering::Relaxed), 1);
    // A transport behind a pointer does the same.
    EventPublisher::new(&transport, "api").publish(&a).await.unwrap();
}

#[tokio::test]
async fn a_failed_connect_is_tried_again_by_the_next_call() {
    let transport = Recorder::default();
    transport.0.failures.store(1, Ordering::Relaxed);
    let events = EventPublisher::new(&transport, "api");
    assert_eq!(events.publish(&registered("a")).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(events.publish(&registered("a")).await.is_ok());
    assert_eq!(transport.0.connects.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn after_close_every_clone_refuses() {
    for connected in [false, true] {
        let transport = Recorder::default();
        let events = EventPublisher::new(&transport, "api");
        if connected {
            events.publish(&registered("a")).await.unwrap();
        }
        let clone = events.clone();
        events.close(Duration::from_secs(60)).await.unwrap();
        assert_eq!(clone.publish(&registered("a")).await.unwrap_err().kind(), ErrorKind::Closed);
    }
}
