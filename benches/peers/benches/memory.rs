//! publish -> route -> handler -> ack in memory, next to RustStream's memory broker (`baseline`), in one run.
//!
//! Its broker has no bounds, groups, offsets or commits: a window in front of both keeps 512 records unanswered.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ruststream::OutgoingMessage;
use ruststream::memory::prelude::{
    AppInfo, Deserialized, HandlerOutcome, HeaderMap, MemoryBroker, Publisher as _, RustStream, Str, subscriber,
};
use ruststream::memory::{MemoryPublisher, PARTITION_KEY_HEADER};
use serde::Deserialize;
use tidings::memory::{MemoryConfig, MemoryTransport};
use tidings::{Delivery, Envelope, Event, Record, Router, Service, State, Topic, Transport, codec};
use tidings::publisher::{Publisher, PublisherExt};
use tidings::record::{Name, Timestamp};
use tidings_benches::figures::{BenchResult, Figures};
use tidings_benches::{IN_FLIGHT, Registered, Window, raw_value, registered};
use uuid::Uuid;

/// Records of a run through handlers that are ready.
const COUNT: u64 = 1_000_000;
/// Records of a run through handlers that wait, their keys, and how many wait at once.
const WAITING: (u64, u64, usize) = (20_000, 1_000, 100);
/// The wait of such a handler.
const WORK: Duration = Duration::from_millis(1);
/// How often each is measured, in turns.
const ROUNDS: usize = 5;

fn main() -> BenchResult {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let (mut raw, mut json, mut lanes) = (Figures::default(), Figures::default(), Figures::default());
        for _ in 0..ROUNDS {
            raw.add("baseline", COUNT, theirs(COUNT, IN_FLIGHT, Theirs::Raw).await?);
            raw.add(
                "tidings, published one at a time",
                COUNT,
                ours(COUNT, (IN_FLIGHT, 1), Router::new().on_topic("bench", our_raw), raw_record).await?,
            );
            raw.add(
                "tidings, published 128 at a time",
                COUNT,
                ours(COUNT, (IN_FLIGHT, 128), Router::new().on_topic("bench", our_raw), raw_record).await?,
            );
            json.add("baseline", COUNT, theirs(COUNT, IN_FLIGHT, Theirs::Json).await?);
            json.add(
                "tidings, published one at a time",
                COUNT,
                ours(COUNT, (IN_FLIGHT, 1), Router::new().on(our_json), json_record).await?,
            );
            json.add(
                "tidings, published 128 at a time",
                COUNT,
                ours(COUNT, (IN_FLIGHT, 128), Router::new().on(our_json), json_record).await?,
            );
            let (count, ..) = WAITING;
            lanes.add("baseline", count, theirs(count, count, Theirs::Lanes).await?);
            lanes.add(
                "tidings",
                count,
                ours(count, (count, 1), Router::new().on_topic("bench", our_lane), lane_record).await?,
            );
        }
        raw.finish("peers/memory raw", "baseline")?;
        json.finish("peers/memory typed JSON", "baseline")?;
        lanes.finish("peers/memory key-ordered lanes, 1,000 keys", "baseline")
    })
}

/// Without a key, as theirs.
fn raw_record(_n: u64) -> Record {
    Record::new(Name::from_static("bench"), raw_value())
}

fn json_record(n: u64) -> Record {
    let (event, source) = (registered(n), Name::from_static("bench"));
    let envelope = tidings::codec::EnvelopeRef::new(Uuid::from_u128(u128::from(n) + 1), Timestamp::from_millis(1), &source, &event);
    codec::encode(envelope, "").expect("it encodes")
}

fn lane_record(n: u64) -> Record {
    Record::new(Name::from_static("bench"), raw_value()).with_key((n % WAITING.1).to_string())
}

async fn our_raw(delivery: Delivery, State(window): State<Window>) {
    std::hint::black_box(delivery.record().value.as_ref().map_or(0, Bytes::len));
    window.acknowledge(1);
}

async fn our_json(event: Envelope<Registered>, State(window): State<Window>) {
    std::hint::black_box(event.payload.email.len());
    window.acknowledge(1);
}

async fn our_lane(delivery: Delivery, State(window): State<Window>) {
    std::hint::black_box(delivery.record().value.as_ref().map_or(0, Bytes::len));
    tokio::time::sleep(WORK).await;
    window.acknowledge(1);
}

