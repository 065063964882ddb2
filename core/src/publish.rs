//! Events that follow from a delivery: their derived ids and the headers that record their origin.
//!
//! A handler may run several times for one record: after a failed attempt, a crash, or a rebalance. The events of each
//! run must be recognisable as the same ones, so their ids are derived, not drawn: from the causing event's id, the
//! service, the handler, the topic that the cause was read from, the event's type and key, and its index among equal
//! ones. Neither the offset nor the time is part of an id, since both differ when the cause itself was published twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use crate::trace::TraceContext;
use crate::{
    DelayedRecord, Delivery, DeliveryContext, Due, EnvelopeRef, Event, Header, Headers, Position, Publisher,
    PublisherExt, Record, Result, Timestamp, event_id_of, headers,
};

/// Counts the equal events published by each run of a handler, for the deliveries of one record batch.
///
/// It belongs to the batch, not to a delivery, so that all clones of a delivery share the count; nothing is allocated
/// before a handler publishes.
#[derive(Debug, Default)]
pub(crate) struct DerivedIds(OnceLock<Mutex<Counts>>);

/// Counts by kind, run and offset.
type Counts = HashMap<(Uuid, u32, u64), u32>;

impl DerivedIds {
    /// Returns the id of the next event of this kind in this run of the delivery at `offset`: UUID v5 (RFC 9562,
    /// section 5.5) of its index. The offset is not part of it: an event that was published twice derives the same
    /// ids each time it is handled.
    pub(crate) fn next(&self, kind: Uuid, run: u32, offset: u64) -> Uuid {
        let mut counts = self.0.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry((kind, run, offset)).or_insert(0);
        let index = *count;
        *count += 1;
        Uuid::new_v5(&kind, &index.to_be_bytes())
    }
}

/// Returns the part of the id that equal events share: a UUID v5 in the namespace of the cause's id, over the service
/// and the handler, the topic that the cause was read from, and their own type and key. The offset is not part of it,
/// so a repeat of the cause derives the same.
pub(crate) fn derived_kind(cause: Uuid, context: &DeliveryContext, origin: &str, event: (&str, Option<&[u8]>)) -> Uuid {
    let (event_type, key) = event;
    let mut name = Vec::with_capacity(128);
    for part in [&*context.service, &*context.handler, origin, event_type] {
        // Each is prefixed with its length, so that no two lists of names encode alike.
        name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        name.extend_from_slice(part.as_bytes());
    }
    // No key differs from an empty key.
    name.push(u8::from(key.is_some()));
    name.extend_from_slice(key.unwrap_or_default());
    Uuid::new_v5(&cause, &name)
}

/// Encodes `event` as a record caused by the event `cause` of `delivery`; `None` is the delivery's first event.
///
/// # Errors
/// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the payload can't be written.
pub(crate) fn derived_record<E: Event>(delivery: &Delivery, cause: Option<Uuid>, event: &E) -> Result<Record> {
    derived(delivery, cause, event).map(|(_, record)| record)
}

/// Returns the id and the record of an event, as [`derived_record`].
fn derived<E: Event>(delivery: &Delivery, cause: Option<Uuid>, event: &E) -> Result<(Uuid, Record)> {
    let context = delivery.context();
    let cause_id = cause.unwrap_or_else(|| delivery.event_id());
    let key = event.key();
    let id = delivery.derive_id(cause_id, E::TYPE, key.as_deref());
    let envelope = EnvelopeRef::new(id, Timestamp::now(), &context.service, event);
    let mut record = context.event_versions.encode(context.event_format, envelope, &context.topic_prefix)?;
    let from = match cause {
        Some(id) => delivery.records().find(|r| event_id_of(delivery.origin(), r) == id),
        None => None,
    };
    let from = &from.unwrap_or_else(|| delivery.record()).headers;
    // A batch is handled in one span: an event that names its cause stays in the trace of that cause.
    let handled_in = delivery.trace_context().filter(|_| cause.is_none() || delivery.len() == 1).cloned();
    let trace = handled_in.or_else(|| TraceContext::read_from(from).map(TraceContext::child));
    carry_on(from, trace, cause_id, &mut record.headers);
    Ok((id, record))
}

