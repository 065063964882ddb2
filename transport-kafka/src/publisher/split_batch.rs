//! Resends records whose batches were refused, each alone.
//!
//! A broker refuses a batch for one record, and the client does not report which. So each record is sent again in a batch
//! of its own: the bad one is refused once more, the others are stored. Order decides which of them
//! may be sent: a record with a key is not, once a later record of that key is stored.

use std::collections::HashSet;

use tidings_core::{Error, ErrorKind, Headers, Name, Position, Record, Result};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::queue_job::{Enqueued, JobQueue, QueueJob, Resend};
use super::{closed, gone};

/// Outcome of a record of a call.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) record: Record,
    pub(super) enqueued: Enqueued,
    pub(super) answer: Result<Position>,
    /// Its batch was refused, because of another record or of this one.
    pub(super) refused: bool,
}

impl Outcome {
    /// Checks whether it belongs to the same partition as a record to resend.
    fn same_partition_as(&self, resend: &Resend) -> bool {
        self.enqueued.partition == resend.enqueued.partition && self.record.topic == resend.record.topic
    }

    /// Records without a key have no order to keep.
    fn has_key_of(&self, resend: &Resend) -> bool {
        self.record.key.is_some() && self.record.key == resend.record.key
    }
}

/// Removes the parts that are only needed to resend the record.
pub(super) fn drop_payload(record: &mut Record) {
    record.value = None;
    if !record.headers.is_empty() {
        record.headers = Headers::default();
    }
}

/// Resends, each in a batch of its own, the records whose batches were refused because of one of their records (P1).
///
/// None of them was stored, so those that are not resent end as unavailable: all records of a partition that does not
/// answer, because the next one would wait for as long, and those whose turn comes after `deadline`.
pub(super) async fn resend_each(job_queue: &JobQueue, deadline: Instant, outcomes: &mut [Option<Outcome>]) {
    let mut silent = HashSet::new();
    for index in 0..outcomes.len() {
        let Some(Outcome { record, enqueued, refused: true, answer }) = &outcomes[index] else { continue };
        let too_large = answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::TooLarge);
        let mut resend = Resend { record: record.clone(), enqueued: *enqueued, too_large };
        let partition = (resend.record.topic.clone(), resend.enqueued.partition);
        let later = || outcomes[index + 1..].iter().flatten().filter(|later| later.same_partition_as(&resend));
        let outcome = if later().any(|later| later.answer.is_ok() && later.has_key_of(&resend)) {
            Err(overtaken(&partition.0))
        } else if silent.contains(&partition) || Instant::now() >= deadline {
            Err(not_resent(&partition.0))
        } else {
            // No later record of this key in this call is stored: only records of other calls may have overtaken it.
            let behind = later().map(|later| later.enqueued.ordinal).max().unwrap_or(0);
            resend.enqueued.ordinal = behind.max(resend.enqueued.ordinal);
            match alone(job_queue, resend, deadline).await {
                Some(answer) => {
                    let kind = answer.as_ref().err().map(Error::kind);
                    if matches!(kind, Some(ErrorKind::Indeterminate | ErrorKind::Unavailable)) {
                        silent.insert(partition);
                    }
                    answer
                }
                None => Err(overtaken(&partition.0)),
            }
        };
        if let Some(resent) = &mut outcomes[index] {
            resent.answer = outcome;
        }
    }
}

/// Sends a record alone; returns nothing if it was overtaken.
///
/// `Some(Err)` if the publisher was closed or its thread is gone.
async fn alone(job_queue: &JobQueue, resend: Resend, deadline: Instant) -> Option<Result<Position>> {
    let (reply, answer) = oneshot::channel();
    if !job_queue.push(QueueJob::Alone { resend, deadline, reply }) {
        return Some(Err(closed()));
    }
    match answer.await {
        Ok(answer) => Some(answer?.await),
        Err(_) => Some(Err(gone())),
    }
}

