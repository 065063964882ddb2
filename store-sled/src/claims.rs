//! Rules of claims on an open directory.
//!
//! A claim has two sides. The table remembers that a lease claimed an event, across restarts; the
//! memory remembers that the lease is live, which no restart preserves. So after a restart all
//! claims are free, and each counts as a crash: their process is gone.
//!
//! A call stages its changes in both. After the commit the memory's are kept; if the commit fails
//! they are reverted, so that memory never knows more than the disk.

use std::time::Duration;

use tidings_core::audit::StoredAudit;
use tidings_core::{
    Claim, Error, ErrorKind, History, Lease, Leased, LetterId, LetterLease, Name, ReleasedClaim, Resolution, Result,
    Timestamp,
};
use uuid::Uuid;

use crate::codec::{EventKey, NameId, State};
use crate::config::SledConfig;
use crate::disk::Disk;
use crate::error;
use crate::memory::{Live, Memory};

/// Result of a staged call: the outer error breaks the store, the inner one is the caller's.
///
/// A refused call changes nothing, and does not concern the other calls of the same commit.
pub(crate) type Staged<T> = error::Result<Result<T>>;

/// Maximum of done events that a step of a purge forgets, and minimum that it scans, before other calls run.
///
/// A purge of millions of events would otherwise hold up every claim.
const PURGE_STEP: usize = 2_000;

/// The store during the writer's work: changes are staged, and durable only after the writer's commit.
#[derive(Debug)]
pub(crate) struct Claims<'a> {
    pub(crate) disk: &'a mut Disk,
    pub(crate) memory: &'a mut Memory,
    pub(crate) config: &'a SledConfig,
    /// The store's time, for everything that is stored.
    pub(crate) now: Timestamp,
    /// By the monotonic clock.
    pub(crate) instant: Duration,
}

/// Progress of a purge.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PurgeStep {
    /// Events forgotten by this step.
    pub(crate) removed: u64,
    /// Start of the next step: a generation, counted from the newest, and a shard of its index.
    pub(crate) next: Option<(usize, usize)>,
}

