//! In-flight records of one partition whose answers are awaited.
//!
//! Waiting for each answer separately wakes the task once per record. Answers of a partition come
//! in the order of its records, so the last one of a group is awaited, and the others are then
//! collected without a wait.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::{Stream, StreamExt};
use tidings_core::{Position, Result};

use super::buffer_limit::BufferPermit;
use super::gone;
use crate::client::producer::{InFlightRecord, Producer, Refusal, Target};

/// How many records, and bytes, are awaited together, by the last of them: a wake-up for each takes longer than its
/// answer. Their permits are released together, so the number is lower where the limit is low: an eighth for a
/// partition.
const MAX_TOGETHER: usize = 64;
/// Large records are awaited in smaller groups, since their permits are held meanwhile.
const MAX_BYTES_TOGETHER: usize = 64 << 10;

/// In-flight records of one call for one partition, and their answers, which come in the order of the records and
/// usually together. Separate by partition, so that one with a slow leader does not occupy another's permit.
#[derive(Debug)]
pub(super) struct PendingAcks {
    target: Target,
    /// The producer that accepts them.
    producer: Arc<Producer>,
    /// Records in the order in which they were queued.
    unanswered: VecDeque<PendingAck>,
    /// Answer to the last of the records that are awaited together, which is behind the answers to the others.
    last: Option<(usize, Result<Position, Refusal>)>,
    /// Capacity held by the unanswered records; each returns its part when it is answered.
    permit: BufferPermit,
    /// Answers that were not yielded yet.
    answers: Vec<Answered>,
}

/// A record, by its index in its call.
#[derive(Debug)]
struct PendingAck {
    index: usize,
    /// Its part of the permit.
    bytes: usize,
    in_flight: InFlightRecord,
}

/// Answer to the record at an index of the call.
pub(super) type Answered = (usize, Result<Position, Refusal>);

impl PendingAcks {
    /// Creates an empty list for one partition; `permit` belongs to the limit of its records.
    pub(super) fn new(target: Target, producer: &Arc<Producer>, permit: &BufferPermit) -> Self {
        let (producer, permit) = (Arc::clone(producer), permit.empty());
        Self { target, producer, unanswered: VecDeque::new(), last: None, permit, answers: Vec::new() }
    }

    /// Creates the list of a record that is sent alone.
    pub(super) fn of_one(
        target: Target,
        producer: &Arc<Producer>,
        in_flight: InFlightRecord,
        mut permit: BufferPermit,
    ) -> Self {
        let mut acks = Self::new(target, producer, &permit);
        let bytes = permit.bytes();
        acks.push(0, in_flight, bytes, &mut permit);
        acks
    }

    /// Adds the record at an index of the call, whose part of the permit has this size.
    pub(super) fn push(&mut self, index: usize, in_flight: InFlightRecord, bytes: usize, permit: &mut BufferPermit) {
        self.unanswered.push_back(PendingAck { index, bytes, in_flight });
        permit.transfer(&mut self.permit, bytes);
    }
}

/// Returns the index of the last record that is awaited together with others, given the size of each.
fn last_together(sizes: impl Iterator<Item = usize>, (most_records, most_bytes): (usize, usize)) -> usize {
    let mut bytes = 0;
    let fits = |size: &usize| {
        bytes += size;
        bytes <= most_bytes.min(MAX_BYTES_TOGETHER)
    };
    sizes.take(most_records.min(MAX_TOGETHER)).take_while(fits).count().saturating_sub(1)
}

/// Returns the answer to the only record.
pub(super) async fn answer_of(mut acks: PendingAcks) -> Result<Position, Refusal> {
    let answered = acks.next().await.and_then(|mut answers| answers.pop());
    answered.map_or_else(|| Err(Refusal { error: gone(), batch: false }), |(_, answer)| answer)
}

/// Yields the available answers as soon as there are any: answered records hold no permit, so nothing
/// else may retain them.
impl Stream for PendingAcks {
    type Item = Vec<Answered>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let acks = self.get_mut();
        let all = acks.poll_answers(context);
        if acks.answers.is_empty() {
            return all.map(|()| None);
        }
        // The consumer of these polls once more.
        Poll::Ready(Some(std::mem::take(&mut acks.answers)))
    }
}

impl PendingAcks {
    /// Completes when all are answered.
    ///
    /// If one answer before the last is still missing, the last is kept and the poll waits for that
    /// one.
    fn poll_answers(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Self { target, producer, unanswered, last, permit, answers } = self;
        while !unanswered.is_empty() {
            if last.is_none() {
                let behind = last_together(unanswered.iter().map(|one| one.bytes), permit.max_together());
                let one = unanswered[behind].in_flight.poll_answer(producer, target, context);
                *last = Some((behind, ready!(one)));
            }
            answers.reserve(last.as_ref().map_or(0, |(behind, _)| behind + 1));
            let mut answered = permit.empty();
            while let (Some((behind @ 1.., _)), Some(one)) = (&mut *last, unanswered.front_mut()) {
                answers.push((one.index, ready!(one.in_flight.poll_answer(producer, target, context))));
                permit.transfer(&mut answered, one.bytes);
                *behind -= 1;
                unanswered.pop_front();
            }
            if let (Some((_, answer)), Some(one)) = (last.take(), unanswered.pop_front()) {
                answers.push((one.index, answer));
                permit.transfer(&mut answered, one.bytes);
            }
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::iter::repeat_n;

    use super::*;

    /// With a high limit, and where an eighth of it is less.
    #[test]
    fn few_records_are_waited_for_together() {
        let wide = (usize::MAX, usize::MAX);
        assert_eq!(last_together(repeat_n(100, 200), wide), MAX_TOGETHER - 1);
        assert_eq!(last_together(repeat_n(100, 3), wide), 2);
        assert_eq!(last_together(repeat_n(30_000, 200), wide), 1);
        assert_eq!(last_together(repeat_n(1 << 20, 200), wide), 0);
        assert_eq!(last_together(repeat_n(100, 200), (5, usize::MAX)), 4);
        assert_eq!(last_together(repeat_n(100, 200), (usize::MAX, 350)), 2);
        assert_eq!(last_together(repeat_n(100, 200), (1, 0)), 0);
    }
}
