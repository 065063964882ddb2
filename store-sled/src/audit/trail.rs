//! Audit records, in the table of the letters.
//!
//! A record is stored under its number in the store, cut into pieces as a letter is, and then its place: chain and
//! number in the chain, which is written last and so shows that the record is complete.

use tidings_core::audit::{AuditHash, StoredAudit};
use tidings_core::{Error, ErrorKind, Result, Timestamp};

use crate::disk::Table;
use crate::error::{self, Broken};

const RECORD: u8 = b'a';
const PLACE: u8 = b'k';
/// The first byte of a record's form.
const FORM: u8 = 1;

/// As for letters: sled keeps up to sixteen values in a page.
const PIECE: usize = 4 << 10;
/// The longest name of a chain: it must fit into a page with its neighbours.
const MAX_CHAIN: usize = 1 << 10;
/// Maximum records or bytes that one step reads before other calls run.
const STEP_RECORDS: usize = 1_000;
const STEP_BYTES: usize = 4 << 20;

/// The audit records of a store.
#[derive(Debug)]
pub(crate) struct Trail {
    /// The numbers of the oldest record and of the next one.
    first: u64,
    next: u64,
}

/// A page of records.
#[derive(Debug)]
pub(crate) struct TrailPage {
    pub(crate) records: Vec<StoredAudit>,
    /// The number to continue from.
    pub(crate) next: u64,
    /// Whether there may be more.
    pub(crate) more: bool,
}

impl Trail {
    /// Finds the records in a table, and removes what an interrupted append left.
    pub(crate) fn start(table: &mut Table) -> error::Result<Self> {
        let first = table.scan(vec![RECORD], vec![RECORD]).next().transpose()?;
        let last = table.last(&[RECORD])?;
        let number = |entry: Option<(sled::IVec, sled::IVec)>| entry.and_then(|(key, _)| number_in(&key));
        let (Some(first), Some(last)) = (number(first), number(last)) else { return Ok(Self { first: 0, next: 0 }) };
        let (mut first, mut next) = (first, last + 1);
        // Only the oldest one, by a purge, and the last one, by an append, can be incomplete.
        if !is_complete(table, first)? {
            remove_pieces(table, first)?;
            first += 1;
        }
        if first < next && !is_complete(table, last)? {
            remove_pieces(table, last)?;
            next = last;
        }
        let now = table.time();
        table.commit(now)?;
        Ok(Self { first, next: next.max(first) })
    }

    pub(crate) fn append(
        &mut self,
        table: &mut Table,
        record: &StoredAudit,
        now: Timestamp,
        max_records: u64,
    ) -> error::Result<Result<()>> {
        if record.chain.len() > MAX_CHAIN {
            return Ok(Err(Error::new(
                ErrorKind::TooLarge,
                "append an audit record: the name of its chain is too long",
            )));
        }
        let place = place_key(record);
        if let Some(number) = table.get(&place)? {
            let number = number.as_slice().try_into().map(u64::from_be_bytes).map_err(|_| damaged(table))?;
            let known = read(table, number)?.map(|(known, _)| known);
            return Ok(if known.as_ref() == Some(record) { Ok(()) } else { Err(taken(record)) });
        }
        if self.next - self.first >= max_records {
            let text = "append an audit record: max_audit_records are kept; purge the oldest";
            return Ok(Err(Error::new(ErrorKind::Unavailable, text)));
        }
        for (piece, part) in (0_u16..).zip(to_bytes(record, now).chunks(PIECE)) {
            table.put(piece_key(self.next, piece), Some(part.to_vec()));
        }
        table.put(place, Some(self.next.to_be_bytes().to_vec()));
        self.next += 1;
        Ok(Ok(()))
    }

    /// Reads at most `limit` records from a number on. A number whose record is missing is passed: the records behind it
    /// show that their chain has a hole.
    pub(crate) fn page(&self, table: &Table, from: u64, limit: usize) -> error::Result<TrailPage> {
        let from = from.max(self.first);
        let mut page = TrailPage { records: Vec::new(), next: from, more: false };
        let mut size = 0;
        for number in from..self.next {
            let is_full = page.records.len() >= limit.min(STEP_RECORDS);
            if is_full || size >= STEP_BYTES || number - from >= STEP_RECORDS as u64 {
                page.more = page.records.len() < limit;
                break;
            }
            page.next = number + 1;
            let Some((record, _)) = read(table, number)? else { continue };
            size += record.bytes.len();
            page.records.push(record);
        }
        Ok(page)
    }

