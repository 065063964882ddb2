//! Redriving: publishes letters from a dead-letter topic back to their original topic.

mod chunk;
mod doubt;
mod letters;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::{
    Admin, Error, ErrorKind, Name, PartitionDescription, Publisher, Result, StoredRecord, Timestamp, TopicDescription,
    TopicPartition, Transport, Unreadable, dead_letter_topic,
};
use tracing::{info, warn};

use self::chunk::{Chunk, Mark, Refused};
use self::doubt::CLOCKS_DIFFER_BY;
use self::letters::{Letters, Place};

/// The suffix of the consumer group that redrives a service's letters.
pub const REDRIVE_GROUP_SUFFIX: &str = "-redrive";
impl RedriveOptions {
    /// The default of [`RedriveOptions::patience`].
    pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(60);
}
/// The publisher's close timeout; no record is unacknowledged by then.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// Options of [`redrive_topic`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RedriveOptions {
    /// The maximum number of letters; `None` redrives all that exist when the run begins.
    pub limit: Option<u64>,
    /// Counts only: publishes nothing and commits nothing.
    pub dry_run: bool,
    /// How long to wait until the group's other members have left, and for the next letter.
    ///
    /// Defaults to [`RedriveOptions::DEFAULT_PATIENCE`]. A run that was killed stays a member until the group's session ends.
    pub patience: Duration,
}

impl Default for RedriveOptions {
    fn default() -> Self {
        Self { limit: None, dry_run: false, patience: RedriveOptions::DEFAULT_PATIENCE }
    }
}

impl RedriveOptions {
    /// Sets the maximum number of letters.
    #[must_use]
    pub fn with_limit(mut self, letters: u64) -> Self {
        self.limit = Some(letters);
        self
    }

    /// Sets whether to count only.
    #[must_use]
    pub fn with_dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Sets [`Self::patience`].
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

/// The result of [`redrive_topic`]; in a dry run, the expected result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedriveReport {
    /// Letters published back to their topic.
    pub redriven: u64,
    /// Letters already in their topic: an earlier run was interrupted between publishing and committing.
    pub found: u64,
    /// Letters of a record that was dead-lettered twice: the first letter stands for both. After a topic was recreated
    /// an offset belongs to another record, whose letter does not count as a repeat.
    pub repeats: u64,
    /// Letters of other services, which stay.
    pub others: u64,
    /// Records that are not letters of this topic.
    pub foreign: u64,
}

/// Publishes the letters of `service` in `<topic>-dlq` back to `topic`.
///
/// Takes the letters that exist when the run begins, so a record that fails again meanwhile is not redriven twice.
///
/// Letters of one key are published in order, each after the broker has acknowledged the one before. A record that was
/// dead-lettered twice is published once. Each letter carries the header `redrive-for`, so that no other service
/// handles it again. Letters of other services and records that are not letters are skipped and stay.
///
/// Progress is the committed offset of the group `<service>-redrive`: a run resumes where an earlier one stopped,
/// failed or was interrupted, and [`Admin::reset_offsets`] of that group moves it elsewhere. Before a chunk of letters
/// is published, the group's commit records a mark; a run that finds such a mark searches `topic` for the published
/// records of that chunk. A mark written by a host whose clock was far ahead does not delay later runs.
///
/// Not cancel-safe: a dropped future may have published letters. The next run finds them, unless the broker sets the
/// timestamps of the topic's records: then up to one chunk is published again, with the same event ids.
///
/// # Errors
/// - [`Invalid`](ErrorKind::Invalid) for a patience of zero.
/// - [`NotFound`](ErrorKind::NotFound) if `<topic>-dlq` does not exist.
/// - [`Conflict`](ErrorKind::Conflict) while another redrive of this service and topic runs.
/// - [`Unavailable`](ErrorKind::Unavailable) while the broker is unavailable.
/// - Those of [`Publisher::publish`], naming the letter, which stays the next one to redrive. A letter that is refused
///   as [`Invalid`](ErrorKind::Invalid) or [`TooLarge`](ErrorKind::TooLarge) stays, and so do later letters of its
///   key; the others of its chunk (500 letters or 8 MiB) and all other partitions are redriven first, and the next run
///   tries the letter again.
/// - The cause, naming partition and offset, if a letter cannot be read. All letters before it and all other
///   partitions are redriven first; [`Admin::reset_offsets`] of the group continues behind it.
///
/// After an error, letters that were redriven stay redriven: call again.
pub async fn redrive_topic(
    transport: &dyn Transport,
    topic: impl Into<Name>,
    service: impl Into<Name>,
    options: RedriveOptions,
) -> Result<RedriveReport> {
    if options.patience.is_zero() {
        return Err(Error::new(ErrorKind::Invalid, "redrive: its patience is zero"));
    }
    redrive_by(transport, topic.into(), service.into(), options, &Timestamp::now).await
}

