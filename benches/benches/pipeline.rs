//! publish -> route -> handler -> ack through memory, next to a bare channel with an ack for each record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidings::handler::{BatchOptions, HandlerExt, RawBatch};
use tidings::memory::{MemoryConfig, MemoryTransport};
use tidings::publisher::{Publisher, PublisherExt};
use tidings::record::{Name, Timestamp};
use tidings::{
    Batch, Delivery, Envelope, Event, Record, Router, Service, ServiceHandle, State, Topic, Transport, codec,
};
use tidings_benches::{IN_FLIGHT, Registered, Window, raw_key, raw_value, registered};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

const PARTITIONS: u32 = 3;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

fn eat(bytes: usize) {
    std::hint::black_box(bytes);
}

/// A channel, and an ack by a channel of its own for each record.
async fn bare(count: u64, make: fn(u64) -> Bytes, take: fn(&Bytes)) {
    let (sender, mut receiver) = mpsc::channel::<(Bytes, oneshot::Sender<()>)>(IN_FLIGHT as usize);
    let consumer = tokio::spawn(async move {
        while let Some((value, ack)) = receiver.recv().await {
            take(&value);
            let _ = ack.send(());
        }
    });
    let publisher = tokio::spawn(async move {
        let mut unanswered = std::collections::VecDeque::with_capacity(IN_FLIGHT as usize);
        for n in 0..count {
            let (ack, answer) = oneshot::channel();
            sender.send((make(n), ack)).await.expect("the consumer runs");
            unanswered.push_back(answer);
            if unanswered.len() as u64 >= IN_FLIGHT {
                unanswered.pop_front().expect("not empty").await.expect("an ack");
            }
        }
        for answer in unanswered {
            answer.await.expect("an ack");
        }
    });
    publisher.await.expect("no panic");
    consumer.await.expect("no panic");
}

struct Pipeline {
    _service: ServiceHandle,
    publisher: Arc<dyn Publisher>,
    window: Window,
}

async fn pipeline(router: Router<Window>) -> Pipeline {
    let config = MemoryConfig::new().with_retention_records(IN_FLIGHT);
    let transport = MemoryTransport::open(config).expect("a good config");
    let topics = [Topic::new("bench").with_partitions(PARTITIONS), Topic::new("bench-dlq")];
    transport.admin().await.expect("an admin").create_topics(&topics).await.expect("topics");
    let window = Window::default();
    // One worker: the bare channel has one reader, too.
    let service = Service::new("bench", router.with_state(window.clone())).with_workers(1);
    let service = service.start(&transport).await.expect("it starts");
    let publisher = transport.publisher().await.expect("a publisher");
    Pipeline { _service: service, publisher, window }
}

/// Publishes `count` records, `group` at a time, and waits for the ack of the last.
async fn publish(pipeline: &Pipeline, before: u64, count: u64, group: u64, make: fn(u64) -> Record) -> Duration {
    let (publisher, window) = (pipeline.publisher.clone(), pipeline.window.clone());
    let started = Instant::now();
    let task = tokio::spawn(async move {
        let mut published = before;
        while published < before + count {
            window.room(published + group, IN_FLIGHT).await;
            if group == 1 {
                publisher.publish_one(make(published)).await.expect("memory takes it");
            } else {
                let records = (0..group).map(|n| make(published + n)).collect();
                for answer in publisher.publish(records).await {
                    answer.expect("memory takes it");
                }
            }
            published += group;
        }
        window.room(published, 0).await;
    });
    task.await.expect("no panic");
    started.elapsed()
}

fn raw_record(n: u64) -> Record {
    Record::new(Name::from_static("bench"), raw_value()).with_key(raw_key(n))
}

fn json_record(n: u64) -> Record {
    let (event, source) = (registered(n), Name::from_static("bench"));
    let envelope =
        codec::EnvelopeRef::new(Uuid::from_u128(u128::from(n) + 1), Timestamp::from_millis(1), &source, &event);
    codec::encode(envelope, "").expect("it encodes")
}

fn json_value(n: u64) -> Bytes {
    json_record(n).value.expect("it has a value")
}

fn json_take(value: &Bytes) {
    let record = tidings::record::StoredRecord::new(0, Timestamp::from_millis(1)).with_value(value.clone());
    let event: Envelope<Registered> = codec::decode(&record).expect("it decodes");
    eat(event.payload.email.len());
}

async fn raw(delivery: Delivery, State(window): State<Window>) {
    eat(delivery.record().value.as_ref().map_or(0, Bytes::len));
    window.acknowledge(1);
}

async fn raw_waits(delivery: Delivery, State(window): State<Window>) {
    tokio::task::yield_now().await;
    raw(delivery, State(window)).await;
}

async fn raw_batch(batch: RawBatch, State(window): State<Window>) {
    eat(batch.0.records().map(|record| record.value.as_ref().map_or(0, Bytes::len)).sum());
    window.acknowledge(batch.0.len() as u64);
}

