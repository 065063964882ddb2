//! A log reader with a bug, and the cases that must catch it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidings_conformance::{Setup, transport};
use tidings_core::{
    Admin, Commit, Consumer, ConsumerOptions, DeadLetterSink, ErrorKind, Guarantees, LogReader, Publisher,
    PublisherExt, Read, ReadLimits, Record, RecordBatch, Result, SeekTo, Step, StoredRecord, Topic, TopicPartition,
    Transport, async_trait,
};
use tidings_memory::{MemoryConfig, MemoryTransport};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    DropsHeaders,
    RepeatsTheLast,
    SkipsOne,
    BeginsAtTheBatch,
    SharesOnePosition,
    AnswersOutOfOrder,
    CommitsWhatItRead,
    CreatesTheTopic,
    IgnoresMaxRecords,
    IgnoresMaxBytes,
    TakesZeroForNoLimit,
    NeverWaits,
    WaitsTheWholeTime,
    SleepsThroughRecords,
    HidesTheLoss,
    ClampsTheEnd,
    SkipsWhatItCannotRead,
    ForgetsWhereItGoesOn,
}

#[derive(Debug)]
struct Planted {
    inner: MemoryTransport,
    bug: Bug,
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
        self.inner.consumer(options).await
    }

    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        self.inner.dead_letters().await
    }

    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        self.inner.admin().await
    }

    async fn log_reader(&self) -> Result<Arc<dyn LogReader>> {
        let (inner, memory) = (self.inner.log_reader().await?, self.inner.clone());
        Ok(Arc::new(PlantedLog { inner, memory, bug: self.bug, position: Mutex::default() }))
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

#[derive(Debug)]
struct PlantedLog {
    inner: Arc<dyn LogReader>,
    memory: MemoryTransport,
    bug: Bug,
    position: Mutex<Option<u64>>,
}

impl PlantedLog {
    /// Commits for every group that knows the topic.
    async fn commit(&self, at: &TopicPartition) -> Result<()> {
        for group in self.memory.admin().await?.list_groups().await? {
            let consumer = self.memory.consumer(ConsumerOptions::new(group, [&at.topic])).await?;
            if let Step::Assigned(assigned) = consumer.next().await? {
                let end = self.inner.offsets(std::slice::from_ref(at), SeekTo::Latest).await?.remove(0)?;
                let commits = assigned.into_iter().map(|a| Commit::new(a.partition, a.epoch, end));
                drop(consumer.commit(commits.collect()).await);
            }
            consumer.close().await?;
        }
        Ok(())
    }

    fn asked(&self, offset: u64, limits: ReadLimits) -> (u64, ReadLimits) {
        let mut limits = limits;
        match self.bug {
            Bug::IgnoresMaxRecords => limits.max_records = usize::MAX,
            Bug::IgnoresMaxBytes => limits.max_bytes = usize::MAX,
            Bug::TakesZeroForNoLimit => {
                limits.max_records = limits.max_records.max(1);
                limits.max_bytes = limits.max_bytes.max(1);
            }
            Bug::NeverWaits => limits.wait = Duration::ZERO,
            _ => {}
        }
        let offset = match self.bug {
            Bug::BeginsAtTheBatch => offset - offset % 5,
            Bug::SkipsOne if offset > 0 => offset + 1,
            Bug::SharesOnePosition => {
                let mut position = self.position.lock().unwrap_or_else(PoisonError::into_inner);
                *position.get_or_insert(offset)
            }
            _ => offset,
        };
        (offset, limits)
    }

    fn answered(&self, at: &TopicPartition, asked: u64, mut read: Read) -> Read {
        let edited = |records: Vec<StoredRecord>| RecordBatch::new(at.clone(), records);
        let mut records = read.batch.records().to_vec();
        match self.bug {
            Bug::DropsHeaders => records.iter_mut().for_each(|record| record.headers = Default::default()),
            Bug::RepeatsTheLast if records.len() > 1 => read.next_offset -= 1,
            Bug::HidesTheLoss => read.start_offset = read.start_offset.min(asked),
            Bug::ForgetsWhereItGoesOn => {
                if let Some(bad) = &mut read.unreadable {
                    bad.next_offset = bad.next_offset.map(|next| next + 1);
                }
            }
            _ => {}
        }
        read.batch = edited(records);
        read
    }
}

#[async_trait]
impl LogReader for PlantedLog {
    async fn offsets(&self, partitions: &[TopicPartition], at: SeekTo) -> Result<Vec<Result<u64>>> {
        let mut partitions = partitions.to_vec();
        if self.bug == Bug::AnswersOutOfOrder {
            partitions.sort();
        }
        self.inner.offsets(&partitions, at).await
    }

    async fn read(&self, partition: &TopicPartition, offset: u64, limits: ReadLimits) -> Result<Read> {
        match self.bug {
            Bug::CommitsWhatItRead => self.commit(partition).await?,
            Bug::CreatesTheTopic => {
                drop(self.memory.admin().await?.create_topics(&[Topic::new(&partition.topic)]).await?);
            }
            Bug::WaitsTheWholeTime => tokio::time::sleep(limits.wait).await,
            Bug::SleepsThroughRecords => {
                let now = self.inner.read(partition, offset, ReadLimits::default()).await;
                if now.is_ok_and(|read| read.is_at_end()) {
                    tokio::time::sleep(limits.wait).await;
                }
            }
            _ => {}
        }
        let (from, asked) = self.asked(offset, limits);
        let read = match self.inner.read(partition, from, asked).await {
            Err(error) if error.kind() == ErrorKind::Invalid && self.bug == Bug::ClampsTheEnd => {
                let end = self.inner.offsets(std::slice::from_ref(partition), SeekTo::Latest).await?.remove(0)?;
                self.inner.read(partition, end, asked).await?
            }
            read => read?,
        };
        match &read.unreadable {
            Some(bad) if self.bug == Bug::SkipsWhatItCannotRead => {
                let next = bad.next_offset.unwrap_or(read.end_offset);
                self.inner.read(partition, next, asked).await
            }
            _ => Ok(self.answered(partition, offset, read)),
        }
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

fn setup(bug: Bug) -> Setup<Planted> {
    let open = move || async move {
        let inner = MemoryTransport::open(MemoryConfig::new().with_auto_create(false))?;
        Ok(Planted { inner, bug })
    };
    Setup::new("planted", open)
        .with_paused_clock()
        .with_unreadable_records(|planted, partition| async move {
            let memory = &planted.inner;
            let bytes = Record::new(&partition.topic, "bytes").with_partition(partition.partition);
            let at = memory.publisher().await?.publish_one(bytes).await?.offset;
            memory.faults().unreadable(&partition, at..at + 1);
            Ok(())
        })
        .with_deleted_records(|planted, partition, range| async move {
            planted.inner.faults().drop_records(&partition, range.end);
            Ok(())
        })
}

plants! { transport:
    headers_dropped: DropsHeaders => l1_records_are_read_as_they_were_published,
    a_record_read_twice: RepeatsTheLast => l1_reading_on_yields_each_record_once,
    a_record_skipped: SkipsOne => l1_reading_on_yields_each_record_once,
    the_whole_batch_returned: BeginsAtTheBatch => l1_a_read_begins_at_its_offset,
    one_position_for_all_reads: SharesOnePosition => l1_reads_do_not_affect_each_other,
    offsets_out_of_order: AnswersOutOfOrder => l1_positions_are_found_on_each_partition,
    offsets_committed_by_a_read: CommitsWhatItRead => l2_reading_leaves_no_trace,
    a_topic_created_by_a_read: CreatesTheTopic => l2_a_missing_partition_is_not_found,
    max_records_ignored: IgnoresMaxRecords => l3_limits_are_kept,
    max_bytes_ignored: IgnoresMaxBytes => l3_limits_are_kept,
    zero_taken_for_no_limit: TakesZeroForNoLimit => l3_limits_of_zero_are_refused,
    no_wait: NeverWaits => l3_a_read_at_the_end_waits,
    a_wait_for_what_is_there: WaitsTheWholeTime => l3_a_read_at_the_end_waits,
    a_record_that_ends_no_wait: SleepsThroughRecords => l3_a_record_ends_the_wait,
    a_loss_hidden: HidesTheLoss => l4_a_read_below_the_start_begins_at_the_oldest,
    an_offset_beyond_the_end_taken: ClampsTheEnd => l4_a_read_beyond_the_end_is_refused,
    unreadable_bytes_skipped: SkipsWhatItCannotRead => l5_unreadable_bytes_are_reported_and_can_be_skipped,
    the_way_behind_them_wrong: ForgetsWhereItGoesOn => l5_unreadable_bytes_are_reported_and_can_be_skipped,
}
