//! State shared by the coordinator and all workers of a running service.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{Delivery, DeliveryContext, EventRef, Name, Publisher, event_id_of};
use tokio::sync::Notify;
use tracing::Span;

use super::board::Board;
use super::circuit_breaker::CircuitBreaker;
use super::claims::Claims;
use super::counters::{Counters, Counts};
use super::keys::KeyHasher;
use super::limiter::Limiter;
use super::record::PendingRecord;
use super::settlement::Settlement;
use super::tiers::Tiers;
use super::watchdog::{Heartbeat, Pulse};
use crate::observer::Observer;
use crate::retry::Retry;
use crate::settings::UnknownTypes;
use crate::status::{HandlerTotals, Totals};
use crate::table::RouteTable;
use crate::telemetry::PublisherStats;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    pub(crate) policy: Policy,
    pub(crate) backends: Backends,
    pub(crate) table: Arc<RouteTable>,
    pub(crate) keys: KeyHasher,
    pub(crate) circuit_breaker: CircuitBreaker,
    pub(crate) counters: Counters,
    /// Notified when the lease is found to have expired.
    pub(crate) lease_fenced: Notify,
    /// One per worker.
    pub(crate) heartbeats: Vec<Arc<Heartbeat>>,
    /// The state of the coordinator's task.
    pub(crate) pulse: Arc<Pulse>,
    /// The state that other threads can see.
    pub(crate) board: Board,
    /// The log lines that repeat.
    pub(crate) limiter: Limiter,
}

/// The names of the running service.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) service: Name,
    pub(crate) group: Name,
    /// The messaging system, as traces name it.
    pub(crate) system: &'static str,
    /// The context of all deliveries, but for the handler.
    pub(crate) context: DeliveryContext,
}

/// The settings of deliveries.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) retry: Retry,
    /// The retry topics, if there are any.
    pub(crate) tiers: Option<Arc<Tiers>>,
    pub(crate) handler_timeout: Option<Duration>,
    pub(crate) unknown: UnknownTypes,
    /// The maximum number of deliveries in flight per worker.
    pub(crate) worker_concurrency: usize,
    /// The seed of random waits.
    pub(crate) seed: u64,
}

/// The systems that deliveries need.
#[derive(Debug)]
pub(crate) struct Backends {
    pub(crate) store: Option<Arc<Claims>>,
    pub(crate) settlement: Arc<dyn Settlement>,
    pub(crate) publisher: Arc<dyn Publisher>,
    /// Counts the events that handlers returned.
    pub(crate) published: PublisherStats,
    pub(crate) observer: Option<Arc<dyn Observer>>,
}

impl Shared {
    /// Returns the counters of each handler, by its number.
    pub(crate) fn handler_totals(&self) -> Vec<HandlerTotals> {
        let of_handler = |(number, counts): (usize, Counts)| HandlerTotals {
            handler: self.table.info(number).name.clone(),
            totals: counts.totals,
        };
        self.counters.snapshot().into_iter().take(self.table.len()).enumerate().map(of_handler).collect()
    }

    /// Returns the counters of the service.
    pub(crate) fn totals(&self) -> Totals {
        let mut sum = Totals::default();
        self.counters.snapshot().iter().for_each(|counts| sum.add(&counts.totals));
        sum
    }

    /// Returns a context per route, for one worker: so that its reference count stays on one core.
    pub(crate) fn contexts(&self) -> Vec<Arc<DeliveryContext>> {
        let context = |number| {
            let mut context = self.identity.context.clone();
            context.handler = self.table.info(number).name.clone();
            Arc::new(context)
        };
        (0..self.table.len()).map(context).collect()
    }

    /// Returns the event of a record, as the idempotency store knows it. Its id is read from the record once.
    pub(crate) fn event_ref(&self, record: &mut PendingRecord) -> EventRef {
        let id = record.event_id.unwrap_or_else(|| event_id_of(record.origin(), record.stored()));
        record.event_id = Some(id);
        let event_type = record.handler.and_then(|handler| self.table.info(handler as usize).event_type.clone());
        let id = self.identity.context.id_in_store(&record.origin().topic, id);
        EventRef::new(id, event_type.unwrap_or_else(|| Name::from_static("")))
    }

    /// Returns the seed of a worker's random numbers.
    pub(crate) fn seed(&self, worker: usize) -> u64 {
        self.policy.seed.wrapping_add(worker as u64)
    }

    /// Reports that the lease has expired: a new one is needed at once.
    pub(crate) fn fenced(&self) {
        self.lease_fenced.notify_one();
    }

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
