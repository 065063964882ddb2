//! Incremental unpacking of the batches of one partition in a fetch.

use std::collections::HashSet;

use bytes::Bytes;
use tidings_core::{Error, Header, StoredRecord, TopicPartition};

use crate::wire::records::{Batch, BatchError, BatchHeader, Marker, Records, Scan, UndecodableBatch, scan};

/// Limits of one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UnpackLimits {
    /// Records of a step.
    pub(crate) max_records: usize,
    /// Bytes after which a step ends.
    pub(crate) max_bytes: usize,
    /// Bytes of one batch after decompression.
    pub(crate) max_unpacked: usize,
}

/// Records, and the offset after them and any gap.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) records: Vec<StoredRecord>,
    pub(crate) next: u64,
    /// Memory that the records keep, approximately.
    pub(crate) bytes: usize,
    /// Epoch of the leader that appended the last batch, if it is known.
    pub(crate) leader_epoch: Option<i32>,
}

/// Aborted transactions, whose records are skipped.
#[derive(Debug, Default)]
pub(crate) struct Isolated {
    /// Aborted transactions that begin later in the log, in descending order: producers and first offsets.
    ahead: Vec<(i64, u64)>,
    /// Producers with an aborted transaction at this position of the log.
    aborting: HashSet<i64>,
}

impl Isolated {
    /// Skips the records of these aborted transactions, given by producers and first offsets.
    pub(crate) fn committed(aborted: impl Iterator<Item = (i64, i64)>) -> Self {
        let mut ahead: Vec<_> =
            aborted.map(|(producer, first)| (producer, u64::try_from(first).unwrap_or(0))).collect();
        ahead.sort_unstable_by_key(|(_, first)| std::cmp::Reverse(*first));
        Self { ahead, aborting: HashSet::new() }
    }

    /// Moves to a batch. Includes markers, because their transaction may have begun before the fetch.
    fn move_to(&mut self, header: &BatchHeader) {
        while let Some((producer, _)) = self.ahead.pop_if(|(_, first)| *first <= header.last_offset) {
            self.aborting.insert(producer);
        }
    }

    /// Returns whether a batch belongs to an aborted transaction.
    fn hides(&self, header: &BatchHeader) -> bool {
        header.is_transactional() && !header.is_control() && self.aborting.contains(&header.producer_id)
    }
}

/// The rest of a batch that a step ended in.
#[derive(Debug)]
struct Opened {
    records: Records,
    /// Offset after the batch.
    end: u64,
    leader_epoch: i32,
    /// Average memory of a record in bytes.
    each: usize,
}

/// The batches of one partition in a fetch, as slices of it. Each is decoded only when it is reached.
#[derive(Debug)]
pub(crate) struct FetchedBatches {
    scan: Scan,
    opened: Option<Opened>,
    isolated: Isolated,
    /// Offset from which the fetch was requested.
    start: u64,
    /// Offset of the next record.
    next: u64,
    bytes: usize,
    /// Whether a batch could not be read.
    failed: bool,
}

/// Cause of a failed step; the records before it were returned.
#[derive(Debug)]
pub(crate) struct Unreadable {
    /// The first offset that cannot be read.
    pub(crate) offset: u64,
    cause: BatchError,
}

impl Unreadable {
    /// Returns an error that names the partition and the offset.
    pub(crate) fn into_error(self, partition: &TopicPartition) -> Error {
        self.cause.into_error(partition, self.offset)
    }
}

/// Position behind the batches of a fetch, according to their headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Behind {
    pub(crate) next: u64,
    pub(crate) leader_epoch: Option<i32>,
    /// Whether all batches seem readable, so that the next fetch may go out.
    pub(crate) is_sound: bool,
}

/// Converts header names lossily to UTF-8, as the client does: other names cannot be published, not even to a
/// dead-letter topic.
fn with_text_names(mut record: StoredRecord) -> StoredRecord {
    if !record.headers.is_empty() && record.headers.iter().any(|header| std::str::from_utf8(&header.name).is_err()) {
        let text = |header: &Header| {
            let name = String::from_utf8_lossy(&header.name).into_owned();
            Header { name: name.into(), value: header.value.clone() }
        };
        record.headers = record.headers.iter().map(text).collect();
    }
    record
}

fn epoch(epoch: i32) -> Option<i32> {
    (epoch >= 0).then_some(epoch)
}

impl FetchedBatches {
    /// Creates the batches from the bytes of a partition in a fetch that was requested from `offset`.
    pub(crate) fn new(fetched: &Bytes, offset: u64, isolated: Isolated) -> Self {
        Self {
            scan: scan(fetched),
            opened: None,
            isolated,
            start: offset,
            next: offset,
            bytes: fetched.len(),
            failed: false,
        }
    }

