//! A transport with a bug, and the cases that must catch it.

use std::sync::Arc;
use std::time::Duration;

use tidings_conformance::{Setup, transport};
use tidings_core::{
    Admin, Consumer, ConsumerOptions, CreatePartitionsOptions, DeadLetterSink, ErrorKind, GroupDescription, Guarantees,
    Health, Name, PartitionLag, PartitionReset, Publisher, PublisherExt, Record, ResetOffsetsOptions, ResetTo, Result,
    Topic, TopicDescription, TopicPartition, Transport, async_trait,
};
use tidings_memory::{Faults, MemoryConfig, MemoryTransport, PublishFault};

use crate::caught;
use crate::consumer::PlantedConsumer;
use crate::gappy::{CASE_LIMIT, Gappy};
use crate::publisher::PlantedPublisher;
use crate::sink::PlantedSink;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    // Publishers.
    NegatesTheHash,
    IgnoresTheNamedPartition,
    DropsATombstone,
    ReadsTombstonesAsEmpty,
    DropsDuplicateHeaders,
    ReadsNullHeadersAsEmpty,
    ReportsUnknownAsFailed,
    StoresWhatAnOutageRefused,
    LosesWhatIsBufferedAtClose,
    OneFailureFailsAll,
    AcknowledgesWhatIsNotStored,
    ReordersConcurrentCalls,
    RefusesAtTheBound,
    BuffersWithoutABound,
    BuffersBytesWithoutABound,
    HoldsBackTheLarge,
    PublishesAfterClose,
    StoresTwice,
    StoresOneTwice,
    SendsALargeCallAtOnce,
    // Consumers.
    ReordersWithinAPartition,
    ForgetsUncommittedRecords,
    CommitsOnReceipt,
    DeliversAfterRelease,
    AcceptsOldEpochs,
    ReleasesAtTheNextCall,
    LosesAStepWhenDropped,
    PauseLeaks,
    ForgetsPauseBeforeAssignment,
    GoesToLatestWhenOutOfRange,
    SkipsANewPartitionsBeginning,
    CommitGoesBack,
    ReportsFencedAsDone,
    DropsMetadata,
    NeverRaisesTheEpoch,
    ClosesWithoutLeaving,
    StaticMemberLeaves,
    CountsNoGaps,
    NeverTellsTheLoss,
    GoesToTheEndOfAShorterLog,
    FailsForAll,
    SkipsWhatItCannotRead,
    IsAMemberWithPartitionsOnly,
    StaysAMemberAfterClose,
    StaysAMemberInItsPlace,
    StaysAMemberUntilItCloses,
    // The rest.
    SwallowsAFailedDeadLetter,
    DropsALettersHeaders,
    GrowsUnasked,
    MovesInADryRun,
    SetsOneOffsetForAll,
    SetsOffsetsBeyondTheLog,
    OverwritesATopic,
    ForgetsAnAlteration,
    AltersOneByOne,
    AltersForNewRecordsAlone,
    LagsOfOneGroupForAll,
}

#[derive(Debug)]
pub(crate) struct Planted {
    inner: Gappy,
    bug: Bug,
}

#[async_trait]
impl Transport for Planted {
    fn system(&self) -> &'static str {
        "planted"
    }

    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        let (admin, second) = (self.inner.admin().await?, self.inner.publisher().await?);
        Ok(Arc::new(PlantedPublisher::new(self.inner.publisher().await?, second, admin, self.bug)))
    }

    async fn consumer(&self, options: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        let mut asked = options.clone();
        if self.bug == Bug::StaticMemberLeaves {
            asked.instance_id = None;
        }
        Ok(Arc::new(PlantedConsumer::new(self.inner.consumer(asked).await?, options, self.bug)))
    }

    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        Ok(Arc::new(PlantedSink { inner: self.inner.dead_letters().await?, bug: self.bug }))
    }

    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        Ok(Arc::new(PlantedAdmin { inner: self.inner.admin().await?, bug: self.bug }))
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

#[derive(Debug)]
struct PlantedAdmin {
    inner: Arc<dyn Admin>,
    bug: Bug,
}

