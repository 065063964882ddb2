//! Ours on Kafka beside librdkafka's clients (`FutureProducer` and `StreamConsumer` are the baselines), in one run.
//!
//! It runs against the broker in `TIDINGS_KAFKA`, and says so where there is none.

use std::time::Duration;

use tidings_benches::figures::{BenchResult, Figures};
use tidings_benches::kafka::{Bench, KAFKA_VARIABLE, PARTITIONS};
use tidings_peers::{base_producer, future_producer, stream_consumer};

/// Sizes of values, with the records that are published and those that are read: many, as clients read ahead.
const RUNS: [(usize, usize, usize); 2] = [(100, 900_000, 3_000_000), (1_024, 240_000, 600_000)];
/// How often each is measured, in turns.
const ROUNDS: usize = 3;

fn main() -> BenchResult {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let Some(bench) = Bench::open().await? else {
            println!("kafka: skipped, as {KAFKA_VARIABLE} names no broker (cargo xtask kafka up starts one)");
            return Ok(());
        };
        for (size, published, read) in RUNS {
            produce(&bench, size, published).await?;
            consume(&bench, size, read).await?;
        }
        Ok(())
    })
}

async fn produce(bench: &Bench, size: usize, count: usize) -> BenchResult {
    let (mut figures, brokers) = (Figures::default(), bench.brokers.clone());
    for _ in 0..ROUNDS {
        let topic = bench.topic("produce", PARTITIONS).await?;
        let mut add = |name: &str, took: Duration| figures.add(name, count as u64, took);
        add("rdkafka FutureProducer", future_producer(&brokers, &topic, count, size).await?);
        add("tidings Publisher", bench.publish(&topic, count, size).await?);
        let base = (brokers.clone(), topic.clone());
        let base = tokio::task::spawn_blocking(move || base_producer(&base.0, &base.1, count, size));
        add("rdkafka BaseProducer", base.await??);
        add("krafka", bench.publish_bare(&topic, count, size).await?);
        add("rskafka, the application's batches", bench.publish_rskafka(&topic, count, size).await?);
        bench.drop_topic(&topic).await?;
    }
    figures.finish(&format!("peers/produce {size} B"), "rdkafka FutureProducer")
}

async fn consume(bench: &Bench, size: usize, count: usize) -> BenchResult {
    let (mut figures, brokers) = (Figures::default(), bench.brokers.clone());
    let topic = bench.topic("consume", PARTITIONS).await?;
    bench.publish(&topic, count, size).await?;
    let count = count as u64;
    for _ in 0..ROUNDS {
        let mut add = |name: &str, took: Duration| figures.add(name, count, took);
        add("rdkafka StreamConsumer", stream_consumer(&brokers, &topic, count).await?);
        add("tidings, batch handler", bench.drain_batches(&topic, count).await?);
        add("tidings, record by record", bench.drain_singly(&topic, count).await?);
        add("krafka", bench.drain_bare(&topic, count).await?);
        add("rskafka", bench.drain_rskafka(&topic, count).await?);
    }
    bench.drop_topic(&topic).await?;
    figures.finish(&format!("peers/consume {size} B"), "rdkafka StreamConsumer")
}
