//! Letters go from a dead-letter topic back to their topic: in order, once, also when a run is cut off; in memory and on
//! Kafka, which is reported ignored where there is none.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidings::admin::{Admin, ResetOffsetsOptions, ResetTo};
use tidings::consumer::{Consumer, ConsumerOptions, SeekTo, Step};
use tidings::dead_letter::{
    DeadLetter, DeadLetterSink, RedriveOptions, RedriveReport, dead_letter_topic, redrive_topic,
};
use tidings::kafka::{KafkaConfig, KafkaTransport};
use tidings::memory::MemoryTransport;
use tidings::publisher::Publisher;
use tidings::record::{Name, Position, StoredRecord, Timestamp, TopicPartition, headers};
use tidings::transport::{Guarantees, async_trait};
use tidings::{BoxError, Error, ErrorKind, Record, Result, Topic, Transport};
use tidings_testbed::{Kafka, Suite};
use tokio::sync::Notify;
use tokio::time::timeout;

type TestResult<T = ()> = std::result::Result<T, BoxError>;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Returns the service of a test: tests run side by side, and a service's redrives share one group.
fn service_of(topic: &Name) -> Name {
    format!("{topic}-service").into()
}

macro_rules! cases {
    ($suite:expr; $($case:ident),+ $(,)?) => { $suite $(
        .with_case(concat!("memory_", stringify!($case)), || async { $case(Arc::new(MemoryTransport::new())).await })
        .with_case(concat!("kafka_", stringify!($case)), || async { $case(kafka().await?).await })
    )+ };
}

fn main() -> ExitCode {
    let suite = Suite::new().with_timeout(LIMIT * 3);
    cases!(suite;
        letters_go_back_once_and_in_their_keys_order,
        a_second_run_takes_only_what_came_since,
        a_run_that_is_cut_off_is_gone_on_with,
        a_letter_that_fails_stays_and_is_named,
        a_limit_and_a_dry_run_keep_what_they_leave,
        a_missing_letter_topic_is_named,
    )
    .run()
}

async fn kafka() -> TestResult<Arc<dyn Transport>> {
    let kafka = Kafka::shared().await?;
    Ok(Arc::new(KafkaTransport::connect(KafkaConfig::new(kafka.bootstrap().split(','))).await?))
}

/// A topic of two partitions with its dead-letter topic, used by this test alone.
async fn fresh(transport: &dyn Transport) -> TestResult<Name> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = Name::from(format!("redrive-{}-{count}-{}", std::process::id(), Timestamp::now().millis()));
    let topics = [Topic::new(&name).with_partitions(2), Topic::new(dead_letter_topic(&name)).with_partitions(2)];
    for answer in transport.admin().await?.create_topics(&topics).await? {
        answer?;
    }
    Ok(name)
}

fn letter(service: impl Into<Name>, topic: &Name, offset: u64, key: Option<&str>) -> DeadLetter {
    let mut record = StoredRecord::new(offset, Timestamp::from_millis(1)).with_value(format!("v{offset}"));
    record.key = key.map(|key| key.to_owned().into());
    record.headers = headers_of(offset);
    DeadLetter::new(service, TopicPartition::new(topic, 0), record, ErrorKind::Failed).with_error("it is broken")
}

fn headers_of(offset: u64) -> tidings::record::Headers {
    tidings::record::Headers::new().with("n", offset.to_string())
}

/// Four keys, and every fifth letter without one.
fn key_of(offset: u64) -> Option<String> {
    (offset % 5 != 4).then(|| format!("key-{}", offset % 5))
}

fn letters(topic: &Name, offsets: std::ops::Range<u64>) -> Vec<DeadLetter> {
    offsets.map(|offset| letter(service_of(topic), topic, offset, key_of(offset).as_deref())).collect()
}

async fn bury(transport: &dyn Transport, letters: Vec<DeadLetter>) -> TestResult {
    for answer in transport.dead_letters().await?.bury(letters).await {
        answer?;
    }
    Ok(())
}

/// Everything in a topic, by partition.
async fn records(transport: &dyn Transport, topic: &Name) -> TestResult<Vec<StoredRecord>> {
    let described = transport.admin().await?.describe_topics(std::slice::from_ref(topic)).await?.remove(0)?;
    let count: u64 = described.partitions.iter().map(|p| p.end - p.start).sum();
    let group = format!("witness-{}", uuid::Uuid::new_v4());
    let consumer = transport.consumer(ConsumerOptions::new(group, [topic.clone()])).await?;
    let mut all = Vec::new();
    while (all.len() as u64) < count {
        if let Step::Records(fetched) = timeout(LIMIT, consumer.next()).await?? {
            all.extend_from_slice(fetched.batch.records());
        }
    }
    consumer.close().await?;
    Ok(all)
}

