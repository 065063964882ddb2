//! A publisher and an admin client against a fake broker: fenced identities, lost answers, silent leaders.

use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use krafka::error::ErrorCode;
use krafka::testing::{ApiKey, Control, FakeBroker};
use tidings_core::{
    DeadLetter, Error, ErrorKind, Header, Name, Publisher, PublisherExt, Record, SeekTo, StoredRecord, Timestamp,
    Topic, TopicPartition, Transport,
};
use tidings_kafka::{KafkaConfig, KafkaTransport};
use tokio::time::{Instant, sleep, timeout};

type TestResult<T = ()> = Result<T, Box<dyn StdError + Send + Sync>>;

/// Time limit of any operation.
const LIMIT: Duration = Duration::from_secs(30);
/// More headers than the client sends.
const MANY_HEADERS: usize = 10_001;

async fn transport(broker: &FakeBroker) -> TestResult<KafkaTransport> {
    let config = KafkaConfig::new([broker.bootstrap_servers()]).with_request_timeout(Duration::from_secs(5));
    Ok(KafkaTransport::connect(config).await?)
}

async fn publisher(broker: &FakeBroker) -> TestResult<Arc<dyn Publisher>> {
    Ok(transport(broker).await?.publisher().await?)
}

fn kinds<T>(answers: &[Result<T, Error>]) -> Vec<Option<ErrorKind>> {
    answers.iter().map(|answer| answer.as_ref().err().map(Error::kind)).collect()
}

