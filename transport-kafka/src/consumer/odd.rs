//! Records whose offsets are not those of their batch.
//!
//! A producer writes the offset of a record into its batch, and brokers check those of packed batches alone. The client drops
//! records whose offset lies below the place that it reads from, and goes on behind the largest one. So records that do not
//! follow on each other are compared with the header of their batch before they are handed out.

use tidings_core::{Error, ErrorKind, TopicPartition};
use tracing::debug;

use super::Shared;
use super::fetched::Want;
use super::slot::Chunk;
use super::state::State;
use super::unreadable;
use crate::seam::admin::Asks;
use crate::seam::peek::{ONE_BATCH, Span};
use crate::seam::reader::{Bad, Run};

/// How many headers are read for one chunk. Beyond, the chunk is read again from there.
const MOST_HEADERS: usize = 32;

/// How the offsets of a chunk follow on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Without a gap, from the place that was read from to the next one.
    Dense,
    /// With gaps: compacted records, transactions' markers, or records that the client dropped.
    Gaps,
    /// Not in order, or beyond the end of the log.
    Broken,
}

/// A chunk whose records do not follow on each other, and the place that it was read from.
#[derive(Debug)]
pub(super) struct Doubt {
    pub(super) want: Want,
    pub(super) from: u64,
    pub(super) chunk: Chunk,
    pub(super) order: Order,
}

/// The outcome of the comparison with the batches' headers.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The offsets are those of the batches; there are gaps.
    Sound,
    /// This number of records is sound; the batch behind them, from this offset on, is not.
    Bad(usize, u64),
    /// This number of records is sound; those from this offset on are to be read again.
    Again(usize, u64),
}

/// How the offsets of `run` follow on each other from `from` to `next`, in a log that ends at `end`.
pub(super) fn order(run: &Run, from: u64, next: u64, end: Option<u64>) -> Order {
    let (mut expected, mut dense) = (from, true);
    for offset in run.offsets() {
        if offset < expected {
            return Order::Broken;
        }
        dense &= offset == expected;
        expected = offset.saturating_add(1);
    }
    match end {
        Some(end) if next > end => Order::Broken,
        _ if dense && next == expected => Order::Dense,
        _ => Order::Gaps,
    }
}

/// Hands on the records of a chunk that its batches' headers agree with. Returns whether they agree with all.
pub(super) async fn examine(shared: &Shared, asks: &Asks, broker: i32, doubt: Doubt) -> bool {
    let Doubt { want, from, mut chunk, order } = doubt;
    let partition = &want.partition;
    let offsets: Vec<u64> = chunk.run.offsets().collect();
    let mut walk = Walk::new(&offsets, from, chunk.next, order);
    let mut verdict = None;
    for _ in 0..MOST_HEADERS {
        verdict = match peek(asks, broker, partition, walk.at).await {
            _ if walk.is_over() => Some(Verdict::Sound),
            Some(batch) => walk.step(batch),
            None => break,
        };
        if verdict.is_some() {
            break;
        }
    }
    let (good, at, bad) = match verdict.unwrap_or(Verdict::Again(walk.good, walk.at)) {
        Verdict::Sound => {
            shared.change(|state| state.bring(partition, want.ticket, chunk));
            return true;
        }
        Verdict::Bad(good, at) => (good, at, true),
        Verdict::Again(good, at) => (good, at, false),
    };
    chunk.run.split_off(good);
    let size = chunk.run.size();
    shared.change(|state| {
        state.bring(partition, want.ticket, Chunk { run: chunk.run, next: at, size });
        if !bad {
            state.read_again(partition, want.ticket);
        }
    });
    if bad {
        let cause = "its records have offsets that are not those of the batch";
        let text = format!("cannot read the batch of {partition} at offset {at}: {cause}");
        let error = Error::new(ErrorKind::Undecodable, text);
        unreadable::hold(shared, asks, broker, &want, Bad { partition: partition.clone(), offset: at, error }).await;
    }
    false
}

/// The header of the batch at an offset; `None` where it is not known now.
async fn peek(asks: &Asks, broker: i32, partition: &TopicPartition, at: u64) -> Option<Span> {
    let asked = asks.peek(broker, &[(partition.clone(), at)], ONE_BATCH).await;
    let answer = asked.and_then(|mut answers| answers.remove(partition).transpose());
    let peeked = answer.inspect_err(|e| debug!(error = e.report(), %partition, at, "cannot read a batch's header"));
    peeked.ok().flatten()?.batch
}

/// A walk over the batches of a chunk, from the first record on that does not follow on the one before it.
struct Walk<'a> {
    offsets: &'a [u64],
    next: u64,
    order: Order,
    /// The records that are sound, and the offset behind them.
    good: usize,
    at: u64,
}

