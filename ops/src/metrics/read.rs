//! The values of series, out of a reading.

use std::time::Duration;

use tidings_audit::AuditStatus;
use tidings_core::ErrorKind;
use tidings_service::telemetry::{
    HandlerSnapshot, HealthReason, OutboxSnapshot, PartitionSnapshot, PartitionState, PublisherSnapshot, RelaySnapshot,
};
use tidings_service::{PauseReason, ServiceState};

use super::encode::Value;
use super::table::Emit;
use crate::sources::{Reading, ServiceReading};

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Integer(value)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Integer(value as u64)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Integer(value.into())
    }
}

impl From<Duration> for Value {
    fn from(value: Duration) -> Self {
        Self::Float(value.as_secs_f64())
    }
}

/// Emits a value for each service.
pub(super) fn services<V: Into<Value>>(all: &Reading, emit: Emit<'_>, value: impl Fn(&ServiceReading) -> V) {
    all.services.iter().for_each(|service| emit(&[&service.label], value(service).into()));
}

/// Emits a value for each service that has one.
pub(super) fn some<V: Into<Value>>(all: &Reading, emit: Emit<'_>, value: impl Fn(&ServiceReading) -> Option<V>) {
    for service in &all.services {
        if let Some(value) = value(service) {
            emit(&[&service.label], value.into());
        }
    }
}

