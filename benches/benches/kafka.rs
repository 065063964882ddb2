//! Publishing to and reading from a real broker: ours next to the bare client (`baseline`), and rskafka in the same run.
//!
//! It runs against the broker in `TIDINGS_KAFKA`, and says so where there is none. Arguments pick parts (`produce`,
//! `consume`, `latency`); without any, all run.

use std::time::Duration;
use tidings::kafka::{KafkaConfig, ReaderKind};

use tidings_benches::figures::{BenchResult, Figures, figure};
use tidings_benches::kafka::{Bench, KAFKA_VARIABLE, PARTITIONS};

/// Sizes of values, with the records that are published and those that are read: many, as clients read ahead.
const RUNS: [(usize, usize, usize); 2] = [(100, 900_000, 3_000_000), (1_024, 240_000, 600_000)];
/// How often each is measured, in turns.
const ROUNDS: usize = 5;

fn main() -> BenchResult {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let Some(bench) = Bench::open().await? else {
            println!("kafka: skipped, as {KAFKA_VARIABLE} names no broker (cargo xtask kafka up starts one)");
            return Ok(());
        };
        for (size, published, read) in RUNS {
            if picked("produce") {
                produce(&bench, size, published).await?;
            }
            if picked("consume") {
                consume(&bench, size, read).await?;
            }
        }
        if picked("latency") {
            latency(&bench).await?;
        }
        Ok(())
    })
}

/// Whether a part was asked for. `cargo bench` adds a flag of its own.
fn picked(part: &str) -> bool {
    let mut parts = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).peekable();
    parts.peek().is_none() || parts.any(|arg| arg == part)
}

async fn produce(bench: &Bench, size: usize, count: usize) -> BenchResult {
    let (mut figures, hasty) = (Figures::default(), bench.with_linger(Duration::ZERO).await?);
    for _ in 0..ROUNDS {
        let topic = bench.topic("produce", PARTITIONS).await?;
        let mut add = |name: &str, took: Duration| figures.add(name, count as u64, took);
        add("baseline", bench.publish_bare(&topic, count, size).await?);
        add("Publisher", bench.publish(&topic, count, size).await?);
        add("Publisher, no linger", hasty.publish(&topic, count, size).await?);
        add("rskafka, the application's batches", bench.publish_rskafka(&topic, count, size).await?);
        bench.drop_topic(&topic).await?;
    }
    figures.finish(&format!("kafka/produce {size} B"), "baseline")
}

async fn consume(bench: &Bench, size: usize, count: usize) -> BenchResult {
    let mut figures = Figures::default();
    let topic = bench.topic("consume", PARTITIONS).await?;
    bench.publish(&topic, count, size).await?;
    let count = count as u64;
    let native = bench.with_reader(ReaderKind::Native).await?;
    for _ in 0..ROUNDS {
        let mut add = |name: &str, took: Duration| figures.add(name, count, took);
        add("baseline", bench.drain_bare(&topic, count).await?);
        add("batch handler", bench.drain_batches(&topic, count).await?);
        add("record by record", bench.drain_singly(&topic, count).await?);
        add("native, batch handler", native.drain_batches(&topic, count).await?);
        add("native, record by record", native.drain_singly(&topic, count).await?);
        add("rskafka", bench.drain_rskafka(&topic, count).await?);
    }
    bench.drop_topic(&topic).await?;
    figures.finish(&format!("kafka/consume {size} B"), "baseline")
}

/// End to end, at 100 records a second, with nearly all partitions idle; in turns, as a busy moment is many milliseconds.
async fn latency(bench: &Bench) -> BenchResult {
    let (nodes, mut bare, mut ours) = (bench.nodes().await?, Vec::new(), Vec::new());
    let pace = Duration::from_millis(10);
    let default = bench.with_linger(KafkaConfig::DEFAULT_LINGER).await?;
    for _ in 0..ROUNDS {
        bare.extend(bench.latencies_rskafka(60, 300, pace).await?);
        ours.extend(default.latencies(60, 300, pace).await?);
    }
    bare.sort();
    ours.sort();
    for (name, part) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
        let at = |all: &[Duration]| all[(all.len() as f64 * part) as usize].as_secs_f64() * 1e3;
        figure(&format!("kafka/latency, {nodes} nodes/baseline, rskafka/{name}"), at(&bare), "ms", None)?;
        figure(&format!("kafka/latency, {nodes} nodes/service/{name}"), at(&ours), "ms", Some(at(&bare)))?;
    }
    Ok(())
}
