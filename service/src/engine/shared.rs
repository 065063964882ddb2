//! State shared by the coordinator and all workers of a running service.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidings_core::{DeadLetterSink, Delivery, DeliveryContext, Name, Publisher, StoredRecord};
use tokio::sync::Notify;
use tracing::Span;

use super::assigned::Assigned;
use super::beat::Beat;
use super::claims::Claims;
use super::gate::Gate;
use super::keys::KeyHasher;
use super::record::PendingRecord;
use crate::observer::{Observer, RecordEvent, RecordOutcome};
use crate::passing_on::PassingOn;
use crate::retry::Retry;
use crate::settings::UnknownTypes;
use crate::status::Totals;
use crate::table::{RouteTable, Routes};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    pub(crate) policy: Policy,
    pub(crate) backends: Backends,
    pub(crate) table: Arc<RouteTable>,
    pub(crate) keys: KeyHasher,
    pub(crate) gate: Gate,
    pub(crate) totals: AtomicTotals,
    /// Notified when the lease is found to have expired.
    pub(crate) lease_fenced: Notify,
    /// One per worker.
    pub(crate) beats: Vec<Beat>,
}

/// The names of the running service.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) service: Name,
    pub(crate) group: Name,
    /// The messaging system, as traces name it.
    pub(crate) system: &'static str,
    pub(crate) topic_prefix: Name,
}

/// The settings of deliveries.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) retry: Retry,
    pub(crate) handler_timeout: Option<Duration>,
    pub(crate) unknown: UnknownTypes,
    pub(crate) scope_per_topic: bool,
    /// The maximum number of deliveries in flight per worker.
    pub(crate) worker_concurrency: usize,
    /// The seed of random waits.
    pub(crate) seed: u64,
}

/// The systems that deliveries need.
#[derive(Debug)]
pub(crate) struct Backends {
    pub(crate) store: Option<Arc<Claims>>,
    pub(crate) sink: Arc<dyn DeadLetterSink>,
    pub(crate) publisher: Arc<dyn Publisher>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
}

#[derive(Debug, Default)]
pub(crate) struct AtomicTotals {
    handled: AtomicU64,
    duplicates: AtomicU64,
    skipped: AtomicU64,
    retried: AtomicU64,
    dead_lettered: AtomicU64,
}

/// A worker's counts since its last report: added to the totals once per report, not per record.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    handled: u64,
    /// Handled deliveries not yet reported to the gate.
    untold: usize,
    pub(crate) duplicates: u64,
    pub(crate) skipped: u64,
    pub(crate) retried: u64,
    pub(crate) dead_lettered: u64,
}

impl Counts {
    pub(crate) fn handled(&mut self) {
        self.handled += 1;
        self.untold += 1;
    }

    pub(crate) fn handled_many(&mut self, count: usize) {
        self.handled += count as u64;
        self.untold += count;
    }

    pub(crate) fn take_handled(&mut self) -> usize {
        std::mem::take(&mut self.untold)
    }
}

impl Shared {
    pub(crate) fn add_counts(&self, counts: &mut Counts) {
        let add = |total: &AtomicU64, count: &mut u64| {
            if *count > 0 {
                total.fetch_add(std::mem::take(count), Ordering::Relaxed);
            }
        };
        add(&self.totals.handled, &mut counts.handled);
        add(&self.totals.duplicates, &mut counts.duplicates);
        add(&self.totals.skipped, &mut counts.skipped);
        add(&self.totals.retried, &mut counts.retried);
        add(&self.totals.dead_lettered, &mut counts.dead_lettered);
    }

    pub(crate) fn totals(&self) -> Totals {
        let get = |total: &AtomicU64| total.load(Ordering::Relaxed);
        Totals {
            handled: get(&self.totals.handled),
            duplicates: get(&self.totals.duplicates),
            skipped: get(&self.totals.skipped),
            retried: get(&self.totals.retried),
            dead_lettered: get(&self.totals.dead_lettered),
        }
    }

    /// Returns a context per route, for one worker: so that its reference count stays on one core.
    pub(crate) fn contexts(&self, routes: &Routes) -> Vec<Arc<DeliveryContext>> {
        let context = |number| {
            let mut context = DeliveryContext::new(self.identity.service.clone(), routes.info(number).name.clone());
            context.group = self.identity.group.clone();
            context.topic_prefix = self.identity.topic_prefix.clone();
            context.publisher = Some(Arc::new(PassingOn(self.backends.publisher.clone())));
            context.scope_per_topic = self.policy.scope_per_topic;
            Arc::new(context)
        };
        (0..routes.len()).map(context).collect()
    }

    /// Returns the seed of a worker's random numbers.
    pub(crate) fn seed(&self, worker: usize) -> u64 {
        self.policy.seed.wrapping_add(worker as u64)
    }

    /// Reports that the lease has expired: a new one is needed at once.
    pub(crate) fn fenced(&self) {
        self.lease_fenced.notify_one();
    }

    pub(crate) fn observe_record(
        &self,
        observer: &dyn Observer,
        outcome: RecordOutcome,
        handler: usize,
        assigned: &Assigned,
        record: &StoredRecord,
        attempt: u32,
    ) {
        observer.observe(&RecordEvent {
            outcome,
            service: &self.identity.service,
            group: &self.identity.group,
            handler: (handler < self.table.len()).then(|| &self.table.info(handler).name),
            origin: &assigned.origin,
            record,
            epoch: assigned.epoch,
            attempt,
            reason: None,
        });
    }

    pub(crate) fn observe_item(
        &self,
        observer: &dyn Observer,
        outcome: RecordOutcome,
        item: &PendingRecord,
        reason: Option<&str>,
    ) {
        observer.observe(&RecordEvent {
            outcome,
            service: &self.identity.service,
            group: &self.identity.group,
            handler: (item.handler < self.table.len()).then(|| &self.table.info(item.handler).name),
            origin: &item.assigned.origin,
            record: &item.record.records()[0],
            epoch: item.assigned.epoch,
            attempt: item.runs.max(1),
            reason,
        });
    }
}

impl Shared {
    /// Returns the span of a delivery, by OpenTelemetry's messaging conventions; costs nothing without a subscriber.
    pub(crate) fn span_of(&self, handler: usize, delivery: &Delivery) -> Span {
        tracing::info_span!(
            "process",
            otel.kind = "consumer",
            messaging.system = self.identity.system,
            messaging.operation.name = "process",
            messaging.operation.type = "process",
            messaging.destination.name = %delivery.topic(),
            messaging.destination.partition.id = delivery.partition(),
            messaging.consumer.group.name = %self.identity.group,
            messaging.kafka.offset = delivery.offset(),
            messaging.batch.message_count = delivery.len(),
            tidings.handler = %self.table.info(handler).name,
            tidings.attempt = delivery.attempt(),
            traceparent = delivery.record().headers.get_str(tidings_core::headers::TRACEPARENT).unwrap_or_default(),
        )
    }
}
