//! Partitions that stop returning records while they are read: the broker refuses a reader's connection, or the right
//! to read is revoked.

#[expect(dead_code, reason = "the other test files use the rest")]
mod common;
#[path = "common/traces.rs"]
mod traces;

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::{LIMIT, TestResult, assigned, fresh, records};
use tidings_core::{Consumer, ConsumerOptions, ErrorKind, Name, Publisher, Record, Transport};
use tidings_kafka::{KafkaConfig, KafkaTransport, Sasl};
use tidings_testbed::{Cut, Kafka, KafkaOptions, Listener, Suite};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout_at};
use traces::Traces;

const PARTITIONS: u32 = 4;
/// The key of the fetch API.
const FETCH: i16 = 1;
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const SECOND: &str = "opened a second connection for fetching";
const SHUT: &str = "does not answer one of the consumer's connections";

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn main() -> ExitCode {
    let note = |line: &str| {
        if line.contains(SECOND) || line.contains(SHUT) {
            LINES.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
        }
    };
    if Traces::install(note).is_err() {
        return ExitCode::FAILURE;
    }
    Suite::new()
        .with_timeout(Duration::from_secs(150))
        .with_case("another_connection_takes_over_from_one_that_is_refused", a_refused_connection)
        .with_case("a_right_that_is_taken_away_is_denied_by_next", a_right_taken_away)
        .run()
}

fn noted(part: &str) -> usize {
    LINES.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|line| line.contains(part)).count()
}

async fn cluster() -> TestResult<Kafka> {
    static CLUSTER: OnceCell<Kafka> = OnceCell::const_new();
    let options = KafkaOptions::new().with_sasl().with_acls().with_proxies();
    Ok(CLUSTER.get_or_try_init(|| Kafka::start(options)).await?.clone())
}

fn at(kafka: &Kafka, listener: Listener) -> TestResult<KafkaConfig> {
    Ok(KafkaConfig::new(kafka.bootstrap_on(listener)?.split(',')))
}

async fn publish(publisher: &dyn Publisher, topic: &Name) -> TestResult {
    let record = |p| Record::new(topic.clone(), "v").with_partition(p);
    for answer in publisher.publish((0..PARTITIONS).map(record).collect()).await {
        answer?;
    }
    Ok(())
}

async fn round(publisher: &dyn Publisher, topic: &Name, consumer: &dyn Consumer) -> TestResult {
    publish(publisher, topic).await?;
    records(consumer, PARTITIONS as usize).await.map(drop)
}

async fn a_refused_connection() -> TestResult {
    let kafka = cluster().await?;
    let direct = KafkaTransport::connect(at(&kafka, Listener::Plain)?).await?;
    let (topic, publisher) = (fresh(&direct, "refused", PARTITIONS).await?, direct.publisher().await?);
    let proxied = KafkaTransport::connect(at(&kafka, Listener::Proxied)?).await?;
    let consumer = proxied.consumer(ConsumerOptions::new(format!("{topic}-group"), [topic.clone()])).await?;
    assigned(&*consumer, PARTITIONS as usize).await?;
    let ends = Instant::now() + LIMIT;
    while noted(SECOND) == 0 {
        assert!(Instant::now() < ends, "there is no second connection");
        sleep(LOOK_AGAIN).await;
    }
    // Both readers have their connections by then.
    round(&*publisher, &topic, &*consumer).await?;
    round(&*publisher, &topic, &*consumer).await?;
    let proxy = kafka.node(0).proxy().ok_or("there is a proxy")?;
    let cuts = proxy.counts().cuts;
    proxy.refuse_new();
    proxy.cut_at(Cut::before_answer(1).to_api(FETCH));
    let read = async {
        round(&*publisher, &topic, &*consumer).await?;
        proxy.wait_for_cuts(cuts + 1, LIMIT).await?;
        round(&*publisher, &topic, &*consumer).await
    };
    let read = read.await;
    proxy.resume();
    read?;
    assert_eq!(noted(SHUT), 1, "it is said once");
    consumer.close().await?;
    Ok(())
}

async fn a_right_taken_away() -> TestResult {
    let kafka = cluster().await?;
    let owner = KafkaTransport::connect(at(&kafka, Listener::Plain)?).await?;
    let (topic, publisher) = (fresh(&owner, "taken", PARTITIONS).await?, owner.publisher().await?);
    let group = format!("{topic}-group");
    kafka.allow("bob", "Read", &["--topic", &topic, "--group", &group]).await?;
    // The right to describe the topic stays: only the right to read it is missing then.
    kafka.allow("bob", "Describe", &["--topic", &topic]).await?;
    let bob = at(&kafka, Listener::Sasl)?.with_sasl(Sasl::plain("bob", "bob-secret"));
    let bob = KafkaTransport::connect(bob).await?;
    let consumer = bob.consumer(ConsumerOptions::new(group, [topic.clone()])).await?;
    assigned(&*consumer, PARTITIONS as usize).await?;
    round(&*publisher, &topic, &*consumer).await?;
    let class = "org.apache.kafka.tools.AclCommand";
    let remove = ["--bootstrap-server", "@", "--remove", "--force", "--allow-principal", "User:bob"];
    kafka.tool(class, &[&remove[..], &["--operation", "Read", "--topic", &topic]].concat()).await?;
    let ends = Instant::now() + LIMIT;
    let error = loop {
        match timeout_at(ends, consumer.next()).await.map_err(|_| "nothing was refused")? {
            Err(error) if error.is_retryable() => {}
            Err(error) => break error,
            Ok(step) => println!("still read: {step:?}"),
        }
    };
    println!("{}", error.report());
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.report());
    assert!(error.report().contains(topic.as_str()), "{}", error.report());
    consumer.close().await?;
    Ok(())
}
