//! The panels of the dashboard. Their descriptions and units are those of the table of metrics.

use super::query::Form;

/// A panel of a metric.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panel {
    pub(super) title: &'static str,
    pub(super) metric: &'static str,
    pub(super) form: Form,
    /// The labels that its series have.
    pub(super) by: &'static [&'static str],
}

const fn panel(title: &'static str, metric: &'static str, form: Form, by: &'static [&'static str]) -> Panel {
    Panel { title, metric, form, by }
}

/// The panels, under the titles of their rows.
pub(super) static ROWS: &[(&str, &[Panel])] = &[
    ("Health", HEALTH),
    ("Lag", LAG),
    ("Throughput", THROUGHPUT),
    ("Handlers", HANDLERS),
    ("Group and broker", GROUP),
    ("Idempotency", CLAIMS),
    ("Publishers", PUBLISHERS),
    ("Outbox", OUTBOX),
    ("Operations", OPERATIONS),
];

const HEALTH: &[Panel] = &[
    panel("Live", "tidings_live", Form::Flag, &["instance", "service"]),
    panel("Ready", "tidings_ready", Form::Flag, &["instance", "service"]),
    panel("Versions", "tidings_build_info", Form::Sum, &["version"]),
    panel("Reasons", "tidings_health_reason", Form::Sum, &["reason"]),
    panel("States of partitions", "tidings_partition_state", Form::Sum, &["group", "state"]),
    panel("Assigned partitions", "tidings_assigned_partitions", Form::Sum, &["instance", "service"]),
];

const LAG: &[Panel] = &[
    panel("Time lag", "tidings_group_lag_seconds", Form::Max, &["group", "topic"]),
    panel("Lag", "tidings_group_lag_messages", Form::Sum, &["group", "topic"]),
    panel("Time without progress", "tidings_partition_unmoved_seconds", Form::Max, &["group", "topic"]),
];

const THROUGHPUT: &[Panel] = &[
    panel("Settled records", "tidings_settled_messages_total", Form::Rate, &["service", "outcome"]),
    panel("Fetched records", "tidings_fetched_messages_total", Form::Rate, &["service"]),
    panel("Fetched bytes", "tidings_fetched_bytes_total", Form::Rate, &["service"]),
    panel("Records in flight", "tidings_partition_in_flight_messages", Form::Sum, &["group", "topic"]),
    panel("Bytes in flight", "tidings_in_flight_bytes", Form::Sum, &["instance", "service"]),
];

const HANDLERS: &[Panel] = &[
    panel("Duration of deliveries", "messaging_process_duration_seconds", Form::Quantiles, &["handler"]),
    panel("Failed deliveries", "tidings_failures_total", Form::Rate, &["service", "handler"]),
    panel("Dead letters", "tidings_dead_letters_total", Form::Rate, &["service", "handler", "kind"]),
    panel("Retries", "tidings_retries_total", Form::Rate, &["service", "handler"]),
    panel("Records that wait to be retried", "tidings_retry_waiting_messages", Form::Sum, &["group", "topic"]),
    panel("Retries that are due", "tidings_retry_due_messages", Form::Sum, &["group", "topic"]),
    panel("Returned events", "tidings_returned_messages_total", Form::Rate, &["service"]),
    panel("Failures of returned events", "tidings_return_failures_total", Form::Rate, &["service"]),
];

const GROUP: &[Panel] = &[
    panel("Rebalances", "tidings_rebalances_total", Form::Rate, &["service"]),
    panel("Read failures", "tidings_read_failures_total", Form::Rate, &["service"]),
    panel("Commits", "tidings_commits_total", Form::Rate, &["service"]),
    panel("Commit failures", "tidings_commit_failures_total", Form::Rate, &["service"]),
    panel("Pauses", "tidings_pauses_total", Form::Rate, &["service"]),
    panel("Openings of the circuit breaker", "tidings_circuit_openings_total", Form::Rate, &["service"]),
];

const CLAIMS: &[Panel] = &[
    panel("Claims", "tidings_claims_total", Form::Rate, &["service", "result"]),
    panel("Claims held", "tidings_claims_held", Form::Sum, &["service"]),
];

