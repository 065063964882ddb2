//! The publisher: places records, keeps what is unanswered within its bound, and gives each record its own outcome.

mod bound;
mod places;
mod queue;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foldhash::fast::RandomState;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tidings_core::{Error, ErrorKind, Guarantees, Headers, Name, Position, Publisher, Record, Result, async_trait};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use self::queue::{Again, Job, Queue, Sent, Shared, overtaken, untried};
use crate::config::KafkaConfig;
use crate::seam::connection::{Connection, Role};
use crate::seam::producer::{Producer, Refusal};

/// Publishes to Kafka: idempotent, and acknowledged by all replicas in sync.
///
/// A header's name must be UTF-8. Where the broker confirms a record as a repeat without telling where it lies, the
/// position's offset is `u64::MAX`.
///
/// That a topic grew is learned within [`KafkaConfig::metadata_max_age`], and at once where a record names a partition that
/// is not known: it ends as [`Unavailable`](ErrorKind::Unavailable) while no broker tells whether it is there.
///
/// A broker refuses a batch as a whole for one of its records, such as one without a key for a compacted topic, or because
/// together they are larger than the topic's limit. Its records are then sent again, each by itself, which is slow: let
/// [`KafkaConfig::batch_bytes`] be no more than the topics take. But one with a key ends as
/// [`Unavailable`](ErrorKind::Unavailable), not stored, where a later one of its key is stored, or where other calls queued
/// records for its partition behind it: it would come after them. So do those whose turn has not come within
/// another [`KafkaConfig::delivery_timeout`], and those of a partition that stopped answering.
#[derive(Debug)]
pub struct KafkaPublisher {
    // In the order of first polls, whoever is polled again or not.
    jobs: mpsc::UnboundedSender<Job>,
    shared: Arc<Shared>,
    /// New calls are refused.
    closed: AtomicBool,
}

impl KafkaPublisher {
    pub(crate) async fn open(config: &KafkaConfig) -> Result<Self> {
        let connection = Connection::open(config, Role::Publishing).await?;
        let shared = Arc::new(Shared::new(Producer::open(&connection, config).await?, config));
        let (jobs, queue) = mpsc::unbounded_channel();
        tokio::spawn(Queue::new(Arc::clone(&shared), config).run(queue));
        Ok(Self { jobs, shared, closed: AtomicBool::new(false) })
    }
}

/// What came of a record of a call.
#[derive(Debug)]
struct Outcome {
    answer: Result<Position>,
    /// Without its value and headers, unless it is to be sent again: what is answered keeps no share of the bound.
    sent: Again,
    /// Its batch was refused for another record's sake, or for its own.
    refused: bool,
}

impl Outcome {
    fn new(mut sent: Again, answer: Result<Position, Refusal>) -> Self {
        let (answer, refused) = match answer {
            Ok(position) => (Ok(position), false),
            Err(refusal) => (Err(refusal.error), refusal.batch),
        };
        if !refused {
            sent.record.value = None;
            sent.record.headers = Headers::default();
        }
        Self { answer, sent, refused }
    }

    /// Whether it is of the same partition as a record that is to be sent again.
    fn is_beside(&self, again: &Again) -> bool {
        self.sent.partition == again.partition && self.sent.record.topic == again.record.topic
    }

    fn has_key_of(&self, again: &Again) -> bool {
        self.sent.record.key.is_some() && self.sent.record.key == again.record.key
    }
}

/// Awaits the answers of one partition, which come in the order of its records, and most often together.
async fn lane(sent: Vec<(usize, Record, Sent)>) -> Vec<(usize, Outcome)> {
    let mut outcomes = Vec::with_capacity(sent.len());
    for (place, record, Sent { unanswered, partition, number }) in sent {
        let answer = unanswered.answer().await;
        outcomes.push((place, Outcome::new(Again { record, partition, number }, answer)));
    }
    outcomes
}

