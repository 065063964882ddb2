//! The services that publish: the API gateway, the user service and the interview service.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use tidings::publisher::{Publisher, PublisherExt};
use tidings::record::{Position, headers};
use tidings::{BoxError, EventPublisher, PublishOptions, Record, Transport};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::audit::AuditedTransport;
use crate::input::{self, Line, Platform, Publication};
use crate::options::{Member, Options};
use crate::pace::Pace;
use crate::services::{POISON, POISON_FAILS};

/// How many events a service may have unanswered.
const UNANSWERED: usize = 512;
/// How many events are handed to a service at once, and how many such chunks may wait for it.
const CHUNK: usize = 128;
const CHUNKS: usize = 16;
/// The number of events between an event and its repeat, as when a client tries again.
const REPEAT_AFTER: usize = 100;
/// How often a publish is tried, and the first wait in between, which doubles.
const ATTEMPTS: u32 = 6;
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait between two tries of a steady load, which are not counted.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Records published in addition to an event, or instead of it.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// The event; also, with the same id, when it is repeated.
    Event,
    /// Bytes that are no event.
    Garbage,
    /// An envelope whose payload lacks every field.
    Incomplete,
    /// The event under another id, with the header that every handler fails on.
    Failing,
}

#[derive(Debug, Clone)]
struct Sending {
    publication: Arc<Publication>,
    manner: Manner,
}

/// Returns the publishers of the services that run and publish.
pub(crate) fn publishers(options: &Options, transport: &AuditedTransport) -> Vec<(Member, EventPublisher)> {
    let members = options.services.iter().filter(|member| **member != Member::AnalyticsService);
    members.map(|member| (*member, EventPublisher::new(&transport.of(member.name()), member.name()))).collect()
}

/// Reads the input and has it published; ends when all of it is, or `stop` is set.
pub(crate) async fn publish_all(
    lines: impl Iterator<Item = Result<Line, BoxError>> + Send + 'static,
    options: &Options,
    transport: &AuditedTransport,
    publishers: Vec<(Member, EventPublisher)>,
    stop: Arc<AtomicBool>,
) -> Result<u64, BoxError> {
    let mut tasks = JoinSet::new();
    let mut desks = Vec::new();
    let attempts = if options.rate.is_some() { u32::MAX } else { ATTEMPTS };
    for (member, events) in publishers {
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let raw = transport.of(member.name()).publisher().await?;
        tasks.spawn(publish(member, Publishing { events, raw, attempts }, receiver));
        desks.push(Desk::new(member, sender));
    }
    let wanted = options.clone();
    let read = tokio::task::spawn_blocking(move || read(lines, &wanted, desks, &stop)).await;
    // A service that failed has the better error: reading ends because of it.
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    read?
}

/// Reads lines and hands what follows from them to the services. On a thread of its own, as it waits.
fn read(
    lines: impl Iterator<Item = Result<Line, BoxError>>,
    options: &Options,
    mut desks: Vec<Desk>,
    stop: &AtomicBool,
) -> Result<u64, BoxError> {
    let mut platform = Platform::default();
    let mut pace = options.rate.map(Pace::new);
    let mut count = 0;
    for line in lines.take(usize::try_from(options.limit).unwrap_or(usize::MAX)) {
        if stop.load(Ordering::Relaxed) || desks.is_empty() {
            break;
        }
        for publication in platform.publications(&line?) {
            if let Some(desk) = desks.iter_mut().find(|desk| desk.member == publication.by) {
                desk.take(publication, options)?;
                if let Some(wait) = pace.as_mut().and_then(Pace::wait) {
                    desks.iter_mut().try_for_each(Desk::flush)?;
                    std::thread::sleep(wait);
                }
            }
        }
        count += 1;
    }
    desks.into_iter().try_for_each(Desk::close)?;
    Ok(count)
}

/// Where the events of a service are collected.
struct Desk {
    member: Member,
    sender: mpsc::Sender<Vec<Sending>>,
    chunk: Vec<Sending>,
    /// How many events it was handed.
    count: usize,
    /// With the count at which each is due.
    repeats: VecDeque<(usize, Sending)>,
}

impl Desk {
    fn new(member: Member, sender: mpsc::Sender<Vec<Sending>>) -> Self {
        Self { member, sender, chunk: Vec::with_capacity(CHUNK), count: 0, repeats: VecDeque::new() }
    }

