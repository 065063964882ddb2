//! Redriving of letters to their topics.

use std::collections::HashSet;

use bytes::Bytes;

use super::{DeadLetter, DeadLetterStore, Leased, LetterId, LetterLease, REDRIVE_LEASE, Resolution};
use crate::{Error, ErrorKind, Name, Publisher, Result};

/// Redrives `letters` of `store` to their topics.
///
/// Leases each letter, publishes it as [`DeadLetter::to_redrive`] builds it, and closes it once the broker holds it.
/// Answer `i` is letter `i`'s; `by` is the person or program that redrives it.
///
/// A letter is redriven once, even by several calls at once and, where the store is shared, in several processes: one
/// that another redrive has leased, or that was closed since it was listed, is not published.
///
/// Within one call, letters of one topic and key are published in their order, one after the other's answer; behind one
/// that fails the later ones stay where they are. Across calls there is no order: of two calls that hold different letters
/// of one key, the call with the later letter may publish first. Redrive the letters of a key by one call at a time.
///
/// A letter is published again, as a repeat with the same event id, if its first record arrived but the letter stayed
/// open. That happens when
/// - the publisher answers [`Indeterminate`](ErrorKind::Indeterminate): the record may still arrive, so the letter stays
///   leased, and other calls can redrive it once [`REDRIVE_LEASE`] has passed;
/// - the future is dropped, or the store fails after the publishing: other calls can redrive the letter after the lease;
/// - the publisher takes longer than [`REDRIVE_LEASE`] to answer.
///
/// # Errors
/// Per letter, those of [`Publisher::publish`] and [`DeadLetterStore::lease`]. [`Conflict`](ErrorKind::Conflict): another
/// redrive has it. [`NotFound`](ErrorKind::NotFound): it is redriven or discarded already, or was never there.
/// [`Unavailable`](ErrorKind::Unavailable): an earlier letter of its key failed. [`Indeterminate`](ErrorKind::Indeterminate): it may
/// be published, or is published but could not be closed.
pub async fn redrive(
    store: &dyn DeadLetterStore,
    publisher: &dyn Publisher,
    letters: &[DeadLetter],
    by: &str,
) -> Vec<Result<()>> {
    let answers = letters.iter().map(|_| None).collect();
    let lease = LetterLease::new(REDRIVE_LEASE);
    let mut run = Run { store, letters, lease, answers, failed: HashSet::new() };
    let mut left: Vec<usize> = (0..letters.len()).collect();
    while !left.is_empty() {
        let (round, later) = first_of_each_key(letters, &left);
        let granted = run.lease(&round).await;
        let held = run.publish(publisher, &granted).await;
        run.close(&held, by).await;
        left = run.without_held_back(later);
    }
    run.answers.into_iter().map(|answer| answer.unwrap_or(Ok(()))).collect()
}

/// State of one call of [`redrive`].
struct Run<'a> {
    store: &'a dyn DeadLetterStore,
    letters: &'a [DeadLetter],
    lease: LetterLease,
    answers: Vec<Option<Result<()>>>,
    /// Keys of letters that stay in the store.
    failed: HashSet<(Name, Bytes)>,
}

