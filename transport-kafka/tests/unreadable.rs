//! Batches that brokers accept but the reader cannot decode: they hold their partition, and no other.

#[path = "common/batch.rs"]
mod batch;
#[expect(dead_code, reason = "the other test files use the rest")]
mod common;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use batch::{Raw, batch, produce};
use common::{LIMIT, TestResult, assigned, fresh_name, make, next, published, records};
use tidings_core::{
    Commit, Consumer, ConsumerOptions, ErrorKind, Name, ReadLimits, Record, SeekTo, Step, Topic, TopicPartition,
    Transport, Unreadable,
};
use tidings_kafka::{KafkaConfig, KafkaTransport, ReaderKind};
use tidings_testbed::{Kafka, Suite};
use tokio::time::timeout;

fn main() -> ExitCode {
    let mut suite = Suite::new().with_timeout(Duration::from_secs(120));
    for (how, reader) in [("", ReaderKind::Client), ("_natively", ReaderKind::Native)] {
        let named = |name: &str| format!("{name}{how}");
        suite = suite
            .with_case(&named("a_batch_that_unpacks_to_too_much_holds_its_partition_alone"), move || too_large(reader))
            .with_case(&named("a_record_with_too_many_headers_holds_its_partition_alone"), move || {
                too_many_headers(reader)
            })
            .with_case(&named("several_partitions_are_held_and_the_others_read"), move || several(reader))
            .with_case(&named("what_is_held_is_told_again_at_a_seek_and_to_the_next_owner"), move || told_again(reader))
            .with_case(&named("a_batch_of_many_small_events_is_read"), move || many_small_events(reader));
    }
    suite.with_case("a_log_reader_tells_it_with_its_offset_and_goes_behind", by_position).run()
}

/// Number of partitions of the topics.
const PARTITIONS: u32 = 4;
/// The client's own limit.
const MAX_HEADERS: usize = 100_000;

async fn broker() -> TestResult<String> {
    Ok(Kafka::shared().await?.bootstrap().split(',').next().unwrap_or_default().to_owned())
}

async fn connected(config: impl FnOnce(KafkaConfig) -> KafkaConfig) -> TestResult<KafkaTransport> {
    Ok(KafkaTransport::connect(config(KafkaConfig::new([broker().await?]))).await?)
}

/// Creates a topic that accepts large batches.
async fn roomy(kafka: &KafkaTransport, what: &str) -> TestResult<Name> {
    let name = fresh_name(what);
    make(kafka, &[Topic::new(name.clone()).with_partitions(PARTITIONS).with_max_record_bytes(50 << 20)]).await?;
    Ok(name)
}

/// Publishes one record to each partition except these.
async fn around(kafka: &KafkaTransport, topic: &Name, but: &[u32]) -> TestResult {
    let rest = (0..PARTITIONS).filter(|partition| !but.contains(partition));
    published(kafka, rest.map(|p| Record::new(topic.clone(), "good").with_partition(p)).collect()).await
}

/// Output of a consumer until nothing more came.
#[derive(Default)]
struct Given {
    records: BTreeMap<u32, Vec<u64>>,
    held: Vec<Unreadable>,
}

/// Reads until this many records and held partitions came. Any error is a failure.
async fn given(consumer: &dyn Consumer, records: usize, held: usize) -> TestResult<Given> {
    let mut given = Given::default();
    while given.records.values().map(Vec::len).sum::<usize>() < records || given.held.len() < held {
        match next(consumer).await? {
            Step::Records(fetched) => {
                let offsets = fetched.batch.records().iter().map(|record| record.offset);
                given.records.entry(fetched.batch.origin().partition).or_default().extend(offsets);
            }
            Step::Unreadable(unreadable) => given.held.push(unreadable),
            other => return Err(format!("expected records, got {other:?}").into()),
        }
    }
    Ok(given)
}

