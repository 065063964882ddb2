//! The transactional outbox: events that are published if and only if a transaction commits.

mod delayed;
mod failed;
mod lag;
mod lane;
mod relay;

use std::collections::BTreeSet;

use sqlx::postgres::PgConnection;
use tidings_core::codec::{EventFormat, EventVersions};
use tidings_core::{
    Delivery, Envelope, EnvelopeRef, Error, ErrorKind, Event, Name, PublishOptions, Record, Result, Timestamp,
    TraceParent, headers,
};
use uuid::Uuid;

pub use self::failed::FailedRecord;
pub use self::lag::OutboxLag;
pub use self::relay::{Refused, Relay, RelayConfig, RelayState, RelayStatus};
use crate::PostgresStore;
use crate::error::failed_write;
use crate::wire::headers_to_bytes;

/// Writes events into the outbox of a [`PostgresStore`], within transactions of the same database. A [`Relay`]
/// publishes them.
///
/// Events of one topic and key are published in commit order. Therefore transactions that publish to the same key
/// wait for one another, from the call to their end. Publish late in a transaction, after locking the rows that
/// belong to the key; otherwise two transactions can deadlock, and the server fails one of them (`40P01`, which can
/// be retried).
///
/// ```no_run
/// use serde::{Deserialize, Serialize};
/// use tidings_core::Error;
/// use tidings_macros::Event;
/// use tidings_postgres::{Outbox, PostgresStore};
///
/// #[derive(Serialize, Deserialize, Event)]
/// #[event(crate = "tidings_core", topic = "orders", type = "order.placed", key = "id")]
/// struct Placed { id: String }
///
/// # async fn example(store: PostgresStore, outbox: Outbox) -> Result<(), Box<dyn std::error::Error>> {
/// let mut transaction = store.pool().begin().await?;
/// sqlx::query("INSERT INTO orders (id) VALUES ('o1')").execute(&mut *transaction).await?;
/// outbox.publish(&mut transaction, &Placed { id: "o1".into() }).await?;
/// transaction.commit().await?; // both or neither
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Outbox {
    store: PostgresStore,
    source: Name,
    topic_prefix: Name,
    format: EventFormat,
    versions: EventVersions,
}

/// Takes the lanes' locks in ascending order before it draws ids, so that the ids of a lane follow the commit order.
/// The conditions are evaluated once, before the first row. A notification costs a lock across all notifying commits
/// of the server, and is only sent if a relay waits for one.
const PUT: &str = "
WITH locked AS MATERIALIZED (
    SELECT pg_advisory_xact_lock($1, slot) FROM unnest($2::integer[]) AS slot
), told AS MATERIALIZED (
    SELECT pg_notify($3, '') WHERE EXISTS (SELECT FROM tidings.outbox_sleepers)
)
INSERT INTO tidings.outbox (lane, shard, topic, partition, record_time, key, value, headers)
SELECT r.lane, r.shard, r.topic, r.partition, r.record_time, r.key, r.value, r.headers
FROM unnest(
    $4::bigint[], $5::smallint[], $6::text[], $7::bigint[], $8::bigint[], $9::bytea[], $10::bytea[], $11::bytea[]
) WITH ORDINALITY AS r (lane, shard, topic, partition, record_time, key, value, headers, place)
WHERE (SELECT count(*) FROM locked) >= 0 AND (SELECT count(*) FROM told) >= 0
ORDER BY r.place";

/// Maximum number of records per statement.
const MAX_STEP_RECORDS: usize = 1_000;
const MAX_STEP_BYTES: usize = 8 << 20;
/// The largest record: no broker takes one of this size.
const MAX_RECORD: usize = 128 << 20;

impl PostgresStore {
    /// Returns the outbox for events of the service `source`.
    pub fn outbox(&self, source: impl Into<Name>) -> Outbox {
        Outbox {
            store: self.clone(),
            source: source.into(),
            topic_prefix: Name::default(),
            format: EventFormat::default(),
            versions: EventVersions::default(),
        }
    }
}

