//! Tests against a real broker: publishing, reading, groups.

mod common;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use common::{Joined, LIMIT, TestResult, assigned, fresh, published, records, transport};
use tidings_core::{
    Commit, ConsumerOptions, CreatePartitionsOptions, ErrorKind, Header, Name, Record, ResetOffsetsOptions, ResetTo,
    SeekTo, Start, Topic, TopicPartition, Transport, ensure_topics, inspect, partition_for,
};
use tidings_kafka::{Compression, GroupProtocol, KafkaConfig, KafkaTransport};
use tidings_testbed::{Framing, Kafka, Proxy, Suite};

fn main() -> ExitCode {
    Suite::new()
        .with_timeout(Duration::from_secs(120))
        .with_case("records_survive_byte_for_byte", records_survive_byte_for_byte)
        .with_case("keys_go_where_java_puts_them", keys_go_where_java_puts_them)
        .with_case("each_record_has_its_own_outcome", each_record_has_its_own_outcome)
        .with_case("two_members_share_by_the_newer_protocol", || hand_over(GroupProtocol::Consumer, |options| options))
        .with_case("two_members_share_by_the_classic_protocol", || hand_over(GroupProtocol::Classic, |options| options))
        .with_case("two_members_share_with_endless_times", || hand_over(GroupProtocol::Consumer, endless))
        .with_case("a_topic_that_grew_is_learned_of", a_topic_that_grew)
        .with_case("epochs_outlive_the_group_of_the_newer_protocol", || epochs_outlive(GroupProtocol::Consumer))
        .with_case("epochs_outlive_the_group_of_the_classic_protocol", || epochs_outlive(GroupProtocol::Classic))
        .with_case("latest_starts_at_the_end", latest_starts_at_the_end)
        .with_case("paused_means_nothing_comes", paused_means_nothing_comes)
        .with_case("a_missing_topic_is_named", a_missing_topic_is_named)
        .with_case("every_codec_is_read_back", every_codec_is_read_back)
        .with_case("topics_are_ensured_with_their_letters", topics_are_ensured_with_their_letters)
        .with_case("an_inspection_tells_topics_and_groups", an_inspection_tells_topics_and_groups)
        .with_case("a_bad_record_does_not_fail_its_batch", a_bad_record_does_not_fail_its_batch)
        .with_case("small_records_pass_where_their_batch_is_too_large", a_batch_that_is_too_large)
        .with_case("a_record_that_is_too_large_fails_alone", a_record_that_is_too_large)
        .with_case("a_broker_that_comes_later_is_waited_for", a_broker_that_comes_later)
        .run()
}

