//! Publishers that are dropped, whose close times out, whose topic was deleted, or whose runtime ended. Refused batches
//! and calls at the bound.

#[expect(dead_code, reason = "the other test files use the rest")]
mod common;

use std::future::poll_fn;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Arc, Barrier};
use std::task::Poll;
use std::time::Duration;

use common::{LIMIT, TestResult, fresh, fresh_name, make, transport};
use tidings_core::{Cleanup, Error, ErrorKind, Name, PublisherExt, Record, Topic, Transport};
use tidings_kafka::{GroupProtocol, KafkaConfig, KafkaTransport, PublisherKind};
use tidings_testbed::{Kafka, Suite};
use tokio::time::{Instant, timeout};

/// Records that are queued and not awaited: many batches, one of which is in flight per partition.
const UNWAITED: u64 = 1_000;

fn main() -> ExitCode {
    let mut suite = Suite::new().with_timeout(Duration::from_secs(120));
    for (how, kind) in [("", PublisherKind::Client), ("_natively", PublisherKind::Native)] {
        let name = |case: &str| format!("{case}{how}");
        suite = suite
            .with_case(&name("what_was_queued_is_sent_when_the_publisher_is_dropped"), move || dropped(kind, false))
            .with_case(&name("a_close_that_nobody_waits_for_goes_on"), move || dropped(kind, true))
            .with_case(&name("a_topic_that_is_gone_holds_nothing_else_up"), move || a_topic_that_is_gone(kind))
            .with_case(&name("what_a_close_gave_up_is_not_stored"), move || given_up(kind))
            .with_case(&name("a_topic_that_takes_less_than_a_quarter_of_a_batch_takes_keyed_records"), move || {
                a_narrow_topic(kind)
            })
            .with_case(&name("one_call_of_more_than_the_bound_is_answered"), move || one_call_beyond_the_bound(kind))
            .with_case(&name("the_records_of_two_calls_do_not_mix"), move || calls_at_once(kind))
            .with_case(&name("a_publisher_outlives_the_runtime_that_opened_it"), move || a_runtime_that_ends(kind))
            .with_case(&name("a_call_queued_in_part_outlives_the_runtime_that_opened_its_publisher"), move || {
                a_runtime_that_stands_still(kind)
            })
            .with_case(&name("a_refused_batch_gives_room_to_the_calls_behind_it"), move || {
                a_refused_batch_at_the_bound(kind)
            });
    }
    suite.run()
}

