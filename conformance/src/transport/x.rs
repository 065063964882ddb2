//! Helpers of the cases of transactions.
//!
//! A broker may answer a commit before readers see it. A case waits for records that must become visible, and checks
//! after a quiet period that no others did.

use std::sync::Arc;

use tidings_core::{
    Commit, Name, Position, Record, Result, StoredRecord, TopicPartition, TransactionOffsets, Transactor,
    TransactorOptions,
};

use super::fixture::{Fixture, numbered, same_record};
use super::members::Members;
use crate::case::{Checked, broken, granted, same};

impl Fixture {
    /// Opens a transactor of a unique id.
    pub(super) async fn transactor(&self) -> Checked<Arc<dyn Transactor>> {
        self.transactor_of(TransactorOptions::new(self.fresh("transactor"))).await
    }

    pub(super) async fn transactor_of(&self, options: TransactorOptions) -> Checked<Arc<dyn Transactor>> {
        let transport = self.transport()?;
        self.note(format!("open transactor {}", options.id));
        Ok(self.within("a transactor", transport.transactor(options)).await??)
    }

    /// Publishes in a transaction; returns the answers.
    pub(super) async fn try_put(
        &self,
        transactor: &dyn Transactor,
        records: Vec<Record>,
    ) -> Checked<Vec<Result<Position>>> {
        let count = records.len();
        let answers = self.within("answers to publish", transactor.publish(records)).await?;
        self.note(format!("published {count} in a transaction: {answers:?}"));
        same("answers to publish", count, answers.len())?;
        Ok(answers)
    }

    /// Publishes in a transaction; all must be `Ok`.
    pub(super) async fn put(&self, transactor: &dyn Transactor, records: Vec<Record>) -> Checked<Vec<Position>> {
        let answers = self.try_put(transactor, records).await?;
        answers.into_iter().map(|answer| granted("publish in a transaction", answer)).collect()
    }

    /// Publishes `numbered` records `from..to` to partition 0 in a transaction.
    pub(super) async fn put_numbered(
        &self,
        transactor: &dyn Transactor,
        topic: &Name,
        from: usize,
        to: usize,
    ) -> Checked<Vec<Record>> {
        let records: Vec<_> = (from..to).map(|n| numbered(topic, 0, n)).collect();
        self.put(transactor, records.clone()).await?;
        Ok(records)
    }

    pub(super) async fn try_end(
        &self,
        transactor: &dyn Transactor,
        offsets: Option<TransactionOffsets>,
    ) -> Checked<Result<()>> {
        let what = format!("commit with {offsets:?}");
        let answer = self.within("an answer to commit", transactor.commit(offsets)).await?;
        self.note(format!("{what}: {answer:?}"));
        Ok(answer)
    }

    /// Commits; must be `Ok`.
    pub(super) async fn end(&self, transactor: &dyn Transactor, offsets: Option<TransactionOffsets>) -> Checked {
        granted("commit", self.try_end(transactor, offsets).await?)
    }

    /// Aborts; must be `Ok`.
    pub(super) async fn give_up(&self, transactor: &dyn Transactor) -> Checked {
        let answer = self.within("an answer to abort", transactor.abort()).await?;
        self.note(format!("abort: {answer:?}"));
        granted("abort", answer)
    }

    /// Returns what a group has committed for a partition.
    pub(super) async fn committed_offset(&self, group: &Name, p: &TopicPartition) -> Checked<Option<u64>> {
        let admin = self.admin().await?;
        match self.within("lag", admin.group_lag(group)).await? {
            // A group without members and commits does not exist.
            Err(error) if error.kind() == tidings_core::ErrorKind::NotFound => Ok(None),
            lag => Ok(lag?.into_iter().find(|lag| lag.partition == *p).and_then(|lag| lag.committed)),
        }
    }

    /// Waits until a group has committed `next` for a partition.
    pub(super) async fn until_committed(&self, group: &Name, p: &TopicPartition, next: u64) -> Checked {
        self.eventually(&format!("{group} has committed {next} of {p}"), || async {
            Ok((self.committed_offset(group, p).await? == Some(next)).then_some(()))
        })
        .await
    }

    /// Waits until a new group has read these records of a topic's only partition, and checks that no other comes.
    pub(super) async fn sees(&self, topic: &Name, records: &[Record]) -> Checked {
        let mut members = self.reader(topic).await?;
        members.sees(topic, records).await
    }
}

impl Members<'_> {
    /// Waits until member 0 has read these records of partition 0, in order, and checks that no other comes.
    pub(super) async fn sees(&mut self, topic: &Name, records: &[Record]) -> Checked {
        self.owns(0, topic, 1).await?;
        self.records(0, records.len()).await?;
        self.rest().await?;
        same_values(records, self[0].of(&TopicPartition::new(topic, 0)))
    }

    /// Returns the offsets that a transaction commits: `next` of a partition of member `who`.
    pub(super) async fn offsets(
        &mut self,
        who: usize,
        p: &TopicPartition,
        next: u64,
    ) -> Checked<Result<TransactionOffsets>> {
        let commit = Commit::new(p.clone(), self[who].epoch(p)?, next).with_metadata(METADATA);
        let consumer = self.consumer(who);
        self.meanwhile("offsets", async move { consumer.transaction_offsets(vec![commit]).await }).await
    }
}

/// The metadata of offsets that are committed in a transaction.
pub(super) const METADATA: &str = "of a transaction";

/// Checks that the records are the published ones, in order. Their offsets may have gaps.
pub(super) fn same_values(published: &[Record], stored: &[StoredRecord]) -> Checked {
    if published.len() != stored.len() {
        return broken(format!("{} records: {published:?}", published.len()), format!("{stored:?}"));
    }
    published.iter().zip(stored).try_for_each(|(published, stored)| same_record("a record", published, stored))
}
