//! Redriving of letters to their topics, under leases.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{DeadLetter, DeadLetterStore, Leased, LetterId, LetterLease, REDRIVE_LEASE, Resolution};
use crate::{Error, ErrorKind, Name, Publisher};

/// The result of redriving one letter.
#[derive(Debug)]
#[non_exhaustive]
pub enum RedriveOutcome {
    /// It is published and closed.
    Redriven,
    /// It was closed already, or was never buried: it is not published.
    Closed,
    /// Another redrive has it: it is not published.
    Held {
        /// The longest time until it is free.
        at_most: Duration,
    },
    /// An earlier letter of its key stays, and so does this one.
    Behind,
    /// It stays, for this cause: the publisher's or the store's error. After
    /// [`Indeterminate`](ErrorKind::Indeterminate) it may be published, or is published but not closed.
    Failed(Error),
}

impl RedriveOutcome {
    /// Returns whether the letter is published and closed.
    pub fn is_redriven(&self) -> bool {
        matches!(self, Self::Redriven)
    }

    /// Returns why the letter stays; `None` if it does not, or for another letter's sake.
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Failed(error) => Some(error),
            _ => None,
        }
    }
}

/// One run of redriving letters of a store: the building block of the verb `redrive`.
///
/// Each batch leases its letters, publishes them as [`DeadLetter::to_redrive`] builds them, and at its end closes those
/// that the broker holds.
///
/// A letter is redriven once, even by several runs at once and, where the store is shared, in several processes: one
/// that another run has leased, or that was closed since it was listed, is not published.
///
/// Within one run, letters of one topic and key are published in their order, one after the other's answer; behind one
/// that stays, the later ones stay. Across runs there is no order: of two runs that hold different letters of one
/// key, the run with the later letter may publish first.
///
/// A letter is published again, as a repeat with the same event id, if its first record arrived but the letter stayed
/// open. That happens when
/// - the publisher answers [`Indeterminate`](ErrorKind::Indeterminate): the record may still arrive, so the letter
///   stays leased, and other runs can redrive it once the lease's ttl has passed;
/// - the future is dropped, or the store fails after the publishing: other runs can redrive the letter after the ttl;
/// - the publisher takes longer than the ttl to answer.
///
/// Letters in topics are safer: a run that takes over a letter looks for its record in the letter's topic first.
#[derive(Debug)]
pub struct Redrive<'a> {
    store: &'a dyn DeadLetterStore,
    publisher: &'a dyn Publisher,
    resolution: Resolution,
    ttl: Duration,
    /// Keys of letters that stay in the store.
    staying: HashSet<(Name, Bytes)>,
}

impl<'a> Redrive<'a> {
    /// Creates a run of the person or program `by`.
    pub fn new(store: &'a dyn DeadLetterStore, publisher: &'a dyn Publisher, by: impl Into<String>) -> Self {
        let resolution = Resolution::redriven(by);
        Self { store, publisher, resolution, ttl: REDRIVE_LEASE, staying: HashSet::new() }
    }

    /// Sets the reason, for the store's records; empty by default.
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<String>) -> Self {
        self.resolution.reason = reason.into();
        self
    }

    /// Sets the ttl of the leases: [`REDRIVE_LEASE`] by default.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Redrives `letters`; outcome `i` is letter `i`'s, and a letter given twice is [`Closed`](RedriveOutcome::Closed)
    /// the second time. Dropping the future leaves letters leased, and published ones open.
    pub async fn batch(&mut self, letters: &[DeadLetter]) -> Vec<RedriveOutcome> {
        let outcomes = letters.iter().map(|_| None).collect();
        let lease = LetterLease::new(self.ttl);
        let mut batch = Batch { run: self, letters, lease, outcomes };
        let distinct = batch.distinct();
        let mut left = batch.without_staying(distinct);
        let (mut since, mut published) = (Instant::now(), Vec::new());
        while !left.is_empty() {
            // Closed while they are leased.
            if since.elapsed() > batch.lease.ttl / 2 {
                batch.close(&std::mem::take(&mut published)).await;
                since = Instant::now();
            }
            // Only what is published next is leased: of two runs that lease letters of one key, one goes on with it.
            let (round, later) = first_of_each_key(letters, &left);
            let granted = batch.lease(&round).await;
            published.extend(batch.publish(&granted).await);
            left = batch.without_staying(later);
        }
        batch.close(&published).await;
        batch.outcomes.into_iter().map(|outcome| outcome.unwrap_or(RedriveOutcome::Redriven)).collect()
    }
}

