//! Deliveries: one or several records handed to a handler, with their attempt.
//!
//! A [`Delivery`] borrows nothing: it shares its records with the batch that the consumer fetched, so that cloning it
//! for an extractor or a layer copies no record. All deliveries of one handler share a [`DeliveryContext`].

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use uuid::Uuid;

use crate::publish::{DeliveryPublisher, derived_kind};
use crate::{Lease, Name, Publisher, RecordBatch, StoredRecord, TopicPartition, TraceContext, codec, headers};

/// The context that all deliveries of one handler share: names that become part of the ids and headers of what it
/// publishes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeliveryContext {
    /// The service's name, which is the source of the events that its handlers publish.
    pub service: Name,
    /// The consumer group.
    pub group: Name,
    /// The handler's stable name.
    pub handler: Name,
    /// The prefix of the topics that events are published to.
    pub topic_prefix: Name,
    /// The format in which events are written. Default: that of the codec of their type.
    pub event_format: codec::EventFormat,
    /// The older versions in which events are written. Default: none; each event is written in its own version.
    pub event_versions: codec::EventVersions,
    /// The publisher of events published through a delivery.
    pub publisher: Option<Arc<dyn Publisher>>,
    /// Whether an idempotency store distinguishes events of one id by the topic that they are read from. Default:
    /// `false`, so that an event that arrives on two topics is handled once.
    pub scope_per_topic: bool,
}

impl DeliveryContext {
    /// Creates the context of `handler` in `service`, with the group `<service>-group`, no prefix and no publisher.
    pub fn new(service: impl Into<Name>, handler: impl Into<Name>) -> Self {
        let service = service.into();
        Self {
            group: format!("{service}-group").into(),
            service,
            handler: handler.into(),
            topic_prefix: Name::default(),
            event_format: codec::EventFormat::default(),
            event_versions: codec::EventVersions::default(),
            publisher: None,
            scope_per_topic: false,
        }
    }

    /// Returns the id under which an idempotency store knows the event `id` of `topic`.
    ///
    /// It is the event's own id, or a UUID v5 of the topic in its namespace where
    /// [`scope_per_topic`](Self::scope_per_topic) is set. A layer that completes events itself must use it as well.
    ///
    /// ```
    /// use tidings_core::DeliveryContext;
    /// use uuid::Uuid;
    ///
    /// let (mut context, id) = (DeliveryContext::new("billing", "charge"), Uuid::now_v7());
    /// assert_eq!(context.id_in_store("orders", id), id);
    /// context.scope_per_topic = true;
    /// assert_ne!(context.id_in_store("orders", id), context.id_in_store("orders-eu", id));
    /// ```
    pub fn id_in_store(&self, topic: &str, id: Uuid) -> Uuid {
        if self.scope_per_topic { Uuid::new_v5(&id, topic.as_bytes()) } else { id }
    }
}

/// Records handed to a handler once, with their attempt. A clone copies no record.
///
/// A handler takes it as its first argument for raw records, and after an event as an extractor.
///
/// ```
/// use tidings_core::{Delivery, DeliveryContext, RecordBatch, StoredRecord, Timestamp, TopicPartition};
///
/// let records = (7..9).map(|offset| StoredRecord::new(offset, Timestamp::now()).with_value("click")).collect();
/// let batch = RecordBatch::new(TopicPartition::new("clicks", 0), records);
/// let delivery = Delivery::new(batch, DeliveryContext::new("meter", "count")).with_attempt(2);
///
/// assert_eq!((&**delivery.topic(), delivery.offset(), delivery.len()), ("clicks", 7, 2));
/// assert_eq!(delivery.attempt(), 2);
/// assert_eq!(delivery.context().group, "meter-group");
/// ```
#[derive(Debug, Clone)]
pub struct Delivery {
    records: RecordBatch,
    rest: Rest,
    attempt: u32,
    run: u32,
    epoch: u64,
    context: Arc<DeliveryContext>,
    lease: Option<Arc<Lease>>,
    event_id: OnceLock<Uuid>,
    extensions: Extensions,
}

/// The contents of a delivery in addition to, or selected from, its first batch.
#[derive(Debug, Clone)]
enum Rest {
    None,
    /// Further records of the same partition, where a batch is not contiguous.
    Batches(Arc<[RecordBatch]>),
    /// Only the records at these indices.
    Places(Arc<[u32]>),
}