    fn take(&mut self, publication: Publication, options: &Options) -> Result<(), BoxError> {
        let publication = Arc::new(publication);
        // Drawn from the id, so that each run draws the same.
        let bytes = publication.id.into_bytes();
        let lot = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let event = Sending { publication: publication.clone(), manner: Manner::Event };
        if options.duplicate.hits(lot(0)) {
            self.repeats.push_back((self.count + REPEAT_AFTER, event.clone()));
        }
        self.push(event)?;
        if options.poison.hits(lot(10)) {
            let manner = [Manner::Garbage, Manner::Incomplete, Manner::Failing][usize::from(bytes[15] % 3)];
            self.push(Sending { publication, manner })?;
        }
        self.count += 1;
        while self.repeats.front().is_some_and(|(due, _)| *due <= self.count) {
            if let Some((_, repeat)) = self.repeats.pop_front() {
                self.push(repeat)?;
            }
        }
        Ok(())
    }

    fn push(&mut self, sending: Sending) -> Result<(), BoxError> {
        self.chunk.push(sending);
        if self.chunk.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        self.sender.blocking_send(chunk).map_err(|_| format!("{} publishes no more", self.member.name()).into())
    }

    fn close(mut self) -> Result<(), BoxError> {
        let repeats = std::mem::take(&mut self.repeats);
        self.chunk.extend(repeats.into_iter().map(|(_, repeat)| repeat));
        self.flush()
    }
}

/// Publishes what a service is handed, in order per key.
async fn publish(member: Member, desk: Publishing, chunks: mpsc::Receiver<Vec<Sending>>) -> Result<(), BoxError> {
    let chunks = stream::unfold(chunks, async |mut chunks| chunks.recv().await.map(|chunk| (chunk, chunks)));
    // The first polls are in order, and that is what the order of records of one key follows from.
    let answers = chunks.flat_map(stream::iter).map(|sending| desk.send(sending)).buffered(UNANSWERED);
    answers.try_for_each(async |_| Ok(())).await.map_err(|e| format!("{}: {}", member.name(), e.report()))?;
    desk.events.close(Duration::from_secs(10)).await?;
    Ok(())
}

struct Publishing {
    events: EventPublisher,
    raw: Arc<dyn Publisher>,
    /// How often an event is tried.
    attempts: u32,
}

impl Publishing {
    async fn send(&self, sending: Sending) -> tidings::Result<Position> {
        let mut wait = FIRST_WAIT;
        for _ in 1..self.attempts {
            match self.try_send(&sending).await {
                // Also when it is not known whether the broker has it: its id stays, so that a repeat is recognised.
                Err(error) if error.is_retryable() => tokio::time::sleep(wait).await,
                answer => return answer,
            }
            wait = LONGEST_WAIT.min(wait * 2);
        }
        self.try_send(&sending).await
    }

    async fn try_send(&self, sending: &Sending) -> tidings::Result<Position> {
        let publication = &sending.publication;
        let options = PublishOptions::default().with_timestamp(publication.timestamp);
        match sending.manner {
            Manner::Event => publication.event.publish(&self.events, options.with_id(publication.id)).await,
            Manner::Failing => {
                let id = input::derived(publication.id, "failing");
                let options = options.with_id(id).with_header(POISON, POISON_FAILS);
                publication.event.publish(&self.events, options).await
            }
            Manner::Garbage => {
                let (topic, _, key) = publication.event.address();
                self.put(Record::new(topic, &b"\xff\x00 no event"[..]).with_key(key.to_owned())).await
            }
            Manner::Incomplete => {
                let (topic, event_type, key) = publication.event.address();
                let id = input::derived(publication.id, "incomplete");
                let value = incomplete(id, event_type, publication.timestamp.millis());
                let record = Record::new(topic, value).with_key(key.to_owned());
                self.put(record.with_header(headers::EVENT_TYPE, event_type).with_header(POISON, "incomplete")).await
            }
        }
    }

    async fn put(&self, record: Record) -> tidings::Result<Position> {
        self.raw.publish_one(record).await
    }
}

fn incomplete(id: Uuid, event_type: &str, timestamp: i64) -> String {
    let envelope = serde_json::json!({
        "eventId": id, "eventType": event_type, "timestamp": timestamp, "source": "api-gateway", "version": "1.0",
        "payload": {},
    });
    envelope.to_string()
}
