//! A process that was suspended for longer than its session: when it resumes, other members own its partitions.

#[expect(dead_code, reason = "only a part of it is needed here")]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use common::{Log, publish, topics};
use tidings_core::{
    Admin, Commit, Consumer, ConsumerOptions, DeadLetterSink, Delivery, Guarantees, Progress, Publisher, Record,
    Result, SeekTo, Step, TopicPartition, Transport, async_trait,
};
use tidings_memory::{MemoryStore, MemoryTransport};
use tidings_service::{Router, Service, State};
use tokio::time::{Instant, advance, sleep};

const SESSION: Duration = Duration::from_secs(10);

/// A transport whose groups have a session timeout: a member that requests the next step after it has lost everything.
/// A request that was pending before is not notified.
#[derive(Debug, Clone)]
struct Sessions(MemoryTransport);

#[derive(Debug)]
struct Member {
    inner: Arc<dyn Consumer>,
    joined: Instant,
    told: AtomicBool,
    owned: Vec<TopicPartition>,
}

#[async_trait]
impl Transport for Sessions {
    fn system(&self) -> &'static str {
        self.0.system()
    }
    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        self.0.publisher().await
    }
    async fn consumer(&self, options: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        let owned = options.topics.iter().map(|topic| TopicPartition::new(topic.clone(), 0)).collect();
        let inner = self.0.consumer(options).await?;
        Ok(Arc::new(Member { inner, joined: Instant::now(), told: AtomicBool::new(false), owned }))
    }
    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        self.0.dead_letters().await
    }
    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        self.0.admin().await
    }
    fn guarantees(&self) -> Guarantees {
        self.0.guarantees()
    }
}

#[async_trait]
impl Consumer for Member {
    async fn next(&self) -> Result<Step> {
        if self.joined.elapsed() > SESSION && !self.told.swap(true, SeqCst) {
            return Ok(Step::Lost(self.owned.clone()));
        }
        self.inner.next().await
    }
    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<()>> {
        self.inner.commit(commits).await
    }
    async fn release(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.inner.release(partitions).await
    }
    async fn pause(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.inner.pause(partitions).await
    }
    async fn resume(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.inner.resume(partitions).await
    }
    async fn seek(&self, partition: &TopicPartition, to: SeekTo) -> Result<u64> {
        self.inner.seek(partition, to).await
    }
    async fn progress(&self) -> Result<Vec<Progress>> {
        self.inner.progress().await
    }
    fn is_member(&self) -> Option<bool> {
        self.inner.is_member()
    }
    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

/// A fetched record waits behind an in-flight delivery. The lease has expired, too; the new one must not exist before
/// the group was polled.
#[tokio::test(start_paused = true)]
async fn it_begins_nothing_of_what_it_had() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let handler = async |delivery: Delivery, State(log): State<Log>| {
        log.add(format!("begun {}", delivery.offset()));
        sleep(Duration::from_secs(5)).await;
    };
    let router = Router::new().on_topic("t", handler).with_state(log.clone());
    let service = Service::new("s", router).with_workers(1).with_concurrency(1).with_commit_interval(SESSION * 100);
    let service = service.with_lease_ttl(SESSION / 2).with_idempotency(MemoryStore::new());
    let _running = service.start(&Sessions(transport.clone())).await.expect("it starts");
    publish(&transport, (0..3).map(|value| Record::new("t", value.to_string()).with_key("k")).collect()).await;
    while log.lines().is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    advance(SESSION * 2).await;
    sleep(SESSION * 2).await;
    assert_eq!(log.lines(), ["begun 0"]);
}