impl PlantedAdmin {
    async fn has_records(&self, topic: &Name) -> Result<bool> {
        let described = self.inner.describe_topics(std::slice::from_ref(topic)).await?;
        Ok(described.iter().flatten().flat_map(|topic| &topic.partitions).any(|partition| partition.end > 0))
    }
}

#[async_trait]
impl Admin for PlantedAdmin {
    async fn create_topics(&self, topics: &[Topic]) -> Result<Vec<Result<()>>> {
        if self.bug == Bug::OverwritesATopic {
            let names: Vec<Name> = topics.iter().map(|topic| topic.name.clone()).collect();
            drop(self.inner.delete_topics(&names).await);
        }
        self.inner.create_topics(topics).await
    }

    async fn list_topics(&self) -> Result<Vec<Name>> {
        self.inner.list_topics().await
    }

    async fn describe_topics(&self, topics: &[Name]) -> Result<Vec<Result<TopicDescription>>> {
        self.inner.describe_topics(topics).await
    }

    async fn delete_topics(&self, topics: &[Name]) -> Result<Vec<Result<()>>> {
        self.inner.delete_topics(topics).await
    }

    async fn create_partitions(&self, topic: &Name, partitions: u32, options: CreatePartitionsOptions) -> Result<()> {
        let options = if self.bug == Bug::GrowsUnasked { options.with_rekeying() } else { options };
        self.inner.create_partitions(topic, partitions, options).await
    }

    async fn list_groups(&self) -> Result<Vec<Name>> {
        self.inner.list_groups().await
    }

    async fn describe_group(&self, group: &Name) -> Result<GroupDescription> {
        self.inner.describe_group(group).await
    }

    async fn group_lag(&self, group: &Name) -> Result<Vec<PartitionLag>> {
        self.inner.group_lag(group).await
    }

    async fn reset_offsets(
        &self,
        group: &Name,
        topics: &[Name],
        to: ResetTo,
        options: ResetOffsetsOptions,
    ) -> Result<Vec<PartitionReset>> {
        let options = if self.bug == Bug::MovesInADryRun { ResetOffsetsOptions::default() } else { options };
        self.inner.reset_offsets(group, topics, to, options).await
    }

    async fn alter_offsets(&self, group: &Name, offsets: &[(TopicPartition, u64)]) -> Result<()> {
        let first = offsets.first().map_or(0, |(_, offset)| *offset);
        let all: Vec<_> = match self.bug {
            Bug::SetsOneOffsetForAll => offsets.iter().map(|(at, _)| (at.clone(), first)).collect(),
            Bug::SetsOffsetsBeyondTheLog => {
                offsets.iter().map(|(at, offset)| (at.clone(), (*offset).min(10))).collect()
            }
            _ => offsets.to_vec(),
        };
        self.inner.alter_offsets(group, &all).await
    }

    async fn alter_topic(&self, topic: &Name, changes: &[(String, Option<String>)]) -> Result<()> {
        match self.bug {
            Bug::ForgetsAnAlteration => Ok(()),
            Bug::AltersForNewRecordsAlone if self.has_records(topic).await? => Ok(()),
            Bug::AltersOneByOne => {
                for change in changes {
                    self.inner.alter_topic(topic, std::slice::from_ref(change)).await?;
                }
                Ok(())
            }
            _ => self.inner.alter_topic(topic, changes).await,
        }
    }

    async fn group_lags(&self, groups: &[Name]) -> Result<Vec<Result<Vec<PartitionLag>>>> {
        match (self.bug, groups) {
            (Bug::LagsOfOneGroupForAll, [first, ..]) => self.inner.group_lags(&vec![first.clone(); groups.len()]).await,
            _ => self.inner.group_lags(groups).await,
        }
    }

    async fn delete_group(&self, group: &Name) -> Result<()> {
        self.inner.delete_group(group).await
    }

