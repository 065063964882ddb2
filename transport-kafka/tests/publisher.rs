//! A publisher that is dropped, whose close times out, or whose topic was deleted.

#[expect(dead_code, reason = "the other test files use the rest")]
mod common;

use std::future::poll_fn;
use std::pin::Pin;
use std::process::ExitCode;
use std::task::Poll;
use std::time::Duration;

use common::{LIMIT, TestResult, fresh, fresh_name, make, transport};
use tidings_core::{Error, ErrorKind, Name, PublisherExt, Record, Topic, Transport};
use tidings_kafka::{GroupProtocol, KafkaTransport};
use tidings_testbed::Suite;
use tokio::time::{Instant, timeout};

/// Records that are queued and not awaited: many batches, one of which is in flight per partition.
const UNWAITED: u64 = 1_000;

fn main() -> ExitCode {
    Suite::new()
        .with_timeout(Duration::from_secs(120))
        .with_case("what_was_queued_is_sent_when_the_publisher_is_dropped", || dropped(false))
        .with_case("a_close_that_nobody_waits_for_goes_on", || dropped(true))
        .with_case("a_topic_that_is_gone_holds_nothing_else_up", a_topic_that_is_gone)
        .with_case("what_a_close_gave_up_is_not_stored", given_up)
        .with_case("a_topic_that_takes_less_than_a_quarter_of_a_batch_takes_keyed_records", a_narrow_topic)
        .run()
}

async fn polled_once<F: Future + Unpin>(future: &mut F) {
    let _pending = poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context).is_pending())).await;
}

async fn come(kafka: &KafkaTransport, topic: &Name, count: u64) -> TestResult {
    let (admin, names, ends) = (kafka.admin().await?, [topic.clone()], Instant::now() + LIMIT);
    while admin.describe_topics(&names).await?.remove(0)?.partitions.iter().map(|p| p.end).sum::<u64>() < count {
        assert!(Instant::now() < ends, "they are not stored");
    }
    Ok(())
}

/// Most of its records wait for their turn when it is dropped.
async fn dropped(closing: bool) -> TestResult {
    let kafka = transport(GroupProtocol::Auto).await?;
    let topic = fresh(&kafka, "dropped", 2).await?;
    let config = kafka.config().clone().with_batch_bytes(16 << 10);
    let publisher = KafkaTransport::connect(config).await?.publisher().await?;
    // Its partitions are known from here on.
    publisher.publish_one(Record::new(topic.clone(), "first")).await?;
    let record = |n: u64| Record::new(topic.clone(), vec![7_u8; 1 << 10]).with_partition(n as u32 % 2);
    let records = (0..UNWAITED).map(record).collect();
    let mut publishing = publisher.publish(records);
    polled_once(&mut publishing).await;
    drop(publishing);
    if closing {
        polled_once(&mut publisher.close(LIMIT)).await;
    }
    drop(publisher);
    come(&kafka, &topic, UNWAITED + 1).await
}

async fn a_topic_that_is_gone() -> TestResult {
    let kafka = transport(GroupProtocol::Auto).await?;
    let (gone, other) = (fresh(&kafka, "gone", 2).await?, fresh(&kafka, "other", 2).await?);
    let config = kafka.config().clone().with_request_timeout(Duration::from_secs(2));
    let config = config.with_delivery_timeout(Duration::from_secs(3));
    let publisher = KafkaTransport::connect(config).await?.publisher().await?;
    let to = |topic: &Name, count: u32| -> Vec<Record> {
        (0..count).map(|n| Record::new(topic.clone(), "v").with_partition(n % 2)).collect()
    };
    for topic in [&gone, &other] {
        publisher.publish(to(topic, 2)).await.into_iter().try_for_each(|answer| answer.map(drop))?;
    }
    kafka.admin().await?.delete_topics(std::slice::from_ref(&gone)).await?.remove(0)?;
    // From here on the client knows that the topic is gone, while the publisher still has it cached.
    let first = publisher.publish(to(&gone, 2)).await;
    // One call each, or they would be answered together: more than can be looked up one by one.
    let many = async {
        let calls = (0..100).map(|_| publisher.publish(to(&gone, 2)));
        futures_util::future::join_all(calls).await.into_iter().flatten().collect::<Vec<_>>()
    };
    let others = async {
        let ends = Instant::now() + LIMIT / 3;
        while Instant::now() < ends {
            let answers = timeout(LIMIT / 3, publisher.publish(to(&other, 2))).await;
            answers.map_err(|_| "it waits for the other topic")?.into_iter().try_for_each(|answer| answer.map(drop))?;
        }
        TestResult::Ok(())
    };
    let both = async { tokio::join!(many, others) };
    let (answers, others) = timeout(LIMIT, both).await.map_err(|_| "they wait for a topic that is gone")?;
    others?;
    for answer in first.into_iter().chain(answers) {
        let kind = answer.map_err(|error| Error::kind(&error));
        let told = [ErrorKind::NotFound, ErrorKind::Unavailable, ErrorKind::Indeterminate];
        assert!(kind.is_err_and(|kind| told.contains(&kind)), "{kind:?}");
    }
    Ok(())
}

