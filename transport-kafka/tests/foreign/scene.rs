//! A topic with a hostile input in one of its partitions, good events around it, and a service that reads all of it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::{
    BoxError, ConsumerOptions, DeadLetter, Delivery, Name, Topic, TopicPartition, Transport, dead_letter_topic,
};
use tidings_kafka::{KafkaConfig, KafkaTransport, ReaderKind};
use tidings_service::{Router, Service, ServiceHandle, ServiceState, State, Status, TopicPolicy};
use tokio::time::{Instant, sleep};

use crate::batch::{Batch, Raw};
use crate::book::Book;
use crate::cases::{Fate, Hostile};
use crate::common::{LIMIT, TestResult, assigned, fresh_name, make, records};
use crate::hold::{held, skip};
use crate::wire::{Answer, produce};

pub(crate) const PARTITIONS: u32 = 3;
/// The partition with the hostile input.
pub(crate) const HIT: u32 = 1;
/// Number of events in a batch of good events.
const GOOD: usize = 3;
/// Time limit of each next event.
const WITHIN: Duration = Duration::from_secs(40);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// When the good events after an input are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    /// Before the service starts: they are fetched together with the input.
    Before,
    /// After the service has handled the input, or holds its partition.
    After,
}

pub(crate) fn good_events() -> u64 {
    GOOD as u64
}

async fn note(delivery: Delivery, State(book): State<Arc<Book>>) -> Result<(), BoxError> {
    book.handle(&delivery)
}

/// A topic, and how it is reached.
pub(crate) struct Scene {
    pub(crate) kafka: KafkaTransport,
    pub(crate) brokers: String,
    pub(crate) topic: Name,
    limit: Option<u64>,
}

impl Scene {
    pub(crate) async fn open(kafka: &KafkaTransport, brokers: &str, limit: Option<u64>) -> TestResult<Self> {
        let topic = fresh_name("foreign");
        let scene = Self { kafka: kafka.clone(), brokers: brokers.to_owned(), topic, limit };
        make(&scene.kafka, &[scene.plan()]).await?;
        Ok(scene)
    }

    fn plan(&self) -> Topic {
        let topic = Topic::new(self.topic.clone()).with_partitions(PARTITIONS);
        match self.limit {
            Some(limit) => topic.with_max_record_bytes(limit),
            None => topic,
        }
    }

    /// Creates a dead-letter topic with the same limit as the topic.
    async fn narrow_letters(&self) -> TestResult {
        make(&self.kafka, &[Topic::new(dead_letter_topic(&self.topic)).with_partitions(PARTITIONS)]).await
    }

    /// Writes good events to each partition; returns where they begin in the input's partition.
    pub(crate) async fn good(&self, when: &str) -> TestResult<u64> {
        let mut at = 0;
        for partition in 0..PARTITIONS {
            let event = |n| Raw::new(n, format!("good-{when}-{partition}-{n}"));
            let batch = Batch::of_many(GOOD as i32, event).encode()?;
            let base = produce(&self.brokers, &self.topic, partition, &batch).await?.stored()?;
            at = if partition == HIT { base } else { at };
        }
        Ok(at)
    }

    pub(crate) async fn hit(&self, bytes: &[u8]) -> TestResult<Answer> {
        produce(&self.brokers, &self.topic, HIT, bytes).await
    }

    pub(crate) fn at(&self) -> TopicPartition {
        TopicPartition::new(self.topic.clone(), HIT)
    }

    pub(crate) async fn read(&self) -> TestResult<Reading<'_>> {
        let book = Arc::new(Book::default());
        let router = Router::new().on_topic(self.topic.clone(), note).with_state(Arc::clone(&book));
        let service = Service::new(self.topic.clone(), router).with_topics(TopicPolicy::Create(vec![self.plan()]));
        Ok(Reading { scene: self, service: service.start(&self.kafka).await?, book, skipped: Vec::new() })
    }

    /// Returns the offsets of this many letters.
    async fn letters(&self, count: usize) -> TestResult<Vec<u64>> {
        let topic = dead_letter_topic(&self.topic);
        let consumer = self.kafka.consumer(ConsumerOptions::new(format!("{topic}-look"), [topic])).await?;
        assigned(&*consumer, PARTITIONS as usize).await?;
        let letters = records(&*consumer, count).await?;
        consumer.close().await?;
        letters.iter().map(|record| Ok(DeadLetter::from_record(record)?.record.offset)).collect()
    }
}

/// A service that reads a scene.
pub(crate) struct Reading<'a> {
    scene: &'a Scene,
    service: ServiceHandle,
    pub(crate) book: Arc<Book>,
    /// The skipped ranges.
    pub(crate) skipped: Vec<Range<u64>>,
}

