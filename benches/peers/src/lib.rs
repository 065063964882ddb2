//! The work of `tidings_benches`, as the peers do it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, FutureProducer, FutureRecord, Producer, ProducerContext,
};
use rdkafka::{ClientConfig, ClientContext, Message, Offset, TopicPartitionList};
use tidings_benches::figures::BenchResult;
use tidings_benches::kafka::{BATCH_BYTES, LINGER, PARTITIONS, UNANSWERED, value};
use tidings_benches::laps::Laps;

/// How often a consumer commits.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// Nothing takes longer.
const LIMIT: Duration = Duration::from_secs(120);

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}

fn producing(brokers: &str) -> ClientConfig {
    let mut config = config(brokers);
    config.set("enable.idempotence", "true").set("acks", "all");
    config.set("linger.ms", LINGER.as_millis().to_string()).set("batch.size", BATCH_BYTES.to_string());
    config.set("batch.num.messages", "100000").set("queue.buffering.max.messages", (2 * UNANSWERED).to_string());
    config
}

/// Publishes by the producer whose answers are futures.
///
/// # Errors
/// When a record is not taken.
pub async fn future_producer(brokers: &str, topic: &str, count: usize, size: usize) -> BenchResult<Duration> {
    let producer: FutureProducer = producing(brokers).create()?;
    let value = value(size);
    producer.send(FutureRecord::<(), _>::to(topic).payload("first"), LIMIT).await.map_err(|(e, _)| e)?;
    let begun = Instant::now();
    let mut unanswered = VecDeque::with_capacity(UNANSWERED);
    for n in 0..count {
        let record = FutureRecord::<(), [u8]>::to(topic).payload(&value).partition(n as i32 % PARTITIONS as i32);
        unanswered.push_back(producer.send_result(record).map_err(|(e, _)| e)?);
        if unanswered.len() >= UNANSWERED {
            unanswered.pop_front().ok_or("not empty")?.await?.map_err(|(e, _)| e)?;
        }
    }
    for answer in unanswered {
        answer.await?.map_err(|(e, _)| e)?;
    }
    Ok(begun.elapsed())
}

/// Counts answers.
#[derive(Debug, Clone, Default)]
struct Counting(Arc<AtomicU64>);

impl ClientContext for Counting {}

impl ProducerContext for Counting {
    type DeliveryOpaque = ();

    fn delivery(&self, answer: &DeliveryResult<'_>, (): ()) {
        assert!(answer.is_ok(), "a record was not taken");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Publishes by the producer that is polled: the least that librdkafka asks for.
///
/// # Errors
/// When a record is not taken.
pub fn base_producer(brokers: &str, topic: &str, count: usize, size: usize) -> BenchResult<Duration> {
    let answered = Counting::default();
    let producer: BaseProducer<Counting> = producing(brokers).create_with_context(answered.clone())?;
    let value = value(size);
    producer.send(BaseRecord::<(), _>::to(topic).payload("first")).map_err(|(e, _)| e)?;
    producer.flush(LIMIT)?;
    let begun = Instant::now();
    for n in 0..count {
        let record = BaseRecord::<(), [u8]>::to(topic).payload(&value).partition(n as i32 % PARTITIONS as i32);
        producer.send(record).map_err(|(e, _)| e)?;
        if n % 1_000 == 0 {
            producer.poll(Duration::ZERO);
        }
        while n as u64 >= answered.0.load(Ordering::Relaxed) + UNANSWERED as u64 {
            producer.poll(Duration::from_millis(10));
        }
    }
    producer.flush(LIMIT)?;
    let took = begun.elapsed();
    assert_eq!(answered.0.load(Ordering::Relaxed), count as u64 + 1);
    Ok(took)
}

/// Drains a topic by the consumer that is a stream, with commits by hand once a second.
///
/// # Errors
/// When the records do not come.
pub async fn stream_consumer(brokers: &str, topic: &str, count: u64) -> BenchResult<Duration> {
    let mut config = config(brokers);
    config.set("group.id", format!("bench-{}", uuid::Uuid::now_v7())).set("enable.auto.commit", "false");
    config.set("enable.auto.offset.store", "false").set("auto.offset.reset", "earliest");
    let consumer: StreamConsumer = config.create()?;
    let mut places = TopicPartitionList::new();
    for partition in 0..PARTITIONS as i32 {
        places.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&places)?;
    let (laps, mut next, mut committed) = (Laps::default(), [0_i64; PARTITIONS as usize], Instant::now());
    let mut stream = consumer.stream();
    for n in 0..count {
        let message = tokio::time::timeout(LIMIT, stream.next()).await?.ok_or("the stream ended")??;
        std::hint::black_box(message.payload().map_or(0, <[u8]>::len));
        next[message.partition() as usize] = message.offset() + 1;
        laps.came(1);
        if n % 1_000 == 0 && committed.elapsed() >= COMMIT_EVERY {
            committed = Instant::now();
            let mut done = TopicPartitionList::new();
            for (partition, next) in next.iter().enumerate() {
                done.add_partition_offset(topic, partition as i32, Offset::Offset(*next))?;
            }
            consumer.commit(&done, CommitMode::Async)?;
        }
    }
    laps.took(count).await
}
