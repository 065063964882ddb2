//! The native publisher under faults: records that end as stored are in the log once, at their positions and in order;
//! records that end otherwise are stored at most once, or never.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use rskafka::client::ClientBuilder;
use rskafka::client::partition::UnknownTopicHandling;
use tidings_core::{BoxError, ErrorKind, Name, Position, Publisher, Record, Result, Topic, Transport};
use tidings_kafka::{Compression, KafkaConfig, KafkaTransport, PublisherKind};
use tidings_testbed::{Cut, Kafka, KafkaOptions, Listener, Suite};
use tokio::time::{Instant, interval, sleep, timeout};

type TestResult<T = ()> = std::result::Result<T, BoxError>;

const LIMIT: Duration = Duration::from_secs(120);
const PARTITIONS: u32 = 3;
/// Number of records that are published at least: the faults may be over before many of them, and then it must go on.
const LEAST: u64 = 20_000;
/// Records of a call, and calls in flight.
const CALL: u64 = 30;
const CALLS: usize = 40;
const PRODUCE: i16 = 0;

/// How much of each fault must happen.
#[derive(Debug, Clone, Copy)]
struct Plan {
    kills: usize,
    freezes: usize,
    cuts: u64,
    compression: Compression,
}

fn main() -> ExitCode {
    let short = Plan { kills: 1, freezes: 0, cuts: 12, compression: Compression::None };
    let long = Plan { kills: 50, freezes: 10, cuts: 200, compression: Compression::Lz4 };
    Suite::new()
        .with_timeout(Duration::from_secs(240))
        .with_case("faults_lose_double_and_reorder_nothing", move || survives(short))
        .with_case("records_that_expire_are_stored_once_or_never", || expires(1))
        .with_timeout(Duration::from_secs(3 * 3_600))
        .with_soak("soak_faults_of_the_native_publisher", move || survives(long))
        .with_soak("soak_records_that_expire", || expires(20))
        .run()
}

async fn cluster() -> TestResult<Kafka> {
    let options = KafkaOptions::new().with_nodes(3).with_proxies().with_property("broker.session.timeout.ms", "3000");
    Ok(Kafka::start(options).await?)
}

fn config(kafka: &Kafka) -> TestResult<KafkaConfig> {
    let brokers = kafka.bootstrap_on(Listener::Proxied)?;
    let config = KafkaConfig::new(brokers.split(',')).with_publisher(PublisherKind::Native);
    // Small batches, so that several of them are in flight.
    Ok(config.with_batch_bytes(4 << 10).with_request_timeout(Duration::from_secs(5)))
}

async fn topic(kafka: &Kafka) -> TestResult<Name> {
    let transport = KafkaTransport::connect(KafkaConfig::new(kafka.bootstrap().split(','))).await?;
    let name = Name::from(format!("producer-{}-{}", std::process::id(), fastrand::u32(..)));
    let topic = Topic::new(name.clone()).with_partitions(PARTITIONS).with_replication(3);
    for answer in transport.admin().await?.create_topics(&[topic]).await? {
        answer?;
    }
    Ok(name)
}

/// The answers to numbered records, by partition and number.
#[derive(Default)]
struct Ledger(HashMap<(u32, u64), Result<Position>>);

impl Ledger {
    /// Publishes until `stop` is set, and at least [`LEAST`] records.
    async fn write(publisher: &dyn Publisher, topic: &Name, stop: &AtomicBool) -> Self {
        let (mut ledger, mut calls, mut next) = (Self::default(), FuturesOrdered::new(), 0);
        let mut ticks = interval(Duration::from_millis(1));
        loop {
            let numbers = next..next + CALL;
            next += CALL;
            let place = |number: u64| (number % u64::from(PARTITIONS)) as u32;
            let record = |number| Record::new(topic.clone(), number_text(number)).with_partition(place(number));
            let records = numbers.clone().map(record).collect();
            calls.push_back(async move {
                let answers = publisher.publish(records).await;
                numbers.map(move |number| (place(number), number)).zip(answers).collect::<Vec<_>>()
            });
            let is_last = next >= LEAST && stop.load(Ordering::Relaxed);
            while calls.len() >= if is_last { 1 } else { CALLS } {
                ledger.0.extend(calls.next().await.into_iter().flatten());
            }
            if is_last {
                return ledger;
            }
            // Polls the new call, too.
            tokio::select! {
                _ = ticks.tick() => {}
                Some(answers) = calls.next() => ledger.0.extend(answers),
            }
        }
    }

    /// Returns how many records ended with an error.
    fn failures(&self) -> usize {
        self.0.values().filter(|answer| answer.is_err()).count()
    }

    fn check(&self, partition: u32, log: &[u64]) {
        assert!(log.is_sorted_by(|a, b| a < b), "a record of partition {partition} is duplicated or out of order");
        for ((_, number), answer) in self.0.iter().filter(|((at, _), _)| *at == partition) {
            let stored = log.binary_search(number).ok();
            match answer {
                Ok(position) if position.offset == u64::MAX => assert!(stored.is_some(), "{number} is lost"),
                Ok(position) => assert_eq!(stored.map(|at| at as u64), Some(position.offset), "{number}"),
                Err(error) if error.kind() == ErrorKind::Indeterminate => {}
                Err(error) => assert_eq!(stored, None, "{number} is stored, and ended as {}", error.report()),
            }
        }
    }
}

/// Returns a number padded with spaces, so that batches fill soon.
fn number_text(number: u64) -> String {
    format!("{number}:{:>100}", "")
}