/// Connects through a proxy that starts forwarding after the first attempt failed.
async fn a_broker_that_comes_later() -> TestResult {
    let kafka = Kafka::shared().await?;
    let broker = kafka.bootstrap().split(',').next().unwrap_or_default().to_owned();
    let proxy = Proxy::start(broker, Framing::Kafka)?;
    proxy.refuse();
    let config = KafkaConfig::new([proxy.addr().to_string()]);
    let error = KafkaTransport::connect(config.clone()).await.map(drop).expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let called = proxy.counts().connections;
    let connecting = tokio::spawn(KafkaTransport::connect(config.with_connect_wait(Duration::from_secs(90))));
    let in_vain = async {
        while proxy.counts().connections <= called {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, in_vain).await?;
    proxy.resume();
    assert!(!connecting.await??.admin().await?.list_topics().await?.is_empty());
    Ok(())
}

async fn records_survive_byte_for_byte() -> TestResult {
    let kafka = transport(GroupProtocol::Auto).await?;
    let topic = fresh(&kafka, "bytes", 1).await?;
    let mut odd = Record::new(topic.clone(), vec![0_u8, 159, 146, 150]).with_key("");
    odd = odd.with_header("a", "1").with_header("a", "2").with_header("", "");
    odd.headers.push(Header::null("n"));
    let tombstone = Record::tombstone(topic.clone()).with_key("k");
    let sent = vec![odd, tombstone, Record::new(topic.clone(), "")];
    published(&kafka, sent.clone()).await?;
    let consumer = kafka.consumer(ConsumerOptions::new(format!("{topic}-group"), [topic])).await?;
    assigned(&*consumer, 1).await?;
    for (sent, got) in sent.iter().zip(records(&*consumer, 3).await?) {
        assert_eq!((&sent.key, &sent.value, &sent.headers), (&got.key, &got.value, &got.headers));
    }
    consumer.close().await?;
    Ok(())
}

async fn keys_go_where_java_puts_them() -> TestResult {
    let kafka = transport(GroupProtocol::Auto).await?;
    let topic = fresh(&kafka, "keys", 7).await?;
    let keys: Vec<String> = (0..200).map(|n| format!("key-{n}")).collect();
    let records = keys.iter().map(|k| Record::new(topic.clone(), "v").with_key(k.clone())).collect();
    let places = kafka.publisher().await?.publish(records).await;
    for (key, place) in keys.iter().zip(places) {
        assert_eq!(place?.partition, partition_for(key.as_bytes(), 7), "{key}");
    }
    Ok(())
}

async fn each_record_has_its_own_outcome() -> TestResult {
    let kafka = transport(GroupProtocol::Auto).await?;
    let topic = fresh(&kafka, "outcomes", 1).await?;
    let large = vec![7_u8; 2 << 20];
    let records = vec![
        Record::new(topic.clone(), "first"),
        Record::new(topic.clone(), large),
        Record::new("no-such-topic", "v"),
        Record::new(topic.clone(), "v").with_partition(9),
        Record::new(topic.clone(), "last"),
    ];
    let answers = kafka.publisher().await?.publish(records).await;
    let kinds: Vec<_> =
        answers.iter().map(|a| a.as_ref().map(|p| p.offset).map_err(tidings_core::Error::kind)).collect();
    let (large, missing) = (Err(ErrorKind::TooLarge), Err(ErrorKind::NotFound));
    assert_eq!(kinds, [Ok(0), large, missing, Err(ErrorKind::NotFound), Ok(1)], "{answers:?}");
    Ok(())
}

/// Sets the timeouts of a consumer to their maximum.
fn endless(options: ConsumerOptions) -> ConsumerOptions {
    let options = options.with_session_timeout(Duration::MAX).with_max_idle(Duration::MAX);
    options.with_revocation_deadline(Duration::MAX)
}

/// One member owns all partitions; another joins and continues its share from the commits; it leaves, and the first
/// member owns all again.
async fn hand_over(protocol: GroupProtocol, set: fn(ConsumerOptions) -> ConsumerOptions) -> TestResult {
    let kafka = transport(protocol).await?;
    let topic = fresh(&kafka, "share", 4).await?;
    let all =
        |value: &'static str| (0..4).map(|p| Record::new(topic.clone(), value).with_partition(p)).collect::<Vec<_>>();
    published(&kafka, all("one")).await?;
    let options = set(ConsumerOptions::new(format!("{topic}-group"), [topic.clone()]));
    let mut first = Joined::new(kafka.consumer(options.clone()).await?);
    first.run_until("four partitions", |j| j.epochs.len() == 4 && j.read.len() == 4).await?;
    let before: BTreeMap<_, _> = first.epochs.clone();
    let mut second = Joined::new(kafka.consumer(options).await?);
    let both = tokio::time::Instant::now() + Duration::from_secs(40);
    while first.epochs.len() != 2 || second.epochs.len() != 2 {
        assert!(tokio::time::Instant::now() < both, "{} and {}", first.epochs.len(), second.epochs.len());
        first.step().await?;
        second.step().await?;
    }
    for (partition, epoch) in &second.epochs {
        assert!(before[partition] < *epoch, "the epoch of {partition} did not grow");
    }
    published(&kafka, all("two")).await?;
    first.run_until("its two", |j| j.read.len() == 6).await?;
    second.run_until("its two", |j| j.read.len() == 2).await?;
    second.consumer.close().await?;
    first.run_until("all again", |j| j.epochs.len() == 4).await?;
    published(&kafka, all("three")).await?;
    first.run_until("all records", |j| j.read.len() == 10).await?;
    assert!(first.read.iter().filter(|(_, value)| value == "two").count() == 2, "{:?}", first.read);
    first.consumer.close().await?;
    Ok(())
}

/// Tests publishers that knew the topic before: they notice new partitions soon, and at once if a record names one.
async fn a_topic_that_grew() -> TestResult {
    let kafka = transport(GroupProtocol::Auto).await?;
    let topic = fresh(&kafka, "grown", 2).await?;
    let hasty = kafka.config().clone().with_metadata_max_age(Duration::from_millis(500));
    let (hasty, patient) = (KafkaTransport::connect(hasty).await?.publisher().await?, kafka.publisher().await?);
    let key = (0..).map(|n| format!("key-{n}")).find(|key| partition_for(key.as_bytes(), 8) >= 2).unwrap_or_default();
    let keyed = || vec![Record::new(topic.clone(), "v").with_key(key.clone())];
    for publisher in [&hasty, &patient] {
        assert!(publisher.publish(keyed()).await.remove(0)?.partition < 2);
    }
    let (admin, names) = (kafka.admin().await?, [topic.clone()]);
    admin.create_partitions(&topic, 8, CreatePartitionsOptions::default().with_rekeying()).await?;
    let ends = tokio::time::Instant::now() + LIMIT;
    while admin.describe_topics(&names).await?.remove(0)?.partitions.len() < 8 {
        assert!(tokio::time::Instant::now() < ends, "it does not grow");
    }
    let named = Record::new(topic.clone(), "v").with_partition(7);
    assert_eq!(patient.publish(vec![named]).await.remove(0)?.partition, 7);
    assert_eq!(patient.publish(keyed()).await.remove(0)?.partition, partition_for(key.as_bytes(), 8));
    let beyond = Record::new(topic.clone(), "v").with_partition(8);
    assert_eq!(patient.publish(vec![beyond]).await.remove(0).map_err(|e| e.kind()), Err(ErrorKind::NotFound));
    while hasty.publish(keyed()).await.remove(0)?.partition != partition_for(key.as_bytes(), 8) {
        assert!(tokio::time::Instant::now() < ends, "it goes by two partitions");
    }
    Ok(())
}

/// The broker's generations start over in a group that was deleted, and continue in one that was reset.
async fn epochs_outlive(protocol: GroupProtocol) -> TestResult {
    let kafka = transport(protocol).await?;
    let admin = kafka.admin().await?;
    let topic = fresh(&kafka, "epochs", 1).await?;
    published(&kafka, (0..9).map(|n| Record::new(topic.clone(), n.to_string())).collect()).await?;
    let group = Name::from(format!("{topic}-group"));
    let at = TopicPartition::new(topic.clone(), 0);
    let mut epochs = Vec::new();
    for round in 0..3 {
        for next in 1..4 {
            let consumer = kafka.consumer(ConsumerOptions::new(group.clone(), [topic.clone()])).await?;
            let epoch = assigned(&*consumer, 1).await?[0].epoch;
            epochs.push(epoch);
            // The last one crashes before it commits.
            if next < 3 {
                consumer.commit(vec![Commit::new(at.clone(), epoch, next)]).await.remove(0)?;
            }
            consumer.close().await?;
        }
        match round {
            0 => admin.delete_group(&group).await?,
            _ => drop(
                admin
                    .reset_offsets(
                        &group,
                        std::slice::from_ref(&topic),
                        ResetTo::Shift(0),
                        ResetOffsetsOptions::default(),
                    )
                    .await?,
            ),
        }
    }
    // The same holds for a group that changes its protocol while it has no members.
    let other = if protocol == GroupProtocol::Classic { GroupProtocol::Consumer } else { GroupProtocol::Classic };
    for (protocol, next) in [(protocol, 4), (other, 5), (other, 6)] {
        let consumer =
            transport(protocol).await?.consumer(ConsumerOptions::new(group.clone(), [topic.clone()])).await?;
        let epoch = assigned(&*consumer, 1).await?[0].epoch;
        epochs.push(epoch);
        consumer.commit(vec![Commit::new(at.clone(), epoch, next)]).await.remove(0)?;
        consumer.close().await?;
    }
    assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
    Ok(())
}

async fn latest_starts_at_the_end() -> TestResult {
    let kafka = transport(GroupProtocol::Auto).await?;
    let topic = fresh(&kafka, "latest", 1).await?;
    published(&kafka, vec![Record::new(topic.clone(), "old")]).await?;
    let options = ConsumerOptions::new(format!("{topic}-group"), [topic.clone()]).with_start(Start::Latest);
    let consumer = kafka.consumer(options).await?;
    let given = assigned(&*consumer, 1).await?;
    assert_eq!((given[0].start_offset, given[0].committed), (1, None));
    published(&kafka, vec![Record::new(topic.clone(), "new")]).await?;
    assert_eq!(records(&*consumer, 1).await?[0].value.as_deref(), Some(&b"new"[..]));
    let at = TopicPartition::new(topic, 0);
    assert_eq!(consumer.seek(&at, SeekTo::Earliest).await?, 0);
    assert_eq!(records(&*consumer, 1).await?[0].value.as_deref(), Some(&b"old"[..]));
    consumer.close().await?;
    Ok(())
}

async fn paused_means_nothing_comes() -> TestResult {
    let kafka = transport(GroupProtocol::Auto).await?;
    let topic = fresh(&kafka, "paused", 1).await?;
    let at = TopicPartition::new(topic.clone(), 0);
    let consumer = kafka.consumer(ConsumerOptions::new(format!("{topic}-group"), [topic.clone()])).await?;
    consumer.pause(std::slice::from_ref(&at)).await?;
    let given = assigned(&*consumer, 1).await?;
    published(&kafka, vec![Record::new(topic.clone(), "v")]).await?;
    let early = tokio::time::timeout(Duration::from_secs(2), consumer.next()).await;
    assert!(early.is_err(), "{early:?}");
    consumer.resume(std::slice::from_ref(&at)).await?;
    assert_eq!(records(&*consumer, 1).await?.len(), 1);
    let commit = Commit::new(at.clone(), given[0].epoch, 1).with_metadata("mine");
    for answer in consumer.commit(vec![commit.clone()]).await {
        answer?;
    }
    let progress = consumer.progress().await?;
    assert_eq!((progress[0].committed, progress[0].end, progress[0].lag()), (Some(1), 1, 0));
    consumer.close().await?;
    assert_eq!(consumer.commit(vec![commit]).await[0].as_ref().map_err(|e| e.kind()), Err(ErrorKind::Closed));
    let again = kafka.consumer(ConsumerOptions::new(format!("{topic}-group"), [topic])).await?;
    let given = assigned(&*again, 1).await?;
    assert_eq!((given[0].start_offset, given[0].metadata.as_deref()), (1, Some("mine")));
    again.close().await?;
    Ok(())
}

async fn a_missing_topic_is_named() -> TestResult {
    let kafka = transport(GroupProtocol::Auto).await?;
    let error = kafka.consumer(ConsumerOptions::new("g", ["nothing-here"])).await.map(drop);
    let error = error.expect_err("there is no such topic");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.report().contains("nothing-here"), "{}", error.report());
    Ok(())
}

