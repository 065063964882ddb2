//! Spans of publishers: their parents, the contexts that they write and keep, and their errors.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::{FutureExt, SpanId, SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use tidings_core::{Delivery, ErrorKind, PublisherExt, Record, TraceParent, TransactorOptions, Transport};
use tidings_service::{EventPublisher, Router};

use crate::world::{Answered, Asked, TRACE, World, attribute, context_of, ids, links};

async fn ask(world: &World, id: u32) {
    EventPublisher::new(&world.transport, "api").publish(&Asked { id }).await.expect("it is published");
}

/// A span of the program itself, active while `operation` runs.
async fn within<T>(world: &World, operation: impl Future<Output = T>) -> T {
    let context = Context::new().with_span(world.provider.tracer("program").start("request"));
    let result = operation.with_context(context.clone()).await;
    context.span().end();
    result
}

#[tokio::test(start_paused = true)]
async fn without_create_spans_a_batch_shares_the_context_of_its_publisher() {
    let world = World::with("memory", |tracing| tracing.with_create_spans(false));
    let service = world.start("s", Router::new().on(async |event: Asked| Answered { id: event.id })).await;
    let answers = EventPublisher::new(&world.transport, "api").publish_all(&[1, 2].map(|id| Asked { id })).await;
    assert!(answers.iter().all(Result::is_ok));
    service.caught_up().await.expect("it runs");
    let publish = world.only("publish asked");
    assert_eq!((publish.span_kind.clone(), links(&publish).len()), (SpanKind::Producer, 0));
    for record in world.records("asked").await {
        assert_eq!(context_of(&record.headers), ids(&publish));
    }
    let processes: [_; 2] = world.named("process asked");
    let answered = world.records("answered").await;
    let contexts: Vec<_> = answered.iter().map(|record| context_of(&record.headers)).collect();
    assert!(
        processes.iter().all(|process| contexts.contains(&ids(process))),
        "events that handlers return continue these"
    );
    let _: [_; 0] = world.named("create answered");
}

#[tokio::test(start_paused = true)]
async fn a_transactor_is_traced_as_a_publisher() {
    let world = World::with("memory", |tracing| tracing.with_create_spans(false));
    let transactor = world.transport.transactor(TransactorOptions::new("t")).await.expect("a transactor");
    let record = || Record::new("asked", "x");
    assert!(transactor.publish(vec![record(), record()]).await.iter().all(Result::is_ok));
    transactor.commit(None).await.expect("it is committed");
    let publish = world.only("publish asked");
    assert_eq!(attribute(&publish, "messaging.batch.message_count"), "2");
    for record in world.records("asked").await {
        assert_eq!(context_of(&record.headers), ids(&publish));
    }
}

#[tokio::test(start_paused = true)]
async fn the_active_span_is_the_parent_of_what_is_published() {
    let world = World::new();
    within(&world, ask(&world, 7)).await;
    let events = EventPublisher::new(&world.transport, "api");
    within(&world, async { events.publish_all(&[8, 9].map(|id| Asked { id })).await }).await;
    let spans = world.all();
    let requests: Vec<_> = spans.iter().filter(|span| span.name == "request").collect();
    let publishes: Vec<_> = spans.iter().filter(|span| span.name == "publish asked").collect();
    let creates: Vec<_> = spans.iter().filter(|span| span.name == "create asked").collect();
    assert_eq!((ids(publishes[0]).0, publishes[0].parent_span_id), ids(requests[0]));
    for span in creates.iter().chain(&publishes[1..]) {
        assert_eq!((ids(span).0, span.parent_span_id), ids(requests[1]), "{}", span.name);
    }
    assert_eq!(creates.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_context_that_a_record_has_is_kept() {
    let world = World::new();
    let record = || Record::new("asked", "1").with_header("traceparent", TRACE);
    let publisher = world.transport.publisher().await.expect("a publisher");
    publisher.publish_one(record()).await.expect("it is published");
    assert!(publisher.publish(vec![record(), record(), Record::new("other", "2")]).await.iter().all(Result::is_ok));
    for record in world.records("asked").await {
        assert_eq!(record.headers.get_str("traceparent"), Some(TRACE));
        assert_eq!(record.headers.len(), 1);
    }
    let trace: TraceParent = TRACE.parse().expect("a trace");
    let given = (trace.trace_id(), SpanId::from(trace.span_id()));
    let one = world.only("publish asked");
    assert_eq!((one.span_kind.clone(), links(&one)), (SpanKind::Client, vec![given]));
    assert_eq!((ids(&one).0, one.parent_span_id), given, "no span is active");
    let many = world.only("publish");
    assert_eq!(attribute(&many, "messaging.destination.name"), "", "the records have several topics");
    assert_eq!(many.span_kind, SpanKind::Client);
    assert_eq!(links(&many), [given, given, ids(&world.only("create other"))]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_publish_names_the_kind_of_its_error() {
    let world = World::new();
    let publisher = world.transport.publisher().await.expect("a publisher");
    world.memory.faults().fail_publishes(1, ErrorKind::Unavailable);
    assert!(publisher.publish_one(Record::new("asked", "1")).await.is_err());
    let failed = world.only("publish asked");
    assert_eq!((attribute(&failed, "error.type").as_str(), failed.status.clone()), ("unavailable", Status::error("")));
    assert_eq!(attribute(&failed, "messaging.destination.partition.id"), "");
}

#[tokio::test(start_paused = true)]
async fn keys_are_shown_only_where_it_was_asked_for() {
    for (keys, wanted) in [(false, ""), (true, "person-7")] {
        let world = World::with("kafka", |tracing| tracing.with_message_keys(keys).with_server("broker", 9092));
        let service = world.start("s", Router::new().on_topic("asked", async |_: Delivery| {})).await;
        let publisher = world.transport.publisher().await.expect("a publisher");
        publisher.publish_one(Record::tombstone("asked").with_key("person-7")).await.expect("it is published");
        service.caught_up().await.expect("it runs");
        for span in [world.only("publish asked"), world.only("process asked")] {
            assert_eq!(attribute(&span, "messaging.kafka.message.key"), wanted);
            assert_eq!(attribute(&span, "messaging.kafka.message.tombstone"), "true");
            assert_eq!(attribute(&span, "messaging.kafka.offset"), "0");
            assert_eq!(attribute(&span, "server.address"), "broker");
            assert_eq!(attribute(&span, "server.port"), "9092");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_publish_ends_as_cancelled() {
    let world = World::new();
    world.memory.faults().delay_publishes(Duration::from_secs(60));
    let publisher = world.transport.publisher().await.expect("a publisher");
    let publish = tokio::time::timeout(Duration::from_millis(1), publisher.publish(vec![Record::new("asked", "1")]));
    assert!(publish.await.is_err());
    assert_eq!(attribute(&world.only("publish asked"), "error.type"), "cancelled");
}