/// A good record, the bad batch and a good record in partition 1, good ones elsewhere: all but the bad one are read.
async fn holds_alone(kafka: &KafkaTransport, bad: &[u8], kind: ErrorKind, size: u64) -> TestResult<Unreadable> {
    let topic = roomy(kafka, "held").await?;
    let at = TopicPartition::new(topic.clone(), 1);
    let good = || published(kafka, vec![Record::new(topic.clone(), "good").with_partition(1)]);
    good().await?;
    produce(&broker().await?, &topic, 1, bad)?;
    good().await?;
    around(kafka, &topic, &[1]).await?;
    let consumer = kafka.consumer(ConsumerOptions::new(format!("{topic}-group"), [topic.clone()])).await?;
    let epochs = assigned(&*consumer, PARTITIONS as usize).await?;
    let epoch = epochs.iter().find(|a| a.partition == at).map_or(0, |a| a.epoch);
    let mut read = given(&*consumer, PARTITIONS as usize, 1).await?;
    assert_eq!(read.records[&1], [0], "what lies before it comes, and nothing of it");
    let held = read.held.remove(0);
    assert_eq!((&held.partition, held.epoch, held.offset, held.next_offset), (&at, epoch, 1, Some(1 + size)));
    assert_eq!(held.error.kind(), kind, "{}", held.error.report());
    for part in [at.to_string(), "offset 1".into()] {
        assert!(held.error.report().contains(&part), "{}", held.error.report());
    }
    println!("{}", held.error.report());
    // The others continue, and the held partition is still ours; nothing is reported twice.
    around(kafka, &topic, &[1]).await?;
    let read = given(&*consumer, PARTITIONS as usize - 1, 0).await?;
    assert!(read.held.is_empty() && !read.records.contains_key(&1));
    assert!(timeout(Duration::from_secs(1), consumer.next()).await.is_err(), "nothing more");
    consumer.commit(vec![Commit::new(at.clone(), epoch, 1)]).await.remove(0)?;
    assert_eq!(consumer.seek(&at, SeekTo::Offset(1 + size)).await?, 1 + size);
    assert_eq!(given(&*consumer, 1, 0).await?.records[&1], [1 + size]);
    consumer.commit(vec![Commit::new(at, epoch, 2 + size)]).await.remove(0)?;
    consumer.close().await?;
    Ok(held)
}

async fn too_large(reader: ReaderKind) -> TestResult {
    let kafka = connected(|config| config.with_reader(reader).with_fetch_max_unpacked_bytes(1 << 20)).await?;
    let value = vec![b'v'; 1 << 20];
    let bad = batch(&[Raw::new(&value), Raw::new(b"small")], true)?;
    holds_alone(&kafka, &bad, ErrorKind::TooLarge, 2).await.map(drop)
}

async fn too_many_headers(reader: ReaderKind) -> TestResult {
    let kafka = connected(|config| config.with_reader(reader)).await?;
    let bad = batch(&[Raw { value: b"v", headers: MAX_HEADERS + 1 }], false)?;
    holds_alone(&kafka, &bad, ErrorKind::TooLarge, 1).await.map(drop)
}

/// A damaged batch, one that unpacks to too much, and good records between them: each is reached by position.
async fn by_position() -> TestResult {
    let kafka = connected(|config| config.with_fetch_max_unpacked_bytes(1 << 20)).await?;
    let topic = roomy(&kafka, "by-position").await?;
    let at = TopicPartition::new(topic.clone(), 1);
    let good = || published(&kafka, vec![Record::new(topic.clone(), "good").with_partition(1)]);
    let value = vec![b'v'; 1 << 20];
    good().await?;
    produce(&broker().await?, &topic, 1, &batch(&[Raw::new(&value), Raw::new(b"small")], true)?)?;
    good().await?;
    produce(&broker().await?, &topic, 1, &batch(&[Raw { value: b"v", headers: MAX_HEADERS + 1 }], false)?)?;
    good().await?;
    let reader = kafka.log_reader().await?;
    let (mut next, mut offsets, mut bad) = (0, Vec::new(), Vec::new());
    loop {
        let read = reader.read(&at, next, ReadLimits::default()).await?;
        offsets.extend(read.batch.records().iter().map(|record| record.offset));
        match &read.unreadable {
            Some(unreadable) => {
                assert!(read.batch.is_empty() && unreadable.offset == read.next_offset);
                bad.push((unreadable.offset, unreadable.next_offset, unreadable.error.kind()));
                next = unreadable.next_offset.ok_or("the end of the batch is known")?;
            }
            None if read.is_at_end() => break,
            None => next = read.next_offset,
        }
    }
    // The client's limit of headers is the consumer's, too.
    assert_eq!(offsets, [0, 3, 5]);
    assert_eq!(bad, [(1, Some(3), ErrorKind::TooLarge), (4, Some(5), ErrorKind::TooLarge)]);
    // The middle of an unreadable batch is no way in.
    let read = reader.read(&at, 2, ReadLimits::default()).await?;
    assert_eq!(read.unreadable.map(|bad| (bad.offset, bad.next_offset)), Some((2, Some(3))));
    Ok(())
}