/// Sends those records again, each in a batch of its own, whose batches were refused for one of their records (P1).
///
/// None was stored, so those that are not sent any more end as unavailable: of a partition all, once it does not answer,
/// since the next one would wait for as long; and those whose turn comes after `deadline`.
async fn resend(jobs: &mpsc::UnboundedSender<Job>, deadline: Instant, outcomes: &mut [Option<Outcome>]) {
    let mut silent = HashSet::new();
    for place in 0..outcomes.len() {
        let Some(Outcome { sent, refused: true, .. }) = &outcomes[place] else { continue };
        let mut again = sent.clone();
        let partition = (again.record.topic.clone(), again.partition);
        let later = || outcomes[place + 1..].iter().flatten().filter(|later| later.is_beside(&again));
        let outcome = if later().any(|later| later.answer.is_ok() && later.has_key_of(&again)) {
            Err(overtaken(&partition.0))
        } else if silent.contains(&partition) || Instant::now() >= deadline {
            Err(untried(&partition.0))
        } else {
            // Of this call nothing of its key behind it is stored: only other calls' records may have overtaken it.
            again.number = later().map(|later| later.sent.number).max().unwrap_or(0).max(again.number);
            match alone(jobs, again, deadline).await {
                Some(answer) => {
                    let kind = answer.as_ref().err().map(Error::kind);
                    if matches!(kind, Some(ErrorKind::Unknown | ErrorKind::Unavailable)) {
                        silent.insert(partition);
                    }
                    answer
                }
                None => Err(overtaken(&partition.0)),
            }
        };
        if let Some(place) = &mut outcomes[place] {
            place.answer = outcome;
        }
    }
}

/// Nothing where it was overtaken.
async fn alone(jobs: &mpsc::UnboundedSender<Job>, again: Again, deadline: Instant) -> Option<Result<Position>> {
    let (reply, answer) = oneshot::channel();
    if jobs.send(Job::Alone { again, deadline, reply }).is_err() {
        return Some(Err(closed()));
    }
    match answer.await {
        Ok(answer) => Some(answer?.await),
        Err(_) => Some(Err(gone())),
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "publish: the publisher is closed")
}

fn gone() -> Error {
    Error::new(ErrorKind::Unknown, "publish: the publisher ended before it was known what came of the record")
}

