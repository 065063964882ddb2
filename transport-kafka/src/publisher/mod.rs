//! The publisher: places records, keeps what is unanswered within its bound, and gives each record its own outcome.

mod bound;
mod halves;
mod holds;
mod lane;
mod line;
mod places;
mod queue;
mod resend;
mod turn;
mod worker;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tidings_core::{Error, ErrorKind, Guarantees, Position, Publisher, Record, Result, async_trait};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, timeout_at};

use self::halves::Halves;
use self::line::{Call, Job, Line, Placed, Publish, Queued};
use self::queue::Shared;
use self::resend::{Outcome, resend, slim};
use crate::config::KafkaConfig;
use crate::seam::producer::Refusal;

/// Publishes to Kafka: idempotent, and acknowledged by all replicas in sync.
///
/// A header's name must be UTF-8. Where the broker confirms a record as a repeat without telling where it lies, the
/// position's offset is `u64::MAX`.
///
/// That a topic grew is learned within [`KafkaConfig::metadata_max_age`], and at once where a record names a partition that
/// is not known: it ends as [`Unavailable`](ErrorKind::Unavailable) while no broker tells whether it is there.
///
/// A broker refuses a batch as a whole for one of its records, such as one without a key for a compacted topic. Its records are
/// then sent again, each by itself, which is slow. One with a key ends as [`Unavailable`](ErrorKind::Unavailable), not stored,
/// where a later one of its key is stored, or where other calls queued records for its partition behind it: it would come
/// after them. So do those whose turn has not come within another [`KafkaConfig::delivery_timeout`], and those of a partition
/// that stopped answering.
///
/// A topic that takes less than [`KafkaConfig::batch_bytes`] gets smaller batches. Its limit is asked for, which needs the
/// right to describe its configuration; without it the limit is found out, at the cost of some batches that are refused.
///
/// A record of more than 10,000 headers, which is what the client sends, is [`Invalid`](ErrorKind::Invalid).
///
/// A client's producer that has ended, as its identity was refused, is replaced: what it had under way ends as
/// [`Indeterminate`](ErrorKind::Indeterminate), what it did not take as [`Unavailable`](ErrorKind::Unavailable).
///
/// It works on threads of its own, also when the runtime that opened it has ended. Dropped without
/// [`close`](Publisher::close), it still sends what was queued, until all of it is answered.
#[derive(Debug)]
pub struct KafkaPublisher {
    // In the order of first polls, whoever is polled again or not.
    line: Line,
    shared: Arc<Shared>,
    /// New calls are refused.
    closed: AtomicBool,
    /// What came of the close, which is one however often it is asked for.
    ending: OnceLock<watch::Receiver<Option<Ended>>>,
}

/// How a close ended: all was answered, or why not.
type Ended = std::result::Result<(), Arc<Error>>;

impl KafkaPublisher {
    pub(crate) async fn open(config: &KafkaConfig) -> Result<Self> {
        let shared = Arc::new(Shared::new(Halves::open(config).await?, config));
        let (line, jobs, length) = Line::new();
        shared.halves.spawn(queue::run(Arc::clone(&shared), jobs, length));
        Ok(Self { line, shared, closed: AtomicBool::new(false), ending: OnceLock::new() })
    }

    /// Begins to close; what came of it comes back.
    fn end(&self, ends: Instant) -> watch::Receiver<Option<Ended>> {
        let shared = Arc::clone(&self.shared);
        let (reply, all_queued) = oneshot::channel();
        let in_line = self.line.get_in(Job::Barrier(reply));
        let (done, ending) = watch::channel(None);
        // A task of its own, which goes on when nobody waits for it any more.
        self.shared.halves.spawn(async move {
            if in_line {
                let _in_time = timeout_at(ends, all_queued).await;
            }
            shared.abandon();
            let ended = shared.halves.close(ends).await.map_err(Arc::new);
            done.send_replace(Some(ended));
        });
        ending
    }
}

/// What a close that may take for ever is given.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3_600);
/// What a call of close waits for beyond its end: to hear that all was answered in time, or what was not.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// What is known of a call's records by now.
#[derive(Debug, Default)]
struct Progress {
    /// Those that were queued: one that is answered has no value and no headers, unless it is to be sent again, as a call
    /// lasts as long as its slowest record and what is answered has no share of the bound.
    records: Vec<Record>,
    placed: Vec<Placed>,
    answers: Vec<Option<Result<Position>>>,
    /// The places of those whose batches were refused, for another record's sake or for their own.
    refused: Vec<usize>,
}

impl Progress {
    fn of(count: usize) -> Self {
        Self { answers: (0..count).map(|_| None).collect(), ..Self::default() }
    }

    fn add(&mut self, queued: Queued) {
        append(&mut self.records, queued.records);
        append(&mut self.placed, queued.placed);
        for (place, error) in queued.failed {
            self.answer(place, Err(Refusal { error, batch: false }));
        }
    }

    fn answer(&mut self, place: usize, answer: Result<Position, Refusal>) {
        let refused = answer.as_ref().is_err_and(|refusal| refusal.batch);
        if refused {
            self.refused.push(place);
        } else if let Some(record) = self.records.get_mut(place) {
            slim(record);
        }
        if let Some(known) = self.answers.get_mut(place) {
            *known = Some(answer.map_err(|refusal| refusal.error));
        }
    }

