//! Letters go from a dead-letter topic back to their topic: in order, once, also when a run is cut off; in memory and on
//! Kafka, which is reported ignored where there is none.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidings::admin::ensure_topics;
use tidings::consumer::{ConsumerOptions, Step};
use tidings::dead_letter::{
    DeadLetter, DeadLetters, LetterId, LetterQuery, LetterState, RedriveOptions, RedriveReport, dead_letter_topic,
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

/// With this variable, the program is the command `tidings`: a process that can be killed.
const AS_TOOL: &str = "TIDINGS_TEST_AS_TOOL";
/// The ttl of the letters that a killed command had taken.
const LEASE: &str = "2s";
const REDRIVE: &[&str] = &["redrive", "--rate", "100/s", "--lease", LEASE];
const DISCARD: &[&str] = &["discard", "--reason", "a test"];

/// Returns the service of a test.
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
    if std::env::var_os(AS_TOOL).is_some() {
        return tidings::tool::main([]);
    }
    let suite = Suite::new()
        .with_timeout(LIMIT * 3)
        .with_case("kafka_commands_that_are_killed_and_repeated_redrive_each_letter_once", || killed(REDRIVE, 3))
        .with_case("kafka_commands_that_are_killed_and_repeated_discard_each_letter_once", || killed(DISCARD, 3))
        .with_soak("soak_commands_are_killed_fifty_times", || async {
            killed(REDRIVE, 50).await?;
            killed(DISCARD, 50).await
        });
    cases!(suite;
        letters_go_back_once_and_in_their_keys_order,
        another_handle_takes_only_what_came_since,
        letters_are_listed_discarded_and_parked,
        two_at_once_publish_each_letter_once,
        what_a_run_that_was_cut_off_published_is_found,
        a_letter_that_fails_stays_and_is_named,
        a_limit_and_a_dry_run_keep_what_they_leave,
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
    ensure_topics(&*transport.admin().await?, &[Topic::new(&name).with_partitions(2)]).await?;
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
        assert_eq!((text(record), record.headers.len()), (format!("v{n}"), 5));
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

async fn open(transport: &Arc<dyn Transport>, topic: &Name) -> TestResult<DeadLetters> {
    Ok(timeout(LIMIT, DeadLetters::open(transport, [topic])).await??.with_operator("ann"))
}

async fn redriven(transport: &Arc<dyn Transport>, topic: &Name) -> TestResult<RedriveReport> {
    redriven_as(transport, topic, RedriveOptions::default()).await
}

async fn redriven_as(
    transport: &Arc<dyn Transport>,
    topic: &Name,
    options: RedriveOptions,
) -> TestResult<RedriveReport> {
    let letters = open(transport, topic).await?;
    let report = timeout(LIMIT, letters.redrive(&LetterQuery::default(), &options)).await??;
    letters.close().await?;
    Ok(report)
}

async fn letters_go_back_once_and_in_their_keys_order(transport: Arc<dyn Transport>) -> TestResult {
    let topic = fresh(&*transport).await?;
    bury(&*transport, letters(&topic, 0..30)).await?;
    bury(&*transport, vec![letter("billing", &topic, 3, Some("key-3"))]).await?;
    // A service that died between burying and committing buries again.
    bury(&*transport, letters(&topic, 5..15)).await?;
    let foreign = Record::new(dead_letter_topic(&topic), "a note");
    transport.publisher().await?.publish(vec![foreign]).await.remove(0)?;
    let handle = open(&transport, &topic).await?;
    let query = LetterQuery::default().with_service(service_of(&topic));
    let report = timeout(LIMIT, handle.redrive(&query, &RedriveOptions::default())).await??;
    assert_eq!((report.redriven, report.skipped, report.refused.len()), (30, 0, 0), "{report:?}");
    assert_eq!(handle.count(&LetterQuery::default()).await?, 1, "that of the other service stays");
    went_back(&*transport, &topic, 0..30).await
}

async fn another_handle_takes_only_what_came_since(transport: Arc<dyn Transport>) -> TestResult {
    let topic = fresh(&*transport).await?;
    bury(&*transport, letters(&topic, 0..10)).await?;
    assert_eq!(redriven(&transport, &topic).await?.redriven, 10);
    assert_eq!(redriven(&transport, &topic).await?.redriven, 0);
    // The repeat of a letter that an earlier run took back.
    bury(&*transport, letters(&topic, 8..13)).await?;
    let report = redriven(&transport, &topic).await?;
    assert_eq!((report.redriven, report.skipped), (3, 0), "{report:?}");
    went_back(&*transport, &topic, 0..13).await
}

async fn letters_are_listed_discarded_and_parked(transport: Arc<dyn Transport>) -> TestResult {
    let topic = fresh(&*transport).await?;
    bury(&*transport, letters(&topic, 0..20)).await?;
    let (one, other) = (open(&transport, &topic).await?, open(&transport, &topic).await?);
    let id = |offset| LetterId::new(service_of(&topic), TopicPartition::new(&topic, 0), offset);
    let all = LetterQuery::default();
    assert_eq!(one.list(&all).await?.len(), 20);
    assert_eq!(one.discard(&all.clone().with_ids([id(3), id(4)]), "old").await?, 2);
    assert_eq!(other.park(&all.clone().with_ids([id(3), id(5)]), "later").await?, 1, "the other sees it at once");
    assert_eq!((one.count(&all).await?, other.count(&all).await?), (17, 17));
    let states = [LetterState::Open, LetterState::Parked, LetterState::Closed];
    for (state, count) in states.into_iter().zip([17, 1, 2]) {
        assert_eq!(one.count(&all.clone().with_state(state)).await?, count);
    }
    let shown = one.get(&id(3)).await?.and_then(|letter| letter.resolution).ok_or("it is closed")?;
    assert_eq!((shown.by.as_str(), shown.reason.as_str()), ("ann", "old"));
    one.close().await?;
    other.close().await?;
    Ok(())
}

async fn two_at_once_publish_each_letter_once(transport: Arc<dyn Transport>) -> TestResult {
    let topic = fresh(&*transport).await?;
    bury(&*transport, letters(&topic, 0..40)).await?;
    let (one, other) = (redriven(&transport, &topic), redriven(&transport, &topic));
    let (one, other) = tokio::join!(one, other);
    let (one, other) = (one?, other?);
    assert_eq!(one.redriven + other.redriven, 40, "{one:?} {other:?}");
    went_back(&*transport, &topic, 0..40).await
}

/// Once behind the publishing, once in the midst of it, each time as a killed process leaves it.
async fn what_a_run_that_was_cut_off_published_is_found(transport: Arc<dyn Transport>) -> TestResult {
    let topic = fresh(&*transport).await?;
    bury(&*transport, letters(&topic, 0..40)).await?;
    let options = RedriveOptions::default().with_lease(Duration::from_secs(5));
    let mut found = 0;
    for survives in [2, 3] {
        let cut = Cut::new(transport.publisher().await?, survives);
        let reached = Arc::clone(&cut.reached);
        let store = Arc::clone(open(&transport, &topic).await?.store());
        let handle = DeadLetters::new(store, Arc::new(cut));
        // Letters that the previous run leased are skipped until their leases have expired.
        let run = async {
            loop {
                handle.redrive(&LetterQuery::default(), &options).await?;
            }
        };
        tokio::select! {
            ended = run => return ended,
            () = reached.notified() => {}
            () = tokio::time::sleep(LIMIT) => return Err("it was not cut off".into()),
        }
        let there = records(&*transport, &topic).await?.len();
        assert!(there > found, "nothing was published before the cut");
        found = there;
    }
    let (mut skipped, mut left) = (0, 40);
    let deadline = std::time::Instant::now() + LIMIT;
    while left > 0 {
        assert!(std::time::Instant::now() < deadline, "{left} letters stay");
        let report = redriven_as(&transport, &topic, options.clone()).await?;
        skipped += report.skipped;
        left = open(&transport, &topic).await?.count(&LetterQuery::default()).await?;
    }
    assert!(skipped > 0);
    went_back(&*transport, &topic, 0..40).await
}

async fn a_letter_that_fails_stays_and_is_named(transport: Arc<dyn Transport>) -> TestResult {
    let topic = fresh(&*transport).await?;
    bury(&*transport, letters(&topic, 0..20)).await?;
    let refusing = Cut::new(transport.publisher().await?, usize::MAX).refusing("v7");
    let store = Arc::clone(open(&transport, &topic).await?.store());
    let handle = DeadLetters::new(store, Arc::new(refusing));
    let report = timeout(LIMIT, handle.redrive(&LetterQuery::default(), &RedriveOptions::default())).await??;
    let refused: Vec<_> = report.refused.iter().map(|(id, error)| (id.offset, error.kind())).collect();
    assert_eq!((refused, report.behind), (vec![(7, ErrorKind::TooLarge)], 2));
    let later = records(&*transport, &topic).await?;
    assert!(later.iter().all(|r| number(r) % 5 != 2 || number(r) < 7), "a later letter of its key went first");
    redriven(&transport, &topic).await?;
    went_back(&*transport, &topic, 0..20).await
}

async fn a_limit_and_a_dry_run_keep_what_they_leave(transport: Arc<dyn Transport>) -> TestResult {
    let topic = fresh(&*transport).await?;
    bury(&*transport, letters(&topic, 0..20)).await?;
    let options = RedriveOptions::default;
    assert_eq!(redriven_as(&transport, &topic, options().with_dry_run(true)).await?.redriven, 20);
    assert!(records(&*transport, &topic).await?.is_empty());
    assert_eq!(redriven_as(&transport, &topic, options().with_limit(7)).await?.redriven, 7);
    assert_eq!(records(&*transport, &topic).await?.len(), 7);
    assert_eq!(redriven(&transport, &topic).await?.redriven, 13);
    went_back(&*transport, &topic, 0..20).await
}

/// A publisher that, after a number of calls, accepts half of a call and then never answers.
#[derive(Debug)]
struct Cut {
    inner: Arc<dyn Publisher>,
    calls: AtomicUsize,
    reached: Arc<Notify>,
    refused: Option<&'static str>,
}

impl Cut {
    fn new(inner: Arc<dyn Publisher>, calls: usize) -> Self {
        Self { inner, calls: AtomicUsize::new(calls), reached: Arc::default(), refused: None }
    }

    fn refusing(mut self, value: &'static str) -> Self {
        self.refused = Some(value);
        self
    }
}

#[async_trait]
impl Publisher for Cut {
    async fn publish(&self, mut records: Vec<Record>) -> Vec<Result<Position>> {
        if self.calls.fetch_sub(1, Ordering::SeqCst) <= 1 {
            records.truncate(records.len().div_ceil(2));
            self.inner.publish(records).await;
            self.reached.notify_one();
            return std::future::pending().await;
        }
        let Some(at) = records.iter().position(|r| r.value.as_deref() == self.refused.map(str::as_bytes)) else {
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

/// Runs a verb of the command on all letters of a topic, in two processes at once that are killed, until it resolved
/// them all. Its first runs are killed.
async fn killed(verb: &'static [&'static str], kills: usize) -> TestResult {
    let transport = kafka().await?;
    let topic = fresh(&*transport).await?;
    let count = 20 * kills.clamp(5, 50) as u64;
    bury(&*transport, letters(&topic, 0..count)).await?;
    let url = format!("kafka://{}", Kafka::shared().await?.bootstrap());
    let command = || {
        let mut command = tokio::process::Command::new(std::env::current_exe()?);
        command.env(AS_TOOL, "1").env("TIDINGS_URL", &url).kill_on_drop(true);
        command.args(["dead-letter"]).args(verb).args(["--topic", topic.as_str(), "--execute", "--quiet"]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
        Ok::<_, std::io::Error>(command)
    };
    let (mut killed, mut left) = (0, count);
    let ends = tokio::time::Instant::now() + LIMIT * kills.max(2) as u32;
    while left > 0 {
        assert!(tokio::time::Instant::now() < ends, "{left} letters stay");
        // Two operators at once; each process dies at another moment of its work.
        let mut both = [command()?.spawn()?, command()?.spawn()?];
        if killed < kills {
            tokio::time::sleep(Duration::from_millis(150 + 97 * (killed as u64 % 11))).await;
            for one in &mut both {
                one.kill().await?;
            }
            killed += 2;
        }
        for one in both {
            timeout(LIMIT, one.wait_with_output()).await??;
        }
        let open = DeadLetters::open(&transport, [topic.clone()]).await?;
        left = open.count(&LetterQuery::default()).await?;
        open.close().await?;
    }
    let closed = DeadLetters::open(&transport, [topic.clone()]).await?;
    assert_eq!(closed.count(&LetterQuery::default().with_state(LetterState::Closed)).await?, count);
    closed.close().await?;
    if verb == REDRIVE {
        return went_back(&*transport, &topic, 0..count).await;
    }
    assert!(records(&*transport, &topic).await?.is_empty(), "a discarded letter is not published");
    Ok(())
}
