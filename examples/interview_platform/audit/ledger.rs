//! The ledger: what happened to each event, kept for the check, and written as lines for others.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tidings::handler::event_id_of;
use tidings::record::{Position, StoredRecord, Timestamp, TopicPartition, headers};
use tidings::service::{Observer, RecordEvent, RecordOutcome};
use tidings::{Record, codec};
use uuid::Uuid;

use crate::events::TOPICS;
use crate::services::{Group, POISON};

/// Where a record lies: its topic is one of [`TOPICS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) topic: u8,
    pub(crate) partition: u32,
    pub(crate) offset: u64,
}

impl Place {
    pub(crate) fn of(topic: &str, partition: u32, offset: u64) -> Option<Self> {
        let topic = u8::try_from(TOPICS.iter().position(|(name, _)| *name == topic)?).ok()?;
        Some(Self { topic, partition, offset })
    }

    pub(crate) fn topic(self) -> &'static str {
        TOPICS[usize::from(self.topic)].0
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} offset {}", self.topic(), self.partition, self.offset)
    }
}

/// A record that was published.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) place: Place,
    pub(crate) id: Uuid,
    pub(crate) nature: Nature,
}

/// The identity of a published record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Nature {
    /// An event of this type.
    Event(String),
    /// One that its handlers can't read or fail on; who does not handle its type does not notice.
    Poison(String),
    /// Bytes that are no event at all.
    Garbage,
}

/// The events of a record, in the order in which its group's service reported them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settled {
    pub(crate) place: Place,
    pub(crate) key: u64,
    pub(crate) what: RecordOutcome,
}

/// All that is written down.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    published: Mutex<Vec<Published>>,
    count: AtomicU64,
    by_service: Mutex<Vec<(&'static str, u64)>>,
    /// As [`TOPICS`].
    by_topic: [AtomicU64; TOPICS.len()],
    /// Events are counted, and no list of them is kept.
    counts_only: bool,
    lines: Option<Mutex<Lines>>,
}

#[derive(Debug)]
struct Lines {
    file: BufWriter<File>,
    failed: Option<io::Error>,
}

/// A line of the file.
#[derive(Serialize)]
struct Line<'a> {
    what: &'a str,
    event_id: Uuid,
    event_type: Option<&'a str>,
    key: Option<&'a str>,
    service: &'a str,
    group: Option<&'a str>,
    topic: &'a str,
    partition: u32,
    offset: u64,
    at_ms: i64,
}

impl Ledger {
    /// With lines in the file `path`, if there is one. With `counts_only`, it does not grow, and cannot be checked event
    /// by event.
    pub(crate) fn create(path: Option<&Path>, counts_only: bool) -> Result<Self, String> {
        let lines = |path: &Path| match File::create(path) {
            Ok(file) => Ok(Mutex::new(Lines { file: BufWriter::with_capacity(1 << 20, file), failed: None })),
            Err(e) => Err(format!("--ledger {}: {e}", path.display())),
        };
        Ok(Self { lines: path.map(lines).transpose()?, counts_only, ..Self::default() })
    }

    pub(crate) fn published(&self, service: &'static str, record: Record, position: Position) {
        let Some(place) = Place::of(&record.topic, position.partition, position.offset) else { return };
        let topic = record.topic.clone();
        let record = StoredRecord::from_record(record, position.offset, Timestamp::now());
        let (id, nature) = match codec::peek(&record) {
            Ok(head) if record.headers.contains(POISON) => (head.id, Nature::Poison(head.event_type.into_owned())),
            Ok(head) => (head.id, Nature::Event(head.event_type.into_owned())),
            Err(_) => (event_id_of(&TopicPartition::new(topic, position.partition), &record), Nature::Garbage),
        };
        self.line("published", id, service, None, place, &record);
        if !self.counts_only {
            lock(&self.published).push(Published { place, id, nature });
        }
        self.by_topic[usize::from(place.topic)].fetch_add(1, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut by_service = lock(&self.by_service);
        match by_service.iter_mut().find(|(name, _)| *name == service) {
            Some((_, count)) => *count += 1,
            None => by_service.push((service, 1)),
        }
    }

    fn line(&self, what: &str, id: Uuid, service: &str, group: Option<&str>, place: Place, record: &StoredRecord) {
        let Some(lines) = &self.lines else { return };
        let line = Line {
            what,
            event_id: id,
            event_type: record.headers.get_str(headers::EVENT_TYPE),
            key: record.key.as_ref().and_then(|key| std::str::from_utf8(key).ok()),
            service,
            group,
            topic: place.topic(),
            partition: place.partition,
            offset: place.offset,
            at_ms: Timestamp::now().millis(),
        };
        let mut lines = lock(lines);
        if lines.failed.is_none() {
            // A full disk must not stop the services; it is told at the end.
            let written = serde_json::to_writer(&mut lines.file, &line).map_err(io::Error::from);
            lines.failed = written.and_then(|()| lines.file.write_all(b"\n")).err();
        }
    }

    /// Writes out what is buffered.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let Some(lines) = &self.lines else { return Ok(()) };
        let mut lines = lock(lines);
        match lines.failed.take() {
            Some(error) => Err(error),
            None => lines.file.flush(),
        }
    }