/// State of one batch.
struct Batch<'r, 'a> {
    run: &'r mut Redrive<'a>,
    letters: &'r [DeadLetter],
    lease: LetterLease,
    /// `None` for a letter that is under way, or redriven.
    outcomes: Vec<Option<RedriveOutcome>>,
}

impl Batch<'_, '_> {
    /// Returns the letters without repeats.
    fn distinct(&mut self) -> Vec<usize> {
        let mut seen = HashSet::new();
        let letters = self.letters.iter().enumerate();
        let (first, again): (Vec<_>, Vec<_>) = letters.partition(|(_, letter)| seen.insert(letter.id()));
        again.into_iter().for_each(|(i, _)| self.outcomes[i] = Some(RedriveOutcome::Closed));
        first.into_iter().map(|(i, _)| i).collect()
    }

    /// Leases letters, each of another key, and returns those that this run may publish.
    async fn lease(&mut self, round: &[usize]) -> Vec<usize> {
        let ids = self.ids(round);
        let mut leased = match self.run.store.lease(&ids, &self.lease).await {
            Ok(leased) => leased,
            Err(error) => {
                let report = error.report();
                let failed = || Error::new(error.kind(), format!("lease the letter: {report}"));
                round.iter().for_each(|&i| self.stays(i, RedriveOutcome::Failed(failed())));
                // The letters may have been leased, and the answer lost.
                self.give_back(round).await;
                return Vec::new();
            }
        };
        // A store that breaks its contract must not cause a letter to be published without a lease.
        leased.resize(round.len(), Leased::Closed);
        let mut granted = Vec::new();
        for (&i, answer) in round.iter().zip(leased) {
            match answer {
                Leased::Granted => granted.push(i),
                Leased::Held { at_most } => self.stays(i, RedriveOutcome::Held { at_most }),
                Leased::Closed => self.outcomes[i] = Some(RedriveOutcome::Closed),
            }
        }
        granted
    }

    /// Publishes letters, and gives back those that the broker refused. Returns those that it holds.
    async fn publish(&mut self, granted: &[usize]) -> Vec<usize> {
        if granted.is_empty() {
            return Vec::new();
        }
        let records = granted.iter().map(|&i| self.letters[i].to_redrive()).collect();
        let mut published = self.run.publisher.publish(records).await;
        let missing = || Err(Error::new(ErrorKind::Indeterminate, "publish: the publisher gave no answer"));
        published.resize_with(granted.len(), missing);
        let (mut held, mut refused) = (Vec::new(), Vec::new());
        for (&i, answer) in granted.iter().zip(published) {
            match answer {
                Ok(_) => held.push(i),
                Err(error) => {
                    // After `Indeterminate` the record may be on its way: the lease keeps other runs from publishing
                    // the letter meanwhile.
                    if error.kind() != ErrorKind::Indeterminate {
                        refused.push(i);
                    }
                    self.stays(i, RedriveOutcome::Failed(error));
                }
            }
        }
        self.give_back(&refused).await;
        held
    }

    async fn close(&mut self, published: &[usize]) {
        if published.is_empty() {
            return;
        }
        let closed = self.run.store.resolve_leased(&self.ids(published), &self.lease, &self.run.resolution).await;
        let (closed, report) = match closed {
            Ok(closed) => (closed, "its lease ended before, and another redrive or a discard has it".to_owned()),
            Err(error) => (Vec::new(), error.report()),
        };
        for (at, &i) in published.iter().enumerate() {
            if closed.get(at) != Some(&true) {
                let text = format!("the letter is published, but could not be closed: {report}");
                self.outcomes[i] = Some(RedriveOutcome::Failed(Error::new(ErrorKind::Indeterminate, text)));
            }
        }
    }

    async fn give_back(&self, letters: &[usize]) {
        if !letters.is_empty() {
            // If this fails, they are free after the lease's ttl.
            let _free_later = self.run.store.end_lease(&self.ids(letters), &self.lease).await;
        }
    }

    /// Records that a letter stays in the store, and holds back later ones of its key.
    fn stays(&mut self, letter: usize, outcome: RedriveOutcome) {
        self.run.staying.extend(key_of(&self.letters[letter]));
        self.outcomes[letter] = Some(outcome);
    }