async fn several(reader: ReaderKind) -> TestResult {
    let kafka = connected(|config| config.with_reader(reader)).await?;
    let topic = roomy(&kafka, "several").await?;
    let bad = batch(&[Raw { value: b"v", headers: MAX_HEADERS + 1 }], false)?;
    for partition in [0, 1, 3] {
        produce(&broker().await?, &topic, partition, &bad)?;
    }
    around(&kafka, &topic, &[0, 1, 3]).await?;
    let consumer = kafka.consumer(ConsumerOptions::new(format!("{topic}-group"), [topic])).await?;
    assigned(&*consumer, PARTITIONS as usize).await?;
    let mut read = given(&*consumer, 1, 3).await?;
    assert_eq!(read.records[&2], [0]);
    read.held.sort_by_key(|held| held.partition.partition);
    let held: Vec<_> = read.held.iter().map(|held| (held.partition.partition, held.offset, held.next_offset)).collect();
    assert_eq!(held, [(0, 0, Some(1)), (1, 0, Some(1)), (3, 0, Some(1))]);
    consumer.close().await?;
    Ok(())
}

async fn told_again(reader: ReaderKind) -> TestResult {
    let kafka = connected(|config| config.with_reader(reader)).await?;
    let topic = roomy(&kafka, "again").await?;
    let at = TopicPartition::new(topic.clone(), 0);
    let bad = batch(&[Raw { value: b"v", headers: MAX_HEADERS + 1 }], false)?;
    produce(&broker().await?, &topic, 0, &bad)?;
    produce(&broker().await?, &topic, 0, &bad)?;
    let options = ConsumerOptions::new(format!("{topic}-group"), [topic]);
    let consumer = kafka.consumer(options.clone()).await?;
    assigned(&*consumer, PARTITIONS as usize).await?;
    assert_eq!(given(&*consumer, 0, 1).await?.held[0].offset, 0);
    consumer.seek(&at, SeekTo::Offset(0)).await?;
    assert_eq!(given(&*consumer, 0, 1).await?.held[0].offset, 0);
    consumer.seek(&at, SeekTo::Offset(1)).await?;
    assert_eq!(given(&*consumer, 0, 1).await?.held[0].offset, 1);
    // Nothing is reported while it is paused.
    consumer.pause(std::slice::from_ref(&at)).await?;
    consumer.seek(&at, SeekTo::Offset(0)).await?;
    assert!(timeout(Duration::from_secs(1), consumer.next()).await.is_err(), "paused");
    consumer.resume(std::slice::from_ref(&at)).await?;
    assert_eq!(given(&*consumer, 0, 1).await?.held[0].offset, 0);
    consumer.close().await?;
    let other = kafka.consumer(options).await?;
    assigned(&*other, PARTITIONS as usize).await?;
    assert_eq!(given(&*other, 0, 1).await?.held[0].offset, 0);
    timeout(LIMIT, other.close()).await??;
    Ok(())
}

/// 37 MiB of them, compressed as another client does it.
async fn many_small_events(reader: ReaderKind) -> TestResult {
    const COUNT: usize = 150_000;
    let kafka = connected(|config| config.with_reader(reader)).await?;
    let topic = roomy(&kafka, "many").await?;
    let value = [b'e'; 250];
    let events: Vec<_> = (0..COUNT).map(|_| Raw::new(&value)).collect();
    produce(&broker().await?, &topic, 0, &batch(&events, true)?)?;
    let consumer = kafka.consumer(ConsumerOptions::new(format!("{topic}-group"), [topic])).await?;
    assigned(&*consumer, PARTITIONS as usize).await?;
    let read = records(&*consumer, COUNT).await?;
    assert!(read.iter().zip(0..).all(|(record, offset)| record.offset == offset));
    consumer.close().await?;
    Ok(())
}
