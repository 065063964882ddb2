//! Taking letters back to their topics.

use std::collections::HashSet;

use bytes::Bytes;

use super::{DeadLetter, DeadLetterStore, LetterId, Resolution};
use crate::{Error, ErrorKind, Name, Publisher, Result};

/// Takes `letters` of `store` back to their topics: publishes each as [`DeadLetter::to_redrive`] makes it, and closes it
/// once the broker holds it. Answer `i` is letter `i`'s; `by` is who does it.
///
/// Letters of one topic and key are published in their order, one after the other's answer; behind one that fails the
/// later ones stay where they are. A dropped future, or a store that fails after the publishing, leaves letters open that
/// are in their topics: redriven again they are repeats with the same event ids.
///
/// # Errors
/// Per letter, those of [`Publisher::publish`]. [`Unavailable`](ErrorKind::Unavailable): an earlier letter of its key
/// failed. [`Unknown`](ErrorKind::Unknown): it is published, but could not be closed.
pub async fn redrive(
    store: &dyn DeadLetterStore,
    publisher: &dyn Publisher,
    letters: &[DeadLetter],
    by: &str,
) -> Vec<Result<()>> {
    let mut answers: Vec<Option<Result<()>>> = letters.iter().map(|_| None).collect();
    let mut left: Vec<usize> = (0..letters.len()).collect();
    let mut failed = HashSet::new();
    while !left.is_empty() {
        let (round, later) = first_of_each_key(letters, &left);
        let records = round.iter().map(|&i| letters[i].to_redrive()).collect();
        let mut published = publisher.publish(records).await;
        published.resize_with(round.len(), || Err(Error::new(ErrorKind::Unknown, "redrive: no answer")));
        let mut held = Vec::new();
        for (&i, answer) in round.iter().zip(published) {
            match answer {
                Ok(_) => held.push(i),
                Err(error) => {
                    failed.extend(key_of(&letters[i]));
                    answers[i] = Some(Err(error));
                }
            }
        }
        close(store, letters, &held, by, &mut answers).await;
        let (behind, next) = later.into_iter().partition(|&i| key_of(&letters[i]).is_some_and(|k| failed.contains(&k)));
        left = next;
        for i in behind {
            answers[i] = Some(Err(Error::new(ErrorKind::Unavailable, "redrive: an earlier letter of its key failed")));
        }
    }
    answers.into_iter().map(|answer| answer.unwrap_or(Ok(()))).collect()
}

async fn close(
    store: &dyn DeadLetterStore,
    letters: &[DeadLetter],
    held: &[usize],
    by: &str,
    answers: &mut [Option<Result<()>>],
) {
    let ids: Vec<LetterId> = held.iter().map(|&i| letters[i].id()).collect();
    if ids.is_empty() {
        return;
    }
    let Err(error) = store.resolve(&ids, &Resolution::Redriven { by: by.to_owned() }).await else { return };
    let report = error.report();
    for &i in held {
        let text = "redrive: it is published, but could not be closed";
        answers[i] = Some(Err(Error::caused_by(ErrorKind::Unknown, text, report.clone())));
    }
}

/// What is ordered among itself; a letter without a key is ordered with nothing.
fn key_of(letter: &DeadLetter) -> Option<(Name, Bytes)> {
    letter.record.key.clone().map(|key| (letter.origin.topic.clone(), key))
}

fn first_of_each_key(letters: &[DeadLetter], left: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let mut seen = HashSet::new();
    left.iter().partition(|&&i| key_of(&letters[i]).is_none_or(|key| seen.insert(key)))
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

    /// Publishes all but the offsets that are refused, and notes what was called.
    #[derive(Debug, Default)]
    struct Fake {
        refused: Option<u64>,
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
                true => Err(Error::new(ErrorKind::TooLarge, "publish")),
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
        assert_eq!(*fake.calls.lock().unwrap(), ["publish 1 2", "close 2"]);
    }
}