    /// How many records were published.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// How many records were published to `topics`.
    pub(crate) fn count_of(&self, topics: &[&str]) -> u64 {
        let counts = TOPICS.iter().zip(&self.by_topic).filter(|((name, _), _)| topics.contains(name));
        counts.map(|(_, count)| count.load(Ordering::Relaxed)).sum()
    }

    /// Whether no list of events is kept.
    pub(crate) fn counts_only(&self) -> bool {
        self.counts_only
    }

    /// How many records each service published.
    pub(crate) fn by_service(&self) -> Vec<(&'static str, u64)> {
        lock(&self.by_service).clone()
    }

    pub(crate) fn all_published(&self) -> MutexGuard<'_, Vec<Published>> {
        lock(&self.published)
    }
}

/// Receives the record events of a group's service.
#[derive(Debug)]
pub(crate) struct GroupLog {
    pub(crate) group: &'static Group,
    ledger: Arc<Ledger>,
    start: Instant,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    settled: Vec<Settled>,
    counts: Counts,
    span: Option<(Duration, Duration)>,
}

/// How many records each thing happened to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) handled: u64,
    pub(crate) duplicates: u64,
    pub(crate) skipped: u64,
    pub(crate) retried: u64,
    pub(crate) dead_lettered: u64,
}

impl Counts {
    pub(crate) fn settled(&self) -> u64 {
        self.handled + self.duplicates + self.skipped + self.dead_lettered
    }
}

impl GroupLog {
    pub(crate) fn new(group: &'static Group, ledger: Arc<Ledger>) -> Self {
        Self { group, ledger, start: Instant::now(), told: Mutex::default() }
    }

    pub(crate) fn counts(&self) -> Counts {
        lock(&self.told).counts
    }

    /// Records settled per second, from the first to the last.
    pub(crate) fn rate(&self) -> f64 {
        let told = lock(&self.told);
        let Some((first, last)) = told.span else { return 0.0 };
        told.counts.settled() as f64 / (last - first).as_secs_f64().max(0.001)
    }

    pub(crate) fn take_settled(&self) -> Vec<Settled> {
        std::mem::take(&mut lock(&self.told).settled)
    }
}

impl Observer for GroupLog {
    fn observe(&self, event: &RecordEvent<'_>) {
        let (origin, record) = (event.origin, event.record);
        let Some(place) = Place::of(&origin.topic, origin.partition, record.offset) else { return };
        if self.ledger.lines.is_some() {
            let (what, id) = (event.outcome.as_str(), event.event_id());
            self.ledger.line(what, id, event.service, Some(event.group), place, record);
        }
        let key = record.key.as_ref().map_or(0, |key| Uuid::new_v5(&Uuid::nil(), key).as_u64_pair().0);
        let now = self.start.elapsed();
        let mut told = lock(&self.told);
        match event.outcome {
            RecordOutcome::Handled => told.counts.handled += 1,
            RecordOutcome::Duplicate => told.counts.duplicates += 1,
            RecordOutcome::Skipped => told.counts.skipped += 1,
            RecordOutcome::DeadLettered => told.counts.dead_lettered += 1,
            _ => {
                told.counts.retried += 1;
                return;
            }
        }
        told.span = Some((told.span.map_or(now, |(first, _)| first), now));
        if !self.ledger.counts_only {
            told.settled.push(Settled { place, key, what: event.outcome });
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