/// The source of the run's current time.
type Clock<'a> = &'a (dyn Fn() -> Timestamp + Send + Sync);

async fn redrive_by(
    transport: &dyn Transport,
    topic: Name,
    service: Name,
    options: RedriveOptions,
    clock: Clock<'_>,
) -> Result<RedriveReport> {
    let mut run = Run::open(transport, topic, service, options, clock).await?;
    let worked = run.work().await;
    run.close().await;
    let (topic, service, done) = (&run.topic, &run.service, &run.report);
    match &worked {
        Ok(()) => info!(%topic, %service, redriven = done.redriven, found = done.found, "letters are redriven"),
        Err(error) => {
            warn!(%topic, %service, redriven = done.redriven, error = error.report(), "a redrive stopped half-way");
        }
    }
    worked.map(|()| run.report)
}

/// A running redrive.
struct Run<'a> {
    transport: &'a dyn Transport,
    admin: Arc<dyn Admin>,
    publisher: Arc<dyn Publisher>,
    letters: Letters,
    topic: Name,
    service: Name,
    options: RedriveOptions,
    report: RedriveReport,
    clock: Clock<'a>,
    /// The timestamp of the latest chunk's records, not counting timestamps from the future; no two chunks share one.
    latest: i64,
    /// Timestamps of earlier runs.
    taken: HashSet<i64>,
    refused: Refused,
}

impl<'a> Run<'a> {
    async fn open(
        transport: &'a dyn Transport,
        topic: Name,
        service: Name,
        options: RedriveOptions,
        clock: Clock<'a>,
    ) -> Result<Self> {
        let admin = transport.admin().await?;
        let publisher = transport.publisher().await?;
        let source = dead_letter_topic(&topic);
        let group = Name::from(format!("{service}{REDRIVE_GROUP_SUFFIX}"));
        let letters = Letters::open(transport, &*admin, &source, &group, options.patience).await?;
        let report = RedriveReport::default();
        let (latest, taken, refused) = (0, HashSet::new(), Refused::default());
        Ok(Self {
            transport,
            admin,
            publisher,
            letters,
            topic,
            service,
            options,
            report,
            clock,
            latest,
            taken,
            refused,
        })
    }

    async fn close(&self) {
        self.letters.close().await;
        if let Err(error) = self.publisher.close(CLOSE_LIMIT).await {
            warn!(error = error.report(), "the redrive's publisher did not close");
        }
    }

