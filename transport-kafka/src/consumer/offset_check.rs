//! Records whose offsets differ from those of their batch.
//!
//! A producer writes the offset of a record into its batch, and brokers check it only in compressed batches. The
//! client drops records with an offset below its position, and continues after the largest one. Records with gaps
//! between them are therefore compared with their batch's header before they are handed out.

use tidings_core::{Error, ErrorKind, TopicPartition};
use tracing::debug;

use super::Shared;
use super::assigned::Chunk;
use super::fetch_buffer::FetchTarget;
use super::state::State;
use super::unreadable;
use crate::client::admin::ClusterClient;
use crate::client::fetcher::{FetchedRecords, UnreadableBatch};
use crate::client::peek::{BatchHeader, ONE_BATCH};

/// Maximum number of headers read for one chunk. The rest of the chunk is read again from there.
///
/// Each header is a request of its own.
const MOST_HEADERS: usize = 32;

/// Order of the offsets in a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OffsetOrder {
    /// No gap between the position that was read from and the next one.
    Dense,
    /// Gaps: compacted records, transaction markers, or records that the client dropped.
    Gaps,
    /// Out of order, or beyond the end of the log.
    Broken,
}

/// A chunk with gaps between its records, and the position that it was read from.
#[derive(Debug)]
pub(super) struct SuspectChunk {
    pub(super) target: FetchTarget,
    /// The offset from which it was read.
    pub(super) from: u64,
    pub(super) chunk: Chunk,
    pub(super) order: OffsetOrder,
}

/// Result of the comparison with the batches' headers.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The offsets are those of the batches; gaps are legitimate.
    Sound,
    /// This number of records is valid; the batch after them, from this offset on, is not.
    UnreadableBatch(usize, u64),
    /// This number of records is valid; those from this offset on must be read again.
    Again(usize, u64),
}

/// Returns the order of `records`'s offsets between `from` and `next`, in a log that ends at `end`.
///
/// `Broken` comes first: an offset before the expected one can't be explained by a gap.
pub(super) fn order(records: &FetchedRecords, from: u64, next: u64, end: Option<u64>) -> OffsetOrder {
    let (mut expected, mut dense) = (from, true);
    for offset in records.offsets() {
        if offset < expected {
            return OffsetOrder::Broken;
        }
        dense &= offset == expected;
        expected = offset.saturating_add(1);
    }
    match end {
        Some(end) if next > end => OffsetOrder::Broken,
        _ if dense && next == expected => OffsetOrder::Dense,
        _ => OffsetOrder::Gaps,
    }
}

/// Hands out the records of a chunk that match their batches' headers. Returns whether all match.
///
/// If a header can't be read now, the valid records before it are handed out, and the rest is read
/// again. A batch that contradicts its records holds the partition.
pub(super) async fn check(shared: &Shared, cluster: &ClusterClient, broker: i32, suspect: SuspectChunk) -> bool {
    let SuspectChunk { target, from, mut chunk, order } = suspect;
    let partition = &target.partition;
    let offsets: Vec<u64> = chunk.records.offsets().collect();
    let mut walk = BatchWalk::new(&offsets, from, chunk.next, order);
    let mut verdict = None;
    for _ in 0..MOST_HEADERS {
        verdict = match peek(cluster, broker, partition, walk.at).await {
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
            shared.change(|state| state.accept(partition, target.ticket, chunk));
            return true;
        }
        Verdict::UnreadableBatch(good, at) => (good, at, true),
        Verdict::Again(good, at) => (good, at, false),
    };
    chunk.records.split_off(good);
    let size = chunk.records.size();
    shared.change(|state| {
        state.accept(partition, target.ticket, Chunk { records: chunk.records, size, ..Chunk::gap(at) });
        if !bad {
            state.read_again(partition, target.ticket);
        }
    });
    if bad {
        let cause = "its records have other offsets than its header states";
        let text = format!("cannot read the batch of {partition} at offset {at}: {cause}");
        let error = Error::new(ErrorKind::Undecodable, text);
        unreadable::hold(
            shared,
            cluster,
            broker,
            &target,
            UnreadableBatch { partition: partition.clone(), offset: at, error },
        )
        .await;
    }
    false
}

/// Returns the header of the batch at an offset; `None` if it is currently unknown.
async fn peek(cluster: &ClusterClient, broker: i32, partition: &TopicPartition, at: u64) -> Option<BatchHeader> {
    let asked = cluster.peek(broker, &[(partition.clone(), at)], ONE_BATCH).await;
    let answer = asked.and_then(|mut answers| answers.remove(partition).transpose());
    let peeked = answer.inspect_err(
        |e| debug!(error = e.report(), %partition, at, "cannot read a batch header; the records are fetched again"),
    );
    peeked.ok().flatten()?.batch
}

/// Iterates over the batches of a chunk, beginning with the first record after a gap.
struct BatchWalk<'a> {
    offsets: &'a [u64],
    /// The offset after the chunk, by the client's position.
    next: u64,
    /// With `Gaps`, one matching header explains the gap; with `Broken`, all batches are compared.
    order: OffsetOrder,
    /// Number of valid records, and the offset after them.
    good: usize,
    at: u64,
}

