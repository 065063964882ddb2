//! Reads by position with transactions of other programs: aborted records are hidden, and an open one ends the log.

#[expect(dead_code, reason = "the other test files use the rest")]
mod common;

use std::process::ExitCode;

use common::{LIMIT, TestResult, fresh, fresh_name, published};
use krafka::producer::{Record as Sent, TransactionalProducer};
use tidings_core::{LogReader, Name, Read, ReadLimits, Record, SeekTo, TopicPartition, Transport};
use tidings_kafka::{GroupProtocol, Isolation, KafkaConfig, KafkaTransport};
use tidings_testbed::{Kafka, Suite};
use tokio::time::timeout;

fn main() -> ExitCode {
    Suite::new()
        .with_case("records_of_aborted_transactions_are_hidden", records_of_aborted_transactions_are_hidden)
        .with_case("an_open_transaction_is_the_end_of_the_log", an_open_transaction_is_the_end_of_the_log)
        .run()
}

async fn producer() -> TestResult<TransactionalProducer> {
    let kafka = Kafka::shared().await?;
    let client = timeout(LIMIT, krafka::Kafka::builder(kafka.bootstrap()).connect()).await??;
    Ok(timeout(LIMIT, client.producer().build_transactional(fresh_name("transaction").to_string())).await??)
}

async fn send(producer: &TransactionalProducer, topic: &Name, values: &[&str]) -> TestResult {
    for value in values {
        let _stored = timeout(LIMIT, producer.send(Sent::new(topic.as_str(), value.as_bytes().to_vec()))).await??;
    }
    Ok(())
}

/// Returns the values of everything in the log, and the last answer.
async fn read(log: &dyn LogReader, topic: &Name) -> TestResult<(Vec<String>, Read)> {
    let (at, mut next, mut values) = (TopicPartition::new(topic, 0), 0, Vec::new());
    loop {
        let read = timeout(LIMIT, log.read(&at, next, ReadLimits::default())).await??;
        let texts = read.batch.records().iter().map(|record| record.value.clone().unwrap_or_default());
        values.extend(texts.map(|value| String::from_utf8_lossy(&value).into_owned()));
        if read.next_offset == next || read.is_at_end() {
            return Ok((values, read));
        }
        next = read.next_offset;
    }
}

/// Reads everything once the log ends at `end`: a transaction is answered before its marker is in the log.
async fn read_up_to(end: u64, log: &dyn LogReader, topic: &Name) -> TestResult<(Vec<String>, Read)> {
    timeout(LIMIT, async {
        loop {
            let (values, last) = read(log, topic).await?;
            if last.end_offset >= end {
                return Ok((values, last));
            }
        }
    })
    .await?
}

async fn uncommitted() -> TestResult<KafkaTransport> {
    let config = KafkaConfig::new(Kafka::shared().await?.bootstrap().split(','));
    Ok(KafkaTransport::connect(config.with_isolation(Isolation::ReadUncommitted)).await?)
}

async fn records_of_aborted_transactions_are_hidden() -> TestResult {
    let transport = common::transport(GroupProtocol::Classic).await?;
    let topic = fresh(&transport, "aborted", 1).await?;
    let producer = producer().await?;
    published(&transport, vec![Record::new(&topic, "before")]).await?;
    producer.begin()?;
    send(&producer, &topic, &["undone-1", "undone-2"]).await?;
    timeout(LIMIT, producer.abort()).await??;
    producer.begin()?;
    send(&producer, &topic, &["done-1", "done-2"]).await?;
    timeout(LIMIT, producer.commit()).await??;
    published(&transport, vec![Record::new(&topic, "after")]).await?;

    let (values, last) = read_up_to(8, &*transport.log_reader().await?, &topic).await?;
    assert_eq!(values, ["before", "done-1", "done-2", "after"]);
    // Two markers and two hidden records.
    assert_eq!((last.next_offset, last.end_offset), (8, 8), "{last:?}");
    let (values, _) = read(&*uncommitted().await?.log_reader().await?, &topic).await?;
    assert_eq!(values, ["before", "undone-1", "undone-2", "done-1", "done-2", "after"]);
    Ok(())
}

async fn an_open_transaction_is_the_end_of_the_log() -> TestResult {
    let transport = common::transport(GroupProtocol::Classic).await?;
    let topic = fresh(&transport, "open", 1).await?;
    let producer = producer().await?;
    published(&transport, vec![Record::new(&topic, "before")]).await?;
    producer.begin()?;
    send(&producer, &topic, &["open"]).await?;
    published(&transport, vec![Record::new(&topic, "after")]).await?;

    let log = transport.log_reader().await?;
    let (values, last) = read(&*log, &topic).await?;
    assert_eq!(
        (values, last.next_offset, last.end_offset),
        (vec!["before".to_owned()], 1, 1),
        "the last stable offset"
    );
    let at = [TopicPartition::new(&topic, 0)];
    let latest = async |log: &dyn LogReader| TestResult::Ok(log.offsets(&at, SeekTo::Latest).await?.remove(0)?);
    assert_eq!(latest(&*log).await?, 1, "the offset of the next record that a read can return");
    let dirty = uncommitted().await?.log_reader().await?;
    assert_eq!(
        (read(&*dirty, &topic).await?.0, latest(&*dirty).await?),
        (vec!["before".into(), "open".into(), "after".into()], 3)
    );

    timeout(LIMIT, producer.commit()).await??;
    let (values, last) = read_up_to(4, &*log, &topic).await?;
    assert_eq!((values, last.end_offset), (vec!["before".into(), "open".into(), "after".into()], 4));
    Ok(())
}
