//! A transport with a bug of its transactions, and the cases that must catch it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidings_conformance::{Setup, transport};
use tidings_core::{
    Admin, Commit, Consumer, ConsumerOptions, DeadLetterSink, Error, ErrorKind, Guarantees, LogReader, Name, Position,
    Progress, Publisher, Record, Result, SeekTo, Step, TopicPartition, TransactionOffset, TransactionOffsets,
    Transactor, TransactorOptions, Transport, async_trait,
};
use tidings_memory::{Faults, MemoryConfig, MemoryTransport, TransactionFault};

use crate::gappy::CASE_LIMIT;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    TearsByPartition,
    CommitsWhatIsAborted,
    KeepsARecordOfAnAbort,
    ForgetsOffsets,
    CommitsOffsetsAtOnce,
    DropsMetadata,
    NeedsRecordsForOffsets,
    CommitsWithoutAFailedRecord,
    CommitsOffsetsThoughAborted,
    FailsWithoutATransaction,
    CommitsAtClose,
    TakesUnknownForCommitted,
    TakesUnknownForAborted,
    StaysOpenAfterUnknown,
    ShowsOpenRecords,
    ShowsLaterCallsOnly,
    ReordersACall,
    FreezesReaders,
    FreezesOtherPartitions,
    YieldsNoGaps,
    FencesNothing,
    FencesAllIds,
    CommitsOffsetsOfTheFenced,
    CommitsRefusedOffsets,
    CommitsRecordsWithoutRefusedOffsets,
    GivesOffsetsOfOldEpochs,
    ClosesAtAConflict,
    NeverTimesOut,
    CommitsAfterTheTimeout,
}

#[derive(Debug)]
struct Planted {
    inner: MemoryTransport,
    bug: Bug,
    serial: Arc<Mutex<u32>>,
}

impl Planted {
    fn serial(&self) -> u32 {
        let mut serial = self.serial.lock().unwrap_or_else(PoisonError::into_inner);
        *serial += 1;
        *serial
    }
}

