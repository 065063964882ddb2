//! Brokers that are gone, frozen or crash at a bad moment: requests end at their deadline, and work resumes by itself
//! as soon as there is a leader.

#[expect(dead_code, reason = "the other test files use the rest")]
mod common;
#[path = "common/kinds.rs"]
mod kinds;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Joined, LIMIT, TestResult, fresh, fresh_name, make};
use tidings_core::{
    Admin, BoxError, ConsumerOptions, Delivery, ErrorKind, Name, PartitionLag, Publisher, Record, ResetOffsetsOptions,
    ResetTo, SeekTo, Topic, Transport, dead_letter_topic, inspect,
};
use tidings_kafka::{KafkaConfig, KafkaTransport, ReaderKind};
use tidings_service::{Router, Service, ServiceHandle, ServiceState, State};
use tidings_testbed::{Kafka, KafkaOptions, Node, Suite};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};

/// Number of partitions of the offsets topic, as set by the testbed.
const OFFSETS_PARTITIONS: i32 = 4;
const PARTITIONS: u32 = 6;
/// Time limit of publishing, reading and committing once there are leaders.
const GOES_ON_WITHIN: Duration = Duration::from_secs(20);
/// Time limit of a connect when one broker of three does not answer.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// The witness gives up on a broker that does not answer sooner than by default.
const WITNESS_REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    Suite::new()
        .with_timeout(Duration::from_secs(240))
        .with_case("a_broker_that_is_gone_is_waited_for_to_the_deadline_alone", gone)
        .with_case("the_first_broker_may_be_frozen", || frozen(Whom::First, Duration::ZERO, ReaderKind::Client))
        .with_case("the_first_broker_may_be_frozen_natively", || {
            frozen(Whom::First, Duration::ZERO, ReaderKind::Native)
        })
        .with_case("the_controller_may_be_frozen", || {
            frozen(Whom::Controller, Duration::from_secs(10), ReaderKind::Client)
        })
        .with_case("the_coordinator_may_be_killed", || coordinator_killed(ReaderKind::Client))
        .with_case("the_coordinator_may_be_killed_natively", || coordinator_killed(ReaderKind::Native))
        .with_case("a_partition_without_a_leader_has_an_unknown_lag_and_the_others_have_theirs", leaderless)
        .with_soak("soak_the_controller_may_be_frozen_for_long", || {
            frozen(Whom::Controller, Duration::from_secs(30), ReaderKind::Client)
        })
        .run()
}

/// Short timeouts, so that the test is short.
fn hasty(kafka: &Kafka) -> KafkaConfig {
    KafkaConfig::new([kafka.bootstrap()])
        .with_request_timeout(Duration::from_secs(3))
        .with_delivery_timeout(Duration::from_secs(6))
}

async fn gone() -> TestResult {
    let kafka = Kafka::start(KafkaOptions::new()).await?;
    let transport = KafkaTransport::connect(hasty(&kafka)).await?;
    let topic = fresh_name("gone");
    let others: Vec<Name> = (0..3).map(|_| fresh_name("unseen")).collect();
    let topics: Vec<Topic> =
        others.iter().chain([&topic, &dead_letter_topic(&topic)]).map(|t| Topic::new(t.clone())).collect();
    // Opened before the topics exist: it does not know them yet.
    let publisher = transport.publisher().await?;
    make(&transport, &topics).await?;
    let handled = Arc::new(AtomicUsize::new(0));
    let handler = async |_: Delivery, State(handled): State<Arc<AtomicUsize>>| -> Result<(), BoxError> {
        handled.fetch_add(1, Ordering::AcqRel);
        Ok(())
    };
    let router = Router::new().on_topic(topic.clone(), handler).with_state(Arc::clone(&handled));
    let service = Service::new(topic.clone(), router).start(&transport).await?;
    publisher.publish(vec![Record::new(topic.clone(), "before")]).await.remove(0)?;
    until("the first is handled", || handled.load(Ordering::Acquire) == 1).await?;
    kafka.node(0).kill()?;
    tokio::try_join!(ends_in_time(&*publisher, &topic, &others), becomes(&service, ServiceState::Degraded))?;
    assert!(!service.status().await.problems.is_empty());
    kafka.node(0).restart().await?;
    becomes(&service, ServiceState::Running).await?;
    publisher.publish(vec![Record::new(topic.clone(), "after")]).await.remove(0)?;
    until("the next is handled", || handled.load(Ordering::Acquire) >= 2).await?;
    service.shutdown(LIMIT).await?;
    Ok(())
}

