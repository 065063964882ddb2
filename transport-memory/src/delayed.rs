//! Records that the broker holds back until they are due.
//!
//! One task per broker publishes them. It runs while records wait, sleeps until the first is due by tokio's clock, and
//! holds no reference to the broker meanwhile, so that delayed records do not keep a forgotten broker alive.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tidings_core::{DelayedRecord, Due, Error, ErrorKind, PublisherExt, Record, Result};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::broker::Broker;
use crate::error::lock;
use crate::publisher::MemoryPublisher;

/// How long due records wait after the broker did not answer, which only injected faults cause.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// When a record is due, and its number, which orders records that are due at the same time.
type Place = (Instant, u64);

/// The records that wait.
#[derive(Debug, Default)]
pub(crate) struct Delayed {
    waiting: Mutex<Waiting>,
    /// Notified when a record was added or cancelled.
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Waiting {
    records: BTreeMap<Place, (Uuid, Record)>,
    /// When records are due, by the ids of their events and their numbers.
    by_id: BTreeMap<(Uuid, u64), Instant>,
    bytes: usize,
    next: u64,
    /// The task that publishes them, while there are any.
    task: Option<JoinHandle<()>>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Waiting {
    fn insert(&mut self, place: Place, id: Uuid, record: Record) {
        self.bytes += record.size();
        self.by_id.insert((id, place.1), place.0);
        self.records.insert(place, (id, record));
    }

    fn remove(&mut self, place: Place) -> Option<(Uuid, Record)> {
        let (id, record) = self.records.remove(&place)?;
        self.bytes -= record.size();
        self.by_id.remove(&(id, place.1));
        Some((id, record))
    }

    /// Takes the records that are due.
    fn take_due(&mut self, now: Instant) -> Vec<(Place, Uuid, Record)> {
        let mut due = Vec::new();
        while let Some((place, _)) = self.records.first_key_value()
            && place.0 <= now
        {
            let place = *place;
            due.extend(self.remove(place).map(|(id, record)| (place, id, record)));
        }
        due
    }
}

impl Delayed {
    /// Holds a record back until it is due. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) at the bound, [`Invalid`](ErrorKind::Invalid) for a time out of range.
    pub(crate) fn add(&self, broker: &Arc<Broker>, delayed: DelayedRecord) -> Result<()> {
        let due = instant(broker, delayed.due)?;
        let mut waiting = lock(&self.waiting);
        let config = &broker.config;
        let fits = waiting.bytes.saturating_add(delayed.record.size()) <= config.max_delayed_bytes;
        if waiting.records.len() >= config.max_delayed_records || !(fits || waiting.records.is_empty()) {
            return Err(full(waiting.records.len()));
        }
        let place = (due, waiting.next);
        waiting.next += 1;
        waiting.insert(place, delayed.id, delayed.record);
        if waiting.task.as_ref().is_none_or(JoinHandle::is_finished) {
            waiting.task = Some(tokio::spawn(run(Arc::downgrade(broker), Arc::clone(&self.changed))));
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Removes the records of `id`, and returns whether there were any.
    pub(crate) fn cancel(&self, id: Uuid) -> bool {
        let mut waiting = lock(&self.waiting);
        let of_id = waiting.by_id.range((id, 0)..=(id, u64::MAX));
        let places: Vec<Place> = of_id.map(|((_, number), due)| (*due, *number)).collect();
        places.iter().for_each(|place| drop(waiting.remove(*place)));
        if !places.is_empty() {
            self.changed.notify_one();
        }
        !places.is_empty()
    }

    /// Returns when the first record is due. Without records the task ends: the next record starts another.
    fn first_due(&self) -> Option<Instant> {
        let mut waiting = lock(&self.waiting);
        let first = waiting.records.first_key_value().map(|((due, _), _)| *due);
        if first.is_none() {
            waiting.task = None;
        }
        first
    }

    /// Publishes the records that are due, one after the other, and returns whether the broker answered. A record without
    /// an answer and those after it are held back again, at their old places: none overtakes another of its key.
    async fn publish_due(&self, broker: &Arc<Broker>) -> bool {
        let publisher = MemoryPublisher::new(Arc::clone(broker));
        let due = lock(&self.waiting).take_due(Instant::now());
        let mut has_answered = true;
        for (place, id, record) in due {
            if !has_answered {
                lock(&self.waiting).insert(place, id, record);
                continue;
            }
            match publisher.publish_one(record.clone()).await {
                Ok(_) => {}
                Err(error) if error.is_infrastructure() => {
                    has_answered = false;
                    lock(&self.waiting).insert(place, id, record);
                }
                Err(error) => {
                    let (topic, error) = (&record.topic, error.report());
                    tracing::warn!(%topic, %id, error, "cannot publish a delayed event that is due: it is dropped");
                }
            }
        }
        has_answered
    }
}

/// Publishes records when they are due, until none waits or the broker is gone.
async fn run(broker: Weak<Broker>, changed: Arc<Notify>) {
    let mut not_before = Instant::now();
    loop {
        let Some(first) = broker.upgrade().and_then(|broker| broker.delayed.first_due()) else { return };
        let until = first.max(not_before);
        if until > Instant::now() {
            tokio::select! {
                () = sleep_until(until) => {}
                () = changed.notified() => {}
            }
            continue;
        }
        let Some(broker) = broker.upgrade() else { return };
        if !broker.delayed.publish_due(&broker).await {
            not_before = Instant::now() + RETRY_AFTER;
        }
    }
}

/// Returns when a record is due by tokio's clock.
fn instant(broker: &Broker, due: Due) -> Result<Instant> {
    let instant = match due {
        Due::After(delay) => Instant::now().checked_add(delay),
        Due::At(time) => broker.clock.instant(time),
        _ => None,
    };
    let invalid = || Error::new(ErrorKind::Invalid, "publish a delayed event: its time is out of range");
    instant.ok_or_else(invalid)
}

fn full(waiting: usize) -> Error {
    let what = format!(
        "publish a delayed event: {waiting} events wait, which is the bound (max_delayed_records, max_delayed_bytes)"
    );
    Error::new(ErrorKind::Unavailable, what)
}