#[async_trait]
impl Transport for Planted {
    fn system(&self) -> &'static str {
        "planted"
    }

    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        self.inner.publisher().await
    }

    async fn consumer(&self, options: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        Ok(Arc::new(PlantedConsumer { inner: self.inner.consumer(options).await?, bug: self.bug }))
    }

    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        self.inner.dead_letters().await
    }

    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        self.inner.admin().await
    }

    async fn log_reader(&self) -> Result<Arc<dyn LogReader>> {
        self.inner.log_reader().await
    }

    async fn transactor(&self, mut options: TransactorOptions) -> Result<Arc<dyn Transactor>> {
        options.check()?;
        match self.bug {
            Bug::FencesNothing => options.id = format!("{}-{}", options.id, self.serial()).into(),
            Bug::FencesAllIds => options.id = "one".into(),
            Bug::NeverTimesOut => options.timeout = Duration::from_secs(1_000_000),
            _ => {}
        }
        let aside = TransactorOptions::new(format!("{}-aside-{}", options.id, self.serial()));
        Ok(Arc::new(PlantedTransactor {
            inner: self.inner.transactor(options).await?,
            aside: self.inner.transactor(aside.with_timeout(Duration::from_secs(1_000_000))).await?,
            plain: self.inner.publisher().await?,
            bug: self.bug,
            records: Mutex::default(),
        }))
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

/// A transactor, and two ways around its transaction.
#[derive(Debug)]
struct PlantedTransactor {
    inner: Arc<dyn Transactor>,
    /// Another transaction.
    aside: Arc<dyn Transactor>,
    plain: Arc<dyn Publisher>,
    bug: Bug,
    /// The records of the transaction.
    records: Mutex<Vec<Record>>,
}

impl PlantedTransactor {
    fn take(&self) -> Vec<Record> {
        std::mem::take(&mut *self.records.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn has_records(&self) -> bool {
        !self.records.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Publishes the records of even partitions in the transaction, the others aside.
    async fn torn(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let mut answers = Vec::new();
        for record in records {
            let odd = record.partition.is_some_and(|partition| partition % 2 == 1);
            let to = if odd { &self.aside } else { &self.inner };
            answers.extend(to.publish(vec![record]).await);
        }
        answers
    }

    /// Publishes one by one, and leaves records that fail out of the transaction.
    async fn sifted(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let mut answers = Vec::new();
        for record in records {
            if record.topic.starts_with("missing") {
                answers.push(Err(Error::new(ErrorKind::NotFound, "there is no such topic")));
            } else {
                answers.extend(self.inner.publish(vec![record]).await);
            }
        }
        answers
    }

    async fn commit_as_the_bug_has_it(&self, offsets: Option<TransactionOffsets>) -> Result<()> {
        let records = self.take();
        match self.bug {
            Bug::TearsByPartition => {
                drop(self.aside.abort().await);
                self.inner.commit(offsets).await
            }
            Bug::ForgetsOffsets => self.inner.commit(None).await,
            Bug::NeedsRecordsForOffsets if records.is_empty() => Ok(()),
            Bug::CommitsOffsetsThoughAborted | Bug::CommitsOffsetsOfTheFenced => {
                let answer = self.inner.commit(None).await;
                drop(self.aside.commit(offsets).await);
                answer
            }
            Bug::FreezesReaders | Bug::FreezesOtherPartitions => {
                let answer = self.inner.commit(offsets).await;
                drop(self.aside.publish(records).await);
                answer
            }
            Bug::TakesUnknownForCommitted => match self.inner.commit(offsets).await {
                Err(error) if error.kind() == ErrorKind::Indeterminate => Ok(()),
                answer => answer,
            },
            Bug::TakesUnknownForAborted => match self.inner.commit(offsets).await {
                Err(error) if error.kind() == ErrorKind::Indeterminate => Err(Error::new(ErrorKind::Unavailable, "x")),
                answer => answer,
            },
            Bug::StaysOpenAfterUnknown => match self.inner.commit(offsets).await {
                Err(error) if error.kind() == ErrorKind::Closed => Ok(()),
                answer => answer,
            },
            Bug::CommitsRefusedOffsets => match self.inner.commit(offsets).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    drop(self.aside.publish(records).await);
                    self.aside.commit(None).await
                }
                answer => answer,
            },
            Bug::CommitsRecordsWithoutRefusedOffsets if offsets.is_some() => {
                self.inner.commit(None).await?;
                self.inner.commit(offsets).await
            }
            Bug::ClosesAtAConflict => {
                let answer = self.inner.commit(offsets).await;
                if answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Conflict) {
                    drop(self.inner.close(Duration::from_secs(1)).await);
                }
                answer
            }
            Bug::CommitsAfterTheTimeout => match self.inner.commit(offsets).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    drop(self.aside.publish(records).await);
                    self.aside.commit(None).await
                }
                answer => answer,
            },
            _ => self.inner.commit(offsets).await,
        }
    }
}

#[async_trait]
impl Transactor for PlantedTransactor {
    async fn publish(&self, mut records: Vec<Record>) -> Vec<Result<Position>> {
        let began = self.has_records();
        let first = records.first().filter(|_| self.bug == Bug::KeepsARecordOfAnAbort && !began).cloned();
        self.records.lock().unwrap_or_else(PoisonError::into_inner).extend(records.iter().cloned());
        match self.bug {
            Bug::TearsByPartition => self.torn(records).await,
            Bug::CommitsWithoutAFailedRecord => self.sifted(records).await,
            Bug::ShowsOpenRecords => self.plain.publish(records).await,
            Bug::ShowsLaterCallsOnly if began => self.plain.publish(records).await,
            Bug::KeepsARecordOfAnAbort => {
                drop(self.plain.publish(first.into_iter().collect()).await);
                self.inner.publish(records).await
            }
            Bug::ReordersACall => {
                records.reverse();
                let mut answers = self.inner.publish(records).await;
                answers.reverse();
                answers
            }
            Bug::FreezesOtherPartitions => {
                let others = records.iter().cloned().map(|record| record.with_partition(1)).collect();
                drop(self.aside.publish(others).await);
                self.inner.publish(records).await
            }
            _ => self.inner.publish(records).await,
        }
    }