impl Claims<'_> {
    /// Registers a lease, and its scope if it is new.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for a scope too many,
    /// [`Unavailable`](ErrorKind::Unavailable) for a lease too many.
    pub(crate) fn register(&mut self, lease: &Lease) -> Staged<()> {
        if self.scope(&lease.scope)?.is_none() {
            return Ok(Err(Error::new(ErrorKind::Invalid, "acquire a lease: the store has too many scopes")));
        }
        let fits = self.memory.add_lease(lease, self.instant);
        Ok(if fits { Ok(()) } else { Err(unavailable("acquire a lease: too many leases are active")) })
    }

    /// # Errors
    /// [`Fenced`](ErrorKind::Fenced) if the lease has expired; it stays expired.
    pub(crate) fn renew(&mut self, lease: &Lease) -> Staged<()> {
        Ok(if self.memory.renew(lease.id, self.instant) { Ok(()) } else { Err(dead("renew a lease")) })
    }

    /// Claims events in order; an event named twice is held the second time, by the same lease.
    ///
    /// # Errors
    /// [`Fenced`](ErrorKind::Fenced) for an expired lease. [`Unavailable`](ErrorKind::Unavailable)
    /// if `max_claims` would be exceeded: then none is claimed.
    pub(crate) fn claim(&mut self, lease: &Lease, events: &[Uuid]) -> Staged<Vec<Claim>> {
        if self.memory.life_left(lease.id, self.instant).is_none() {
            return Ok(Err(dead("claim events")));
        }
        if self.memory.claims() + events.len() > self.config.max_claims {
            self.memory.sweep(self.instant);
        }
        if self.memory.claims() + events.len() > self.config.max_claims {
            return Ok(Err(unavailable("claim events: max_claims is reached")));
        }
        let Some(scope) = self.scope(&lease.scope)? else { return Ok(Err(dead("claim events"))) };
        let claim = |id| self.claim_one(lease.id, EventKey { scope, id });
        Ok(Ok(events.iter().copied().map(claim).collect()))
    }

    /// A live claim decides first, then the disk: done events are nearly all of those that are not
    /// live.
    fn claim_one(&mut self, lease: Uuid, key: EventKey) -> Claim {
        let live = self.memory.claim_of(key);
        if let Some(at_most) = live.and_then(|live| self.memory.life_left(live.lease, self.instant)) {
            return Claim::Held { at_most };
        }
        let history = match self.disk.get(key) {
            Some(State::Done(_)) => return Claim::Done,
            Some(State::Claimed(by, history)) => self.after(by, live, history),
            Some(State::Idle(history)) => history,
            None => History::default(),
        };
        self.disk.put(key, State::Claimed(lease, history));
        self.memory.set_claim(key, Some(Live { lease, history }));
        Claim::Granted(history)
    }

    /// Returns the history of an event whose last claim was `by`'s. A claim that was stored but never granted,
    /// because the store broke before it could answer, does not count as a crash.
    fn after(&mut self, by: Uuid, granted: Option<Live>, history: History) -> History {
        let died = match granted {
            // An earlier claim is remembered: `by`'s was reverted, and its history includes the earlier one's crash
            // already.
            Some(live) => live.lease == by,
            None => self.memory.life_left(by, self.instant).is_none(),
        };
        History::new(history.crashes.saturating_add(u32::from(died)), history.attempts)
    }

    /// Answer `i` is event `i`'s.
    pub(crate) fn complete(&mut self, lease: &Lease, events: &[Uuid]) -> Staged<Vec<Result<()>>> {
        let Some(scope) = self.scope(&lease.scope)? else { return Ok(Err(dead("complete events"))) };
        let complete = |id| self.complete_one(lease.id, EventKey { scope, id });
        Ok(Ok(events.iter().copied().map(complete).collect()))
    }

    /// # Errors
    /// [`Fenced`](ErrorKind::Fenced) unless the claim is this lease's. Completing a done event
    /// succeeds, since the answer to the first call may have been lost.
    fn complete_one(&mut self, lease: Uuid, key: EventKey) -> Result<()> {
        if self.own(lease, key).is_some() {
            self.disk.put(key, State::Done(self.now));
            self.memory.set_claim(key, None);
            return Ok(());
        }
        let done = matches!(self.disk.get(key), Some(State::Done(_)));
        if done { Ok(()) } else { Err(Error::new(ErrorKind::Fenced, "complete an event: its claim is not held")) }
    }

    /// Returns the claim of a lease, live or expired, unless another lease has taken it since.
    ///
    /// An expired lease still owns its claim until another takes it: completing finished work late
    /// is better than doing it twice.
    fn own(&self, lease: Uuid, key: EventKey) -> Option<Live> {
        if let Some(live) = self.memory.claim_of(key) {
            return (live.lease == lease && self.memory.knows(lease)).then_some(live);
        }
        match self.disk.get(key) {
            Some(State::Claimed(by, history)) if by == lease && self.memory.knows(lease) => {
                Some(Live { lease, history })
            }
            _ => None,
        }
    }

    /// Gives claims back, with the failed attempts of each. Claims of others are left alone.
    pub(crate) fn release(&mut self, lease: &Lease, events: &[ReleasedClaim]) -> Staged<()> {
        let Some(scope) = self.scope(&lease.scope)? else { return Ok(Ok(())) };
        for event in events {
            let key = EventKey { scope, id: event.id };
            if let Some(live) = self.own(lease.id, key) {
                self.give_back(key, live, event.attempts);
            }
        }
        Ok(Ok(()))
    }

    /// An event without crashes and attempts is forgotten: it needs no entry.
    fn give_back(&mut self, key: EventKey, live: Live, attempts: u32) {
        let history = History::new(live.history.crashes, live.history.attempts.saturating_add(attempts));
        if history == History::default() {
            self.disk.forget(key);
        } else {
            self.disk.put(key, State::Idle(history));
        }
        self.memory.set_claim(key, None);
    }

    /// Gives back all claims of a lease, without counting a crash. Those of an expired lease count one when they are
    /// taken.
    pub(crate) fn retire(&mut self, lease: &Lease) -> Staged<()> {
        let lives = self.memory.life_left(lease.id, self.instant).is_some();
        let claims = if lives { self.memory.claims_by(lease.id) } else { Vec::new() };
        for (key, live) in claims {
            self.give_back(key, live, 0);
        }
        self.memory.retire(lease.id);
        Ok(Ok(()))
    }

    /// Runs one step of a purge, from `from` on.
    ///
    /// Places are counted from the newest generation: dropping the oldest meanwhile moves none of
    /// them.
    pub(crate) fn purge(&mut self, scope: &Name, before: Timestamp, from: (usize, usize)) -> Staged<PurgeStep> {
        let Some(scope) = self.disk.number_of(scope) else { return Ok(Ok(PurgeStep::default())) };
        let (place, mut shard) = from;
        let Some(index) = self.disk.index(place) else { return Ok(Ok(PurgeStep::default())) };
        let (mut old, mut looked_at) = (Vec::new(), 0);
        // An older generation may have entries that a newer one replaced: the newest entry counts.
        let is_old = |key: &EventKey| matches!(self.disk.get(*key), Some(State::Done(at)) if at < before);
        let next = loop {
            let Some(done) = index.done_in(shard) else { break (place + 1, 0) };
            let room = PURGE_STEP - old.len();
            old.extend(index.done_before(shard, scope, before).filter(is_old).take(room));
            if old.len() == PURGE_STEP {
                // The shard may have more; these events will be gone by then.
                break (place, shard);
            }
            shard += 1;
            looked_at += done;
            if looked_at >= PURGE_STEP {
                break (place, shard);
            }
        };
        let removed = old.len() as u64;
        old.into_iter().for_each(|key| self.disk.forget(key));
        Ok(Ok(PurgeStep { removed, next: Some(next) }))
    }

    /// Returns which events are done. A scope that is not known gets no number.
    pub(crate) fn done(&self, scope: &Name, events: &[Uuid]) -> Staged<Vec<bool>> {
        let Some(scope) = self.disk.number_of(scope) else { return Ok(Ok(vec![false; events.len()])) };
        let is_done = |id: &Uuid| matches!(self.disk.get(EventKey { scope, id: *id }), Some(State::Done(_)));
        Ok(Ok(events.iter().map(is_done).collect()))
    }

    /// Leases open letters, in memory only: a newly opened store has no running redrive.
    pub(crate) fn lease(&mut self, letters: &[LetterId], lease: &LetterLease) -> Staged<Vec<Leased>> {
        let mut answers = Vec::with_capacity(letters.len());
        for id in letters {
            let open = self.disk.letters.is_open(id)?;
            answers.push(if open { self.memory.letter_leases.lease(id, lease, self.instant) } else { Leased::Closed });
        }
        Ok(Ok(answers))
    }

    /// Closes letters of a lease, or letters without a lease.
    ///
    /// Answer `i` is whether letter `i` was open and is closed now.
    pub(crate) fn resolve(
        &mut self,
        letters: &[LetterId],
        lease: Option<Uuid>,
        resolution: &Resolution,
    ) -> Staged<Vec<bool>> {
        let mut answers = Vec::with_capacity(letters.len());
        for id in letters {
            let may = self.memory.letter_leases.may_close(id, lease, self.instant);
            let closed = may && self.disk.letters.resolve(id, resolution, self.now)?;
            if closed && resolution.kind.closes() {
                self.memory.letter_leases.forget(id);
            }
            answers.push(closed);
        }
        Ok(Ok(answers))
    }

    /// Appends audit records.
    pub(crate) fn append_audit(&mut self, records: &[StoredAudit], max_records: u64) -> Staged<Vec<Result<()>>> {
        self.disk.append_audit(records, self.now, max_records).map(Ok)
    }

    /// Deletes audit records that were stored `age` ago or earlier, up to a bound; returns how many, and whether there may
    /// be more.
    pub(crate) fn purge_audit(&mut self, age: Duration) -> Staged<(u64, bool)> {
        self.disk.purge_audit(self.now.saturating_sub(age)).map(Ok)
    }

    /// Ends the leases of letters, unless another lease holds them by now.
    pub(crate) fn end_lease(&mut self, letters: &[LetterId], lease: Uuid) -> Staged<()> {
        letters.iter().for_each(|id| self.memory.letter_leases.end(id, lease));
        Ok(Ok(()))
    }

    /// Begins a generation and drops expired ones, except live claims. Afterwards, everything is durable. Returns
    /// whether there may be more closed letters to forget.
    pub(crate) fn turn(&mut self) -> error::Result<bool> {
        let mut moved = Vec::new();
        let claims = if self.disk.has_expired(self.config, self.now) { self.memory.all_claims() } else { Vec::new() };
        for (key, live) in claims {
            if self.disk.is_expiring(key, self.config, self.now) {
                moved.push((key, live));
            }
        }
        for (key, live) in moved {
            self.disk.put(key, State::Claimed(live.lease, live.history));
        }
        let more = self.forget_closed()?;
        self.disk.turn(self.config, self.now)?;
        Ok(more)
    }

    /// Forgets closed letters past their retention, up to a bound, and returns whether there may be more. Afterwards,
    /// everything is durable.
    pub(crate) fn forget_closed(&mut self) -> error::Result<bool> {
        let oldest = self.now.saturating_sub(self.config.retention);
        let more = self.disk.letters.forget_closed(oldest)?;
        self.disk.commit(self.now)?;
        Ok(more)
    }

    /// Returns the number of a scope; `None` if there are too many.
    fn scope(&mut self, scope: &Name) -> error::Result<Option<NameId>> {
        self.disk.number_for(scope, self.now)
    }
}