impl Delivery {
    /// Creates a first attempt at all of `records`.
    pub fn new(records: RecordBatch, context: impl Into<Arc<DeliveryContext>>) -> Self {
        Self {
            records,
            rest: Rest::None,
            attempt: 1,
            run: 1,
            epoch: 0,
            context: context.into(),
            lease: None,
            event_id: OnceLock::new(),
            extensions: Extensions::default(),
        }
    }

    /// Appends batches of further records of the same partition.
    #[must_use]
    pub fn with_more(mut self, more: impl Into<Arc<[RecordBatch]>>) -> Self {
        self.rest = Rest::Batches(more.into());
        self
    }

    /// Keeps only the records at these indices, in this order; indices beyond the records are ignored.
    ///
    /// ```
    /// use tidings_core::{Delivery, DeliveryContext, RecordBatch, StoredRecord, Timestamp, TopicPartition};
    ///
    /// let records = (10..14).map(|offset| StoredRecord::new(offset, Timestamp::now())).collect();
    /// let batch = RecordBatch::new(TopicPartition::new("clicks", 0), records);
    /// let delivery = Delivery::new(batch, DeliveryContext::new("meter", "count")).with_places(&[1, 3, 9]);
    /// assert_eq!(delivery.records().map(|record| record.offset).collect::<Vec<_>>(), [11, 13]);
    /// ```
    #[must_use]
    pub fn with_places(mut self, places: &[u32]) -> Self {
        let len = self.records.len();
        self.rest = Rest::Places(places.iter().copied().filter(|place| (*place as usize) < len).collect());
        self
    }

    /// Sets the attempt, from 1.
    #[must_use]
    pub fn with_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// Sets the run of the handler, from 1.
    ///
    /// Unlike the attempt, it also increases with attempts that do not count (an infrastructure error). Derived ids
    /// start again in each run, so that a repeat derives the same ones.
    #[must_use]
    pub fn with_run(mut self, run: u32) -> Self {
        self.run = run;
        self
    }

    /// Sets the epoch of the partition's assignment.
    #[must_use]
    pub fn with_epoch(mut self, epoch: u64) -> Self {
        self.epoch = epoch;
        self
    }

    /// Sets the lease that has claimed the events.
    #[must_use]
    pub fn with_lease(mut self, lease: Arc<Lease>) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Sets the event's id, which then is not read from the record.
    #[must_use]
    pub fn with_event_id(self, id: Uuid) -> Self {
        // Set once, when the delivery is built; a second id would belong to another record.
        let _ = self.event_id.set(id);
        self
    }

    /// Returns the first record, which is the only one of a single delivery.
    ///
    /// # Panics
    /// If the delivery was created from no records, which the engine never does.
    pub fn record(&self) -> &StoredRecord {
        self.records().next().expect("a delivery has a record")
    }

    /// Iterates over all records, in offset order.
    pub fn records(&self) -> impl Iterator<Item = &StoredRecord> + '_ {
        let all = self.records.records();
        let (whole, places, more): (_, &[u32], &[RecordBatch]) = match &self.rest {
            Rest::None => (all, &[], &[]),
            Rest::Batches(more) => (all, &[], more),
            Rest::Places(places) => (&[][..], places, &[]),
        };
        let placed = places.iter().filter_map(|place| all.get(*place as usize));
        whole.iter().chain(placed).chain(more.iter().flat_map(RecordBatch::records))
    }

    /// Returns the number of records.
    pub fn len(&self) -> usize {
        match &self.rest {
            Rest::None => self.records.len(),
            Rest::Batches(more) => self.records.len() + more.iter().map(RecordBatch::len).sum::<usize>(),
            Rest::Places(places) => places.len(),
        }
    }

    /// Returns whether there are no records, which is never the case in a handler.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the topic and partition of the records.
    pub fn origin(&self) -> &TopicPartition {
        self.records.origin()
    }

    /// Returns the topic.
    pub fn topic(&self) -> &Name {
        &self.origin().topic
    }

    /// Returns the partition's number.
    pub fn partition(&self) -> u32 {
        self.origin().partition
    }

    /// Returns the (first) record's offset.
    pub fn offset(&self) -> u64 {
        self.record().offset
    }

    /// Returns the number of this attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns the epoch of the assignment that the records belong to; a transaction that checks it fences off older
    /// owners.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the lease that has claimed the events, if the service has an idempotency store.
    pub fn lease(&self) -> Option<&Arc<Lease>> {
        self.lease.as_ref()
    }

    /// Returns the service, group and handler.
    pub fn context(&self) -> &Arc<DeliveryContext> {
        &self.context
    }

    /// Returns the (first) event's id; for a record without one, a UUID v5 of its position and bytes.
    pub fn event_id(&self) -> Uuid {
        *self.event_id.get_or_init(|| event_id_of(self.origin(), self.record()))
    }

    /// Iterates over the ids of all events, in order.
    pub fn event_ids(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.records().map(|record| event_id_of(self.origin(), record))
    }

    /// Returns the id that all events of one flow share: the record's `correlation-id`, otherwise the event's own id.
    pub fn correlation_id(&self) -> String {
        match self.record().headers.get_str(headers::CORRELATION_ID) {
            Some(id) => id.to_owned(),
            None => self.event_id().to_string(),
        }
    }

    /// Returns a publisher of events that follow from this delivery; `None` if the context has no publisher (a unit
    /// test).
    ///
    /// Their ids are derived from the delivery's event id, so that a repeat of the handler publishes the same ids
    /// again.
    pub fn publisher(&self) -> Option<DeliveryPublisher> {
        DeliveryPublisher::new(self)
    }

    /// Derives the id of the next event of this type and key that follows from `cause` in this run.
    pub(crate) fn derive_id(&self, cause: Uuid, event_type: &str, key: Option<&[u8]>) -> Uuid {
        let kind = derived_kind(cause, &self.context, self.topic(), (event_type, key));
        self.records.derived().next(kind, self.run, self.offset())
    }

    /// Returns the trace context in which the handler runs, if a layer has set it.
    pub(crate) fn trace_context(&self) -> Option<&TraceContext> {
        self.extensions.get()
    }

    /// Returns the values that layers and extractors pass to each other.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// Returns the [`extensions`](Self::extensions) mutably.
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.extensions
    }
}