fn text(record: &StoredRecord) -> String {
    String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned()
}

fn number(record: &StoredRecord) -> u64 {
    record.headers.get_str("n").and_then(|n| n.parse().ok()).unwrap_or(u64::MAX)
}

/// Each of `offsets` is in the topic once, whole, for the service alone, and in its key's order.
async fn went_back(transport: &dyn Transport, topic: &Name, offsets: std::ops::Range<u64>) -> TestResult {
    let found = records(transport, topic).await?;
    let numbers: BTreeSet<u64> = found.iter().map(number).collect();
    assert_eq!(found.len(), numbers.len(), "a letter went twice: {:?}", found.iter().map(number).collect::<Vec<_>>());
    assert_eq!(numbers, offsets.collect(), "what is in the topic");
    for record in &found {
        let n = number(record);
        assert_eq!((text(record), record.headers.len()), (format!("v{n}"), 4));
        assert_eq!(record.headers.get_str(headers::REDRIVE_TOPIC), Some(topic.as_str()));
        assert_eq!(record.headers.get_str(headers::REDRIVE_FOR), Some(service_of(topic).as_str()));
        assert_eq!(record.headers.get_str(headers::REDRIVE_COUNT), Some("1"));
    }
    for key in 0..4 {
        let of: Vec<u64> = found.iter().filter(|r| r.key.is_some()).map(number).filter(|n| n % 5 == key).collect();
        assert!(of.is_sorted(), "key {key}: {of:?}");
    }
    Ok(())
}

async fn redriven(transport: &dyn Transport, topic: &Name) -> TestResult<RedriveReport> {
    redriven_as(transport, topic, RedriveOptions::default()).await
}

async fn redriven_as(transport: &dyn Transport, topic: &Name, options: RedriveOptions) -> TestResult<RedriveReport> {
    Ok(timeout(LIMIT, redrive_topic(transport, topic, service_of(topic), options)).await??)
}

async fn letters_go_back_once_and_in_their_keys_order(transport: Arc<dyn Transport>) -> TestResult {
    let transport = &*transport;
    let topic = fresh(transport).await?;
    bury(transport, letters(&topic, 0..30)).await?;
    bury(transport, vec![letter("billing", &topic, 3, Some("key-3"))]).await?;
    // A service that died between burying and committing buries again.
    bury(transport, letters(&topic, 5..15)).await?;
    let foreign = Record::new(dead_letter_topic(&topic), "somebody's note");
    transport.publisher().await?.publish(vec![foreign]).await.remove(0)?;
    let report = redriven(transport, &topic).await?;
    let counts = (report.redriven, report.repeats, report.others, report.foreign, report.found);
    assert_eq!(counts, (30, 10, 1, 1, 0), "{report:?}");
    went_back(transport, &topic, 0..30).await
}

async fn a_second_run_takes_only_what_came_since(transport: Arc<dyn Transport>) -> TestResult {
    let transport = &*transport;
    let topic = fresh(transport).await?;
    bury(transport, letters(&topic, 0..10)).await?;
    assert_eq!(redriven(transport, &topic).await?.redriven, 10);
    assert_eq!(redriven(transport, &topic).await?, RedriveReport::default());
    // The repeat of a letter that an earlier run took back.
    bury(transport, letters(&topic, 8..13)).await?;
    let report = redriven(transport, &topic).await?;
    assert_eq!((report.redriven, report.repeats), (3, 2), "{report:?}");
    went_back(transport, &topic, 0..13).await
}

/// Once behind the publishing, once in the midst of it, each time as a killed process leaves it.
async fn a_run_that_is_cut_off_is_gone_on_with(transport: Arc<dyn Transport>) -> TestResult {
    let topic = fresh(&*transport).await?;
    bury(&*transport, letters(&topic, 0..40)).await?;
    let mut found = 0;
    for survives in [3, 6] {
        let cut = Cut::new(Arc::clone(&transport), survives);
        let run = redrive_topic(&cut, &topic, service_of(&topic), RedriveOptions::default());
        tokio::select! {
            ended = run => return Err(format!("it was to be cut off: {ended:?}").into()),
            () = cut.reached.notified() => {}
            () = tokio::time::sleep(LIMIT) => return Err("it never came so far".into()),
        }
        // A killed process does not leave its group, a dropped consumer does.
        let there = records(&*transport, &topic).await?.len();
        assert!(there > found, "nothing was published before the cut");
        found = there;
    }
    let report = redriven(&*transport, &topic).await?;
    assert!(report.found > 0, "{report:?}");
    went_back(&*transport, &topic, 0..40).await
}

