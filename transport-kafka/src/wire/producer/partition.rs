//! The batches of one partition that have not ended, and their sequences.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Answer;
use crate::wire::records::ProducerState;

/// Maximum number of batches in flight: brokers recognise repetitions of this number of the last batches.
pub(super) const MAX_IN_FLIGHT: usize = 5;
/// After this time without a stored batch, the next one is sent alone: the broker may have no state of the producer.
const IDLE: Duration = Duration::from_secs(10);
/// Delays before a repetition: the first one, doubled each time up to the longest.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// A batch that is sent.
pub(crate) trait Payload {
    /// Returns the number of records.
    fn count(&self) -> u32;
    /// Returns the size in bytes.
    fn size(&self) -> usize;
    /// Splits a batch that a broker refused with `code` in two, if the refusal may concern only some of its records.
    /// Returns it unchanged otherwise.
    fn split(self, code: i16) -> Result<(Self, Self), Self>
    where
        Self: Sized;
}

/// A producer's id and epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The id, which a broker assigns.
    pub(crate) id: i64,
    /// The epoch.
    pub(crate) epoch: i16,
}

/// How a batch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Stored; the offset of its first record is unknown if the broker has forgotten it.
    Stored(Option<u64>),
    /// Refused with this error code, and not stored.
    Refused(i16),
    /// Not stored within the delivery timeout.
    Expired,
    /// It may be stored.
    Unknown,
}

/// Whether a partition can use another batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wants {
    /// It could be sent to this broker, if one more request to it may be in flight.
    ToSend(i32),
    /// It would make the caller request the leader or the identity.
    ToAsk,
    Nothing,
}

#[derive(Debug)]
struct Batch<B> {
    payload: B,
    expires: Instant,
    /// Sequence of its first record under the partition's identity, once it was sent.
    sequence: Option<i32>,
    /// The request that it is part of.
    request: Option<u64>,
    /// Whether no attempt has decided yet: it may be stored, or a copy may still be in flight.
    open: bool,
    /// Whether it can never be stored under its sequence, because a sequence before it is never used again.
    dead: bool,
}

impl<B> Batch<B> {
    fn new(payload: B, expires: Instant) -> Self {
        Self { payload, expires, sequence: None, request: None, open: false, dead: false }
    }
}

/// The state of one partition. Batches are in the order in which they were queued; those that were sent come first,
/// except for the halves of a refused one.
#[derive(Debug)]
pub(super) struct Partition<B> {
    queue: VecDeque<Batch<B>>,
    leader: Option<i32>,
    /// Number of batches in flight, and the broker that they were sent to.
    in_flight: (usize, i32),
    identity: Option<Identity>,
    next_sequence: i32,
    /// Whether the epoch has to be raised, because a sequence may never be stored.
    gap: bool,
    /// When the last batch was stored; `None` after a failure, and under a new identity.
    stored_at: Option<Instant>,
    failures: u32,
    retry_at: Option<Instant>,
}

impl<B: Payload> Partition<B> {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            leader: None,
            in_flight: (0, 0),
            identity: None,
            next_sequence: 0,
            gap: false,
            stored_at: None,
            failures: 0,
            retry_at: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns whether batches wait for a leader to be known.
    pub(super) fn needs_leader(&self) -> bool {
        self.leader.is_none() && !self.queue.is_empty()
    }

    /// Returns whether another batch should be queued: it could be sent now, or nothing is queued that would request
    /// the leader or the identity.
    pub(super) fn wants(&self, now: Instant) -> Wants {
        if self.queue.iter().any(|batch| batch.request.is_none()) {
            return Wants::Nothing;
        }
        match self.leader {
            Some(leader) if self.identity.is_some() => {
                if self.may_send(leader, now) {
                    Wants::ToSend(leader)
                } else {
                    Wants::Nothing
                }
            }
            _ if self.queue.is_empty() => Wants::ToAsk,
            _ => Wants::Nothing,
        }
    }

    pub(super) fn leader(&self) -> Option<i32> {
        self.leader
    }

