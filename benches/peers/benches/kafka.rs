//! tidings on Kafka next to librdkafka's clients (`FutureProducer` and `StreamConsumer` are the baselines), in one run.
//!
//! It runs against the broker in `TIDINGS_KAFKA`, and says so where there is none.

use std::collections::BTreeMap;
use std::time::Duration;

use tidings::kafka::{PublisherKind, ReaderKind};
use tidings_benches::figures::{BenchResult, Figures, figure};
use tidings_benches::kafka::{Bench, KAFKA_VARIABLE, PARTITIONS};
use tidings_peers::{base_producer, future_producer, stream_consumer};

/// Sizes of values, with the records that are published and those that are read: many, as clients read ahead.
const RUNS: [(usize, usize, usize); 2] = [(100, 900_000, 3_000_000), (1_024, 240_000, 600_000)];
/// How often each consumer is measured, in turns.
const ROUNDS: usize = 3;

/// The environment variable that restricts a run to the producers.
const ONLY_PRODUCE: &str = "TIDINGS_PEERS_PRODUCE";

const FUTURE_PRODUCER: &str = "rdkafka FutureProducer";
const PUBLISHER: &str = "tidings Publisher";
const NATIVE: &str = "tidings Publisher, natively";
const BASE_PRODUCER: &str = "rdkafka BaseProducer";
const BARE: &str = "krafka";
const RSKAFKA: &str = "rskafka, the application's batches";
/// Each of them begins a round: the first one finds a topic and a page cache that are empty, and the last one full ones.
const PRODUCERS: [&str; 6] = [FUTURE_PRODUCER, NATIVE, BASE_PRODUCER, PUBLISHER, BARE, RSKAFKA];

fn main() -> BenchResult {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let Some(bench) = Bench::open().await? else {
            println!("kafka: skipped, as {KAFKA_VARIABLE} names no broker (cargo xtask kafka up starts one)");
            return Ok(());
        };
        for (size, published, read) in RUNS {
            produce(&bench, size, published).await?;
            if std::env::var_os(ONLY_PRODUCE).is_none() {
                consume(&bench, size, read).await?;
            }
        }
        Ok(())
    })
}

async fn produce(bench: &Bench, size: usize, count: usize) -> BenchResult {
    let (mut figures, brokers) = (Figures::default(), bench.brokers.clone());
    let native = bench.with_publisher(PublisherKind::Native).await?;
    let mut costs = BTreeMap::<&str, Vec<f64>>::new();
    for round in 0..PRODUCERS.len() {
        let topic = bench.topic("produce", PARTITIONS).await?;
        for turn in 0..PRODUCERS.len() {
            let name = PRODUCERS[(round + turn) % PRODUCERS.len()];
            let before = processor_time();
            let took = match name {
                NATIVE => native.publish(&topic, count, size).await?,
                FUTURE_PRODUCER => future_producer(&brokers, &topic, count, size).await?,
                PUBLISHER => bench.publish(&topic, count, size).await?,
                BASE_PRODUCER => {
                    let (brokers, topic) = (brokers.clone(), topic.clone());
                    tokio::task::spawn_blocking(move || base_producer(&brokers, &topic, count, size)).await??
                }
                BARE => bench.publish_bare(&topic, count, size).await?,
                _ => bench.publish_rskafka(&topic, count, size).await?,
            };
            figures.add(name, count as u64, took);
            let cost = processor_time().saturating_sub(before).as_secs_f64() * 1e6 / count as f64;
            costs.entry(name).or_default().push(cost);
        }
        bench.drop_topic(&topic).await?;
    }
    for (name, mut costs) in costs {
        costs.sort_by(f64::total_cmp);
        figure(&format!("peers/produce {size} B/{name}/processor time"), costs[costs.len() / 2], "us", None)?;
    }
    figures.finish(&format!("peers/produce {size} B"), FUTURE_PRODUCER)
}

/// Returns the processor time of this process, with a resolution of 10 ms.
fn processor_time() -> Duration {
    // Clients run one after the other, so a difference is the time of the current one.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // User and system time follow eleven other fields.
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

async fn consume(bench: &Bench, size: usize, count: usize) -> BenchResult {
    let (mut figures, brokers) = (Figures::default(), bench.brokers.clone());
    let topic = bench.topic("consume", PARTITIONS).await?;
    bench.publish(&topic, count, size).await?;
    let count = count as u64;
    let native = bench.with_reader(ReaderKind::Native).await?;
    for _ in 0..ROUNDS {
        let mut add = |name: &str, took: Duration| figures.add(name, count, took);
        add("rdkafka StreamConsumer", stream_consumer(&brokers, &topic, count).await?);
        add("tidings, batch handler", bench.drain_batches(&topic, count).await?);
        add("tidings, record by record", bench.drain_singly(&topic, count).await?);
        add("tidings natively, batch handler", native.drain_batches(&topic, count).await?);
        add("tidings natively, record by record", native.drain_singly(&topic, count).await?);
        add(BARE, bench.drain_bare(&topic, count).await?);
        add("rskafka", bench.drain_rskafka(&topic, count).await?);
    }
    bench.drop_topic(&topic).await?;
    figures.finish(&format!("peers/consume {size} B"), "rdkafka StreamConsumer")
}