async fn ours(
    count: u64,
    window_of: (u64, u64),
    router: Router<Window>,
    make: fn(u64) -> Record,
) -> BenchResult<Duration> {
    // Only unanswered records are kept: theirs keeps nothing.
    let transport = MemoryTransport::open(MemoryConfig::new().with_retention_records(window_of.0))?;
    // One partition, as their broker has: what runs at once, runs within it.
    let topics = [Topic::new(Registered::TOPIC), Topic::new("bench-dlq")];
    transport.admin().await?.create_topics(&topics).await?;
    let window = Window::default();
    // One worker, as theirs has one task that handles.
    let service = Service::new("bench", router.with_state(window.clone())).with_workers(1);
    let service = service.with_concurrency(WAITING.2).start(&transport).await?;
    let publisher = transport.publisher().await?;
    let begun = Instant::now();
    tokio::spawn(publish_ours(count, window_of, window, publisher, make)).await??;
    let took = begun.elapsed();
    service.shutdown(Duration::from_secs(10)).await?;
    Ok(took)
}

async fn publish_ours(
    count: u64,
    (most, at_once): (u64, u64),
    window: Window,
    publisher: Arc<dyn Publisher>,
    make: fn(u64) -> Record,
) -> BenchResult {
    for from in (0..count).step_by(at_once as usize) {
        let until = (from + at_once).min(count);
        window.room(until, most).await;
        if at_once == 1 {
            publisher.publish_one(make(from)).await?;
        } else {
            for answer in publisher.publish((from..until).map(make).collect()).await {
                answer?;
            }
        }
    }
    window.room(count, 0).await;
    Ok(())
}

/// The same envelope as ours, decoded whole.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "decoded, and not looked at")]
struct Whole {
    event_id: Uuid,
    event_type: String,
    timestamp: i64,
    source: String,
    version: String,
    payload: Registered,
}

#[derive(Deserialized)]
struct Frame<'a>(&'a [u8]);

#[subscriber("raw")]
async fn their_raw(frame: &Frame<'_>, ctx: &mut Context<'_, (), Window>) -> HandlerOutcome {
    std::hint::black_box(frame.0.len());
    ctx.state().acknowledge(1);
    HandlerOutcome::ack()
}

#[subscriber("json")]
async fn their_json(whole: &Whole, ctx: &mut Context<'_, (), Window>) -> HandlerOutcome {
    std::hint::black_box(whole.payload.email.len());
    ctx.state().acknowledge(1);
    HandlerOutcome::ack()
}

#[subscriber("lanes", workers(100, by_key))]
async fn their_lane(frame: &Frame<'_>, ctx: &mut Context<'_, (), Window>) -> HandlerOutcome {
    std::hint::black_box(frame.0.len());
    tokio::time::sleep(WORK).await;
    ctx.state().acknowledge(1);
    HandlerOutcome::ack()
}

#[derive(Clone, Copy)]
enum Theirs {
    Raw,
    Json,
    Lanes,
}

async fn theirs(count: u64, most: u64, work: Theirs) -> BenchResult<Duration> {
    let window = Window::default();
    let (broker, state) = (MemoryBroker::new(), window.clone());
    let app = RustStream::new(AppInfo::new("bench", "0.0.0")).on_startup(async move |()| Ok::<_, Infallible>(state));
    let app = app.with_broker(broker.clone(), |scope| match work {
        Theirs::Raw => drop(scope.include(their_raw)),
        Theirs::Json => drop(scope.include(their_json)),
        Theirs::Lanes => drop(scope.include(their_lane)),
    });
    let running = app.start().await?;
    let publisher = broker.publisher();
    let begun = Instant::now();
    tokio::spawn(publish_theirs(count, most, window, publisher, work)).await??;
    let took = begun.elapsed();
    running.shutdown().await?;
    Ok(took)
}

async fn publish_theirs(
    count: u64,
    most: u64,
    window: Window,
    publisher: MemoryPublisher,
    work: Theirs,
) -> BenchResult {
    for n in 0..count {
        window.room(n + 1, most).await;
        let (name, value, key) = match work {
            Theirs::Raw => ("raw", raw_value(), None),
            Theirs::Json => ("json", json_record(n).value.unwrap_or_default(), None),
            Theirs::Lanes => ("lanes", raw_value(), Some((n % WAITING.1).to_string())),
        };
        let mut message = OutgoingMessage::new(name, &value);
        if let Some(key) = key {
            let mut headers = HeaderMap::new();
            headers.insert(Str::from_static(PARTITION_KEY_HEADER), key);
            message = message.with_headers(headers);
        }
        publisher.publish(message, None).await?;
    }
    window.room(count, 0).await;
    Ok(())
}
