//! Order by key at work: one partition, handlers of 1 ms, 1,000 keys, 100 at once, compared with the ideal.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidings::memory::MemoryTransport;
use tidings::{Delivery, Record, Router, Service, State, Topic, Transport};
use tidings_benches::Window;

const RECORDS: u64 = 20_000;
const KEYS: u64 = 1_000;
const WIDE: u64 = 100;
const WORK: Duration = Duration::from_millis(1);

/// 100 tasks, each of which takes one piece of work after the other.
async fn ideal() -> Duration {
    let started = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..WIDE)
        .map(|_| {
            let next = next.clone();
            tokio::spawn(async move {
                while next.fetch_add(1, Ordering::Relaxed) < RECORDS {
                    tokio::time::sleep(WORK).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    started.elapsed()
}

/// The last sequence number seen of each key: order is checked while it is measured.
#[derive(Clone)]
struct Seen(Arc<Vec<Mutex<u64>>>, Window);

async fn work(delivery: Delivery, State(Seen(seen, window)): State<Seen>) {
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).expect("eight bytes");
    let key = number(delivery.record().key.as_deref().expect("a key"));
    let sequence = number(delivery.record().value.as_deref().expect("a value"));
    tokio::time::sleep(WORK).await;
    let last = std::mem::replace(&mut *seen[key as usize].lock().expect("no panic"), sequence + 1);
    assert!(last <= sequence, "key {key}: {sequence} after {last}");
    window.acknowledge(1);
}

async fn by_key() -> Duration {
    let transport = MemoryTransport::new();
    let topics = [Topic::new("keys"), Topic::new("keys-dlq")];
    transport.admin().await.expect("an admin").create_topics(&topics).await.expect("topics");
    let publisher = transport.publisher().await.expect("a publisher");
    let record = |n: u64| {
        let key = (n % KEYS).to_le_bytes().to_vec();
        Record::new("keys", n.to_le_bytes().to_vec()).with_key(key)
    };
    publisher.publish((0..RECORDS).map(record).collect()).await;
    let window = Window::default();
    let seen = Seen(Arc::new((0..KEYS).map(|_| Mutex::new(0)).collect()), window.clone());
    let service = Service::new("keys", Router::new().on_topic("keys", work).with_state(seen));
    let service = service.with_concurrency(WIDE as usize).with_max_span(u64::MAX);
    let started = Instant::now();
    let running = service.start(&transport).await.expect("it starts");
    window.room(RECORDS, 0).await;
    let time = started.elapsed();
    assert_eq!(running.status().await.totals.dead_lettered, 0, "an order violation is a panic");
    time
}

fn keys(c: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut group = c.benchmark_group("keys, 100 wide");
    group.throughput(Throughput::Elements(RECORDS));
    group.bench_function("baseline", |b| {
        b.iter_custom(|times| (0..times).map(|_| runtime.block_on(ideal())).sum());
    });
    group.bench_function("tidings", |b| {
        b.iter_custom(|times| (0..times).map(|_| runtime.block_on(by_key())).sum());
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).without_plots();
    targets = keys
}
criterion_main!(benches);
