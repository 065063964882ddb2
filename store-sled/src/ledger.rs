//! The rules of claims, on an open directory.

use std::time::Duration;

use tidings_core::{Claim, Error, ErrorKind, EventRef, History, Holder, Name, Release, Result, Timestamp};
use uuid::Uuid;

use crate::codec::{Entry, EventKey, NameId, State};
use crate::config::SledConfig;
use crate::disk::Disk;
use crate::error;
use crate::memory::{Live, Memory};

/// What a call did: the outer error breaks the store, the inner one is the caller's.
pub(crate) type Staged<T> = error::Result<Result<T>>;

/// How many entries a purge looks at before others get their turn.
const PURGE_STEP: usize = 2_000;

/// The store while the writer works on it: changes are staged, and durable only after the writer's commit.
#[derive(Debug)]
pub(crate) struct Ledger<'a> {
    pub(crate) disk: &'a mut Disk,
    pub(crate) memory: &'a mut Memory,
    pub(crate) config: &'a SledConfig,
    pub(crate) now: Timestamp,
    /// By the monotonic clock.
    pub(crate) instant: Duration,
}

/// How far a purge has come.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PurgeStep {
    pub(crate) removed: u64,
    /// Where the next step begins: a generation, counted from the newest, and a key.
    pub(crate) next: Option<(usize, Option<EventKey>)>,
}