    fn without_staying(&mut self, letters: Vec<usize>) -> Vec<usize> {
        let is_behind = |i: &usize| key_of(&self.letters[*i]).is_some_and(|key| self.run.staying.contains(&key));
        let (behind, left): (Vec<usize>, Vec<usize>) = letters.into_iter().partition(is_behind);
        behind.into_iter().for_each(|i| self.outcomes[i] = Some(RedriveOutcome::Behind));
        left
    }

    fn ids(&self, letters: &[usize]) -> Vec<LetterId> {
        letters.iter().map(|&i| self.letters[i].id()).collect()
    }
}

/// Returns the topic and key within which letters are ordered; a letter without a key has no order.
fn key_of(letter: &DeadLetter) -> Option<(Name, Bytes)> {
    letter.record.key.clone().map(|key| (letter.origin.topic.clone(), key))
}

/// Splits off the first letter of each key, and all letters without a key.
fn first_of_each_key(letters: &[DeadLetter], left: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let mut keys = HashSet::new();
    left.iter().partition(|&&i| key_of(&letters[i]).is_none_or(|key| keys.insert(key)))
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::Mutex;
    use std::task::{Context, Poll, Waker};

    use async_trait::async_trait;

    use super::*;
    use crate::{
        DeadLetterSink, Guarantees, LetterQuery, Position, Record, Result, StoredRecord, Timestamp, TopicPartition,
    };

    /// Publishes all but the refused offsets, and records the calls.
    #[derive(Debug, Default)]
    struct Fake {
        refused: Option<u64>,
        /// How a refused offset is answered: `TooLarge` if none is given.
        refusal: Option<ErrorKind>,
        /// The answers to leases of these offsets; others are granted.
        leases: Vec<(u64, Leased)>,
        calls: Mutex<Vec<String>>,
    }

    fn value(record: &Record) -> String {
        String::from_utf8(record.value.clone().unwrap_or_default().to_vec()).unwrap()
    }

    #[async_trait]
    impl Publisher for Fake {
        async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
            let values: Vec<_> = records.iter().map(value).collect();
            self.calls.lock().unwrap().push(format!("publish {}", values.join(" ")));
            let refuse = |v: &String| self.refused.is_some_and(|r| *v == r.to_string());
            let answer = |v: &String| match refuse(v) {
                true => Err(Error::new(self.refusal.unwrap_or(ErrorKind::TooLarge), "publish")),
                false => Ok(Position::new(0, 0)),
            };
            values.iter().map(answer).collect()
        }
        async fn close(&self, _: Duration) -> Result<()> {
            Ok(())
        }
        fn guarantees(&self) -> Guarantees {
            Guarantees::all()
        }
    }

    #[async_trait]
    impl DeadLetterSink for Fake {
        async fn bury(&self, _: Vec<DeadLetter>) -> Vec<Result<()>> {
            Vec::new()
        }
        async fn check(&self, _: &[Name]) -> Result<()> {
            Ok(())
        }
        fn guarantees(&self) -> Guarantees {
            Guarantees::all()
        }
    }

    #[async_trait]
    impl DeadLetterStore for Fake {
        async fn list(&self, _: &LetterQuery) -> Result<Vec<DeadLetter>> {
            Ok(Vec::new())
        }
        async fn resolve(&self, letters: &[LetterId], _: &Resolution) -> Result<Vec<bool>> {
            let offsets: Vec<_> = letters.iter().map(|l| l.offset.to_string()).collect();
            self.calls.lock().unwrap().push(format!("close {}", offsets.join(" ")));
            Ok(letters.iter().map(|_| true).collect())
        }
        async fn lease(&self, letters: &[LetterId], _: &LetterLease) -> Result<Vec<Leased>> {
            let answer = |id: &LetterId| self.leases.iter().find(|(offset, _)| *offset == id.offset).map(|(_, a)| *a);
            Ok(letters.iter().map(|id| answer(id).unwrap_or(Leased::Granted)).collect())
        }
        async fn end_lease(&self, letters: &[LetterId], _: &LetterLease) -> Result<()> {
            let offsets: Vec<_> = letters.iter().map(|l| l.offset.to_string()).collect();
            self.calls.lock().unwrap().push(format!("give back {}", offsets.join(" ")));
            Ok(())
        }
    }

    fn letter(offset: u64, key: Option<&'static str>) -> DeadLetter {
        let mut record = StoredRecord::new(offset, Timestamp::from_millis(0)).with_value(offset.to_string());
        record.key = key.map(Bytes::from);
        DeadLetter::new("svc", TopicPartition::new("t", 0), record, ErrorKind::Failed)
    }

    fn redriven(fake: &Fake, letters: &[DeadLetter]) -> Vec<RedriveOutcome> {
        let mut run = Redrive::new(fake, fake, "ann");
        let mut work = pin!(run.batch(letters));
        match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answers) => answers,
            Poll::Pending => panic!("the fake never waits"),
        }
    }

    fn texts(outcomes: &[RedriveOutcome]) -> Vec<&'static str> {
        let text = |outcome: &RedriveOutcome| match outcome {
            RedriveOutcome::Redriven => "redriven",
            RedriveOutcome::Closed => "closed",
            RedriveOutcome::Held { .. } => "held",
            RedriveOutcome::Behind => "behind",
            RedriveOutcome::Failed(error) => error.kind().as_str(),
        };
        outcomes.iter().map(text).collect()
    }

    #[test]
    fn letters_of_a_key_go_one_after_the_other() {
        let fake = Fake::default();
        let letters =
            [letter(1, Some("a")), letter(2, None), letter(3, Some("a")), letter(4, None), letter(5, Some("b"))];
        assert!(redriven(&fake, &letters).iter().all(RedriveOutcome::is_redriven));
        assert_eq!(*fake.calls.lock().unwrap(), ["publish 1 2 4 5", "publish 3", "close 1 2 4 5 3"]);
    }

    #[test]
    fn behind_a_letter_that_fails_the_later_ones_of_its_key_stay() {
        let fake = Fake { refused: Some(1), ..Fake::default() };
        let letters = [letter(1, Some("a")), letter(2, Some("b")), letter(3, Some("a"))];
        assert_eq!(texts(&redriven(&fake, &letters)), [ErrorKind::TooLarge.as_str(), "redriven", "behind"]);
        assert_eq!(*fake.calls.lock().unwrap(), ["publish 1 2", "give back 1", "close 2"]);
    }

    #[test]
    fn a_letter_whose_record_may_arrive_yet_stays_leased() {
        let fake = Fake { refused: Some(1), refusal: Some(ErrorKind::Indeterminate), ..Fake::default() };
        let answers = redriven(&fake, &[letter(1, Some("a")), letter(2, Some("b")), letter(3, Some("a"))]);
        assert_eq!(texts(&answers), [ErrorKind::Indeterminate.as_str(), "redriven", "behind"]);
        assert_eq!(*fake.calls.lock().unwrap(), ["publish 1 2", "close 2"]);
    }

    #[test]
    fn what_another_redrive_has_stays_and_holds_back_its_key() {
        let held = Leased::Held { at_most: Duration::from_secs(9) };
        let fake = Fake { leases: vec![(1, held), (2, Leased::Closed)], ..Fake::default() };
        let letters =
            [letter(0, Some("a")), letter(1, Some("a")), letter(2, Some("b")), letter(3, Some("a")), letter(5, None)];
        assert_eq!(texts(&redriven(&fake, &letters)), ["redriven", "held", "closed", "behind", "redriven"]);
        assert_eq!(*fake.calls.lock().unwrap(), ["publish 0 5", "close 0 5"]);
    }

    #[test]
    fn a_letter_given_twice_is_published_once() {
        let fake = Fake::default();
        let letters = [letter(1, None), letter(2, Some("a")), letter(1, None), letter(2, Some("a"))];
        assert_eq!(texts(&redriven(&fake, &letters)), ["redriven", "redriven", "closed", "closed"]);
        assert_eq!(*fake.calls.lock().unwrap(), ["publish 1 2", "close 1 2"]);
    }

    #[test]
    fn a_letter_that_stays_holds_back_its_key_in_later_batches() {
        let fake = Fake { refused: Some(1), ..Fake::default() };
        let (mut run, noop) = (Redrive::new(&fake, &fake, "ann"), Context::from_waker(Waker::noop()));
        let mut batch = |letters: &[DeadLetter]| {
            let (mut work, mut context) = (Box::pin(run.batch(letters)), Context::from_waker(noop.waker()));
            match work.as_mut().poll(&mut context) {
                Poll::Ready(outcomes) => texts(&outcomes),
                Poll::Pending => panic!("the fake never waits"),
            }
        };
        batch(&[letter(1, Some("a"))]);
        assert_eq!(batch(&[letter(2, Some("a")), letter(3, Some("b"))]), ["behind", "redriven"]);
    }
}
