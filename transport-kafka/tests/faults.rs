//! Clauses that require a fault: a proxy in front of a broker, and unreachable brokers.

#[expect(dead_code, reason = "the other test files use the rest")]
mod common;
#[path = "common/kinds.rs"]
mod kinds;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use common::{LIMIT, TestResult, assigned, fresh, fresh_name, make, published, records};
use tidings_conformance::{Setup, Verdict, transport};
use tidings_core::{
    Commit, Consumer, ConsumerOptions, CreatePartitionsOptions, Error, ErrorKind, Record, Result, Step, Topic,
    TopicPartition, Transport,
};
use tidings_kafka::{GroupProtocol, KafkaConfig, KafkaTransport, ReaderKind};
use tidings_testbed::{Cut, Kafka, KafkaOptions, Listener, Proxy, Suite};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};

/// Name parts of the cases that inject faults.
const BREAKING: [&str; 10] = [
    "below_the_start",
    "outage",
    "lost_answer",
    "lost_session",
    "loses_no_loss",
    "nobody_answers",
    "is_gone",
    "_gap",
    "counts_gaps",
    "restart",
];
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Session timeout of a member, and of the cluster's groups.
const SESSION: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let mut suite = Suite::new().with_timeout(Duration::from_secs(150));
    let (newer, older, client) = (GroupProtocol::Consumer, GroupProtocol::Classic, ReaderKind::Client);
    let modes = [("kip-848", newer, client), ("classic", older, client), ("native", newer, ReaderKind::Native)];
    for (name, protocol, reader) in modes {
        let ends_a_session = |case: &str| case.contains("lost_session") || case.contains("loses_no_loss");
        // No hook creates gaps, or ends a session whose timeout a classic member chose. X is disclaimed.
        let classic = protocol == GroupProtocol::Classic;
        let unhooked = |case: &str| case.contains("gap") || case.starts_with('x') || classic && ends_a_session(case);
        let breaking = |case: &&str| BREAKING.iter().any(|part| case.contains(part)) && !unhooked(case);
        for case in transport::names().into_iter().filter(breaking) {
            suite = suite.with_case(&format!("{name}::{case}"), move || check(protocol, reader, case));
        }
    }
    for (name, protocol) in [("kip-848", newer), ("classic", older)] {
        let case = format!("{name}::a_member_comes_back_after_an_outage_longer_than_its_session");
        suite = suite.with_case(&case, move || outage_beyond_the_session(protocol));
        let case = format!("{name}::a_member_lives_while_all_threads_are_blocked");
        suite = suite.with_case(&case, move || blocked_threads(protocol));
    }
    suite = suite.with_case("a_member_is_lost_when_its_session_ends_at_the_broker", session_of_the_broker);
    suite = suite.with_case("split_batches_are_not_resent_while_no_broker_answers", no_resending_without_a_broker);
    suite = suite.with_case("a_partition_that_no_broker_tells_of_may_be_there", an_untold_partition);
    suite = suite.with_case("a_partition_without_a_leader_keeps_no_other_from_starting", a_partition_without_a_leader);
    suite = suite.with_case("a_broker_that_breaks_off_is_not_the_only_one_asked", a_broker_that_breaks_off);
    suite.with_case("an_absent_broker_is_named_in_time", an_absent_broker_is_named_in_time).run()
}

async fn cluster() -> TestResult<Kafka> {
    static CLUSTER: OnceCell<Kafka> = OnceCell::const_new();
    let millis = SESSION.as_millis().to_string();
    let options = KafkaOptions::new().with_proxies().with_property("group.consumer.session.timeout.ms", millis);
    Ok(CLUSTER.get_or_try_init(|| Kafka::start(options)).await?.clone())
}

async fn check(protocol: GroupProtocol, reader: ReaderKind, case: &'static str) -> TestResult {
    let kafka = cluster().await?;
    let verdict = tokio::task::spawn_blocking(move || transport::check(setup(&kafka, protocol, reader), case)).await?;
    match verdict {
        Verdict::Passed => Ok(()),
        Verdict::Ignored(why) => Err(tidings_testbed::Error::unavailable(why).into()),
        failed => Err(failed.to_string().into()),
    }
}

