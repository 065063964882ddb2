//! What a handler is given: one record or several, with their attempt.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use uuid::Uuid;

use crate::publish::{DeliveryPublisher, derived_kind};
use crate::{Lease, Name, Publisher, RecordBatch, StoredRecord, TopicPartition, codec, headers};

/// What all deliveries of one handler have in common.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeliveryContext {
    /// The service's name: the source of what its handlers publish.
    pub service: Name,
    /// The consumer group.
    pub group: Name,
    /// The handler's stable name.
    pub handler: Name,
    /// Stands before the topics of what is published.
    pub topic_prefix: Name,
    /// Where events published through a delivery go.
    pub publisher: Option<Arc<dyn Publisher>>,
    /// Whether an idempotency store tells events of one id apart by the topic that they are read from. By default it does
    /// not: an event that comes on two topics is handled once.
    pub scope_per_topic: bool,
}

impl DeliveryContext {
    /// The context of `handler` in `service`, with the group `<service>-group`, no prefix and no publisher.
    pub fn new(service: impl Into<Name>, handler: impl Into<Name>) -> Self {
        let service = service.into();
        Self {
            group: format!("{service}-group").into(),
            service,
            handler: handler.into(),
            topic_prefix: Name::default(),
            publisher: None,
            scope_per_topic: false,
        }
    }

    /// The id by which an idempotency store knows the event `id` of `topic`: the event's own, or a UUID v5 of the topic in
    /// its namespace where [`scope_per_topic`](Self::scope_per_topic) is set. A layer that marks events done by itself uses
    /// it, too.
    pub fn id_in_store(&self, topic: &str, id: Uuid) -> Uuid {
        if self.scope_per_topic { Uuid::new_v5(&id, topic.as_bytes()) } else { id }
    }
}

/// Records handed to a handler once, with its attempt. A clone copies no record.
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

/// What a delivery holds beside, or of, its batch of records.
#[derive(Debug, Clone)]
enum Rest {
    None,
    /// Further records of the same partition, where a batch is not in one piece.
    Batches(Arc<[RecordBatch]>),
    /// Only the records at these places.
    Places(Arc<[u32]>),
}

impl Delivery {
    /// A first attempt at all of `records`.
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

    /// With `more` records of the same partition behind the first.
    #[must_use]
    pub fn with_more(mut self, more: impl Into<Arc<[RecordBatch]>>) -> Self {
        self.rest = Rest::Batches(more.into());
        self
    }

    /// Of the records only those at these places, in this order; places beyond them are left out.
    #[must_use]
    pub fn with_places(mut self, places: &[u32]) -> Self {
        let len = self.records.len();
        self.rest = Rest::Places(places.iter().copied().filter(|place| (*place as usize) < len).collect());
        self
    }

    /// As this attempt, from 1.
    #[must_use]
    pub fn with_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// As this run of its handler, from 1: which attempts that don't count (an infrastructure error) raise too. Derived
    /// ids count anew with each run, so that a repeat derives the same ones.
    #[must_use]
    pub fn with_run(mut self, run: u32) -> Self {
        self.run = run;
        self
    }

    /// As of this assignment of its partition.
    #[must_use]
    pub fn with_epoch(mut self, epoch: u64) -> Self {
        self.epoch = epoch;
        self
    }

    /// With the lease that has claimed its events.
    #[must_use]
    pub fn with_lease(mut self, lease: Arc<Lease>) -> Self {
        self.lease = Some(lease);
        self
    }

    /// With the event's id, which then needs not be read from the record.
    #[must_use]
    pub fn with_event_id(self, id: Uuid) -> Self {
        // A delivery is built once; a second id would be of another record.
        let _ = self.event_id.set(id);
        self
    }

    /// The first record, which is the only one of a single delivery.
    ///
    /// # Panics
    /// If the delivery was made of no record at all, which the engine never does.
    pub fn record(&self) -> &StoredRecord {
        self.records().next().expect("a delivery has a record")
    }

    /// All records, in offset order.
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

    /// How many records there are.
    pub fn len(&self) -> usize {
        match &self.rest {
            Rest::None => self.records.len(),
            Rest::Batches(more) => self.records.len() + more.iter().map(RecordBatch::len).sum::<usize>(),
            Rest::Places(places) => places.len(),
        }
    }

