//! Claims events before their handlers run, and releases the claims of those that were not done. Knows no handlers
//! or offsets.

use std::collections::HashSet;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tidings_core::{Claim, Error, ErrorKind, History, Redriven, ReleasedClaim};
use tokio::time::Instant;

use super::claim_requests::{ClaimRequest, Release};
use super::request_queue::{Answer, Entry, MAX_EVENTS, RequestQueue, Sent};
use super::timers::earliest;
use crate::engine::assigned::AssignmentId;
use crate::engine::claims::ClaimGuard;
use crate::engine::messages::{Cause, Events, IsolationPermit};
use crate::engine::record::{
    ClaimState, DeliveryMode, ISOLATED_CRASHES, MAX_CRASHES, PendingRecord, Stage, raise_troubles,
};
use crate::engine::shared::Shared;
use crate::logs;

/// An event found held this often is released before it is claimed again: if the claim is this service's own, which a
/// store may grant after its release, no other caller would ever end it.
const OFTEN_HELD: u32 = 4;
/// How often a redriven record may start anew. The number of redrives is a header, which any producer can write.
const FORGIVEN: u32 = 8;
/// After this many consecutive failed releases, isolated deliveries no longer wait for the next one.
const RELEASES_AWAITED: u32 = 3;

#[derive(Debug)]
pub(super) struct Claimer {
    shared: Arc<Shared>,
    events: Events,
    /// All records of arrived chunks, in order.
    chunks: RequestQueue<ClaimRequest<true>>,
    /// Records at the heads of their keys' queues.
    heads: RequestQueue<ClaimRequest<false>>,
    /// The one record that runs isolated.
    isolated: RequestQueue<ClaimRequest<false>>,
    releases: RequestQueue<Release>,
}

/// The answer to a claim.
#[derive(Debug)]
pub(super) enum Claimed {
    /// Its turn may come: it is claimed, or is claimed again then.
    Ready,
    /// The event was handled before.
    Duplicate,
    /// Another lease has the event, for at most this time.
    Held(Option<Duration>),
    /// The idempotency store is down, by this error.
    Outage(String),
    /// It is dead-lettered because too many processes crashed with it.
    Crashed(u32),
    /// Its partition is being revoked.
    Revoked,
}

/// The answers to a request.
#[derive(Debug)]
pub(super) enum ClaimedBy {
    Chunk(Vec<(PendingRecord, Claimed)>),
    Head(Vec<(PendingRecord, Claimed)>),
    Isolated(PendingRecord, Claimed),
}

impl Claimer {
    pub(super) fn new(shared: &Arc<Shared>, events: Events, random: &mut fastrand::Rng) -> Self {
        Self {
            shared: shared.clone(),
            events,
            chunks: RequestQueue::new(ClaimRequest(shared.clone()), random.u64(..)),
            heads: RequestQueue::new(ClaimRequest(shared.clone()), random.u64(..)),
            isolated: RequestQueue::new(ClaimRequest(shared.clone()), random.u64(..)),
            releases: RequestQueue::new(Release(shared.clone()), random.u64(..)),
        }
    }

    /// Returns how many records of chunks the next request has room for. Chunks that arrive during a request share the
    /// next one, so a slow store gets larger requests.
    pub(super) fn room(&self) -> usize {
        if self.chunks.is_in_flight() || self.chunks.due().is_some() {
            0
        } else if self.chunks.is_empty() {
            usize::MAX
        } else {
            MAX_EVENTS.saturating_sub(self.chunks.waiting())
        }
    }

    /// Claims a chunk's record.
    pub(super) fn claim_fresh(&mut self, mut record: PendingRecord) {
        record.advance(Stage::Claiming);
        self.chunks.push(record);
    }

    /// Claims a record at the head of its key's queue.
    pub(super) fn claim(&mut self, mut record: PendingRecord) {
        record.advance(Stage::Claiming);
        self.heads.push(record);
    }

    /// Claims the record that runs isolated: nothing else runs now.
    pub(super) fn claim_isolated(&mut self, mut record: PendingRecord, permit: IsolationPermit) {
        record.advance(Stage::Claiming);
        record.mode = DeliveryMode::Isolated(Some(permit));
        self.isolated.push(record);
    }

    /// Releases a claim, and reports the attempts that were made under it.
    pub(super) fn release(&mut self, guard: ClaimGuard, attempts: u32) {
        let release = ReleasedClaim::new(guard.event(), attempts);
        self.releases.push((guard.releasing(), release));
    }

    /// Returns whether a request that claims or releases is unanswered.
    ///
    /// A store that refuses releases repeatedly is not waited for: otherwise isolated records would never run. At worst
    /// an innocent event is counted as claimed by a lease that expired.
    pub(super) fn is_open(&self) -> bool {
        self.is_claiming() || !self.releases.is_empty() && self.releases.failures() < RELEASES_AWAITED
    }

