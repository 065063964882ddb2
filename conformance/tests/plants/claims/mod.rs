//! An idempotency store whose bugs show only in lists, names, numbers or at the edges of leases.

mod planted;

use tidings_conformance::{Setup, idempotency};

use self::planted::Planted;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    ClaimsInTheOrderOfIds,
    CompletesInTheOrderOfIds,
    IgnoresTheLastBit,
    StopsAtADoneEvent,
    FencesAllForOne,
    AcceptsAllForOne,
    ReleasesAHundred,
    ReleasesWithTheFirstAttempts,
    RetiresAHundredClaims,
    CountsEveryPoll,
    PurgesAThousand,
    CutsScopes,
    FoldsTheCaseOfScopes,
    TrimsScopes,
    RefusesLongTypes,
    WrapsAttempts,
    CountsARepeatedRelease,
    RenewsByHalf,
    AddsRenewalsUp,
    RenewsTheScope,
    RetiringReleasesTheScope,
    RevivesByARefusedRenewal,
    ClaimsThoughFenced,
    TakesUnknownLeases,
    LosesALateComplete,
    KeepsAHundredLeases,
    SaysTheWholeTtl,
    ForgetsTheCrashOfALateRetirement,
    PurgesByTheDay,
    WrapsNegativeTimes,
    ReleasesWhatIsDone,
    AcceptsReleasesWhenDown,
    CountsRetirementsAtRestart,
    RestoresWhatWasPurged,
}

fn setup(bug: Bug) -> Setup<Planted> {
    Setup::new("planted", move || async move { Ok(Planted::new(bug)) })
        .with_paused_clock()
        .with_outage(|store, down| async move {
            if down {
                store.inner.faults().down()
            } else {
                store.inner.faults().up()
            }
            Ok(())
        })
        .with_reopen(|store| async move { Ok(store.restarted()) })
}

plants! { idempotency:
    claims_answered_in_the_order_of_ids: ClaimsInTheOrderOfIds => i1_answers_come_in_the_order_of_the_call,
    completes_answered_in_the_order_of_ids: CompletesInTheOrderOfIds => i7_each_event_of_a_complete_has_its_own_answer,
    the_last_bit_of_an_id_ignored: IgnoresTheLastBit => i1_ids_that_differ_in_one_bit_are_apart,
    a_complete_that_stops_at_a_done_event: StopsAtADoneEvent => i7_each_event_of_a_complete_has_its_own_answer,
    all_fenced_for_one: FencesAllForOne => i7_each_event_of_a_complete_has_its_own_answer,
    all_accepted_for_one: AcceptsAllForOne => i7_each_event_of_a_complete_has_its_own_answer,
    a_hundred_released: ReleasesAHundred => i6_each_event_of_a_release_has_its_own_attempts,
    the_first_attempts_for_all: ReleasesWithTheFirstAttempts => i6_each_event_of_a_release_has_its_own_attempts,
    a_hundred_claims_retired: RetiresAHundredClaims => i3_retiring_releases_every_claim,
    a_crash_for_each_poll: CountsEveryPoll => i6_each_event_of_an_expired_lease_counts_one_crash,
    a_thousand_purged: PurgesAThousand => i2_a_purge_of_thousands_is_whole,
    scopes_cut: CutsScopes => i1_scopes_of_similar_names_are_apart,
    scopes_in_lower_case: FoldsTheCaseOfScopes => i1_scopes_of_similar_names_are_apart,
    scopes_trimmed: TrimsScopes => i1_scopes_of_similar_names_are_apart,
    long_types_refused: RefusesLongTypes => i1_a_type_of_any_form_is_taken,
    attempts_that_wrap: WrapsAttempts => i6_attempts_of_any_number_are_counted,
    a_release_counted_twice: CountsARepeatedRelease => i6_a_claim_released_twice_is_counted_once,
    a_dropped_release_counted_twice: CountsARepeatedRelease => i4_a_dropped_release_can_be_repeated,
    a_renewal_by_half: RenewsByHalf => i3_a_renewal_lasts_a_whole_ttl,
    renewals_added_up: AddsRenewalsUp => i3_renewals_do_not_add_up,
    the_scope_renewed: RenewsTheScope => i3_renewing_and_retiring_concern_one_lease,
    the_scope_released: RetiringReleasesTheScope => i3_renewing_and_retiring_concern_one_lease,
    a_lease_revived_by_asking: RevivesByARefusedRenewal => i3_a_fenced_call_changes_nothing,
    a_claim_made_though_fenced: ClaimsThoughFenced => i3_a_fenced_call_changes_nothing,
    an_unknown_lease_taken: TakesUnknownLeases => i3_an_unknown_lease_is_fenced,
    a_late_complete_lost: LosesALateComplete => i3_a_late_complete_counts_or_is_fenced,
    a_hundred_leases_kept: KeepsAHundredLeases => i3_hundreds_of_leases_live_at_once,
    the_whole_ttl_answered: SaysTheWholeTtl => i3_held_says_the_rest_of_the_lease,
    a_crash_forgotten_by_retiring_late: ForgetsTheCrashOfALateRetirement => i6_retiring_too_late_is_a_crash,
    a_purge_by_the_day: PurgesByTheDay => i2_a_purge_takes_what_is_older_alone,
    negative_times_wrapped: WrapsNegativeTimes => i2_a_purge_of_any_time_is_taken_literally,
    a_done_event_released: ReleasesWhatIsDone => i2_a_release_undoes_nothing,
    a_release_accepted_though_down: AcceptsReleasesWhenDown => i5_a_store_that_is_down_says_so,
    a_retirement_counted_at_a_restart: CountsRetirementsAtRestart => restart_a_retired_lease_is_no_crash,
    purged_events_restored: RestoresWhatWasPurged => restart_what_was_purged_stays_purged,
}