/// Publishes to partition 0 until a record is stored; returns the kinds of the errors before.
async fn stored_at_last(publisher: &dyn Publisher) -> TestResult<Vec<ErrorKind>> {
    let (ends, mut refused) = (Instant::now() + LIMIT, Vec::new());
    loop {
        match publisher.publish_one(Record::new("t", "v").with_partition(0)).await {
            Ok(_) => return Ok(refused),
            Err(error) if Instant::now() > ends => return Err(error.report().into()),
            Err(error) => refused.push(error.kind()),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_publisher_whose_identity_is_refused_again_and_again_goes_on_with_another() -> TestResult {
    let broker = FakeBroker::start().await?;
    broker.create_topic("t", 1);
    let publisher = publisher(&broker).await?;
    for _ in 0..2 {
        assert_eq!(stored_at_last(&*publisher).await?, []);
        // The first error is answered with a new epoch, the second one ends the client's producer.
        broker.on_times(ApiKey::Produce, 2, |_| Control::Error(ErrorCode::InvalidProducerEpoch));
        let refused = stored_at_last(&*publisher).await?;
        // A record that was sent may be stored; one that was not sent is not.
        assert_eq!(refused, [ErrorKind::Indeterminate, ErrorKind::Unavailable]);
    }
    publisher.close(LIMIT).await?;
    Ok(())
}

#[tokio::test]
async fn a_right_that_is_missing_after_a_lost_answer_leaves_it_open() -> TestResult {
    let broker = FakeBroker::start().await?;
    broker.create_topic("t", 1);
    let publisher = publisher(&broker).await?;
    let denied = |_: &_| Control::Error(ErrorCode::TopicAuthorizationFailed);
    let record = || Record::new("t", "v");
    broker.on_once(ApiKey::Produce, denied);
    assert_eq!(publisher.publish_one(record()).await.map_err(|e| e.kind()), Err(ErrorKind::Denied));
    broker.on_once(ApiKey::Produce, |_| Control::ApplyThen(Box::new(Control::Disconnect)));
    broker.on_once(ApiKey::Produce, denied);
    let answer = publisher.publish_one(record()).await;
    // It is stored.
    assert_eq!((answer.map_err(|e| e.kind()), broker.next_offset("t", 0)), (Err(ErrorKind::Indeterminate), Some(1)));
    Ok(())
}

#[tokio::test]
async fn a_second_close_ends_with_the_first() -> TestResult {
    let broker = FakeBroker::start().await?;
    broker.create_topic("t", 1);
    let publisher = publisher(&broker).await?;
    publisher.publish_one(Record::new("t", "first")).await?;
    broker.on(ApiKey::Produce, |_| Control::Delay(Duration::from_secs(3)));
    let mut publishing = publisher.publish(vec![Record::new("t", "v")]);
    assert!((&mut publishing).now_or_never().is_none());
    let mut first = publisher.close(LIMIT);
    assert!((&mut first).now_or_never().is_none());
    publisher.close(LIMIT).await?;
    let answers = publishing.now_or_never().ok_or("the second close did not wait for the records")?;
    assert_eq!(kinds(&answers), [None]);
    first.await?;
    publisher.close(Duration::ZERO).await?;
    Ok(())
}

#[tokio::test]
async fn each_close_that_comes_to_nothing_says_so_by_its_own_deadline() -> TestResult {
    let broker = FakeBroker::start().await?;
    broker.create_topic("t", 1);
    let publisher = publisher(&broker).await?;
    publisher.publish_one(Record::new("t", "first")).await?;
    broker.on(ApiKey::Produce, |_| Control::Silence);
    let publishing = publisher.publish(vec![Record::new("t", "v")]);
    let closing = async {
        let first = publisher.close(Duration::from_secs(4));
        let began = Instant::now();
        let (first, second) = tokio::join!(first, async { (publisher.close(Duration::ZERO).await, began.elapsed()) });
        (first, second)
    };
    let (answers, (first, (second, took))) = timeout(LIMIT, async { tokio::join!(publishing, closing) }).await?;
    assert_eq!(kinds(&answers), [Some(ErrorKind::Indeterminate)]);
    assert_eq!(kinds(&[first, second, publisher.close(LIMIT).await]), [Some(ErrorKind::Indeterminate); 3]);
    assert!(took < Duration::from_secs(4), "{took:?}");
    Ok(())
}

/// Otherwise each call would delay all others for a second.
#[tokio::test]
async fn refused_records_of_a_leader_that_falls_silent_hold_others_shortly() -> TestResult {
    const PARTITIONS: u32 = 20;
    let broker = FakeBroker::start().await?;
    broker.create_topic("t", PARTITIONS as i32);
    // So that each connection sends all of its partitions in one request.
    let config = KafkaConfig::new([broker.bootstrap_servers()]).with_linger(Duration::from_millis(300));
    let publisher = KafkaTransport::connect(config).await?.publisher().await?;
    let to = |partition| (0..2).map(|_| Record::new("t", "v").with_partition(partition)).collect::<Vec<_>>();
    let first = publisher.publish((0..PARTITIONS).flat_map(to).collect()).await;
    assert!(first.iter().all(Result::is_ok), "{first:?}");
    let refused = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&refused);
    // Both are refused, and later requests get no answer.
    broker.on(ApiKey::Produce, move |_| match count.fetch_add(1, Ordering::AcqRel) {
        0..2 => Control::Error(ErrorCode::InvalidRecord),
        _ => Control::Silence,
    });
    let calls = join_all((0..PARTITIONS).map(|partition| publisher.publish(to(partition))));
    let other = async {
        while refused.load(Ordering::Acquire) < 3 {
            sleep(Duration::from_millis(10)).await;
        }
        let began = Instant::now();
        // It needs its turn, but no broker.
        let large = Record::new("t", vec![0; 9 << 20]);
        (kinds(&[publisher.publish_one(large).await]), began.elapsed())
    };
    let (answer, took) = tokio::select! {
        other = other => other,
        answers = calls => return Err(format!("all of them are answered: {answers:?}").into()),
    };
    assert_eq!(answer, [Some(ErrorKind::TooLarge)]);
    assert!(took < Duration::from_secs(8), "{took:?}");
    Ok(())
}

#[tokio::test]
async fn what_is_over_the_clients_limits_is_invalid_by_itself() -> TestResult {
    let broker = FakeBroker::start().await?;
    broker.create_topic("t", 1);
    let publisher = publisher(&broker).await?;
    let headers = |count: usize| (0..count).fold(Record::new("t", "v"), |record, _| record.with_header("h", "v"));
    let records = vec![Record::new("t", "before"), headers(MANY_HEADERS), headers(MANY_HEADERS - 1), headers(200_000)];
    let answers = publisher.publish(records).await;
    assert_eq!(kinds(&answers), [None, Some(ErrorKind::Invalid), None, Some(ErrorKind::Invalid)], "{answers:?}");
    Ok(())
}

/// Whatever other clients have published.
#[tokio::test]
async fn what_can_be_read_can_be_buried() -> TestResult {
    let broker = FakeBroker::start().await?;
    broker.create_topic("t-dlq", 1);
    let sink = transport(&broker).await?.dead_letters().await?;
    let letter = |offset: u64, value: usize, headers: usize| {
        let headers = (0..headers).map(|_| Header::new("h", "v")).collect();
        let record = StoredRecord::new(offset, Timestamp::now()).with_value(vec![7_u8; value]).with_headers(headers);
        DeadLetter::new("s", TopicPartition::new("t", 0), record, ErrorKind::Failed)
    };
    // The headers of a letter are added to 9,991; our own limit is 8 MiB.
    let letters = vec![letter(0, 1, 9_991), letter(1, 1, 100_000), letter(2, 8 << 20, 1), letter(3, 30 << 20, 0)];
    let buried = sink.bury(letters).await;
    assert_eq!(kinds(&buried), [None; 4], "{buried:?}");
    Ok(())
}

#[tokio::test]
async fn an_impossible_name_is_invalid_at_once_and_delays_no_other() -> TestResult {
    let broker = FakeBroker::start().await?;
    broker.create_topic("t", 1);
    let transport = transport(&broker).await?;
    let (publisher, admin) = (transport.publisher().await?, transport.admin().await?);
    let long = "x".repeat(33_000);
    let names = ["", "a b", &long, "t\n", "tö", "..", "a/b"].map(Name::from);
    let began = Instant::now();
    let records = names.iter().cloned().chain(["t".into()]).map(|name| Record::new(name, "v")).collect();
    let invalid = [Some(ErrorKind::Invalid); 7];
    let answers = publisher.publish(records).await;
    assert_eq!(kinds(&answers)[..], [&invalid[..], &[None]].concat(), "{answers:?}");
    assert!(answers.iter().flat_map(|answer| answer.as_ref().err()).all(|error| error.report().len() < 500));
    let asked = [&names[..], &["t".into()]].concat();
    assert_eq!(kinds(&admin.describe_topics(&names).await?), invalid);
    // The fake broker reports no offsets this way, so only the kind is checked.
    let described = kinds(&admin.describe_topics(&asked).await?);
    assert_eq!((&described[..7], described[7] != Some(ErrorKind::Invalid)), (&invalid[..], true));
    let topics: Vec<Topic> = asked.iter().map(Topic::new).collect();
    let created = kinds(&admin.create_topics(&topics).await?);
    assert_eq!(created[..], [&invalid[..], &[Some(ErrorKind::AlreadyExists)]].concat());
    assert_eq!(kinds(&admin.delete_topics(&names).await?), invalid);
    assert_eq!(kinds(&[admin.describe_group(&long.into()).await.map(drop)]), [Some(ErrorKind::Invalid)]);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn many_topics_are_created_and_deleted_by_one_request_with_an_answer_each() -> TestResult {
    let broker = FakeBroker::start().await?;
    broker.create_topic("there", 1);
    let admin = transport(&broker).await?.admin().await?;
    let names = ["a", "there", "b", "no name", "a"].map(Name::from_static);
    let topics: Vec<Topic> = names.iter().map(|name| Topic::new(name.clone())).collect();
    broker.clear_requests();
    let (there, invalid) = (Some(ErrorKind::AlreadyExists), Some(ErrorKind::Invalid));
    assert_eq!(kinds(&admin.create_topics(&topics).await?), [None, there, None, invalid, there]);
    // The repeated name is in a second request.
    assert_eq!(broker.request_count(ApiKey::CreateTopics), 2);
    let gone = Some(ErrorKind::NotFound);
    assert_eq!(kinds(&admin.delete_topics(&names).await?), [None, None, None, invalid, gone]);
    assert_eq!(broker.request_count(ApiKey::DeleteTopics), 2);
    broker.on_once(ApiKey::CreateTopics, |_| Control::Error(ErrorCode::TopicAuthorizationFailed));
    assert_eq!(kinds(&admin.create_topics(&topics[..1]).await?), [Some(ErrorKind::Denied)]);
    Ok(())
}

#[tokio::test]
async fn who_loses_the_race_to_create_a_topic_waits_until_it_is_seen() -> TestResult {
    let broker = Arc::new(FakeBroker::start().await?);
    let admin = transport(&broker).await?.admin().await?;
    broker.on_once(ApiKey::CreateTopics, |_| Control::Error(ErrorCode::TopicAlreadyExists));
    let slow = tokio::spawn({
        let broker = Arc::clone(&broker);
        async move {
            sleep(Duration::from_millis(700)).await;
            broker.create_topic("t", 1);
        }
    });
    let created = admin.create_topics(&[Topic::new("t")]).await?;
    assert_eq!(kinds(&created), [Some(ErrorKind::AlreadyExists)]);
    assert!(broker.next_offset("t", 0).is_some(), "it did not wait for the topic");
    slow.await?;
    Ok(())
}

/// The broker reports no settings here, so the limit is found by trial.
#[tokio::test]
async fn a_partition_that_a_broker_does_not_know_yet_is_looked_for_again() -> TestResult {
    let broker = FakeBroker::start().await?;
    broker.create_topic("t", 2);
    let log = transport(&broker).await?.log_reader().await?;
    broker.on_times(ApiKey::ListOffsets, 2, |_| Control::Error(ErrorCode::UnknownTopicOrPartition));
    let partitions = [TopicPartition::new("t", 0), TopicPartition::new("t", 1)];
    let found = log.offsets(&partitions, SeekTo::Earliest).await?;
    assert_eq!(found.into_iter().collect::<Result<Vec<_>, _>>()?, [0, 0]);
    Ok(())
}

#[tokio::test]
async fn a_topic_that_takes_less_than_a_quarter_of_a_batch_is_learned() -> TestResult {
    let broker = FakeBroker::start().await?;
    broker.create_topic("t", 1);
    let publisher = publisher(&broker).await?;
    publisher.publish_one(Record::new("t", "first")).await?;
    // The first batch, its halves and its quarters are too large.
    broker.on_times(ApiKey::Produce, 7, |_| Control::Error(ErrorCode::MessageTooLarge));
    let keyed = |n: u32| Record::new("t", vec![7_u8; 1 << 10]).with_key((n % 4).to_string());
    let call = || publisher.publish((0..200).map(keyed).collect());
    drop(call().await);
    broker.clear_hooks();
    broker.clear_requests();
    let answers = call().await;
    assert!(answers.iter().all(Result::is_ok), "{:?}", kinds(&answers));
    // An eighth of a batch of the default size is 32 KiB.
    let sent = broker.request_count(ApiKey::Produce);
    assert!(sent >= 7, "{sent} requests for 217 KiB");
    Ok(())
}
