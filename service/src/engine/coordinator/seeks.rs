//! Seeks of assigned partitions, by an operator's command.
//!
//! The assignment ends first, as in a revocation: its work is finished or cancelled, and what is settled is committed.
//! Then the consumer moves, and a new assignment begins where it goes on. So no work that began before the seek settles
//! anything after it, and the new position is committed before its first record is handled.

use std::fmt;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::{Consumer, Error, ErrorKind, SeekTo, TopicPartition};
use tokio::time::{Instant, sleep};

use crate::engine::assigned::AssignmentId;
use crate::engine::commands::Seek;
use crate::logs;
use crate::status::Sought;

/// The pause before a failed consumer is asked to return to its old position again.
const RETRY: Duration = Duration::from_millis(200);

/// The time between two lines about a consumer that does not return to its old position.
const LINES: Duration = Duration::from_secs(60);

/// The seeks in flight: at most one per assignment.
#[derive(Debug, Default)]
pub(super) struct Seeks {
    /// Their assignments are still ending.
    waiting: Vec<(AssignmentId, Seek)>,
    /// Their assignments have ended. The first one's call is in flight.
    ready: Vec<Ready>,
    call: Option<Call>,
}

/// A seek whose assignment has ended, with the lowest offset that is not settled.
#[derive(Debug)]
struct Ready {
    id: AssignmentId,
    from: u64,
    seek: Seek,
}

/// A call of the consumer.
struct Call {
    id: AssignmentId,
    answer: Pin<Box<dyn Future<Output = Option<u64>> + Send>>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Call").field(&self.id).finish()
    }
}

/// The end of a seek: the consumer reads on at `start`, the old position after a failure. Without a start the partition
/// is not assigned any more, and a step says so.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) id: AssignmentId,
    pub(super) start: Option<u64>,
}

impl Seeks {
    /// Begins a seek of an assignment, whose end begins with it.
    pub(super) fn begin(&mut self, id: AssignmentId, seek: Seek) {
        self.waiting.push((id, seek));
    }

    /// Takes that an assignment has ended whose lowest unsettled offset is `from`.
    pub(super) fn ended(&mut self, id: AssignmentId, from: u64, consumer: &Arc<dyn Consumer>, service: &str) {
        if let Some(at) = self.waiting.iter().position(|(waiting, _)| *waiting == id) {
            let (id, seek) = self.waiting.swap_remove(at);
            self.ready.push(Ready { id, from, seek });
            self.call_next(consumer, service);
        }
    }

    /// Begins the next call, unless one is in flight.
    pub(super) fn call_next(&mut self, consumer: &Arc<dyn Consumer>, service: &str) {
        if self.call.is_some() || self.ready.is_empty() {
            return;
        }
        let Ready { id, from, seek } = self.ready.remove(0);
        let answer = Box::pin(run(consumer.clone(), from, seek, service.to_owned()));
        self.call = Some(Call { id, answer });
    }

    /// Waits for the call in flight, if there is one. Cancel-safe.
    pub(super) async fn moved(&mut self) -> Moved {
        let Some(call) = &mut self.call else { return pending().await };
        let start = call.answer.as_mut().await;
        let id = call.id;
        self.call = None;
        Moved { id, start }
    }

    /// Ends the seeks of an assignment that was taken from this service. A call in flight is dropped: nothing that it
    /// does is committed.
    pub(super) fn forget(&mut self, id: AssignmentId) {
        let waiting = self.waiting.extract_if(.., |(waiting, _)| *waiting == id).map(|(_, seek)| seek);
        let ready = self.ready.extract_if(.., |ready| ready.id == id).map(|ready| ready.seek);
        for seek in waiting.chain(ready) {
            seek.refuse(ErrorKind::Fenced, "the partition was given up meanwhile");
        }
        self.call.take_if(|call| call.id == id);
    }
}

/// Moves the consumer, and answers the operator. Returns where the consumer goes on; `None` if the partition is not
/// assigned any more.
async fn run(consumer: Arc<dyn Consumer>, from: u64, seek: Seek, service: String) -> Option<u64> {
    let partition = seek.partition.clone();
    match consumer.seek(&partition, seek.to).await {
        Ok(to) => {
            let line = logs::Sought {
                service: &service.as_str(),
                topic: &partition.topic.as_str(),
                partition: &partition.partition,
                from: &from,
                to: &to,
            };
            line.log();
            seek.answer(Ok(Sought { partition, from, to }));
            return Some(to);
        }
        Err(error) => {
            let text = format!("seek {partition}: nothing was moved, and offset {from} is next");
            seek.answer(Err(Error::caused_by(error.kind(), text, error)));
        }
    }
    // The records from there on that were fetched already were dropped with their assignment.
    go_back(&consumer, &partition, from, &service).await
}

/// Returns the consumer to its old position, and tries again until that works, or the partition is no longer assigned.
async fn go_back(consumer: &Arc<dyn Consumer>, partition: &TopicPartition, from: u64, service: &str) -> Option<u64> {
    let mut next_line = Instant::now();
    loop {
        let error = match consumer.seek(partition, SeekTo::Offset(from)).await {
            Ok(start) => return Some(start),
            Err(error) => error,
        };
        if matches!(error.kind(), ErrorKind::Fenced | ErrorKind::Closed | ErrorKind::NotFound) {
            return None;
        }
        if Instant::now() >= next_line {
            next_line = Instant::now() + LINES;
            let (topic, error) = (&partition.topic.as_str(), &error.report());
            let (service, partition, offset) = (&service, &partition.partition, &from);
            logs::NotReturned { service, topic, partition, offset, error }.log();
        }
        sleep(RETRY).await;
    }
}