async fn every_codec_is_read_back() -> TestResult {
    let brokers = Kafka::shared().await?.bootstrap().to_owned();
    let mut codecs = vec![Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4];
    if cfg!(feature = "zstd") {
        codecs.push(Compression::Zstd);
    }
    for codec in codecs {
        let config = KafkaConfig::new(brokers.split(',')).with_compression(codec);
        let kafka = KafkaTransport::connect(config).await?;
        let topic = fresh(&kafka, "codec", 1).await?;
        let value = |n: usize| format!("{n}-").repeat(100);
        published(&kafka, (0..500).map(|n| Record::new(topic.clone(), value(n))).collect()).await?;
        let consumer = kafka.consumer(ConsumerOptions::new(format!("{topic}-group"), [topic])).await?;
        for (n, record) in records(&*consumer, 500).await?.iter().enumerate() {
            assert_eq!(record.value.as_deref(), Some(value(n).as_bytes()), "{codec:?}");
        }
        consumer.close().await?;
    }
    Ok(())
}

async fn topics_are_ensured_with_their_letters() -> TestResult {
    let kafka = transport(GroupProtocol::Auto).await?;
    let name = Name::from(format!("ensured-{}", tidings_core::Timestamp::now().millis()));
    let week = Duration::from_secs(7 * 24 * 3600);
    let wanted = Topic::new(name.clone()).with_partitions(2).with_retention(week).with_max_record_bytes(100_000);
    let admin = kafka.admin().await?;
    let report = ensure_topics(&*admin, std::slice::from_ref(&wanted)).await?;
    let letters = tidings_core::dead_letter_topic(&name);
    let states = tidings_core::dead_letter_state_topic(&name);
    assert_eq!(report.created, [name.clone(), letters.clone(), states.clone()]);
    let states = admin.describe_topics(&[states]).await?.remove(0)?;
    assert_eq!(states.settings.get("cleanup.policy").map(String::as_str), Some("compact"));
    let found = admin.describe_topics(&[letters]).await?.remove(0)?;
    assert_eq!(found.partitions.len(), 2);
    let setting = |name: &str| found.settings.get(name).map(String::as_str);
    assert_eq!((setting("cleanup.policy"), setting("retention.ms")), (Some("delete"), Some("-1")));
    assert_eq!(setting("max.message.bytes"), Some("165536"));
    let again = ensure_topics(&*admin, std::slice::from_ref(&wanted)).await?;
    assert_eq!((again.created.len(), again.unchanged.len(), again.different.len()), (0, 3, 0), "{again:?}");
    let report = ensure_topics(&*admin, &[wanted.with_partitions(1).with_retention(week * 2)]).await?;
    let what: Vec<_> = report.different.iter().map(|d| d.what.as_str()).collect();
    assert_eq!(what, ["partitions", "retention.ms", "partitions", "partitions"], "{report:?}");
    assert_eq!(admin.describe_topics(&[name]).await?.remove(0)?.partitions.len(), 2);
    Ok(())
}