/// Publishes to known and unknown topics: each call ends at its delivery timeout, whatever else waits.
async fn ends_in_time(publisher: &dyn Publisher, topic: &Name, others: &[Name]) -> TestResult {
    let calls = [
        vec![Record::new(topic.clone(), "known")],
        others.iter().map(|other| Record::new(other.clone(), "unknown")).collect(),
        others.iter().map(|other| Record::new(other.clone(), "again")).collect(),
    ];
    let began = Instant::now();
    let calls = futures_util::future::join_all(calls.into_iter().map(|records| publisher.publish(records)));
    let answers = timeout(LIMIT, calls).await.map_err(|_| "a publish did not end")?;
    for answer in answers.into_iter().flatten() {
        let error = answer.err().ok_or("it was stored, by nobody")?;
        assert!(matches!(error.kind(), ErrorKind::Indeterminate | ErrorKind::Unavailable), "{}", error.report());
    }
    // Six seconds in total, and not for each of them: eighteen.
    assert!(began.elapsed() < Duration::from_secs(17), "{:?}", began.elapsed());
    Ok(())
}

async fn becomes(service: &ServiceHandle, state: ServiceState) -> TestResult {
    let ends = Instant::now() + Duration::from_secs(60);
    loop {
        let status = service.status().await;
        if status.state == state {
            return Ok(());
        }
        if Instant::now() > ends {
            return Err(format!("it did not become {state}: {status:?}").into());
        }
        sleep(LOOK_AGAIN).await;
    }
}