    /// What became of each record, where some may be sent again.
    fn into_outcomes(self) -> Vec<Option<Outcome>> {
        let mut answers = self.answers.into_iter();
        let sent = self.records.into_iter().zip(self.placed).zip(answers.by_ref());
        let mut outcomes: Vec<Option<Outcome>> = sent
            .map(|((record, placed), answer)| answer.map(|answer| Outcome { record, placed, answer, refused: false }))
            .collect();
        outcomes.extend(answers.map(|_| None));
        for place in self.refused {
            outcomes.get_mut(place).into_iter().flatten().for_each(|outcome| outcome.refused = true);
        }
        outcomes
    }
}

fn append<T>(to: &mut Vec<T>, mut more: Vec<T>) {
    if to.is_empty() {
        *to = more;
    } else {
        to.append(&mut more);
    }
}

/// What waits at the bound or for a topic is given up: nobody waits for it any more.
impl Drop for KafkaPublisher {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "publish: the publisher is closed")
}

fn gone() -> Error {
    Error::new(ErrorKind::Indeterminate, "publish: the publisher ended before it was known what came of the record")
}

#[async_trait]
impl Publisher for KafkaPublisher {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let count = records.len();
        if self.closed.load(Ordering::Acquire) {
            consume_budget().await;
            return (0..count).map(|_| Err(closed())).collect();
        }
        let mut progress = Progress::of(count);
        let (mut call, mut rest) = (None, None);
        let (answers, mut answered) = mpsc::unbounded_channel();
        let (queued, in_line) = self.shared.queue_at_once(&self.line, records, &answers, |next| {
            let (reply, coming) = mpsc::unbounded_channel();
            rest = Some(coming);
            // Given back when it is dropped before its turn: what waits at the bound is held by its callers alone.
            let call = call.insert(Call::new(next)).share();
            Publish { call, since: Instant::now(), reply, answers: answers.downgrade() }
        });
        progress.add(queued);
        if !in_line {
            rest = None;
        }
        // Open for the rest of the call; and then it is those who are to answer that hold it.
        let mut answers = rest.is_some().then_some(answers);
        loop {
            tokio::select! {
                biased;
                some = line::next(&mut rest), if rest.is_some() => match some {
                    Some(queued) => progress.add(queued),
                    None => (rest, answers) = (None, None),
                },
                Some(answered) = answered.recv() => {
                    answered.into_iter().for_each(|(place, answer)| progress.answer(place, answer));
                }
                else => break,
            }
        }
        drop(answers);
        // There may have been nothing to wait for, and a loop of such calls must let other tasks run.
        consume_budget().await;
        // Nothing was told where the publisher's threads are gone.
        let untold = || if call.as_ref().is_none_or(Call::is_taken) { gone() } else { closed() };
        if progress.refused.is_empty() {
            return progress.answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(untold()))).collect();
        }
        let mut outcomes = progress.into_outcomes();
        resend(&self.line, Instant::now() + self.shared.delivery_timeout, &mut outcomes).await;
        outcomes.into_iter().map(|outcome| outcome.map_or_else(|| Err(untold()), |outcome| outcome.answer)).collect()
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        let ends = Instant::now() + deadline.min(LONGEST);
        let mut ending = self.ending.get_or_init(|| self.end(ends)).clone();
        // A later call may have a shorter deadline than the one that began it.
        match timeout_at(ends + CLOSE_GRACE, ending.wait_for(Option::is_some)).await {
            Ok(Ok(ended)) => match ended.as_ref() {
                Some(Err(error)) => Err(Error::new(error.kind(), error.report())),
                _ => Ok(()),
            },
            Ok(Err(_)) => Err(gone()),
            Err(_) => Err(Error::new(ErrorKind::Indeterminate, "close the publisher: records are unanswered")),
        }
    }

    fn guarantees(&self) -> Guarantees {
        crate::transport::guarantees()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call lasts as long as its slowest record, and the bound has room again as soon as one is answered.
    #[test]
    fn what_is_answered_keeps_no_payload() {
        let record = Record::new("t", "value").with_key("k").with_header("h", "1");
        let mut progress = Progress::of(4);
        progress.add(Queued {
            records: vec![record.clone(); 3],
            placed: vec![Placed::default(); 3],
            ..Queued::default()
        });
        let refusal = |batch| Refusal { error: Error::new(ErrorKind::Invalid, "its batch"), batch };
        progress.answer(0, Ok(Position::new(0, 0)));
        progress.answer(1, Err(refusal(false)));
        progress.answer(2, Err(refusal(true)));
        let outcomes = progress.into_outcomes();
        let [Some(stored), Some(failed), Some(refused), None] = &outcomes[..] else { panic!("{outcomes:?}") };
        for slim in [stored, failed] {
            assert_eq!((&slim.record.value, slim.record.headers.len(), slim.refused), (&None, 0, false));
        }
        assert_eq!((&refused.record, refused.refused), (&record, true));
    }
}
