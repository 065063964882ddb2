//! The verbs of the `tidings` command: over a transport in memory, and on a real Kafka. Ignored where there is none.
//!
//! Every case runs on every target, so that the same code is known to work on each.

mod bad_input;
mod groups;
mod letters;
mod rig;
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

fn main() -> ExitCode {
    let cases = cases![
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
        letters::letters_are_parked_and_discarded_for_a_reason,
        bad_input::each_mistake_is_one_line_with_its_exit_code,
    ];
    let mut suite = Suite::new();
    for (name, case) in cases {
        suite = suite
            .with_case(&format!("memory::{name}"), move || async move { case(Rig::memory()).await })
            .with_case(&format!("kafka::{name}"), move || async move { case(Rig::kafka().await?).await });
    }
    suite.run()
}
