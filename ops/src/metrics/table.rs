//! The table of metrics: the only place where they are named.

use super::encode::Value;
use super::read::{
    audit, claims, dead_letters, handlers, has_ended, of_list, outboxes, partition_states, partitions, pauses,
    publishers, reasons, refused, relays, retries, services, settled, some,
};
use super::{Metric, MetricKind};
use crate::sources::Reading;
use tidings_service::telemetry::PartitionSnapshot;

/// Takes the values of the labels, in the order of the table, and the value of a series.
pub(super) type Emit<'a> = &'a mut dyn FnMut(&[&str], Value);

/// A metric, and how its series are read.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) metric: Metric,
    pub(super) read: fn(&Reading, Emit<'_>),
}

type Labels = &'static [&'static str];
type Read = fn(&Reading, Emit<'_>);

const fn row(
    kind: MetricKind,
    name: &'static str,
    unit: &'static str,
    labels: Labels,
    help: &'static str,
    read: Read,
) -> Row {
    Row { metric: Metric { name, kind, unit, labels, help }, read }
}

const fn counter(name: &'static str, unit: &'static str, labels: Labels, help: &'static str, read: Read) -> Row {
    row(MetricKind::Counter, name, unit, labels, help, read)
}

const fn gauge(name: &'static str, unit: &'static str, labels: Labels, help: &'static str, read: Read) -> Row {
    row(MetricKind::Gauge, name, unit, labels, help, read)
}

const SERVICE: Labels = &["service"];
const HANDLER: Labels = &["service", "handler"];
const PARTITION: Labels = &["service", "group", "topic", "partition"];
const PUBLISHER: Labels = &["publisher"];
const RELAY: Labels = &["relay"];

/// All metrics. A service has at most 40 series, 10 for each partition (12 of a retry topic), and 38 for each handler.
pub(super) static ROWS: &[Row] = &[
    gauge("tidings_build_info", "", &["version"], "The version of tidings; always 1.", |_, emit| {
        emit(&[env!("CARGO_PKG_VERSION")], Value::Integer(1));
    }),
    gauge(
        "tidings_service_info",
        "",
        &["service", "group", "system"],
        "The group of a service, and its messaging system; always 1.",
        |all, emit| {
            for service in &all.services {
                emit(&[&service.label, &service.snapshot.group, service.snapshot.system], Value::Integer(1));
            }
        },
    ),
    gauge("tidings_live", "", SERVICE, "Whether the service is live, as /livez reports.", |all, emit| {
        services(all, emit, |service| service.health.live);
    }),
    gauge("tidings_ready", "", SERVICE, "Whether the service is ready, as /readyz reports.", |all, emit| {
        services(all, emit, |service| service.health.ready);
    }),
    gauge(
        "tidings_health_reason",
        "",
        &["service", "reason"],
        "Whether a reason applies for which the service is not live, not ready or degraded.",
        |all, emit| of_list(all, emit, reasons),
    ),
    gauge("tidings_assigned_partitions", "", SERVICE, "Partitions that this instance reads.", |all, emit| {
        services(all, emit, |service| service.snapshot.partitions.len());
    }),
    gauge(
        "tidings_group_members",
        "",
        SERVICE,
        "Members of the group, as last queried: only while this instance has no partition.",
        |all, emit| some(all, emit, |service| service.snapshot.members.filter(|_| !has_ended(service))),
    ),
    gauge(
        "tidings_in_flight_bytes",
        "bytes",
        SERVICE,
        "Bytes of the records that are fetched and not settled.",
        |all, emit| services(all, emit, |service| service.snapshot.bytes_in_flight),
    ),
    counter("tidings_fetched_messages_total", "messages", SERVICE, "Records fetched.", |all, emit| {
        services(all, emit, |service| service.snapshot.counters.records_fetched);
    }),
    counter("tidings_fetched_bytes_total", "bytes", SERVICE, "Bytes of the records fetched.", |all, emit| {
        services(all, emit, |service| service.snapshot.counters.bytes_fetched);
    }),
    counter("tidings_read_failures_total", "", SERVICE, "Failures of reading from the group.", |all, emit| {
        services(all, emit, |service| service.snapshot.counters.read_failures);
    }),
    counter("tidings_commits_total", "", SERVICE, "Offsets of partitions that were committed.", |all, emit| {
        services(all, emit, |service| service.snapshot.counters.commits);
    }),
    counter("tidings_commit_failures_total", "", SERVICE, "Offsets whose commit failed.", |all, emit| {
        services(all, emit, |service| service.snapshot.counters.commit_failures);
    }),
    counter("tidings_rebalances_total", "", SERVICE, "Changes of the assigned partitions.", |all, emit| {
        services(all, emit, |service| service.snapshot.counters.rebalances);
    }),
    counter("tidings_circuit_openings_total", "", SERVICE, "Openings of the circuit breaker.", |all, emit| {
        services(all, emit, |service| service.snapshot.counters.circuit_openings);
    }),
    counter(
        "tidings_pauses_total",
        "",
        SERVICE,
        "Pauses of partitions that began, except at a bound of what is in flight and until a record is due.",
        |all, emit| services(all, emit, pauses),
    ),
    gauge("tidings_claims_held", "", SERVICE, "Claims of events that exist now.", |all, emit| {
        some(all, emit, |service| service.snapshot.claims.map(|claims| claims.held));
    }),
    counter(
        "tidings_claims_total",
        "",
        &["service", "result"],
        "Answers of the idempotency store to claims: granted, refused or duplicate.",
        |all, emit| of_list(all, emit, claims),
    ),
    counter(
        "tidings_returned_messages_total",
        "messages",
        SERVICE,
        "Events that handlers returned and that the broker acknowledged.",
        |all, emit| services(all, emit, |service| service.snapshot.published.published),
    ),
    counter(
        "tidings_return_failures_total",
        "",
        SERVICE,
        "Events that handlers returned and that were not acknowledged; they are retried.",
        |all, emit| services(all, emit, |service| service.snapshot.published.failed),
    ),
    counter(
        "tidings_settled_messages_total",
        "messages",
        &["service", "handler", "outcome"],
        "Settled records: handled, duplicate, skipped, dead_lettered or forwarded; without a handler, the label is empty.",
        settled,
    ),
    counter(
        "tidings_dead_letters_total",
        "",
        &["service", "handler", "kind"],
        "Dead letters by the kind of error; without a handler, the label is empty.",
        dead_letters,
    ),
    counter("tidings_retries_total", "", HANDLER, "Failed attempts that were followed by another.", |all, emit| {
        handlers(all, emit, |handler| handler.totals.retried);
    }),
    counter("tidings_failures_total", "", HANDLER, "Deliveries that failed.", |all, emit| {
        handlers(all, emit, |handler| handler.failures);
    }),
    row(
        MetricKind::Histogram,
        "messaging_process_duration_seconds",
        "seconds",
        HANDLER,
        "Durations of deliveries, of one or more records each.",
        |all, emit| handlers(all, emit, |handler| Value::Histogram(handler.durations)),
    ),
    gauge(
        "tidings_group_lag_messages",
        "messages",
        PARTITION,
        "Offsets that are not settled, of a partition that this instance reads.",
        |all, emit| partitions(all, emit, |partition| partition.lag()),
    ),
    gauge(
        "tidings_group_lag_seconds",
        "seconds",
        PARTITION,
        "Age of the oldest unsettled record by its timestamp; exactly 0 if there is none.",
        |all, emit| partitions(all, emit, |partition| partition.time_lag),
    ),
    gauge(
        "tidings_retry_waiting_messages",
        "messages",
        PARTITION,
        "Records of a retry topic that wait until they are due; they are not part of the lag.",
        |all, emit| retries(all, emit, |partition| partition.waiting),
    ),
    gauge(
        "tidings_retry_due_messages",
        "messages",
        PARTITION,
        "Records of a retry topic that are due and not settled.",
        |all, emit| retries(all, emit, PartitionSnapshot::lag),
    ),
    gauge(
        "tidings_partition_state",
        "",
        &["service", "group", "topic", "partition", "state"],
        "Whether the partition is in the state: ok, slow, stalled, rewound, paused or unreadable.",
        partition_states,
    ),
    gauge(
        "tidings_partition_in_flight_messages",
        "messages",
        PARTITION,
        "Records that are fetched and not settled.",
        |all, emit| partitions(all, emit, |partition| partition.in_flight),
    ),
    gauge(
        "tidings_partition_unmoved_seconds",
        "seconds",
        PARTITION,
        "Time since the lowest unsettled offset changed; 0 if everything is settled.",
        |all, emit| partitions(all, emit, |partition| partition.unmoved),
    ),
    counter(
        "tidings_published_messages_total",
        "messages",
        PUBLISHER,
        "Records of a publisher that the broker acknowledged.",
        |all, emit| publishers(all, emit, |publisher| publisher.published),
    ),
    counter(
        "tidings_publish_failures_total",
        "",
        PUBLISHER,
        "Records of a publisher that were not acknowledged.",
        |all, emit| publishers(all, emit, |publisher| publisher.failed),
    ),
    counter("tidings_publish_calls_total", "", PUBLISHER, "Calls of a publisher.", |all, emit| {
        publishers(all, emit, |publisher| publisher.calls);
    }),
    gauge("tidings_relay_running", "", RELAY, "Whether the outbox relay runs.", |all, emit| {
        relays(all, emit, |relay| relay.is_running);
    }),
    gauge("tidings_relay_failing", "", RELAY, "Whether the relay's broker or database fails now.", |all, emit| {
        relays(all, emit, |relay| relay.is_failing);
    }),
    gauge(
        "tidings_relay_in_flight_messages",
        "messages",
        RELAY,
        "Records that the relay publishes now.",
        |all, emit| {
            relays(all, emit, |relay| relay.in_flight);
        },
    ),
    counter(
        "tidings_relay_published_messages_total",
        "messages",
        RELAY,
        "Records that the relay published and removed from the outbox.",
        |all, emit| relays(all, emit, |relay| relay.published),
    ),
    counter(
        "tidings_relay_refused_messages_total",
        "messages",
        RELAY,
        "Records that the broker refused.",
        |all, emit| {
            relays(all, emit, |relay| relay.refused);
        },
    ),
    gauge(
        "tidings_outbox_waiting_messages",
        "messages",
        RELAY,
        "Records in the whole outbox, as the relay measured last.",
        |all, emit| outboxes(all, emit, |outbox| outbox.waiting),
    ),
    gauge("tidings_outbox_lag_seconds", "seconds", RELAY, "Age of the oldest record in the outbox.", |all, emit| {
        outboxes(all, emit, |outbox| outbox.time_lag);
    }),
    gauge(
        "tidings_outbox_holding_messages",
        "messages",
        RELAY,
        "Refused records that hold back later records of their keys.",
        |all, emit| outboxes(all, emit, |outbox| outbox.holding),
    ),
    gauge("tidings_outbox_parked_messages", "messages", RELAY, "Refused records that were set aside.", |all, emit| {
        outboxes(all, emit, |outbox| outbox.parked);
    }),
    counter(
        "tidings_requests_refused_total",
        "",
        &["reason"],
        "Requests of this endpoint that were refused: unauthenticated, role, read_only, not_local or web_page.",
        refused,
    ),
    gauge("tidings_audit_failing", "", &[], "Whether the sink of the audit trail fails now.", |all, emit| {
        audit(all, emit, |status| status.failure.is_some());
    }),
    gauge("tidings_audit_waiting_records", "", &[], "Audit records that wait for the sink.", |all, emit| {
        audit(all, emit, |status| status.waiting);
    }),
    counter(
        "tidings_audit_lost_records_total",
        "",
        &[],
        "Audit records that were dropped because too many were waiting, or because the sink refuses them.",
        |all, emit| audit(all, emit, |status| status.lost),
    ),
    gauge(
        "tidings_audit_waiting_events",
        "",
        &[],
        "Events that wait to be recorded in the audit trail.",
        |all, emit| {
            audit(all, emit, |status| status.waiting_events);
        },
    ),
    counter(
        "tidings_audit_dropped_events_total",
        "",
        &[],
        "Events that are missing from the audit trail because too many were waiting.",
        |all, emit| audit(all, emit, |status| status.dropped_events),
    ),
    gauge(
        "tidings_audit_checkpoint_age_seconds",
        "seconds",
        &[],
        "Time since the last checkpoint of the audit trail, or since its start.",
        |all, emit| audit(all, emit, |status| status.checkpoint_age),
    ),
    gauge(
        "tidings_audit_unanchored_records",
        "",
        &[],
        "Audit records after the last checkpoint, whose removal could not be detected.",
        |all, emit| audit(all, emit, |status| status.since_checkpoint),
    ),
];