/// A broker refuses a whole batch because one record violates the topic's rule.
async fn a_bad_record_does_not_fail_its_batch() -> TestResult {
    let kafka = transport(GroupProtocol::Auto).await?;
    let name = Name::from(format!("compacted-{}", tidings_core::Timestamp::now().millis()));
    let topic = Topic::new(name.clone()).with_cleanup(tidings_core::Cleanup::Compact);
    kafka.admin().await?.create_topics(&[topic]).await?.remove(0)?;
    let records = vec![
        Record::new(name.clone(), "a").with_key("1"),
        Record::new(name.clone(), "no key"),
        Record::new(name, "b").with_key("2"),
    ];
    let answers = kafka.publisher().await?.publish(records).await;
    let kinds: Vec<_> = answers.iter().map(|a| a.as_ref().map(drop).map_err(tidings_core::Error::kind)).collect();
    assert_eq!(kinds, [Ok(()), Err(ErrorKind::Invalid), Ok(())], "{answers:?}");
    Ok(())
}

/// Creates a topic limited to 32 KiB, and a publisher that waits until its batches are full.
async fn narrow(what: &str) -> TestResult<(KafkaTransport, Name)> {
    let kafka = transport(GroupProtocol::Auto).await?;
    let topic = common::fresh_name(what);
    common::make(&kafka, &[Topic::new(topic.clone()).with_max_record_bytes(32 << 10)]).await?;
    let config = kafka.config().clone().with_linger(Duration::from_millis(200));
    Ok((KafkaTransport::connect(config).await?, topic))
}

