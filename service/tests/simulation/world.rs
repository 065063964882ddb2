//! A run: an in-memory broker, services that start and stop, events and faults, all drawn from a seed.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fastrand::Rng;
use tidings_core::{
    BoxError, Delivery, EnvelopeRef, Event, Name, Outcome, Publisher, Record, SeekTo, Timestamp, Topic, TopicPartition,
    Transport, codec, headers,
};
use tidings_memory::{MemoryStore, MemoryTransport};
use tidings_service::{
    BatchOptions, Breaker, DeliveryOrder, HandlerExt, Next, Retry, Router, Service, ServiceHandle, from_fn,
};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::timeout::TimeoutLayer;
use uuid::Uuid;

use super::history::{Happened, History, Kind, Log, Order, Process};
use super::jobs::{Failing, Job, Part, Shared, Task, Worker, job, parts};
use super::plants::{Bug, Planted};
use super::setting::Setting;
use super::tap::Tap;

pub(super) const GROUP: &str = "sim-group";
pub(super) const TOPICS: [&str; 2] = ["jobs", "parts"];
pub(super) const RETRY_TOPICS: [&str; 4] =
    ["jobs-retry-sim-700ms", "jobs-retry-sim-20s", "parts-retry-sim-700ms", "parts-retry-sim-20s"];
const MAX_RETRIES: u32 = 3;
/// After all faults are over, no wait is longer than this: neither a backoff nor a hanging handler.
const STALLED_AFTER: Duration = Duration::from_secs(600);
/// The time within which all records are settled and committed in any case.
const CATCH_UP: Duration = Duration::from_secs(24 * 3_600);

/// The timeout of a planted bug.
const NOT_LONG: Duration = Duration::from_secs(1);

pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) setting: Setting,
    pub(super) bug: Bug,
    pub(super) transport: MemoryTransport,
    pub(super) store: MemoryStore,
    pub(super) publisher: Arc<dyn Publisher>,
    pub(super) log: Arc<Log>,
    pub(super) shared: Arc<Shared>,
    pub(super) running: BTreeMap<Process, ServiceHandle>,
    pub(super) stopping: Vec<tokio::task::JoinHandle<()>>,
    pub(super) next_process: Process,
    /// The permits of a layer that all processes share.
    permits: Option<Arc<Semaphore>>,
    pub(super) expected: BTreeMap<Uuid, (Kind, usize)>,
}

/// Runs a seed to its end and returns its history.
pub(crate) async fn run(seed: u64, bug: Bug, log: &OnceLock<Arc<Log>>) -> History {
    let mut rng = Rng::with_seed(seed);
    let setting = Setting::draw(&mut rng);
    if std::env::var_os("TIDINGS_SEED").is_some() {
        println!("{setting:#?}");
    }
    let log = log.get_or_init(Log::new).clone();
    let mut world = World::new(rng, setting, bug, log).await;
    let steps = world.rng.usize(10..60);
    world.start().await;
    for _ in 0..steps {
        world.step().await;
    }
    world.heal().await;
    let stalled = world.catch_up().await;
    world.end(stalled).await
}

impl World {
    async fn new(rng: Rng, setting: Setting, bug: Bug, log: Arc<Log>) -> Self {
        let transport = MemoryTransport::new();
        let topics = TOPICS.iter().flat_map(|topic| {
            [Topic::new(*topic).with_partitions(setting.partitions), Topic::new(format!("{topic}-dlq"))]
        });
        let retry = RETRY_TOPICS.iter().map(|topic| Topic::new(*topic).with_partitions(setting.partitions));
        let retry = retry.filter(|_| !setting.tiers.is_empty());
        let topics: Vec<_> = topics.chain([Topic::new("dones")]).chain(retry).collect();
        transport.admin().await.unwrap().create_topics(&topics).await.unwrap();
        let publisher = transport.publisher().await.unwrap();
        let shared = Shared::new(log.clone(), setting.telling);
        let permits = setting.layer.map(|permits| Arc::new(Semaphore::new(permits)));
        Self {
            rng,
            permits,
            setting,
            bug,
            transport,
            store: MemoryStore::new(),
            publisher,
            log,
            shared,
            running: BTreeMap::new(),
            stopping: Vec::new(),
            next_process: 1,
            expected: BTreeMap::new(),
        }
    }