async fn transport_with(kind: PublisherKind) -> TestResult<KafkaTransport> {
    let config = transport(GroupProtocol::Auto).await?.config().clone();
    Ok(KafkaTransport::connect(config.with_publisher(kind)).await?)
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
async fn dropped(kind: PublisherKind, closing: bool) -> TestResult {
    let kafka = transport_with(kind).await?;
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

async fn a_topic_that_is_gone(kind: PublisherKind) -> TestResult {
    let kafka = transport_with(kind).await?;
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
async fn given_up(kind: PublisherKind) -> TestResult {
    let kafka = transport_with(kind).await?;
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
    // The native publisher does not wait for lookups of known topics.
    let is_stored = kind == PublisherKind::Native && kinds.last() == Some(&Ok(()));
    // It also ends records of missing topics soon, so that all may be answered in time.
    let is_answered = kind == PublisherKind::Native && closed.is_ok();
    assert!(is_answered || closed.is_err_and(|e| e.kind() == ErrorKind::Indeterminate));
    assert!(is_stored || kinds.last() == Some(&Err(ErrorKind::Closed)), "{kinds:?}");
    // Records that were sent before are stored before.
    let behind = kafka.publisher().await?.publish_one(Record::new(good, "behind")).await?;
    assert_eq!(behind.offset, 1 + u64::from(is_stored), "a record that ended as not stored is stored");
    Ok(())
}

/// If they are refused as a batch, records with keys would overtake each other.
async fn a_narrow_topic(kind: PublisherKind) -> TestResult {
    let kafka = transport_with(kind).await?;
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

async fn bounded(kind: PublisherKind, records: usize) -> TestResult<KafkaTransport> {
    let kafka = Kafka::shared().await?;
    let brokers: Vec<_> = kafka.bootstrap().split(',').collect();
    let mut config = KafkaConfig::new(brokers).with_publisher(kind);
    config.max_unanswered_records = records;
    config.max_record_bytes = 1 << 20;
    Ok(KafkaTransport::connect(config).await?)
}

/// Two threads call at the same time; records that can be queued at once precede one that cannot.
async fn calls_at_once(kind: PublisherKind) -> TestResult {
    const CALLS: usize = 50;
    const RECORDS: u64 = 100;
    static LARGE: [u8; 2 << 20] = [0; 2 << 20];
    let kafka = bounded(kind, 1_000).await?;
    let topic = fresh(&kafka, "at-once", 1).await?;
    let (publisher, together) = (kafka.publisher().await?, Arc::new(Barrier::new(2)));
    publisher.publish_one(Record::new(topic.clone(), "first")).await?;
    let threads = [0, 1].map(|_| {
        let (publisher, together, topic, runtime) =
            (publisher.clone(), together.clone(), topic.clone(), tokio::runtime::Handle::current());
        tokio::task::spawn_blocking(move || {
            let record = |n| Record::new(topic.clone(), if n + 2 == RECORDS { &LARGE[..] } else { b"v" });
            let call = || {
                together.wait();
                runtime.block_on(publisher.publish((0..RECORDS).map(record).collect()))
            };
            (0..CALLS).map(|_| call()).collect::<Vec<_>>()
        })
    });
    let mut calls = Vec::new();
    for thread in threads {
        for mut answers in timeout(LIMIT, thread).await.map_err(|_| "it hangs")?? {
            let large = answers.remove(RECORDS as usize - 2);
            assert_eq!(large.map_err(|e| e.kind()), Err(ErrorKind::TooLarge));
            let offsets = answers.into_iter().map(|answer| Ok(answer?.offset)).collect::<TestResult<Vec<_>>>()?;
            assert!(offsets.is_sorted_by(|one, next| one + 1 == *next), "{offsets:?}");
            calls.push(offsets[0]);
        }
    }
    calls.sort_unstable();
    assert!(calls.is_sorted_by(|one, next| one + RECORDS - 1 == *next), "{calls:?}");
    Ok(())
}

async fn one_call_beyond_the_bound(kind: PublisherKind) -> TestResult {
    let kafka = bounded(kind, 10).await?;
    let topic = fresh(&kafka, "large-call", 3).await?;
    let publisher = kafka.publisher().await?;
    let records = (0..100).map(|n: u32| Record::new(topic.clone(), n.to_string()).with_key((n % 7).to_string()));
    let answers = timeout(LIMIT, publisher.publish(records.collect())).await.map_err(|_| "it hangs")?;
    assert_eq!(answers.len(), 100);
    let mut last = std::collections::BTreeMap::new();
    for answer in answers {
        let position = answer?;
        let before = last.insert(position.partition, position.offset);
        assert!(before.is_none_or(|before| before < position.offset), "{before:?} and then {position:?}");
    }
    publisher.close(LIMIT).await?;
    Ok(())
}

async fn a_refused_batch_at_the_bound(kind: PublisherKind) -> TestResult {
    let kafka = bounded(kind, 6).await?;
    let topic = fresh_name("refused-at-bound");
    make(&kafka, &[Topic::new(topic.clone()).with_cleanup(Cleanup::Compact)]).await?;
    let publisher = kafka.publisher().await?;
    let call = || {
        let keyed = |key: &'static str| Record::new(topic.clone(), "v").with_key(key);
        // The second has no key, which a compacted topic refuses, along with its whole batch.
        publisher.publish(vec![keyed("a"), Record::new(topic.clone(), "v"), keyed("b"), keyed("c")])
    };
    let calls = async { tokio::join!(call(), call(), call()) };
    let (first, second, third) = timeout(LIMIT, calls).await.map_err(|_| "the calls wait for each other")?;
    for answers in [first, second, third] {
        let kinds: Vec<_> = answers.iter().map(|answer| answer.as_ref().err().map(Error::kind)).collect();
        assert_eq!(kinds[1], Some(ErrorKind::Invalid), "{answers:?}");
        // With the client, a record overtaken by a later call is not stored, and reported as such.
        let may_be_overtaken = kind == PublisherKind::Client;
        let fine =
            |kind: &Option<ErrorKind>| kind.is_none() || may_be_overtaken && *kind == Some(ErrorKind::Unavailable);
        assert!([0, 2, 3].iter().all(|place: &usize| fine(&kinds[*place])), "{answers:?}");
    }
    publisher.close(LIMIT).await?;
    Ok(())
}

async fn a_runtime_that_ends(kind: PublisherKind) -> TestResult {
    let kafka = transport_with(kind).await?;
    let topic = fresh(&kafka, "ends", 1).await?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let config = kafka.config().clone();
    let publisher = runtime.spawn(async move { KafkaTransport::connect(config).await?.publisher().await }).await??;
    // Each missing topic is looked up for a while; the first record is stored meanwhile.
    let missing = (0..3).map(|n| Record::new(format!("{topic}-missing-{n}"), "v"));
    let records = std::iter::once(Record::new(topic.clone(), "v")).chain(missing).collect();
    let publishing = tokio::spawn(async move { publisher.publish(records).await });
    let (admin, names) = (kafka.admin().await?, [topic]);
    let ends = Instant::now() + LIMIT;
    while admin.describe_topics(&names).await?.remove(0)?.partitions[0].end == 0 {
        assert!(Instant::now() < ends, "it is not stored");
    }
    runtime.shutdown_background();
    let answers = timeout(LIMIT, publishing).await.map_err(|_| "the call hangs")??;
    let kinds: Vec<_> = answers.iter().map(|a| a.as_ref().map(drop).map_err(Error::kind)).collect();
    assert_eq!(kinds[0], Ok(()), "{answers:?}");
    assert_eq!(kinds[1..], [Err(ErrorKind::NotFound); 3], "{answers:?}");
    Ok(())
}

/// A call queues its first record by itself; the publisher's task reports the other.
async fn a_runtime_that_stands_still(kind: PublisherKind) -> TestResult {
    let kafka = transport_with(kind).await?;
    let (topic, mut config) = (fresh(&kafka, "still", 1).await?, kafka.config().clone());
    // The topic stays known, however long the machine stalls.
    config.metadata_max_age = 10 * LIMIT;
    let first = Record::new(topic.clone(), "first");
    let open = move || -> TestResult<_> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let publisher = runtime.block_on(async move {
            let publisher = KafkaTransport::connect(config).await?.publisher().await?;
            publisher.publish_one(first).await?;
            TestResult::Ok(publisher)
        })?;
        Ok((runtime, publisher))
    };
    let (runtime, publisher) = tokio::task::spawn_blocking(open).await??;
    let records =
        vec![Record::new(topic.clone(), "v"), Record::new(topic, vec![0; KafkaConfig::DEFAULT_MAX_RECORD_BYTES + 1])];
    let mut publishing = publisher.publish(records);
    // The publisher's threads may answer within the first poll.
    let polled = poll_fn(|context| Poll::Ready(publishing.as_mut().poll(context))).await;
    runtime.shutdown_background();
    let answers = match polled {
        Poll::Ready(answers) => answers,
        Poll::Pending => timeout(LIMIT, publishing).await.map_err(|_| "the call hangs")?,
    };
    let kinds: Vec<_> = answers.iter().map(|a| a.as_ref().map(drop).map_err(Error::kind)).collect();
    assert_eq!(kinds, [Ok(()), Err(ErrorKind::TooLarge)], "{answers:?}");
    Ok(())
}