async fn json(event: Envelope<Registered>, State(window): State<Window>) {
    eat(event.payload.email.len());
    window.acknowledge(1);
}

async fn json_batch(batch: Batch<Registered>, State(window): State<Window>) {
    eat(batch.iter().map(|event| event.payload.email.len()).sum());
    window.acknowledge(batch.len() as u64);
}

fn through(c: &mut Criterion, group: &str, (name, size): (&str, u64), router: Router<Window>, make: fn(u64) -> Record) {
    let runtime = runtime();
    let pipeline = runtime.block_on(pipeline(router));
    let mut group = c.benchmark_group(group);
    group.throughput(Throughput::Elements(1));
    let mut published = 0;
    group.bench_function(name, |b| {
        b.iter_custom(|iterations| {
            let count = iterations.div_ceil(size) * size;
            let time = runtime.block_on(publish(&pipeline, published, count, size, make));
            published += count;
            time.mul_f64(iterations as f64 / count as f64)
        });
    });
    group.finish();
}

fn baseline(c: &mut Criterion, group: &str, make: fn(u64) -> Bytes, take: fn(&Bytes)) {
    let runtime = runtime();
    let mut group = c.benchmark_group(group);
    group.throughput(Throughput::Elements(1));
    group.bench_function("baseline", |b| {
        b.iter_custom(|iterations| {
            let started = Instant::now();
            runtime.block_on(bare(iterations, make, take));
            started.elapsed()
        });
    });
    group.finish();
}

fn on_raw<H, Args>(handler: H) -> Router<Window>
where
    H: tidings::handler::Handler<Args, Future: Future<Output: tidings::handler::IntoOutcome> + Send + 'static>,
    Args: tidings::handler::Arguments<Window, Input: tidings::handler::RawInput> + Send + 'static,
{
    Router::new().on_topic(Registered::TOPIC, handler)
}

fn raw_pipeline(c: &mut Criterion) {
    let at_once = BatchOptions::new(128).with_wait(Duration::ZERO);
    baseline(c, "pipeline/raw", |_| raw_value(), |value| eat(value.len()));
    through(c, "pipeline/raw", ("ready, one at a time", 1), on_raw(raw), raw_record);
    through(c, "pipeline/raw", ("ready, 128 at a time", 128), on_raw(raw), raw_record);
    through(c, "pipeline/raw", ("waits once, one at a time", 1), on_raw(raw_waits), raw_record);
    through(c, "pipeline/raw", ("waits once, 128 at a time", 128), on_raw(raw_waits), raw_record);
    through(c, "pipeline/raw", ("batch, 128 at a time", 128), on_raw(raw_batch.batch(at_once)), raw_record);
}

fn json_pipeline(c: &mut Criterion) {
    let at_once = BatchOptions::new(128).with_wait(Duration::ZERO);
    baseline(c, "pipeline/json", json_value, json_take);
    through(c, "pipeline/json", ("typed, one at a time", 1), Router::new().on(json), json_record);
    through(c, "pipeline/json", ("typed, 128 at a time", 128), Router::new().on(json), json_record);
    through(
        c,
        "pipeline/json",
        ("batch, 128 at a time", 128),
        Router::new().on(json_batch.batch(at_once)),
        json_record,
    );
}

/// Draining a backlog: what a service does after it was down, by the size of its batches.
fn backlog(c: &mut Criterion) {
    let mut group = c.benchmark_group("backlog");
    group.throughput(Throughput::Elements(BACKLOG));
    group.sample_size(10);
    let runtime = runtime();
    group.bench_function("baseline", |b| b.iter_custom(|times| runtime.block_on(drain(times, || on_raw(raw)))));
    for size in [1_usize, 10, 100, 1_000] {
        let batch = BatchOptions::new(size).with_wait(Duration::ZERO);
        group.bench_with_input(BenchmarkId::new("batch", size), &size, |b, _| {
            b.iter_custom(|times| runtime.block_on(drain(times, || on_raw(raw_batch.batch(batch)))));
        });
    }
    group.finish();
}

const BACKLOG: u64 = 200_000;

async fn drain(times: u64, router: impl Fn() -> Router<Window>) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..times {
        let transport = MemoryTransport::new();
        let topics = [Topic::new("bench").with_partitions(PARTITIONS), Topic::new("bench-dlq")];
        transport.admin().await.expect("an admin").create_topics(&topics).await.expect("topics");
        let publisher = transport.publisher().await.expect("a publisher");
        for from in (0..BACKLOG).step_by(1_000) {
            publisher.publish((from..from + 1_000).map(raw_record).collect()).await;
        }
        let window = Window::default();
        let service = Service::new("bench", router().with_state(window.clone()));
        let started = Instant::now();
        let _service = service.start(&transport).await.expect("it starts");
        window.room(BACKLOG, 0).await;
        total += started.elapsed();
    }
    total
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(4)).without_plots();
    targets = raw_pipeline, json_pipeline, backlog
}
criterion_main!(benches);