/// A record waits for topic lookups when the close that abandoned it ends: it is reported as not stored, and is not
/// stored.
async fn given_up() -> TestResult {
    let kafka = transport(GroupProtocol::Auto).await?;
    let good = fresh(&kafka, "good", 1).await?;
    let mut gone = Vec::new();
    for n in 0..4 {
        gone.push(fresh(&kafka, &format!("gone-{n}"), 1).await?);
    }
    let config = kafka.config().clone().with_request_timeout(Duration::from_secs(2));
    let config = config.with_delivery_timeout(Duration::from_secs(3));
    let publisher = KafkaTransport::connect(config).await?.publisher().await?;
    let to = |topics: &[Name]| topics.iter().map(|topic| Record::new(topic.clone(), "v")).collect::<Vec<_>>();
    let all = [&gone[..], std::slice::from_ref(&good)].concat();
    for answer in publisher.publish(to(&all)).await {
        answer?;
    }
    for deleted in kafka.admin().await?.delete_topics(&gone).await? {
        deleted?;
    }
    // From here on the client knows that the topics are gone, while the publisher still has them cached.
    assert!(publisher.publish(to(&gone)).await.iter().all(Result::is_err));
    let publishing = publisher.publish(to(&all));
    let (answers, closed) = tokio::join!(publishing, publisher.close(Duration::ZERO));
    let kinds: Vec<_> = answers.into_iter().map(|answer| answer.map(drop).map_err(|e| e.kind())).collect();
    assert_eq!(
        (closed.map_err(|e| e.kind()), kinds.last()),
        (Err(ErrorKind::Indeterminate), Some(&Err(ErrorKind::Closed)))
    );
    // Records that were sent before are stored before.
    let behind = kafka.publisher().await?.publish_one(Record::new(good, "behind")).await?;
    assert_eq!(behind.offset, 1, "what is not stored is");
    Ok(())
}

/// If they are refused as a batch, records with keys would overtake each other.
async fn a_narrow_topic() -> TestResult {
    let kafka = transport(GroupProtocol::Auto).await?;
    let topic = fresh_name("narrow");
    make(&kafka, &[Topic::new(topic.clone()).with_partitions(2).with_max_record_bytes(20_000)]).await?;
    let publisher = kafka.publisher().await?;
    let keyed = |n: usize| {
        // Some records are too large even alone.
        let size = if n % 100 == 50 { 30_000 } else { 1_000 };
        Record::new(topic.clone(), vec![7_u8; size]).with_key((n % 5).to_string())
    };
    let calls = futures_util::future::join_all((0..5).map(|_| publisher.publish((0..200).map(keyed).collect()))).await;
    for (n, answer) in calls.into_iter().flat_map(|answers| answers.into_iter().enumerate()) {
        let expected = if n % 100 == 50 { Err(ErrorKind::TooLarge) } else { Ok(()) };
        assert_eq!(answer.as_ref().map(drop).map_err(Error::kind), expected, "{n}: {answer:?}");
    }
    publisher.close(LIMIT).await?;
    Ok(())
}