/// The namespace of the ids of records that carry none.
const RECORD_NAMESPACE: Uuid = Uuid::from_u128(0x7c8f_63bd_7e67_5d5c_9d6e_3a51_6d1f_0a27);

/// Returns the event id of `record`: its envelope's, otherwise a UUID v5 (RFC 9562, section 5.5) of its topic,
/// partition, offset and bytes.
///
/// The bytes count because another record has the same offset in a topic that was recreated.
///
/// ```
/// use tidings_core::{StoredRecord, Timestamp, TopicPartition, event_id_of};
///
/// let origin = TopicPartition::new("clicks", 0);
/// let record = |value: &'static str| StoredRecord::new(7, Timestamp::now()).with_value(value);
/// assert_eq!(event_id_of(&origin, &record("home")), event_id_of(&origin, &record("home")));
/// assert_ne!(event_id_of(&origin, &record("home")), event_id_of(&origin, &record("cart")));
/// ```
pub fn event_id_of(origin: &TopicPartition, record: &StoredRecord) -> Uuid {
    match codec::peek(record) {
        Ok(head) => head.id,
        Err(_) => {
            let place = format!("{}\0{}\0{}", origin.topic, origin.partition, record.offset);
            let of_bytes = |id, part: &Option<Bytes>| part.as_ref().map_or(id, |bytes| Uuid::new_v5(&id, bytes));
            let id = of_bytes(Uuid::new_v5(&RECORD_NAMESPACE, place.as_bytes()), &record.value);
            // In a namespace of its own, so that a key is not mistaken for a value.
            record.key.as_ref().map_or(id, |key| Uuid::new_v5(&Uuid::new_v5(&id, b"key"), key))
        }
    }
}

/// A map of values by type, by which layers and extractors pass values to each other. When empty, it is one word and no
/// allocation; a clone shares the values.
///
/// ```
/// use tidings_core::Extensions;
///
/// #[derive(Debug, PartialEq)]
/// struct Tenant(&'static str);
///
/// let mut extensions = Extensions::default();
/// assert_eq!(extensions.get::<Tenant>(), None);
/// extensions.insert(Tenant("acme"));
/// assert_eq!(extensions.get(), Some(&Tenant("acme")));
/// ```
#[derive(Clone, Default)]
pub struct Extensions(Option<Box<Values>>);

type Values = HashMap<TypeId, Arc<dyn Any + Send + Sync>>;

impl Extensions {
    /// Inserts `value`, replacing an earlier one of its type.
    pub fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        self.0.get_or_insert_default().insert(TypeId::of::<T>(), Arc::new(value));
    }

    /// Returns the value of type `T`.
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.0.as_ref()?.get(&TypeId::of::<T>())?.downcast_ref()
    }
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Extensions({})", self.0.as_ref().map_or(0, |map| map.len()))
    }
}