const PUBLISHERS: &[Panel] = &[
    panel("Published records", "tidings_published_messages_total", Form::Rate, &["publisher"]),
    panel("Publish failures", "tidings_publish_failures_total", Form::Rate, &["publisher"]),
    panel("Publish calls", "tidings_publish_calls_total", Form::Rate, &["publisher"]),
];

const OUTBOX: &[Panel] = &[
    panel("Relay runs", "tidings_relay_running", Form::Flag, &["instance", "relay"]),
    panel("Relay fails", "tidings_relay_failing", Form::Max, &["instance", "relay"]),
    panel("Time lag of the outbox", "tidings_outbox_lag_seconds", Form::Max, &["job"]),
    panel("Waiting records", "tidings_outbox_waiting_messages", Form::Max, &["job"]),
    panel("Records that hold back others", "tidings_outbox_holding_messages", Form::Max, &["job"]),
    panel("Records set aside", "tidings_outbox_parked_messages", Form::Max, &["job"]),
    panel("Relayed records", "tidings_relay_published_messages_total", Form::Rate, &["instance", "relay"]),
    panel("Refused records", "tidings_relay_refused_messages_total", Form::Rate, &["instance", "relay"]),
    panel("Records being relayed", "tidings_relay_in_flight_messages", Form::Sum, &["instance", "relay"]),
];

const OPERATIONS: &[Panel] = &[
    panel("Refused requests", "tidings_requests_refused_total", Form::Rate, &["instance", "reason"]),
    panel("Audit sink fails", "tidings_audit_failing", Form::Max, &["instance"]),
    panel("Waiting audit records", "tidings_audit_waiting_records", Form::Max, &["instance"]),
    panel("Lost audit records", "tidings_audit_lost_records_total", Form::Rate, &["instance"]),
    panel("Events waiting for the audit", "tidings_audit_waiting_events", Form::Max, &["instance"]),
    panel("Events missing from the audit", "tidings_audit_dropped_events_total", Form::Rate, &["instance"]),
    panel("Age of the audit checkpoint", "tidings_audit_checkpoint_age_seconds", Form::Max, &["instance"]),
    panel("Audit records after the checkpoint", "tidings_audit_unanchored_records", Form::Max, &["instance"]),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::generate::query::metric;
    use crate::metrics::{MetricKind, metrics};

    fn fits(form: Form, kind: MetricKind) -> bool {
        match kind {
            MetricKind::Counter => matches!(form, Form::Rate),
            MetricKind::Gauge => matches!(form, Form::Sum | Form::Max | Form::Flag),
            MetricKind::Histogram => matches!(form, Form::Quantiles),
        }
    }

    #[test]
    fn each_panel_fits_its_metric() {
        for panel in ROWS.iter().flat_map(|(_, panels)| *panels) {
            let metric = metric(panel.metric).expect(panel.metric);
            assert!(fits(panel.form, metric.kind), "{}: {:?}", panel.title, panel.form);
            let known = |label: &&str| ["job", "instance"].contains(label) || metric.labels.contains(label);
            assert!(!panel.by.is_empty() && panel.by.iter().all(known), "{}: {:?}", panel.title, panel.by);
        }
        let titles: BTreeSet<&str> = ROWS.iter().flat_map(|(_, panels)| *panels).map(|panel| panel.title).collect();
        assert_eq!(titles.len(), ROWS.iter().map(|(_, panels)| panels.len()).sum::<usize>(), "a title occurs once");
    }

    /// A new metric gets a panel, or is listed here.
    #[test]
    fn each_metric_has_a_panel() {
        let shown: BTreeSet<&str> = ROWS.iter().flat_map(|(_, panels)| *panels).map(|panel| panel.metric).collect();
        let missing: Vec<&str> = metrics().map(|metric| metric.name).filter(|name| !shown.contains(name)).collect();
        // The one is for joins, and the other exists only while an instance has no partition.
        assert_eq!(missing, ["tidings_service_info", "tidings_group_members"]);
    }
}
