//! Dead letters in memory: listing, redriving and discarding them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_core::{
    DeadLetter, DeadLetterSink, DeadLetterStore, Error, ErrorKind, Guarantees, Leased, LetterId, LetterLease,
    LetterQuery, Name, Resolution, Result, Timestamp, async_trait,
};
use tokio::time::Instant;
use uuid::Uuid;

use super::faults::{State as FaultState, StoreFaults};
use crate::error::lock;

impl MemoryDeadLetters {
    /// Default of [`MemoryDeadLetters::with_max_letters`].
    pub const DEFAULT_MAX_LETTERS: usize = 100_000;
}

/// A dead-letter store in this process's memory. Clones share the store.
///
/// It keeps every clause except [`Clause::Restart`](tidings_core::Clause::Restart). When it is full, burying fails as
/// `Unavailable`: no letter is dropped for another.
#[derive(Clone)]
pub struct MemoryDeadLetters {
    inner: Arc<Inner>,
    max_letters: usize,
}

#[derive(Default)]
struct Inner {
    letters: Mutex<Letters>,
    faults: Arc<FaultState>,
}

#[derive(Default)]
struct Letters {
    /// All letters by their position in the order of burying: open and parked ones, and the last closed ones.
    all: BTreeMap<u64, DeadLetter>,
    /// Position of each letter, closed ones included, so that a letter that is buried again stays closed; and its
    /// record's time, which distinguishes it from a record of a recreated topic.
    places: BTreeMap<LetterId, (u64, Timestamp)>,
    /// Positions of closed letters, in the order of closing.
    closed: VecDeque<u64>,
    /// Leases of letters, by position.
    leases: BTreeMap<u64, Lease>,
    next: u64,
}

/// A lease of one letter.
struct Lease {
    id: Uuid,
    /// `None` if beyond the clock's range.
    until: Option<Instant>,
}

impl Lease {
    fn left(&self, now: Instant) -> Option<Duration> {
        let left = self.until.map_or(Duration::MAX, |until| until.saturating_duration_since(now));
        (!left.is_zero()).then_some(left)
    }
}

/// The caller that closes letters.
#[derive(Clone, Copy)]
enum Closer {
    /// A caller without a lease, which can't close letters leased by a redrive.
    Unleased(Instant),
    Lease(Uuid),
}

impl fmt::Debug for MemoryDeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = lock(&self.inner.letters).live();
        f.debug_struct("MemoryDeadLetters").field("open", &open).field("max_letters", &self.max_letters).finish()
    }
}

impl Default for MemoryDeadLetters {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryDeadLetters {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self { inner: Arc::default(), max_letters: MemoryDeadLetters::DEFAULT_MAX_LETTERS }
    }

    /// Sets the maximum number of open and parked letters, and of closed ones that are kept:
    /// [`MemoryDeadLetters::DEFAULT_MAX_LETTERS`].
    #[must_use]
    pub fn with_max_letters(mut self, letters: usize) -> Self {
        self.max_letters = letters;
        self
    }

    /// Returns the store's fault injection, for tests.
    pub fn faults(&self) -> StoreFaults {
        StoreFaults::new(Arc::clone(&self.inner.faults))
    }
}

impl Letters {
    /// Returns the number of letters that are open or parked.
    fn live(&self) -> usize {
        self.all.len() - self.closed.len()
    }

    fn is_closed(&self, place: u64) -> bool {
        let resolution = self.all.get(&place).map(|letter| letter.resolution.as_ref());
        resolution.is_none_or(|resolution| resolution.is_some_and(|resolution| resolution.kind.closes()))
    }

    fn bury(&mut self, mut letter: DeadLetter, max: usize) -> Result<()> {
        let id = letter.id();
        let known = self.places.get(&id).copied();
        if let Some((place, time)) = known {
            if time == letter.record.timestamp {
                return Ok(());
            }
            // A letter of the same topic before it was recreated.
            if !self.is_closed(place) {
                let text = "bury: a letter of its identity is open, about another record: redrive or discard that one";
                return Err(Error::new(ErrorKind::Conflict, text));
            }
        }
        if self.live() >= max {
            let text = format!("bury: the store is full with {max} letters: redrive or discard some");
            return Err(Error::new(ErrorKind::Unavailable, text));
        }
        if let Some((place, _)) = known {
            self.all.remove(&place);
            self.closed.retain(|closed| *closed != place);
        }
        self.places.insert(id, (self.next, letter.record.timestamp));
        letter.resolution = None;
        self.all.insert(self.next, letter);
        self.next += 1;
        Ok(())
    }