    /// Deletes the oldest records that were stored before a time, up to a bound, and returns how many, and whether there
    /// may be more.
    pub(crate) fn purge(&mut self, table: &mut Table, before: Timestamp) -> error::Result<(u64, bool)> {
        let end = self.next.min(self.first + STEP_RECORDS as u64);
        let mut removed = 0;
        while self.first < end {
            let Some((record, at)) = read(table, self.first)? else {
                // It is missing already; the ones behind it must not stay for ever.
                self.first += 1;
                continue;
            };
            if at >= before {
                return Ok((removed, false));
            }
            // The place goes first: a record without one is incomplete.
            table.put(place_key(&record), None);
            remove_pieces(table, self.first)?;
            self.first += 1;
            removed += 1;
        }
        Ok((removed, self.first == end && end < self.next))
    }
}

/// Whether a record has its place; one without was not appended or is not purged completely.
fn is_complete(table: &Table, number: u64) -> error::Result<bool> {
    let Some((record, _)) = from_bytes(&pieces(table, number)?.concat()) else { return Ok(false) };
    Ok(table.get(&place_key(&record))?.is_some_and(|place| place == number.to_be_bytes()))
}

/// Removes the pieces of a record, the last one first: the pieces that a crash leaves begin with the first one.
fn remove_pieces(table: &mut Table, number: u64) -> error::Result<()> {
    let count = u16::try_from(pieces(table, number)?.len()).unwrap_or(u16::MAX);
    (0..count).rev().for_each(|piece| table.put(piece_key(number, piece), None));
    Ok(())
}

/// Reads a record and the time at which it was stored.
fn read(table: &Table, number: u64) -> error::Result<Option<(StoredAudit, Timestamp)>> {
    let bytes = pieces(table, number)?.concat();
    if bytes.is_empty() {
        return Ok(None);
    }
    from_bytes(&bytes).map(Some).ok_or_else(|| damaged(table))
}

fn pieces(table: &Table, number: u64) -> error::Result<Vec<Vec<u8>>> {
    let mut pieces = Vec::new();
    for piece in 0_u16.. {
        let Some(part) = table.get(&piece_key(number, piece))? else { break };
        pieces.push(part);
    }
    Ok(pieces)
}

