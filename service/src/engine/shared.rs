//! State shared by the coordinator and all workers of a running service.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidings_core::{DeadLetterSink, Delivery, DeliveryContext, Error, ErrorKind, Name, Publisher, StoredRecord, codec};
use tokio::sync::Notify;
use tracing::Span;

use super::beat::Beat;
use super::claims::Claims;
use super::gate::Gate;
use super::work::{Assigned, Item};
use super::worker::Worker;
use super::worker::intake::Verdict;
use super::worker::lanes::Lanes;
use crate::observer::{Observer, RecordEvent, RecordOutcome};
use crate::passing_on::PassingOn;
use crate::retry::Retry;
use crate::service::UnknownTypes;
use crate::status::Totals;
use crate::table::{RouteTable, Routes};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) service: Name,
    pub(crate) group: Name,
    pub(crate) system: &'static str,
    pub(crate) table: Arc<RouteTable>,
    pub(crate) topic_prefix: Name,
    pub(crate) lanes: Lanes,
    pub(crate) retry: Retry,
    pub(crate) handler_timeout: Option<Duration>,
    pub(crate) unknown: UnknownTypes,
    pub(crate) worker_concurrency: usize,
    pub(crate) gate: Gate,
    pub(crate) store: Option<Arc<Claims>>,
    pub(crate) scope_per_topic: bool,
    pub(crate) sink: Arc<dyn DeadLetterSink>,
    pub(crate) publisher: Arc<dyn Publisher>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) seed: u64,
    pub(crate) totals: AtomicTotals,
    /// Notified when the lease is found to have expired.
    pub(crate) lease_fenced: Notify,
    /// One per worker.
    pub(crate) beats: Vec<Beat>,
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
            let mut context = DeliveryContext::new(self.service.clone(), routes.info(number).name.clone());
            context.group = self.group.clone();
            context.topic_prefix = self.topic_prefix.clone();
            context.publisher = Some(Arc::new(PassingOn(self.publisher.clone())));
            context.scope_per_topic = self.scope_per_topic;
            Arc::new(context)
        };
        (0..routes.len()).map(context).collect()
    }

    /// Returns the seed of a worker's random numbers.
    pub(crate) fn seed(&self, worker: usize) -> u64 {
        self.seed.wrapping_add(worker as u64)
    }

    /// Reports that the lease has expired: a new one is needed at once.
    pub(crate) fn fenced(&self) {
        self.lease_fenced.notify_one();
    }

    /// Returns the policy's verdict for a type without a handler.
    pub(crate) fn unknown_type(&self, record: &StoredRecord) -> Verdict {
        match self.unknown {
            UnknownTypes::Skip => Verdict::Skip("a type that nobody takes"),
            UnknownTypes::DeadLetter => {
                let name = codec::routing(record).map(|routing| routing.event_type().to_owned()).unwrap_or_default();
                let text = format!("route {name:?}: no handler takes this type");
                Verdict::Unwanted(Error::new(ErrorKind::Undecodable, text))
            }
        }
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
            service: &self.service,
            group: &self.group,
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
        item: &Item,
        reason: Option<&str>,
    ) {
        observer.observe(&RecordEvent {
            outcome,
            service: &self.service,
            group: &self.group,
            handler: (item.handler < self.table.len()).then(|| &self.table.info(item.handler).name),
            origin: &item.assigned.origin,
            record: &item.record.records()[0],
            epoch: item.assigned.epoch,
            attempt: item.runs.max(1),
            reason,
        });
    }
}

impl Worker {
    /// Returns the span of a delivery, by OpenTelemetry's messaging conventions; costs nothing without a subscriber.
    pub(crate) fn span_of(shared: &Shared, handler: &Name, delivery: &Delivery) -> Span {
        tracing::info_span!(
            "process",
            otel.kind = "consumer",
            messaging.system = shared.system,
            messaging.operation.name = "process",
            messaging.operation.type = "process",
            messaging.destination.name = %delivery.topic(),
            messaging.destination.partition.id = delivery.partition(),
            messaging.consumer.group.name = %shared.group,
            messaging.kafka.offset = delivery.offset(),
            messaging.batch.message_count = delivery.len(),
            tidings.handler = %handler,
            tidings.attempt = delivery.attempt(),
            traceparent = delivery.record().headers.get_str(tidings_core::headers::TRACEPARENT).unwrap_or_default(),
        )
    }
}
