//! Leases of letters. They are of this process, as the directory is, so they end with it.

use std::collections::HashMap;
use std::time::Duration;

use tidings_core::{Leased, LetterId, LetterLease};
use uuid::Uuid;

/// Above so many leases those whose time is over are forgotten.
const SWEEP_ABOVE: usize = 1_000;

/// Which redrive has which letter. It outlives a store that breaks and is opened again, as claims do.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    letters: HashMap<LetterId, Lease>,
    /// How many there may be before the next sweep.
    sweep_at: usize,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    id: Uuid,
    /// By the monotonic clock.
    ends: Duration,
}

impl Leases {
    /// Leases a letter that is open.
    pub(crate) fn lease(&mut self, letter: &LetterId, lease: &LetterLease, now: Duration) -> Leased {
        if let Some(other) = self.letters.get(letter).filter(|held| held.id != lease.id && held.ends > now) {
            return Leased::Held { at_most: other.ends.saturating_sub(now) };
        }
        self.sweep(now);
        self.letters.insert(letter.clone(), Lease { id: lease.id, ends: now.saturating_add(lease.ttl) });
        Leased::Granted
    }

    /// Whether this lease, or anybody where it is none, may close the letter.
    pub(crate) fn may_close(&self, letter: &LetterId, lease: Option<Uuid>, now: Duration) -> bool {
        match (self.letters.get(letter), lease) {
            (None, None) => true,
            (Some(held), None) => held.ends <= now,
            (held, Some(id)) => held.is_some_and(|held| held.id == id),
        }
    }

    pub(crate) fn end(&mut self, letter: &LetterId, lease: Uuid) {
        if self.letters.get(letter).is_some_and(|held| held.id == lease) {
            self.letters.remove(letter);
        }
    }

    /// Of a letter that is closed nothing has to be remembered.
    pub(crate) fn forget(&mut self, letter: &LetterId) {
        self.letters.remove(letter);
    }

    fn sweep(&mut self, now: Duration) {
        if self.letters.len() >= self.sweep_at.max(SWEEP_ABOVE) {
            self.letters.retain(|_, held| held.ends > now);
            self.sweep_at = self.letters.len().saturating_mul(2);
        }
    }
}

#[cfg(test)]
mod tests {
    use tidings_core::TopicPartition;

    use super::*;

    #[test]
    fn leases_that_are_over_are_forgotten() {
        let (mut leases, lease) = (Leases::default(), LetterLease::new(Duration::from_secs(1)));
        for offset in 0..100_000 {
            let letter = LetterId::new("svc", TopicPartition::new("t", 0), offset);
            leases.lease(&letter, &lease, Duration::from_secs(offset));
        }
        assert!(leases.letters.len() <= SWEEP_ABOVE, "{}", leases.letters.len());
    }
}