    /// Returns the records that wait for a request.
    pub(super) fn records(&self) -> impl Iterator<Item = &PendingRecord> {
        self.chunks.items().chain(self.heads.items()).chain(self.isolated.items())
    }

    /// Returns whether a request that claims is in flight.
    pub(super) fn is_claiming(&self) -> bool {
        self.chunks.is_in_flight() || self.heads.is_in_flight() || self.isolated.is_in_flight()
    }

    /// Returns when a failed request is sent again.
    pub(super) fn due(&self) -> Option<Instant> {
        earliest([self.chunks.due(), self.heads.due(), self.isolated.due(), self.releases.due()])
    }

    /// Sends what waits, and adds the answers to `answers`. While an isolated delivery runs nothing is claimed: the
    /// claim would be lost if that delivery crashes the process.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, now: Instant, is_isolated: bool, answers: &mut Vec<ClaimedBy>) {
        while let Poll::Ready(sent) = self.chunks.poll(cx, now, is_isolated) {
            let (claimed, again) = self.claimed::<true>(sent);
            self.chunks.retry(again, now);
            answers.push(ClaimedBy::Chunk(claimed));
        }
        while let Poll::Ready(sent) = self.heads.poll(cx, now, is_isolated) {
            let (claimed, again) = self.claimed::<false>(sent);
            self.heads.retry(again, now);
            answers.push(ClaimedBy::Head(claimed));
        }
        while let Poll::Ready((entries, claims)) = self.isolated.poll(cx, now, false) {
            for (entry, claim) in entries.into_iter().zip(claims) {
                let (record, claimed) = self.claimed_isolated(entry.item, claim);
                answers.push(ClaimedBy::Isolated(record, claimed));
            }
        }
        while let Poll::Ready(sent) = self.releases.poll(cx, now, false) {
            self.released(sent, now);
        }
    }

    /// Returns the records that are claimed or have to wait, and those whose request failed.
    fn claimed<const CHUNK: bool>(
        &mut self,
        (entries, answers): Sent<ClaimRequest<CHUNK>>,
    ) -> (Vec<(PendingRecord, Claimed)>, Vec<Entry<PendingRecord>>) {
        let (mut claimed, mut again) = (Vec::with_capacity(entries.len()), Vec::new());
        let (mut held_keys, mut error) = (HashSet::new(), None);
        for (mut entry, answer) in entries.into_iter().zip(answers) {
            match self.answered(answer) {
                Ok(answer) => match (self.granted(&mut entry.item, answer), entry.item.key.hash()) {
                    (Claimed::Held(_), key) if CHUNK => {
                        // It waits for its turn first, and is claimed again then.
                        held_keys.extend(key);
                        claimed.push((entry.item, Claimed::Ready));
                    }
                    (Claimed::Ready, Some(key)) if held_keys.contains(&key) => {
                        // Behind a held event no claim is kept: two services could wait for each other.
                        self.disclaim(&mut entry.item);
                        claimed.push((entry.item, Claimed::Ready));
                    }
                    (answer, _) => claimed.push((entry.item, answer)),
                },
                // A record whose partition is being revoked is not claimed again.
                Err(_) if entry.item.id.assigned.is_stopping() => claimed.push((entry.item, Claimed::Revoked)),
                Err(failed) => {
                    error = Some(failed);
                    again.push(entry);
                }
            }
        }
        if let Some(error) = error {
            raise_troubles(again.iter_mut().map(|entry| &mut entry.item), &self.events, Cause::Store, &error.report());
        }
        (claimed, again)
    }

    /// Returns the answer to one claim. After an error the lease may have the claim, which would stay held as long as the
    /// lease is renewed: it is released.
    fn answered(&mut self, answer: Answer<ClaimRequest<true>>) -> Result<(Claim, Option<ClaimGuard>), Arc<Error>> {
        match answer? {
            (Ok(claim), guard) => Ok((claim, guard)),
            (Err(error), guard) => {
                if let Some(guard) = guard.filter(|_| error.kind() == ErrorKind::Indeterminate) {
                    self.release(guard, 0);
                }
                Err(error)
            }
        }
    }

    /// Takes the store's answer.
    fn granted(&mut self, record: &mut PendingRecord, (claim, guard): (Claim, Option<ClaimGuard>)) -> Claimed {
        record.end_trouble();
        if record.id.assigned.is_stopping() && claim != Claim::Done {
            // Released at once, not when its turn comes: the next owner waits for it.
            if let (Claim::Granted(history), Some(guard)) = (claim, guard) {
                record.claim = ClaimState::Granted(history, guard);
            }
            return Claimed::Revoked;
        }
        if record.is_isolated() {
            record.mode = DeliveryMode::Shared;
        }
        match (self.since_redriven(claim, record), guard) {
            (Claim::Done, _) => Claimed::Duplicate,
            // It runs isolated, and is claimed just before: while others run so, their crash must not end its claim.
            (Claim::Granted(history), Some(guard)) if (ISOLATED_CRASHES..MAX_CRASHES).contains(&history.crashes) => {
                self.release(guard, 0);
                record.mode = DeliveryMode::Isolated(None);
                Claimed::Ready
            }
            (Claim::Granted(history), Some(guard)) => {
                record.waits = 0;
                record.claim = ClaimState::Granted(history, guard);
                Claimed::Ready
            }
            (Claim::Held { at_most }, guard) => {
                if let Some(guard) = guard.filter(|_| record.waits >= OFTEN_HELD) {
                    self.release(guard, 0);
                }
                Claimed::Held(Some(at_most))
            }
            _ => Claimed::Held(None),
        }
    }

    fn claimed_isolated(
        &mut self,
        mut record: PendingRecord,
        answer: Answer<ClaimRequest<false>>,
    ) -> (PendingRecord, Claimed) {
        let (claim, guard) = match self.answered(answer) {
            Ok(answer) => answer,
            Err(_) if record.id.assigned.is_stopping() => return (record, Claimed::Revoked),
            Err(error) => return (record, Claimed::Outage(error.report())),
        };
        record.end_trouble();
        let claimed = match (self.since_redriven(claim, &record), guard) {
            (Claim::Granted(history), Some(guard)) => {
                let begins = guard.is_current();
                (record.waits, record.claim) = (0, ClaimState::Granted(history, guard));
                if record.id.assigned.is_stopping() {
                    Claimed::Revoked
                } else if !begins {
                    // The answer took longer than its lease is certainly valid.
                    self.disclaim(&mut record);
                    Claimed::Held(None)
                } else if history.crashes >= MAX_CRASHES {
                    Claimed::Crashed(history.crashes)
                } else {
                    Claimed::Ready
                }
            }
            (Claim::Done, _) => Claimed::Duplicate,
            _ => Claimed::Held(None),
        };
        (record, claimed)
    }

    /// Releases a claim that may have ended with its lease, in case it has not: a lease that stays valid would keep it,
    /// and this service would find the event held by itself. The release may not reach the store, so the attempts are
    /// kept by the record and reported later.
    pub(super) fn disclaim(&mut self, record: &mut PendingRecord) {
        if let Some(guard) = record.take_claim() {
            self.release(guard, 0);
        }
    }

    /// Returns a claim without the history from before the record's last redrive: a redriven record starts anew. The
    /// store keeps lease expiries and attempts also after the record was dead-lettered for them.
    fn since_redriven(&self, claim: Claim, record: &PendingRecord) -> Claim {
        let Claim::Granted(history) = claim else { return claim };
        if history == History::default() {
            return claim;
        }
        let redriven = Redriven::of(&record.origin().topic, &record.stored().headers);
        let redriven = redriven.filter(|redriven| redriven.is_for(&self.shared.identity.service));
        let times = redriven.map_or(0, |redriven| redriven.count.min(FORGIVEN));
        let crashes = history.crashes.saturating_sub(times * MAX_CRASHES);
        let retry = &self.shared.policy.retry;
        let waits = u32::try_from(retry.topics.len()).unwrap_or(u32::MAX);
        let attempts = times.saturating_mul(retry.max_retries.saturating_add(1).saturating_add(waits));
        Claim::Granted(History::new(crashes, history.attempts.saturating_sub(attempts)))
    }

    fn released(&mut self, (entries, answers): Sent<Release>, now: Instant) {
        let failed = |answer: &Result<(), Arc<Error>>| answer.is_err();
        let Some(Err(error)) = answers.iter().find(|answer| failed(answer)) else { return };
        // This lease is still valid: a claim that is not released would block every other consumer.
        let (service, claims) = (self.shared.identity.service.as_str(), entries.len());
        logs::ClaimsNotReleased { service: &service, claims: &claims, error: &error.report() }.log();
        let again = entries.into_iter().zip(&answers).filter(|(_, answer)| failed(answer)).map(|(entry, _)| entry);
        self.releases.retry(again.collect(), now);
    }

    /// Removes the records of a revoked assignment that wait for a request.
    pub(super) fn revoke(&mut self, assignment: AssignmentId, out: &mut Vec<PendingRecord>) {
        let is_of = |entry: &Entry<PendingRecord>| entry.item.assignment() == assignment;
        out.extend(self.chunks.take_where(is_of));
        out.extend(self.heads.take_where(is_of));
        out.extend(self.isolated.take_where(is_of));
    }
}
