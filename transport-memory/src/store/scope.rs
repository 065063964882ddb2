//! State of one scope of a store.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use tidings_core::{Claim, Error, ErrorKind, History, ReleasedClaim, Result, Timestamp};
use uuid::Uuid;

/// Done events are separate from claims, so that a claim searches few entries.
#[derive(Debug, Default)]
pub(super) struct Scope {
    done: HashSet<Uuid>,
    /// Done events in the order of completion, which is the order of purging.
    order: VecDeque<(Timestamp, Uuid)>,
    claims: HashMap<Uuid, Held>,
}

/// A claim, or the history of a released one.
#[derive(Debug)]
struct Held {
    /// The lease; `None` after a release.
    by: Option<Uuid>,
    crashes: u32,
    attempts: u32,
    touched: Timestamp,
}

impl Scope {
    /// Claims an event for `lease`; `lives` returns the remaining ttl of another lease.
    pub(super) fn claim(
        &mut self,
        event: Uuid,
        lease: Uuid,
        now: Timestamp,
        lives: &impl Fn(Uuid) -> Option<Duration>,
    ) -> Claim {
        if self.done.contains(&event) {
            return Claim::Done;
        }
        let held = self.claims.entry(event).or_insert(Held { by: None, crashes: 0, attempts: 0, touched: now });
        if let Some(by) = held.by {
            if let Some(at_most) = lives(by) {
                return Claim::Held { at_most };
            }
            held.crashes = held.crashes.saturating_add(1);
        }
        held.by = Some(lease);
        held.touched = now;
        Claim::Granted(History::new(held.crashes, held.attempts))
    }

    pub(super) fn complete(&mut self, event: Uuid, lease: Uuid, now: Timestamp) -> Result<()> {
        if self.done.contains(&event) {
            return Ok(());
        }
        if self.claims.get(&event).is_none_or(|held| held.by != Some(lease)) {
            return Err(Error::new(
                ErrorKind::Fenced,
                format!("complete: the claim of event {event} is not this lease's"),
            ));
        }
        self.claims.remove(&event);
        self.done.insert(event);
        self.order.push_back((now, event));
        Ok(())
    }

    pub(super) fn release(&mut self, release: ReleasedClaim, lease: Uuid, now: Timestamp) {
        let Some(held) = self.claims.get_mut(&release.id).filter(|held| held.by == Some(lease)) else { return };
        held.by = None;
        held.attempts = held.attempts.saturating_add(release.attempts);
        held.touched = now;
        if held.crashes == 0 && held.attempts == 0 {
            self.claims.remove(&release.id);
        }
    }

    pub(super) fn release_all(&mut self, lease: Uuid, now: Timestamp) {
        self.claims.retain(|_, held| {
            if held.by == Some(lease) {
                held.by = None;
                held.touched = now;
            }
            held.by.is_some() || held.crashes > 0 || held.attempts > 0
        });
    }

    /// Forgets events done before `time`, and the history of events without a live claim since.
    pub(super) fn purge(&mut self, time: Timestamp, lives: impl Fn(Uuid) -> bool) -> u64 {
        let mut purged = 0;
        while let Some((_, event)) = self.order.pop_front_if(|(at, _)| *at < time) {
            self.done.remove(&event);
            purged += 1;
        }
        self.claims.retain(|_, held| held.touched >= time || held.by.is_some_and(&lives));
        purged
    }

    pub(super) fn forget_beyond(&mut self, max: usize) {
        while self.order.len() > max {
            if let Some((_, event)) = self.order.pop_front() {
                self.done.remove(&event);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.done.is_empty() && self.claims.is_empty()
    }
}