    /// Returns whether batches wait for an identity.
    pub(super) fn needs_identity(&self) -> bool {
        self.identity.is_none() && !self.queue.is_empty()
    }

    pub(super) fn push(&mut self, payload: B, expires: Instant) {
        self.queue.push_back(Batch::new(payload, expires));
    }

    /// Sets the leader. Batches are sent to it once those in flight to another broker have ended.
    pub(super) fn set_leader(&mut self, leader: Option<i32>) {
        if leader.is_some() && self.leader != leader {
            self.stored_at = None;
        }
        self.leader = leader;
    }

    /// Sets the identity, if it has none.
    pub(super) fn set_identity(&mut self, identity: Identity) {
        self.identity.get_or_insert(identity);
    }

    /// Returns the time of the next expiry, or of the end of a delay after `now`, also without batches: the next one may
    /// be held elsewhere until then. A retry that is already due waits for something else.
    pub(super) fn wakes_at(&self, now: Instant) -> Option<Instant> {
        let expires = self.queue.front().map(|front| front.expires);
        self.retry_at.filter(|retry_at| *retry_at > now).into_iter().chain(expires).min()
    }

    /// Starts to send the next batch to `broker` as part of `request`, if one may be sent now and its size is at most
    /// `most`. A batch whose delivery timeout has passed is not sent.
    pub(super) fn start(
        &mut self,
        broker: i32,
        request: u64,
        most: usize,
        now: Instant,
    ) -> Option<(ProducerState, &mut B)> {
        let identity = self.identity.filter(|_| self.may_send(broker, now))?;
        let (gap, next) = (self.gap, self.next_sequence);
        let batch = self.queue.iter_mut().find(|batch| batch.request.is_none())?;
        let waits = (gap && batch.sequence.is_none()) || batch.dead || batch.expires <= now;
        if waits || batch.payload.size() > most {
            return None;
        }
        let sequence = match batch.sequence {
            Some(sequence) => sequence,
            None => {
                self.next_sequence = after(next, batch.payload.count());
                *batch.sequence.insert(next)
            }
        };
        batch.request = Some(request);
        self.in_flight = (self.in_flight.0 + 1, broker);
        self.retry_at = None;
        Some((ProducerState { id: identity.id, epoch: identity.epoch, sequence }, &mut batch.payload))
    }

    fn may_send(&self, broker: i32, now: Instant) -> bool {
        let (in_flight, to) = self.in_flight;
        let is_due = self.retry_at.is_none_or(|retry_at| retry_at <= now);
        // A broker that may have no state of this producer would accept a later batch first.
        let is_known = self.stored_at.is_some_and(|stored| now.saturating_duration_since(stored) < IDLE);
        let has_room = in_flight == 0 || (is_known && to == broker && in_flight < MAX_IN_FLIGHT);
        self.leader == Some(broker) && is_due && has_room
    }

    /// Records the answer to a batch, and returns the batch if the answer ends it. Answers to expired batches are
    /// ignored.
    pub(super) fn answered(&mut self, request: u64, answer: Answer, now: Instant) -> Option<(B, Fate)> {
        let index = self.queue.iter().position(|batch| batch.request == Some(request))?;
        let batch = self.queue.get_mut(index)?;
        batch.request = None;
        self.in_flight.0 -= 1;
        let ended = match answer {
            Answer::Stored(offset) => {
                if index == 0 {
                    (self.stored_at, self.failures) = (Some(now), 0);
                }
                self.queue.remove(index).map(|batch| (batch.payload, Fate::Stored(offset)))
            }
            Answer::Refused(code) => self.queue.remove(index).and_then(|batch| self.refused(index, batch, code)),
            Answer::NotStored { moved } => {
                self.failed(moved, now);
                None
            }
            Answer::Open { moved } => {
                batch.open = !batch.dead;
                self.failed(moved, now);
                None
            }
            // A batch behind a failed one is repeated after it.
            Answer::OutOfOrder => {
                self.gap |= index == 0;
                self.failed(false, now);
                None
            }
            Answer::Fenced => {
                self.gap = true;
                self.failed(false, now);
                None
            }
        };
        self.close_gap();
        ended
    }

