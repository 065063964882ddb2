//! A dead-letter store whose bugs show only in long lists, similar names, odd forms or at the edges of leases.

mod full;
mod planted;

use std::sync::Arc;

use tidings_conformance::{Setup, dead_letters};
use tidings_core::{Error, ErrorKind};
use tidings_memory::MemoryDeadLetters;

use self::full::FEW;
use self::planted::Planted;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    ListsAThousand,
    IgnoresTheDefaultPage,
    ReadsZeroAsAll,
    ListsFourMebibytes,
    ResolvesAThousand,
    LeasesAThousand,
    BeginsAgainBehindAClosedLetter,
    ListsNothingBehindAnUnknownLetter,
    ResolvesInTheOrderOfIds,
    LeasesInTheOrderOfIds,
    ListsInTheOrderOfParking,
    CountsOpenLetters,
    SelectsServicesByPrefix,
    FoldsTheCaseOfServices,
    SelectsTopicsByPrefix,
    ResolvesInAllTopics,
    LeasesInAllTopics,
    KeepsOffsetsIn32Bits,
    KeepsOffsetsAsFloats,
    KeepsPartitionsInAByte,
    SelectsTypesByPrefix,
    FindsNoLongTypes,
    SelectsHandlersByPrefix,
    SelectsKeysByPrefix,
    FindsNoEmptyKey,
    CutsTheKey,
    CutsTheValue,
    KeepsAHundredHeaders,
    CutsHeaders,
    KeepsOneNullForBoth,
    ReadsNullHeadersAsEmpty,
    KeepsTimesWithoutSign,
    IgnoresNegativeTimes,
    KeepsFourKinds,
    KeepsAttemptsWithASign,
    UnescapesTexts,
    ResolvesAsTheWriterSays,
    CutsTheReason,
    ForgetsWhenItWasDecided,
    ForgetsClosedRecords,
    PassesTheCheckWhenDown,
    ListsNothingWhenDown,
    LeasesNothingWhenDown,
    IgnoresTheTimeOfRecords,
    ReplacesTheLetterOfAnOldTopic,
    OpensALetterOfATopicRecreatedTwice,
    OpensADiscardedLetter,
    OpensADiscardedLetterAtRestart,
    RenewsNoLease,
    ClosesWhatIsFree,
    ClosesWhatWasGivenBack,
    EndsTheNextLease,
    EndsLeasesByBurying,
    HoldsATwin,
    ClosesATwin,
    ClosesByNoting,
    EndsLeasesByNoting,
    DropsTheOldestWhenFull,
    RefusesRepeatsWhenFull,
    CountsNoParkedLetters,
    CountsClosedLetters,
}

fn setup(bug: Bug) -> Setup<Planted> {
    let small = move || async move { Ok(Planted::new(MemoryDeadLetters::new().with_max_letters(FEW), bug)) };
    Setup::new("planted", move || async move { Ok(Planted::new(MemoryDeadLetters::new(), bug)) })
        .with_max_letters(FEW, small)
        .with_paused_clock()
        .with_outage(|letters, down| async move {
            if down {
                letters.inner.faults().down()
            } else {
                letters.inner.faults().up()
            }
            Ok(())
        })
        .with_reopen(|letters| async move {
            let letters =
                Arc::into_inner(letters).ok_or_else(|| Error::new(ErrorKind::Conflict, "it is still open"))?;
            Ok(letters.restarted().await)
        })
}

