//! Taking letters from a dead-letter topic back to the topic they came from.

mod chunk;
mod doubt;
mod letters;

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{
    Admin, Error, ErrorKind, Name, PartitionDescription, Publisher, Result, StoredRecord, TopicDescription,
    TopicPartition, Transport, Unreadable, dead_letter_topic,
};
use tracing::{info, warn};

use self::chunk::{Chunk, Mark};
use self::letters::{Letters, Place};

/// What stands behind a service's name in that of the group that redrives its letters.
pub const REDRIVE_GROUP_SUFFIX: &str = "-redrive";
/// The default of [`RedriveOptions::patience`].
pub const DEFAULT_REDRIVE_PATIENCE: Duration = Duration::from_secs(60);
/// How long the publisher may take to close: it has nothing unanswered then.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// How [`redrive_topic`] works.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RedriveOptions {
    /// At most so many letters; `None` is all that were there when it began.
    pub limit: Option<u64>,
    /// Only counts: nothing is published, and nothing committed.
    pub dry_run: bool,
    /// How long it waits for its turn in the group, and for the next letter: [`DEFAULT_REDRIVE_PATIENCE`]. A run that
    /// was cut off keeps its turn until the group's session ends.
    pub patience: Duration,
}

impl Default for RedriveOptions {
    fn default() -> Self {
        Self { limit: None, dry_run: false, patience: DEFAULT_REDRIVE_PATIENCE }
    }
}

impl RedriveOptions {
    /// At most so many letters.
    #[must_use]
    pub fn with_limit(mut self, letters: u64) -> Self {
        self.limit = Some(letters);
        self
    }

    /// Whether to count only.
    #[must_use]
    pub fn with_dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// See [`Self::patience`].
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

/// What [`redrive_topic`] did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedriveReport {
    /// Letters that were taken back to their topic.
    pub redriven: u64,
    /// Letters that were in their topic already, as an earlier run was cut off between publishing and committing.
    pub found: u64,
    /// Letters that were buried a second time: the first one stands for both.
    pub repeats: u64,
    /// Letters of other services, which are left to them.
    pub others: u64,
    /// Records that are no letters of this topic.
    pub foreign: u64,
}

/// Takes the letters of `service` in `<topic>-dlq` back to `topic`: all that are there when it begins, so that what fails
/// again meanwhile is not taken again.
///
/// Letters of one key go in their own order, each after the broker holds the one before. Each goes once, also when it was
/// buried twice; each carries `redrive-for`, so that no other service handles it again. Letters of other services, and
/// records that are no letters, are passed over and stay.
///
/// How far it is, is what the group `<service>-redrive` has committed: so it goes on where an earlier run stopped, was cut
/// off or failed, and [`Admin::reset`] of that group makes it begin elsewhere. Before a chunk of letters is published the
/// group's commit says so; a run that finds such a mark looks into `topic` for what of that chunk is there.
///
/// Not cancel-safe in the sense that a dropped future may have published letters; the next run finds them, unless the
/// topic lets the broker set its records' time: then up to a chunk comes again, with the same event ids.
///
/// # Errors
/// [`Invalid`](ErrorKind::Invalid) for a patience of zero; [`NotFound`](ErrorKind::NotFound) when there is no `<topic>-dlq`; [`Conflict`](ErrorKind::Conflict) while another
/// redrive of this service and topic runs; those of [`Publisher::publish`], naming the letter, which is then the next one
/// again; [`Unavailable`](ErrorKind::Unavailable) while the broker is. Where a letter cannot be read, its cause, naming
/// partition and offset, when all before it and all other partitions are redriven; [`Admin::reset`] of the group goes on
/// beyond it. What was redriven before stays so: call again.
pub async fn redrive_topic(
    transport: &dyn Transport,
    topic: impl Into<Name>,
    service: impl Into<Name>,
    options: RedriveOptions,
) -> Result<RedriveReport> {
    if options.patience.is_zero() {
        return Err(Error::new(ErrorKind::Invalid, "redrive: its patience is zero"));
    }
    let mut run = Run::open(transport, topic.into(), service.into(), options).await?;
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

/// A redrive at work.
struct Run<'a> {
    transport: &'a dyn Transport,
    admin: Arc<dyn Admin>,
    publisher: Arc<dyn Publisher>,
    letters: Letters,
    topic: Name,
    service: Name,
    options: RedriveOptions,
    report: RedriveReport,
    /// The time that the latest chunk's records bear; no two chunks have the same.
    latest: i64,
}