    fn service(&self, process: Process, plants: &Planted<()>) -> Service {
        let setting = &self.setting;
        let (size, wait) = setting.batch;
        let batch = BatchOptions::new(size).with_wait(Duration::from_millis(wait));
        let by_partition = setting.order == Order::Partition;
        let swallows = self.bug == Bug::ForgetsWhatFailed;
        let worker = Worker { process, shared: self.shared.clone(), by_partition, swallows };
        let router = self.layered(self.limited(batch).with_state(worker));
        let tap = plants.of(Tap { inner: self.store.clone(), process, log: self.log.clone() });
        let observer = Arc::new(Tap { inner: (), process, log: self.log.clone() });
        let service = Service::new("sim", router)
            .with_group(GROUP)
            .with_observer(observer)
            .with_retry(self.retry())
            .with_delivery_order(match setting.order {
                _ if self.bug == Bug::Reorders => DeliveryOrder::None,
                Order::Key => DeliveryOrder::Key,
                Order::Partition => DeliveryOrder::Partition,
                Order::None => DeliveryOrder::None,
            })
            .with_workers(setting.workers)
            .with_concurrency(setting.concurrency)
            .with_max_span(setting.max_span)
            .with_max_bytes_in_flight(setting.max_bytes)
            .with_commit_interval(setting.commit_interval)
            .with_handler_timeout(setting.handler_timeout)
            .with_revocation_deadline(setting.revocation)
            .with_lease_ttl(setting.ttl)
            .with_breaker(setting.breaker.then(Breaker::default))
            .with_seed(setting.seed + u64::from(process));
        if setting.store { service.with_idempotency(tap) } else { service }
    }

    /// Returns a policy with the same number of attempts with and without retry topics.
    fn retry(&self) -> Retry {
        let tiers = &self.setting.tiers;
        let in_place = MAX_RETRIES - u32::try_from(tiers.len()).unwrap();
        let retry = Retry::exponential(Duration::from_millis(100)).with_max_retries(in_place);
        retry.then_topics(tiers.iter().copied())
    }

    fn limited(&self, batch: BatchOptions) -> Router<Worker> {
        let parts = parts.batch(batch);
        match self.setting.limits {
            None => Router::new().on(job).on(parts),
            Some((concurrency, deliveries, millis)) => {
                let per = Duration::from_millis(millis);
                Router::new()
                    .on(job.with_concurrency(concurrency).with_rate(deliveries, per))
                    .on(parts.with_concurrency(concurrency).with_rate(deliveries, per))
            }
        }
    }

    fn layered(&self, router: Router) -> Router {
        let router = match &self.permits {
            Some(permits) => router.layer(GlobalConcurrencyLimitLayer::with_semaphore(permits.clone())),
            None => router,
        };
        match self.bug {
            Bug::CountsReadinessAsHandlerTime => router.layer(from_fn(wait_long)).layer(TimeoutLayer::new(NOT_LONG)),
            _ => router,
        }
    }

    async fn start(&mut self) {
        if let (Bug::LeaksAPermit, Some(permits)) = (self.bug, &self.permits) {
            permits.forget_permits(usize::from(self.next_process > 1));
        }
        let process = self.next_process;
        self.next_process += 1;
        let plants = Planted::new(self.bug);
        let tap = plants.of(Tap { inner: self.transport.clone(), process, log: self.log.clone() });
        // While a dependency is down it cannot start, as in production.
        if let Ok(running) = self.service(process, &plants).start(&tap).await {
            self.log.add(Happened::Started { process });
            self.running.insert(process, running);
        }
    }

    async fn step(&mut self) {
        match self.rng.u8(..100) {
            0..50 => self.publish().await,
            50..75 => {
                let longest = *self.rng.choice(&[10, 300, 5_000, 60_000]).unwrap();
                sleep(Duration::from_millis(self.rng.u64(..longest))).await;
            }
            75..85 if self.running.len() < self.setting.processes => self.start().await,
            75..85 => self.stop_one(),
            85..88 => self.group_trouble(),
            88..90 => self.seek_back().await,
            _ if self.setting.faults => self.fault().await,
            _ => self.publish().await,
        }
        if self.running.is_empty() && self.rng.bool() {
            self.start().await;
        }
    }

    /// Moves a partition back, to anywhere that is settled.
    async fn seek_back(&mut self) {
        let processes: Vec<_> = self.running.values().collect();
        let Some(running) = self.rng.choice(processes) else { return };
        let partitions = running.status().await.partitions;
        let Some(partition) = self.rng.choice(partitions) else { return };
        let control = running.control();
        let to = SeekTo::Offset(self.rng.u64(..=partition.settled));
        let deadline = Duration::from_millis(self.rng.u64(..10_000));
        self.excusable(format!("a seek of {} to {to:?} within {deadline:?}", partition.partition), true);
        self.stopping.push(tokio::spawn(async move {
            // The partition may be revoked, or the service stop, meanwhile.
            let _ = control.seek(&partition.partition, to, deadline).await;
        }));
    }

    fn stop_one(&mut self) {
        let processes: Vec<_> = self.running.keys().copied().collect();
        let Some(process) = self.rng.choice(processes) else { return };
        let Some(running) = self.running.remove(&process) else { return };
        if self.setting.crashes && self.rng.bool() {
            self.log.add(Happened::Crashed { process });
            drop(running);
            return;
        }
        let deadline = Duration::from_millis(self.rng.u64(..20_000));
        // A delivery cancelled by the deadline is handled again.
        self.excusable(format!("shutdown of {process} within {deadline:?}"), true);
        let log = self.log.clone();
        log.add(Happened::Stopping { process, within: deadline });
        self.stopping.push(tokio::spawn(async move {
            let ok = running.shutdown(deadline).await.is_ok();
            log.add(Happened::Stopped { process, ok });
        }));
    }

