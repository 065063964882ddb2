//! The work on Kafka: the same topics, published to and drained by ours, by the bare client and by others.
//!
//! Rates are from the first record to the last: joining a group is not what is measured.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{FuturesOrdered, StreamExt};
use rskafka::chrono::DateTime;
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use tidings::handler::{BatchOptions, HandlerExt, RawBatch};
use tidings::kafka::{KafkaConfig, KafkaTransport, PublisherKind, ReaderKind};
use tidings::publisher::PublisherExt;
use tidings::record::{Name, Timestamp};
use tidings::{BoxError, Delivery, Record, Router, Service, State, Topic, TopicPolicy, Transport};
use tokio::sync::mpsc::UnboundedSender;

use crate::figures::BenchResult;
use crate::laps::Laps;

/// Where the broker is; without it there is nothing to measure.
pub const KAFKA_VARIABLE: &str = "TIDINGS_KAFKA";
/// Partitions of a topic.
pub const PARTITIONS: u32 = 6;
/// Bytes of a batch, of each client.
pub const BATCH_BYTES: usize = 256 << 10;
/// How long a batch waits, of each client.
pub const LINGER: Duration = Duration::from_millis(5);
/// Records that a publisher may have unanswered.
pub const UNANSWERED: usize = 50_000;
/// Records of one call.
const CALL: usize = 1_000;
/// Nothing takes longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// Records before the measured ones, where single ones are measured.
const WARM_UP: usize = 100;

/// A broker to measure on.
#[derive(Debug, Clone)]
pub struct Bench {
    /// Its address.
    pub brokers: String,
    transport: KafkaTransport,
}

async fn eat_one(delivery: Delivery, State(laps): State<Arc<Laps>>) {
    std::hint::black_box(delivery.record().value.as_ref().map_or(0, Bytes::len));
    laps.came(1);
}

async fn eat_batch(batch: RawBatch, State(laps): State<Arc<Laps>>) {
    let bytes: usize = batch.0.records().map(|record| record.value.as_ref().map_or(0, Bytes::len)).sum();
    std::hint::black_box(bytes);
    laps.came(batch.0.len() as u64);
}

async fn stop_watch(_: Delivery, State(sender): State<UnboundedSender<Instant>>) {
    let _nobody_waits = sender.send(Instant::now());
}

/// The value of every record.
pub fn value(size: usize) -> Bytes {
    Bytes::from(vec![b'x'; size])
}

