//! The requests of the claimer to the idempotency store.

use std::sync::Arc;

use tidings_core::{Claim, Error, ErrorKind, EventRef, ReleasedClaim};

use super::request_queue::{Entry, MAX_EVENTS, Request, Sending, all_failed};
use crate::engine::claims::ClaimGuard;
use crate::engine::record::PendingRecord;
use crate::engine::shared::Shared;

/// Claims events; chunks in order.
#[derive(Debug)]
pub(super) struct ClaimRequest<const ORDERED: bool>(pub(super) Arc<Shared>);

impl<const CHUNKS: bool> Request for ClaimRequest<CHUNKS> {
    type Item = PendingRecord;
    type Answer = (Result<Claim, Arc<Error>>, Option<ClaimGuard>);
    const PEER: &'static str = "the idempotency store";
    const ORDERED: bool = CHUNKS;

    fn take(&self, waiting: &mut Vec<Entry<PendingRecord>>) -> Vec<Entry<PendingRecord>> {
        // A chunk is claimed in one request, however large it is.
        if CHUNKS || waiting.len() <= MAX_EVENTS {
            return std::mem::take(waiting);
        }
        waiting.drain(..MAX_EVENTS).collect()
    }

    fn send(&self, mut items: Vec<Entry<PendingRecord>>) -> Sending<Self> {
        let shared = self.0.clone();
        let lease = shared.backends.store.as_ref().and_then(|claims| claims.lease());
        Box::pin(async move {
            let count = items.len();
            let Some(claims) = &shared.backends.store else {
                return (items, all_failed(count, Error::new(ErrorKind::Invalid, "claim events without a store")));
            };
            let Some(lease) = lease else { return (items, all_failed(count, claims.no_lease())) };
            let events: Vec<EventRef> = items.iter_mut().map(|entry| shared.event_ref(&mut entry.item)).collect();
            let (guards, answer) = claims.claim(&lease, &events).await;
            let answers = match answer {
                Ok(claims) => claims.into_iter().zip(guards).map(|(claim, guard)| Ok((Ok(claim), guard))).collect(),
                Err(error) => {
                    if error.kind() == ErrorKind::Fenced {
                        shared.fenced();
                    }
                    let error = Arc::new(error);
                    guards.into_iter().map(|guard| Ok((Err(error.clone()), guard))).collect()
                }
            };
            (items, answers)
        })
    }
}

/// Releases claims.
#[derive(Debug)]
pub(super) struct Release(pub(super) Arc<Shared>);

impl Request for Release {
    type Item = (ClaimGuard, ReleasedClaim);
    type Answer = ();
    const PEER: &'static str = "the idempotency store";

    /// Takes the claims of the current lease. An earlier lease's claims ended with it; this lease may have claimed the
    /// same events itself.
    fn take(&self, waiting: &mut Vec<Entry<Self::Item>>) -> Vec<Entry<Self::Item>> {
        let lease = self.0.backends.store.as_ref().and_then(|claims| claims.lease());
        let Some(lease) = lease else { return Vec::new() };
        let mut releases = std::mem::take(waiting);
        releases.retain(|entry| entry.item.0.lease().id == lease.id);
        releases
    }

    fn send(&self, items: Vec<Entry<Self::Item>>) -> Sending<Self> {
        let shared = self.0.clone();
        Box::pin(async move {
            let count = items.len();
            let events: Vec<ReleasedClaim> = items.iter().map(|entry| entry.item.1).collect();
            let (Some(claims), Some(first)) = (&shared.backends.store, items.first()) else {
                return (items, Vec::new());
            };
            let answers = match claims.store.release(first.item.0.lease(), &events).await {
                Ok(()) => (0..count).map(|_| Ok(())).collect(),
                Err(error) if error.kind() == ErrorKind::Fenced => {
                    // The lease has expired, and its claims with it.
                    shared.fenced();
                    (0..count).map(|_| Ok(())).collect()
                }
                Err(error) => all_failed(count, error),
            };
            (items, answers)
        })
    }
}