    async fn work(&mut self) -> Result<()> {
        self.letters.join().await?;
        let places: Vec<Place> = self.letters.places().cloned().collect();
        self.taken = places.iter().filter_map(|place| place.mark.as_ref()).flat_map(Mark::times).collect();
        self.latest = self.taken.iter().copied().filter(|time| !self.is_ahead(*time)).max().unwrap_or(0);
        let mut chunk = Chunk::new(self.topic.clone(), self.service.clone());
        // A letter and its repeat may lie in different partitions: read all of the past first.
        for place in &places {
            self.remember(&mut chunk, place).await?;
        }
        let mut held = None;
        for place in places {
            if !self.partition(&mut chunk, place).await? {
                break;
            }
            // The letters of the others are redriven nevertheless.
            held = held.or(self.letters.take_unreadable());
        }
        let unreadable = held.map(|unreadable| cannot_be_read(&unreadable));
        match (self.refused.error(), unreadable) {
            (Some(refused), Some(unreadable)) => Err(refused.in_context(unreadable)),
            (Some(error), None) | (None, Some(error)) => Err(error),
            (None, None) => Ok(()),
        }
    }

    /// Records the letters of a partition that earlier runs processed, as far as they can be read.
    async fn remember(&mut self, chunk: &mut Chunk, place: &Place) -> Result<()> {
        let mut from = place.oldest;
        while from < place.next {
            let note = async |record: &StoredRecord| {
                chunk.remember(record);
                Ok(true)
            };
            let reached = self.letters.read(&place.at, from, place.next, note).await?;
            let beyond = self.letters.take_unreadable().map_or(Some(reached), |unreadable| unreadable.next_offset);
            let Some(next) = beyond.filter(|next| *next > from) else { break };
            from = next;
        }
        Ok(())
    }

    /// Returns whether a time is further ahead than clocks differ: brokers refuse records with such a timestamp.
    fn is_ahead(&self, time: i64) -> bool {
        Timestamp::from_millis(time) > (self.clock)().saturating_add(CLOCKS_DIFFER_BY)
    }

    /// Returns a timestamp for another chunk.
    fn next_time(&mut self) -> i64 {
        let mut time = (self.clock)().millis().max(self.latest.saturating_add(1));
        while self.taken.contains(&time) {
            time = time.saturating_add(1);
        }
        self.latest = time;
        time
    }

    /// Processes one partition; returns `false` at the limit.
    async fn partition(&mut self, chunk: &mut Chunk, mut place: Place) -> Result<bool> {
        while place.next < place.end {
            // The letters in doubt form one chunk again, the same as before.
            let doubt = place.mark.clone().filter(|mark| mark.until > place.next);
            let until = doubt.as_ref().map_or(place.end, |mark| mark.until.min(place.end));
            let left = self.options.limit.map(|limit| limit.saturating_sub(self.report.redriven));
            if left == Some(0) {
                return Ok(false);
            }
            let most = if doubt.is_some() { None } else { left };
            let reached = self
                .letters
                .read(&place.at, place.next, until, async |record| {
                    Ok(chunk.take(record, &mut self.report) && !chunk.is_full(most, doubt.is_some()))
                })
                .await?;
            if !self.finish(chunk, &mut place, doubt, reached).await? || self.letters.is_held() {
                break;
            }
        }
        Ok(true)
    }

    /// Publishes a chunk that ends at the offset `reached`, then commits the offset after it. Returns `false` if
    /// letters of the chunk stay: the next run begins with the chunk and finds the letters that were published.
    async fn finish(
        &mut self,
        chunk: &mut Chunk,
        place: &mut Place,
        doubt: Option<Mark>,
        reached: u64,
    ) -> Result<bool> {
        let mut letters = chunk.drain();
        if self.options.dry_run {
            self.report.redriven += letters.len() as u64;
            place.next = reached;
            return Ok(true);
        }
        let (mark, is_noted) = match doubt {
            Some(mark) => {
                let times = mark.times();
                let there = doubt::published(self.transport, &*self.admin, &self.topic, &self.service, &times);
                let there = there.await?;
                let before = letters.len();
                doubt::keep_absent(&mut letters, there);
                self.report.found += (before - letters.len()) as u64;
                let is_ahead = self.is_ahead(mark.time);
                (if is_ahead { mark.going_on_at(self.next_time()) } else { mark }, !is_ahead)
            }
            None => (Mark::new(self.next_time(), reached), false),
        };
        if !letters.is_empty() {
            if !is_noted {
                self.letters.commit(place, place.next, mark.clone()).await?;
            }
            let count = letters.len() as u64;
            let published = chunk::publish(&*self.publisher, &place.at, letters, mark.time, &mut self.refused).await?;
            self.report.redriven += published;
            if published < count {
                return Ok(false);
            }
        }
        self.letters.commit(place, reached, mark.clone()).await?;
        place.next = reached;
        place.mark = Some(mark);
        Ok(true)
    }
}

