//! Retry topics on a real Kafka: records wait in their topics through a restart and a rebalance, run when they are due
//! and not before, and become letters with their first origin. Ignored where there is no Kafka.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidings::dead_letter::{DeadLetters, LetterQuery, LetterState};
use tidings::kafka::KafkaTransport;
use tidings::{
    BoxError, Delivery, Record, Retry, Router, Service, ServiceHandle, State, Topic, TopicPolicy, Transport,
};
use tidings_testbed::Suite;
use tokio::time::{Instant, sleep, timeout};

#[path = "shared/kafka.rs"]
mod on_kafka;

use self::on_kafka::{create, fresh, transport};

type TestResult<T = ()> = Result<T, BoxError>;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);
const RECORDS: u32 = 60;
const DELAYS: [Duration; 2] = [Duration::from_millis(1_500), Duration::from_secs(3)];

fn main() -> ExitCode {
    Suite::new().with_case("records_wait_through_a_restart_and_a_rebalance_and_are_never_early", waits).run()
}

/// The attempts of each record: their numbers and times.
type Attempts = Arc<Mutex<BTreeMap<u32, Vec<(u32, Instant)>>>>;

/// Fails the first n modulo 4 attempts of record n. Three failures are one too many for the retry topics.
async fn attempt(delivery: Delivery, State(attempts): State<Attempts>) -> Result<(), BoxError> {
    let number: u32 = std::str::from_utf8(delivery.record().value.as_deref().unwrap_or_default())?.parse()?;
    let run = (delivery.attempt(), Instant::now());
    attempts.lock().unwrap_or_else(PoisonError::into_inner).entry(number).or_default().push(run);
    if delivery.attempt() <= number % 4 { Err("not yet".into()) } else { Ok(()) }
}

async fn start(transport: &KafkaTransport, topic: &str, attempts: &Attempts) -> TestResult<ServiceHandle> {
    let router = Router::new().on_topic(topic, attempt).with_state(attempts.clone());
    let retry = Retry::never().then_topics(DELAYS);
    let service = Service::new("billing", router).with_group(format!("{topic}-billing")).with_retry(retry);
    Ok(service.with_breaker(None).with_topics(TopicPolicy::Create(Vec::new())).start(transport).await?)
}

async fn waits() -> TestResult {
    let (transport, topic) = (transport().await?, fresh("waits"));
    let (letters, states) = (format!("{topic}-dlq"), format!("{topic}-dlq-state"));
    let topics = [Topic::new(topic.clone()).with_partitions(3), Topic::new(letters), Topic::new(states)];
    create(&transport, &topics).await?;
    let (attempts, others) = (Attempts::default(), Attempts::default());
    let other = Router::new().on_topic(topic.clone(), async |delivery: Delivery, State(others): State<Attempts>| {
        let run = (delivery.attempt(), Instant::now());
        others.lock().unwrap_or_else(PoisonError::into_inner).entry(0).or_default().push(run);
    });
    let other = Service::new("shipping", other.with_state(others.clone())).with_group(format!("{topic}-shipping"));
    let other = other.start(&transport).await?;
    let first = start(&transport, &topic, &attempts).await?;
    let records = (0..RECORDS).map(|n| Record::new(topic.clone(), n.to_string()).with_key(format!("k{}", n % 7)));
    for answer in transport.publisher().await?.publish(records.collect()).await {
        answer?;
    }
    timeout(LIMIT, first.caught_up()).await??;
    // The second instance takes over the waiting records when the first one ends.
    let second = start(&transport, &topic, &attempts).await?;
    timeout(LIMIT, second.caught_up()).await??;
    first.shutdown(LIMIT).await?;
    let end = Instant::now() + LIMIT;
    let done = |attempts: &Attempts| {
        let attempts = attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let last = |number: u32| (number % 4 + 1).min(3);
        (0..RECORDS).all(|n| attempts.get(&n).is_some_and(|runs| runs.iter().any(|run| run.0 == last(n))))
    };
    while !done(&attempts) && Instant::now() < end {
        sleep(Duration::from_millis(50)).await;
    }
    timeout(LIMIT, second.caught_up()).await??;
    timeout(LIMIT, other.caught_up()).await??;
    check(&attempts, &others)?;
    let store = DeadLetters::open(&transport, [topic.clone()]).await?;
    let query = LetterQuery::default().with_state(LetterState::Open);
    let letters = store.list(&query).await?;
    let has_first_origin = letters.iter().all(|letter| letter.origin.topic == topic && letter.attempts == 3);
    assert_eq!((letters.len() as u32, has_first_origin), (RECORDS / 4, true), "{letters:?}");
    for service in [second, other] {
        service.shutdown(LIMIT).await?;
    }
    Ok(())
}

fn check(attempts: &Attempts, others: &Attempts) -> TestResult {
    let attempts = attempts.lock().unwrap_or_else(PoisonError::into_inner);
    for (number, runs) in attempts.iter() {
        for (attempt, at) in runs.iter().filter(|run| run.0 > 1) {
            let before = runs.iter().filter(|run| run.0 == attempt - 1).map(|run| run.1).min();
            let waited = before.map(|before| at.duration_since(before)).unwrap_or_default();
            let delay = DELAYS[*attempt as usize - 2];
            if waited < delay {
                return Err(format!("attempt {attempt} of {number} came after {waited:?}, not {delay:?}").into());
            }
        }
        let last = (number % 4 + 1).min(3);
        if runs.iter().all(|run| run.0 != last) {
            return Err(format!("record {number} was lost: {runs:?}").into());
        }
    }
    let seen = others.lock().unwrap_or_else(PoisonError::into_inner).get(&0).map_or(0, Vec::len);
    if seen == RECORDS as usize { Ok(()) } else { Err(format!("the other service saw {seen} records").into()) }
}