impl Outbox {
    /// Prepends `prefix` to each topic; it must be the prefix of the consuming services.
    #[must_use]
    pub fn with_topic_prefix(mut self, prefix: impl Into<Name>) -> Self {
        self.topic_prefix = prefix.into();
        self
    }

    /// Sets the format in which events of all types are written. Default: that of the codec of their type.
    #[must_use]
    pub fn with_event_format(mut self, format: EventFormat) -> Self {
        self.format = format;
        self
    }

    /// Writes newer events of `Old`'s type as `Old`, while readers of that version still run.
    ///
    /// Can be repeated for other types. Default: each event in its own version.
    ///
    /// Newer versions need `downcast_to` in their `#[event(..)]`; an event that no chain of downcasts converts to `Old`
    /// is refused as [`Invalid`](ErrorKind::Invalid).
    #[must_use]
    pub fn with_event_version<Old: Event>(mut self) -> Self {
        self.versions = self.versions.with::<Old>();
        self
    }

    /// Publishes `event` when the transaction of `connection` commits, and returns its id, a new UUID v7. Accepts a
    /// `&mut Transaction`. If the future is dropped, the transaction must be rolled back.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid): the event can't be written. [`Unavailable`](ErrorKind::Unavailable) and the
    /// like: the database failed, and the transaction must be rolled back.
    pub async fn publish<E: Event>(&self, connection: &mut PgConnection, event: &E) -> Result<Uuid> {
        self.publish_with(connection, event, &PublishOptions::default()).await
    }

    /// Like [`publish`](Self::publish), with options.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), and [`Invalid`](ErrorKind::Invalid) for an extra header whose name is reserved.
    pub async fn publish_with<E: Event>(
        &self,
        connection: &mut PgConnection,
        event: &E,
        options: &PublishOptions,
    ) -> Result<Uuid> {
        let id = options.id.unwrap_or_else(Uuid::now_v7);
        let time = options.timestamp.unwrap_or_else(Timestamp::now);
        let record = self.record(EnvelopeRef::new(id, time, &self.source, event), options)?;
        self.put(connection, vec![record]).await?;
        Ok(id)
    }

