//! Fault injection: brokers and connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidings_core::{Name, Transport};
use tidings_kafka::KafkaTransport;
use tidings_testbed::{Cut, Kafka};
use tokio::time::{Instant, sleep};

use crate::common::TestResult;

/// Requests whose lost answers are interesting: produce, fetch, offset commit and fetch, heartbeats of both
/// protocols, join.
const APIS: [i16; 8] = [0, 1, 8, 9, 11, 12, 14, 68];
/// How long a killed broker may stay down.
const MOST_AWAY_MS: u64 = 4_000;
/// Pause between two cuts.
const BETWEEN_CUTS: Duration = Duration::from_millis(700);
/// Time limit for all replicas to be in sync after a broker returned.
const IN_SYNC_WITHIN: Duration = Duration::from_secs(90);
const LOOK_AGAIN: Duration = Duration::from_millis(250);

pub(crate) struct Chaos {
    kafka: Kafka,
    witness: KafkaTransport,
    topic: Name,
    killed: Arc<AtomicUsize>,
}

impl Chaos {
    pub(crate) fn new(kafka: Kafka, witness: KafkaTransport, topic: Name) -> Self {
        Self { kafka, witness, topic, killed: Arc::default() }
    }

    /// Returns a check for whether this many brokers were killed and connections cut.
    pub(crate) fn over(&self, kills: usize, cuts: u64) -> impl Fn() -> bool {
        let (kafka, killed) = (self.kafka.clone(), Arc::clone(&self.killed));
        move || killed.load(Ordering::Relaxed) >= kills && cuts_of(&kafka) >= cuts
    }

    /// Kills a broker and starts it again, `times` times; the next kill waits until all replicas are in sync.
    pub(crate) async fn kill(&self, times: usize) -> TestResult {
        for _ in 0..times {
            let node = self.kafka.node(fastrand::usize(..self.kafka.nodes().len()));
            node.kill()?;
            sleep(Duration::from_millis(fastrand::u64(..MOST_AWAY_MS))).await;
            node.start().await?;
            self.in_sync().await?;
            self.killed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn in_sync(&self) -> TestResult {
        let topics = [self.topic.clone(), Name::from_static("__consumer_offsets")];
        let ends = Instant::now() + IN_SYNC_WITHIN;
        loop {
            let described = self.witness.admin().await?.describe_topics(&topics).await;
            let whole = described.is_ok_and(|answers| {
                answers.iter().all(|answer| {
                    answer.as_ref().is_ok_and(|d| d.partitions.iter().all(|p| p.in_sync.len() == p.replicas.len()))
                })
            });
            if whole {
                return Ok(());
            }
            if Instant::now() > ends {
                return Err("the replicas did not come in sync".into());
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Cuts connections until there were `times` cuts: at once, or around the answer to a chosen request. Returns the
    /// number of cuts.
    pub(crate) async fn cut(&self, times: u64) -> u64 {
        while cuts_of(&self.kafka) < times {
            if let Some(proxy) = self.kafka.node(fastrand::usize(..self.kafka.nodes().len())).proxy() {
                let nth = fastrand::u64(1..4);
                let api = APIS[fastrand::usize(..APIS.len())];
                match fastrand::u8(..4) {
                    0 => proxy.cut_all(),
                    1 => proxy.cut_at(Cut::after_answer(nth).to_api(api)),
                    _ => proxy.cut_at(Cut::before_answer(nth).to_api(api)),
                }
            }
            sleep(BETWEEN_CUTS).await;
        }
        for proxy in self.kafka.nodes().iter().filter_map(|node| node.proxy()) {
            proxy.resume();
        }
        cuts_of(&self.kafka)
    }
}

fn cuts_of(kafka: &Kafka) -> u64 {
    kafka.nodes().iter().filter_map(|node| node.proxy()).map(|proxy| proxy.counts().cuts).sum()
}

/// Waits until the group has no lag; returns how long it took.
pub(crate) async fn no_lag(witness: &KafkaTransport, group: &Name, within: Duration) -> TestResult<Duration> {
    let began = Instant::now();
    loop {
        let lag = match witness.admin().await?.group_lag(group).await {
            Ok(partitions) if !partitions.is_empty() => {
                partitions.iter().map(|p| p.lag()).sum::<Option<u64>>().unwrap_or(u64::MAX)
            }
            _ => u64::MAX,
        };
        if lag == 0 {
            return Ok(began.elapsed());
        }
        if began.elapsed() > within {
            return Err(format!("a lag of {lag} after {within:?}").into());
        }
        sleep(LOOK_AGAIN).await;
    }
}