    /// Returns the size of the fetched bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the position behind the batches, without decoding records.
    pub(crate) fn behind(&self) -> Behind {
        let mut behind = Behind { next: self.next, leader_epoch: None, is_sound: true };
        for batch in self.scan.clone() {
            let Ok(batch) = batch else {
                behind.is_sound = false;
                break;
            };
            if batch.header().next_offset() > behind.next {
                behind.next = batch.header().next_offset();
                behind.leader_epoch = epoch(batch.header().leader_epoch);
            }
        }
        // A fetch without progress would be repeated endlessly.
        behind.is_sound &= self.bytes == 0 || behind.next > self.next;
        behind
    }

    /// Unpacks batches until a limit is reached; `None` after the last one.
    ///
    /// # Errors
    /// A batch cannot be read: the records before it are returned first, and nothing after it.
    pub(crate) fn step(&mut self, limits: &UnpackLimits) -> Option<Result<Unpacked, Unreadable>> {
        let mut step = Unpacked { records: Vec::new(), next: self.next, bytes: 0, leader_epoch: None };
        if self.failed {
            return None;
        }
        let begin = self.next;
        let failure = loop {
            if step.records.len() >= limits.max_records || step.bytes >= limits.max_bytes {
                break None;
            }
            match self.advance(&mut step, limits) {
                Ok(true) => {}
                Ok(false) => break None,
                Err(cause) => break Some(cause),
            }
        };
        step.next = self.next;
        if step.next > begin {
            if step.records.capacity() - step.records.len() > step.records.len() / 8 {
                // Unused capacity would stay allocated, without being counted, until the last record is settled.
                step.records.shrink_to_fit();
            }
            // A failure recurs in the next step, which returns it.
            return Some(Ok(step));
        }
        let cause = match failure {
            Some(cause) => cause,
            None if self.bytes > 0 && self.next == self.start => {
                BatchError::Damaged("it ends before the requested offset")
            }
            None => return None,
        };
        self.failed = true;
        Some(Err(Unreadable { offset: self.next, cause }))
    }

    /// Appends records of the open batch, or opens the next batch; `false` after the last one.
    fn advance(&mut self, step: &mut Unpacked, limits: &UnpackLimits) -> Result<bool, BatchError> {
        if let Some(mut opened) = self.opened.take() {
            // Also by bytes: each record may have thousands of headers.
            let most = limits.max_bytes.saturating_sub(step.bytes) / opened.each + 1;
            let room = most.min(limits.max_records - step.records.len());
            let before = step.records.len();
            step.records.extend(opened.records.by_ref().take(room).map(with_text_names));
            let taken = step.records.len() - before;
            step.bytes += taken * opened.each;
            step.leader_epoch = epoch(opened.leader_epoch).or(step.leader_epoch);
            if taken < room || opened.records.len() == 0 {
                self.next = opened.end;
            } else {
                self.next = step.records.last().map_or(self.next, |record| record.offset + 1);
                self.opened = Some(opened);
            }
            return Ok(true);
        }
        let mut ahead = self.scan.clone();
        let batch = match ahead.next() {
            None => {
                return Ok(false);
            }
            Some(Err(UndecodableBatch { cause, .. })) => return Err(cause),
            Some(Ok(batch)) => batch,
        };
        self.open(&batch, step, limits)?;
        self.scan = ahead;
        Ok(true)
    }

