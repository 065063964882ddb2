//! Spans of handlers: their parents, links and errors, and the events that continue them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use opentelemetry::trace::noop::NoopTracerProvider;
use opentelemetry::trace::{SpanId, SpanKind, Status};
use tidings_core::{
    Batch, BoxError, Delivery, Error, ErrorKind, PublishOptions, PublisherExt, Record, TraceParent, Transport, reject,
    unavailable,
};
use tidings_otel::{CONVENTIONS_VERSION, Tracing};
use tidings_service::{BatchOptions, EventPublisher, HandlerExt, Retry, Router, Service, State};

use crate::world::{Answered, Asked, Named, TRACE, World, attribute, context_of, ids, links, rows};

async fn ask(world: &World, id: u32) {
    EventPublisher::new(&world.transport, "api").publish(&Asked { id }).await.expect("it is published");
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_a_child_of_the_publisher_and_has_a_link_to_it() {
    let world = World::new();
    let service = world.start("s", Router::new().on(async |_: Asked| {})).await;
    ask(&world, 7).await;
    service.caught_up().await.expect("it runs");

    let publish = world.only("publish asked");
    assert_eq!(publish.span_kind, SpanKind::Producer);
    assert_eq!(publish.parent_span_id, SpanId::INVALID);
    assert_eq!(publish.instrumentation_scope.name(), "tidings");
    let schema = publish.instrumentation_scope.schema_url().expect("a schema");
    assert!(schema.ends_with(CONVENTIONS_VERSION), "{schema}");
    let record = world.records("asked").await.remove(0);
    assert_eq!(context_of(&record.headers), ids(&publish), "the publisher's span is the creation context");

    let process = world.only("process asked");
    assert_eq!(process.span_kind, SpanKind::Consumer);
    assert_eq!(process.parent_span_id, publish.span_context.span_id());
    assert_eq!(links(&process), [ids(&publish)]);
    assert_eq!(ids(&process).0, ids(&publish).0, "one trace");
    assert_eq!(process.status, Status::Unset);
    let wanted = [
        ("messaging.system", "memory"),
        ("messaging.operation.name", "process"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", "asked"),
        ("messaging.destination.partition.id", "0"),
        ("messaging.consumer.group.name", "s-group"),
        ("messaging.message.id", &tidings_core::codec::peek(&record).expect("an event").id.to_string()),
        ("tidings.handler", "asked"),
        ("tidings.attempt", "1"),
        ("tidings.offset", "0"),
    ];
    for (name, value) in wanted {
        assert_eq!(attribute(&process, name), value, "{name}");
    }
    for (name, value) in [("messaging.destination.partition.id", "0"), ("tidings.offset", "0")] {
        assert_eq!(attribute(&publish, name), value, "{name}: known from the answer");
    }
}

#[tokio::test(start_paused = true)]
async fn with_links_only_each_delivery_starts_a_trace() {
    let world = World::with("memory", |tracing| tracing.with_links_only(true));
    let service = world.start("s", Router::new().on(async |event: Asked| Answered { id: event.id })).await;
    ask(&world, 7).await;
    service.caught_up().await.expect("it runs");
    let (publish, process) = (world.only("publish asked"), world.only("process asked"));
    assert_eq!(process.parent_span_id, SpanId::INVALID);
    assert_ne!(ids(&process).0, ids(&publish).0);
    assert_eq!(links(&process), [ids(&publish)]);
    let create = world.only("create answered");
    assert_eq!(
        (ids(&create).0, create.parent_span_id),
        ids(&process),
        "the returned event continues the handler's trace"
    );
}

#[tokio::test(start_paused = true)]
async fn a_batch_has_links_to_a_create_span_per_event() {
    let world = World::new();
    let handler = (async |_: Batch<Asked>| {}).batch(BatchOptions::new(3).with_wait(Duration::from_secs(1)));
    let service = world.start("s", Router::new().on(handler)).await;
    let events = EventPublisher::new(&world.transport, "api");
    let answers = events.publish_all(&[1, 2, 3].map(|id| Asked { id })).await;
    assert!(answers.iter().all(Result::is_ok));
    service.caught_up().await.expect("it runs");

    let publish = world.only("publish asked");
    let creates: [_; 3] = world.named("create asked");
    assert_eq!(publish.span_kind, SpanKind::Client);
    assert_eq!(attribute(&publish, "messaging.batch.message_count"), "3");
    assert_eq!(links(&publish), creates.each_ref().map(ids));
    for create in &creates {
        assert_eq!(create.span_kind, SpanKind::Producer);
        assert_eq!((ids(create).0, create.parent_span_id), ids(&publish), "without an active span, still one trace");
        assert!(!attribute(create, "messaging.message.id").is_empty());
    }
    let process = world.only("process asked");
    assert_eq!(process.parent_span_id, SpanId::INVALID, "a span has one parent, and a batch several");
    assert_eq!(links(&process), creates.each_ref().map(ids));
    assert_eq!(attribute(&process, "messaging.batch.message_count"), "3");
    assert_eq!(attribute(&process, "messaging.message.id"), "");
}

#[tokio::test(start_paused = true)]
async fn a_flow_over_two_services_is_one_trace() {
    let world = World::new();
    let first = world.start("first", Router::new().on(async |event: Asked| Answered { id: event.id })).await;
    let second = world.start("second", Router::new().on(async |_: Answered| {})).await;
    let asked = PublishOptions::default().with_traceparent(TRACE.parse().expect("a trace"));
    let asked = asked.with_header("tracestate", "vendor=1");
    EventPublisher::new(&world.transport, "api").publish_with(&Asked { id: 7 }, asked).await.expect("it is published");
    first.caught_up().await.expect("it runs");
    second.caught_up().await.expect("it runs");

    let (process, create) = (world.only("process asked"), world.only("create answered"));
    assert_eq!(create.span_kind, SpanKind::Producer);
    assert_eq!((ids(&create).0, create.parent_span_id), ids(&process));
    let answered = world.records("answered").await.remove(0);
    assert_eq!(context_of(&answered.headers), ids(&create));
    assert_eq!(answered.headers.get_str("tracestate"), Some("vendor=1"));

    let publish = world.only("publish answered");
    assert_eq!((publish.span_kind.clone(), links(&publish)), (SpanKind::Client, vec![ids(&create)]));
    let handled = world.only("process answered");
    assert_eq!((ids(&handled).0, handled.parent_span_id), ids(&create));
    let trace: TraceParent = TRACE.parse().expect("a trace");
    assert!(world.spans().iter().all(|span| ids(span).0 == trace.trace_id()), "one trace");
}

#[tokio::test(start_paused = true)]
async fn an_event_of_a_batch_stays_in_the_trace_of_its_cause() {
    let world = World::new();
    let handler = async |events: Batch<Asked>| {
        events.iter().map(|event| event.causes(Answered { id: event.payload.id })).collect::<Vec<_>>()
    };
    let handler = handler.batch(BatchOptions::new(2).with_wait(Duration::from_secs(1)));
    let service = world.start("s", Router::new().on(handler)).await;
    for id in [1, 2] {
        ask(&world, id).await;
    }
    service.caught_up().await.expect("it runs");
    let (asked, process): ([_; 2], _) = (world.named("publish asked"), world.only("process asked"));
    let creates: [_; 2] = world.named("create answered");
    for (create, cause) in creates.iter().zip(&asked) {
        assert_eq!((ids(create).0, create.parent_span_id), ids(cause));
        assert_eq!(links(create), [ids(&process)]);
    }
    assert_ne!(ids(&asked[0]).0, ids(&asked[1]).0);
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_publishes_itself_continues_its_span() {
    let world = World::with("memory", |tracing| tracing.with_links_only(true));
    let events = EventPublisher::new(&world.transport, "s");
    let handler = move |event: Asked, delivery: Delivery| {
        let events = events.clone();
        async move {
            let publisher = delivery.publisher().expect("a publisher");
            publisher.publish(&Answered { id: event.id }).await?;
            events.publish(&Answered { id: event.id }).await?;
            let options = PublishOptions::following(&delivery);
            let current = tidings_otel::current_trace().expect("an active span");
            assert_eq!(options.traceparent, Some(current.parent), "what an outbox stores");
            Ok::<_, BoxError>(())
        }
    };
    let service = world.start("s", Router::new().on(handler)).await;
    ask(&world, 7).await;
    service.caught_up().await.expect("it runs");
    assert_eq!(service.status().await.totals.handled, 1);
    let process = world.only("process asked");
    let publishes: [_; 2] = world.named("publish answered");
    let records = world.records("answered").await;
    for (publish, record) in publishes.iter().zip(&records) {
        assert_eq!((publish.span_kind.clone(), ids(publish).0), (SpanKind::Producer, ids(&process).0));
        assert_eq!(publish.parent_span_id, process.span_context.span_id());
        assert_eq!(context_of(&record.headers), ids(publish));
    }
}

#[tokio::test(start_paused = true)]
async fn errors_have_a_type_and_no_text() {
    let world = World::new();
    let handler = async |event: Asked| -> Result<(), BoxError> {
        match event.id {
            1 => Err("secret".into()),
            2 => Err(reject("secret").into()),
            3 => Err(Error::new(ErrorKind::TooLarge, "secret").into()),
            4 => panic!("secret"),
            _ => std::future::pending().await,
        }
    };
    let service = Service::new("s", Router::new().on(handler)).with_handler_timeout(Duration::from_secs(1));
    let service = service.layer(world.tracing.layer(&world.transport)).with_retry(Retry::never()).with_breaker(None);
    let service = service.start(&world.transport).await.expect("it starts");
    for id in 1..=5 {
        ask(&world, id).await;
        service.caught_up().await.expect("it runs");
    }
    let publisher = world.transport.publisher().await.expect("a publisher");
    publisher.publish_one(Record::new("asked", "secret").with_header("eventType", "asked")).await.expect("published");
    service.caught_up().await.expect("it runs");
    let processes: [_; 6] = world.named("process asked");
    let types = processes.each_ref().map(|span| attribute(span, "error.type"));
    assert_eq!(types, ["failed", "rejected", "too-large", "panicked", "cancelled", "undecodable"]);
    assert!(processes.iter().all(|span| span.status == Status::error("")));
    let seen = format!("{:?}", world.spans());
    assert!(!seen.contains("secret"), "{seen}");
}

#[tokio::test(start_paused = true)]
async fn each_attempt_has_a_span() {
    let world = World::new();
    let handler = async |_: Asked, State(runs): State<Arc<AtomicU32>>| match runs.fetch_add(1, Ordering::Relaxed) {
        0 => Err(BoxError::from("no")),
        1 => Err(unavailable("down").into()),
        _ => Ok(()),
    };
    let router = Router::new().on(handler).with_state(Arc::new(AtomicU32::new(0)));
    let service = Service::new("s", router).layer(world.tracing.layer(&world.transport));
    let service = service.start(&world.transport).await.expect("it starts");
    ask(&world, 7).await;
    service.caught_up().await.expect("it runs");
    let attempts: [_; 3] = world.named("process asked");
    let attributes = |name| attempts.each_ref().map(|span| attribute(span, name));
    assert_eq!(attributes("tidings.attempt"), ["1", "2", "2"], "an outage is no attempt");
    assert_eq!(attributes("error.type"), ["failed", "unavailable", ""]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_waits_for_its_handler_has_no_span() {
    let world = World::new();
    let (go, gate) = tokio::sync::watch::channel(0);
    let handler = move |event: Asked| {
        let mut gate = gate.clone();
        async move {
            let _ = gate.wait_for(|open| *open >= event.id).await;
        }
    };
    let service = world.start("s", Router::new().on(handler.with_concurrency(1))).await;
    for id in [1, 2] {
        ask(&world, id).await;
    }
    for id in [1, 2] {
        go.send_replace(id);
        tokio::task::yield_now().await;
    }
    service.caught_up().await.expect("it runs");
    let [first, second] = world.named("process asked");
    assert!(second.start_time >= first.end_time, "it did not wait in a span");
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_record_but_its_ids_is_in_a_span() {
    let world = World::with("kafka", |tracing| tracing);
    let router = Router::new().on_topic("asked", async |delivery: Delivery| {
        let text = String::from_utf8_lossy(delivery.record().value.as_deref().unwrap_or_default()).into_owned();
        Err::<(), BoxError>(text.into())
    });
    let service = world.start("s", router).await;
    let publisher = world.transport.publisher().await.expect("a publisher");
    let canary = |n: u32| format!("canary-{n}");
    let record = |n: u32| {
        let record = Record::new("asked", canary(n)).with_key(canary(n + 1)).with_header(canary(n + 2), canary(n + 3));
        record.with_header("eventType", canary(n + 4))
    };
    assert!(publisher.publish((0..4).map(|n| record(5 * n)).collect()).await.iter().all(Result::is_ok));
    publisher.publish_one(record(20)).await.expect("it is published");
    service.caught_up().await.expect("it runs");
    let seen = format!("{:?}", world.spans());
    assert!(world.spans().len() >= 11 && !seen.contains("canary"), "{seen}");
    assert!(!format!("{:?} {:?}", world.tracing, world.transport).contains("canary"));
}

#[tokio::test(start_paused = true)]
async fn without_a_tracer_the_records_trace_is_passed_on() {
    let mut world = World::new();
    world.tracing = Tracing::new(&NoopTracerProvider::new());
    world.transport = world.tracing.transport(Named(world.memory.clone(), "memory"));
    let service = world.start("s", Router::new().on(async |event: Asked| Answered { id: event.id })).await;
    let options = PublishOptions::default().with_traceparent(TRACE.parse().expect("a trace"));
    let events = EventPublisher::new(&world.transport, "api");
    events.publish_with(&Asked { id: 7 }, options).await.expect("it is published");
    service.caught_up().await.expect("it runs");
    assert!(world.all().is_empty());
    let answered = world.records("answered").await.remove(0);
    assert!(answered.headers.get_str("traceparent").is_some_and(|trace| trace.starts_with(&TRACE[..35])));
}

#[tokio::test(start_paused = true)]
async fn an_unsampled_trace_stays_unsampled() {
    let exporter = opentelemetry_sdk::trace::InMemorySpanExporter::default();
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder()
        .with_sampler(opentelemetry_sdk::trace::Sampler::AlwaysOff)
        .with_simple_exporter(exporter.clone())
        .build();
    let world = World::of(provider, exporter, "memory", |tracing| tracing);
    let service = world.start("s", Router::new().on(async |event: Asked| Answered { id: event.id })).await;
    ask(&world, 7).await;
    service.caught_up().await.expect("it runs");
    assert!(world.spans().is_empty());
    let (asked, answered) = (world.records("asked").await.remove(0), world.records("answered").await.remove(0));
    assert_eq!(context_of(&asked.headers).0, context_of(&answered.headers).0, "one trace");
    for record in [asked, answered] {
        let trace: TraceParent = record.headers.get_str("traceparent").expect("a trace").parse().expect("valid");
        assert_eq!(trace.flags(), 0, "a new trace of its own would be sampled");
    }
}

#[test]
fn the_table_has_no_row_twice() {
    let mut seen = std::collections::BTreeSet::new();
    for row in rows() {
        assert_eq!(row.len(), 5, "{row:?}");
        assert!(seen.insert((row[0], row[2])), "{row:?}");
    }
}