async fn until(what: &str, done: impl Fn() -> bool) -> TestResult {
    let ends = Instant::now() + Duration::from_secs(60);
    while !done() {
        if Instant::now() > ends {
            return Err(format!("not in time: {what}").into());
        }
        sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Whom {
    First,
    Controller,
}

async fn cluster() -> TestResult<Kafka> {
    static CLUSTER: OnceCell<Kafka> = OnceCell::const_new();
    let options = KafkaOptions::new().with_nodes(3).with_property("broker.session.timeout.ms", "3000");
    Ok(CLUSTER.get_or_try_init(|| Kafka::start(options)).await?.clone())
}

/// A publisher and a member opened before the outage.
struct Scene {
    kafka: Kafka,
    publisher: Arc<dyn Publisher>,
    member: Joined,
    topic: Name,
    group: Name,
    round: usize,
}

impl Scene {
    async fn new(what: &str, reader: ReaderKind) -> TestResult<Self> {
        let kafka = cluster().await?;
        let config = kinds::by(reader, KafkaConfig::new(kafka.bootstrap().split(',')));
        let transport = KafkaTransport::connect(config).await?;
        let topic = fresh(&transport, what, PARTITIONS).await?;
        let group = Name::from(format!("{topic}-group"));
        let consumer = transport.consumer(ConsumerOptions::new(group.clone(), [topic.clone()])).await?;
        let mut member = Joined::new(consumer);
        member.patient = true;
        let publisher = transport.publisher().await?;
        let mut scene = Self { kafka, publisher, member, topic, group, round: 0 };
        scene.goes_on(None).await?;
        Ok(scene)
    }

    /// Waits until each partition has accepted a record, and the member has read and committed it. Returns how long
    /// that took from when the brokers other than `ill`, which does not answer, led all partitions.
    async fn goes_on(&mut self, ill: Option<&Node>) -> TestResult<Duration> {
        self.round += 1;
        let (round, topic) = (self.round, self.topic.clone());
        // All brokers are named, as in a program's settings.
        let config = KafkaConfig::new(self.kafka.bootstrap().split(',')).with_request_timeout(WITNESS_REQUEST_TIMEOUT);
        let witness = connected_in_time(config).await?;
        let (leading, publisher) = (witness.clone(), Arc::clone(&self.publisher));
        let ill = ill.map(Node::id);
        let led = tokio::spawn({
            let topics = [topic.clone(), Name::from_static("__consumer_offsets")];
            async move { led_without(&leading, topics, ill).await }
        });
        let published = tokio::spawn(async move { publish_all(&*publisher, &topic, round).await });
        let read = |member: &Joined| {
            let read: BTreeSet<&str> = member.read.iter().map(|(_, value)| &**value).collect();
            (0..PARTITIONS).all(|p| read.contains(&*format!("{round}-{p}")))
        };
        let ends = Instant::now() + Duration::from_secs(60);
        while !(published.is_finished() && read(&self.member) && is_committed(&witness, &self.group).await) {
            if Instant::now() > ends {
                return Err(format!("published: {}, read: {}", published.is_finished(), read(&self.member)).into());
            }
            self.member.step().await?;
        }
        published.await??;
        Ok(Instant::now().saturating_duration_since(timeout(LIMIT, led).await???))
    }

    /// Returns the broker that coordinates the group.
    async fn coordinator(&self) -> TestResult<Node> {
        let hash = self.group.bytes().fold(0_i32, |hash, byte| hash.wrapping_mul(31).wrapping_add(i32::from(byte)));
        let partition = hash.wrapping_abs() % OFFSETS_PARTITIONS;
        let transport = KafkaTransport::connect(KafkaConfig::new(self.kafka.bootstrap().split(','))).await?;
        let offsets = Name::from_static("__consumer_offsets");
        let described = transport.admin().await?.describe_topics(&[offsets]).await?.remove(0)?;
        let leader = described.partitions[usize::try_from(partition)?].leader.ok_or("it is led")?;
        Ok(self.kafka.node_with_id(leader).ok_or("a leader is a node")?.clone())
    }
}

/// Connects within the limit. A late connect is retried once: the machine may have been busy.
async fn connected_in_time(config: KafkaConfig) -> TestResult<KafkaTransport> {
    let mut took = Vec::new();
    for _ in 0..2 {
        let began = Instant::now();
        let connected = KafkaTransport::connect(config.clone()).await;
        took.push(began.elapsed());
        if began.elapsed() < CONNECT_WITHIN {
            return Ok(connected?);
        }
    }
    Err(format!("connecting took {took:?}").into())
}

/// Waits until other brokers lead all partitions; returns the time.
async fn led_without(witness: &KafkaTransport, topics: [Name; 2], ill: Option<i32>) -> TestResult<Instant> {
    let admin = witness.admin().await?;
    loop {
        if let Ok(described) = admin.describe_topics(&topics).await {
            let well = |leader: Option<i32>| leader.is_some() && leader != ill;
            if described.iter().all(|d| d.as_ref().is_ok_and(|d| d.partitions.iter().all(|p| well(p.leader)))) {
                return Ok(Instant::now());
            }
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Retries until each partition has accepted its record.
async fn publish_all(publisher: &dyn Publisher, topic: &Name, round: usize) -> TestResult {
    let mut open: Vec<u32> = (0..PARTITIONS).collect();
    while !open.is_empty() {
        let record = |p: &u32| Record::new(topic.clone(), format!("{round}-{p}")).with_partition(*p);
        let answers = publisher.publish(open.iter().map(record).collect()).await;
        let (mut still, mut wrong) = (Vec::new(), None);
        for (partition, answer) in open.into_iter().zip(answers) {
            if let Err(error) = answer {
                let passes = error.is_retryable() || error.kind() == ErrorKind::Indeterminate;
                wrong = wrong.or((!passes).then_some(error));
                still.push(partition);
            }
        }
        wrong.map_or(Ok(()), Err)?;
        open = still;
    }
    Ok(())
}

async fn is_committed(witness: &KafkaTransport, group: &Name) -> bool {
    let Ok(admin) = witness.admin().await else { return false };
    admin
        .group_lag(group)
        .await
        .is_ok_and(|lag| lag.len() == PARTITIONS as usize && lag.iter().all(|p| p.lag() == Some(0)))
}

async fn frozen(whom: Whom, at_least: Duration, reader: ReaderKind) -> TestResult {
    let mut scene = Scene::new("frozen", reader).await?;
    let node = match whom {
        Whom::First => scene.kafka.node(0).clone(),
        Whom::Controller => {
            let controller = scene.kafka.controller().await?;
            scene.kafka.node_with_id(controller).ok_or("a controller is a node")?.clone()
        }
    };
    node.pause()?;
    let began = Instant::now();
    let took = scene.goes_on(Some(&node)).await;
    if took.is_err() {
        // The next test must not be affected.
        node.resume()?;
    }
    let took = took?;
    println!("{whom:?} frozen: going on {took:?} after there were leaders, {:?} after it froze", began.elapsed());
    while began.elapsed() < at_least {
        scene.goes_on(Some(&node)).await?;
    }
    node.resume()?;
    scene.kafka.wait_for_brokers(3).await?;
    scene.goes_on(None).await?;
    scene.member.consumer.close().await?;
    assert!(took < GOES_ON_WITHIN, "{took:?}");
    Ok(())
}

async fn coordinator_killed(reader: ReaderKind) -> TestResult {
    let mut scene = Scene::new("coordinated", reader).await?;
    let node = scene.coordinator().await?;
    node.kill()?;
    let began = Instant::now();
    let took = scene.goes_on(Some(&node)).await?;
    println!("the coordinator killed: going on {took:?} after there were leaders, {:?} in all", began.elapsed());
    node.restart().await?;
    scene.kafka.wait_for_brokers(3).await?;
    scene.goes_on(None).await?;
    scene.member.consumer.close().await?;
    assert!(took < GOES_ON_WITHIN, "{took:?}");
    Ok(())
}

async fn leaderless() -> TestResult {
    let kafka = cluster().await?;
    kafka.wait_for_brokers(3).await?;
    let transport = KafkaTransport::connect(KafkaConfig::new(kafka.bootstrap().split(','))).await?;
    let topic = fresh_name("leaderless");
    make(&transport, &[Topic::new(topic.clone()).with_partitions(PARTITIONS).with_replication(1)]).await?;
    let publisher = transport.publisher().await?;
    publish_all(&*publisher, &topic, 0).await?;
    let (admin, group) = (transport.admin().await?, Name::from(format!("{topic}-group")));
    let topics = [topic.clone()];
    admin.reset_offsets(&group, &topics, ResetTo::Position(SeekTo::Earliest), ResetOffsetsOptions::default()).await?;
    assert!(admin.group_lag(&group).await?.iter().all(|p| p.lag() == Some(1)));
    let described = admin.describe_topics(&topics).await?.remove(0)?;
    let leader = described.partitions[0].leader.ok_or("it is led")?;
    let lost: BTreeSet<u32> =
        described.partitions.iter().filter(|p| p.leader == Some(leader)).map(|p| p.partition).collect();
    assert!(lost.len() < PARTITIONS as usize, "{lost:?}");
    let node = kafka.node_with_id(leader).ok_or("a leader is a node")?.clone();
    node.kill()?;
    kafka.wait_for_brokers(2).await?;
    let checked = unknown_lags(&*admin, &group, &lost).await;
    node.restart().await?;
    kafka.wait_for_brokers(3).await?;
    checked
}

/// Waits until exactly the lags of these partitions are unknown.
async fn unknown_lags(admin: &dyn Admin, group: &Name, lost: &BTreeSet<u32>) -> TestResult {
    let ends = Instant::now() + Duration::from_secs(60);
    let asked = std::slice::from_ref(group);
    loop {
        // The group may first need another coordinator.
        let lags = admin.group_lag(group).await;
        let unknown: Option<BTreeSet<u32>> = lags.as_ref().ok().map(|lags| {
            let unknown = |lag: &&PartitionLag| lag.lag().is_none() && lag.committed == Some(0);
            lags.iter().filter(unknown).map(|lag| lag.partition.partition).collect()
        });
        if unknown.as_ref() == Some(lost) {
            let lags = lags?;
            assert_eq!(
                lags.iter().filter_map(PartitionLag::lag).sum::<u64>(),
                (PARTITIONS as usize - lost.len()) as u64
            );
            let found = inspect(admin, &[], asked).await?;
            assert_eq!(
                (found.groups[0].unknown.len(), found.groups[0].lag),
                (lost.len(), lags.iter().filter_map(PartitionLag::lag).sum())
            );
            return Ok(());
        }
        if Instant::now() > ends {
            return Err(format!("expected {lost:?} to be unknown, got {lags:?}").into());
        }
        sleep(LOOK_AGAIN).await;
    }
}