    /// Ends a refused batch, already removed from `index`, or puts its two halves in its place.
    fn refused(&mut self, index: usize, batch: Batch<B>, code: i16) -> Option<(B, Fate)> {
        self.ended_without(index, &batch, batch.open);
        let Batch { payload, expires, open, .. } = batch;
        if open {
            return Some((payload, Fate::Unknown));
        }
        match payload.split(code) {
            Ok((first, second)) => {
                // Their order must not depend on the batches behind them, which wait for the next epoch.
                self.queue.insert(index, Batch::new(second, expires));
                self.queue.insert(index, Batch::new(first, expires));
                None
            }
            Err(payload) => Some((payload, Fate::Refused(code))),
        }
    }

    fn failed(&mut self, moved: bool, now: Instant) {
        // The batches in flight behind it fail for the same reason, so the delay grows only once.
        if self.stored_at.take().is_some() || self.retry_at.is_none() {
            let delay = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(8)).min(MAX_BACKOFF);
            self.failures = self.failures.saturating_add(1);
            self.retry_at = Some(now + delay);
        }
        if moved {
            self.leader = None;
        }
    }

    /// Records that the batch at `index`, already removed, ended and may not be stored.
    fn ended_without(&mut self, index: usize, batch: &Batch<B>, may_arrive: bool) {
        let Some(sequence) = batch.sequence else { return };
        self.stored_at = None;
        if !may_arrive && after(sequence, batch.payload.count()) == self.next_sequence {
            // It was the last batch, so the next one reuses its sequence.
            self.next_sequence = sequence;
            return;
        }
        self.gap = true;
        if !may_arrive {
            // Its sequence is never used again, so brokers refuse those that follow it.
            for behind in self.queue.iter_mut().skip(index).filter(|behind| behind.sequence.is_some()) {
                (behind.open, behind.dead) = (false, true);
            }
        }
    }

    /// Raises the epoch if there is a gap, nothing is in flight, and no batch that will be sent under the next epoch
    /// has a copy that can be appended under the current one.
    fn close_gap(&mut self) {
        if !self.gap || self.in_flight.0 > 0 || self.queue.front().is_some_and(|front| front.open) {
            return;
        }
        // After the last epoch, another id is needed.
        let next = |identity: Identity| identity.epoch.checked_add(1).map(|epoch| Identity { epoch, ..identity });
        self.identity = self.identity.and_then(next);
        for batch in &mut self.queue {
            (batch.sequence, batch.open, batch.dead) = (None, false, false);
        }
        (self.gap, self.next_sequence, self.stored_at) = (false, 0, None);
    }

    /// Removes the batches whose delivery timeout has passed.
    pub(super) fn expire(&mut self, now: Instant, ended: impl FnMut(B, Fate)) {
        self.end_while(|batch| batch.expires <= now, ended);
    }

    /// Removes the batches up to the first that is in flight, as if their delivery timeout had passed.
    pub(super) fn give_up(&mut self, ended: impl FnMut(B, Fate)) {
        self.end_while(|batch| batch.request.is_none(), ended);
    }

    fn end_while(&mut self, ends: impl Fn(&Batch<B>) -> bool, mut ended: impl FnMut(B, Fate)) {
        let mut any = false;
        while let Some(batch) = self.queue.pop_front_if(|front| ends(front)) {
            any = true;
            let is_in_flight = batch.request.is_some();
            self.in_flight.0 -= usize::from(is_in_flight);
            let may_arrive = (is_in_flight || batch.open) && !batch.dead;
            self.ended_without(0, &batch, may_arrive);
            ended(batch.payload, if may_arrive { Fate::Unknown } else { Fate::Expired });
        }
        if any {
            self.close_gap();
        }
    }
}

/// Returns the sequence after `count` records, wrapping to zero after the largest.
fn after(sequence: i32, count: u32) -> i32 {
    let next = (i64::from(sequence) + i64::from(count)) % (i64::from(i32::MAX) + 1);
    i32::try_from(next).unwrap_or(0)
}
