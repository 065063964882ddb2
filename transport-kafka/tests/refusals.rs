//! Refusals of brokers and unreadable batches, each reported by its kind and name.

#[expect(dead_code, reason = "the other test files use the rest")]
mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use common::{LIMIT, TestResult, assigned, fresh, next, published, records, transport};
use tidings_core::{
    Commit, Consumer, ConsumerOptions, Error, ErrorKind, Name, Record, Step, TopicPartition, Transport,
};
use tidings_kafka::{GroupProtocol, KafkaConfig, KafkaTransport};
use tidings_testbed::{Kafka, KafkaOptions, Suite};
use tokio::time::{Instant, timeout};

fn main() -> ExitCode {
    Suite::new()
        .with_timeout(Duration::from_secs(150))
        .with_case("an_offset_beyond_the_log_goes_to_the_oldest_record", an_offset_beyond_the_log)
        .with_case("what_is_read_below_a_commit_beyond_the_log_is_committed", commits_below_an_offset_beyond_the_log)
        .with_case("a_group_of_another_kind_is_a_conflict_kip_848", || another_kind(GroupProtocol::Consumer))
        .with_case("a_group_of_another_kind_is_a_conflict_classic", || another_kind(GroupProtocol::Classic))
        .with_case("a_static_member_that_was_replaced_is_fenced", a_replaced_static_member)
        .with_case("a_static_member_waits_for_the_one_before_it", a_waiting_static_member)
        .with_case("what_can_not_be_read_in_a_log_is_told", what_can_not_be_read)
        .run()
}

/// Reads steps until there is an error of one of these kinds, or another one that is not transient.
async fn first_error(consumer: &dyn Consumer, wanted: &[ErrorKind]) -> TestResult<Error> {
    let ends = Instant::now() + LIMIT;
    let mut last = None;
    while Instant::now() < ends {
        match timeout(Duration::from_secs(1), consumer.next()).await {
            Ok(Err(error)) if wanted.contains(&error.kind()) || !error.is_retryable() => return Ok(error),
            Ok(Err(error)) => last = Some(error.report()),
            _ => {}
        }
    }
    Err(format!("no error of {wanted:?} came; the last one: {last:?}").into())
}

async fn an_offset_beyond_the_log() -> TestResult {
    let kafka = transport(GroupProtocol::Auto).await?;
    let topic = fresh(&kafka, "beyond", 1).await?;
    published(&kafka, (0..3).map(|n| Record::new(topic.clone(), n.to_string())).collect()).await?;
    let options = ConsumerOptions::new(format!("{topic}-group"), [topic.clone()]);
    let consumer = kafka.consumer(options.clone()).await?;
    let epoch = assigned(&*consumer, 1).await?[0].epoch;
    let commit = Commit::new(TopicPartition::new(topic, 0), epoch, 1_000).with_metadata("of records that are gone");
    consumer.commit(vec![commit]).await.remove(0)?;
    consumer.close().await?;
    let again = kafka.consumer(options).await?;
    let given = assigned(&*again, 1).await?.remove(0);
    assert_eq!((given.committed, given.start_offset, given.metadata), (Some(1_000), 0, None));
    let progress = again.progress().await?.remove(0);
    assert_eq!((progress.committed, progress.lag()), (None, 3), "of this log nothing is committed");
    assert_eq!(records(&*again, 3).await?[0].offset, 0);
    again.close().await?;
    Ok(())
}

