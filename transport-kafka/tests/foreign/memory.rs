//! Memory of a service whose partition has batches that decompress to 30 MiB each, in a separate process.

use std::fs;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidings_core::{Delivery, Topic};
use tidings_kafka::{GroupProtocol, KafkaConfig, KafkaTransport};
use tidings_service::{Router, Service, State};
use tidings_testbed::Kafka;
use tokio::process::Command;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::batch::{Batch, Codec, Raw};
use crate::common::{TestResult, fresh_name, make, transport};
use crate::wire::produce;

const ROLE: &str = "TIDINGS_FOREIGN_READER";
const MIB: usize = 1 << 20;
/// Number of records in a batch, 1 MiB each.
const RECORDS: usize = 30;
/// How long the handler takes for a record.
const WORK: Duration = Duration::from_millis(10);
/// Time limit of the child.
const WITHIN: Duration = Duration::from_secs(240);

/// Returns the peak memory of this process, in bytes.
fn peak() -> TestResult<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? << 10)
}

#[derive(Debug, Default)]
struct Counter {
    came: AtomicUsize,
    more: Notify,
}

/// Reads the parent's topic, if this process is its child.
pub(crate) fn child() -> Option<ExitCode> {
    let role = std::env::var(ROLE).ok()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let read = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(read_all(&role)));
    Some(match read {
        Ok(peaks) => {
            println!("{peaks}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("reader: {error}");
            ExitCode::FAILURE
        }
    })
}

/// Reads all records; returns the peak before the first fetch and at the end.
async fn read_all(role: &str) -> TestResult<String> {
    let [brokers, topic, records] = role.split('|').collect::<Vec<_>>()[..] else { return Err("no role".into()) };
    let records: usize = records.parse()?;
    let transport = KafkaTransport::connect(KafkaConfig::new(brokers.split(','))).await?;
    let counter = Arc::new(Counter::default());
    let handler = async |_: Delivery, State(counter): State<Arc<Counter>>| {
        // Slower than the reader, so that it prefetches as far as it may.
        sleep(WORK).await;
        counter.came.fetch_add(1, Ordering::Relaxed);
        counter.more.notify_one();
    };
    let router = Router::new().on_topic(topic.to_owned(), handler).with_state(Arc::clone(&counter));
    let before = peak()?;
    let running = Service::new(topic.to_owned(), router)
        .with_delivery_order(tidings_service::DeliveryOrder::Partition)
        .start(&transport)
        .await?;
    let all = async {
        while counter.came.load(Ordering::Relaxed) < records {
            counter.more.notified().await;
        }
    };
    tokio::select! {
        ended = running.stopped() => ended?,
        read = timeout(WITHIN, all) => read?,
    }
    Ok(format!("{before} {}", peak()?))
}

/// The formula of `docs/guides/operations.md`: three quarters of the bytes in flight and a batch; a prefetched
/// quarter and a batch; and a batch that is being decompressed.
const FORMULA: usize = Service::DEFAULT_MAX_BYTES_IN_FLIGHT + 3 * RECORDS * MIB;

/// Checks that a reader of this many batches takes no more than the formula on top of its memory before the first
/// fetch.
pub(crate) async fn stays_within_the_formula(batches: usize) -> TestResult {
    let bound = FORMULA;
    let (kafka, shared) = (transport(GroupProtocol::Auto).await?, Kafka::shared().await?);
    let topic = fresh_name("foreign-memory");
    let letters = tidings_core::dead_letter_topic(&topic);
    make(&kafka, &[Topic::new(topic.clone()), Topic::new(letters)]).await?;
    let batch = Batch::of_many(RECORDS as i32, |n| Raw::new(n, vec![b'0'; MIB])).with_codec(Codec::Gzip).encode()?;
    for _ in 0..batches {
        produce(shared.bootstrap(), &topic, 0, &batch).await?.stored()?;
    }
    let role = [shared.bootstrap(), &topic, &(batches * RECORDS).to_string()].join("|");
    let mut reader = Command::new(std::env::current_exe()?);
    let reader = reader.env(ROLE, role).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let output = timeout(WITHIN * 2, reader.wait_with_output()).await??;
    let answer = String::from_utf8(output.stdout)?;
    let (before, peak) = answer.trim().split_once(' ').ok_or("the reader failed")?;
    let (before, peak): (usize, usize) = (before.parse()?, peak.parse()?);
    println!("{batches} batches: peak {} MiB, before {} MiB, bound {} MiB", peak / MIB, before / MIB, bound / MIB);
    if peak <= before + bound {
        return Ok(());
    }
    Err(format!("the reader took {} MiB, where {} MiB are documented", (peak - before) / MIB, bound / MIB).into())
}