impl Reading<'_> {
    /// Waits until `done` returns true. A service that ends is a failure.
    async fn until(&self, what: &str, done: impl Fn(&Status) -> bool) -> TestResult<Status> {
        let ends = Instant::now() + WITHIN;
        loop {
            let status = self.service.status().await;
            if status.state == ServiceState::Failed {
                return Err(format!("the service failed: {:?}", status.problems).into());
            }
            if done(&status) {
                return Ok(status);
            }
            if Instant::now() > ends {
                let (foreign, hit) = (self.book.foreign(HIT), self.partition(&status));
                return Err(
                    format!("not in time: {what}; {foreign} foreign records, {hit:?}, {:?}", status.problems).into()
                );
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    fn partition(&self, status: &Status) -> Option<tidings_service::PartitionStatus> {
        status.partitions.iter().find(|p| p.partition == self.scene.at()).cloned()
    }

    fn is_settled(&self, status: &Status, end: u64) -> bool {
        self.partition(status).is_some_and(|partition| partition.settled >= end)
    }

    /// Waits until all records below `end` are settled or the input's partition is held, and all other partitions'
    /// good events are handled.
    pub(crate) async fn to(&self, end: u64, behind: &[&str]) -> TestResult<Status> {
        let good = |partition| behind.iter().all(|when| self.has_good(when, partition));
        let others = || (0..PARTITIONS).filter(|p| *p != HIT).all(good);
        let what = format!("{end} offsets are settled, or the partition is held");
        self.until(&what, |s| others() && (self.is_settled(s, end) || held(s, &self.scene.at()).is_some())).await
    }

    fn has_good(&self, when: &str, partition: u32) -> bool {
        self.book.good(partition, &format!("good-{when}-{partition}-")) >= GOOD
    }

    /// Like [`to`](Self::to), but skips each range at which the partition is held, until all records below `end` are
    /// settled.
    pub(crate) async fn through(&mut self, end: u64, behind: &[&str]) -> TestResult<Status> {
        loop {
            let status = self.to(end, behind).await?;
            if self.is_settled(&status, end) {
                return Ok(status);
            }
            let range = skip(&self.service, &status, &self.scene.at()).await?;
            if self.skipped.iter().any(|before| before.start >= range.start) {
                return Err(format!("{range:?} was skipped after {:?}", self.skipped).into());
            }
            self.skipped.push(range);
        }
    }

    /// Accounts for all records below `end`.
    fn account(&self, end: u64, whens: &[&str]) -> TestResult {
        for (when, partition) in whens.iter().flat_map(|when| (0..PARTITIONS).map(move |p| (when, p))) {
            if !self.has_good(when, partition) {
                return Err(format!("good events {when} the input in partition {partition} were lost").into());
            }
        }
        self.book.check(HIT, end, &self.skipped)
    }

    /// Accounts for all records below `end` and ends, for inputs of unknown fate.
    pub(crate) async fn settle_any(self, end: u64, whens: &[&str]) -> TestResult {
        self.account(end, whens)?;
        self.service.shutdown(LIMIT).await?;
        Ok(())
    }

    /// Accounts for all records below `end`, of which `records` were the input's; returns its fate.
    pub(crate) async fn settle(self, status: &Status, end: u64, whens: &[&str], records: usize) -> TestResult<Fate> {
        self.account(end, whens)?;
        let foreign = self.book.foreign(HIT);
        if self.skipped.is_empty() && foreign != records {
            return Err(format!("{foreign} of the {records} records of the input came").into());
        }
        let buried = usize::try_from(status.totals.dead_lettered)?;
        self.service.shutdown(LIMIT).await?;
        if buried > 0 {
            let letters = self.scene.letters(buried).await?;
            println!("letters of offsets {letters:?}");
        }
        Ok(match (self.skipped.is_empty(), buried) {
            (false, _) => Fate::Held,
            (true, 0) => Fate::Handled,
            (true, _) => Fate::Buried,
        })
    }
}

/// Creates a transport whose batches may decompress to this many bytes.
pub(crate) async fn reader(brokers: &str, unpacked: usize, kind: ReaderKind) -> TestResult<KafkaTransport> {
    let config = KafkaConfig::new(brokers.split(',')).with_fetch_max_unpacked_bytes(unpacked).with_reader(kind);
    Ok(KafkaTransport::connect(config).await?)
}

/// Runs a case on its own topic.
pub(crate) async fn play(brokers: &str, fate: Fate, hostile: Hostile, behind: Behind, kind: ReaderKind) -> TestResult {
    let scene = Scene::open(&reader(brokers, hostile.unpacked, kind).await?, brokers, hostile.topic_limit).await?;
    if hostile.narrow_letters {
        scene.narrow_letters().await?;
    }
    scene.good("before").await?;
    if let Answer::Refused(code, words) = scene.hit(&hostile.bytes).await? {
        println!("refused: {code} {words}");
        return verdict(fate, Fate::Refused);
    }
    verdict(fate, scene.outcome(hostile.records, behind).await?)
}

impl Scene {
    /// Returns the fate of an input of this many records, which follows the first good events.
    pub(crate) async fn outcome(&self, records: usize, behind: Behind) -> TestResult<Fate> {
        let whens = ["before", "behind"];
        let (mut reading, end) = if behind == Behind::Before {
            let end = self.good("behind").await? + GOOD as u64;
            (self.read().await?, end)
        } else {
            let reading = self.read().await?;
            reading.to(u64::try_from(GOOD + records)?, &["before"]).await?;
            (reading, self.good("behind").await? + GOOD as u64)
        };
        let status = reading.through(end, &whens).await?;
        reading.settle(&status, end, &whens, records).await
    }
}

pub(crate) fn verdict(expected: Fate, found: Fate) -> TestResult {
    if expected == found { Ok(()) } else { Err(format!("expected {expected:?}, found {found:?}").into()) }
}