    /// Opens a batch, unless its records are skipped.
    fn open(&mut self, batch: &Batch, step: &mut Unpacked, limits: &UnpackLimits) -> Result<(), BatchError> {
        let header = *batch.header();
        let end = header.next_offset();
        self.isolated.move_to(&header);
        if header.is_control() {
            match batch.marker(limits.max_unpacked)? {
                // A commit also ends an aborted transaction whose own marker was removed by compaction.
                None | Some(Marker::Abort | Marker::Commit) => {
                    self.isolated.aborting.remove(&header.producer_id);
                }
                Some(Marker::Other(_)) => {}
            }
        } else if !self.isolated.hides(&header) && end > self.next {
            let records = batch.records(self.next, limits.max_unpacked)?;
            let each = records.memory() / (header.count.max(1) as usize) + size_of::<StoredRecord>();
            self.opened = Some(Opened { records, end, leader_epoch: header.leader_epoch, each });
            return Ok(());
        }
        if end > self.next {
            self.next = end;
            step.leader_epoch = epoch(header.leader_epoch).or(step.leader_epoch);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use tidings_core::{ErrorKind, Headers};

    use super::*;
    use crate::wire::records::{BatchBuilder, NewRecord, Packing, ProducerState};

    const TRANSACTIONAL: u8 = 0x10;
    const CONTROL: u8 = 0x20;
    const COMMIT: [u8; 4] = [0, 0, 0, 1];
    const ABORT: [u8; 4] = [0, 0, 0, 0];

    /// Returns a batch of these offsets.
    fn batch(offsets: Range<u64>, producer: i64, attributes: u8, key: Option<&[u8]>) -> Vec<u8> {
        let mut builder = BatchBuilder::new(0);
        for offset in offsets.clone() {
            let value = offset.to_string();
            let headers = Headers::new();
            builder.append(&NewRecord { key, value: Some(value.as_bytes()), headers: &headers, timestamp: 0 }).unwrap();
        }
        let state = ProducerState { id: producer, epoch: 0, sequence: 0 };
        let mut bytes = builder.seal(Packing::NONE, state, false).unwrap().bytes().to_vec();
        bytes[..8].copy_from_slice(&offsets.start.to_be_bytes());
        // The leader's epoch, and the low byte of the attributes.
        bytes[12..16].copy_from_slice(&7_i32.to_be_bytes());
        bytes[22] |= attributes;
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    fn plain(offsets: Range<u64>) -> Vec<u8> {
        batch(offsets, -1, 0, None)
    }

    fn limits(max_records: usize) -> UnpackLimits {
        UnpackLimits { max_records, max_bytes: usize::MAX, max_unpacked: 1 << 20 }
    }

    fn fetched(batches: &[Vec<u8>], offset: u64, aborted: &[(i64, i64)]) -> FetchedBatches {
        FetchedBatches::new(&batches.concat().into(), offset, Isolated::committed(aborted.iter().copied()))
    }

    /// Unpacks all: the offsets of the records, those where steps ended, and why it could not go on.
    fn unpacked(mut batches: FetchedBatches, limits: &UnpackLimits) -> (Vec<u64>, Vec<u64>, Option<(u64, ErrorKind)>) {
        let (mut offsets, mut ends) = (Vec::new(), Vec::new());
        while let Some(step) = batches.step(limits) {
            match step {
                Ok(step) => {
                    assert!(step.records.len() <= limits.max_records);
                    for record in &step.records {
                        assert_eq!(record.value.as_deref(), Some(record.offset.to_string().as_bytes()));
                    }
                    offsets.extend(step.records.iter().map(|record| record.offset));
                    ends.push(step.next);
                }
                Err(bad) => {
                    let offset = bad.offset;
                    assert!(batches.step(limits).is_none());
                    return (offsets, ends, Some((offset, bad.into_error(&TopicPartition::new("t", 0)).kind())));
                }
            }
        }
        (offsets, ends, None)
    }

    #[test]
    fn steps_end_at_the_limit_and_skip_nothing() {
        for max in 1..12 {
            let batches = fetched(&[plain(3..8), plain(8..9), plain(20..24)], 5, &[]);
            let behind = batches.behind();
            assert_eq!((behind.next, behind.leader_epoch, behind.is_sound), (24, Some(7), true));
            let (offsets, ends, bad) = unpacked(batches, &limits(max));
            assert_eq!(offsets, [5, 6, 7, 8, 20, 21, 22, 23], "{max}");
            assert!(ends.is_sorted() && ends.last() == Some(&24) && bad.is_none(), "{max}: {ends:?}");
        }
    }

    #[test]
    fn bytes_end_a_step_within_a_batch() {
        let each = {
            let limits = UnpackLimits { max_bytes: 1, ..limits(100) };
            let step = fetched(&[plain(0..3)], 0, &[]).step(&limits).unwrap().unwrap();
            assert_eq!((step.records.len(), step.next), (1, 1));
            step.bytes
        };
        for (max_bytes, steps) in [(1, vec![1, 2, 3, 4]), (each + 1, vec![2, 4]), (100 * each, vec![4])] {
            let limits = UnpackLimits { max_bytes, ..limits(100) };
            let (offsets, ends, _) = unpacked(fetched(&[plain(0..3), plain(3..4)], 0, &[]), &limits);
            assert_eq!((offsets, ends), (vec![0, 1, 2, 3], steps), "{max_bytes}");
        }
    }

    #[test]
    fn a_step_of_records_with_many_headers_is_bounded() {
        let headers: Headers = (0..1_000).map(|_| Header { name: Bytes::new(), value: None }).collect();
        let mut builder = BatchBuilder::new(0);
        for _ in 0..100 {
            builder.append(&NewRecord { key: None, value: None, headers: &headers, timestamp: 0 }).unwrap();
        }
        let sealed = builder.seal(Packing::NONE, ProducerState::NONE, false).unwrap();
        let mut batches = fetched(&[sealed.bytes().to_vec()], 0, &[]);
        let limits = UnpackLimits { max_bytes: 200_000, ..limits(100) };
        let mut offset = 0;
        while let Some(step) = batches.step(&limits) {
            let step = step.unwrap();
            let memory = step.records.iter().map(|record| record.headers.len() * size_of::<Header>()).sum::<usize>();
            assert!(memory <= step.bytes && step.bytes < 300_000, "{memory} of {}", step.bytes);
            offset += step.records.len() as u64;
            assert_eq!(step.next, offset);
        }
        assert_eq!(offset, 100);
    }

    #[test]
    fn aborted_transactions_are_left_out_and_their_gaps_passed() {
        let log = [
            batch(0..2, 1, TRANSACTIONAL, None),
            batch(2..4, 2, TRANSACTIONAL, None),
            batch(4..5, 1, TRANSACTIONAL | CONTROL, Some(&ABORT)),
            batch(5..6, 1, TRANSACTIONAL, None),
            plain(6..7),
            batch(7..8, 1, TRANSACTIONAL | CONTROL, Some(&COMMIT)),
            batch(8..9, 2, TRANSACTIONAL | CONTROL, Some(&COMMIT)),
        ];
        let (offsets, ends, bad) = unpacked(fetched(&log, 0, &[(1, 0)]), &limits(100));
        assert_eq!((offsets, ends, bad), (vec![2, 3, 5, 6], vec![9], None));
        // From the middle, as a reader that continues there.
        let (offsets, ends, _) = unpacked(fetched(&log[2..], 4, &[(1, 0)]), &limits(1));
        assert_eq!((offsets, ends.last()), (vec![5, 6], Some(&9)));
        // Uncommitted: all records, and no markers.
        let all = FetchedBatches::new(&log.concat().into(), 0, Isolated::default());
        assert_eq!(unpacked(all, &limits(100)).0, [0, 1, 2, 3, 5, 6]);
    }

    #[test]
    fn a_marker_that_compaction_emptied_is_passed_and_ends_its_transaction() {
        let mut emptied = batch(2..3, 1, TRANSACTIONAL | CONTROL, Some(&ABORT));
        emptied.truncate(61);
        emptied[8..12].copy_from_slice(&49_i32.to_be_bytes());
        emptied[57..].fill(0);
        let crc = crc32c::crc32c(&emptied[21..]);
        emptied[17..21].copy_from_slice(&crc.to_be_bytes());
        let committed = [batch(3..4, 1, TRANSACTIONAL, None), batch(4..5, 1, TRANSACTIONAL | CONTROL, Some(&COMMIT))];
        let log = [vec![batch(0..2, 1, TRANSACTIONAL, None), emptied.clone()], committed.to_vec()].concat();
        assert_eq!(unpacked(fetched(&log, 0, &[(1, 0)]), &limits(100)), (vec![3], vec![5], None));
        let all = FetchedBatches::new(&log.concat().into(), 0, Isolated::default());
        assert_eq!(unpacked(all, &limits(100)), (vec![0, 1, 3], vec![5], None));
        assert_eq!(unpacked(fetched(&[emptied], 2, &[]), &limits(100)), (vec![], vec![3], None));
    }

    #[test]
    fn the_next_marker_ends_a_transaction_whose_own_is_gone() {
        let log = [
            batch(0..2, 1, TRANSACTIONAL, None),
            batch(3..4, 1, TRANSACTIONAL | CONTROL, Some(&COMMIT)),
            batch(4..5, 1, TRANSACTIONAL, None),
        ];
        assert_eq!(unpacked(fetched(&log, 0, &[(1, 0)]), &limits(100)).0, [4]);
    }

    #[test]
    fn what_lies_before_a_damaged_batch_is_returned_first() {
        let mut damaged = plain(5..7);
        *damaged.last_mut().unwrap() ^= 1;
        let batches = fetched(&[plain(0..5), damaged, plain(7..9)], 0, &[]);
        let (offsets, ends, bad) = unpacked(batches, &limits(2));
        assert_eq!((offsets, ends), (vec![0, 1, 2, 3, 4], vec![2, 4, 5]));
        assert_eq!(bad, Some((5, ErrorKind::Undecodable)));
    }

    #[test]
    fn a_fetch_that_leads_nowhere_is_an_error_and_an_empty_one_is_none() {
        let batches = fetched(&[plain(0..5)], 9, &[]);
        assert!(!batches.behind().is_sound);
        assert_eq!(unpacked(batches, &limits(2)).2, Some((9, ErrorKind::Undecodable)));
        let batches = fetched(&[], 9, &[]);
        assert!(batches.behind().is_sound);
        assert_eq!(unpacked(batches, &limits(2)), (vec![], vec![], None));
        let mut garbage = plain(0..5);
        garbage[8..12].fill(0xff);
        let batches = fetched(&[garbage], 0, &[]);
        assert!(!batches.behind().is_sound);
        assert_eq!(unpacked(batches, &limits(2)).2, Some((0, ErrorKind::Undecodable)));
    }
}
