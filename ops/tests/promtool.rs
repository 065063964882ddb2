//! Prometheus' own tool accepts `/metrics` and the alerting rules; each alert fires in trouble, alone, and clears after
//! it.
//!
//! Without promtool (of Debian's package `prometheus`, or named by `TIDINGS_PROMTOOL`) the tests are reported ignored;
//! with `REQUIRE_BROKERS=1`, as in CI, that is a failure.

mod common;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use common::{ask, caught_up, publish, started};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tidings_core::{Delivery, Record};
use tidings_memory::MemoryTransport;
use tidings_ops::Ops;
use tidings_ops::generate::alerts;
use tidings_service::{EventPublisher, HandlerExt, Router};

fn main() -> ExitCode {
    let trials = vec![
        Trial::ignorable_test("promtool_accepts_the_metrics", || with_tool(accepts_metrics)),
        Trial::ignorable_test("promtool_accepts_the_rules", || with_tool(accepted)),
        Trial::ignorable_test("each_alert_fires_and_clears", || with_tool(fires_and_clears)),
        Trial::ignorable_test("the_scaler_leaves_stuck_partitions_out", || with_tool(scales)),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Runs a test with the tool, if there is one.
fn with_tool(test: fn(&OsString) -> Result<(), Failed>) -> Result<Completion, Failed> {
    let tool = std::env::var_os("TIDINGS_PROMTOOL").unwrap_or_else(|| "promtool".into());
    let is_there = Command::new(&tool).arg("--version").output().is_ok_and(|output| output.status.success());
    match (is_there, std::env::var("REQUIRE_BROKERS").is_ok_and(|value| value == "1")) {
        (true, _) => test(&tool).map(|()| Completion::Completed),
        (false, false) => Ok(Completion::ignored_with("no promtool: install the package prometheus")),
        (false, true) => Err("REQUIRE_BROKERS=1, but there is no promtool: install the package prometheus".into()),
    }
}

fn run(tool: &OsString, arguments: &[&str], file: &Path) -> Result<(), Failed> {
    let output = Command::new(tool).args(arguments).arg(file).output()?;
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    if output.status.success() { Ok(()) } else { Err(said.into()) }
}

fn accepts_metrics(tool: &OsString) -> Result<(), Failed> {
    let text = tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(metrics());
    let mut command = Command::new(tool);
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut check = command.spawn()?;
    check.stdin.take().ok_or("it has an input")?.write_all(text.as_bytes())?;
    let output = check.wait_with_output()?;
    let found = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() && found.is_empty() { Ok(()) } else { Err(format!("{found}\n{text}").into()) }
}

async fn metrics() -> String {
    let transport = MemoryTransport::new();
    let handler = (async |_: Delivery| {}).named("quotes \"and\\slashes\"");
    let service = started(Router::new().on_topic("t", handler), &transport).await;
    publish(&transport, vec![Record::new("t", "1"), Record::new("t", "2")]).await;
    caught_up(&service).await;
    let events = EventPublisher::new(&transport, "gateway");
    let router = Ops::new().with_service(&service).with_publisher(&events).with_open_metrics();
    let router = router.with_audit(tidings_audit::Auditor::new(tidings_audit::MemoryAudit::new())).router();
    ask(&router, "/metrics").await.1
}

fn accepted(tool: &OsString) -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let rules = directory.path().join("rules.yaml");
    std::fs::write(&rules, alerts())?;
    run(tool, &["check", "rules", "--lint=all", "--lint-fatal"], &rules)?;
    run(tool, &["check", "config"], &Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/prometheus.yaml"))
}

/// An alert, and series of 5 good minutes, 20 bad ones and 35 good ones.
type Case = (&'static str, &'static [(&'static str, &'static str)]);

const FALLS: &str = "1+0x4 0+0x19 1+0x34";
const RISES: &str = "0+0x4 1+0x19 0+0x34";
const CASES: [Case; 18] = [
    ("TidingsAuditFailing", &[("tidings_audit_failing", RISES)]),
    ("TidingsNotLive", &[(r#"tidings_live{service="s"}"#, FALLS)]),
    ("TidingsNotReady", &[(r#"tidings_ready{service="s"}"#, FALLS)]),
    ("TidingsStoreDown", &[(r#"tidings_health_reason{service="s",reason="store_unavailable"}"#, RISES)]),
    ("TidingsSinkDown", &[(r#"tidings_health_reason{service="s",reason="dead_letters_unwritable"}"#, RISES)]),
    ("TidingsBrokerDown", &[(r#"tidings_health_reason{service="s",reason="broker_unreachable"}"#, RISES)]),
    ("TidingsPublisherDown", &[(r#"tidings_health_reason{service="s",reason="publisher_unavailable"}"#, RISES)]),
    ("TidingsDependencyDown", &[(r#"tidings_health_reason{service="s",reason="dependency_unavailable"}"#, RISES)]),
    ("TidingsCircuitOpen", &[(r#"tidings_health_reason{service="s",reason="circuit_open"}"#, RISES)]),
    ("TidingsHandlerBlocked", &[(r#"tidings_health_reason{service="s",reason="handler_blocked"}"#, RISES)]),
    (
        "TidingsPartitionStalled",
        &[(r#"tidings_partition_state{service="s",group="g",topic="t",partition="0",state="stalled"}"#, RISES)],
    ),
    (
        "TidingsPartitionUnreadable",
        &[(r#"tidings_partition_state{service="s",group="g",topic="t",partition="0",state="unreadable"}"#, RISES)],
    ),
    (
        "TidingsLagHigh",
        &[(r#"tidings_group_lag_seconds{service="s",group="g",topic="t",partition="0"}"#, "0+0x4 301+60x19 300+0x34")],
    ),
    (
        // The other partition moves to another instance, which is no trouble.
        "TidingsPartitionsUnowned",
        &[
            (
                r#"tidings_group_lag_messages{service="s",group="g",topic="t",partition="0",instance="a"}"#,
                "0+0x4 stale _x19 0+0x34",
            ),
            (
                r#"tidings_group_lag_messages{service="s",group="g",topic="t",partition="1",instance="a"}"#,
                "0+0x14 stale _x44",
            ),
            (
                r#"tidings_group_lag_messages{service="s",group="g",topic="t",partition="1",instance="b"}"#,
                "_x14 0+0x44",
            ),
        ],
    ),
    (
        "TidingsDeadLetters",
        &[
            (r#"tidings_settled_messages_total{service="s",handler="h",outcome="handled"}"#, "0+100x60"),
            (
                r#"tidings_settled_messages_total{service="s",handler="h",outcome="dead_lettered"}"#,
                "0+0x4 2+2x19 40+0x34",
            ),
        ],
    ),
    ("TidingsOutboxLagHigh", &[(r#"tidings_outbox_lag_seconds{relay="1"}"#, "0+0x4 61+0x19 0+0x34")]),
    (
        "TidingsOutboxPoisonRow",
        &[
            (r#"tidings_outbox_holding_messages{relay="1"}"#, RISES),
            (r#"tidings_outbox_parked_messages{relay="1"}"#, "0+0x60"),
        ],
    ),
    (
        "TidingsRelayDown",
        &[
            (r#"tidings_relay_running{relay="1"}"#, "1+0x4 0+0x9 1+0x44"),
            (r#"tidings_relay_failing{relay="1"}"#, "0+0x13 1+0x10 0+0x34"),
        ],
    ),
];

fn fires_and_clears(tool: &OsString) -> Result<(), Failed> {
    let rules = alerts();
    let names: BTreeSet<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let tested: BTreeSet<&str> = CASES.iter().map(|(name, _)| *name).collect();
    if names != tested {
        return Err(format!("alerts {names:?}, tested {tested:?}").into());
    }
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("rules.yaml"), &rules)?;
    let mut text = String::from("rule_files: [rules.yaml]\nevaluation_interval: 1m\ntests:\n");
    for (alert, series) in CASES {
        writeln!(text, "  - interval: 1m\n    input_series:")?;
        for (series, values) in series {
            writeln!(text, "      - series: '{}'\n        values: '{values}'", scraped(series))?;
        }
        let firing = r#"count by (alertname) (ALERTS{alertstate="firing"})"#;
        let lasting = format!(r#"[{{labels: '{{alertname="{alert}"}}', value: 1}}]"#);
        writeln!(text, "    promql_expr_test:")?;
        for (minute, wanted) in [(4, "[]"), (24, lasting.as_str()), (58, "[]")] {
            writeln!(text, "      - {{expr: '{firing}', eval_time: {minute}m, exp_samples: {wanted}}}")?;
        }
    }
    let tests = directory.path().join("tests.yaml");
    std::fs::write(&tests, &text)?;
    run(tool, &["test", "rules"], &tests)
}

/// Adds the labels of a scrape.
fn scraped(series: &str) -> String {
    let instance = if series.contains("instance=") { "" } else { ",instance=\"a\"" };
    series.replace('}', &format!(",job=\"j\"{instance}}}"))
}

/// The query of the guide's scaler, for two partitions with a lag of 70, of which one is stalled from minute 5 to 24.
fn scales(tool: &OsString) -> Result<(), Failed> {
    let guide = include_str!("../../docs/guides/deployment.md");
    let (_, rest) = guide.split_once("query: >-\n").ok_or("the guide has a query")?;
    let lines = rest.lines().take_while(|line| line.starts_with("          "));
    let query = lines.map(str::trim).collect::<Vec<_>>().join(" ");
    let labels = r#"service="s",group="user-service-group",topic="t",instance="a""#;
    let mut text = String::from("evaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n");
    for (partition, stalled) in [("0", RISES), ("1", "0+0x60")] {
        writeln!(
            text,
            "      - {{series: 'tidings_group_lag_messages{{{labels},partition=\"{partition}\"}}', values: '70+0x60'}}"
        )?;
        let series = format!("tidings_partition_state{{{labels},partition=\"{partition}\",state=\"stalled\"}}");
        writeln!(text, "      - {{series: '{series}', values: '{stalled}'}}")?;
    }
    writeln!(text, "    promql_expr_test:")?;
    for (minute, lag) in [(4, 140), (20, 70), (40, 140)] {
        writeln!(
            text,
            "      - {{expr: '{query}', eval_time: {minute}m, exp_samples: [{{labels: '{{}}', value: {lag}}}]}}"
        )?;
    }
    let directory = tempfile::tempdir()?;
    let tests = directory.path().join("tests.yaml");
    std::fs::write(&tests, text)?;
    run(tool, &["test", "rules"], &tests)
}
