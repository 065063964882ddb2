//! Shared by the tests.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{
    Admin, Assignment, Commit, Consumer, ConsumerOptions, Fetched, Position, Publisher, Record, Result, Revocation,
    Step, Topic, TopicPartition, Transport,
};
use tidings_memory::MemoryTransport;
use tokio::time::timeout;

/// Longer than anything in these tests takes on the paused clock, short of the timeouts that they are about.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) async fn topic(transport: &MemoryTransport, name: &str, partitions: u32) {
    let topic = Topic::new(name).with_partitions(partitions);
    admin(transport).await.create_topics(&[topic]).await.unwrap().remove(0).unwrap();
}

pub(crate) async fn admin(transport: &MemoryTransport) -> Arc<dyn Admin> {
    transport.admin().await.unwrap()
}

pub(crate) async fn publish(transport: &MemoryTransport, records: Vec<Record>) -> Vec<Result<Position>> {
    transport.publisher().await.unwrap().publish(records).await
}

pub(crate) async fn publish_values(publisher: &Arc<dyn Publisher>, topic: &str, values: std::ops::Range<u32>) {
    let records = values.map(|n| Record::new(topic, n.to_string())).collect();
    for answer in publisher.publish(records).await {
        answer.unwrap();
    }
}

pub(crate) async fn join(transport: &MemoryTransport, group: &str, topic: &str) -> Arc<dyn Consumer> {
    transport.consumer(ConsumerOptions::new(group, [topic])).await.unwrap()
}

pub(crate) async fn step(consumer: &Arc<dyn Consumer>) -> Step {
    timeout(PATIENCE, consumer.next()).await.expect("there is a step").unwrap()
}

pub(crate) async fn nothing(consumer: &Arc<dyn Consumer>) {
    if let Ok(step) = timeout(PATIENCE, consumer.next()).await {
        panic!("unexpected {step:?}");
    }
}

pub(crate) async fn assigned(consumer: &Arc<dyn Consumer>) -> Vec<Assignment> {
    match step(consumer).await {
        Step::Assigned(all) => all,
        other => panic!("not Assigned: {other:?}"),
    }
}

pub(crate) async fn records(consumer: &Arc<dyn Consumer>) -> Fetched {
    match step(consumer).await {
        Step::Records(fetched) => fetched,
        other => panic!("not Records: {other:?}"),
    }
}

pub(crate) async fn revoking(consumer: &Arc<dyn Consumer>) -> Revocation {
    match step(consumer).await {
        Step::Revoking(revocation) => revocation,
        other => panic!("not Revoking: {other:?}"),
    }
}

pub(crate) async fn lost(consumer: &Arc<dyn Consumer>) -> Vec<TopicPartition> {
    match step(consumer).await {
        Step::Lost(partitions) => partitions,
        other => panic!("not Lost: {other:?}"),
    }
}

pub(crate) fn offsets(fetched: &Fetched) -> Vec<u64> {
    fetched.batch.records().iter().map(|r| r.offset).collect()
}

pub(crate) fn commit_of(assignment: &Assignment, next: u64) -> Commit {
    Commit::new(assignment.partition.clone(), assignment.epoch, next)
}

pub(crate) async fn commit(consumer: &Arc<dyn Consumer>, commit: Commit) -> Result<()> {
    consumer.commit(vec![commit]).await.remove(0)
}

pub(crate) fn tp(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}