impl Bench {
    /// The broker in [`KAFKA_VARIABLE`], if there is one.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn open() -> BenchResult<Option<Self>> {
        let Ok(brokers) = std::env::var(KAFKA_VARIABLE) else { return Ok(None) };
        let config = KafkaConfig::new(brokers.split(',')).with_linger(LINGER).with_batch_bytes(BATCH_BYTES);
        let config = config.with_max_unanswered_records(UNANSWERED);
        Ok(Some(Self { brokers, transport: KafkaTransport::connect(config).await? }))
    }

    /// The same broker, for those who don't wait for fuller batches.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn with_linger(&self, linger: Duration) -> BenchResult<Self> {
        let config = self.transport.config().clone().with_linger(linger);
        Ok(Self { brokers: self.brokers.clone(), transport: KafkaTransport::connect(config).await? })
    }

    /// The same, read by this reader.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn with_reader(&self, reader: ReaderKind) -> BenchResult<Self> {
        let config = self.transport.config().clone().with_reader(reader);
        Ok(Self { brokers: self.brokers.clone(), transport: KafkaTransport::connect(config).await? })
    }

    /// The same broker, with this kind of publisher.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn with_publisher(&self, publisher: PublisherKind) -> BenchResult<Self> {
        let config = self.transport.config().clone().with_publisher(publisher);
        Ok(Self { brokers: self.brokers.clone(), transport: KafkaTransport::connect(config).await? })
    }

    /// How many brokers there are.
    ///
    /// # Errors
    /// When they do not answer.
    pub async fn nodes(&self) -> BenchResult<usize> {
        Ok(self.transport.admin().await?.health().await?.brokers.len())
    }

    /// How long each of `count` records takes from `publish` to its handler, sorted: one is published every `pace`, to two
    /// of the topic's partitions, while the others are idle.
    ///
    /// # Errors
    /// When one does not come.
    pub async fn latencies(&self, partitions: u32, count: usize, pace: Duration) -> BenchResult<Vec<Duration>> {
        let topic = self.topic("latency", partitions).await?;
        let (sender, mut came) = tokio::sync::mpsc::unbounded_channel();
        let router = Router::new().on_topic(topic.clone(), stop_watch).with_state(sender);
        let topics = TopicPolicy::Create(vec![Topic::new(&topic).with_partitions(partitions)]);
        let service = Service::new(format!("bench-{}", uuid::Uuid::now_v7()), router).with_topics(topics);
        let service = service.start(&self.transport).await?;
        let publisher = self.transport.publisher().await?;
        let mut ticks = tokio::time::interval(pace);
        let mut latencies = Vec::with_capacity(count);
        // The first ones wait for connections and for the group.
        for n in 0..count + WARM_UP {
            ticks.tick().await;
            let begun = Instant::now();
            let record = Record::new(topic.clone(), value(100)).with_partition(n as u32 % 2);
            publisher.publish_one(record).await?;
            let at = tokio::time::timeout(LIMIT, came.recv()).await?.ok_or("the service ended")?;
            if n >= WARM_UP {
                latencies.push(at.saturating_duration_since(begun));
            }
        }
        service.shutdown(LIMIT).await?;
        self.drop_topic(&topic).await?;
        latencies.sort();
        Ok(latencies)
    }

    /// The same by rskafka: a produce and a fetch, and a task for each of the two partitions.
    ///
    /// # Errors
    /// When one does not come.
    pub async fn latencies_rskafka(&self, partitions: u32, count: usize, pace: Duration) -> BenchResult<Vec<Duration>> {
        let topic = self.topic("latency", partitions).await?;
        let brokers: Vec<_> = self.brokers.split(',').map(str::to_owned).collect();
        let (reading, writing) =
            (ClientBuilder::new(brokers.clone()).build().await?, ClientBuilder::new(brokers).build().await?);
        let (sender, mut came) = tokio::sync::mpsc::unbounded_channel();
        let (mut readers, mut writers) = (tokio::task::JoinSet::new(), Vec::new());
        for p in 0..2 {
            let known = UnknownTopicHandling::Error;
            writers.push(writing.partition_client(topic.as_str(), p, known).await?);
            let (reader, sender) = (reading.partition_client(topic.as_str(), p, known).await?, sender.clone());
            readers.spawn(async move {
                let mut next = 0;
                loop {
                    let (records, _) = reader.fetch_records(next, 1..8 << 20, 500).await?;
                    for record in records {
                        next = record.offset + 1;
                        sender.send(Instant::now())?;
                    }
                }
                #[expect(unreachable_code, reason = "it names the type of what goes wrong")]
                Ok::<(), BoxError>(())
            });
        }
        let (value, mut latencies) = (value(100), Vec::with_capacity(count));
        let mut ticks = tokio::time::interval(pace);
        for n in 0..count + WARM_UP {
            ticks.tick().await;
            let begun = Instant::now();
            writers[n % 2].produce(vec![foreign(&value)], Compression::NoCompression).await?;
            let at = tokio::time::timeout(LIMIT, came.recv()).await?.ok_or("the readers ended")?;
            if n >= WARM_UP {
                latencies.push(at.saturating_duration_since(begun));
            }
        }
        readers.shutdown().await;
        self.drop_topic(&topic).await?;
        Ok(latencies)
    }

    /// A fresh topic.
    ///
    /// # Errors
    /// When it can't be made.
    pub async fn topic(&self, what: &str, partitions: u32) -> BenchResult<Name> {
        let name = Name::from(format!("bench-{what}-{}", uuid::Uuid::now_v7()));
        let topic = Topic::new(&name).with_partitions(partitions);
        self.transport.admin().await?.create_topics(&[topic]).await?.remove(0)?;
        Ok(name)
    }

    /// Removes a topic with its records.
    ///
    /// # Errors
    /// When it can't be.
    pub async fn drop_topic(&self, topic: &Name) -> BenchResult {
        let topics = [topic.clone(), tidings::dead_letter::dead_letter_topic(topic)];
        // Not every topic came to have dead letters.
        self.transport.admin().await?.delete_topics(&topics).await?.remove(0)?;
        Ok(())
    }

    /// Publishes through `Publisher`, spread over the partitions.
    ///
    /// # Errors
    /// When a record is not taken.
    pub async fn publish(&self, topic: &Name, count: usize, size: usize) -> BenchResult<Duration> {
        let publisher = self.transport.publisher().await?;
        let value = value(size);
        publisher.publish_one(Record::new(topic.clone(), "first")).await?;
        let begun = Instant::now();
        let mut calls = FuturesOrdered::new();
        for from in (0..count).step_by(CALL) {
            let records = (from..(from + CALL).min(count))
                .map(|n| Record::new(topic.clone(), value.clone()).with_partition(n as u32 % PARTITIONS))
                .collect();
            calls.push_back(publisher.publish(records));
            if calls.len() >= UNANSWERED / CALL {
                answered(calls.next().await)?;
            }
        }
        while let Some(answers) = calls.next().await {
            answered(Some(answers))?;
        }
        let took = begun.elapsed();
        publisher.close(LIMIT).await?;
        Ok(took)
    }

    /// The same by the bare client's own queue.
    ///
    /// # Errors
    /// When a record is not taken.
    pub async fn publish_bare(&self, topic: &Name, count: usize, size: usize) -> BenchResult<Duration> {
        let kafka = krafka::Kafka::builder(self.brokers.as_str()).connect().await?;
        let producer = kafka.producer().acks(krafka::producer::Acks::All).idempotent(true).batch_size(BATCH_BYTES);
        let producer = producer.linger(LINGER).metrics_push(false).build().await?;
        let value = value(size);
        let _first = producer.enqueue(krafka::Record::new(topic.as_str(), "first").partition(0)).await?.await?;
        let begun = Instant::now();
        let mut unanswered = VecDeque::with_capacity(UNANSWERED);
        for n in 0..count {
            let record = krafka::Record::new(topic.as_str(), value.clone()).partition(n as i32 % PARTITIONS as i32);
            unanswered.push_back(producer.enqueue(record).await?);
            if unanswered.len() >= UNANSWERED {
                let _stored = unanswered.pop_front().ok_or("not empty")?.await?;
            }
        }
        for handle in unanswered {
            let _stored = handle.await?;
        }
        Ok(begun.elapsed())
    }

    /// The same by rskafka, which has no queue: the batches are the application's, and a repeat is stored twice.
    ///
    /// # Errors
    /// When a batch is not taken.
    pub async fn publish_rskafka(&self, topic: &Name, count: usize, size: usize) -> BenchResult<Duration> {
        let client = ClientBuilder::new(self.brokers.split(',').map(str::to_owned).collect()).build().await?;
        let value = value(size);
        let begun = Instant::now();
        let batch = (BATCH_BYTES / (size + 20)).max(1);
        let work = (0..PARTITIONS).map(|p| {
            let (client, value) = (&client, &value);
            async move {
                let partition = client.partition_client(topic.as_str(), p as i32, UnknownTopicHandling::Error).await?;
                let mut left = count / PARTITIONS as usize;
                while left > 0 {
                    let records = vec![foreign(value); batch.min(left)];
                    left -= records.len();
                    partition.produce(records, Compression::NoCompression).await?;
                }
                Ok::<_, BoxError>(())
            }
        });
        futures_util::future::try_join_all(work).await?;
        Ok(begun.elapsed())
    }

    /// Drains a topic by a service whose handler takes batches.
    ///
    /// # Errors
    /// When the records do not come.
    pub async fn drain_batches(&self, topic: &Name, count: u64) -> BenchResult<Duration> {
        let options = BatchOptions::new(5_000).with_wait(Duration::ZERO);
        self.drain(topic, Router::new().on_topic(topic.clone(), eat_batch.batch(options)), count).await
    }

    /// Drains a topic by a service whose handler takes one record after the other.
    ///
    /// # Errors
    /// When the records do not come.
    pub async fn drain_singly(&self, topic: &Name, count: u64) -> BenchResult<Duration> {
        self.drain(topic, Router::new().on_topic(topic.clone(), eat_one), count).await
    }

    async fn drain(&self, topic: &Name, router: Router<Arc<Laps>>, count: u64) -> BenchResult<Duration> {
        let laps = Arc::new(Laps::default());
        let name = format!("bench-{}", uuid::Uuid::now_v7());
        let topics = TopicPolicy::Create(vec![Topic::new(topic).with_partitions(PARTITIONS)]);
        let service = Service::new(name, router.with_state(Arc::clone(&laps))).with_topics(topics);
        let service = service.start(&self.transport).await?;
        let took = laps.took(count).await?;
        service.shutdown(LIMIT).await?;
        Ok(took)
    }

    /// Drains a topic by the bare client: one consumer that polls, and commits nothing.
    ///
    /// # Errors
    /// When the records do not come.
    pub async fn drain_bare(&self, topic: &Name, count: u64) -> BenchResult<Duration> {
        let kafka = krafka::Kafka::builder(self.brokers.as_str()).connect().await?;
        let consumer = kafka.consumer_without_group().max_poll_records(5_000).max_buffered_records(100_000);
        let consumer = consumer.auto_offset_reset(krafka::consumer::AutoOffsetReset::Earliest);
        let consumer = consumer.fetch_max_bytes(8 << 20).max_partition_fetch_bytes(1 << 20);
        let consumer = consumer.isolation_level(krafka::consumer::IsolationLevel::ReadCommitted);
        let consumer = consumer.metrics_push(false).build().await?;
        consumer.assign(topic, (0..PARTITIONS as i32).collect()).await?;
        let laps = Laps::default();
        let mut come = 0;
        while come < count {
            let records = tokio::time::timeout(LIMIT, consumer.poll(Duration::from_millis(500))).await??;
            let bytes: usize = records.iter().map(|record| record.value.as_ref().map_or(0, Bytes::len)).sum();
            std::hint::black_box(bytes);
            if !records.is_empty() {
                come += records.len() as u64;
                laps.came(records.len() as u64);
            }
        }
        laps.took(count).await
    }

    /// Drains a topic by rskafka: a task for each partition.
    ///
    /// # Errors
    /// When the records do not come.
    pub async fn drain_rskafka(&self, topic: &Name, count: u64) -> BenchResult<Duration> {
        let client = ClientBuilder::new(self.brokers.split(',').map(str::to_owned).collect()).build().await?;
        let laps = Laps::default();
        let ends = self.transport.admin().await?.describe_topics(std::slice::from_ref(topic)).await?.remove(0)?;
        let work = ends.partitions.iter().map(|p| {
            let (client, laps) = (&client, &laps);
            async move {
                let index = i32::try_from(p.partition)?;
                let partition = client.partition_client(topic.as_str(), index, UnknownTopicHandling::Error).await?;
                let mut next = i64::try_from(p.start)?;
                while next < i64::try_from(p.end)? {
                    let fetched = tokio::time::timeout(LIMIT, partition.fetch_records(next, 1..8 << 20, 500));
                    let (records, _) = fetched.await??;
                    let bytes: usize = records.iter().map(|r| r.record.value.as_ref().map_or(0, Vec::len)).sum();
                    std::hint::black_box(bytes);
                    if let Some(last) = records.last() {
                        next = last.offset + 1;
                        laps.came(records.len() as u64);
                    }
                }
                Ok::<_, BoxError>(())
            }
        });
        futures_util::future::try_join_all(work).await?;
        laps.took(count).await
    }
}

fn answered(answers: Option<Vec<tidings::Result<tidings::record::Position>>>) -> BenchResult {
    for answer in answers.ok_or("a call is open")? {
        answer?;
    }
    Ok(())
}

fn foreign(value: &Bytes) -> rskafka::record::Record {
    rskafka::record::Record {
        key: None,
        value: Some(value.to_vec()),
        headers: BTreeMap::new(),
        timestamp: DateTime::from_timestamp_millis(Timestamp::now().millis()).unwrap_or_default(),
    }
}