    async fn commit(&self, offsets: Option<TransactionOffsets>) -> Result<()> {
        if self.bug == Bug::FailsWithoutATransaction && offsets.is_none() && !self.has_records() {
            return Err(Error::new(ErrorKind::Conflict, "no transaction is open"));
        }
        self.commit_as_the_bug_has_it(offsets).await
    }

    async fn abort(&self) -> Result<()> {
        let records = self.take();
        match self.bug {
            Bug::CommitsWhatIsAborted => self.inner.commit(None).await,
            Bug::FailsWithoutATransaction if records.is_empty() => {
                Err(Error::new(ErrorKind::Conflict, "no transaction is open"))
            }
            _ => self.inner.abort().await,
        }
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        if self.bug == Bug::CommitsAtClose {
            drop(self.inner.commit(None).await);
        }
        self.inner.close(deadline).await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

#[derive(Debug)]
struct PlantedConsumer {
    inner: Arc<dyn Consumer>,
    bug: Bug,
}

#[async_trait]
impl Consumer for PlantedConsumer {
    async fn next(&self) -> Result<Step> {
        loop {
            match self.inner.next().await? {
                Step::Records(fetched) if self.bug == Bug::YieldsNoGaps && fetched.batch.is_empty() => {}
                step => return Ok(step),
            }
        }
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<()>> {
        self.inner.commit(commits).await
    }

    async fn transaction_offsets(&self, mut commits: Vec<Commit>) -> Result<TransactionOffsets> {
        match self.bug {
            Bug::CommitsOffsetsAtOnce => drop(self.inner.commit(commits.clone()).await),
            Bug::DropsMetadata => commits.iter_mut().for_each(|commit| commit.metadata = None),
            Bug::GivesOffsetsOfOldEpochs => {
                let offset = |c: Commit| TransactionOffset::new(c.partition, c.next_offset, c.metadata);
                let offsets = commits.clone().into_iter().map(offset).collect();
                let given = self.inner.transaction_offsets(commits).await;
                return given.or_else(|_| Ok(TransactionOffsets::new(Name::from("g"), "m", 0, offsets)));
            }
            _ => {}
        }
        self.inner.transaction_offsets(commits).await
    }

    async fn release(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.inner.release(partitions).await
    }

    async fn pause(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.inner.pause(partitions).await
    }

    async fn resume(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.inner.resume(partitions).await
    }

    async fn seek(&self, partition: &TopicPartition, to: SeekTo) -> Result<u64> {
        self.inner.seek(partition, to).await
    }

    async fn progress(&self) -> Result<Vec<Progress>> {
        self.inner.progress().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

fn setup(bug: Bug) -> Setup<Planted> {
    let open = move || async move {
        let inner = MemoryTransport::open(MemoryConfig::new().with_auto_create(false))?;
        Ok(Planted { inner, bug, serial: Arc::default() })
    };
    Setup::new("planted", open)
        .with_paused_clock()
        .with_case_limit(CASE_LIMIT)
        .with_session_loss(|planted, group| async move {
            planted.inner.faults().lose_all(&group);
            Ok(())
        })
        .with_lost_commits(|planted, lost| async move {
            let times = if lost { Faults::UNTIL_HEALED } else { 0 };
            let committed = planted.bug != Bug::TakesUnknownForCommitted;
            let fault = TransactionFault::unknown(committed).with_times(times);
            planted.inner.faults().commit_transactions(fault);
            Ok(())
        })
}

plants! { transport:
    records_of_a_part_of_the_partitions: TearsByPartition => x1_records_of_all_partitions_are_seen_after_the_commit,
    an_abort_that_commits: CommitsWhatIsAborted => x1_aborted_records_are_never_seen,
    a_record_of_an_aborted_transaction: KeepsARecordOfAnAbort => x1_transactions_follow_each_other,
    offsets_that_are_forgotten: ForgetsOffsets => x1_offsets_are_committed_with_the_records,
    offsets_that_are_committed_at_once: CommitsOffsetsAtOnce => x1_offsets_are_committed_with_the_records,
    metadata_that_is_dropped: DropsMetadata => x1_offsets_are_committed_with_the_records,
    offsets_without_records: NeedsRecordsForOffsets => x1_offsets_are_committed_alone,
    a_failed_record_that_is_left_out: CommitsWithoutAFailedRecord => x1_a_record_that_is_not_stored_fails_its_transaction,
    offsets_of_an_aborted_transaction: CommitsOffsetsThoughAborted => x1_a_record_that_is_not_stored_fails_its_transaction,
    an_end_of_nothing_that_fails: FailsWithoutATransaction => x1_an_end_without_a_transaction_does_nothing,
    a_close_that_commits: CommitsAtClose => x1_a_closed_transactor_has_aborted,
    unknown_taken_for_committed: TakesUnknownForCommitted => x1_a_lost_answer_is_known_later_or_unknown,
    unknown_taken_for_aborted: TakesUnknownForAborted => x1_a_lost_answer_is_known_later_or_unknown,
    an_open_transactor_after_unknown: StaysOpenAfterUnknown => x1_a_lost_answer_is_known_later_or_unknown,
    open_records_for_consumers: ShowsOpenRecords => x2_an_open_transaction_holds_back_what_is_behind_it,
    open_records_for_log_readers: ShowsOpenRecords => x2_a_log_reader_stops_before_an_open_transaction,
    later_calls_outside_of_the_transaction: ShowsLaterCallsOnly => x2_transactions_of_a_partition_end_each_on_its_own,
    the_order_of_a_call: ReordersACall => x2_the_order_is_that_of_publishing,
    readers_that_wait_for_ever: FreezesReaders => x1_transactions_follow_each_other,
    partitions_without_a_transaction: FreezesOtherPartitions => x2_other_partitions_are_not_held_back,
    gaps_that_are_never_read: YieldsNoGaps => x2_gaps_of_aborted_records_are_read,
    an_earlier_transactor_that_continues: FencesNothing => x3_a_newer_transactor_fences_the_earlier,
    ids_that_fence_each_other: FencesAllIds => x3_ids_are_independent,
    offsets_of_a_fenced_transactor: CommitsOffsetsOfTheFenced => x3_a_fenced_transactor_commits_no_offsets,
    refused_offsets_of_a_moved_partition: CommitsRefusedOffsets => x4_offsets_of_a_partition_that_moved_are_refused,
    refused_offsets_of_a_member_that_left: CommitsRefusedOffsets => x4_offsets_of_a_member_that_left_are_refused,
    records_without_their_refused_offsets: CommitsRecordsWithoutRefusedOffsets => x4_offsets_of_a_lost_session_are_refused,
    offsets_of_old_epochs: GivesOffsetsOfOldEpochs => x4_offsets_of_an_old_epoch_are_not_given,
    a_transactor_that_ends_with_a_conflict: ClosesAtAConflict => x4_offsets_of_a_member_that_left_are_refused,
    a_timeout_that_is_ignored: NeverTimesOut => x5_a_transaction_beyond_its_timeout_is_aborted,
    a_commit_after_the_timeout: CommitsAfterTheTimeout => x5_a_transaction_beyond_its_timeout_is_aborted,
}