impl<'a> BatchWalk<'a> {
    /// Leading records without a gap need no header: they are taken as valid.
    fn new(offsets: &'a [u64], from: u64, next: u64, order: OffsetOrder) -> Self {
        let good = offsets.iter().zip(from..).take_while(|(offset, expected)| *offset == expected).count();
        Self { offsets, next, order, good, at: from + good as u64 }
    }

    /// Checks whether the whole chunk was compared.
    fn is_over(&self) -> bool {
        self.good == self.offsets.len() && self.at >= self.next
    }

    /// Compares the records with the header of the batch at the offset; returns the verdict, if it is final.
    fn step(&mut self, batch: BatchHeader) -> Option<Verdict> {
        let Some(end) = batch.next.filter(|end| *end > self.at) else {
            return Some(Verdict::UnreadableBatch(self.good, self.at));
        };
        let rest = &self.offsets[self.good..];
        let mut least = self.at.max(batch.first);
        let in_order = |offset: &&u64| {
            let fits = (least..end).contains(*offset);
            least = offset.saturating_add(1);
            fits
        };
        let taken = rest.iter().take_while(in_order).count();
        // The client may stop within a batch, and continues there.
        let is_cut = taken == rest.len() && self.next < end;
        if !is_cut && batch.records_from(self.at).is_some_and(|count| count != taken as u64) {
            return Some(Verdict::UnreadableBatch(self.good, self.at));
        }
        (self.good, self.at) = (self.good + taken, end);
        // A gap with a reason: the log was compacted, or contains transactions.
        (is_cut || self.order == OffsetOrder::Gaps).then_some(Verdict::Sound)
    }
}

impl State {
    /// Reads a partition again from the offset up to which it was handed out.
    ///
    /// A new ticket makes the fetcher seek to that offset.
    pub(super) fn read_again(&mut self, partition: &TopicPartition, ticket: u64) {
        let Some(assigned) =
            self.assigned.get_mut(partition).filter(|assigned| assigned.ticket == ticket && ticket != 0)
        else {
            return;
        };
        self.tickets += 1;
        assigned.ticket = self.tickets;
        self.plan += 1;
    }

    /// Returns the offset up to which this reading handed out the partition.
    ///
    /// `None` if another reading has begun.
    pub(super) fn fetched(&self, partition: &TopicPartition, ticket: u64) -> Option<u64> {
        let assigned = self.assigned.get(partition)?;
        (assigned.ticket == ticket && ticket != 0).then_some(assigned.fetched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A complete batch of three records at offset 3.
    fn three() -> BatchHeader {
        BatchHeader { first: 3, next: Some(6), bytes: 0, packed: false, records: Some(3) }
    }

    fn verdict(offsets: &[u64], from: u64, next: u64, order: OffsetOrder) -> Option<Verdict> {
        BatchWalk::new(offsets, from, next, order).step(three())
    }

    #[test]
    fn records_that_the_client_dropped_are_missed() {
        assert_eq!(verdict(&[], 3, 6, OffsetOrder::Gaps), Some(Verdict::UnreadableBatch(0, 3)));
        assert_eq!(verdict(&[3, 5], 3, 6, OffsetOrder::Gaps), Some(Verdict::UnreadableBatch(1, 4)));
        assert_eq!(verdict(&[6, 7, 8], 3, 9, OffsetOrder::Gaps), Some(Verdict::UnreadableBatch(0, 3)));
    }

    #[test]
    fn offsets_out_of_order_and_beyond_the_batch_are_found() {
        assert_eq!(verdict(&[3, 3, 3], 3, 6, OffsetOrder::Broken), Some(Verdict::UnreadableBatch(1, 4)));
        assert_eq!(verdict(&[5, 4, 3], 3, 6, OffsetOrder::Broken), Some(Verdict::UnreadableBatch(0, 3)));
        assert_eq!(verdict(&[3, 4, 1_003, 6], 3, 7, OffsetOrder::Broken), Some(Verdict::UnreadableBatch(2, 5)));
        assert_eq!(verdict(&[3, 4, 1_003], 3, 1_004, OffsetOrder::Broken), Some(Verdict::UnreadableBatch(2, 5)));
    }

    #[test]
    fn gaps_with_a_reason_are_sound() {
        let compacted = BatchHeader { records: Some(2), ..three() };
        assert_eq!(BatchWalk::new(&[3, 5], 3, 6, OffsetOrder::Gaps).step(compacted), Some(Verdict::Sound));
        assert_eq!(BatchWalk::new(&[4, 5], 3, 6, OffsetOrder::Gaps).step(compacted), Some(Verdict::Sound));
        let marker = BatchHeader { records: None, ..three() };
        assert_eq!(BatchWalk::new(&[], 3, 6, OffsetOrder::Gaps).step(marker), Some(Verdict::Sound));
        let later = BatchHeader { first: 9, next: Some(10), records: Some(1), ..three() };
        assert_eq!(BatchWalk::new(&[9], 3, 10, OffsetOrder::Gaps).step(later), Some(Verdict::Sound));
    }

    #[test]
    fn a_chunk_that_ends_within_a_batch_is_sound() {
        let compacted = BatchHeader { next: Some(9), ..three() };
        assert_eq!(BatchWalk::new(&[3, 5], 3, 6, OffsetOrder::Gaps).step(compacted), Some(Verdict::Sound));
    }
}