async fn a_batch_that_is_too_large() -> TestResult {
    let (kafka, topic) = narrow("narrow").await?;
    let record = |n: u32| Record::new(topic.clone(), vec![7_u8; 1 << 10]).with_key(format!("key-{}", n % 16));
    let answers = kafka.publisher().await?.publish((0..200).map(record).collect()).await;
    let mut last = BTreeMap::new();
    for (n, answer) in answers.into_iter().enumerate() {
        let offset = answer?.offset;
        let before = last.insert(n % 16, offset);
        assert!(before.is_none_or(|before| before < offset), "{before:?} and then {offset}");
    }
    Ok(())
}

async fn a_record_that_is_too_large() -> TestResult {
    let (kafka, topic) = narrow("one-large").await?;
    let record = |n: usize| {
        let value = vec![7_u8; if n == 4 { 64 << 10 } else { 100 }];
        Record::new(topic.clone(), value).with_key(format!("key-{n}"))
    };
    let answers = kafka.publisher().await?.publish((0..9).map(record).collect()).await;
    let kinds: Vec<_> = answers.iter().map(|a| a.as_ref().map(drop).map_err(tidings_core::Error::kind)).collect();
    let expected: Vec<_> = (0..9).map(|n| if n == 4 { Err(ErrorKind::TooLarge) } else { Ok(()) }).collect();
    assert_eq!(kinds, expected, "{answers:?}");
    Ok(())
}

async fn an_inspection_tells_topics_and_groups() -> TestResult {
    let kafka = transport(GroupProtocol::Auto).await?;
    let topic = fresh(&kafka, "inspected", 2).await?;
    published(&kafka, (0..10).map(|n| Record::new(topic.clone(), "v").with_partition(n % 2)).collect()).await?;
    let group = Name::from(format!("{topic}-group"));
    let mut member = Joined::new(kafka.consumer(ConsumerOptions::new(group.clone(), [topic.clone()])).await?);
    member.run_until("all records", |j| j.read.len() == 10).await?;
    let admin = kafka.admin().await?;
    let (topics, groups) = ([topic.clone()], [group.clone()]);
    let found = inspect(&*admin, &topics, &groups).await?;
    assert_eq!((found.health.brokers.len(), found.health.controller.is_some()), (1, true), "{found:?}");
    assert_eq!((found.groups[0].members, found.groups[0].lag), (1, 0), "{found:?}");
    assert_eq!(found.missing, [tidings_core::dead_letter_topic(&topic)]);
    member.consumer.close().await?;
    published(&kafka, vec![Record::new(topic.clone(), "v")]).await?;
    let found = inspect(&*admin, &topics, &groups).await?;
    let problem = format!("group {group:?} has no members and a lag of 1");
    assert!(found.health.problems.contains(&problem), "{:?}", found.health.problems);
    Ok(())
}
