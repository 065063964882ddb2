//! What only an open store knows: who is alive, and who has what.

use std::collections::HashMap;
use std::time::Duration;

use tidings_core::{History, Holder};
use uuid::Uuid;

use crate::codec::{EventKey, EventMap};
use crate::leases::Leases;

/// At most so many holders are remembered, dead ones included; dead ones are forgotten first.
const MAX_HOLDERS: usize = 4_096;

/// A claim that was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) holder: Uuid,
    pub(crate) history: History,
}

#[derive(Debug)]
struct Life {
    ttl: Duration,
    /// By the monotonic clock.
    ends: Duration,
    dead: bool,
}

/// Holders and their claims. It outlives a store that breaks and is opened again, because the directory stays locked
/// meanwhile: nobody else can have taken a claim.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    holders: HashMap<Uuid, Life>,
    claims: EventMap<Live>,
    /// What the claims were before the calls that are not durable yet.
    undo: Vec<(EventKey, Option<Live>)>,
    /// Holders that end with what is not durable yet.
    retiring: Vec<Uuid>,
    pub(crate) leases: Leases,
}

impl Memory {
    /// Whether there was room for it.
    pub(crate) fn add_holder(&mut self, holder: &Holder, now: Duration) -> bool {
        if self.holders.len() >= MAX_HOLDERS {
            self.holders.retain(|_, life| !life.is_over(now));
        }
        let fits = self.holders.len() < MAX_HOLDERS;
        if fits {
            let life = Life { ttl: holder.ttl, ends: now.saturating_add(holder.ttl), dead: false };
            self.holders.insert(holder.id, life);
        }
        fits
    }

    /// For how long the holder lives yet; `None` if it is dead or was never known.
    pub(crate) fn life_left(&mut self, holder: Uuid, now: Duration) -> Option<Duration> {
        let life = self.holders.get_mut(&holder)?;
        if life.is_over(now) {
            life.dead = true;
            return None;
        }
        Some(life.ends.saturating_sub(now))
    }

    /// Whether the holder was registered since the store was opened, and has not been retired.
    pub(crate) fn knows(&self, holder: Uuid) -> bool {
        self.holders.contains_key(&holder)
    }

    /// Whether the holder lived yet.
    pub(crate) fn renew(&mut self, holder: Uuid, now: Duration) -> bool {
        if self.life_left(holder, now).is_none() {
            return false;
        }
        if let Some(life) = self.holders.get_mut(&holder) {
            life.ends = now.saturating_add(life.ttl);
        }
        true
    }

    pub(crate) fn retire(&mut self, holder: Uuid) {
        self.retiring.push(holder);
    }

    pub(crate) fn claim_of(&self, key: EventKey) -> Option<Live> {
        self.claims.get(&key).copied()
    }

    pub(crate) fn claims(&self) -> usize {
        self.claims.len()
    }

    pub(crate) fn claims_by(&self, holder: Uuid) -> Vec<(EventKey, Live)> {
        self.claims.iter().filter(|(_, live)| live.holder == holder).map(|(key, live)| (*key, *live)).collect()
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
        let over = |holder: &Uuid| self.holders.get(holder).is_none_or(|life| life.is_over(now));
        self.claims.retain(|_, live| !over(&live.holder));
    }

    /// What was changed is durable.
    pub(crate) fn keep(&mut self) {
        self.undo.clear();
        for holder in self.retiring.drain(..) {
            self.holders.remove(&holder);
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
