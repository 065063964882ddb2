//! In-flight records of one partition whose answers are awaited.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::{Stream, StreamExt};
use tidings_core::{Position, Result};

use super::bound::Share;
use super::gone;
use crate::client::producer::{Producer, Refusal, Target, Underway};

/// How many records, and bytes, are awaited together, by the last of them: a wake-up for each takes longer than its
/// answer. Their shares are released together, so the number is lower where the bound is narrow: an eighth for a
/// partition.
const TOGETHER: usize = 64;
const BYTES_TOGETHER: usize = 64 << 10;

/// In-flight records of one call for one partition, and their answers, which come in the order of the records and
/// usually together. Separate by partition, so that one with a slow leader does not occupy another's share of the
/// bound.
#[derive(Debug)]
pub(super) struct Lane {
    target: Target,
    /// The producer that accepts them.
    producer: Arc<Producer>,
    unanswered: VecDeque<One>,
    /// Answer to the last of the records that are awaited together, which is behind the answers to the others.
    last: Option<(usize, Result<Position, Refusal>)>,
    share: Share,
    answers: Vec<Answered>,
}

/// A record, by its place in its call.
#[derive(Debug)]
struct One {
    place: usize,
    bytes: usize,
    underway: Underway,
}

/// Answer to the record at a place of the call.
pub(super) type Answered = (usize, Result<Position, Refusal>);

impl Lane {
    /// Creates a lane for one partition; `share` belongs to the bound of its records.
    pub(super) fn new(target: Target, producer: &Arc<Producer>, share: &Share) -> Self {
        let (producer, share) = (Arc::clone(producer), share.none());
        Self { target, producer, unanswered: VecDeque::new(), last: None, share, answers: Vec::new() }
    }

    pub(super) fn of_one(target: Target, producer: &Arc<Producer>, underway: Underway, mut share: Share) -> Self {
        let mut lane = Self::new(target, producer, &share);
        let bytes = share.bytes();
        lane.push(0, underway, bytes, &mut share);
        lane
    }

    /// Adds the record at a place of the call, whose part of the share has this size.
    pub(super) fn push(&mut self, place: usize, underway: Underway, bytes: usize, share: &mut Share) {
        self.unanswered.push_back(One { place, bytes, underway });
        share.give(&mut self.share, bytes);
    }
}

/// Returns the place of the last record that is awaited together with others, given the size of each.
fn last_together(sizes: impl Iterator<Item = usize>, (most_records, most_bytes): (usize, usize)) -> usize {
    let mut bytes = 0;
    let fits = |size: &usize| {
        bytes += size;
        bytes <= most_bytes.min(BYTES_TOGETHER)
    };
    sizes.take(most_records.min(TOGETHER)).take_while(fits).count().saturating_sub(1)
}

/// Returns the answer of a lane with one record.
pub(super) async fn answer_of(mut lane: Lane) -> Result<Position, Refusal> {
    let answered = lane.next().await.and_then(|mut answers| answers.pop());
    answered.map_or_else(|| Err(Refusal { error: gone(), batch: false }), |(_, answer)| answer)
}

/// Yields the available answers as soon as there are any: answered records have no share of the bound, so nothing
/// else may retain them.
impl Stream for Lane {
    type Item = Vec<Answered>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let lane = self.get_mut();
        let all = lane.poll_answers(context);
        if lane.answers.is_empty() {
            return all.map(|()| None);
        }
        // The consumer of these polls once more.
        Poll::Ready(Some(std::mem::take(&mut lane.answers)))
    }
}

impl Lane {
    /// Completes when all are answered.
    fn poll_answers(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Self { target, producer, unanswered, last, share, answers } = self;
        while !unanswered.is_empty() {
            if last.is_none() {
                let behind = last_together(unanswered.iter().map(|one| one.bytes), share.most_together());
                let one = unanswered[behind].underway.poll_answer(producer, target, context);
                *last = Some((behind, ready!(one)));
            }
            answers.reserve(last.as_ref().map_or(0, |(behind, _)| behind + 1));
            let mut answered = share.none();
            while let (Some((behind @ 1.., _)), Some(one)) = (&mut *last, unanswered.front_mut()) {
                answers.push((one.place, ready!(one.underway.poll_answer(producer, target, context))));
                share.give(&mut answered, one.bytes);
                *behind -= 1;
                unanswered.pop_front();
            }
            if let (Some((_, answer)), Some(one)) = (last.take(), unanswered.pop_front()) {
                answers.push((one.place, answer));
                share.give(&mut answered, one.bytes);
            }
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::iter::repeat_n;

    use super::*;

    /// With a wide bound, and where an eighth of it is less.
    #[test]
    fn few_records_are_waited_for_together() {
        let wide = (usize::MAX, usize::MAX);
        assert_eq!(last_together(repeat_n(100, 200), wide), TOGETHER - 1);
        assert_eq!(last_together(repeat_n(100, 3), wide), 2);
        assert_eq!(last_together(repeat_n(30_000, 200), wide), 1);
        assert_eq!(last_together(repeat_n(1 << 20, 200), wide), 0);
        assert_eq!(last_together(repeat_n(100, 200), (5, usize::MAX)), 4);
        assert_eq!(last_together(repeat_n(100, 200), (usize::MAX, 350)), 2);
        assert_eq!(last_together(repeat_n(100, 200), (1, 0)), 0);
    }
}
