//! Dead letters in a table.

mod fate;

use std::collections::HashSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidings_core::{
    DeadLetter, Error, ErrorKind, Header, LetterId, LetterQuery, Resolution, Result, StoredRecord, Timestamp,
    TopicPartition,
};

use self::fate::{Dated, Fate, closing, fate_bytes, read_dated, read_fate};
use crate::disk::Table;
use crate::error::{self, Broken};

const LETTER: u8 = b'l';
const IDENTITY: u8 = b'i';
const CLOSED: u8 = b'c';

/// Letters are cut into pieces of this size: sled keeps up to sixteen values in a page, and a page above 128 KiB in a
/// file of its own that it does not sync.
const PIECE: usize = 4 << 10;
/// The largest letter.
const MAX_LETTER: usize = 64 << 20;
/// The longest identity: it is stored twice and must fit into a page too.
const MAX_IDENTITY: usize = 2 << 10;
/// Maximum letters or bytes that one step of a listing reads before other calls run.
const STEP_LETTERS: usize = 1_000;
const STEP_BYTES: usize = 4 << 20;
/// Maximum closed letters that are forgotten at once.
const FORGET_AT_ONCE: usize = 5_000;

#[derive(Debug, Serialize, Deserialize)]
struct StoredLetter<'a> {
    service: &'a str,
    handler: &'a str,
    topic: &'a str,
    partition: u32,
    offset: u64,
    timestamp: i64,
    #[serde(borrow)]
    key: Option<&'a [u8]>,
    #[serde(borrow)]
    value: Option<&'a [u8]>,
    #[serde(borrow)]
    headers: Vec<(&'a [u8], Option<&'a [u8]>)>,
    kind: &'a str,
    error: &'a str,
    attempts: u32,
    failed_at: i64,
}

/// The letters of a store.
#[derive(Debug)]
pub(crate) struct Letters {
    table: Table,
    next: u64,
    open: u64,
}

/// A page of a listing.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) letters: Vec<DeadLetter>,
    /// The number to continue from, if there may be more.
    pub(crate) next: Option<u64>,
}

