//! Leases of letters. They belong to this process, like the directory, so they end with it.

use std::collections::HashMap;
use std::time::Duration;

use tidings_core::{Leased, LetterId, LetterLease};
use uuid::Uuid;

/// Number of leases above which expired ones are forgotten.
const SWEEP_ABOVE: usize = 1_000;

/// Leases of letters by redrives. Survives a store that breaks and reopens, like claims.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    letters: HashMap<LetterId, Lease>,
    /// Number of leases at which the next sweep runs.
    sweep_at: usize,
    /// Letters whose closing is not durable yet.
    closing: Vec<LetterId>,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    /// The redrive that holds it.
    id: Uuid,
    /// By the monotonic clock.
    ends: Duration,
}

impl Leases {
    /// Leases an open letter.
    ///
    /// The same lease may take a letter again, which renews it.
    pub(crate) fn lease(&mut self, letter: &LetterId, lease: &LetterLease, now: Duration) -> Leased {
        if let Some(other) = self.letters.get(letter).filter(|held| held.id != lease.id && held.ends > now) {
            return Leased::Held { at_most: other.ends.saturating_sub(now) };
        }
        self.sweep(now);
        self.letters.insert(
            letter.clone(),
            Lease { id: lease.id, ends: now.saturating_add(lease.ttl.min(LetterLease::MAX_TTL)) },
        );
        Leased::Granted
    }

    /// Returns whether this lease, or a caller without one if `None`, may close the letter.
    ///
    /// A lease that has expired may still close its letter, unless another has taken it.
    pub(crate) fn may_close(&self, letter: &LetterId, lease: Option<Uuid>, now: Duration) -> bool {
        match (self.letters.get(letter), lease) {
            (None, None) => true,
            (Some(held), None) => held.ends <= now,
            (held, Some(id)) => held.is_some_and(|held| held.id == id),
        }
    }

    /// Ends a lease before its time, so that another redrive need not wait.
    pub(crate) fn end(&mut self, letter: &LetterId, lease: Uuid) {
        if self.letters.get(letter).is_some_and(|held| held.id == lease) {
            self.letters.remove(letter);
        }
    }

    /// Forgets the lease of a closed letter once that is durable.
    pub(crate) fn forget(&mut self, letter: &LetterId) {
        self.closing.push(letter.clone());
    }

    /// Keeps the changes, which are durable.
    pub(crate) fn keep(&mut self) {
        for letter in self.closing.drain(..) {
            self.letters.remove(&letter);
        }
    }

    /// Reverts the closings, which are not durable: the letters are published, and stay leased.
    pub(crate) fn revert(&mut self) {
        self.closing.clear();
    }

    /// Amortised: each sweep doubles the number at which the next one runs.
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
    fn a_lease_is_over_at_its_end() {
        let (mut leases, ttl) = (Leases::default(), Duration::from_secs(1));
        let (one, other) = (LetterLease::new(ttl), LetterLease::new(ttl));
        let letter = LetterId::new("svc", TopicPartition::new("t", 0), 1);
        let almost = ttl - Duration::from_nanos(1);
        assert_eq!(leases.lease(&letter, &one, Duration::ZERO), Leased::Granted);
        assert_eq!(leases.lease(&letter, &other, almost), Leased::Held { at_most: ttl - almost });
        assert!(!leases.may_close(&letter, None, almost) && leases.may_close(&letter, None, ttl));
        assert_eq!(leases.lease(&letter, &other, ttl), Leased::Granted);
        assert!(!leases.may_close(&letter, Some(one.id), ttl) && leases.may_close(&letter, Some(other.id), ttl));
    }

    #[test]
    fn a_sweep_forgets_what_is_over_alone() {
        let (mut leases, second) = (Leases::default(), Duration::from_secs(1));
        let lease = |leases: &mut Leases, offset: u64, ttl| {
            leases.lease(
                &LetterId::new("svc", TopicPartition::new("t", 0), offset),
                &LetterLease::new(ttl),
                Duration::ZERO,
            );
        };
        let many = SWEEP_ABOVE as u64;
        (0..many).for_each(|offset| lease(&mut leases, offset, second * (1 + (offset % 2) as u32)));
        leases.sweep(second);
        assert_eq!((leases.letters.len(), leases.sweep_at), (SWEEP_ABOVE / 2, SWEEP_ABOVE));
        // The next sweep runs at twice the remaining number, but not below the minimum.
        leases.sweep(second * 2);
        assert_eq!(leases.letters.len(), SWEEP_ABOVE / 2);
    }

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
