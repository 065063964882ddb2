//! Bugs by kind: several in one call, names that begin alike, sizes and signs, what follows an answer, states.
//!
//! Each passes all cases but those that look for its kind.

mod admin;
mod cluster;
mod commits;
mod consumer;
mod letters;
mod publisher;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tidings_conformance::{Setup, transport};
use tidings_core::{
    Admin, Cluster, Consumer, ConsumerOptions, DeadLetterSink, Error, ErrorKind, Guarantees, Name, Publisher, Result,
    Start, TopicPartition, Transactor, TransactorOptions, Transport, async_trait,
};
use tidings_memory::{Faults, MemoryConfig, MemoryTransport};

use self::admin::BentAdmin;
use self::cluster::BentCluster;
use self::consumer::BentConsumer;
use self::letters::BentSink;
use self::publisher::BentPublisher;
use crate::caught;
use crate::gappy::CASE_LIMIT;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident => $case:ident,)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Kind {
            None,
            $($(#[$doc])* $kind,)*
        }

        /// Each bug with the case that catches it.
        const PLANTS: &[(Kind, &str)] = &[$((Kind::$kind, stringify!($case))),*];

        /// Each of these bugs is caught by its case.
        #[expect(non_snake_case, reason = "a test bears the name of its bug")]
        mod catches {
            use super::*;
            $(
                #[test]
                fn $kind() {
                    let case = stringify!($case);
                    let (without, with) = (transport::check(setup(Kind::None), case), transport::check(setup(Kind::$kind), case));
                    caught(stringify!($kind), case, without, with);
                }
            )*
        }
    };
}

