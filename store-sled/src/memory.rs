//! Volatile state of an open store: live leases and their claims.
//!
//! Each change is recorded for undoing until its commit is durable. A failed commit then leaves the
//! memory as the callers know it, and no claim is believed granted that the disk does not have.

use std::collections::HashMap;
use std::time::Duration;

use tidings_core::{History, Lease};
use uuid::Uuid;

use crate::codec::{EventKey, EventMap};
use crate::leases::Leases;

/// Maximum number of leases remembered, including expired ones, which are forgotten first.
const MAX_LEASES: usize = 4_096;

/// A granted claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) lease: Uuid,
    /// The history as it was granted, without this claim's own attempts.
    pub(crate) history: History,
}

#[derive(Debug)]
struct Life {
    /// Time to live from each renewal.
    ttl: Duration,
    /// By the monotonic clock.
    ends: Duration,
    /// Set once it was seen expired: it stays expired, whatever the clock shows later.
    dead: bool,
}

/// Leases and their claims. Survives a store that breaks and reopens, because the directory stays locked meanwhile:
/// no other process can have taken a claim.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Leases registered since the store was opened.
    leases: HashMap<Uuid, Life>,
    /// Granted claims, including those of expired leases until another takes them.
    claims: EventMap<Live>,
    /// Claims before the calls that are not durable yet.
    undo: Vec<(EventKey, Option<Live>)>,
    /// Leases that end with changes that are not durable yet.
    retiring: Vec<Uuid>,
    /// Leases of letters by redrives.
    pub(crate) letter_leases: Leases,
}

impl Memory {
    /// Adds a lease; returns whether there was room for it.
    pub(crate) fn add_lease(&mut self, lease: &Lease, now: Duration) -> bool {
        if self.leases.len() >= MAX_LEASES {
            self.leases.retain(|_, life| !life.is_over(now));
        }
        let fits = self.leases.len() < MAX_LEASES;
        if fits {
            let life = Life { ttl: lease.ttl, ends: now.saturating_add(lease.ttl), dead: false };
            self.leases.insert(lease.id, life);
        }
        fits
    }

    /// Returns the remaining ttl of the lease; `None` if it has expired or is unknown.
    pub(crate) fn life_left(&mut self, lease: Uuid, now: Duration) -> Option<Duration> {
        let life = self.leases.get_mut(&lease)?;
        if life.is_over(now) {
            life.dead = true;
            return None;
        }
        Some(life.ends.saturating_sub(now))
    }

    /// Returns whether the lease was registered since the store was opened, and has not been retired.
    pub(crate) fn knows(&self, lease: Uuid) -> bool {
        self.leases.contains_key(&lease)
    }

    /// Renews the lease; returns whether it was still live.
    pub(crate) fn renew(&mut self, lease: Uuid, now: Duration) -> bool {
        if self.life_left(lease, now).is_none() {
            return false;
        }
        if let Some(life) = self.leases.get_mut(&lease) {
            life.ends = now.saturating_add(life.ttl);
        }
        true
    }

    /// Ends a lease, once the release of its claims is durable.
    pub(crate) fn retire(&mut self, lease: Uuid) {
        self.retiring.push(lease);
    }

    /// Returns the claim of an event, whether or not its lease is live.
    pub(crate) fn claim_of(&self, key: EventKey) -> Option<Live> {
        self.claims.get(&key).copied()
    }

    pub(crate) fn claims(&self) -> usize {
        self.claims.len()
    }

    /// Scans all claims: a lease retires once.
    pub(crate) fn claims_by(&self, lease: Uuid) -> Vec<(EventKey, Live)> {
        self.claims.iter().filter(|(_, live)| live.lease == lease).map(|(key, live)| (*key, *live)).collect()
    }

    pub(crate) fn all_claims(&self) -> Vec<(EventKey, Live)> {
        self.claims.iter().map(|(key, live)| (*key, *live)).collect()
    }

    /// Grants a claim, or removes it, and records the one before.
    pub(crate) fn set_claim(&mut self, key: EventKey, live: Option<Live>) {
        let old = match live {
            Some(live) => self.claims.insert(key, live),
            None => self.claims.remove(&key),
        };
        self.undo.push((key, old));
    }