impl<'a> Walk<'a> {
    fn new(offsets: &'a [u64], from: u64, next: u64, order: Order) -> Self {
        let good = offsets.iter().zip(from..).take_while(|(offset, expected)| *offset == expected).count();
        Self { offsets, next, order, good, at: from + good as u64 }
    }

    fn is_over(&self) -> bool {
        self.good == self.offsets.len() && self.at >= self.next
    }

    /// Compares the records with the header of the batch at the offset; the verdict, where there is one already.
    fn step(&mut self, batch: Span) -> Option<Verdict> {
        let Some(end) = batch.next.filter(|end| *end > self.at) else { return Some(Verdict::Bad(self.good, self.at)) };
        let rest = &self.offsets[self.good..];
        let mut least = self.at.max(batch.first);
        let in_order = |offset: &&u64| {
            let fits = (least..end).contains(*offset);
            least = offset.saturating_add(1);
            fits
        };
        let taken = rest.iter().take_while(in_order).count();
        // The client may stop within a batch, and goes on there.
        let is_cut = taken == rest.len() && self.next < end;
        if !is_cut && batch.records_from(self.at).is_some_and(|count| count != taken as u64) {
            return Some(Verdict::Bad(self.good, self.at));
        }
        (self.good, self.at) = (self.good + taken, end);
        // A gap that has a reason: the log was compacted, or has transactions in it.
        (is_cut || self.order == Order::Gaps).then_some(Verdict::Sound)
    }
}

impl State {
    /// Reads a partition again from where it was handed on to.
    fn read_again(&mut self, partition: &TopicPartition, ticket: u64) {
        let Some(slot) = self.slots.get_mut(partition).filter(|slot| slot.ticket == ticket && ticket != 0) else {
            return;
        };
        self.tickets += 1;
        slot.ticket = self.tickets;
        self.plan += 1;
    }

    /// The offset up to which a partition was handed on by this reading.
    pub(super) fn fetched(&self, partition: &TopicPartition, ticket: u64) -> Option<u64> {
        let slot = self.slots.get(partition)?;
        (slot.ticket == ticket && ticket != 0).then_some(slot.fetched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch of three records at 3, of which none is missing.
    fn three() -> Span {
        Span { first: 3, next: Some(6), bytes: 0, packed: false, records: Some(3) }
    }

    fn verdict(offsets: &[u64], from: u64, next: u64, order: Order) -> Option<Verdict> {
        Walk::new(offsets, from, next, order).step(three())
    }

    #[test]
    fn records_that_the_client_dropped_are_missed() {
        assert_eq!(verdict(&[], 3, 6, Order::Gaps), Some(Verdict::Bad(0, 3)));
        assert_eq!(verdict(&[3, 5], 3, 6, Order::Gaps), Some(Verdict::Bad(1, 4)));
        assert_eq!(verdict(&[6, 7, 8], 3, 9, Order::Gaps), Some(Verdict::Bad(0, 3)));
    }

    #[test]
    fn offsets_out_of_order_and_beyond_the_batch_are_found() {
        assert_eq!(verdict(&[3, 3, 3], 3, 6, Order::Broken), Some(Verdict::Bad(1, 4)));
        assert_eq!(verdict(&[5, 4, 3], 3, 6, Order::Broken), Some(Verdict::Bad(0, 3)));
        assert_eq!(verdict(&[3, 4, 1_003, 6], 3, 7, Order::Broken), Some(Verdict::Bad(2, 5)));
        assert_eq!(verdict(&[3, 4, 1_003], 3, 1_004, Order::Broken), Some(Verdict::Bad(2, 5)));
    }

    #[test]
    fn gaps_with_a_reason_are_sound() {
        let compacted = Span { records: Some(2), ..three() };
        assert_eq!(Walk::new(&[3, 5], 3, 6, Order::Gaps).step(compacted), Some(Verdict::Sound));
        assert_eq!(Walk::new(&[4, 5], 3, 6, Order::Gaps).step(compacted), Some(Verdict::Sound));
        let marker = Span { records: None, ..three() };
        assert_eq!(Walk::new(&[], 3, 6, Order::Gaps).step(marker), Some(Verdict::Sound));
        let later = Span { first: 9, next: Some(10), records: Some(1), ..three() };
        assert_eq!(Walk::new(&[9], 3, 10, Order::Gaps).step(later), Some(Verdict::Sound));
    }

    #[test]
    fn a_chunk_that_ends_within_a_batch_is_sound() {
        let compacted = Span { next: Some(9), ..three() };
        assert_eq!(Walk::new(&[3, 5], 3, 6, Order::Gaps).step(compacted), Some(Verdict::Sound));
    }
}