kinds! {
    // Publishers.
    SwapsAnswersOfALargeCall => p1_thousands_of_records_in_one_call,
    StoresFourThousandOfACall => p1_thousands_of_records_in_one_call,
    StoresEqualRecordsOnce => p1_equal_records_are_stored_each,
    CutsANamedPartition => p1_a_missing_partition_fails_its_record_alone,
    TakesTheHighestPartitionForAny => p1_a_missing_partition_fails_its_record_alone,
    MeasuresValuesAlone => p1_a_record_that_is_too_large_fails_alone,
    HashesAPrefix => p3_keys_of_any_bytes_and_length_are_hashed_whole,
    HashesText => p3_keys_of_any_bytes_and_length_are_hashed_whole,
    IgnoresTheNamedPartitionOfOne => p3_a_named_partition_wins_over_the_key,
    SendsLargeRecordsLater => p3_small_records_do_not_overtake_large_ones,
    TakesANullKeyForItsEmptyNeighbour => p5_null_and_empty_differ_side_by_side,
    CutsLongKeys => p5_long_keys_and_headers,
    CutsLongHeaders => p5_long_keys_and_headers,
    RefusesTwoMebibytes => p5_a_value_of_three_mebibytes,
    TakesTimeZeroForNone => p5_timestamps_of_any_age_are_kept,
    SeeksNoTimeBefore1970 => p5_timestamps_of_any_age_are_kept,
    DropsTheSignOfTimes => p5_timestamps_of_any_age_are_kept,
    StoresWhatItRefusedLater => p2_an_outage_repeats_nothing_and_brings_nothing_back,
    RepeatsTheLastRecordAfterAnOutage => p2_an_outage_repeats_nothing_and_brings_nothing_back,
    PublishesToADeletedTopic => p2_a_deleted_topic_takes_no_record,
    FailsAtAnEndlessDeadline => p4_close_takes_any_deadline,
    KeepsKeylessRecordsTogether => p3_records_without_a_key_use_every_partition,
    NeverYieldsToOthers => p4_a_loop_of_publishes_lets_other_tasks_run,
    // Logs that are cut.
    GoesOnWhereItWas => c1_a_log_cut_below_what_was_read_is_read_anew,
    GoesOnBehindACut => c1_a_log_cut_below_what_was_committed_is_read_anew,
    CutsOneTooMany => c1_what_is_left_of_a_cut_log_is_whole,
    LosesAllAtACut => c2_a_log_cut_behind_its_reader_takes_nothing,
    // Late events.
    SkipsWhatCameWhileAway => c1_a_partition_that_appears_while_no_member_is_there_starts_at_its_beginning,
    TakesADroppedCallForLife => c5_a_member_that_drops_its_last_call_dies,
    ForgetsMembersThatNeverAsk => c5_a_member_gets_partitions_at_a_late_first_call,
    // Names and sizes.
    ReadsTopicsThatBeginAlike => c1_topics_that_begin_alike_are_kept_apart,
    JoinsTopicAndPartition => c1_topics_that_begin_alike_are_kept_apart,
    IgnoresCaseOfTopics => c1_topics_that_begin_alike_are_kept_apart,
    JoinsGroupAndTopic => c1_groups_that_begin_alike_are_kept_apart,
    IgnoresCaseOfGroups => c1_groups_that_begin_alike_are_kept_apart,
    CutsGroups => c1_names_of_any_length_are_told_apart,
    ReadsSixteenTopics => c1_a_member_reads_twenty_topics,
    AssignsATopicTwice => c1_a_topic_that_is_named_twice_is_read_once,
    CommitsPartitionsOfEightBits => c1_a_topic_of_three_hundred_partitions,
    CommitsOffsetsOf32Bits => c1_offsets_of_any_size,
    CommitsOffsetsAsDoubles => c1_offsets_of_any_size,
    StartsAtTheEndFromNegativeTimes => c1_a_time_outside_the_log_starts_at_its_ends,
    RepeatsRecordsAfterAnOutage => c1_reading_goes_on_after_an_outage,
    // Seeks.
    ReadsOneEarlierAfterASeekToATime => c4_seek_reads_from_the_offset_that_it_returns,
    TakesNegativeTimesForTheEnd => c4_seek_reads_from_the_offset_that_it_returns,
    YieldsWhatWasFetchedBeforeASeek => c4_seek_in_the_midst_of_a_backlog,
    SeeksAllPartitions => c4_seek_moves_its_partition_alone,
    SeeksOffsetsOf32Bits => c4_seek_far_beyond_the_log_goes_to_its_end,
    SeeksSignedOffsets => c4_seek_far_beyond_the_log_goes_to_its_end,
    AnswersTheOffsetThatWasAskedFor => c4_seek_below_what_is_gone_goes_to_the_oldest,
    CommitsSeeks => c4_a_seek_without_a_commit_ends_with_its_member,
    GoesBackForEverAfterASeek => c4_commits_go_back_once_after_a_seek,
    GoesBackOnAllAfterASeek => c4_a_seek_lets_only_its_partition_go_back,
    // Commits, releases, losses.
    PretendsToCommitInAnOutage => c4_a_commit_in_an_outage_is_never_a_wrong_success,
    GoesBackAfterAnAssignment => c4_a_lower_commit_of_the_next_owner_changes_nothing,
    KeepsTheFirstMetadata => c4_metadata_of_the_same_offset_is_replaced,
    KeepsOldMetadata => c4_metadata_goes_with_its_commit,
    CutsMetadata => c4_many_commits_in_one_call,
    TakesSixteenCommits => c4_many_commits_in_one_call,
    LastCommitOfACallWins => c4_many_commits_in_one_call,
    TellsOneLossOfSeveral => c2_a_lost_session_raises_lost_and_fences,
    ReleasesTheFirst => c3_partitions_of_a_revocation_are_released_one_by_one,
    StopsWhatItWasAskedToRelease => c3_releasing_everything_releases_what_is_revoked,
    NeverYieldsBetweenSteps => c6_a_loop_of_next_lets_other_tasks_run,
    GivesUpInAShortOutage => c2_a_short_outage_takes_no_partition,
    OwnsOnePartition => c2_members_have_equal_shares,
    LosesAStepInFifty => c6_dropping_next_hundreds_of_times_loses_no_record,
    CutsInstanceIds => c7_a_static_member_stays,
    KeepsStaticMembersForEver => c7_a_static_member_that_stays_away_is_replaced,
    ClosesGroupsThatBeginAlike => c7_closing_a_member_leaves_other_groups_alone,
    // Answers that are lost, reads that fail, rebalances.
    TakesALostCommitForSuccess => c4_a_commit_whose_answer_is_lost_can_be_repeated,
    CommitsFurtherWhenAnAnswerIsLost => c4_a_commit_whose_answer_is_lost_is_no_refusal,
    CommitsWhatIsOutdated => c4_a_refused_commit_whose_answer_is_lost_commits_nothing,
    LosesAStepAtAFailedRead => c1_reading_goes_on_after_failed_reads,
    RevokesNothing => c3_a_rebalance_of_one_member_gives_all_back,
    LosesInsteadOfRevoking => c3_a_rebalance_gives_each_partition_one_owner_again,
    // Pauses.
    PausesFromTheFirstRecordOn => c5_pausing_between_assignment_and_the_first_record,
    CountsPauses => c5_pausing_between_assignment_and_the_first_record,
    ResumesWhatComesBack => c5_a_pause_holds_when_its_partition_comes_back,
    ResumesWhatIsLost => c5_a_pause_holds_after_a_lost_session,
    PausesForItsGroup => c5_a_pause_is_its_members_own,
    PausesTheFirst => c5_several_partitions_are_paused_and_resumed_in_one_call,
    ResumesAll => c5_several_partitions_are_paused_and_resumed_in_one_call,
    ResumesAtASeek => c5_a_seek_of_a_paused_partition_waits_for_its_resume,
    StarvesBehindAPause => c5_a_paused_backlog_leaves_room_for_the_others,
    FreezesProgress => c5_progress_goes_on_under_a_pause,
    FreezesProgressOfThePaused => c5_progress_goes_on_under_a_pause,
    FetchesAllUnderAPause => c5_a_paused_partition_keeps_little_of_what_is_gone,
    // Topics.
    PromisesMoreThanItsTransport => a1_each_part_promises_what_its_transport_does,
    HasNoName => a1_each_part_shows_itself,
    KeepsHalfOfTheSize => a1_retention_by_size_leaves_what_is_within_it,
    CountsWhatIsGone => a1_retention_by_size_counts_what_is_there,
    ExpiresCompactedTopics => a1_retention_spares_topics_that_are_compacted,
    KeepsNothingThatIsTooLarge => a1_retention_by_size_keeps_a_record_that_is_larger,
    CreatesAllLikeTheFirst => a1_topics_of_one_call_are_created_each_as_asked,
    ForgetsRetention => a1_retention_deletes_what_is_older_and_nothing_else,
    ExpiresTheYoungWithTheOld => a1_retention_leaves_the_young_of_a_partition,
    ExpiresAll => a1_retention_deletes_what_is_older_and_nothing_else,
    TakesNegativeCountsForADefault => a1_a_name_or_a_number_that_cannot_be_fails_alone,
    DescribesLogsFromZero => c4_seek_below_what_is_gone_goes_to_the_oldest,
    DescribesAThousand => a1_a_thousand_names_are_answered_in_their_places,
    DescribesATopicOnce => a1_a_thousand_names_are_answered_in_their_places,
    DeletesTheFirst => a1_topics_of_one_call_are_deleted_and_no_other,
    DeletesWhatBeginsAlike => a1_topics_of_one_call_are_deleted_and_no_other,
    KeepsCommitsOfADeletedTopic => a1_a_deleted_topic_takes_its_commits_along,
    GrowsWhatBeginsAlike => a1_topics_that_begin_alike_are_deleted_and_grown_apart,
    NeverGrowsUnasked => a1_growing_a_topic_without_records_needs_no_permission,
    ForgetsTheSize => a1_retention_by_size_keeps_the_newest,
    ForgetsCleanup => a1_a_topic_is_created_as_asked,
    ListsAThousand => a1_more_than_a_thousand_topics_and_groups_are_listed,
    ListsAThousandGroups => a1_more_than_a_thousand_topics_and_groups_are_listed,
    ListsNothingInAnOutage => a1_nothing_is_answered_in_an_outage,
    PretendsToCreateInAnOutage => a1_nothing_is_answered_in_an_outage,
    // The cluster.
    ListsAControllerThatIsGone => a1_a_cluster_lists_its_brokers,
    CountsNoBytes => a1_log_directories_grow_with_published_records,
    SetsAllOnTheTopic => a1_a_configuration_names_the_source_of_each_value,
    DescribesAnyBroker => a1_a_configuration_of_a_broker_is_listed_by_its_number,
    NeverPutsBack => a1_a_configuration_is_altered_and_put_back,
    AltersOneByOne => a1_altering_a_configuration_is_all_or_nothing,
    KeepsTheRecordSize => a1_an_altered_size_limit_applies,
    DescribesAnyTopic => a1_a_configuration_of_a_missing_topic_is_not_found,
    PretendsToAlterInAnOutage => a1_configurations_are_unavailable_in_an_outage,
    // Groups.
    DescribesOneMemberWithAll => a1_each_member_is_described_with_its_own_partitions,
    ForgetsLagWithoutACommit => a1_lag_counts_what_was_never_committed,
    SortsLagAsText => a1_lag_counts_what_was_never_committed,
    ResetsTheFirst => a1_reset_moves_several_topics_and_no_other,
    ResetsAllTopics => a1_reset_moves_several_topics_and_no_other,
    ShiftsLikeTheFirst => a1_reset_moves_several_topics_and_no_other,
    ResetsOffsetsOf32Bits => a1_reset_far_beyond_the_log_goes_to_its_ends,
    ShiftsBy32Bits => a1_reset_far_beyond_the_log_goes_to_its_ends,
    ResetsToWhatIsGone => a1_reset_goes_to_no_record_that_is_gone,
    ShiftsANewGroupFromZero => a1_reset_goes_to_no_record_that_is_gone,
    MovesBeforeItRefuses => a1_reset_with_a_missing_topic_moves_nothing,
    CreatesAGroupInADryRun => a1_reset_with_a_missing_topic_moves_nothing,
    CallsARebalanceStable => a1_a_group_is_rebalancing_until_a_revocation_ends,
    LosesAllAtADeletion => a1_deleting_a_topic_concerns_no_other_group,
    ResetsGroupsThatBeginAlike => a1_groups_that_begin_alike_are_reset_and_deleted_apart,
    DeletesGroupsThatBeginAlike => a1_groups_that_begin_alike_are_reset_and_deleted_apart,
    // Letters.
    BuriesAHundred => d1_hundreds_of_letters_in_one_call,
    BuriesNoMoreAfterARefusal => d1_hundreds_of_letters_in_one_call,
    CutsALettersPartition => d2_letters_keep_numbers_and_bytes_of_any_size,
    KeepsALettersOffsetAsADouble => d2_letters_keep_numbers_and_bytes_of_any_size,
    KeepsAHundredHeadersOfALetter => d2_letters_keep_numbers_and_bytes_of_any_size,
    TakesALettersEmptyKeyForNull => d2_letters_keep_numbers_and_bytes_of_any_size,
    DropsTheSignOfALettersTime => d2_letters_keep_numbers_and_bytes_of_any_size,
}

