//! Dead letters in a table.

mod codec;
mod fate;

use std::collections::{BTreeSet, HashMap, HashSet};

use tidings_core::{DeadLetter, Error, ErrorKind, LetterId, LetterQuery, Resolution, Result, Timestamp};

use self::codec::{from_bytes, to_bytes};
use self::fate::{Dated, Fate, Parking, closing, fate_bytes, read_dated, read_fate};
use crate::disk::Table;
use crate::error::{self, Broken};

const LETTER: u8 = b'l';
const IDENTITY: u8 = b'i';
const CLOSED: u8 = b'c';

/// Letters are cut into pieces of this size: sled keeps up to sixteen values in a page, and a page above 128 KiB in a
/// file of its own that it does not sync.
const PIECE: usize = 4 << 10;
/// The longest identity: it is stored twice and must fit into a page too.
const MAX_IDENTITY: usize = 2 << 10;
/// Maximum letters or bytes that one step of a listing reads before other calls run.
const STEP_LETTERS: usize = 1_000;
const STEP_BYTES: usize = 4 << 20;
/// Maximum closed letters that are forgotten at once.
const FORGET_AT_ONCE: usize = 5_000;

/// The letters of a store.
#[derive(Debug)]
pub(crate) struct Letters {
    table: Table,
    next: u64,
    /// Number of letters that are open or parked.
    open: u64,
    /// Parked letters, by number.
    parked: HashMap<u64, Parking>,
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
        let (mut open, mut closed, mut parked) = (HashSet::new(), HashSet::new(), HashMap::new());
        for item in table.scan(vec![IDENTITY], vec![IDENTITY]) {
            let Dated { fate, parked: why, .. } = read_dated(&table, &item?.1)?;
            if fate.closed.is_none() {
                parked.extend(why.map(|why| (fate.number, why)));
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
        Ok(Self { table, next, open: open.len() as u64, parked })
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// Returns the table for the other records in it, under keys of their own.
    pub(crate) fn table_mut(&mut self) -> &mut Table {
        &mut self.table
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
        let dated = Dated { fate, time: Some(letter.record.timestamp.millis()), parked: None };
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

    /// Closes or parks a letter; returns whether that changed its state.
    pub(crate) fn resolve(&mut self, id: &LetterId, resolution: &Resolution, now: Timestamp) -> error::Result<bool> {
        let Ok(identity) = identity(id) else { return Ok(false) };
        let Some(value) = self.table.get(&identity)? else { return Ok(false) };
        let Dated { fate, time, parked } = read_dated(&self.table, &value)?;
        if fate.closed.is_some() {
            return Ok(false);
        }
        if !resolution.kind.closes() {
            return if parked.is_some() { Ok(false) } else { self.park(identity, fate, resolution, now) };
        }
        let closing = Fate { number: fate.number, closed: Some(closing(resolution)) };
        let closed = Dated { fate: closing, time, parked: None };
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
        self.parked.remove(&fate.number);
        Ok(true)
    }

    fn park(&mut self, identity: Vec<u8>, fate: Fate, why: &Resolution, now: Timestamp) -> error::Result<bool> {
        let (number, parking) = (fate.number, Parking::new(why, now));
        let Some(letter) = self.read(number)? else { return Ok(false) };
        let time = Some(letter.record.timestamp.millis());
        let dated = Dated { fate, time, parked: Some(parking.clone()) };
        self.table.put(identity, Some(fate_bytes(&self.table, &dated)?));
        self.parked.insert(number, parking);
        Ok(true)
    }

    /// Reads an open or parked letter by its number.
    fn read(&self, number: u64) -> error::Result<Option<DeadLetter>> {
        let mut bytes = Vec::new();
        for piece in 0_u16.. {
            let Some(part) = self.table.get(&piece_key(number, piece))? else { break };
            bytes.extend_from_slice(&part);
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        self.letter(number, &bytes).map(Some)
    }

    fn letter(&self, number: u64, bytes: &[u8]) -> error::Result<DeadLetter> {
        let mut letter = from_bytes(bytes).ok_or_else(|| self.damaged())?;
        letter.resolution = self.parked.get(&number).map(Parking::resolution);
        Ok(letter)
    }

    /// Returns the number of the letter that follows `after`.
    pub(crate) fn number_after(&self, after: Option<&LetterId>) -> error::Result<u64> {
        let Some(Ok(identity)) = after.map(identity) else { return Ok(0) };
        let Some(value) = self.table.get(&identity)? else { return Ok(0) };
        Ok(read_fate(&self.table, &value)?.number + 1)
    }

    /// Returns up to `limit` letters that match `query`, from the number `from` on.
    pub(crate) fn list(&self, query: &LetterQuery, from: u64, limit: usize) -> error::Result<Page> {
        if let Some(ids) = &query.ids {
            return self.list_ids(query, ids, from, limit);
        }
        let mut page = Page { letters: Vec::new(), next: None };
        let (mut seen, mut size) = (0, 0);
        let mut pieces: Option<(u64, Vec<u8>)> = None;
        for item in self.table.scan(vec![LETTER], piece_key(from, 0)) {
            let (key, part) = item?;
            let number = number_in(&key).ok_or_else(|| self.damaged())?;
            match &mut pieces {
                Some((current, bytes)) if *current == number => bytes.extend_from_slice(&part),
                _ => {
                    if let Some((current, bytes)) = pieces.take() {
                        self.add(current, &bytes, query, &mut page)?;
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
        if let Some((current, bytes)) = pieces {
            self.add(current, &bytes, query, &mut page)?;
        }
        Ok(page)
    }

    /// Like [`list`](Self::list), without reading the letters of other identities.
    fn list_ids(&self, query: &LetterQuery, ids: &BTreeSet<LetterId>, from: u64, limit: usize) -> error::Result<Page> {
        let mut numbers = Vec::new();
        for key in ids.iter().filter_map(|id| identity(id).ok()) {
            let Some(value) = self.table.get(&key)? else { continue };
            let fate = read_fate(&self.table, &value)?;
            numbers.extend(Some(fate.number).filter(|number| fate.closed.is_none() && *number >= from));
        }
        numbers.sort_unstable();
        let (mut page, mut size) = (Page { letters: Vec::new(), next: None }, 0);
        for (seen, number) in numbers.into_iter().enumerate() {
            if page.letters.len() >= limit || seen >= STEP_LETTERS || size >= STEP_BYTES {
                page.next = Some(number);
                break;
            }
            let Some(letter) = self.read(number)? else { continue };
            size += letter.record.size();
            page.letters.extend(Some(letter).filter(|letter| query.wants(letter)));
        }
        Ok(page)
    }

    fn add(&self, number: u64, bytes: &[u8], query: &LetterQuery, page: &mut Page) -> error::Result<()> {
        let letter = self.letter(number, bytes)?;
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

#[cfg(test)]
mod cuts;
#[cfg(test)]
mod steps;