/// The form, the time, the length of the chain's name and the name, the number, two hashes, and the bytes.
fn to_bytes(record: &StoredAudit, now: Timestamp) -> Vec<u8> {
    let mut bytes = vec![FORM];
    bytes.extend_from_slice(&now.millis().to_be_bytes());
    bytes.extend_from_slice(&u16::try_from(record.chain.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend_from_slice(record.chain.as_bytes());
    bytes.extend_from_slice(&record.seq.to_be_bytes());
    bytes.extend_from_slice(record.prev.as_bytes());
    bytes.extend_from_slice(record.hash.as_bytes());
    bytes.extend_from_slice(&record.bytes);
    bytes
}

fn from_bytes(bytes: &[u8]) -> Option<(StoredAudit, Timestamp)> {
    let (&[FORM], rest) = bytes.split_first_chunk()? else { return None };
    let (at, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (chain, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let (seq, rest) = rest.split_first_chunk()?;
    let (prev, rest) = rest.split_first_chunk()?;
    let (hash, rest) = rest.split_first_chunk()?;
    let chain = str::from_utf8(chain).ok()?.to_owned();
    let (prev, hash) = (AuditHash::new(*prev), AuditHash::new(*hash));
    let record = StoredAudit::new(chain, u64::from_be_bytes(*seq), prev, hash, rest.to_vec());
    Some((record, Timestamp::from_millis(i64::from_be_bytes(*at))))
}

fn piece_key(number: u64, piece: u16) -> Vec<u8> {
    let mut key = vec![RECORD];
    key.extend_from_slice(&number.to_be_bytes());
    key.extend_from_slice(&piece.to_be_bytes());
    key
}

fn number_in(key: &[u8]) -> Option<u64> {
    key.get(1..9)?.try_into().ok().map(u64::from_be_bytes)
}

/// The number is of a fixed length, so no two places share a key.
fn place_key(record: &StoredAudit) -> Vec<u8> {
    let mut key = vec![PLACE];
    key.extend_from_slice(record.chain.as_bytes());
    key.extend_from_slice(&record.seq.to_be_bytes());
    key
}

fn taken(record: &StoredAudit) -> Error {
    let text = format!("append the audit record {}@{}: another one has its number", record.chain, record.seq);
    Error::new(ErrorKind::Conflict, text)
}

fn damaged(table: &Table) -> Broken {
    Broken::corrupt(table.path(), "an audit record is no audit record")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Cut;

    const CACHE: u64 = 1 << 20;

    fn record(seq: u64) -> StoredAudit {
        StoredAudit::new("ops", seq, AuditHash::ZERO, AuditHash::new([7; 32]), vec![9; 10_000])
    }

    fn now() -> Timestamp {
        Timestamp::from_millis(1)
    }

    #[test]
    fn a_page_ends_at_its_limit_or_at_its_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let mut table = Table::create(&directory.path().join("table"), CACHE, now()).unwrap();
        let mut trail = Trail::start(&mut table).unwrap();
        for seq in 0..6 {
            let record = StoredAudit::new("ops", seq, AuditHash::ZERO, AuditHash::ZERO, vec![9; 1 << 20]);
            trail.append(&mut table, &record, now(), 9).unwrap().unwrap();
        }
        let page = |from: u64, limit: usize| {
            let page = trail.page(&table, from, limit).unwrap();
            (page.records.len(), page.next, page.more)
        };
        assert_eq!([page(0, 2), page(0, 4), page(0, 0)], [(2, 2, false), (4, 4, false), (0, 0, false)]);
        assert_eq!([page(0, 5), page(4, 9), page(6, 9)], [(4, 4, true), (2, 6, false), (0, 6, false)]);
    }

    #[test]
    fn the_name_of_a_chain_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let mut table = Table::create(&directory.path().join("table"), CACHE, now()).unwrap();
        let mut trail = Trail::start(&mut table).unwrap();
        let mut append = |length: usize| {
            let record = StoredAudit::new("c".repeat(length), 0, AuditHash::ZERO, AuditHash::ZERO, "r");
            trail.append(&mut table, &record, now(), 9).unwrap()
        };
        append(1_024).unwrap();
        assert_eq!(append(1_025).unwrap_err().kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn an_append_that_was_interrupted_leaves_whole_records_only() {
        // Each record has three pieces and a place, each in a batch of its own.
        for batches in 0..8 {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("table");
            let mut table = Table::create(&path, CACHE, now()).unwrap();
            let mut trail = Trail::start(&mut table).unwrap();
            table.cut(Cut { keys: 1, batches });
            for seq in 0..2 {
                trail.append(&mut table, &record(seq), now(), 9).unwrap().unwrap();
            }
            table.commit(now()).unwrap_err();
            drop(table);

            let mut table = Table::open(&path, CACHE).unwrap();
            let mut trail = Trail::start(&mut table).unwrap();
            let stored = trail.page(&table, 0, 9).unwrap().records;
            assert_eq!(stored, (0..batches as u64 / 4).map(record).collect::<Vec<_>>(), "{batches} batches");
            for seq in 0..2 {
                trail.append(&mut table, &record(seq), now(), 9).unwrap().unwrap();
            }
            table.commit(now()).unwrap();
            assert_eq!(trail.page(&table, 0, 9).unwrap().records, [record(0), record(1)]);
        }
    }

    #[test]
    fn a_purge_that_was_interrupted_leaves_whole_records_only() {
        for batches in 0..9 {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("table");
            let mut table = Table::create(&path, CACHE, now()).unwrap();
            let mut trail = Trail::start(&mut table).unwrap();
            for seq in 0..3 {
                trail.append(&mut table, &record(seq), now(), 9).unwrap().unwrap();
            }
            table.commit(now()).unwrap();
            table.cut(Cut { keys: 1, batches });
            trail.purge(&mut table, Timestamp::from_millis(2)).unwrap();
            table.commit(now()).unwrap_err();
            drop(table);

            let mut table = Table::open(&path, CACHE).unwrap();
            let trail = Trail::start(&mut table).unwrap();
            let left = trail.page(&table, 0, 9).unwrap().records;
            // Each record has a place and three pieces; a record that lost one of them is gone.
            assert_eq!(left, (batches.div_ceil(4) as u64..3).map(record).collect::<Vec<_>>(), "{batches} batches");
        }
    }

    #[test]
    fn records_are_bounded_and_the_oldest_can_be_purged() {
        let directory = tempfile::tempdir().unwrap();
        let mut table = Table::create(&directory.path().join("table"), CACHE, now()).unwrap();
        let mut trail = Trail::start(&mut table).unwrap();
        for seq in 0..3 {
            trail.append(&mut table, &record(seq), Timestamp::from_millis(seq.cast_signed()), 3).unwrap().unwrap();
        }
        let full = trail.append(&mut table, &record(3), now(), 3).unwrap().unwrap_err();
        assert_eq!(full.kind(), ErrorKind::Unavailable);
        trail.append(&mut table, &record(2), now(), 3).unwrap().unwrap();
        table.commit(now()).unwrap();

        assert_eq!(trail.purge(&mut table, Timestamp::from_millis(2)).unwrap(), (2, false));
        trail.append(&mut table, &record(3), now(), 3).unwrap().unwrap();
        table.commit(now()).unwrap();
        let trail = Trail::start(&mut table).unwrap();
        assert_eq!(trail.page(&table, 0, 9).unwrap().records, [record(2), record(3)]);
    }

    #[test]
    fn a_record_that_is_missing_hides_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let mut table = Table::create(&directory.path().join("table"), CACHE, now()).unwrap();
        let mut trail = Trail::start(&mut table).unwrap();
        for seq in 0..3 {
            trail.append(&mut table, &record(seq), now(), 3).unwrap().unwrap();
        }
        remove_pieces(&mut table, 1).unwrap();
        table.commit(now()).unwrap();
        let page = trail.page(&table, 0, 9).unwrap();
        assert_eq!((page.records, page.next, page.more), (vec![record(0), record(2)], 3, false));

        let mut trail = Trail::start(&mut table).unwrap();
        assert_eq!(trail.page(&table, 0, 9).unwrap().records, [record(0), record(2)]);
        assert_eq!(trail.purge(&mut table, Timestamp::from_millis(2)).unwrap(), (2, false));
        trail.append(&mut table, &record(3), now(), 1).unwrap().unwrap();
        table.commit(now()).unwrap();
        assert_eq!(trail.page(&table, 0, 9).unwrap().records, [record(3)]);
    }

    #[test]
    fn many_missing_records_are_passed_in_steps() {
        let directory = tempfile::tempdir().unwrap();
        let mut table = Table::create(&directory.path().join("table"), CACHE, now()).unwrap();
        let mut trail = Trail::start(&mut table).unwrap();
        trail.append(&mut table, &record(0), now(), 9_999).unwrap().unwrap();
        trail.next = 2_500;
        trail.append(&mut table, &record(1), now(), 9_999).unwrap().unwrap();
        table.commit(now()).unwrap();
        let steps = [(vec![record(0)], 1_000, true), (vec![], 2_000, true), (vec![record(1)], 2_501, false)];
        let mut from = 0;
        for step in steps {
            let page = trail.page(&table, from, 9).unwrap();
            from = page.next;
            assert_eq!((page.records, page.next, page.more), step);
        }
        let before = Timestamp::from_millis(2);
        for step in [(1, true), (0, true), (1, false)] {
            assert_eq!(trail.purge(&mut table, before).unwrap(), step);
        }
        assert_eq!((trail.first, trail.next), (2_501, 2_501));
    }
}