impl Run<'_> {
    /// Leases the letters of `round` and returns those that this redrive may publish.
    async fn lease(&mut self, round: &[usize]) -> Vec<usize> {
        let ids = self.ids(round);
        let mut leased = match self.store.lease(&ids, &self.lease).await {
            Ok(leased) => leased,
            Err(error) => {
                let report = error.report();
                let failed = |_: &usize| Error::caused_by(error.kind(), "redrive: lease the letter", report.clone());
                round.iter().for_each(|&i| self.fail(i, failed(&i)));
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
                Leased::Held { at_most } => {
                    let text = format!("redrive: another redrive has the letter, for at most {at_most:?}");
                    self.fail(i, Error::new(ErrorKind::Conflict, text));
                }
                Leased::Closed => {
                    let text = "redrive: the letter is redriven or discarded already, or was never buried";
                    self.answers[i] = Some(Err(Error::new(ErrorKind::NotFound, text)));
                }
            }
        }
        granted
    }

    /// Publishes letters, and gives back those that the broker refused. Returns those that it holds.
    async fn publish(&mut self, publisher: &dyn Publisher, granted: &[usize]) -> Vec<usize> {
        if granted.is_empty() {
            return Vec::new();
        }
        let records = granted.iter().map(|&i| self.letters[i].to_redrive()).collect();
        let mut published = publisher.publish(records).await;
        published.resize_with(granted.len(), || Err(Error::new(ErrorKind::Indeterminate, "redrive: no answer")));
        let (mut held, mut refused) = (Vec::new(), Vec::new());
        for (&i, answer) in granted.iter().zip(published) {
            match answer {
                Ok(_) => held.push(i),
                Err(error) => {
                    // After `Indeterminate` the record may be on its way: the lease keeps other calls from publishing the
                    // letter meanwhile.
                    if error.kind() != ErrorKind::Indeterminate {
                        refused.push(i);
                    }
                    self.fail(i, error);
                }
            }
        }
        self.give_back(&refused).await;
        held
    }

    async fn close(&mut self, held: &[usize], by: &str) {
        if held.is_empty() {
            return;
        }
        let resolution = Resolution::Redriven { by: by.to_owned() };
        let closed = self.store.resolve_leased(&self.ids(held), &self.lease, &resolution).await;
        let (closed, report) = match closed {
            Ok(closed) => (closed, "its lease ended before, and another redrive or a discard has it".to_owned()),
            Err(error) => (Vec::new(), error.report()),
        };
        for (at, &i) in held.iter().enumerate() {
            if closed.get(at) != Some(&true) {
                let text = "redrive: it is published, but could not be closed";
                self.answers[i] = Some(Err(Error::caused_by(ErrorKind::Indeterminate, text, report.clone())));
            }
        }
    }

    async fn give_back(&self, letters: &[usize]) {
        if !letters.is_empty() {
            // If this fails, they are free after the lease's ttl.
            let _free_later = self.store.end_lease(&self.ids(letters), &self.lease).await;
        }
    }

    /// Records that a letter stays in the store, and holds back later ones of its key.
    fn fail(&mut self, letter: usize, error: Error) {
        self.failed.extend(key_of(&self.letters[letter]));
        self.answers[letter] = Some(Err(error));
    }

    fn without_held_back(&mut self, later: Vec<usize>) -> Vec<usize> {
        let is_behind = |i: &usize| key_of(&self.letters[*i]).is_some_and(|key| self.failed.contains(&key));
        let (behind, left): (Vec<usize>, Vec<usize>) = later.into_iter().partition(is_behind);
        for i in behind {
            let text = "redrive: an earlier letter of its key failed";
            self.answers[i] = Some(Err(Error::new(ErrorKind::Unavailable, text)));
        }
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

/// Splits off the first letter of each key. A letter given twice appears in a later round too: it is closed by then.
fn first_of_each_key(letters: &[DeadLetter], left: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let (mut keys, mut ids) = (HashSet::new(), HashSet::new());
    left.iter().partition(|&&i| match key_of(&letters[i]) {
        Some(key) => keys.insert(key),
        None => ids.insert(letters[i].id()),
    })
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::Mutex;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use async_trait::async_trait;

    use super::*;
    use crate::{DeadLetterSink, Guarantees, LetterQuery, Position, Record, StoredRecord, Timestamp, TopicPartition};

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

    fn redriven(fake: &Fake, letters: &[DeadLetter]) -> Vec<Result<()>> {
        let mut work = pin!(redrive(fake, fake, letters, "ann"));
        match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answers) => answers,
            Poll::Pending => panic!("the fake never waits"),
        }
    }

    #[test]
    fn letters_of_a_key_go_one_after_the_other() {
        let fake = Fake::default();
        let letters =
            [letter(1, Some("a")), letter(2, None), letter(3, Some("a")), letter(4, None), letter(5, Some("b"))];
        assert!(redriven(&fake, &letters).iter().all(Result::is_ok));
        assert_eq!(*fake.calls.lock().unwrap(), ["publish 1 2 4 5", "close 1 2 4 5", "publish 3", "close 3"]);
    }

    #[test]
    fn behind_a_letter_that_fails_the_later_ones_of_its_key_stay() {
        let fake = Fake { refused: Some(1), ..Fake::default() };
        let letters = [letter(1, Some("a")), letter(2, Some("b")), letter(3, Some("a"))];
        let answers = redriven(&fake, &letters);
        let kinds: Vec<_> = answers.iter().map(|a| a.as_ref().err().map(Error::kind)).collect();
        assert_eq!(kinds, [Some(ErrorKind::TooLarge), None, Some(ErrorKind::Unavailable)]);
        assert_eq!(*fake.calls.lock().unwrap(), ["publish 1 2", "give back 1", "close 2"]);
    }

    #[test]
    fn a_letter_whose_record_may_arrive_yet_stays_leased() {
        let fake = Fake { refused: Some(1), refusal: Some(ErrorKind::Indeterminate), ..Fake::default() };
        let answers = redriven(&fake, &[letter(1, Some("a")), letter(2, Some("b")), letter(3, Some("a"))]);
        let kinds: Vec<_> = answers.iter().map(|a| a.as_ref().err().map(Error::kind)).collect();
        assert_eq!(kinds, [Some(ErrorKind::Indeterminate), None, Some(ErrorKind::Unavailable)]);
        assert_eq!(*fake.calls.lock().unwrap(), ["publish 1 2", "close 2"]);
    }

    #[test]
    fn what_another_redrive_has_stays_and_holds_back_its_key() {
        let held = Leased::Held { at_most: Duration::from_secs(9) };
        let fake = Fake { leases: vec![(1, held), (2, Leased::Closed)], ..Fake::default() };
        let letters =
            [letter(1, Some("a")), letter(2, Some("b")), letter(3, Some("a")), letter(4, Some("b")), letter(5, None)];
        let answers = redriven(&fake, &letters);
        let kinds: Vec<_> = answers.iter().map(|a| a.as_ref().err().map(Error::kind)).collect();
        let (held, behind) = (Some(ErrorKind::Conflict), Some(ErrorKind::Unavailable));
        assert_eq!(kinds, [held, Some(ErrorKind::NotFound), behind, None, None]);
        assert_eq!(*fake.calls.lock().unwrap(), ["publish 5", "close 5", "publish 4", "close 4"]);
    }
}