    /// Like [`publish`](Self::publish), as a consequence of `delivery`: in its trace, with its correlation id, caused
    /// by its (first) event.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub async fn publish_following<E: Event>(
        &self,
        connection: &mut PgConnection,
        delivery: &Delivery,
        event: &E,
    ) -> Result<Uuid> {
        self.publish_with(connection, event, &PublishOptions::following(delivery)).await
    }

    /// Like [`publish`](Self::publish), for several events in one statement and one trace; id `i` is event `i`'s.
    ///
    /// # Errors
    /// As [`publish`](Self::publish): then nothing is written.
    pub async fn publish_all<E: Event>(&self, connection: &mut PgConnection, events: &[E]) -> Result<Vec<Uuid>> {
        let (now, trace) = (Timestamp::now(), TraceParent::new_root());
        let ids: Vec<Uuid> = events.iter().map(|_| Uuid::now_v7()).collect();
        let record = |(event, id): (&E, &Uuid)| {
            let options = PublishOptions::default().with_traceparent(trace.child());
            self.record(EnvelopeRef::new(*id, now, &self.source, event), &options)
        };
        let records: Vec<Record> = events.iter().zip(&ids).map(record).collect::<Result<_>>()?;
        self.put(connection, records).await?;
        Ok(ids)
    }

    /// Like [`publish`](Self::publish), with the id, time and version of an envelope, and its source if it names one.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub async fn publish_envelope<E: Event>(
        &self,
        connection: &mut PgConnection,
        envelope: &Envelope<E>,
    ) -> Result<()> {
        let mut envelope = envelope.as_ref();
        if envelope.source.is_empty() {
            envelope.source = &self.source;
        }
        let record = self.record(envelope, &PublishOptions::default())?;
        self.put(connection, vec![record]).await
    }

    /// Publishes records unchanged when the transaction of `connection` commits, in this order per topic and key.
    /// Only headers that [steer a delivery](headers::steers_delivery) are removed, as from any forwarded record.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid): a topic is empty or holds a NUL. [`TooLarge`](ErrorKind::TooLarge).
    /// [`Unavailable`](ErrorKind::Unavailable) and the like: the database failed. The transaction must be rolled
    /// back.
    pub async fn put(&self, connection: &mut PgConnection, records: Vec<Record>) -> Result<()> {
        records.iter().try_for_each(check)?;
        // Locks of all steps are taken at once: if each step took its own, two calls could deadlock.
        let mut slots = slots(&records);
        let mut records = records.into_iter().peekable();
        while records.peek().is_some() {
            let mut step = Step { slots: std::mem::take(&mut slots), ..Step::default() };
            while let Some(record) = records.next_if(|record| step.takes(record)) {
                step.push(record);
            }
            self.insert(connection, step).await?;
        }
        Ok(())
    }

    fn record<E: Event>(&self, envelope: EnvelopeRef<'_, E>, options: &PublishOptions) -> Result<Record> {
        let mut record = self.versions.encode(self.format, envelope, &self.topic_prefix)?;
        options.write_to(&mut record.headers)?;
        Ok(record)
    }

    async fn insert(&self, connection: &mut PgConnection, step: Step) -> Result<()> {
        let names = self.store.names();
        let query = sqlx::query(names.fill(PUT))
            .bind(lane::lock_class(names))
            .bind(step.slots)
            .bind(lane::channel(names))
            .bind(step.lanes)
            .bind(step.shards)
            .bind(step.topics)
            .bind(step.partitions)
            .bind(step.times)
            .bind(step.keys)
            .bind(step.values)
            .bind(step.headers);
        query.execute(connection).await.map(drop).map_err(|e| failed_write("write to the outbox", e))
    }
}

fn check(record: &Record) -> Result<()> {
    if record.topic.is_empty() || record.topic.contains('\0') {
        let what = format!("write to the outbox: {:?} is not a topic name", record.topic);
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    if record.size() > MAX_RECORD {
        let what = format!("write to the outbox: the record is larger than {MAX_RECORD} bytes");
        return Err(Error::new(ErrorKind::TooLarge, what));
    }
    Ok(())
}

/// Returns the locks of the records' lanes in ascending order.
fn slots(records: &[Record]) -> Vec<i32> {
    let slot = |record: &Record| Some(lane::slot(lane::lane(&record.topic, record.key.as_ref()?)));
    records.iter().filter_map(slot).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Records of one statement, by columns.
#[derive(Debug, Default)]
struct Step {
    bytes: usize,
    /// Locks to take first; the first step takes those of all steps.
    slots: Vec<i32>,
    lanes: Vec<i64>,
    shards: Vec<i16>,
    topics: Vec<String>,
    partitions: Vec<Option<i64>>,
    times: Vec<Option<i64>>,
    keys: Vec<Option<Vec<u8>>>,
    values: Vec<Option<Vec<u8>>>,
    headers: Vec<Vec<u8>>,
}

impl Step {
    fn takes(&self, record: &Record) -> bool {
        let fits = self.lanes.len() < MAX_STEP_RECORDS && self.bytes + record.size() <= MAX_STEP_BYTES;
        self.lanes.is_empty() || fits
    }

    fn push(&mut self, mut record: Record) {
        self.bytes += record.size();
        let lane = record.key.as_ref().map_or_else(lane::lane_of_its_own, |key| lane::lane(&record.topic, key));
        self.lanes.push(lane);
        self.shards.push(lane::shard(lane));
        headers::remove_steering(&mut record.headers);
        self.headers.push(headers_to_bytes(&record.headers));
        self.topics.push(record.topic.to_string());
        self.partitions.push(record.partition.map(i64::from));
        self.times.push(record.timestamp.map(Timestamp::millis));
        self.keys.push(record.key.map(Into::into));
        self.values.push(record.value.map(Into::into));
    }
}