#[async_trait]
impl Publisher for KafkaPublisher {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let count = records.len();
        let refused = || (0..count).map(|_| Err(closed())).collect();
        if self.closed.load(Ordering::Acquire) {
            return refused();
        }
        let (reply, mut queued) = mpsc::unbounded_channel();
        // Given back when this future is dropped before its turn: what waits at the bound is held by its callers alone.
        let call = queue::Call::new(records);
        if self.jobs.send(Job::Publish { call: call.share(), since: Instant::now(), reply }).is_err() {
            return refused();
        }
        let mut outcomes: Vec<Option<Outcome>> = (0..count).map(|_| None).collect();
        let mut failed: Vec<(usize, Error)> = Vec::new();
        // By partition, so that one whose leader is slow keeps no other's share of the bound; and all at once, also while
        // the rest of the call waits at the bound, which nobody else can make room in.
        let mut lanes = FuturesUnordered::new();
        let (mut come, mut coming) = (0, true);
        while coming || !lanes.is_empty() {
            tokio::select! {
                biased;
                some = queued.recv(), if coming => match some {
                    Some(queued) => {
                        let mut by_partition: HashMap<(Name, u32), Vec<(usize, Record, Sent)>, RandomState> =
                            HashMap::default();
                        for (record, sent) in queued {
                            match sent {
                                Ok(sent) => {
                                    let partition = (record.topic.clone(), sent.partition);
                                    by_partition.entry(partition).or_default().push((come, record, sent));
                                }
                                Err(error) => failed.push((come, error)),
                            }
                            come += 1;
                        }
                        lanes.extend(by_partition.into_values().map(lane));
                    }
                    None => coming = false,
                },
                Some(answered) = lanes.next() => {
                    answered.into_iter().for_each(|(place, outcome)| outcomes[place] = Some(outcome));
                }
            }
        }
        resend(&self.jobs, Instant::now() + self.shared.delivery_timeout, &mut outcomes).await;
        let mut answers: Vec<Result<Position>> = outcomes
            .into_iter()
            // Nothing was told where the task is gone, with the runtime that it ran on.
            .map(|outcome| outcome.map_or_else(|| Err(if call.is_taken() { gone() } else { closed() }), |o| o.answer))
            .collect();
        failed.into_iter().for_each(|(place, error)| answers[place] = Err(error));
        answers
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let ends = Instant::now() + deadline;
        let (reply, all_queued) = oneshot::channel();
        if self.jobs.send(Job::Barrier(reply)).is_ok() {
            let _in_time = timeout_at(ends, all_queued).await;
        }
        self.shared.abandon();
        self.shared.producer.close(ends.saturating_duration_since(Instant::now())).await
    }

    fn guarantees(&self) -> Guarantees {
        crate::transport::guarantees()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::ready;

    use futures_util::FutureExt;

    fn refusal(batch: bool) -> Refusal {
        Refusal { error: Error::new(ErrorKind::Invalid, "its batch"), batch }
    }

    /// What came of a record whose batch was refused.
    fn refused((value, partition): &(&'static str, u32)) -> Option<Outcome> {
        let sent = Again { record: Record::new("t", *value), partition: *partition, number: 1 };
        Some(Outcome::new(sent, Err(refusal(true))))
    }

    /// A call lasts as long as its slowest record, and the bound has room again as soon as one is answered.
    #[test]
    fn what_is_answered_keeps_no_payload() {
        let record = Record::new("t", "value").with_key("k").with_header("h", "1");
        let outcome = |answer| Outcome::new(Again { record: record.clone(), partition: 0, number: 1 }, answer);
        for answered in [outcome(Ok(Position::new(0, 0))), outcome(Err(refusal(false)))] {
            assert_eq!((answered.sent.record.value, answered.sent.record.headers.len()), (None, 0));
        }
        assert_eq!(outcome(Err(refusal(true))).sent.record, record);
    }

    /// What becomes of records that are sent again, and which of them are sent, where `answer` is what a broker says.
    async fn sent_again(
        records: &[(&'static str, u32)],
        answer: impl Fn(&str) -> Option<Result<Position>> + Send + 'static,
    ) -> (Vec<Result<(), ErrorKind>>, Vec<String>) {
        let (jobs, mut queue) = mpsc::unbounded_channel();
        let brokers = tokio::spawn(async move {
            let mut sent = Vec::new();
            while let Some(job) = queue.recv().await {
                let Job::Alone { again, reply, .. } = job else { continue };
                let value = String::from_utf8_lossy(again.record.value.as_deref().unwrap_or_default()).into_owned();
                let answer = answer(&value).map(|answer| ready(answer).boxed());
                let answer = answer.map(|answer| tokio::time::sleep(Duration::from_secs(1)).then(|()| answer).boxed());
                sent.push(value);
                drop(reply.send(answer));
            }
            sent
        });
        let mut outcomes: Vec<Option<Outcome>> = records.iter().map(refused).collect();
        resend(&jobs, Instant::now() + Duration::from_secs(5), &mut outcomes).await;
        drop(jobs);
        let kinds = outcomes.into_iter().flatten().map(|outcome| outcome.answer.map(drop).map_err(|e| e.kind()));
        (kinds.collect(), brokers.await.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_partition_that_does_not_answer_is_not_asked_again() {
        let records = [("a", 0), ("dead", 0), ("b", 0), ("c", 1), ("bad", 1), ("d", 1), ("e", 0)];
        for kind in [ErrorKind::Unknown, ErrorKind::Unavailable] {
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