fn proxy(kafka: &Kafka) -> Result<&Proxy> {
    kafka.node(0).proxy().ok_or_else(|| Error::new(ErrorKind::Unsupported, "there is no proxy"))
}

fn setup(kafka: &Kafka, protocol: GroupProtocol, reader: ReaderKind) -> Setup<KafkaTransport> {
    let open = {
        let kafka = kafka.clone();
        move || {
            let kafka = kafka.clone();
            async move { KafkaTransport::connect(kinds::by(reader, config(&kafka, protocol)?)).await }
        }
    };
    let (outage, answers, session, records) = (kafka.clone(), kafka.clone(), kafka.clone(), kafka.clone());
    let again = open.clone();
    Setup::new("faults", open)
        .with_lifetime(SESSION)
        .with_patience(Duration::from_secs(60))
        .with_outage(move |_, down| {
            std::future::ready(proxy(&outage).map(|p| if down { p.refuse() } else { p.resume() }))
        })
        .with_lost_answers(move |_, lost| lose_answers(answers.clone(), lost))
        .with_session_loss(move |_, _| end_sessions(session.clone(), protocol))
        .with_deleted_records(move |_, at, range| delete(records.clone(), at, range))
        .with_reopen(move |_closed| again())
}

fn config(kafka: &Kafka, protocol: GroupProtocol) -> Result<KafkaConfig> {
    let failed = |e| Error::caused_by(ErrorKind::Failed, "find the proxy", e);
    let brokers = kafka.bootstrap_on(Listener::Proxied).map_err(failed)?;
    let (config, limit) = (KafkaConfig::new(brokers.split(',')), Duration::from_secs(2));
    let config = config.with_group_protocol(protocol).with_request_timeout(limit).with_connect_timeout(limit);
    Ok(config.with_delivery_timeout(Duration::from_secs(8)))
}

async fn lose_answers(kafka: Kafka, lost: bool) -> Result<()> {
    const PRODUCE: i16 = 0;
    let proxy = proxy(&kafka)?;
    if lost {
        // On each attempt: a retry must not be answered, either.
        proxy.cut_at(Cut::before_answer(1).to_api(PRODUCE).repeated());
    } else {
        proxy.resume();
    }
    Ok(())
}

/// Blocks heartbeats for longer than the session timeout.
async fn end_sessions(kafka: Kafka, protocol: GroupProtocol) -> Result<()> {
    if protocol == GroupProtocol::Classic {
        // The member chose that session timeout, and it is far longer than a test.
        return Err(Error::new(ErrorKind::Unsupported, "end a session that the member chose"));
    }
    let proxy = proxy(&kafka)?;
    proxy.refuse();
    sleep(SESSION * 2).await;
    proxy.resume();
    Ok(())
}

async fn delete(kafka: Kafka, at: TopicPartition, range: std::ops::Range<u64>) -> Result<()> {
    let failed = |e| Error::caused_by(ErrorKind::Failed, "delete records", e);
    let kafka_transport = KafkaTransport::connect(config(&kafka, GroupProtocol::Auto)?).await?;
    let described = kafka_transport.admin().await?.describe_topics(std::slice::from_ref(&at.topic)).await?;
    let oldest =
        described.into_iter().next().map_or(Ok(0), |d| d.map(|d| d.partitions[at.partition as usize].start))?;
    if range.start > oldest {
        return Err(Error::new(ErrorKind::Unsupported, "delete records in the midst of a log"));
    }
    let file = std::env::temp_dir().join(format!("tidings-delete-{}-{}.json", std::process::id(), at.topic));
    let text = format!(
        r#"{{"partitions":[{{"topic":"{}","partition":{},"offset":{}}}],"version":1}}"#,
        at.topic, at.partition, range.end
    );
    std::fs::write(&file, text).map_err(|e| Error::caused_by(ErrorKind::Failed, "delete records", e))?;
    let args = ["--bootstrap-server", "@", "--offset-json-file", &file.display().to_string()];
    let deleted = kafka.tool("org.apache.kafka.tools.DeleteRecordsCommand", &args).await.map_err(failed);
    let _left = std::fs::remove_file(&file);
    deleted.map(drop)
}