    /// Forgets claims of expired leases, which the tables remember.
    pub(crate) fn sweep(&mut self, now: Duration) {
        let over = |lease: &Uuid| self.leases.get(lease).is_none_or(|life| life.is_over(now));
        self.claims.retain(|_, live| !over(&live.lease));
    }

    /// Keeps the changes, which are durable.
    pub(crate) fn keep(&mut self) {
        self.undo.clear();
        self.letter_leases.keep();
        for lease in self.retiring.drain(..) {
            self.leases.remove(&lease);
        }
    }

    /// Reverts the changes since [`keep`](Self::keep), which are not durable and were not acknowledged.
    pub(crate) fn revert(&mut self) {
        self.retiring.clear();
        self.letter_leases.revert();
        while let Some((key, old)) = self.undo.pop() {
            match old {
                Some(live) => self.claims.insert(key, live),
                None => self.claims.remove(&key),
            };
        }
    }
}

impl Life {
    fn is_over(&self, now: Duration) -> bool {
        self.dead || self.ends <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn leased(memory: &mut Memory, now: Duration) -> Option<Lease> {
        let lease = Lease::new("svc", TTL);
        memory.add_lease(&lease, now).then_some(lease)
    }

    fn key() -> EventKey {
        EventKey { scope: 1, id: Uuid::now_v7() }
    }

    #[test]
    fn leases_are_bounded_and_those_that_are_over_make_room() {
        let mut memory = Memory::default();
        let half = MAX_LEASES / 2;
        assert!((0..half).all(|_| leased(&mut memory, Duration::ZERO).is_some()));
        assert!((half..MAX_LEASES).all(|_| leased(&mut memory, TTL / 2).is_some()));
        assert!(leased(&mut memory, TTL - Duration::from_nanos(1)).is_none());
        assert!(leased(&mut memory, TTL).is_some());
        assert_eq!(memory.leases.len(), MAX_LEASES - half + 1);
    }

    #[test]
    fn a_lease_ends_at_its_ttl_and_stays_dead() {
        let mut memory = Memory::default();
        let lease = leased(&mut memory, Duration::ZERO).unwrap();
        assert_eq!(memory.life_left(lease.id, TTL / 2), Some(TTL / 2));
        assert!(memory.renew(lease.id, TTL / 2));
        assert_eq!(memory.life_left(lease.id, TTL), Some(TTL / 2));
        assert_eq!(memory.life_left(lease.id, TTL * 3 / 2), None);
        assert_eq!(memory.life_left(lease.id, Duration::ZERO), None);
        assert!(!memory.renew(lease.id, Duration::ZERO) && memory.knows(lease.id));
    }

    #[test]
    fn a_sweep_forgets_claims_of_leases_that_are_over() {
        let mut memory = Memory::default();
        let (old, young) =
            (leased(&mut memory, Duration::ZERO).unwrap(), leased(&mut memory, TTL - Duration::from_secs(1)).unwrap());
        let (ended, live) = (key(), key());
        let history = History::default();
        memory.set_claim(ended, Some(Live { lease: old.id, history }));
        memory.set_claim(live, Some(Live { lease: young.id, history }));
        memory.sweep(TTL);
        assert_eq!((memory.claim_of(ended), memory.claims()), (None, 1));
        assert_eq!(memory.claims_by(young.id), [(live, Live { lease: young.id, history })]);
        assert_eq!(memory.claims_by(young.id), memory.all_claims());
    }

    #[test]
    fn what_is_not_durable_is_reverted_the_last_change_first() {
        let mut memory = Memory::default();
        let lease = leased(&mut memory, Duration::ZERO).unwrap();
        let (known, new) = (key(), key());
        let live = |crashes| Some(Live { lease: lease.id, history: History::new(crashes, 0) });
        memory.set_claim(known, live(1));
        memory.keep();
        memory.set_claim(known, live(2));
        memory.set_claim(new, live(3));
        memory.set_claim(known, None);
        memory.retire(lease.id);
        memory.revert();
        memory.keep();
        assert_eq!((memory.claim_of(known), memory.claim_of(new)), (live(1), None));
        assert!(memory.knows(lease.id));
        memory.retire(lease.id);
        memory.keep();
        assert!(!memory.knows(lease.id));
    }
}