    async fn health(&self) -> Result<Health> {
        self.inner.health().await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

/// Records that a publisher takes unanswered.
pub(crate) const BOUND: usize = 100;
/// Bytes that it takes unanswered.
const BYTES: usize = 256 << 10;

fn config(bug: Bug) -> MemoryConfig {
    let bound = if bug == Bug::BuffersWithoutABound { 1_000_000 } else { BOUND };
    let bytes = if bug == Bug::BuffersBytesWithoutABound { 1 << 30 } else { BYTES };
    let config = MemoryConfig::new().with_auto_create(false);
    config.with_max_unanswered_records(bound).with_max_unanswered_bytes(bytes)
}

fn setup(bug: Bug) -> Setup<Planted> {
    let open = move || async move { Ok(Planted { inner: Gappy::new(MemoryTransport::open(config(bug))?), bug }) };
    Setup::new("planted", open)
        .with_paused_clock()
        .with_case_limit(CASE_LIMIT)
        .with_outage(|planted, down| async move {
            let faults = planted.inner.inner().faults();
            match (planted.bug, down) {
                // It answers as if it were down, and stores.
                (Bug::StoresWhatAnOutageRefused, true) => {
                    faults.publish(PublishFault::unknown(true).with_times(Faults::UNTIL_HEALED));
                }
                (Bug::StoresWhatAnOutageRefused, false) => faults.heal(),
                (_, true) => faults.down(),
                (_, false) => faults.up(),
            }
            Ok(())
        })
        .with_slow_answers(BOUND, |planted, slow| async move {
            planted.inner.inner().faults().delay_publishes(if slow { Duration::from_secs(5) } else { Duration::ZERO });
            Ok(())
        })
        .with_unanswered_bytes(BYTES)
        .with_lost_answers(|planted, lost| async move {
            let unknown = PublishFault::unknown(true).with_times(Faults::UNTIL_HEALED);
            let faults = planted.inner.inner().faults();
            if lost {
                faults.publish(unknown)
            } else {
                faults.heal()
            }
            Ok(())
        })
        .with_session_loss(|planted, group| async move {
            planted.inner.inner().faults().lose_all(&group);
            Ok(())
        })
        .with_truncated_records(|planted, partition, end| async move {
            planted.inner.inner().faults().truncate(&partition, end);
            Ok(())
        })
        .with_unreadable_records(|planted, partition| async move {
            let memory = planted.inner.inner();
            let bytes = Record::new(&partition.topic, "bytes").with_partition(partition.partition);
            let at = memory.publisher().await?.publish_one(bytes).await?.offset;
            memory.faults().unreadable(&partition, at..at + 1);
            Ok(())
        })
        .with_deleted_records(|planted, partition, range| async move {
            if range.start == 0 {
                planted.inner.inner().faults().drop_records(&partition, range.end);
            } else {
                planted.inner.compact(partition, range);
            }
            Ok(())
        })
}

macro_rules! plants {
    ($($bug:ident => $case:ident,)*) => {
        /// Each of these cases catches the bug of the module's name.
        mod caught_by {
            use super::*;
            $(
                #[test]
                fn $case() {
                    let case = stringify!($case);
                    let (without, with) = (transport::check(setup(Bug::None), case), transport::check(setup(Bug::$bug), case));
                    caught(stringify!($bug), case, without, with);
                }
            )*
        }
    };
}

plants! {
    NegatesTheHash => p3_keys_go_where_java_puts_them,
    IgnoresTheNamedPartition => p3_a_named_partition_wins_over_the_key,
    DropsATombstone => p5_tombstones_stay_null,
    ReadsTombstonesAsEmpty => p5_an_empty_value_is_no_tombstone,
    DropsDuplicateHeaders => p5_duplicate_headers_keep_their_order,
    ReadsNullHeadersAsEmpty => p5_null_and_empty_headers_differ,
    ReportsUnknownAsFailed => p2_a_lost_answer_is_unknown_and_never_a_failure,
    StoresWhatAnOutageRefused => p2_what_an_outage_refuses_is_not_there,
    LosesWhatIsBufferedAtClose => p4_close_waits_for_what_is_under_way,
    OneFailureFailsAll => p1_a_missing_topic_fails_its_records_alone,
    AcknowledgesWhatIsNotStored => p2_what_is_acknowledged_is_there,
    ReordersConcurrentCalls => p3_calls_keep_the_order_of_their_first_polls,
    BuffersWithoutABound => p4_at_the_bound_publish_waits,
    BuffersBytesWithoutABound => p4_at_the_bound_in_bytes_publish_waits,
    HoldsBackTheLarge => p4_a_record_larger_than_the_bound_goes_alone,
    SendsALargeCallAtOnce => p4_a_call_beyond_the_bound_is_sent_in_parts,
    RefusesAtTheBound => p4_a_flood_waits_and_is_never_refused,
    PublishesAfterClose => p4_after_close_publish_is_closed,
    StoresOneTwice => p1_a_record_alone_is_as_a_list_of_one,
    StoresTwice => p2_a_dropped_publish_stores_whole_records_once_or_none,
    ReordersWithinAPartition => c1_records_come_in_order_with_their_bytes_and_offsets,
    ForgetsUncommittedRecords => c1_uncommitted_records_come_again_to_the_next_owner,
    CommitsOnReceipt => c4_nothing_is_committed_unasked,
    DeliversAfterRelease => c2_no_record_comes_after_release,
    AcceptsOldEpochs => c4_a_commit_of_an_old_epoch_is_fenced,
    ReleasesAtTheNextCall => c3_asking_for_the_next_step_releases_nothing,
    LosesAStepWhenDropped => c6_dropping_next_loses_no_record,
    PauseLeaks => c5_pausing_in_the_midst_of_a_backlog_stops_it_at_once,
    ForgetsPauseBeforeAssignment => c5_pausing_before_assignment_holds_after_it,
    GoesToLatestWhenOutOfRange => c1_a_committed_offset_that_is_gone_goes_to_the_oldest,
    SkipsANewPartitionsBeginning => c1_a_partition_that_appears_later_starts_at_its_beginning,
    CommitGoesBack => c4_a_lower_commit_is_taken_and_changes_nothing,
    ReportsFencedAsDone => c3_commits_after_release_are_fenced,
    DropsMetadata => c4_metadata_comes_back_with_the_next_assignment,
    NeverRaisesTheEpoch => c2_epochs_grow_from_owner_to_owner,
    ClosesWithoutLeaving => c7_close_leaves_at_once,
    StaticMemberLeaves => c7_a_static_member_stays,
    CountsNoGaps => c2_a_gap_at_the_end_is_told_without_a_record,
    GoesToTheEndOfAShorterLog => c1_a_committed_offset_beyond_the_end_goes_to_the_oldest,
    FailsForAll => c8_unreadable_bytes_hold_their_partition_alone,
    SkipsWhatItCannotRead => c8_the_next_owner_is_told_again,
    IsAMemberWithPartitionsOnly => c9_a_member_without_partitions_is_one_once_the_group_lists_it,
    StaysAMemberAfterClose => c9_a_closed_member_is_none,
    StaysAMemberInItsPlace => c9_a_closed_static_member_is_none,
    StaysAMemberUntilItCloses => c9_a_member_that_stops_asking_is_none_until_it_asks_again,
    NeverTellsTheLoss => c2_a_lost_session_raises_lost_and_fences,
    SwallowsAFailedDeadLetter => d1_a_letter_that_could_not_be_written_is_told,
    DropsALettersHeaders => d2_a_letter_keeps_its_record_byte_for_byte,
    GrowsUnasked => a1_growing_a_topic_with_keys_needs_to_be_allowed,
    MovesInADryRun => a1_a_dry_run_moves_nothing,
    SetsOneOffsetForAll => a1_offsets_are_set_one_by_one,
    SetsOffsetsBeyondTheLog => a1_offsets_are_set_within_the_log_or_not_at_all,
    OverwritesATopic => a1_creating_a_topic_twice_is_told_and_changes_nothing,
    ForgetsAnAlteration => a1_a_setting_is_altered_and_put_back,
    AltersOneByOne => a1_altering_is_all_or_nothing,
    AltersForNewRecordsAlone => a1_altered_retention_applies_to_existing_records,
    LagsOfOneGroupForAll => a1_many_groups_are_described_as_each_one,
}

/// The answer of a broken publisher for records that it did not store.
pub(crate) fn error(kind: ErrorKind) -> tidings_core::Error {
    tidings_core::Error::new(kind, "a planted bug")
}