impl Letters {
    /// Opens a table of letters, and completes interrupted changes: identities are authoritative, and are written in
    /// an order from which the rest can be derived.
    pub(crate) fn start(mut table: Table) -> error::Result<Self> {
        let last = table.last(&[LETTER])?.and_then(|(key, _)| number_in(&key));
        let mut next = last.map_or(0, |n| n + 1);
        let (mut open, mut closed) = (HashSet::new(), HashSet::new());
        for item in table.scan(vec![IDENTITY], vec![IDENTITY]) {
            let fate = read_fate(&table, &item?.1)?;
            if fate.closed.is_none() {
                open.insert(fate.number)
            } else {
                closed.insert(fate.number)
            };
            next = next.max(fate.number + 1);
        }
        remove_orphans(&mut table, &open)?;
        date_closed(&mut table, closed)?;
        let now = table.time();
        table.commit(now)?;
        Ok(Self { table, next, open: open.len() as u64 })
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    pub(crate) fn commit(&mut self, now: Timestamp) -> error::Result<()> {
        self.table.commit(now)
    }

    pub(crate) fn close(self) -> error::Result<()> {
        self.table.close()
    }

    pub(crate) fn bury(&mut self, letter: &DeadLetter, max_letters: u64) -> error::Result<Result<()>> {
        let identity = match identity(&letter.id()) {
            Ok(identity) => identity,
            Err(error) => return Ok(Err(error)),
        };
        if let Some(value) = self.table.get(&identity)? {
            let known = read_dated(&self.table, &value)?;
            if known.time.is_none_or(|time| time == letter.record.timestamp.millis()) {
                return Ok(Ok(()));
            }
            // A letter of the same topic before it was recreated.
            if known.fate.closed.is_none() {
                return Ok(Err(other()));
            }
        }
        if self.open >= max_letters {
            let text = "bury a letter: max_letters are open; redrive or discard some";
            return Ok(Err(Error::new(ErrorKind::Unavailable, text)));
        }
        let bytes = match to_bytes(letter) {
            Ok(bytes) => bytes,
            Err(error) => return Ok(Err(error)),
        };
        // The identity comes last: if it exists, the letter is complete.
        for (piece, part) in (0_u16..).zip(bytes.chunks(PIECE)) {
            self.table.put(piece_key(self.next, piece), Some(part.to_vec()));
        }
        let fate = Fate { number: self.next, closed: None };
        let dated = Dated { fate, time: Some(letter.record.timestamp.millis()) };
        self.table.put(identity, Some(fate_bytes(&self.table, &dated)?));
        self.next += 1;
        self.open += 1;
        Ok(Ok(()))
    }

    pub(crate) fn is_open(&self, id: &LetterId) -> error::Result<bool> {
        let Ok(identity) = identity(id) else { return Ok(false) };
        let Some(value) = self.table.get(&identity)? else { return Ok(false) };
        Ok(read_fate(&self.table, &value)?.closed.is_none())
    }

    /// Closes a letter; returns whether it was open.
    pub(crate) fn resolve(&mut self, id: &LetterId, resolution: &Resolution, now: Timestamp) -> error::Result<bool> {
        let Ok(identity) = identity(id) else { return Ok(false) };
        let Some(value) = self.table.get(&identity)? else { return Ok(false) };
        let Dated { fate, time } = read_dated(&self.table, &value)?;
        if fate.closed.is_some() {
            return Ok(false);
        }
        let closed = Dated { fate: Fate { number: fate.number, closed: Some(closing(resolution)) }, time };
        let dated = closed_key(now, &identity);
        // The identity comes first: an open letter still has all its pieces.
        self.table.put(identity, Some(fate_bytes(&self.table, &closed)?));
        self.table.put(dated, Some(fate.number.to_be_bytes().to_vec()));
        let mut piece = 0;
        while self.table.get(&piece_key(fate.number, piece))?.is_some() {
            self.table.put(piece_key(fate.number, piece), None);
            piece += 1;
        }
        self.open = self.open.saturating_sub(1);
        Ok(true)
    }

    /// Returns the number of the letter that follows `after`.
    pub(crate) fn number_after(&self, after: Option<&LetterId>) -> error::Result<u64> {
        let Some(Ok(identity)) = after.map(identity) else { return Ok(0) };
        let Some(value) = self.table.get(&identity)? else { return Ok(0) };
        Ok(read_fate(&self.table, &value)?.number + 1)
    }

    /// Returns up to `limit` letters that match `query`, from the number `from` on.
    pub(crate) fn list(&self, query: &LetterQuery, from: u64, limit: usize) -> error::Result<Page> {
        let mut page = Page { letters: Vec::new(), next: None };
        let (mut seen, mut size) = (0, 0);
        let mut pieces: Option<(u64, Vec<u8>)> = None;
        for item in self.table.scan(vec![LETTER], piece_key(from, 0)) {
            let (key, part) = item?;
            let number = number_in(&key).ok_or_else(|| self.damaged())?;
            match &mut pieces {
                Some((current, bytes)) if *current == number => bytes.extend_from_slice(&part),
                _ => {
                    if let Some((_, bytes)) = pieces.take() {
                        self.add(&bytes, query, &mut page)?;
                        (seen, size) = (seen + 1, size + bytes.len());
                    }
                    if page.letters.len() >= limit || seen >= STEP_LETTERS || size >= STEP_BYTES {
                        page.next = Some(number);
                        return Ok(page);
                    }
                    pieces = Some((number, part.to_vec()));
                }
            }
        }
        if let Some((_, bytes)) = pieces {
            self.add(&bytes, query, &mut page)?;
        }
        Ok(page)
    }

    fn add(&self, bytes: &[u8], query: &LetterQuery, page: &mut Page) -> error::Result<()> {
        let letter = from_bytes(bytes).ok_or_else(|| self.damaged())?;
        if query.wants(&letter) {
            page.letters.push(letter);
        }
        Ok(())
    }

    /// Forgets letters that were closed before `oldest`, up to a bound, and returns whether there may be more. Must
    /// be committed before one of them could be buried again.
    pub(crate) fn forget_closed(&mut self, oldest: Timestamp) -> error::Result<bool> {
        let end = closed_key(oldest, &[]);
        let mut old = Vec::new();
        for item in self.table.scan(vec![CLOSED], vec![CLOSED]).take(FORGET_AT_ONCE) {
            let (key, number) = item?;
            if *key >= *end {
                break;
            }
            old.push((key.to_vec(), number.to_vec()));
        }
        let more = old.len() == FORGET_AT_ONCE;
        for (key, number) in old {
            let identity = key[1 + 8..].to_vec();
            // Unless the identity belongs to another letter by now.
            let fate = self.table.get(&identity)?.map(|value| read_fate(&self.table, &value)).transpose()?;
            if fate.is_some_and(|fate| fate.number.to_be_bytes() == *number) {
                self.table.put(identity, None);
            }
            self.table.put(key, None);
        }
        Ok(more)
    }

    fn damaged(&self) -> Broken {
        Broken::corrupt(self.table.path(), "a letter is no letter")
    }
}

/// Removes pieces without an open letter, left by an interrupted burying or closing.
fn remove_orphans(table: &mut Table, open: &HashSet<u64>) -> error::Result<()> {
    let mut orphans = Vec::new();
    for item in table.scan(vec![LETTER], vec![LETTER]) {
        let (key, _) = item?;
        if number_in(&key).is_none_or(|number| !open.contains(&number)) {
            orphans.push(key.to_vec());
        }
    }
    orphans.into_iter().for_each(|key| table.put(key, None));
    Ok(())
}

/// Ensures that each of the `closed` letters, and no other letter, has exactly one date, by which it will be
/// forgotten.
fn date_closed(table: &mut Table, mut closed: HashSet<u64>) -> error::Result<()> {
    let mut stale = Vec::new();
    for item in table.scan(vec![CLOSED], vec![CLOSED]) {
        let (key, number) = item?;
        let number = (*number).try_into().ok().map(u64::from_be_bytes);
        if number.is_none_or(|number| !closed.remove(&number)) {
            stale.push(key.to_vec());
        }
    }
    stale.into_iter().for_each(|key| table.put(key, None));
    if closed.is_empty() {
        return Ok(());
    }
    let mut undated = Vec::new();
    for item in table.scan(vec![IDENTITY], vec![IDENTITY]) {
        let (identity, fate) = item?;
        let number = read_fate(table, &fate)?.number;
        if closed.contains(&number) {
            // It was closed with the last commit, or before.
            undated.push((closed_key(table.time(), &identity), number));
        }
    }
    undated.into_iter().for_each(|(key, number)| table.put(key, Some(number.to_be_bytes().to_vec())));
    Ok(())
}

fn piece_key(number: u64, piece: u16) -> Vec<u8> {
    let mut key = vec![LETTER];
    key.extend_from_slice(&number.to_be_bytes());
    key.extend_from_slice(&piece.to_be_bytes());
    key
}

fn number_in(key: &[u8]) -> Option<u64> {
    key.get(1..9)?.try_into().ok().map(u64::from_be_bytes)
}

fn closed_key(at: Timestamp, identity: &[u8]) -> Vec<u8> {
    let mut key = vec![CLOSED];
    // Times before 1970 would come last; nothing was closed then.
    key.extend_from_slice(&at.millis().max(0).to_be_bytes());
    key.extend_from_slice(identity);
    key
}

fn identity(id: &LetterId) -> Result<Vec<u8>> {
    let mut key = vec![IDENTITY];
    for text in [id.service.as_str(), id.origin.topic.as_str()] {
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        key.extend_from_slice(&length.to_be_bytes());
        key.extend_from_slice(text.as_bytes());
    }
    key.extend_from_slice(&id.origin.partition.to_be_bytes());
    key.extend_from_slice(&id.offset.to_be_bytes());
    if key.len() > MAX_IDENTITY {
        return Err(Error::new(ErrorKind::TooLarge, "bury a letter: the names of its service and topic are too long"));
    }
    Ok(key)
}

fn other() -> Error {
    let text = "bury a letter: a letter of its identity is open, about another record: redrive or discard that one";
    Error::new(ErrorKind::Conflict, text)
}

fn to_bytes(letter: &DeadLetter) -> Result<Vec<u8>> {
    let stored = StoredLetter {
        service: &letter.service,
        handler: &letter.handler,
        topic: &letter.origin.topic,
        partition: letter.origin.partition,
        offset: letter.record.offset,
        timestamp: letter.record.timestamp.millis(),
        key: letter.record.key.as_deref(),
        value: letter.record.value.as_deref(),
        headers: letter.record.headers.iter().map(|h| (&*h.name, h.value.as_deref())).collect(),
        kind: letter.kind.as_str(),
        error: &letter.error,
        attempts: letter.attempts,
        failed_at: letter.failed_at.millis(),
    };
    let bytes = postcard::to_stdvec(&stored);
    let bytes = bytes.map_err(|e| Error::caused_by(ErrorKind::Invalid, "bury a letter: write it", e))?;
    if bytes.len() > MAX_LETTER {
        return Err(Error::new(ErrorKind::TooLarge, format!("bury a letter: it is larger than {MAX_LETTER} bytes")));
    }
    Ok(bytes)
}

fn from_bytes(bytes: &[u8]) -> Option<DeadLetter> {
    let stored: StoredLetter<'_> = postcard::from_bytes(bytes).ok()?;
    let copy = Bytes::copy_from_slice;
    let mut record = StoredRecord::new(stored.offset, Timestamp::from_millis(stored.timestamp));
    record.key = stored.key.map(copy);
    record.value = stored.value.map(copy);
    record.headers =
        stored.headers.into_iter().map(|(name, value)| Header { name: copy(name), value: value.map(copy) }).collect();
    let origin = TopicPartition::new(stored.topic, stored.partition);
    let letter = DeadLetter::new(stored.service, origin, record, ErrorKind::from_name(stored.kind));
    Some(
        letter
            .with_handler(stored.handler)
            .with_error(stored.error)
            .with_attempts(stored.attempts)
            .with_failed_at(Timestamp::from_millis(stored.failed_at)),
    )
}

#[cfg(test)]
mod cuts;

#[cfg(test)]
mod tests {
    use tidings_core::Headers;

    use super::*;

    #[test]
    fn a_letter_survives_its_bytes() {
        let mut record = StoredRecord::new(u64::MAX, Timestamp::from_millis(-1)).with_value(vec![0, 159, 146]);
        record.headers = Headers::new().with("a", "1").with("a", "");
        record.headers.push(Header::null("n"));
        let letter = DeadLetter::new("svc", TopicPartition::new("t", 2), record, ErrorKind::Undecodable)
            .with_handler("h")
            .with_error("bad")
            .with_attempts(3);
        assert_eq!(from_bytes(&to_bytes(&letter).unwrap()), Some(letter));
    }
}