/// Records read again are committed again: otherwise they would be skipped as soon as the log has grown beyond the
/// commit.
async fn commits_below_an_offset_beyond_the_log() -> TestResult {
    let kafka = transport(GroupProtocol::Auto).await?;
    let topic = fresh(&kafka, "below", 1).await?;
    published(&kafka, (0..3).map(|n| Record::new(topic.clone(), n.to_string())).collect()).await?;
    let options = ConsumerOptions::new(format!("{topic}-group"), [topic.clone()]);
    let consumer = kafka.consumer(options.clone()).await?;
    let at = TopicPartition::new(topic, 0);
    let epoch = assigned(&*consumer, 1).await?[0].epoch;
    consumer.commit(vec![Commit::new(at.clone(), epoch, 1_000)]).await.remove(0)?;
    consumer.close().await?;
    let again = kafka.consumer(options.clone()).await?;
    let epoch = assigned(&*again, 1).await?[0].epoch;
    records(&*again, 3).await?;
    again.commit(vec![Commit::new(at.clone(), epoch, 2)]).await.remove(0)?;
    // From here on commits do not go back.
    again.commit(vec![Commit::new(at, epoch, 1)]).await.remove(0)?;
    again.close().await?;
    let last = kafka.consumer(options).await?;
    assert_eq!(assigned(&*last, 1).await?[0].committed, Some(2));
    last.close().await?;
    Ok(())
}

/// Joins a group as Kafka Connect does; it stays in it while the connection or its session lasts.
fn connect_member(broker: &str, group: &str) -> TestResult<TcpStream> {
    const JOIN_GROUP: i16 = 11;
    let text = |body: &mut Vec<u8>, text: &str| {
        body.extend((text.len() as i16).to_be_bytes());
        body.extend(text.as_bytes());
    };
    let mut body = Vec::new();
    body.extend(JOIN_GROUP.to_be_bytes());
    body.extend(2_i16.to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    text(&mut body, "worker");
    text(&mut body, group);
    body.extend(60_000_i32.to_be_bytes());
    body.extend(60_000_i32.to_be_bytes());
    text(&mut body, "");
    text(&mut body, "connect");
    body.extend(1_i32.to_be_bytes());
    text(&mut body, "default");
    body.extend(0_i32.to_be_bytes());
    let mut stream = TcpStream::connect(broker)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(&(body.len() as i32).to_be_bytes())?;
    stream.write_all(&body)?;
    // Length, correlation, throttle time, and then the error.
    let mut answer = [0; 14];
    stream.read_exact(&mut answer)?;
    match i16::from_be_bytes([answer[12], answer[13]]) {
        0 => Ok(stream),
        // The coordinator is still loading, or being looked up.
        14..=16 => Err("not yet".into()),
        code => Err(format!("the worker was refused: {code}").into()),
    }
}

async fn another_kind(protocol: GroupProtocol) -> TestResult {
    let kafka = transport(protocol).await?;
    let topic = fresh(&kafka, "kind", 1).await?;
    let group = format!("{topic}-group");
    let broker = Kafka::shared().await?.bootstrap().split(',').next().unwrap_or_default().to_owned();
    let ends = Instant::now() + LIMIT;
    let _worker = loop {
        match connect_member(&broker, &group) {
            Err(error) if error.to_string() == "not yet" && Instant::now() < ends => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            worker => break worker?,
        }
    };
    let began = Instant::now();
    let error = match kafka.consumer(ConsumerOptions::new(group.clone(), [topic])).await {
        Ok(consumer) => first_error(&*consumer, &[ErrorKind::Conflict]).await?,
        Err(error) => error,
    };
    println!("{protocol:?}: {}", error.report());
    assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.report());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    Ok(())
}

fn named(topic: &Name) -> ConsumerOptions {
    ConsumerOptions::new(format!("{topic}-group"), [topic.clone()]).with_instance_id("the-one")
}

async fn a_replaced_static_member() -> TestResult {
    let kafka = transport(GroupProtocol::Classic).await?;
    let topic = fresh(&kafka, "fenced", 1).await?;
    let first = kafka.consumer(named(&topic)).await?;
    let old = assigned(&*first, 1).await?.remove(0);
    let second = kafka.consumer(named(&topic)).await?;
    assert!(assigned(&*second, 1).await?[0].epoch > old.epoch);
    let error = first_error(&*first, &[ErrorKind::Fenced]).await?;
    println!("{}", error.report());
    assert_eq!(error.kind(), ErrorKind::Fenced, "{}", error.report());
    let answer = first.commit(vec![Commit::new(old.partition, old.epoch, 0)]).await.remove(0);
    assert_eq!(answer.map_err(|e| e.kind()), Err(ErrorKind::Fenced));
    second.close().await?;
    Ok(())
}

