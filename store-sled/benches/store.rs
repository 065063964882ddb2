//! Durable claims and completions per second, by callers and by the size of batches, next to appending to a file and
//! syncing it; and what an event takes on the disk and in memory.
//!
//! An element is one claim or one completion that is on the disk. A single caller can't be faster than the baseline: it
//! would not be durable.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidings_core::{EventRef, IdempotencyStore, Lease};
use tidings_sled::{SledConfig, SledStore};
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

const TTL: Duration = Duration::from_secs(3_600);
/// As much as a claim takes.
const RAW_BYTES: [u8; 64] = [7; 64];
/// How many events are written to see what one takes.
const MEASURED: usize = 200_000;
/// How often the rates that are compared take turns.
const TURNS: usize = 25;

fn directory() -> tempfile::TempDir {
    // Next to the program: the system's temporary directory may lie in memory.
    tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap()
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn fresh(count: usize) -> Vec<EventRef> {
    (0..count).map(|_| EventRef::new(Uuid::now_v7(), "bench.event")).collect()
}

async fn open(path: &Path) -> (SledStore, Lease) {
    let store = SledStore::open(path).await.unwrap();
    let lease = store.acquire_lease(&"bench".into(), TTL).await.unwrap();
    (store, lease)
}

async fn claim_and_complete(store: &SledStore, lease: &Lease, events: &[EventRef]) {
    store.claim(lease, events).await.unwrap();
    for answer in store.complete(lease, events).await.unwrap() {
        answer.unwrap();
    }
}

/// `rounds` times, each of `callers` claims and completes `batch` events, without waiting for the others.
fn work(
    runtime: &Runtime,
    store: &SledStore,
    lease: &Lease,
    (callers, batch): (usize, usize),
    rounds: u64,
) -> Duration {
    runtime.block_on(async {
        let begun = Instant::now();
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                let (store, lease) = (store.clone(), lease.clone());
                tokio::spawn(async move {
                    for _ in 0..rounds {
                        claim_and_complete(&store, &lease, &fresh(batch)).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        begun.elapsed()
    })
}

fn append_and_sync(file: &mut File) {
    file.write_all(&RAW_BYTES).unwrap();
    file.sync_data().unwrap();
}

fn group(c: &mut Criterion, name: &str, cases: &[(usize, usize)], parameter: fn(&(usize, usize)) -> usize) {
    let (directory, runtime) = (directory(), runtime());
    let (store, lease) = runtime.block_on(open(&directory.path().join("store")));
    let mut group = c.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(4));
    let mut raw = OpenOptions::new().create(true).append(true).open(directory.path().join("raw")).unwrap();
    group.throughput(Throughput::Elements(1));
    group.bench_function("baseline", |b| b.iter(|| append_and_sync(&mut raw)));
    for case in cases {
        group.throughput(Throughput::Elements(2 * (case.0 * case.1) as u64));
        group.bench_function(BenchmarkId::new("claim_and_complete", parameter(case)), |b| {
            b.iter_custom(|rounds| work(&runtime, &store, &lease, *case, rounds));
        });
    }
    group.finish();
    runtime.block_on(store.close());
}

fn by_callers(c: &mut Criterion) {
    group(c, "sled_callers", &[(1, 1), (4, 1), (16, 1), (64, 1)], |case| case.0);
}

fn by_batch(c: &mut Criterion) {
    group(c, "sled_batch", &[(1, 1), (1, 10), (1, 100), (1, 1_000)], |case| case.1);
}

/// The rates that are compared, taken in turns: on a shared machine the disk's speed changes from one second to the next,
/// which criterion, measuring one after the other, takes for a difference.
fn side_by_side(_: &mut Criterion) {
    if is_picked() {
        return;
    }
    let (directory, runtime) = (directory(), runtime());
    let (store, lease) = runtime.block_on(open(&directory.path().join("store")));
    let mut raw = OpenOptions::new().create(true).append(true).open(directory.path().join("raw")).unwrap();
    let mut rates = [const { Vec::new() }; 4];
    for _ in 0..TURNS {
        let begun = Instant::now();
        (0..20).for_each(|_| append_and_sync(&mut raw));
        rates[0].push(20.0 / begun.elapsed().as_secs_f64());
        for (place, (callers, batch), rounds) in [(1, (1, 1), 10), (2, (16, 1), 5), (3, (1, 1_000), 2)] {
            let took = work(&runtime, &store, &lease, (callers, batch), rounds);
            rates[place].push((2 * rounds * (callers * batch) as u64) as f64 / took.as_secs_f64());
        }
    }
    runtime.block_on(store.close());
    let [raw, one, sixteen, thousand] = rates.map(median);
    report("sled_in_turns/one_caller_to_raw_syncs", one, "/s", Some(raw));
    report("sled_in_turns/16_callers_to_one", sixteen, "/s", Some(one));
    report("sled_in_turns/batches_of_1000_to_one_by_one", thousand, "/s", Some(one));
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Whether some benches were picked out: these ones take a while, and criterion does not see them.
fn is_picked() -> bool {
    std::env::args().skip(1).any(|arg| !arg.starts_with('-'))
}

/// The disk space of an event, by the order of the ids: ordered by time, and random.
fn size_of_an_event(_: &mut Criterion) {
    if is_picked() {
        return;
    }
    for (order, id) in [("in_order", Uuid::now_v7 as fn() -> Uuid), ("random", Uuid::new_v4)] {
        let (directory, runtime) = (directory(), runtime());
        // The least there can be; what it takes counts as the events'.
        let config = SledConfig::new(directory.path()).with_cache_bytes(8 << 20);
        let (before, (size, memory)) = (
            resident(),
            runtime.block_on(async {
                let store = SledStore::open_with(config).await.unwrap();
                let lease = store.acquire_lease(&"bench".into(), TTL).await.unwrap();
                for _ in 0..MEASURED / 1_000 {
                    let events: Vec<_> = (0..1_000).map(|_| EventRef::new(id(), "bench.event")).collect();
                    claim_and_complete(&store, &lease, &events).await;
                }
                let measured = (store.size().await.unwrap(), resident());
                store.close().await;
                measured
            }),
        );
        report(&format!("sled_bytes_per_event/disk/{order}"), size.bytes as f64 / MEASURED as f64, "B", None);
        let grown = memory.saturating_sub(before) as f64;
        report(&format!("sled_bytes_per_event/memory/{order}"), grown / MEASURED as f64, "B", None);
    }
}

/// Memory of this process, in bytes; 0 where the system does not say.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) << 10
}

fn report(id: &str, value: f64, unit: &str, baseline: Option<f64>) {
    let ratio = baseline.map_or_else(String::new, |baseline| format!(", {:.2}x of {baseline:.0}", value / baseline));
    println!("{id}: {value:.0} {unit}{ratio}");
    if let Some(path) = std::env::var_os("TIDINGS_BENCH_JSON") {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        let baseline = baseline.map_or_else(|| "null".to_owned(), |baseline| baseline.to_string());
        writeln!(file, r#"{{"id": "{id}", "value": {value}, "unit": "{unit}", "baseline": {baseline}}}"#).unwrap();
    }
}

criterion_group!(benches, size_of_an_event, side_by_side, by_callers, by_batch);
criterion_main!(benches);
