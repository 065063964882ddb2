//! A dead-letter store that deletes closed letters by retention, with a bug.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidings_conformance::{Setup, dead_letters};
use tidings_core::{
    DeadLetter, DeadLetterSink, DeadLetterStore, Guarantees, Leased, LetterId, LetterLease, LetterQuery, Name,
    Resolution, ResolutionKind, Result, Timestamp, async_trait,
};
use tidings_memory::MemoryDeadLetters;
use tokio::time::Instant;

const RETENTION: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    ForgetsNothing,
    ForgetsByHalf,
    ForgetsOpenLetters,
    ForgetsParkedLetters,
}

/// The state of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Parked,
    Closed,
    Forgotten,
}

#[derive(Debug)]
struct Forgetful {
    inner: MemoryDeadLetters,
    bug: Bug,
    letters: Mutex<HashMap<LetterId, Kept>>,
}

/// A letter, and the number of forgotten letters with its identity.
#[derive(Debug)]
struct Kept {
    state: State,
    since: Instant,
    forgotten: i64,
}

impl Forgetful {
    fn new(bug: Bug) -> Self {
        Self { inner: MemoryDeadLetters::new(), bug, letters: Mutex::default() }
    }

    fn letters(&self) -> MutexGuard<'_, HashMap<LetterId, Kept>> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets old letters. The memory store keeps closed letters, but accepts a letter with another timestamp as a new
    /// one; an open letter is forgotten by closing it.
    async fn forget(&self) -> Result<()> {
        let age = if self.bug == Bug::ForgetsByHalf { RETENTION / 2 } else { RETENTION };
        let wrong = match self.bug {
            Bug::ForgetsNothing => return Ok(()),
            Bug::ForgetsOpenLetters => Some(State::Open),
            Bug::ForgetsParkedLetters => Some(State::Parked),
            _ => None,
        };
        let mut closing = Vec::new();
        for (id, kept) in self.letters().iter_mut().filter(|(_, kept)| kept.since.elapsed() > age) {
            if kept.state == State::Closed || Some(kept.state) == wrong {
                (kept.state, kept.forgotten) = (State::Forgotten, kept.forgotten + 1);
                closing.push(id.clone());
            }
        }
        self.inner.resolve(&closing, &Resolution::discarded("store", "too old")).await.map(drop)
    }

    fn note(&self, letters: &[LetterId], changed: &[bool], kind: ResolutionKind) {
        let state = if kind.closes() { State::Closed } else { State::Parked };
        let mut known = self.letters();
        for (id, _) in letters.iter().zip(changed).filter(|(_, changed)| **changed) {
            if let Some(kept) = known.get_mut(id) {
                (kept.state, kept.since) = (state, Instant::now());
            }
        }
    }

    /// Returns the letter with a timestamp that makes it a new one if earlier ones of its identity were forgotten.
    fn renewed(&self, mut letter: DeadLetter) -> DeadLetter {
        let now = Instant::now();
        let mut known = self.letters();
        let kept = known.entry(letter.id()).or_insert(Kept { state: State::Open, since: now, forgotten: 0 });
        if kept.state == State::Forgotten {
            (kept.state, kept.since) = (State::Open, now);
        }
        let time = letter.record.timestamp.millis() + kept.forgotten;
        letter.record.timestamp = Timestamp::from_millis(time);
        letter
    }
}

#[async_trait]
impl DeadLetterSink for Forgetful {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>> {
        if let Err(error) = self.forget().await {
            return vec![Err(error)];
        }
        self.inner.bury(letters.into_iter().map(|letter| self.renewed(letter)).collect()).await
    }

    async fn check(&self, topics: &[Name]) -> Result<()> {
        self.inner.check(topics).await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

#[async_trait]
impl DeadLetterStore for Forgetful {
    async fn list(&self, query: &LetterQuery) -> Result<Vec<DeadLetter>> {
        self.inner.list(query).await
    }

    async fn count(&self, query: &LetterQuery) -> Result<u64> {
        self.inner.count(query).await
    }

    async fn resolve(&self, letters: &[LetterId], resolution: &Resolution) -> Result<Vec<bool>> {
        let changed = self.inner.resolve(letters, resolution).await?;
        self.note(letters, &changed, resolution.kind);
        Ok(changed)
    }

    async fn lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<Vec<Leased>> {
        self.inner.lease(letters, lease).await
    }

    async fn resolve_leased(
        &self,
        letters: &[LetterId],
        lease: &LetterLease,
        resolution: &Resolution,
    ) -> Result<Vec<bool>> {
        let changed = self.inner.resolve_leased(letters, lease, resolution).await?;
        self.note(letters, &changed, resolution.kind);
        Ok(changed)
    }

    async fn end_lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<()> {
        self.inner.end_lease(letters, lease).await
    }
}

fn setup(bug: Bug) -> Setup<Forgetful> {
    let open = move || async move { Ok(Forgetful::new(bug)) };
    Setup::new("forgetful", open).with_paused_clock().with_retention(RETENTION, open)
}

plants! { dead_letters:
    no_letter_forgotten: ForgetsNothing => d3_a_closed_letter_is_remembered_for_the_retention,
    young_letters_forgotten: ForgetsByHalf => d3_a_closed_letter_is_remembered_for_the_retention,
    open_letters_forgotten: ForgetsOpenLetters => d5_open_and_parked_letters_outlive_it,
    parked_letters_forgotten: ForgetsParkedLetters => d5_open_and_parked_letters_outlive_it,
}