impl Ledger<'_> {
    pub(crate) fn register(&mut self, holder: &Holder) -> Staged<()> {
        if self.scope(&holder.scope)?.is_none() {
            return Ok(Err(Error::new(ErrorKind::Invalid, "register a holder: the store has too many scopes")));
        }
        let fits = self.memory.add_holder(holder, self.instant);
        Ok(if fits { Ok(()) } else { Err(unavailable("register a holder: too many are alive")) })
    }

    pub(crate) fn renew(&mut self, holder: &Holder) -> Staged<()> {
        Ok(if self.memory.renew(holder.id, self.instant) { Ok(()) } else { Err(dead("renew a holder")) })
    }

    pub(crate) fn claim(&mut self, holder: &Holder, events: &[EventRef]) -> Staged<Vec<Claim>> {
        if self.memory.life_left(holder.id, self.instant).is_none() {
            return Ok(Err(dead("claim events")));
        }
        if self.memory.claims() + events.len() > self.config.max_claims {
            self.memory.sweep(self.instant);
        }
        if self.memory.claims() + events.len() > self.config.max_claims {
            return Ok(Err(unavailable("claim events: max_claims live already")));
        }
        let Some(scope) = self.scope(&holder.scope)? else { return Ok(Err(dead("claim events"))) };
        let mut types = Types::default();
        let mut answers = Vec::with_capacity(events.len());
        for event in events {
            let event_type = types.number_of(self, &event.event_type)?;
            answers.push(self.claim_one(holder.id, EventKey { scope, id: event.id }, event_type)?);
        }
        Ok(Ok(answers))
    }

    fn claim_one(&mut self, holder: Uuid, key: EventKey, event_type: NameId) -> error::Result<Claim> {
        let live = self.memory.claim_of(key);
        if let Some(at_most) = live.and_then(|live| self.memory.life_left(live.holder, self.instant)) {
            return Ok(Claim::Held { at_most });
        }
        let history = match self.disk.get(key)?.map(|entry| entry.state) {
            Some(State::Done(_)) => return Ok(Claim::Done),
            Some(State::Claimed(by, history)) => self.after(by, live.is_some(), history),
            Some(State::Idle(history)) => history,
            None => History::default(),
        };
        self.disk.put(key, Entry { event_type, state: State::Claimed(holder, history) });
        self.memory.set_claim(key, Some(Live { holder, history, event_type }));
        Ok(Claim::Granted(history))
    }

    /// The history of an event whose last claim was `by`'s. A claim that is stored, but was never granted because the
    /// store broke before it could answer, ended with that, and nobody died.
    fn after(&mut self, by: Uuid, granted: bool, history: History) -> History {
        let died = granted || self.memory.life_left(by, self.instant).is_none();
        History::new(history.deaths.saturating_add(u32::from(died)), history.attempts)
    }

    pub(crate) fn complete(&mut self, holder: &Holder, events: &[EventRef]) -> Staged<Vec<Result<()>>> {
        let Some(scope) = self.scope(&holder.scope)? else { return Ok(Err(dead("complete events"))) };
        let mut types = Types::default();
        let mut answers = Vec::with_capacity(events.len());
        for event in events {
            let event_type = types.number_of(self, &event.event_type)?;
            answers.push(self.complete_one(holder.id, EventKey { scope, id: event.id }, event_type)?);
        }
        Ok(Ok(answers))
    }

    fn complete_one(&mut self, holder: Uuid, key: EventKey, event_type: NameId) -> Staged<()> {
        if self.own(holder, key)?.is_some() {
            self.disk.put(key, Entry { event_type, state: State::Done(self.now) });
            self.memory.set_claim(key, None);
            return Ok(Ok(()));
        }
        let done = matches!(self.disk.get(key)?, Some(Entry { state: State::Done(_), .. }));
        Ok(if done { Ok(()) } else { Err(Error::new(ErrorKind::Fenced, "complete an event: its claim is not held")) })
    }

    /// The claim of a holder, dead or alive, if nobody has taken it since.
    fn own(&self, holder: Uuid, key: EventKey) -> error::Result<Option<Live>> {
        if let Some(live) = self.memory.claim_of(key) {
            return Ok((live.holder == holder && self.memory.knows(holder)).then_some(live));
        }
        if !self.memory.knows(holder) {
            return Ok(None);
        }
        Ok(self.disk.get(key)?.and_then(|entry| match entry.state {
            State::Claimed(by, history) if by == holder => Some(Live { holder, history, event_type: entry.event_type }),
            _ => None,
        }))
    }

    pub(crate) fn release(&mut self, holder: &Holder, events: &[Release]) -> Staged<()> {
        let Some(scope) = self.scope(&holder.scope)? else { return Ok(Ok(())) };
        for event in events {
            let key = EventKey { scope, id: event.id };
            if let Some(live) = self.own(holder.id, key)? {
                self.give_back(key, live, event.attempts)?;
            }
        }
        Ok(Ok(()))
    }

    fn give_back(&mut self, key: EventKey, live: Live, attempts: u32) -> error::Result<()> {
        let history = History::new(live.history.deaths, live.history.attempts.saturating_add(attempts));
        if history == History::default() {
            self.disk.forget(key)?;
        } else {
            self.disk.put(key, Entry { event_type: live.event_type, state: State::Idle(history) });
        }
        self.memory.set_claim(key, None);
        Ok(())
    }

    pub(crate) fn retire(&mut self, holder: &Holder) -> Staged<()> {
        for (key, live) in self.memory.claims_by(holder.id) {
            self.give_back(key, live, 0)?;
        }
        self.memory.retire(holder.id);
        Ok(Ok(()))
    }

    /// One step of a purge, from `from` on.
    pub(crate) fn purge(
        &mut self,
        scope: &Name,
        before: Timestamp,
        (place, from): (usize, Option<EventKey>),
    ) -> Staged<PurgeStep> {
        let Some(scope) = self.disk.number_of(scope) else { return Ok(Ok(PurgeStep::default())) };
        let Some(entries) = self.disk.scan(place, scope, from) else { return Ok(Ok(PurgeStep::default())) };
        let (mut old, mut next) = (Vec::new(), Some((place + 1, None)));
        for (looked_at, item) in entries.enumerate() {
            let (key, entry) = item?;
            if looked_at == PURGE_STEP {
                next = Some((place, Some(key)));
                break;
            }
            if matches!(entry.state, State::Done(at) if at < before) {
                old.push(key);
            }
        }
        let mut removed = 0;
        for key in old {
            // In an older generation there may be what a newer one has replaced: the newest entry is what counts.
            if matches!(self.disk.get(key)?, Some(Entry { state: State::Done(at), .. }) if at < before) {
                self.disk.forget(key)?;
                removed += 1;
            }
        }
        Ok(Ok(PurgeStep { removed, next }))
    }

    /// Begins a generation and drops what is too old, live claims aside. After it, everything is durable.
    pub(crate) fn turn(&mut self) -> error::Result<()> {
        let mut moved = Vec::new();
        let claims = if self.disk.has_expired(self.config, self.now) { self.memory.all_claims() } else { Vec::new() };
        for (key, live) in claims {
            if self.disk.is_expiring(key, self.config, self.now)? {
                moved.push((key, live));
            }
        }
        for (key, live) in moved {
            let state = State::Claimed(live.holder, live.history);
            self.disk.put(key, Entry { event_type: live.event_type, state });
        }
        let oldest = self.now.saturating_sub(self.config.retention);
        self.disk.letters.forget_closed(oldest)?;
        self.disk.commit(self.now)?;
        self.disk.turn(self.config, self.now)
    }

    fn scope(&mut self, scope: &Name) -> error::Result<Option<NameId>> {
        self.disk.number_for(scope, self.now)
    }
}

/// Numbers of event types. Most events of a call have the same one.
#[derive(Debug, Default)]
struct Types {
    last: Option<(Name, NameId)>,
}

impl Types {
    fn number_of(&mut self, ledger: &mut Ledger<'_>, name: &Name) -> error::Result<NameId> {
        if let Some((_, number)) = self.last.as_ref().filter(|(last, _)| last == name) {
            return Ok(*number);
        }
        // The type is for people only: one name too many must not keep an event from being handled.
        let number = ledger.disk.number_for(name, ledger.now)?.unwrap_or_default();
        self.last = Some((name.clone(), number));
        Ok(number)
    }
}

fn dead(what: &'static str) -> Error {
    Error::new(ErrorKind::Fenced, format!("{what}: the holder is dead"))
}

fn unavailable(what: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, what)
}