/// Emits a value for each service and text of a closed list.
pub(super) fn of_list<V: Into<Value>>(
    all: &Reading,
    emit: Emit<'_>,
    list: impl Fn(&ServiceReading) -> Vec<(&'static str, V)>,
) {
    for service in &all.services {
        list(service).into_iter().for_each(|(text, value)| emit(&[&service.label, text], value.into()));
    }
}

/// Emits a value for each handler.
pub(super) fn handlers<V: Into<Value>>(all: &Reading, emit: Emit<'_>, value: impl Fn(&HandlerSnapshot) -> V) {
    for service in &all.services {
        for handler in &service.snapshot.handlers {
            emit(&[&service.label, &handler.handler], value(handler).into());
        }
    }
}

/// Emits a value for each partition.
pub(super) fn partitions<V: Into<Value>>(all: &Reading, emit: Emit<'_>, value: impl Fn(&PartitionSnapshot) -> V) {
    each_partition(all, |labels, partition| emit(&labels, value(partition).into()));
}

/// Emits a value for each partition of a retry topic.
pub(super) fn retries(all: &Reading, emit: Emit<'_>, value: impl Fn(&PartitionSnapshot) -> u64) {
    each_partition(all, |labels, partition| {
        if partition.is_retry {
            emit(&labels, value(partition).into());
        }
    });
}

/// Emits, for each partition and state, whether it is in the state.
pub(super) fn partition_states(all: &Reading, emit: Emit<'_>) {
    each_partition(all, |[service, group, topic, number], partition| {
        for state in PartitionState::NAMES {
            emit(&[service, group, topic, number, state], Value::from(partition.state.as_str() == state));
        }
    });
}

fn each_partition(all: &Reading, mut with: impl FnMut([&str; 4], &PartitionSnapshot)) {
    for service in &all.services {
        for partition in &service.snapshot.partitions {
            let number = partition.partition.partition.to_string();
            with([&service.label, &service.snapshot.group, &partition.partition.topic, &number], partition);
        }
    }
}

/// Emits a value for each publisher.
pub(super) fn publishers(all: &Reading, emit: Emit<'_>, value: impl Fn(&PublisherSnapshot) -> u64) {
    all.publishers.iter().for_each(|(name, publisher)| emit(&[name], value(publisher).into()));
}

/// Emits a value for each relay, which has no name: its number, from 1.
pub(super) fn relays<V: Into<Value>>(all: &Reading, emit: Emit<'_>, value: impl Fn(&RelaySnapshot) -> V) {
    for (number, relay) in all.relays.iter().enumerate() {
        emit(&[&(number + 1).to_string()], value(relay).into());
    }
}

/// Emits a value for each relay that has measured its outbox.
pub(super) fn outboxes<V: Into<Value>>(all: &Reading, emit: Emit<'_>, value: impl Fn(&OutboxSnapshot) -> V) {
    for (number, relay) in all.relays.iter().enumerate() {
        if let Some(outbox) = &relay.outbox {
            emit(&[&(number + 1).to_string()], value(outbox).into());
        }
    }
}

/// Emits, for each handler, and for records without one, the records by their outcome.
pub(super) fn settled(all: &Reading, emit: Emit<'_>) {
    for service in &all.services {
        for HandlerSnapshot { handler, totals, .. } in &service.snapshot.handlers {
            let outcomes = [
                ("handled", totals.handled),
                ("duplicate", totals.duplicates),
                ("skipped", totals.skipped),
                ("dead_lettered", totals.dead_lettered),
                ("forwarded", totals.forwarded),
            ];
            outcomes.into_iter().for_each(|(outcome, count)| emit(&[&service.label, handler, outcome], count.into()));
        }
        let unrouted = &service.snapshot.unrouted;
        let outcomes = [("skipped", unrouted.skipped), ("dead_lettered", unrouted.dead_lettered)];
        outcomes.into_iter().for_each(|(outcome, count)| emit(&[&service.label, "", outcome], count.into()));
    }
}

/// Returns each reason of health, and whether it applies.
pub(super) fn reasons(service: &ServiceReading) -> Vec<(&'static str, bool)> {
    let applies = |reason| service.health.findings.iter().any(|finding| finding.reason == reason);
    HealthReason::ALL.into_iter().map(|reason| (reason.as_str(), applies(reason))).collect()
}

/// Returns the results of claims, and their numbers.
pub(super) fn claims(service: &ServiceReading) -> Vec<(&'static str, u64)> {
    let Some(claims) = service.snapshot.claims else { return Vec::new() };
    vec![("granted", claims.granted), ("refused", claims.refused), ("duplicate", claims.duplicates)]
}

/// Returns the pauses that began, except at a bound of what is in flight and until a record is due: both are part of
/// the normal flow.
pub(super) fn pauses(service: &ServiceReading) -> u64 {
    let is_bound =
        |reason: &PauseReason| matches!(reason, PauseReason::Bytes | PauseReason::Span | PauseReason::Waiting);
    service.snapshot.counters.pauses.iter().filter(|(reason, _)| !is_bound(reason)).map(|(_, count)| count).sum()
}

/// Emits, for each handler, its dead letters by kind. A record without a handler is always undecodable.
pub(super) fn dead_letters(all: &Reading, emit: Emit<'_>) {
    for service in &all.services {
        for HandlerSnapshot { handler, dead_letters, .. } in &service.snapshot.handlers {
            for kind in ErrorKind::ALL {
                let count = dead_letters.iter().find(|(found, _)| found == kind).map_or(0, |(_, count)| *count);
                emit(&[&service.label, handler, kind.as_str()], count.into());
            }
        }
        let unrouted = service.snapshot.unrouted.dead_lettered;
        emit(&[&service.label, "", ErrorKind::Undecodable.as_str()], unrouted.into());
    }
}

/// Emits a value of the audit trail, if there is one.
pub(super) fn audit<V: Into<Value>>(all: &Reading, emit: Emit<'_>, value: impl Fn(&AuditStatus) -> V) {
    if let Some(status) = &all.audit {
        emit(&[], value(status).into());
    }
}

/// Emits the requests that were refused, by reason.
pub(super) fn refused(all: &Reading, emit: Emit<'_>) {
    all.refused.iter().for_each(|(reason, count)| emit(&[reason], (*count).into()));
}

/// Returns whether the service has ended.
pub(super) fn has_ended(service: &ServiceReading) -> bool {
    matches!(service.snapshot.state, ServiceState::Stopped | ServiceState::Failed)
}