/// The state that the consumers and admins of a transport share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Commits by group and partition, the last ones.
    commits: BTreeMap<(Name, TopicPartition), u64>,
    paused: BTreeSet<(Name, TopicPartition)>,
    open: Vec<(Name, Weak<dyn Consumer>)>,
    /// Commits of topics that were deleted.
    deleted: Vec<(Name, TopicPartition)>,
}

#[derive(Debug)]
pub(crate) struct Bent {
    inner: MemoryTransport,
    kind: Kind,
    shared: Arc<Mutex<Shared>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A group's name as the bug has it.
fn group_of(kind: Kind, group: &Name) -> Name {
    match kind {
        Kind::CutsGroups => group[..group.floor_char_boundary(255)].into(),
        Kind::IgnoresCaseOfGroups => group.to_lowercase().into(),
        _ => group.clone(),
    }
}

impl Bent {
    async fn bent(&self, mut options: ConsumerOptions) -> Result<ConsumerOptions> {
        options.group = group_of(self.kind, &options.group);
        let listed = self.inner.admin().await?.list_topics().await.unwrap_or_default();
        match self.kind {
            Kind::ReadsTopicsThatBeginAlike => {
                let alike = |t: &&Name| options.topics.iter().any(|asked| t.starts_with(asked.as_str()));
                options.topics = listed.iter().filter(alike).cloned().collect();
            }
            Kind::IgnoresCaseOfTopics => {
                let folded: Vec<String> = options.topics.iter().map(|t| t.to_lowercase()).collect();
                options.topics = listed.into_iter().filter(|t| folded.contains(&t.to_lowercase())).collect();
            }
            Kind::StartsAtTheEndFromNegativeTimes => {
                let negative = matches!(options.start, Start::Time(time) if time.millis() < 0);
                options.start = if negative { Start::Latest } else { options.start };
            }
            Kind::ReadsSixteenTopics => options.topics.truncate(16),
            Kind::KeepsStaticMembersForEver if options.instance_id.is_some() => options.session_timeout *= 1_000,
            Kind::CutsInstanceIds => {
                options.instance_id = options.instance_id.map(|id| id.split('-').next().unwrap_or("").into());
            }
            _ => {}
        }
        Ok(options)
    }
}

#[async_trait]
impl Transport for Bent {
    fn system(&self) -> &'static str {
        if self.kind == Kind::HasNoName { "" } else { "bent" }
    }

    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        let admin = self.inner.admin().await?;
        Ok(Arc::new(BentPublisher::new(self.inner.publisher().await?, admin, self.kind)))
    }

    async fn consumer(&self, options: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        let inner = self.inner.consumer(self.bent(options.clone()).await?).await?;
        if self.kind == Kind::PausesForItsGroup {
            let of = |(group, p): &(Name, TopicPartition)| (*group == options.group).then(|| p.clone());
            let paused: Vec<_> = lock(&self.shared).paused.iter().filter_map(of).collect();
            inner.pause(&paused).await?;
        }
        lock(&self.shared).open.push((options.group.clone(), Arc::downgrade(&inner)));
        Ok(Arc::new(BentConsumer::new(inner, options, self.kind, Arc::clone(&self.shared))))
    }

    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        Ok(Arc::new(BentSink { inner: self.inner.dead_letters().await?, kind: self.kind }))
    }

    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        Ok(Arc::new(BentAdmin {
            inner: self.inner.admin().await?,
            memory: self.inner.clone(),
            kind: self.kind,
            shared: Arc::clone(&self.shared),
        }))
    }

    async fn transactor(&self, options: TransactorOptions) -> Result<Arc<dyn Transactor>> {
        self.inner.transactor(options).await
    }

    async fn cluster(&self) -> Result<Arc<dyn Cluster>> {
        Ok(Arc::new(BentCluster { inner: self.inner.cluster().await?, kind: self.kind }))
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

fn setup(kind: Kind) -> Setup<Bent> {
    let open = move || async move {
        let inner = MemoryTransport::open(MemoryConfig::new().with_auto_create(false))?;
        Ok(Bent { inner, kind, shared: Arc::default() })
    };
    Setup::new("bent", open)
        .with_paused_clock()
        .with_case_limit(CASE_LIMIT)
        .with_outage(|bent, down| async move {
            let faults = bent.inner.faults();
            if down {
                faults.down()
            } else {
                faults.up()
            }
            Ok(())
        })
        .with_session_loss(|bent, group| async move {
            bent.inner.faults().lose_all(&group);
            Ok(())
        })
        .with_deleted_records(|bent, partition, range| async move {
            if range.start > 0 {
                return Err(Error::new(ErrorKind::Unsupported, "the memory transport does not compact"));
            }
            bent.inner.faults().drop_records(&partition, range.end);
            Ok(())
        })
        .with_truncated_records(|bent, partition, end| async move {
            let faults = bent.inner.faults();
            faults.truncate(&partition, end.saturating_sub(u64::from(bent.kind == Kind::CutsOneTooMany)));
            if bent.kind == Kind::LosesAllAtACut {
                let groups: Vec<Name> = lock(&bent.shared).open.iter().map(|(group, _)| group.clone()).collect();
                groups.iter().for_each(|group| faults.lose_all(group));
            }
            Ok(())
        })
        .with_failed_reads(|bent, times| async move {
            bent.inner.faults().fail_fetches(times, ErrorKind::Unavailable);
            Ok(())
        })
        .with_lost_commits(|bent, lost| async move {
            let times = if lost { Faults::UNTIL_HEALED } else { 0 };
            bent.inner.faults().fail_commits(times, ErrorKind::Indeterminate);
            Ok(())
        })
        .with_rebalance(|bent, group| async move {
            match bent.kind {
                Kind::RevokesNothing => {}
                Kind::LosesInsteadOfRevoking => bent.inner.faults().lose_all(&group),
                _ => bent.inner.faults().rebalance(&group),
            }
            Ok(())
        })
        .with_advanced_log(|bent, partition, offset| async move {
            bent.inner.faults().advance(&partition, offset);
            Ok(())
        })
}

/// Prints which cases catch each bug: one that only a new case catches was a gap. Takes minutes.
#[test]
#[ignore = "a survey, to be read: PLANT=name selects a bug"]
fn survey() {
    let only = std::env::var("PLANT").ok();
    for (kind, case) in PLANTS {
        let name = format!("{kind:?}");
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let caught =
            |case: &&str| matches!(transport::check(setup(*kind), case), tidings_conformance::Verdict::Failed(_));
        let by: Vec<&str> = transport::names().into_iter().filter(caught).collect();
        println!("{name}: {case}{}; caught by {by:?}", if by.contains(case) { "" } else { " IS MISSING" });
    }
}