/// Reads steps until `partitions` partitions are lost, and an attempt to join again has failed.
async fn joins_in_vain(consumer: &dyn Consumer, partitions: usize, protocol: GroupProtocol) -> TestResult {
    // A classic member's join waits silently; the liveness check reports the failure.
    let attempt = if protocol == GroupProtocol::Classic { "committed offsets" } else { "join the group" };
    let mut lost = 0;
    let ends = Instant::now() + LIMIT;
    loop {
        let left = ends.saturating_duration_since(Instant::now());
        match timeout(left, consumer.next()).await.map_err(|_| "no attempt to join was told")? {
            Ok(Step::Lost(partitions)) => lost += partitions.len(),
            Err(error) if lost == partitions && error.report().contains(attempt) => return Ok(()),
            Err(error) if error.is_retryable() => {}
            other => return Err(format!("expected a loss, got {other:?}").into()),
        }
    }
}

/// No broker is reachable when the member joins again: it retries until one is.
async fn outage_beyond_the_session(protocol: GroupProtocol) -> TestResult {
    let kafka = cluster().await?;
    let transport = KafkaTransport::connect(config(&kafka, protocol)?).await?;
    let topic = fresh(&transport, "outage", 2).await?;
    let options = ConsumerOptions::new(format!("{topic}-group"), [topic.clone()]).with_session_timeout(SESSION);
    let consumer = transport.consumer(options).await?;
    assigned(&*consumer, 2).await?;
    proxy(&kafka)?.refuse();
    let joined_in_vain = joins_in_vain(&*consumer, 2, protocol).await;
    // The next test must not be affected.
    proxy(&kafka)?.resume();
    joined_in_vain?;
    let mut back = 0;
    while back < 2 {
        match timeout(LIMIT, consumer.next()).await.map_err(|_| "it has no partitions")? {
            Ok(Step::Assigned(given)) => back += given.len(),
            Err(error) if error.is_retryable() => {}
            other => return Err(format!("expected partitions, got {other:?}").into()),
        }
    }
    published(&transport, (0..2).map(|p| Record::new(topic.clone(), "after").with_partition(p)).collect()).await?;
    records(&*consumer, 2).await?;
    consumer.close().await?;
    Ok(())
}