    /// Whether there is no record, which is never so in a handler.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The topic and partition that the records are of.
    pub fn origin(&self) -> &TopicPartition {
        self.records.origin()
    }

    /// The topic.
    pub fn topic(&self) -> &Name {
        &self.origin().topic
    }

    /// The partition's number.
    pub fn partition(&self) -> u32 {
        self.origin().partition
    }

    /// The (first) record's offset.
    pub fn offset(&self) -> u64 {
        self.record().offset
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The epoch of the assignment that the records came in; a transaction that checks it fences off older owners.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Who has claimed the events, where the service has an idempotency store.
    pub fn lease(&self) -> Option<&Arc<Lease>> {
        self.lease.as_ref()
    }

    /// The service, group and handler.
    pub fn context(&self) -> &Arc<DeliveryContext> {
        &self.context
    }

    /// The (first) event's id; of a record without one, a UUID v5 of its place and bytes.
    pub fn event_id(&self) -> Uuid {
        *self.event_id.get_or_init(|| event_id_of(self.origin(), self.record()))
    }

    /// The ids of all events, in order.
    pub fn event_ids(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.records().map(|record| event_id_of(self.origin(), record))
    }

    /// The id that all events of one flow share: the record's `correlation-id`, else the event's own id.
    pub fn correlation_id(&self) -> String {
        match self.record().headers.get_str(headers::CORRELATION_ID) {
            Some(id) => id.to_owned(),
            None => self.event_id().to_string(),
        }
    }

    /// Publishes events that follow from this delivery: their ids are derived from its event's id, so that a repeat of
    /// the handler publishes the same ids again. `None` where the context has no publisher (a unit test).
    pub fn publisher(&self) -> Option<DeliveryPublisher> {
        DeliveryPublisher::new(self)
    }

    /// The id of the next event of this type and key that follows from `cause` in this run.
    pub(crate) fn derive_id(&self, cause: Uuid, event_type: &str, key: Option<&[u8]>) -> Uuid {
        let kind = derived_kind(cause, &self.context, self.topic(), (event_type, key));
        self.records.derived().next(kind, self.run, self.offset())
    }

    /// What layers and extractors leave for one another.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// As [`extensions`](Self::extensions), to add to.
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.extensions
    }
}

/// The namespace of the ids of records that carry none.
const RECORD_NAMESPACE: Uuid = Uuid::from_u128(0x7c8f_63bd_7e67_5d5c_9d6e_3a51_6d1f_0a27);

/// The event id of `record`: what its envelope says, else a UUID v5 of its topic, partition and offset, and of its bytes: in
/// a topic that was made anew, another record has the same offset.
pub fn event_id_of(origin: &TopicPartition, record: &StoredRecord) -> Uuid {
    match codec::peek(record) {
        Ok(head) => head.id,
        Err(_) => {
            let place = format!("{}\0{}\0{}", origin.topic, origin.partition, record.offset);
            let of_bytes = |id, part: &Option<Bytes>| part.as_ref().map_or(id, |bytes| Uuid::new_v5(&id, bytes));
            let id = of_bytes(Uuid::new_v5(&RECORD_NAMESPACE, place.as_bytes()), &record.value);
            // By a name of its own, so that a key is not taken for a value.
            record.key.as_ref().map_or(id, |key| Uuid::new_v5(&Uuid::new_v5(&id, b"key"), key))
        }
    }
}

/// Values by their type. Empty, it is one word and no allocation; a clone shares the values.
#[derive(Clone, Default)]
pub struct Extensions(Option<Box<Values>>);

type Values = HashMap<TypeId, Arc<dyn Any + Send + Sync>>;

impl Extensions {
    /// Puts in `value`, in place of an earlier one of its type.
    pub fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        self.0.get_or_insert_default().insert(TypeId::of::<T>(), Arc::new(value));
    }

    /// The value of type `T`.
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.0.as_ref()?.get(&TypeId::of::<T>())?.downcast_ref()
    }
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Extensions({})", self.0.as_ref().map_or(0, |map| map.len()))
    }
}
