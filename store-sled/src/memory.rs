//! What only an open store knows: who is alive, and who has what.

use std::collections::HashMap;
use std::time::Duration;

use tidings_core::{History, Lease};
use uuid::Uuid;

use crate::codec::{EventKey, EventMap};
use crate::leases::Leases;

/// At most so many leases are remembered, dead ones included; dead ones are forgotten first.
const MAX_LEASES: usize = 4_096;

/// A claim that was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) lease: Uuid,
    pub(crate) history: History,
}

#[derive(Debug)]
struct Life {
    ttl: Duration,
    /// By the monotonic clock.
    ends: Duration,
    dead: bool,
}

/// Leases and their claims. It outlives a store that breaks and is opened again, because the directory stays locked
/// meanwhile: nobody else can have taken a claim.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    leases: HashMap<Uuid, Life>,
    claims: EventMap<Live>,
    /// What the claims were before the calls that are not durable yet.
    undo: Vec<(EventKey, Option<Live>)>,
    /// Leases that end with what is not durable yet.
    retiring: Vec<Uuid>,
    pub(crate) letter_leases: Leases,
}

impl Memory {
    /// Whether there was room for it.
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

    /// For how long the lease lives yet; `None` if it is dead or was never known.
    pub(crate) fn life_left(&mut self, lease: Uuid, now: Duration) -> Option<Duration> {
        let life = self.leases.get_mut(&lease)?;
        if life.is_over(now) {
            life.dead = true;
            return None;
        }
        Some(life.ends.saturating_sub(now))
    }

    /// Whether the lease was registered since the store was opened, and has not been retired.
    pub(crate) fn knows(&self, lease: Uuid) -> bool {
        self.leases.contains_key(&lease)
    }

    /// Whether the lease lived yet.
    pub(crate) fn renew(&mut self, lease: Uuid, now: Duration) -> bool {
        if self.life_left(lease, now).is_none() {
            return false;
        }
        if let Some(life) = self.leases.get_mut(&lease) {
            life.ends = now.saturating_add(life.ttl);
        }
        true
    }

    pub(crate) fn retire(&mut self, lease: Uuid) {
        self.retiring.push(lease);
    }

    pub(crate) fn claim_of(&self, key: EventKey) -> Option<Live> {
        self.claims.get(&key).copied()
    }

    pub(crate) fn claims(&self) -> usize {
        self.claims.len()
    }

    pub(crate) fn claims_by(&self, lease: Uuid) -> Vec<(EventKey, Live)> {
        self.claims.iter().filter(|(_, live)| live.lease == lease).map(|(key, live)| (*key, *live)).collect()
    }

    pub(crate) fn all_claims(&self) -> Vec<(EventKey, Live)> {
        self.claims.iter().map(|(key, live)| (*key, *live)).collect()
    }

    pub(crate) fn set_claim(&mut self, key: EventKey, live: Option<Live>) {
        let old = match live {
            Some(live) => self.claims.insert(key, live),
            None => self.claims.remove(&key),
        };
        self.undo.push((key, old));
    }

    /// Forgets claims of the dead, which the tables remember.
    pub(crate) fn sweep(&mut self, now: Duration) {
        let over = |lease: &Uuid| self.leases.get(lease).is_none_or(|life| life.is_over(now));
        self.claims.retain(|_, live| !over(&live.lease));
    }

    /// What was changed is durable.
    pub(crate) fn keep(&mut self) {
        self.undo.clear();
        for lease in self.retiring.drain(..) {
            self.leases.remove(&lease);
        }
    }

    /// What was changed since [`keep`](Self::keep) is not durable, and was not acknowledged.
    pub(crate) fn revert(&mut self) {
        self.retiring.clear();
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