/// Reads the numbers in a partition; a broker that has just started may not lead it yet.
async fn stored(brokers: &str, topic: &str, partition: u32) -> TestResult<Vec<u64>> {
    let ends = Instant::now() + LIMIT;
    let mut poll = interval(Duration::from_millis(200));
    loop {
        match stored_now(brokers, topic, partition).await {
            Err(error) if Instant::now() < ends => println!("partition {partition}: {error}"),
            read => return read,
        }
        poll.tick().await;
    }
}

async fn stored_now(brokers: &str, topic: &str, partition: u32) -> TestResult<Vec<u64>> {
    let client = timeout(LIMIT, ClientBuilder::new(brokers.split(',').map(str::to_owned).collect()).build()).await??;
    let partition = client.partition_client(topic, partition as i32, UnknownTopicHandling::Retry);
    let partition = timeout(LIMIT, partition).await??;
    let (mut numbers, mut next, mut end) = (Vec::new(), 0, 1);
    while next < end {
        let (records, high) = timeout(LIMIT, partition.fetch_records(next, 0..1_000_000, 1_000)).await??;
        end = high;
        for record in records {
            assert_eq!(record.offset, numbers.len() as i64, "the log has no gaps");
            let value = String::from_utf8(record.record.value.ok_or("a value")?)?;
            numbers.push(value.split(':').next().ok_or("a number")?.parse()?);
            next = record.offset + 1;
        }
    }
    Ok(numbers)
}

async fn check(kafka: &Kafka, topic: &Name, ledger: &Ledger) -> TestResult {
    for partition in 0..PARTITIONS {
        ledger.check(partition, &stored(&kafka.bootstrap(), topic, partition).await?);
    }
    Ok(())
}

async fn survives(plan: Plan) -> TestResult {
    let kafka = cluster().await?;
    let topic = topic(&kafka).await?;
    let transport = KafkaTransport::connect(config(&kafka)?.with_compression(plan.compression)).await?;
    let (publisher, stop) = (transport.publisher().await?, Arc::new(AtomicBool::new(false)));
    let faults = async {
        let done = cause(&kafka, plan).await;
        stop.store(true, Ordering::Relaxed);
        done
    };
    let (ledger, done) = tokio::join!(Ledger::write(&*publisher, &topic, &stop), faults);
    done?;
    println!("{plan:?}: {} records", ledger.0.len());
    let failed = ledger.0.values().find_map(|answer| answer.as_ref().err());
    assert_eq!(ledger.failures(), 0, "all end within the delivery timeout: {failed:?}");
    publisher.close(LIMIT).await?;
    check(&kafka, &topic, &ledger).await
}

/// Cuts connections after a broker has stored a batch and before its answer, kills brokers, and freezes them.
async fn cause(kafka: &Kafka, plan: Plan) -> TestResult {
    for number in 0..plan.cuts {
        let proxy = kafka.node(number as usize % 3).proxy().ok_or("a proxy")?;
        let cuts = proxy.counts().cuts;
        proxy.cut_at(Cut::before_answer(1 + number % 3).to_api(PRODUCE));
        // A broker that leads nothing is sent no batches.
        let _led = proxy.wait_for_cuts(cuts + 1, Duration::from_secs(3)).await;
    }
    for round in 0..plan.kills {
        let node = kafka.node(round % 3);
        node.kill()?;
        sleep(Duration::from_secs(1)).await;
        node.start().await?;
        kafka.wait_for_brokers(3).await?;
    }
    for round in 0..plan.freezes {
        let node = kafka.node(round % 3);
        node.pause()?;
        sleep(Duration::from_secs(6)).await;
        node.resume()?;
        kafka.wait_for_brokers(3).await?;
        sleep(Duration::from_secs(2)).await;
    }
    Ok(())
}

/// No broker answers for longer than the delivery timeout, `rounds` times.
async fn expires(rounds: usize) -> TestResult {
    let kafka = cluster().await?;
    let topic = topic(&kafka).await?;
    let config = config(&kafka)?.with_request_timeout(Duration::from_secs(1));
    let config = config.with_delivery_timeout(Duration::from_secs(2)).with_connect_timeout(Duration::from_secs(1));
    let publisher = KafkaTransport::connect(config).await?.publisher().await?;
    let stop = AtomicBool::new(false);
    let faults = async {
        let proxies = || kafka.nodes().iter().filter_map(|node| node.proxy());
        for _ in 0..rounds {
            sleep(Duration::from_secs(1)).await;
            proxies().for_each(|proxy| proxy.black_hole());
            sleep(Duration::from_secs(4)).await;
            proxies().for_each(|proxy| proxy.resume());
            sleep(Duration::from_secs(3)).await;
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (ledger, ()) = tokio::join!(Ledger::write(&*publisher, &topic, &stop), faults);
    let count = |kind| ledger.0.values().filter(|answer| answer.as_ref().is_err_and(|e| e.kind() == kind)).count();
    let (unknown, unavailable) = (count(ErrorKind::Indeterminate), count(ErrorKind::Unavailable));
    println!("{} records, {unknown} unknown, {unavailable} not stored", ledger.0.len());
    assert!(unknown > 0, "no batch expired after it was sent");
    assert_eq!(unknown + unavailable, ledger.failures());
    let last = ledger.0.iter().max_by_key(|((_, number), _)| *number);
    assert!(last.is_some_and(|(_, answer)| answer.is_ok()), "it did not go on: {last:?}");
    publisher.close(LIMIT).await?;
    check(&kafka, &topic, &ledger).await
}