plants! { dead_letters:
    a_thousand_listed: ListsAThousand => d3_more_than_a_page_of_letters_is_listed_by_pages,
    a_page_without_an_end: IgnoresTheDefaultPage => d3_more_than_a_page_of_letters_is_listed_by_pages,
    a_page_of_none_read_as_all: ReadsZeroAsAll => d3_more_than_a_page_of_letters_is_listed_by_pages,
    four_mebibytes_listed: ListsFourMebibytes => d3_pages_of_many_bytes_are_whole,
    a_thousand_resolved: ResolvesAThousand => d4_a_thousand_letters_are_leased_and_closed_in_one_call,
    a_thousand_leased: LeasesAThousand => d4_a_thousand_letters_are_leased_and_closed_in_one_call,
    a_page_that_begins_again: BeginsAgainBehindAClosedLetter => d3_a_page_begins_behind_a_letter_in_any_state,
    a_page_that_ends_early: ListsNothingBehindAnUnknownLetter => d3_a_page_begins_behind_a_letter_in_any_state,
    letters_resolved_in_the_order_of_ids: ResolvesInTheOrderOfIds => d3_answers_come_in_the_order_of_the_call,
    letters_leased_in_the_order_of_ids: LeasesInTheOrderOfIds => d4_answers_come_in_the_order_of_the_call,
    letters_listed_in_the_order_of_parking: ListsInTheOrderOfParking => d5_parked_letters_are_listed_by_pages_and_counted,
    open_letters_counted: CountsOpenLetters => d5_parked_letters_are_listed_by_pages_and_counted,
    services_selected_by_prefix: SelectsServicesByPrefix => d3_services_of_similar_names_are_apart,
    services_in_any_case: FoldsTheCaseOfServices => d3_services_of_similar_names_are_apart,
    topics_selected_by_prefix: SelectsTopicsByPrefix => d3_topics_of_similar_names_are_apart,
    letters_of_other_topics_resolved: ResolvesInAllTopics => d3_topics_of_similar_names_are_apart,
    letters_of_other_topics_leased: LeasesInAllTopics => d4_a_lease_is_its_letters_alone,
    offsets_in_32_bits: KeepsOffsetsIn32Bits => d3_offsets_and_partitions_of_any_size_are_apart,
    offsets_as_floats: KeepsOffsetsAsFloats => d3_offsets_and_partitions_of_any_size_are_apart,
    partitions_in_a_byte: KeepsPartitionsInAByte => d3_offsets_and_partitions_of_any_size_are_apart,
    types_selected_by_prefix: SelectsTypesByPrefix => d3_letters_are_selected_by_the_type_of_their_event,
    long_types_not_found: FindsNoLongTypes => d3_letters_are_selected_by_the_type_of_their_event,
    handlers_selected_by_prefix: SelectsHandlersByPrefix => d3_letters_are_selected_by_their_handler_and_key,
    keys_selected_by_prefix: SelectsKeysByPrefix => d3_letters_are_selected_by_their_handler_and_key,
    the_empty_key_not_found: FindsNoEmptyKey => d3_letters_are_selected_by_their_handler_and_key,
    a_key_cut: CutsTheKey => d2_keys_and_headers_of_any_size_are_kept,
    a_value_cut: CutsTheValue => d2_a_value_of_more_than_two_mebibytes_is_kept_or_refused,
    a_hundred_headers_kept: KeepsAHundredHeaders => d2_keys_and_headers_of_any_size_are_kept,
    a_header_cut: CutsHeaders => d2_keys_and_headers_of_any_size_are_kept,
    one_null_for_both: KeepsOneNullForBoth => d2_null_and_empty_are_apart,
    a_null_header_read_as_empty: ReadsNullHeadersAsEmpty => d2_null_and_empty_are_apart,
    times_without_sign: KeepsTimesWithoutSign => d2_times_before_1970_are_kept_and_selected,
    negative_times_not_selected: IgnoresNegativeTimes => d2_times_before_1970_are_kept_and_selected,
    four_kinds_kept: KeepsFourKinds => d2_causes_of_any_form_are_kept,
    attempts_with_a_sign: KeepsAttemptsWithASign => d2_causes_of_any_form_are_kept,
    texts_unescaped: UnescapesTexts => d2_causes_of_any_form_are_kept,
    a_letter_resolved_by_its_writer: ResolvesAsTheWriterSays => d3_the_writer_of_a_letter_does_not_resolve_it,
    a_parked_letters_reason_cut: CutsTheReason => d5_a_parked_letters_reason_is_kept_in_full,
    a_decision_without_its_time: ForgetsWhenItWasDecided => d6_a_closed_letter_is_kept_in_full,
    a_closed_letter_without_its_record: ForgetsClosedRecords => d6_a_closed_letter_is_kept_in_full,
    a_check_passed_though_down: PassesTheCheckWhenDown => d1_an_outage_is_reported_by_every_call,
    nothing_listed_though_down: ListsNothingWhenDown => d1_an_outage_is_reported_by_every_call,
    nothing_leased_though_down: LeasesNothingWhenDown => d1_an_outage_is_reported_by_every_call,
    a_letter_of_a_recreated_topic_lost: IgnoresTheTimeOfRecords => d3_a_letter_of_a_recreated_topic_is_no_repeat,
    a_letter_of_an_old_topic_lost: ReplacesTheLetterOfAnOldTopic => d3_a_letter_of_a_recreated_topic_is_no_repeat,
    a_letter_of_a_topic_recreated_twice_opened: OpensALetterOfATopicRecreatedTwice => d3_a_letter_of_a_recreated_topic_is_no_repeat,
    a_discarded_letter_opened: OpensADiscardedLetter => d3_a_discarded_letter_stays_discarded,
    a_discarded_letter_opened_at_a_restart: OpensADiscardedLetterAtRestart => restart_a_discarded_letter_stays_discarded,
    a_lease_not_renewed: RenewsNoLease => d4_a_lease_is_renewed_by_leasing_again,
    a_free_letter_closed: ClosesWhatIsFree => d4_a_lease_closes_only_what_it_has,
    a_letter_closed_that_was_given_back: ClosesWhatWasGivenBack => d4_a_lease_closes_only_what_it_has,
    the_next_lease_ended: EndsTheNextLease => d4_ending_an_outlived_lease_leaves_the_next_one,
    a_lease_ended_by_burying: EndsLeasesByBurying => d4_burying_again_ends_no_lease,
    a_twin_held: HoldsATwin => d4_twins_within_one_call_are_one_letter,
    a_twin_closed: ClosesATwin => d4_twins_within_one_call_are_one_letter,
    a_letter_closed_by_noting: ClosesByNoting => d4_noting_a_refusal_changes_nothing,
    a_lease_ended_by_noting: EndsLeasesByNoting => d4_noting_a_refusal_changes_nothing,
    the_oldest_dropped_when_full: DropsTheOldestWhenFull => d1_a_full_store_refuses_letters_until_some_are_closed,
    repeats_refused_when_full: RefusesRepeatsWhenFull => d3_a_full_store_takes_a_repeat,
    parked_letters_not_counted: CountsNoParkedLetters => d5_a_parked_letter_takes_room,
    closed_letters_counted: CountsClosedLetters => d1_letters_that_are_closed_take_no_room,
}
