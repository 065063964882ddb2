//! The verbs of the `tidings` command: over a transport in memory, and on a real Kafka. Ignored where there is none.
//!
//! Every case runs on every target, so that the same code is known to work on each.

mod audits;
mod bad_input;
mod brokers;
mod events;
mod groups;
mod guarded;
mod guide;
mod letters;
mod many;
mod own;
mod processes;
mod resets;
mod rig;
mod rights;
mod services;
mod topics;

use std::process::ExitCode;

use tidings_testbed::Suite;

use self::rig::{Rig, TestResult};

/// A case, which runs on each target.
type Case = fn(Rig) -> std::pin::Pin<Box<dyn Future<Output = TestResult>>>;

macro_rules! cases {
    ($($case:path),* $(,)?) => {
        [$((stringify!($case).replace(" :: ", "::"), (|rig| Box::pin($case(rig))) as Case)),*]
    };
}

/// The cases of every target.
fn cases() -> Vec<(String, Case)> {
    Vec::from(cases![
        topics::a_plan_changes_nothing_and_is_applied_as_shown,
        topics::a_stale_plan_is_refused,
        topics::a_topic_grows_only_if_its_keys_may_move,
        topics::a_file_is_applied_and_then_there_is_nothing_to_do,
        topics::lists_and_descriptions_are_as_the_broker_says,
        groups::a_group_is_listed_described_and_its_lag_shown,
        groups::a_live_group_is_not_deleted_and_its_members_are_named,
        groups::a_group_is_deleted_as_planned,
        letters::letters_are_listed_counted_and_shown_without_their_payload,
        letters::letters_are_redriven_as_planned,
        letters::a_check_counts_the_letters_that_are_open,
        letters::letters_are_parked_and_discarded_for_a_reason,
        resets::a_reset_is_applied_with_the_offsets_of_its_plan,
        resets::a_reset_of_a_live_group_names_its_members,
        resets::a_reset_counts_the_events_that_are_done,
        resets::a_clone_has_the_offsets_of_its_group,
        events::events_are_tailed_got_counted_and_filtered,
        events::an_export_is_imported_byte_for_byte,
        events::an_event_is_published_as_planned,
        brokers::a_setting_is_altered_as_planned,
        brokers::the_cluster_is_described_and_its_configs_altered,
        brokers::checks_have_thresholds_and_the_formats_of_monitoring,
        brokers::a_target_is_described_by_who_reads_what,
        brokers::a_dashboard_and_alerts_are_generated,
        brokers::contexts_keep_targets_and_no_secrets,
        guide::the_commands_of_the_guide_work,
        guide::the_commands_in_place_of_kafkas_tools_work,
        audits::changes_are_recorded_in_the_configured_trail,
        audits::a_trimmed_trail_is_verified_from_its_first_record,
        audits::without_a_trail_changes_are_recorded_on_standard_error,
        audits::a_look_into_a_missing_sled_store_creates_none,
        audits::a_trail_that_cannot_be_written_refuses_the_change,
        services::instances_are_listed_by_their_directory,
        services::a_record_that_a_partition_waits_for_is_described,
        services::a_running_service_is_controlled_through_its_endpoint,
        own::the_services_of_a_program_are_described,
        own::payloads_are_decoded_by_the_types_of_the_program,
        own::an_example_has_the_subcommand_tool,
        bad_input::each_mistake_is_one_line_with_its_exit_code,
        bad_input::a_server_that_never_answers_times_out,
        processes::a_watch_refreshes_until_it_is_interrupted,
        processes::an_interrupted_redrive_reports_what_was_applied,
        processes::an_interrupted_discard_reports_what_was_applied,
        processes::an_interrupted_park_reports_what_was_applied,
        processes::an_interrupted_export_reports_its_events,
    ])
}

fn main() -> ExitCode {
    if std::env::var_os(processes::AS_TOOL).is_some() {
        return tidings::tool::main([]);
    }
    let mut suite = Suite::new()
        .with_case("http::bad_input::a_wrong_token_is_one_line", bad_input::a_wrong_token_is_one_line)
        .with_case("guarded_kafka_denies_who_is_not_allowed_and_has_its_entries_changed", guarded::kafka)
        .with_soak("soak_a_hundred_thousand_letters", many::soak)
        .with_soak("soak_a_thousand_topics_and_five_hundred_groups", many::soak_of_topics_and_groups);
    for (target, rig) in [("memory", letters::Damaged::Here), ("http", letters::Damaged::BehindHttp)] {
        let name = format!("{target}::letters::letters_that_cannot_be_read_are_counted_apart");
        suite = suite.with_case(&name, move || letters::letters_that_cannot_be_read_are_counted_apart(rig));
    }
    for (name, case) in cases() {
        suite = suite
            .with_case(&format!("memory::{name}"), move || async move { case(Rig::memory()).await })
            .with_case(&format!("http::{name}"), move || async move { case(Rig::http().await?).await })
            .with_case(&format!("kafka::{name}"), move || async move { case(Rig::kafka().await?).await });
    }
    suite.run()
}