/// Writes the headers that link an event to its cause.
fn carry_on(from: &Headers, trace: Option<TraceContext>, cause: Uuid, onto: &mut Headers) {
    trace.into_iter().flat_map(TraceContext::into_headers).for_each(|header| onto.push(header));
    let cause = cause.to_string();
    let correlation = from.get(headers::CORRELATION_ID).cloned().unwrap_or_else(|| cause.clone().into());
    onto.push(Header::new(headers::CORRELATION_ID, correlation));
    onto.push(Header::new(headers::CAUSATION_ID, cause));
}

/// Publishes events from a handler immediately, instead of with its outcome. Obtained from [`Delivery::publisher`].
///
/// Published events stay published if the handler fails afterwards; the repeat publishes the same ids again.
///
/// ```
/// use tidings_core::{BoxError, Delivery, Event};
///
/// /// Publishes a first event before the slow part of a handler begins.
/// async fn announce<E: Event>(started: &E, delivery: &Delivery) -> Result<(), BoxError> {
///     if let Some(publisher) = delivery.publisher() {
///         publisher.publish(started).await?;
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct DeliveryPublisher {
    delivery: Delivery,
    publisher: Arc<dyn Publisher>,
}

impl DeliveryPublisher {
    /// Returns the publisher of `delivery`; `None` if its context has none.
    pub(crate) fn new(delivery: &Delivery) -> Option<Self> {
        let publisher = delivery.context().publisher.clone()?;
        Some(Self { delivery: delivery.clone(), publisher })
    }

    /// Publishes `event` as caused by the delivery's (first) event and waits for the broker's answer.
    ///
    /// Dropping the future may still publish the event.
    ///
    /// # Errors
    /// Those of [`Publisher::publish`], and [`Invalid`](crate::ErrorKind::Invalid) if the payload can't be written.
    pub async fn publish<E: Event>(&self, event: &E) -> Result<Position> {
        let record = derived_record(&self.delivery, None, event)?;
        self.publisher.publish_one(record).await
    }

    /// Publishes `event` as caused by the delivery's (first) event once `delay` has passed, and returns its id.
    ///
    /// The id is derived. If the handler runs again, it publishes a second delayed event with the same id, which
    /// consumers with an idempotency store recognise. To cancel both, use `EventPublisher::cancel`.
    ///
    /// Dropping the future may still publish the event.
    ///
    /// # Errors
    /// Those of [`Publisher::publish_delayed`], such as [`Unsupported`](crate::ErrorKind::Unsupported) on Kafka, and
    /// [`Invalid`](crate::ErrorKind::Invalid) if the payload can't be written.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidings_core::{BoxError, Delivery, Event};
    ///
    /// /// Publishes an event a day after the one that is handled.
    /// async fn remind<E: Event>(reminder: &E, delivery: &Delivery) -> Result<(), BoxError> {
    ///     if let Some(publisher) = delivery.publisher() {
    ///         publisher.publish_after(reminder, Duration::from_secs(24 * 3_600)).await?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub async fn publish_after<E: Event>(&self, event: &E, delay: Duration) -> Result<Uuid> {
        self.publish_later(event, Due::After(delay)).await
    }

    /// Publishes `event` at `time`; otherwise as [`publish_after`](Self::publish_after).
    ///
    /// # Errors
    /// As [`publish_after`](Self::publish_after).
    pub async fn publish_at<E: Event>(&self, event: &E, time: Timestamp) -> Result<Uuid> {
        self.publish_later(event, Due::At(time)).await
    }

    async fn publish_later<E: Event>(&self, event: &E, due: Due) -> Result<Uuid> {
        let (id, record) = derived(&self.delivery, None, event)?;
        self.publisher.publish_delayed(DelayedRecord::new(id, record, due)).await?;
        Ok(id)
    }
}