/// Returns the error of a record whose batch was refused, and that may not be resent alone.
fn overtaken(topic: &Name) -> Error {
    let what =
        "not stored: its batch was refused because of another record, and later records of its partition were queued";
    Error::new(ErrorKind::Unavailable, format!("publish to {topic:?}: {what}"))
}

/// Returns the error of a record whose batch was refused, and that was not resent alone.
pub(super) fn not_resent(topic: &Name) -> Error {
    let what = "not stored: its batch was refused, and it could not be resent alone in time";
    Error::new(ErrorKind::Unavailable, format!("publish to {topic:?}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::ready;
    use std::time::Duration;

    use futures_util::FutureExt;

    /// Returns the outcome of a record whose batch was refused.
    fn refused((value, partition): &(&'static str, u32)) -> Option<Outcome> {
        let enqueued = Enqueued { partition: *partition, ordinal: 1, max_batch_bytes: None };
        let answer = Err(Error::new(ErrorKind::Invalid, "its batch"));
        Some(Outcome { record: Record::new("t", *value), enqueued, answer, refused: true })
    }

    /// Returns the outcomes of resent records, and which records are sent, where `answer` is the broker's answer.
    async fn sent_again(
        records: &[(&'static str, u32)],
        answer: impl Fn(&str) -> Option<Result<Position>> + Send + 'static,
    ) -> (Vec<Result<(), ErrorKind>>, Vec<String>) {
        let (job_queue, mut queue, _) = JobQueue::new();
        let brokers = tokio::spawn(async move {
            let mut sent = Vec::new();
            while let Some(job) = queue.recv().await {
                let QueueJob::Alone { resend, reply, .. } = job else { continue };
                let value = String::from_utf8_lossy(resend.record.value.as_deref().unwrap_or_default()).into_owned();
                let answer = answer(&value).map(|answer| ready(answer).boxed());
                let answer = answer.map(|answer| tokio::time::sleep(Duration::from_secs(1)).then(|()| answer).boxed());
                sent.push(value);
                drop(reply.send(answer));
            }
            sent
        });
        let mut outcomes: Vec<Option<Outcome>> = records.iter().map(refused).collect();
        resend_each(&job_queue, Instant::now() + Duration::from_secs(5), &mut outcomes).await;
        drop(job_queue);
        let kinds = outcomes.into_iter().flatten().map(|outcome| outcome.answer.map(drop).map_err(|e| e.kind()));
        (kinds.collect(), brokers.await.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_partition_that_does_not_answer_is_not_asked_again() {
        let records = [("a", 0), ("dead", 0), ("b", 0), ("c", 1), ("bad", 1), ("d", 1), ("e", 0)];
        for kind in [ErrorKind::Indeterminate, ErrorKind::Unavailable] {
            let (kinds, sent) = sent_again(&records, move |value| {
                Some(match value {
                    "dead" => Err(Error::new(kind, "it is dead")),
                    "bad" => Err(Error::new(ErrorKind::Invalid, "it is bad")),
                    _ => Ok(Position::new(0, 0)),
                })
            })
            .await;
            let unsent = Err(ErrorKind::Unavailable);
            assert_eq!(kinds, [Ok(()), Err(kind), unsent, Ok(()), Err(ErrorKind::Invalid), Ok(()), unsent]);
            assert_eq!(sent, ["a", "dead", "c", "bad", "d"]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_overtaken_keeps_no_other_from_being_sent() {
        let (kinds, sent) = sent_again(&[("late", 0), ("a", 0)], |value| match value {
            "late" => None,
            _ => Some(Ok(Position::new(0, 0))),
        })
        .await;
        assert_eq!((kinds, sent.len()), (vec![Err(ErrorKind::Unavailable), Ok(())], 2));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_sent_again_after_the_deadline() {
        let (kinds, sent) = sent_again(&[("a", 0); 9], |_| Some(Ok(Position::new(0, 0)))).await;
        assert_eq!((kinds.iter().filter(|kind| kind.is_ok()).count(), sent.len()), (5, 5), "{kinds:?}");
        assert!(kinds[5..].iter().all(|kind| *kind == Err(ErrorKind::Unavailable)), "{kinds:?}");
    }
}
