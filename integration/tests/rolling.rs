//! A rolling restart of three instances on a real Kafka, under a steady load, driven by `/readyz` alone: nothing is lost,
//! nothing is doubled, and no partition is without an owner for longer than rebalances take. Ignored where there is no
//! Kafka.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidings::admin::{Admin, ensure_topics};
use tidings::kafka::{KafkaConfig, KafkaTransport};
use tidings::ops::{Ops, OpsHandle};
use tidings::record::{Name, Timestamp, TopicPartition};
use tidings::{BoxError, Delivery, Record, Router, Service, ServiceHandle, State, Topic, Transport};
use tidings_integration::get;
use tidings_testbed::{Kafka, Suite};
use tokio::time::{Instant, sleep, timeout};

type TestResult<T = ()> = Result<T, BoxError>;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);
/// The time between two looks.
const PERIOD: Duration = Duration::from_millis(50);
const INSTANCES: usize = 3;
const PARTITIONS: usize = 6;
/// A restart is two rebalances, and the group may take up the next one before it has settled.
const REBALANCES: u32 = 3;

fn main() -> ExitCode {
    Suite::new().with_case("a_rolling_restart_by_readyz_loses_and_doubles_nothing", rolls).run()
}

/// How often each record was handled.
type Ledger = Arc<Mutex<HashMap<String, usize>>>;

async fn enter(delivery: Delivery, State(ledger): State<Ledger>) {
    // Some deliveries are in flight whenever an instance ends.
    sleep(Duration::from_millis(20)).await;
    let value = String::from_utf8_lossy(delivery.record().value.as_deref().unwrap_or_default()).into_owned();
    *ledger.lock().unwrap_or_else(PoisonError::into_inner).entry(value).or_default() += 1;
}

/// The service as it is deployed.
struct Deployment {
    bootstrap: String,
    topic: Name,
    ledger: Ledger,
}

struct Instance {
    service: ServiceHandle,
    ops: OpsHandle,
}

impl Deployment {
    async fn connect(&self) -> TestResult<KafkaTransport> {
        Ok(KafkaTransport::connect(KafkaConfig::new(self.bootstrap.split(','))).await?)
    }

    fn group(&self) -> Name {
        format!("{}-group", self.topic).into()
    }

    /// Starts an instance, and waits for its readiness alone.
    async fn start(&self) -> TestResult<Instance> {
        let router = Router::new().on_topic(self.topic.clone(), enter).with_state(self.ledger.clone());
        let service = Service::new(self.topic.clone(), router).start(&self.connect().await?).await?;
        let ops = Ops::new().with_service(&service).serve("127.0.0.1:0")?;
        let (begun, address) = (Instant::now(), ops.local_addr().to_string());
        loop {
            let (code, body) = get(&address, "/readyz")?;
            if code == 200 {
                return Ok(Instance { service, ops });
            }
            assert!(begun.elapsed() < LIMIT, "it does not get ready: {body}");
            sleep(PERIOD).await;
        }
    }

    /// Publishes a steady load until it is stopped; returns the number of records.
    async fn load(&self, stopped: &AtomicBool) -> TestResult<usize> {
        let publisher = self.connect().await?.publisher().await?;
        let mut count = 0;
        while !stopped.load(Ordering::Relaxed) {
            let record = |n: usize| Record::new(&self.topic, n.to_string()).with_key((n % 50).to_string());
            for answer in publisher.publish((count..count + 10).map(record).collect()).await {
                answer?;
            }
            count += 10;
            sleep(PERIOD).await;
        }
        Ok(count)
    }
}

impl Instance {
    /// Ends it as a signal does.
    async fn stop(self) -> TestResult {
        let report = self.service.shutdown(LIMIT).await?;
        assert!(!report.is_cancelled(), "{report:?}");
        self.ops.shutdown(LIMIT).await?;
        Ok(())
    }
}

/// The owners of partitions, as the broker describes the group.
struct Watcher {
    admin: Arc<dyn Admin>,
    topic: Name,
    group: Name,
    /// Since when each partition has no owner.
    unowned: HashMap<TopicPartition, Instant>,
    longest: Duration,
}