    /// Events of one topic, a few of them twice, as from a publisher whose answer was lost.
    async fn publish(&mut self) {
        let count = self.rng.usize(1..12);
        let parts = self.rng.bool();
        let mut records = Vec::new();
        for _ in 0..count {
            let record = self.record(parts);
            if self.rng.u8(..20) == 0 {
                records.push(record.clone());
            }
            records.push(record);
        }
        // A refused record was never stored.
        let _ = self.publisher.publish(records).await;
    }

    fn record(&mut self, parts: bool) -> Record {
        let id = Uuid::from_u128(self.rng.u128(..));
        let key = (self.rng.u8(..10) > 0).then(|| format!("k{}", self.rng.u64(..self.setting.keys)));
        let topic = if parts { "parts" } else { "jobs" };
        let strange = self.rng.u8(..40);
        if strange < 3 {
            let record = match strange {
                0 => Record::new(topic, "garbage"),
                1 => Record::tombstone(topic),
                _ => Record::new(topic, "{}").with_header(headers::EVENT_TYPE, "foreign"),
            };
            return match key {
                Some(key) => record.with_key(key),
                None => record,
            };
        }
        let task = self.task(key, parts);
        let poison = task.fails > MAX_RETRIES;
        self.expected.insert(id, (if poison { Kind::Poison } else { Kind::Good }, task.returns));
        let record = if parts { encode(id, &Part { task }) } else { encode(id, &Job { task }) };
        if self.rng.bool() { record.with_header("twice", "1").with_header("twice", "2") } else { record }
    }

    fn task(&mut self, key: Option<String>, parts: bool) -> Task {
        // A batch has the same time for all its records.
        let longest = *self.rng.choice(&[1, 2, 2, 50, if parts { 50 } else { 400 }]).unwrap();
        let wait = self.rng.u64(..longest);
        let returns = if self.rng.u8(..4) == 0 { self.rng.usize(1..3) } else { 0 };
        let mut task = Task { key, wait, fails: 0, by: Failing::Error, returns };
        if self.rng.u64(..100) >= self.setting.trouble {
            return task;
        }
        let how =
            [Failing::Error, Failing::Error, Failing::Panic, Failing::Reject, Failing::Unavailable, Failing::Hang];
        task.by = *self.rng.choice(&how).unwrap();
        // In a batch it may be tried once more, together with another one that fails.
        let most = if parts { MAX_RETRIES - 1 } else { MAX_RETRIES };
        task.fails = self.rng.u32(1..=most);
        if self.rng.u8(..4) == 0 && task.by != Failing::Unavailable {
            task.fails = u32::MAX;
        }
        if task.by == Failing::Reject {
            // It may be cancelled before it reports the failure: then it reports it in the next run.
            task.fails = u32::MAX;
        }
        task
    }

    async fn heal(&mut self) {
        self.transport.faults().heal();
        self.store.faults().heal();
        self.log.add(Happened::Healed);
        if self.running.is_empty() {
            self.start().await;
        }
    }

    /// Returns the ends of the service's topics.
    async fn ends(&self) -> BTreeMap<TopicPartition, u64> {
        let mut log = self.read(&TOPICS).await;
        if !self.setting.tiers.is_empty() {
            log.extend(self.read(&RETRY_TOPICS).await);
        }
        log.iter().map(|(origin, record)| (origin.clone(), record.offset + 1)).collect()
    }

    /// Waits until the group has committed all records; returns the reason if it has not.
    async fn catch_up(&mut self) -> Option<String> {
        let end = Instant::now() + CATCH_UP;
        for stopping in std::mem::take(&mut self.stopping) {
            if timeout(STALLED_AFTER, stopping).await.is_err() {
                return Some("a service does not stop, or a seek does not end".to_owned());
            }
        }
        let mut last = (0, Instant::now());
        loop {
            let committed = self.committed().await;
            // Read after the committed offsets, so that it includes records that were forwarded since.
            let ends = self.ends().await;
            if ends.iter().all(|(origin, end)| committed.get(origin) == Some(end)) {
                return None;
            }
            let seen = self.log.len();
            if seen > last.0 {
                last = (seen, Instant::now());
            }
            if Instant::now() >= end || last.1.elapsed() >= STALLED_AFTER {
                let mut why = format!("committed {committed:?} of {ends:?}");
                for (process, running) in &self.running {
                    why.push_str(&format!("\nprocess {process}: {:?}", running.status().await));
                }
                return Some(why);
            }
            sleep(Duration::from_secs(1)).await;
        }
    }
}

/// A layer that is not ready for long, and is waited for as a part of the delivery.
async fn wait_long(delivery: Delivery, next: Next) -> Result<Outcome, BoxError> {
    sleep(2 * NOT_LONG).await;
    next.run(delivery).await
}

fn encode<E: Event>(id: Uuid, event: &E) -> Record {
    let source = Name::from_static("simulation");
    codec::encode(EnvelopeRef::new(id, Timestamp::default(), &source, event), "").unwrap()
}