fn cannot_be_read(unreadable: &Unreadable) -> Error {
    let Unreadable { partition, offset, error, .. } = unreadable;
    let text =
        format!("redrive the letters of {partition}: offset {offset} cannot be read, those before it are redriven");
    Error::caused_by(error.kind(), text, error.clone())
}

/// Adds the position to an error.
fn about(at: &TopicPartition, offset: u64, error: Error) -> Error {
    let kind = error.kind();
    Error::caused_by(kind, format!("redrive the letter {at}@{offset}"), error)
}

/// Checks that the log of each partition is known: the log of an offline partition is not, and must not be taken for
/// empty.
fn check_online(topic: &TopicDescription) -> Result<()> {
    match topic.partitions.iter().find(|partition| partition.is_offline()) {
        None => Ok(()),
        Some(PartitionDescription { partition, .. }) => {
            let what = format!("redrive: no broker leads {}[{partition}] now, so what it holds is unknown", topic.name);
            Err(Error::new(ErrorKind::Unavailable, what))
        }
    }
}

fn taken(what: &str) -> Error {
    Error::new(ErrorKind::Conflict, format!("redrive: {what}; another redrive of this service may be running"))
}

#[cfg(test)]
mod tests {
    use tidings_core::{Commit, ConsumerOptions, DeadLetter, DeadLetterSink, Record, Step, StoredRecord, Topic};
    use tidings_memory::MemoryTransport;

    use super::*;

    const AHEAD: Duration = Duration::from_secs(2 * 3_600);

    async fn memory() -> MemoryTransport {
        let transport = MemoryTransport::new();
        let topics = [Topic::new("t"), Topic::new("t-dlq")].map(|topic| topic.with_partitions(1));
        for answer in transport.admin().await.unwrap().create_topics(&topics).await.unwrap() {
            answer.unwrap();
        }
        transport
    }

    fn letter(offset: u64) -> DeadLetter {
        let record = StoredRecord::new(offset, Timestamp::from_millis(1)).with_key("k").with_value(offset.to_string());
        DeadLetter::new("svc", TopicPartition::new("t", 0), record, ErrorKind::Failed)
    }

    async fn bury(transport: &MemoryTransport, offsets: std::ops::Range<u64>) {
        let sink: Arc<dyn DeadLetterSink> = transport.dead_letters().await.unwrap();
        sink.bury(offsets.map(letter).collect()).await.into_iter().for_each(|answer| answer.unwrap());
    }

    async fn redriven(transport: &MemoryTransport, clock: Clock<'_>) -> RedriveReport {
        redrive_by(transport, "t".into(), "svc".into(), RedriveOptions::default(), clock).await.unwrap()
    }

    /// Returns how many seconds each record of the topic was published ahead of `now`, and its value.
    async fn records(transport: &MemoryTransport, now: Timestamp, count: usize) -> Vec<(i64, String)> {
        let options = ConsumerOptions::new(format!("witness-{}", uuid::Uuid::now_v7()), [Name::from("t")]);
        let consumer = transport.consumer(options).await.unwrap();
        let mut all = Vec::new();
        while all.len() < count {
            let step = tokio::time::timeout(Duration::from_secs(60), consumer.next()).await.unwrap().unwrap();
            if let Step::Records(fetched) = step {
                all.extend(fetched.batch.records().iter().map(|record| {
                    let value = String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap();
                    ((record.timestamp.millis() - now.millis()) / 1_000, value)
                }));
            }
        }
        consumer.close().await.unwrap();
        all
    }

