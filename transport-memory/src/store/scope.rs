//! State of one scope of a store.
//!
//! An event is in one of three states: unknown, claimed or released with a history, and done. Done
//! is final until it is purged. The history (crashes and attempts) survives a release, so that the
//! next holder of an event that kills its processes can tell.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use tidings_core::{Claim, Error, ErrorKind, History, ReleasedClaim, Result, Timestamp};
use uuid::Uuid;

/// Done events are separate from claims, so that a claim searches few entries.
///
/// Events of one scope, usually one service.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// Events that are done; same elements as `order`.
    done: HashSet<Uuid>,
    /// Done events in the order of completion, which is the order of purging.
    order: VecDeque<(Timestamp, Uuid)>,
    /// Claims and histories of events that are not done.
    claims: HashMap<Uuid, Held>,
}

/// A claim, or the history of a released one.
#[derive(Debug)]
struct Held {
    /// The lease; `None` after a release.
    by: Option<Uuid>,
    /// Leases that expired while they held the event.
    crashes: u32,
    /// Failed attempts that earlier holders reported when they released it.
    attempts: u32,
    /// Time of the last claim or release; a history untouched for long is purged.
    touched: Timestamp,
}

impl Scope {
    /// Claims an event for `lease`; `lives` returns the remaining ttl of another lease.
    ///
    /// A claim repeated by its own lease counts as held by it, with the time left.
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

    /// Marks an event as done; completing it again succeeds.
    ///
    /// # Errors
    /// [`Fenced`](ErrorKind::Fenced) if the claim belongs to another lease, or to none.
    pub(super) fn complete(&mut self, event: Uuid, lease: Uuid, now: Timestamp) -> Result<()> {
        if self.done.contains(&event) {
            return Ok(());
        }
        if self.claims.get(&event).is_none_or(|held| held.by != Some(lease)) {
            return Err(Error::new(
                ErrorKind::Fenced,
                format!("complete: the claim of event {event} is not held by this lease"),
            ));
        }
        self.claims.remove(&event);
        self.done.insert(event);
        self.order.push_back((now, event));
        Ok(())
    }

    /// Gives a claim back and adds its failed attempts. Claims of other leases stay. An event
    /// without a history is forgotten.
    pub(super) fn release(&mut self, release: ReleasedClaim, lease: Uuid, now: Timestamp) {
        let Some(held) = self.claims.get_mut(&release.id).filter(|held| held.by == Some(lease)) else { return };
        held.by = None;
        held.attempts = held.attempts.saturating_add(release.attempts);
        held.touched = now;
        if held.crashes == 0 && held.attempts == 0 {
            self.claims.remove(&release.id);
        }
    }

    /// Gives back all claims of a lease that retires in order: no crash is counted.
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

    /// Forgets the oldest done events until at most `max` are left.
    pub(super) fn forget_beyond(&mut self, max: usize) {
        while self.order.len() > max {
            if let Some((_, event)) = self.order.pop_front() {
                self.done.remove(&event);
            }
        }
    }

    pub(super) fn is_done(&self, event: Uuid) -> bool {
        self.done.contains(&event)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.done.is_empty() && self.claims.is_empty()
    }
}
