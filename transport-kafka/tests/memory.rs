//! Memory used by reading: batches that decompress to much more are fetched one by one.

#[path = "common/batch.rs"]
mod batch;
#[expect(dead_code, reason = "the other test files use the rest")]
mod common;

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use batch::{Raw, batch, produce};
use common::{TestResult, assigned, fresh_name, make, next, published};
use tidings_core::{ConsumerOptions, Name, Record, Step, Topic, Transport};
use tidings_kafka::{KafkaConfig, KafkaTransport};
use tidings_testbed::{Kafka, Suite};

const MIB: usize = 1 << 20;
/// Decompressed size of the batches, and their number.
const UNPACKED: usize = 30 * MIB;
const BATCHES: usize = 30;
/// Limit of prefetched bytes.
const BOUND: usize = 64 * MIB;

fn main() -> ExitCode {
    Suite::new()
        .with_timeout(Duration::from_secs(240))
        .with_case("batches_that_unpack_to_much_are_read_within_the_bound", within_the_bound)
        .run()
}

/// Returns the peak memory of this process since the last reset.
fn peak() -> TestResult<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<usize>()? << 10)
}

/// Resets the peak to the current use.
fn forget_peak() -> TestResult<usize> {
    fs::write("/proc/self/clear_refs", "5")?;
    peak()
}

async fn filled(kafka: &KafkaTransport, broker: &str) -> TestResult<Name> {
    let topic = fresh_name("unpacks");
    make(kafka, &[Topic::new(topic.clone()).with_max_record_bytes(2 * UNPACKED as u64)]).await?;
    let value = vec![b'v'; MIB];
    let records: Vec<_> = (0..UNPACKED / MIB).map(|_| Raw::new(&value)).collect();
    let packed = batch(&records, true)?;
    for _ in 0..BATCHES {
        produce(broker, &topic, 0, &packed)?;
    }
    published(kafka, vec![Record::new(topic.clone(), "last")]).await?;
    Ok(topic)
}

async fn within_the_bound() -> TestResult {
    let broker = Kafka::shared().await?.bootstrap().split(',').next().unwrap_or_default().to_owned();
    let kafka = KafkaTransport::connect(KafkaConfig::new([broker.clone()])).await?;
    let topic = filled(&kafka, &broker).await?;
    let options = ConsumerOptions::new(format!("{topic}-group"), [topic]).with_max_buffered_bytes(BOUND);
    let before = forget_peak()?;
    let consumer = kafka.consumer(options).await?;
    assigned(&*consumer, 1).await?;
    let (mut read, wanted) = (0, BATCHES * UNPACKED / MIB + 1);
    while read < wanted {
        if let Step::Records(fetched) = next(&*consumer).await? {
            read += fetched.batch.records().len();
        }
    }
    let taken = peak()?.saturating_sub(before);
    println!("{} MiB", taken / MIB);
    // One batch is handed out, and one is decompressed while the bound is not yet reached.
    assert!(taken < BOUND + 4 * UNPACKED, "{} MiB", taken / MIB);
    consumer.close().await?;
    Ok(())
}