async fn a_letter_that_fails_stays_and_is_named(transport: Arc<dyn Transport>) -> TestResult {
    let topic = fresh(&*transport).await?;
    bury(&*transport, letters(&topic, 0..20)).await?;
    let refusing = Cut::new(Arc::clone(&transport), usize::MAX).refusing("v7");
    let run = redrive_topic(&refusing, &topic, service_of(&topic), RedriveOptions::default());
    let error = timeout(LIMIT, run).await?.expect_err("a letter is refused");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.report().contains(dead_letter_topic(&topic).as_str()), "{}", error.report());
    let later = records(&*transport, &topic).await?;
    assert!(later.iter().all(|r| number(r) % 5 != 2 || number(r) < 7), "a later letter of its key went first");
    redriven(&*transport, &topic).await?;
    went_back(&*transport, &topic, 0..20).await
}

async fn a_limit_and_a_dry_run_keep_what_they_leave(transport: Arc<dyn Transport>) -> TestResult {
    let transport = &*transport;
    let topic = fresh(transport).await?;
    bury(transport, letters(&topic, 0..20)).await?;
    assert_eq!(redriven_as(transport, &topic, RedriveOptions::default().with_dry_run(true)).await?.redriven, 20);
    assert!(records(transport, &topic).await?.is_empty());
    assert_eq!(redriven_as(transport, &topic, RedriveOptions::default().with_limit(7)).await?.redriven, 7);
    assert_eq!(records(transport, &topic).await?.len(), 7);
    assert_eq!(redriven(transport, &topic).await?.redriven, 13);
    went_back(transport, &topic, 0..20).await?;
    // Asked for, all of them go again.
    let group = Name::from(format!("{}-redrive", service_of(&topic)));
    let again = ResetTo::Place(SeekTo::Earliest);
    transport
        .admin()
        .await?
        .reset_offsets(&group, &[dead_letter_topic(&topic)], again, ResetOffsetsOptions::default())
        .await?;
    assert_eq!(redriven(transport, &topic).await?.redriven, 20);
    Ok(())
}

async fn a_missing_letter_topic_is_named(transport: Arc<dyn Transport>) -> TestResult {
    let error = redrive_topic(&*transport, "nothing-here", "nobodys-service", RedriveOptions::default()).await;
    let error = error.expect_err("there is no such topic");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.report().contains("nothing-here-dlq"), "{}", error.report());
    Ok(())
}

/// A transport whose publisher, after a number of calls, accepts half of a call and then never answers; its commits too.
#[derive(Debug, Clone)]
struct Cut {
    inner: Arc<dyn Transport>,
    calls: Arc<AtomicUsize>,
    reached: Arc<Notify>,
    refused: Option<&'static str>,
}

impl Cut {
    fn new(inner: Arc<dyn Transport>, calls: usize) -> Self {
        Self { inner, calls: Arc::new(AtomicUsize::new(calls)), reached: Arc::default(), refused: None }
    }

    fn refusing(mut self, value: &'static str) -> Self {
        self.refused = Some(value);
        self
    }
}

#[async_trait]
impl Transport for Cut {
    fn system(&self) -> &'static str {
        self.inner.system()
    }
    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        Ok(Arc::new(CutPublisher { inner: self.inner.publisher().await?, cut: self.clone() }))
    }
    async fn consumer(&self, options: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        self.inner.consumer(options).await
    }
    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        self.inner.dead_letters().await
    }
    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        self.inner.admin().await
    }
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

#[derive(Debug)]
struct CutPublisher {
    inner: Arc<dyn Publisher>,
    cut: Cut,
}

#[async_trait]
impl Publisher for CutPublisher {
    async fn publish(&self, mut records: Vec<Record>) -> Vec<Result<Position>> {
        if self.cut.calls.fetch_sub(1, Ordering::SeqCst) <= 1 {
            records.truncate(records.len().div_ceil(2));
            self.inner.publish(records).await;
            self.cut.reached.notify_one();
            return std::future::pending().await;
        }
        let Some(at) = records.iter().position(|r| r.value.as_deref() == self.cut.refused.map(str::as_bytes)) else {
            return self.inner.publish(records).await;
        };
        records.remove(at);
        let mut answers = self.inner.publish(records).await;
        answers.insert(at, Err(Error::new(ErrorKind::TooLarge, "publish")));
        answers
    }
    async fn close(&self, deadline: Duration) -> Result<()> {
        self.inner.close(deadline).await
    }
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}
