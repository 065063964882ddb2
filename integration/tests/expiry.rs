//! Positions of a quiet retry topic on a Kafka that expires offsets after a minute: they stay while the group lives. When
//! they are gone after a longer absence, nothing is lost, and with an idempotency store nothing is handled twice.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidings::kafka::{KafkaConfig, KafkaTransport};
use tidings::memory::MemoryStore;
use tidings::{
    BoxError, Delivery, Record, Retry, Router, Service, ServiceHandle, State, Topic, TopicPolicy, Transport,
};
use tidings_testbed::{Kafka, KafkaOptions, Suite};
use tokio::time::{Instant, sleep, timeout};

type TestResult<T = ()> = Result<T, BoxError>;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(240);
const DELAY: Duration = Duration::from_secs(2);
/// Kafka counts retention in minutes, and looks each second here.
const RETENTION: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    Suite::new().with_soak("soak_positions_of_a_quiet_retry_topic_outlive_the_retention_of_offsets", quiet).run()
}

/// The attempts of each record by value, and whether they succeeded.
type Attempts = Arc<Mutex<BTreeMap<String, Vec<bool>>>>;

/// Fails the first attempt of each record.
async fn attempt(delivery: Delivery, State(attempts): State<Attempts>) -> Result<(), BoxError> {
    let value = std::str::from_utf8(delivery.record().value.as_deref().unwrap_or_default())?.to_owned();
    let succeeds = delivery.attempt() > 1;
    attempts.lock().unwrap_or_else(PoisonError::into_inner).entry(value).or_default().push(succeeds);
    if succeeds { Ok(()) } else { Err("not yet".into()) }
}

struct Test {
    transport: KafkaTransport,
    topic: String,
    store: MemoryStore,
    attempts: Attempts,
}

impl Test {
    async fn start(&self) -> TestResult<ServiceHandle> {
        let router = Router::new().on_topic(self.topic.clone(), attempt).with_state(self.attempts.clone());
        let service = Service::new("billing", router).with_group(self.group()).with_idempotency(self.store.clone());
        let service = service.with_retry(Retry::never().then_topics([DELAY])).with_breaker(None);
        Ok(service.with_topics(TopicPolicy::Create(Vec::new())).start(&self.transport).await?)
    }

    fn group(&self) -> String {
        format!("{}-billing", self.topic)
    }

    async fn publish(&self, value: &'static str) -> TestResult {
        let record = Record::new(self.topic.clone(), value).with_key("k");
        self.transport.publisher().await?.publish(vec![record]).await.remove(0)?;
        Ok(())
    }

    fn runs(&self, value: &str) -> Vec<bool> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).get(value).cloned().unwrap_or_default()
    }

    /// The committed positions that are not 0, by topic; empty if the group is gone.
    async fn committed(&self) -> TestResult<Vec<(String, u64)>> {
        let lags = self.transport.admin().await?.group_lag(&self.group().into()).await.unwrap_or_default();
        let of = |lag: tidings::admin::PartitionLag| {
            Some((lag.partition.topic.to_string(), lag.committed.filter(|next| *next > 0)?))
        };
        Ok(lags.into_iter().filter_map(of).collect())
    }

    async fn until(&self, what: &str, condition: impl AsyncFn() -> TestResult<bool>) -> TestResult {
        let end = Instant::now() + LIMIT;
        while !condition().await? {
            if Instant::now() > end {
                return Err(
                    format!("waited in vain for {what}: {:?}, {:?}", self.attempts, self.committed().await?).into()
                );
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

async fn quiet() -> TestResult {
    let options = KafkaOptions::new().with_property("offsets.retention.minutes", "1");
    let kafka = Kafka::start(options.with_property("offsets.retention.check.interval.ms", "1000")).await?;
    let transport = KafkaTransport::connect(KafkaConfig::new(kafka.bootstrap().split(','))).await?;
    let (store, attempts) = (MemoryStore::new(), Attempts::default());
    let test = Test { transport, topic: "orders".into(), store, attempts };
    let topics = ["", "-dlq", "-dlq-state"].map(|end| Topic::new(format!("{}{end}", test.topic)));
    for answer in test.transport.admin().await?.create_topics(&topics).await? {
        answer?;
    }

    let service = test.start().await?;
    test.publish("a").await?;
    test.until("the second attempt", async || Ok(test.runs("a") == [false, true])).await?;
    test.until("two positions", async || Ok(test.committed().await?.len() == 2)).await?;
    // The group lives, and nothing comes: longer than offsets are kept.
    let quiet_since = Instant::now();
    test.until("the end of the retention", async || Ok(quiet_since.elapsed() > RETENTION + RETENTION / 4)).await?;
    assert_eq!(test.committed().await?.len(), 2, "positions of a living group expired");

    test.publish("b").await?;
    test.until("the first attempt", async || Ok(test.runs("b") == [false])).await?;
    timeout(LIMIT, service.caught_up()).await??;
    service.shutdown(LIMIT).await?;
    test.until("the end of the positions", async || Ok(test.committed().await?.is_empty())).await?;

    // All records are read again, from both topics.
    let service = test.start().await?;
    test.until("what waited", async || Ok(test.runs("b").contains(&true))).await?;
    test.publish("c").await?;
    test.until("a new record", async || Ok(test.runs("c").contains(&true))).await?;
    timeout(LIMIT, service.caught_up()).await??;
    for value in ["a", "b", "c"] {
        let successes = test.runs(value).into_iter().filter(|succeeded| *succeeded).count();
        assert_eq!(successes, 1, "{value} was handled {successes} times: {:?}", test.runs(value));
    }
    service.shutdown(LIMIT).await?;
    Ok(())
}