/// With the newer protocol the first member stays; the second reports why it waits, and takes over when the first
/// leaves.
async fn a_waiting_static_member() -> TestResult {
    let kafka = transport(GroupProtocol::Consumer).await?;
    let topic = fresh(&kafka, "waiting", 1).await?;
    let first = kafka.consumer(named(&topic)).await?;
    assigned(&*first, 1).await?;
    let second = kafka.consumer(named(&topic)).await?;
    let error = first_error(&*second, &[ErrorKind::Unavailable]).await?;
    println!("{}", error.report());
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
    first.close().await?;
    let ends = Instant::now() + LIMIT;
    loop {
        match timeout(LIMIT, second.next()).await.map_err(|_| "it was not let in")? {
            Ok(Step::Assigned(_)) => break,
            Err(error) if error.is_retryable() && Instant::now() < ends => {}
            other => return Err(format!("expected a partition, got {other:?}").into()),
        }
    }
    second.close().await?;
    Ok(())
}

/// Updates the checksum of a batch: CRC-32C of the bytes after it.
fn seal(batch: &mut [u8]) {
    let mut crc = u32::MAX;
    for byte in &batch[21..] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    batch[17..21].copy_from_slice(&(!crc).to_be_bytes());
}

/// Changes the first of a topic's two batches in the files of a broker that was shut down cleanly, and therefore
/// trusts them. Returns where the log continues.
async fn damaged(what: &str, damage: fn(&mut [u8])) -> TestResult<Option<u64>> {
    let kafka = Kafka::start(KafkaOptions::new()).await?;
    let config = || KafkaConfig::new([kafka.bootstrap()]);
    let opened = KafkaTransport::connect(config()).await?;
    let topic = fresh(&opened, "damaged", 1).await?;
    for value in ["some value that is whole", "and one behind it"] {
        published(&opened, vec![Record::new(topic.clone(), value)]).await?;
    }
    drop(opened);
    kafka.node(0).stop().await?;
    let log: PathBuf = kafka.node(0).log().with_file_name("data").join(format!("{topic}-0/{:020}.log", 0));
    let mut bytes = fs::read(&log)?;
    let length = 12 + i32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize;
    damage(&mut bytes[..length]);
    fs::write(&log, bytes)?;
    kafka.node(0).start().await?;
    let opened = KafkaTransport::connect(config()).await?;
    let consumer = opened.consumer(ConsumerOptions::new(format!("{topic}-group"), [topic.clone()])).await?;
    assigned(&*consumer, 1).await?;
    let Step::Unreadable(held) = next(&*consumer).await? else { return Err("expected what can't be read".into()) };
    println!("{what}: {}", held.error.report());
    assert_eq!((held.offset, held.error.kind()), (0, ErrorKind::Undecodable), "{what}");
    assert!(held.error.report().contains(topic.as_str()), "{what}: {}", held.error.report());
    Ok(held.next_offset)
}

async fn what_can_not_be_read() -> TestResult {
    const MAGIC: usize = 16;
    const CODEC: usize = 22;
    const LAST: usize = 26;
    assert_eq!(damaged("a byte of a value", |batch| *batch.last_mut().expect("a batch") ^= 1).await?, Some(1));
    let codec = damaged("a codec of tomorrow", |batch| {
        batch[CODEC] |= 6;
        seal(batch);
    });
    assert_eq!(codec.await?, Some(1));
    assert_eq!(damaged("a magic of tomorrow", |batch| batch[MAGIC] = 9).await?, Some(1));
    assert_eq!(damaged("an end that lies behind good records", |batch| batch[LAST] = 1).await?, Some(1));
    Ok(())
}