/// The error of a call under an expired lease.
fn dead(what: &'static str) -> Error {
    Error::new(ErrorKind::Fenced, format!("{what}: the lease has expired"))
}

fn unavailable(what: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    struct Bench {
        disk: Disk,
        memory: Memory,
        config: SledConfig,
        instant: Duration,
    }

    impl Bench {
        fn claims(&mut self) -> Claims<'_> {
            let Self { disk, memory, config, instant } = self;
            Claims { disk, memory, config, now: Timestamp::from_millis(7), instant: *instant }
        }

        fn lease(&mut self) -> Lease {
            let lease = Lease::new("svc", TTL);
            self.claims().register(&lease).unwrap().unwrap();
            lease
        }

        fn claim(&mut self, lease: &Lease, event: Uuid) -> Claim {
            let claim = self.claims().claim(lease, &[event]).unwrap().unwrap()[0];
            self.disk.commit(Timestamp::from_millis(7)).unwrap();
            claim
        }
    }

    #[test]
    fn a_letter_whose_closing_broke_stays_leased_to_the_redrive_that_published_it() {
        let directory = tempfile::tempdir().unwrap();
        let config = SledConfig::new(directory.path());
        let now = Timestamp::from_millis(7);
        let disk = Disk::open(&config, now).unwrap();
        let mut bench = Bench { disk, memory: Memory::default(), config: config.clone(), instant: Duration::ZERO };
        let record = tidings_core::StoredRecord::new(1, now);
        let origin = tidings_core::TopicPartition::new("t", 0);
        let letter = tidings_core::DeadLetter::new("svc", origin, record, ErrorKind::Failed);
        bench.disk.letters.bury(&letter, 9).unwrap().unwrap();
        bench.disk.commit(now).unwrap();
        let (ids, one, other) = ([letter.id()], LetterLease::new(TTL), LetterLease::new(TTL));
        assert_eq!(bench.claims().lease(&ids, &one).unwrap().unwrap(), [Leased::Granted]);
        bench.memory.keep();
        assert_eq!(bench.claims().resolve(&ids, Some(one.id), &Resolution::redriven("ann")).unwrap().unwrap(), [true]);
        // The store breaks before the closing is durable, and is opened again.
        bench.memory.revert();
        drop(bench.disk);
        bench.disk = Disk::open(&config, now).unwrap();
        let held = bench.claims().lease(&ids, &other).unwrap().unwrap();
        assert!(matches!(held[..], [Leased::Held { .. }]), "{held:?}");
        assert_eq!(bench.claims().resolve(&ids, Some(one.id), &Resolution::redriven("ann")).unwrap().unwrap(), [true]);
    }

    #[test]
    fn a_stored_claim_that_was_never_granted_leaves_no_death_beside_an_earlier_leases() {
        for passes in [Duration::ZERO, TTL] {
            let directory = tempfile::tempdir().unwrap();
            let config = SledConfig::new(directory.path());
            let disk = Disk::open(&config, Timestamp::from_millis(7)).unwrap();
            let mut bench = Bench { disk, memory: Memory::default(), config, instant: Duration::ZERO };
            let (dead, event) = (bench.lease(), Uuid::now_v7());
            assert_eq!(bench.claim(&dead, event), Claim::Granted(History::new(0, 0)));
            bench.memory.keep();
            bench.instant += TTL;
            let unanswered = bench.lease();
            assert_eq!(bench.claim(&unanswered, event), Claim::Granted(History::new(1, 0)));
            // The claim is stored, and the store breaks before it answers.
            bench.memory.revert();
            bench.instant += passes;
            let next = bench.lease();
            assert_eq!(bench.claim(&next, event), Claim::Granted(History::new(1, 0)), "after {passes:?}");
        }
    }
}