impl<'a> Run<'a> {
    async fn open(transport: &'a dyn Transport, topic: Name, service: Name, options: RedriveOptions) -> Result<Self> {
        let admin = transport.admin().await?;
        let publisher = transport.publisher().await?;
        let source = dead_letter_topic(&topic);
        let group = Name::from(format!("{service}{REDRIVE_GROUP_SUFFIX}"));
        let letters = Letters::open(transport, &*admin, &source, &group, options.patience).await?;
        let report = RedriveReport::default();
        Ok(Self { transport, admin, publisher, letters, topic, service, options, report, latest: 0 })
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
        self.latest = places.iter().filter_map(|place| place.mark.map(|mark| mark.time)).max().unwrap_or(0);
        let mut chunk = Chunk::new(self.topic.clone(), self.service.clone());
        // A letter and its repeat need not lie in one partition: all of the past comes first.
        for place in &places {
            self.remember(&mut chunk, place).await?;
        }
        let mut held = None;
        for place in places {
            if !self.partition(&mut chunk, place).await? {
                break;
            }
            // The letters of the others are redriven all the same.
            held = held.or(self.letters.take_unreadable());
        }
        held.map_or(Ok(()), |unreadable| Err(cannot_be_read(&unreadable)))
    }

    /// Notes the letters of a partition that earlier runs have dealt with, as far as they can be read.
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

    /// Works through one partition; `false` at the limit.
    async fn partition(&mut self, chunk: &mut Chunk, mut place: Place) -> Result<bool> {
        while place.next < place.end {
            // What is in doubt is one chunk again, the same one.
            let doubt = place.mark.filter(|mark| mark.until > place.next);
            let until = doubt.map_or(place.end, |mark| mark.until.min(place.end));
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
            self.finish(chunk, &mut place, doubt, reached).await?;
            if self.letters.is_held() {
                break;
            }
        }
        Ok(true)
    }

    /// Publishes a chunk that reaches up to the offset `reached`, and commits behind it.
    async fn finish(&mut self, chunk: &mut Chunk, place: &mut Place, doubt: Option<Mark>, reached: u64) -> Result<()> {
        let mut letters = chunk.drain();
        if self.options.dry_run {
            self.report.redriven += letters.len() as u64;
            place.next = reached;
            return Ok(());
        }
        let mark = match doubt {
            Some(mark) => {
                let there = doubt::published(self.transport, &*self.admin, &self.topic, &self.service, mark.time);
                let there = there.await?;
                let before = letters.len();
                doubt::keep_absent(&mut letters, there);
                self.report.found += (before - letters.len()) as u64;
                mark
            }
            None => {
                self.latest = tidings_core::Timestamp::now().millis().max(self.latest + 1);
                Mark { time: self.latest, until: reached }
            }
        };
        if !letters.is_empty() {
            if doubt.is_none() {
                self.letters.commit(place, place.next, mark).await?;
            }
            let count = letters.len() as u64;
            chunk::publish(&*self.publisher, &place.at, letters, mark.time).await?;
            self.report.redriven += count;
        }
        self.letters.commit(place, reached, mark).await?;
        place.next = reached;
        place.mark = Some(mark);
        Ok(())
    }
}

fn cannot_be_read(unreadable: &Unreadable) -> Error {
    let Unreadable { partition, offset, error, .. } = unreadable;
    let text =
        format!("redrive the letters of {partition}: offset {offset} cannot be read, those before it are redriven");
    Error::caused_by(error.kind(), text, error.clone())
}

/// Adds where it happened.
fn about(at: &TopicPartition, offset: u64, error: Error) -> Error {
    let kind = error.kind();
    Error::caused_by(kind, format!("redrive the letter {at}@{offset}"), error)
}

/// Checks that the log of each partition is known: of a partition that is offline it is not, and must not be taken for empty.
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
    use super::*;

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