/// Handlers block their threads for longer than the session timeout.
async fn blocked_threads(protocol: GroupProtocol) -> TestResult {
    let kafka = cluster().await?;
    let blocked = async move {
        let transport = KafkaTransport::connect(config(&kafka, protocol)?).await?;
        let topic = fresh(&transport, "blocked", 1).await?;
        let options = ConsumerOptions::new(format!("{topic}-group"), [topic.clone()]).with_session_timeout(SESSION);
        let consumer = transport.consumer(options).await?;
        let given = assigned(&*consumer, 1).await?.remove(0);
        std::thread::sleep(SESSION * 2);
        published(&transport, vec![Record::new(topic, "after")]).await?;
        match common::next(&*consumer).await? {
            Step::Records(fetched) => assert_eq!(fetched.epoch, given.epoch),
            other => return Err(format!("expected the record, got {other:?}").into()),
        }
        consumer.commit(vec![Commit::new(given.partition, given.epoch, 1)]).await.remove(0)?;
        consumer.close().await?;
        TestResult::Ok(())
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::spawn_blocking(move || runtime.block_on(blocked)).await?
}

/// With the newer protocol the session timeout is the group's, whatever the member requests.
async fn session_of_the_broker() -> TestResult {
    let kafka = cluster().await?;
    let transport = KafkaTransport::connect(config(&kafka, GroupProtocol::Consumer)?).await?;
    let topic = fresh(&transport, "session", 1).await?;
    let options = ConsumerOptions::new(format!("{topic}-group"), [topic]).with_session_timeout(LIMIT * 2);
    let consumer = transport.consumer(options).await?;
    assigned(&*consumer, 1).await?;
    proxy(&kafka)?.refuse();
    let lost = async {
        loop {
            match consumer.next().await {
                Ok(Step::Lost(partitions)) => break Ok(partitions.len()),
                Err(error) if error.is_retryable() => {}
                other => break Err(format!("expected a loss, got {other:?}")),
            }
        }
    };
    let lost = timeout(SESSION * 3, lost).await;
    proxy(&kafka)?.resume();
    assert_eq!(lost.map_err(|_| "it is not lost in time")??, 1);
    consumer.close().await?;
    Ok(())
}

/// One of three brokers is gone, and with it the only replica of a partition.
async fn a_partition_without_a_leader() -> TestResult {
    let kafka =
        Kafka::start(KafkaOptions::new().with_nodes(3).with_property("broker.session.timeout.ms", "3000")).await?;
    let transport = KafkaTransport::connect(KafkaConfig::new(kafka.bootstrap().split(','))).await?;
    let topic = fresh_name("leaderless");
    make(&transport, &[Topic::new(topic.clone()).with_partitions(3).with_replication(1)]).await?;
    published(&transport, (0..3).map(|p| Record::new(topic.clone(), "v").with_partition(p)).collect()).await?;
    kafka.node(2).kill()?;
    let consumer = transport.consumer(ConsumerOptions::new(format!("{topic}-group"), [topic.clone()])).await?;
    let (mut given, mut read, mut named) = (0, 0, false);
    let ends = Instant::now() + LIMIT;
    while given < 2 || read < 2 || !named {
        let left = ends.saturating_duration_since(Instant::now());
        match timeout(left, consumer.next()).await.map_err(|_| format!("{given} given, {read} read, {named}"))? {
            Ok(Step::Assigned(assignments)) => given += assignments.len(),
            Ok(Step::Records(fetched)) => read += fetched.batch.records().len(),
            Err(error) if error.is_retryable() => named |= error.report().contains(topic.as_str()),
            other => return Err(format!("expected partitions, got {other:?}").into()),
        }
    }
    kafka.node(2).restart().await?;
    while given < 3 || read < 3 {
        match timeout(LIMIT, consumer.next()).await.map_err(|_| "the third does not come back")? {
            Ok(Step::Assigned(assignments)) => given += assignments.len(),
            Ok(Step::Records(fetched)) => read += fetched.batch.records().len(),
            Err(error) if error.is_retryable() => {}
            other => return Err(format!("expected a partition, got {other:?}").into()),
        }
    }
    // It does not hide the progress of the others, either.
    consumer.pause(&(0..3).map(|p| TopicPartition::new(topic.clone(), p)).collect::<Vec<_>>()).await?;
    for _ in 0..2 {
        // A fetch in flight takes the first one of each.
        published(&transport, (0..3).map(|p| Record::new(topic.clone(), "v").with_partition(p)).collect()).await?;
    }
    kafka.node(2).kill()?;
    let progress = consumer.progress().await?;
    assert_eq!(progress.iter().filter(|p| p.end == 3).count(), 2, "{progress:?}");
    consumer.close().await?;
    Ok(())
}

/// The batches of a call are split, because the topic only accepts smaller ones; then the brokers stop answering.
async fn no_resending_without_a_broker() -> TestResult {
    const RECORDS: usize = 2_000;
    // The topic's limit holds 15 records of these. One batch is unanswered at a time, but while the answers end one
    // after the other, each lets the next batch be sent: two are usual, and a busy machine may add some.
    const IN_FLIGHT: usize = 5 * 15;
    let kafka = cluster().await?;
    let direct = KafkaTransport::connect(KafkaConfig::new([kafka.bootstrap()])).await?;
    let (topic, config) = (fresh_name("narrow"), config(&kafka, GroupProtocol::Auto)?);
    make(&direct, &[Topic::new(topic.clone()).with_max_record_bytes(16 << 10)]).await?;
    let patience = 2 * config.delivery_timeout + SESSION;
    let config = config.with_linger(Duration::from_millis(200));
    let too_large = Record::new(topic.clone(), vec![7_u8; config.max_record_bytes]);
    let publisher = KafkaTransport::connect(config).await?.publisher().await?;
    let (admin, names) = (direct.admin().await?, [topic.clone()]);
    let records = (0..RECORDS).map(|_| Record::new(topic.clone(), vec![7_u8; 1 << 10])).collect();
    let publishing = tokio::spawn({
        let publisher = Arc::clone(&publisher);
        async move { publisher.publish(records).await }
    });
    let end = async || TestResult::Ok(admin.describe_topics(&names).await?.remove(0)?.partitions[0].end as usize);
    while end().await? == 0 {
        assert!(!publishing.is_finished(), "it ends too soon");
    }
    proxy(&kafka)?.refuse();
    let began = Instant::now();
    let other = timeout(LIMIT, publisher.publish(vec![too_large])).await;
    let other_took = began.elapsed();
    let answers = timeout(patience, publishing).await;
    // The next test must not be affected.
    proxy(&kafka)?.resume();
    assert_eq!(other.map_err(|_| "it hangs")?.remove(0).map_err(|e| e.kind()), Err(ErrorKind::TooLarge));
    assert!(other_took < Duration::from_secs(4), "what needs no broker waited {other_took:?}");
    let answers = answers.map_err(|_| "it goes on")??;
    let count = |wanted: &[Option<ErrorKind>]| {
        answers.iter().filter(|answer| wanted.contains(&answer.as_ref().err().map(Error::kind))).count()
    };
    let (stored, open) = (count(&[None]), count(&[Some(ErrorKind::Indeterminate)]));
    assert!(open <= IN_FLIGHT && stored + open + count(&[Some(ErrorKind::Unavailable)]) == RECORDS, "{answers:?}");
    assert!((stored..=stored + open).contains(&end().await?), "{stored} are stored, and {open} may be");
    publisher.publish(vec![Record::new(topic, "after")]).await.remove(0)?;
    Ok(())
}

/// A topic has grown, and records name its new partition before any broker reports it.
async fn an_untold_partition() -> TestResult {
    let kafka = cluster().await?;
    let direct = KafkaTransport::connect(KafkaConfig::new([kafka.bootstrap()])).await?;
    let topic = fresh(&direct, "untold", 3).await?;
    let publisher = KafkaTransport::connect(config(&kafka, GroupProtocol::Auto)?).await?.publisher().await?;
    let named = |partition| Record::new(topic.clone(), "v").with_partition(partition);
    publisher.publish(vec![named(2)]).await.remove(0)?;
    let (admin, names) = (direct.admin().await?, [topic.clone()]);
    admin.create_partitions(&topic, 6, CreatePartitionsOptions::default().with_rekeying()).await?;
    let ends = Instant::now() + LIMIT;
    while admin.describe_topics(&names).await?.remove(0)?.partitions.len() < 6 {
        assert!(Instant::now() < ends, "it does not grow");
    }
    proxy(&kafka)?.black_hole();
    let began = Instant::now();
    let answers = timeout(LIMIT, publisher.publish(vec![named(5); 20])).await;
    // The next test must not be affected.
    proxy(&kafka)?.resume();
    for answer in answers.map_err(|_| "it hangs")? {
        assert_eq!(answer.map_err(|e| e.kind()), Err(ErrorKind::Unavailable));
    }
    assert!(began.elapsed() < Duration::from_secs(5), "each asks: {:?}", began.elapsed());
    let ends = Instant::now() + LIMIT;
    let position = loop {
        match publisher.publish(vec![named(5)]).await.remove(0) {
            Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() < ends => sleep(LOOK_AGAIN).await,
            answer => break answer?,
        }
    };
    assert_eq!(position.partition, 5);
    assert_eq!(publisher.publish(vec![named(6)]).await.remove(0).map_err(|e| e.kind()), Err(ErrorKind::NotFound));
    Ok(())
}

async fn an_absent_broker_is_named_in_time() -> TestResult {
    let began = Instant::now();
    let config = KafkaConfig::new(["127.0.0.1:1"]).with_connect_timeout(Duration::from_secs(2));
    let error = KafkaTransport::connect(config).await.map(drop).expect_err("nobody is there");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    Ok(())
}

/// The connection is accepted, and ends before the first metadata: the next attempt is part of the same connect.
async fn a_broker_that_breaks_off() -> TestResult {
    const METADATA: i16 = 3;
    let kafka = cluster().await?;
    let proxy = kafka.node(0).proxy().ok_or("there is a proxy")?;
    let cuts = proxy.counts().cuts;
    proxy.cut_at(Cut::before_answer(1).to_api(METADATA));
    let config = KafkaConfig::new([kafka.bootstrap_on(Listener::Proxied)?]);
    KafkaTransport::connect(config).await?;
    assert_eq!(proxy.counts().cuts, cuts + 1, "the first metadata request is cut off");
    Ok(())
}