    fn lease(&mut self, id: &LetterId, lease: &LetterLease, now: Instant) -> Leased {
        let Some(place) = self.places.get(id).map(|(place, _)| *place).filter(|place| !self.is_closed(*place)) else {
            return Leased::Closed;
        };
        let other = self.leases.get(&place).filter(|held| held.id != lease.id);
        if let Some(at_most) = other.and_then(|held| held.left(now)) {
            return Leased::Held { at_most };
        }
        self.leases.insert(place, Lease { id: lease.id, until: now.checked_add(lease.ttl.min(LetterLease::MAX_TTL)) });
        Leased::Granted
    }

    fn end_lease(&mut self, id: &LetterId, lease: Uuid) {
        let Some((place, _)) = self.places.get(id) else { return };
        if self.leases.get(place).is_some_and(|held| held.id == lease) {
            self.leases.remove(place);
        }
    }

    fn may_close(&self, place: u64, closer: Closer) -> bool {
        match (self.leases.get(&place), closer) {
            (None, Closer::Unleased(_)) => true,
            (Some(held), Closer::Unleased(now)) => held.left(now).is_none(),
            (held, Closer::Lease(id)) => held.is_some_and(|held| held.id == id),
        }
    }

    /// Closes or parks a letter; returns whether that changed its state.
    fn resolve(&mut self, id: &LetterId, closer: Closer, resolution: &Resolution, max: usize) -> bool {
        let Some(place) = self.places.get(id).map(|(place, _)| *place) else { return false };
        if self.is_closed(place) || !self.may_close(place, closer) {
            return false;
        }
        let Some(letter) = self.all.get_mut(&place) else { return false };
        if letter.resolution.as_ref().is_some_and(|before| before.kind == resolution.kind) {
            return false;
        }
        letter.resolution = Some(resolution.clone());
        if resolution.kind.closes() {
            self.leases.remove(&place);
            self.closed.push_back(place);
            self.forget_beyond(max);
        }
        true
    }

    /// Forgets the letters that were closed first, beyond `max` of them.
    fn forget_beyond(&mut self, max: usize) {
        while self.closed.len() > max {
            let Some(letter) = self.closed.pop_front().and_then(|oldest| self.all.remove(&oldest)) else { return };
            self.places.remove(&letter.id());
        }
    }

    fn list(&self, query: &LetterQuery) -> Vec<DeadLetter> {
        // A forgotten letter sorts before all others.
        let from = query.after.as_ref().and_then(|id| self.places.get(id)).map_or(0, |(place, _)| place + 1);
        let wanted = self.all.range(from..).map(|(_, letter)| letter).filter(|letter| query.wants(letter));
        wanted.take(query.limit.unwrap_or(LetterQuery::DEFAULT_PAGE)).cloned().collect()
    }
}

#[async_trait]
impl DeadLetterSink for MemoryDeadLetters {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>> {
        let mut all = lock(&self.inner.letters);
        let bury = |letter| self.inner.faults.reach("bury").and_then(|()| all.bury(letter, self.max_letters));
        letters.into_iter().map(bury).collect()
    }

    async fn check(&self, _topics: &[Name]) -> Result<()> {
        self.inner.faults.reach("check that dead letters can be buried")
    }

    fn guarantees(&self) -> Guarantees {
        crate::transport::guarantees()
    }
}

#[async_trait]
impl DeadLetterStore for MemoryDeadLetters {
    async fn list(&self, query: &LetterQuery) -> Result<Vec<DeadLetter>> {
        self.inner.faults.reach("list letters")?;
        Ok(lock(&self.inner.letters).list(query))
    }

    async fn resolve(&self, letters: &[LetterId], resolution: &Resolution) -> Result<Vec<bool>> {
        self.inner.faults.reach("resolve letters")?;
        let (mut all, closer) = (lock(&self.inner.letters), Closer::Unleased(Instant::now()));
        Ok(letters.iter().map(|id| all.resolve(id, closer, resolution, self.max_letters)).collect())
    }

    async fn lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<Vec<Leased>> {
        self.inner.faults.reach("lease letters")?;
        let (mut all, now) = (lock(&self.inner.letters), Instant::now());
        Ok(letters.iter().map(|id| all.lease(id, lease, now)).collect())
    }

    async fn resolve_leased(
        &self,
        letters: &[LetterId],
        lease: &LetterLease,
        resolution: &Resolution,
    ) -> Result<Vec<bool>> {
        self.inner.faults.reach("resolve letters")?;
        resolution.check_closes()?;
        let (mut all, closer) = (lock(&self.inner.letters), Closer::Lease(lease.id));
        Ok(letters.iter().map(|id| all.resolve(id, closer, resolution, self.max_letters)).collect())
    }

    async fn end_lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<()> {
        self.inner.faults.reach("end a lease of letters")?;
        let mut all = lock(&self.inner.letters);
        letters.iter().for_each(|id| all.end_lease(id, lease.id));
        Ok(())
    }
}