impl Watcher {
    /// Looks once; returns the number of members, and whether each has its share.
    async fn look(&mut self) -> TestResult<(usize, bool)> {
        let group = self.admin.describe_group(&self.group).await?;
        let now = Instant::now();
        let owned: Vec<&TopicPartition> = group.members.iter().flat_map(|member| &member.partitions).collect();
        for number in 0..PARTITIONS as u32 {
            let partition = TopicPartition::new(&self.topic, number);
            if owned.contains(&&partition) {
                self.unowned.remove(&partition);
            } else {
                let since = *self.unowned.entry(partition).or_insert(now);
                self.longest = self.longest.max(now - since);
            }
        }
        let share = PARTITIONS / group.members.len().max(1);
        let is_balanced = owned.len() == PARTITIONS && group.members.iter().all(|m| m.partitions.len() == share);
        Ok((group.members.len(), is_balanced))
    }

    /// Looks until so many members have their shares; returns how long that took.
    async fn balanced(&mut self, members: usize) -> TestResult<Duration> {
        let begun = Instant::now();
        while self.look().await? != (members, true) {
            assert!(begun.elapsed() < LIMIT, "{members} members do not get their shares");
            sleep(PERIOD).await;
        }
        Ok(begun.elapsed())
    }

    /// Looks while something else goes on.
    async fn during<T>(&mut self, work: impl Future<Output = TestResult<T>>) -> TestResult<T> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = sleep(PERIOD) => {
                    self.look().await?;
                }
            }
        }
    }
}

async fn rolls() -> TestResult {
    let kafka = Kafka::shared().await?;
    let topic = Name::from(format!("rolling-{}-{}", std::process::id(), Timestamp::now().millis()));
    let deployment = Deployment { bootstrap: kafka.bootstrap().into(), topic, ledger: Ledger::default() };
    let admin = deployment.connect().await?.admin().await?;
    ensure_topics(&*admin, &[Topic::new(&deployment.topic).with_partitions(PARTITIONS as u32)]).await?;
    let stopped = AtomicBool::new(false);
    let restarts = async {
        let done = restarts(&deployment, admin).await;
        stopped.store(true, Ordering::Relaxed);
        done
    };
    let (instances, published) = tokio::join!(restarts, deployment.load(&stopped));
    let (instances, published) = (instances?, published?);
    let caught_up = instances.iter().map(|instance| instance.service.caught_up());
    for caught_up in caught_up {
        timeout(LIMIT, caught_up).await??;
    }
    // A partition that moves just now belongs to no instance, and is part of no lag.
    let entered = || deployment.ledger.lock().unwrap_or_else(PoisonError::into_inner).len();
    let begun = Instant::now();
    while entered() < published && begun.elapsed() < LIMIT {
        sleep(PERIOD).await;
    }
    let ledger = deployment.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let doubled: Vec<_> = ledger.iter().filter(|(_, count)| **count > 1).collect();
    let lost: Vec<_> = (0..published).filter(|n| !ledger.contains_key(&n.to_string())).collect();
    assert!(doubled.is_empty() && lost.is_empty(), "of {published}: doubled {doubled:?}, lost {lost:?}");
    for instance in instances {
        instance.stop().await?;
    }
    Ok(())
}

/// Measures a planned leave and join, then restarts each instance.
async fn restarts(deployment: &Deployment, admin: Arc<dyn Admin>) -> TestResult<Vec<Instance>> {
    let (topic, group) = (deployment.topic.clone(), deployment.group());
    let mut watcher = Watcher { admin, topic, group, unowned: HashMap::new(), longest: Duration::ZERO };
    let mut instances = Vec::new();
    for _ in 0..INSTANCES {
        instances.push(deployment.start().await?);
    }
    watcher.balanced(INSTANCES).await?;
    let begun = Instant::now();
    watcher.during(instances.remove(0).stop()).await?;
    watcher.balanced(INSTANCES - 1).await?;
    let left = begun.elapsed();
    let begun = Instant::now();
    instances.push(watcher.during(deployment.start()).await?);
    watcher.balanced(INSTANCES).await?;
    let rebalance = left.max(begun.elapsed());
    watcher.longest = Duration::ZERO;
    for _ in 0..INSTANCES {
        watcher.during(instances.remove(0).stop()).await?;
        // The readiness of the new one is all that is waited for.
        instances.push(watcher.during(deployment.start()).await?);
    }
    watcher.balanced(INSTANCES).await?;
    let longest = watcher.longest;
    eprintln!("a rebalance took {rebalance:?}; no partition was without an owner for longer than {longest:?}");
    assert!(longest <= rebalance * REBALANCES, "{longest:?} without an owner; a rebalance takes {rebalance:?}");
    Ok(instances)
}
