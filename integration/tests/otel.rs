//! A flow over two services is one trace: in memory and on Kafka, which is reported ignored where there is none.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use serde::{Deserialize, Serialize};
use tidings::kafka::{KafkaConfig, KafkaTransport};
use tidings::memory::MemoryTransport;
use tidings::otel::Tracing;
use tidings::record::{Name, Timestamp};
use tidings::{
    BoxError, Event, EventPublisher, PublishOptions, Router, Service, ServiceHandle, Topic, TopicPolicy, Transport,
};
use tidings_testbed::{Kafka, Suite};
use tokio::time::timeout;

type TestResult<T = ()> = Result<T, BoxError>;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Serialize, Deserialize, Event)]
#[event(topic = "asked", type = "asked", key = "id")]
struct Asked {
    id: u32,
}

#[derive(Serialize, Deserialize, Event)]
#[event(topic = "answered", type = "answered", key = "id")]
struct Answered {
    id: u32,
}

fn main() -> ExitCode {
    Suite::new()
        .with_timeout(LIMIT * 2)
        .with_case("memory_a_flow_is_one_trace", || async { flow(Arc::new(MemoryTransport::new())).await })
        .with_case("kafka_a_flow_is_one_trace", || async { flow(kafka().await?).await })
        .run()
}

async fn kafka() -> TestResult<Arc<dyn Transport>> {
    let kafka = Kafka::shared().await?;
    Ok(Arc::new(KafkaTransport::connect(KafkaConfig::new(kafka.bootstrap().split(','))).await?))
}

fn service(what: &str, router: Router, prefix: &Name) -> Service {
    let topics = ["asked", "answered"].map(Topic::new).into();
    let service = Service::new(format!("{prefix}{what}"), router).with_topic_prefix(prefix.clone());
    service.with_topics(TopicPolicy::Create(topics))
}

async fn flow(transport: Arc<dyn Transport>) -> TestResult {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let tracing = Tracing::new(&provider);
    let transport = tracing.transport(transport);
    let prefix = Name::from(format!("otel-{}-{}-", std::process::id(), Timestamp::now().millis()));
    let first = service("first", Router::new().on(async |event: Asked| Answered { id: event.id }), &prefix);
    let first = first.layer(tracing.layer(&transport)).start(&transport).await?;
    let second = service("second", Router::new().on(async |_: Answered| {}), &prefix);
    let second = second.layer(tracing.layer(&transport)).start(&transport).await?;

    let events = EventPublisher::new(&transport, "api").with_topic_prefix(prefix.clone());
    let options =
        PublishOptions::default().with_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse()?);
    events.publish_with(&Asked { id: 7 }, options.with_header("tracestate", "vendor=1")).await?;
    let settled: [&ServiceHandle; 2] = [&first, &second];
    for service in settled {
        timeout(LIMIT, service.caught_up()).await??;
    }
    let spans = exporter.get_finished_spans()?;
    let only = |name: &str, topic: &str| -> TestResult<SpanData> {
        let name = format!("{name} {prefix}{topic}");
        let mut found = spans.iter().filter(|span| span.name == name);
        Ok(found.next().filter(|_| found.next().is_none()).ok_or(format!("not one span {name}: {spans:?}"))?.clone())
    };
    // Each is the parent of the next.
    let path = [only("process", "asked")?, only("create", "answered")?, only("process", "answered")?];
    for pair in path.windows(2) {
        assert_eq!(pair[1].parent_span_id, pair[0].span_context.span_id(), "{} of {}", pair[1].name, pair[0].name);
    }
    for span in &spans {
        assert_eq!(span.span_context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c", "{}", span.name);
    }
    assert!(path.iter().all(|span| span.span_context.trace_state().header() == "vendor=1"));
    for service in [first, second] {
        service.shutdown(LIMIT).await?;
    }
    Ok(())
}