    fn values(records: &[(i64, String)]) -> Vec<&str> {
        records.iter().map(|(_, value)| value.as_str()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_run_whose_clock_was_ahead_the_next_ones_records_are_of_the_present() {
        let (transport, now) = (memory().await, Timestamp::now());
        bury(&transport, 0..3).await;
        assert_eq!(redriven(&transport, &|| now.saturating_add(AHEAD)).await.redriven, 3);
        bury(&transport, 3..6).await;
        assert_eq!(redriven(&transport, &|| now).await.redriven, 3);
        let found = records(&transport, now, 6).await;
        assert_eq!(values(&found), ["0", "1", "2", "3", "4", "5"]);
        assert!(found[3..].iter().all(|(ahead, _)| *ahead < 600), "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_chunk_that_was_cut_off_under_a_clock_that_was_ahead_is_gone_on_with_in_the_present() {
        let (transport, now) = (memory().await, Timestamp::now());
        bury(&transport, 0..3).await;
        // The first letter is published, and the rest was refused as from the future.
        let ahead = now.saturating_add(AHEAD);
        let sent: Record = letter(0).to_redrive().with_timestamp(ahead);
        transport.publisher().await.unwrap().publish(vec![sent]).await.remove(0).unwrap();
        let options = ConsumerOptions::new("svc-redrive", [Name::from("t-dlq")]);
        let consumer = transport.consumer(options).await.unwrap();
        let epoch = loop {
            if let Step::Assigned(given) = consumer.next().await.unwrap() {
                break given[0].epoch;
            }
        };
        let mark = format!("redrive {} 3", ahead.millis());
        let commit = Commit::new(TopicPartition::new("t-dlq", 0), epoch, 0).with_metadata(mark);
        consumer.commit(vec![commit]).await.remove(0).unwrap();
        consumer.close().await.unwrap();

        let report = redriven(&transport, &|| now).await;
        assert_eq!((report.found, report.redriven), (1, 2));
        let found = records(&transport, now, 3).await;
        assert_eq!(values(&found), ["0", "1", "2"]);
        assert!(found[1..].iter().all(|(ahead, _)| *ahead < 600), "{found:?}");
        assert_eq!(redriven(&transport, &|| now).await, RedriveReport::default());
    }

    #[tokio::test(start_paused = true)]
    async fn a_letter_of_a_topic_made_anew_is_no_repeat_of_one_of_the_topic_before() {
        let (transport, now) = (memory().await, Timestamp::now());
        let of = |millis: i64, value: &'static str| {
            let record = StoredRecord::new(3, Timestamp::from_millis(millis)).with_value(value);
            DeadLetter::new("svc", TopicPartition::new("t", 0), record, ErrorKind::Failed)
        };
        let sink = transport.dead_letters().await.unwrap();
        // Offset 3 belongs to another record once the topic was recreated.
        for (letters, expected) in [
            (vec![of(1, "old"), of(1, "old")], (1, 1)),
            (vec![of(2, "old")], (1, 0)),
            (vec![of(2, "new"), of(1, "old")], (1, 1)),
        ] {
            sink.bury(letters).await.into_iter().for_each(|answer| answer.unwrap());
            let report = redriven(&transport, &|| now).await;
            assert_eq!((report.redriven, report.repeats), expected);
        }
    }

    #[test]
    fn what_no_broker_leads_is_not_taken_for_empty() {
        let online = PartitionDescription::new(0, 0, 9);
        let mut offline = PartitionDescription::new(1, 0, 0);
        offline.replicas = vec![2];
        check_online(&TopicDescription::new("t-dlq", vec![online.clone()])).unwrap();
        let error = check_online(&TopicDescription::new("t-dlq", vec![online, offline])).unwrap_err();
        assert_eq!((error.kind(), error.to_string().contains("t-dlq[1]")), (ErrorKind::Unavailable, true), "{error}");
    }
}
