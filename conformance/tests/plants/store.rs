//! An idempotency store with a bug, and the cases that must catch it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidings_conformance::{Setup, idempotency};
use tidings_core::{
    Claim, ErrorKind, EventRef, Guarantees, History, IdempotencyStore, Lease, MIN_LEASE_TTL, Name, ReleasedClaim,
    Result, Timestamp, async_trait,
};
use tidings_memory::MemoryStore;
use uuid::Uuid;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    GrantsTwice,
    GrantsTwins,
    MarksDoneBeforeComplete,
    CompletesOnBurying,
    ReleasesOthersClaims,
    CompleteReleasesTheRest,
    PurgeRemovesLiveClaims,
    PurgesOtherScopes,
    PurgesNothing,
    AcceptsALateComplete,
    CompletesUnclaimed,
    SaysGrantedWhenDown,
    SaysDoneWhenDown,
    ForgetsCrashes,
    ForgetsAttempts,
    CountsReleasesAsCrashes,
    ClaimsExpireByThemselves,
    LeasesNeverDie,
    TakesAnyTtl,
    RetiringKeepsClaims,
    ForgetsAtRestart,
    CallsClaimedDone,
    DoneInAnyScope,
    ClaimsWhenAsked,
    RenewsWhenAsked,
    NoneDoneWhenDown,
}

#[derive(Debug, Default)]
struct Known {
    /// Who claimed an event last, by what was granted.
    claimants: HashMap<(Name, Uuid), Lease>,
    scopes: HashSet<Name>,
}

#[derive(Debug)]
struct Planted {
    inner: MemoryStore,
    bug: Bug,
    known: Arc<Mutex<Known>>,
}

impl Planted {
    fn new(bug: Bug) -> Self {
        Self { inner: MemoryStore::new(), bug, known: Arc::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one who has an event, as far as this wrapper knows.
    fn claimant(&self, scope: &Name, id: Uuid) -> Option<Lease> {
        self.known().claimants.get(&(scope.clone(), id)).cloned()
    }

    fn told(&self, claim: Claim) -> Claim {
        match (self.bug, claim) {
            (Bug::GrantsTwice, Claim::Held { .. }) => Claim::Granted(History::default()),
            (Bug::ForgetsCrashes, Claim::Granted(h)) => Claim::Granted(History::new(0, h.attempts)),
            (Bug::ForgetsAttempts, Claim::Granted(h)) => Claim::Granted(History::new(h.crashes, 0)),
            (Bug::CountsReleasesAsCrashes, Claim::Granted(h)) => {
                Claim::Granted(History::new(h.crashes + u32::from(h.attempts > 0), h.attempts))
            }
            (_, claim) => claim,
        }
    }

    async fn passed_claim(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Claim>> {
        let claims: Vec<Claim> =
            self.inner.claim(lease, events).await?.into_iter().map(|claim| self.told(claim)).collect();
        let granted = events.iter().zip(&claims).filter(|(_, claim)| matches!(claim, Claim::Granted(_)));
        for (event, _) in granted {
            self.known().claimants.insert((lease.scope.clone(), event.id), lease.clone());
        }
        Ok(claims)
    }
}

#[async_trait]
impl IdempotencyStore for Planted {
    async fn acquire_lease(&self, scope: &Name, ttl: Duration) -> Result<Lease> {
        let asked = match self.bug {
            Bug::LeasesNeverDie => Duration::from_secs(1_000_000),
            Bug::TakesAnyTtl => ttl.max(MIN_LEASE_TTL),
            Bug::ClaimsExpireByThemselves => ttl.min(Duration::from_secs(2)),
            _ => ttl,
        };
        let mut lease = self.inner.acquire_lease(scope, asked).await?;
        lease.ttl = ttl;
        self.known().scopes.insert(scope.clone());
        Ok(lease)
    }

    async fn claim(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Claim>> {
        let claims = match (self.bug, self.passed_claim(lease, events).await) {
            (Bug::SaysGrantedWhenDown, Err(_)) => vec![Claim::Granted(History::default()); events.len()],
            (Bug::SaysDoneWhenDown, Err(_)) => vec![Claim::Done; events.len()],
            (_, answer) => answer?,
        };
        match self.bug {
            Bug::MarksDoneBeforeComplete => drop(self.inner.complete(lease, events).await),
            Bug::GrantsTwins => {
                let mut first = HashMap::new();
                let twins = events.iter().zip(&claims).map(|(e, claim)| *first.entry(e.id).or_insert(*claim));
                return Ok(twins.collect());
            }
            _ => {}
        }
        Ok(claims)
    }

    async fn renew(&self, lease: &Lease) -> Result<()> {
        self.inner.renew(lease).await
    }

    async fn complete(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Result<()>>> {
        let mut answers = self.inner.complete(lease, events).await;
        if matches!(self.bug, Bug::AcceptsALateComplete | Bug::CompletesUnclaimed) {
            let dead = self.inner.renew(lease).await.is_err();
            let forgives = dead == (self.bug == Bug::AcceptsALateComplete);
            for event in events.iter().filter(|_| forgives) {
                if let Some(claimant) = self.claimant(&lease.scope, event.id) {
                    answers = self.inner.complete(&claimant, std::slice::from_ref(event)).await;
                }
            }
        }
        if self.bug == Bug::CompleteReleasesTheRest {
            let of: Vec<ReleasedClaim> = {
                let known = self.known();
                let mine = known.claimants.iter().filter(|(_, claimant)| claimant.id == lease.id);
                mine.map(|((_, id), _)| ReleasedClaim::new(*id, 0)).collect()
            };
            self.inner.release(lease, &of).await?;
        }
        answers
    }

    async fn release(&self, lease: &Lease, events: &[ReleasedClaim]) -> Result<()> {
        for release in events {
            match self.bug {
                Bug::CompletesOnBurying => {
                    drop(self.inner.complete(lease, &[EventRef::new(release.id, "")]).await);
                }
                Bug::ReleasesOthersClaims => {
                    if let Some(claimant) = self.claimant(&lease.scope, release.id) {
                        self.inner.release(&claimant, std::slice::from_ref(release)).await?;
                    }
                }
                _ => {}
            }
        }
        self.inner.release(lease, events).await
    }

    async fn retire(&self, lease: &Lease) -> Result<()> {
        if self.bug == Bug::RetiringKeepsClaims { Ok(()) } else { self.inner.retire(lease).await }
    }

    async fn purge(&self, scope: &Name, completed_before: Timestamp) -> Result<u64> {
        match self.bug {
            Bug::PurgeRemovesLiveClaims => {
                let claims: Vec<((Name, Uuid), Lease)> = self.known().claimants.clone().into_iter().collect();
                for ((_, id), lease) in claims.iter().filter(|((of, _), _)| of == scope) {
                    self.inner.release(lease, &[ReleasedClaim::new(*id, 0)]).await?;
                }
            }
            Bug::PurgesOtherScopes => {
                let prefixed: Vec<Name> = {
                    let known = self.known();
                    known.scopes.iter().filter(|s| s.starts_with(scope.as_str()) && *s != scope).cloned().collect()
                };
                for scope in &prefixed {
                    self.inner.purge(scope, completed_before).await?;
                }
            }
            Bug::PurgesNothing => return Ok(0),
            _ => {}
        }
        self.inner.purge(scope, completed_before).await
    }

    async fn done(&self, scope: &Name, events: &[EventRef]) -> Result<Vec<bool>> {
        let claimants: Vec<((Name, Uuid), Lease)> = self.known().claimants.clone().into_iter().collect();
        let of = |id: Uuid| claimants.iter().filter(move |((_, claimed), _)| *claimed == id);
        match self.bug {
            Bug::CallsClaimedDone => return Ok(events.iter().map(|event| of(event.id).next().is_some()).collect()),
            Bug::DoneInAnyScope => {
                let scopes: Vec<Name> = self.known().scopes.iter().cloned().collect();
                let mut done = vec![false; events.len()];
                for scope in &scopes {
                    let found = self.inner.done(scope, events).await?;
                    done.iter_mut().zip(found).for_each(|(done, found)| *done |= found);
                }
                return Ok(done);
            }
            Bug::ClaimsWhenAsked => {
                let lease = self.inner.acquire_lease(scope, Duration::from_secs(1_000_000)).await?;
                drop(self.inner.claim(&lease, events).await);
            }
            Bug::RenewsWhenAsked => {
                for (_, lease) in &claimants {
                    drop(self.inner.renew(lease).await);
                }
            }
            Bug::NoneDoneWhenDown => {
                return Ok(self.inner.done(scope, events).await.unwrap_or_else(|_| vec![false; events.len()]));
            }
            _ => {}
        }
        self.inner.done(scope, events).await
    }

    fn guarantees(&self) -> Guarantees {
        // The reopen hook of these tests keeps the store, as a disk would.
        Guarantees::all()
    }
}

fn setup(bug: Bug) -> Setup<Planted> {
    Setup::new("planted", move || async move { Ok(Planted::new(bug)) })
        .with_paused_clock()
        .with_outage(|store, down| async move {
            let faults = store.inner.faults();
            if down {
                faults.fail_calls(tidings_memory::Faults::UNTIL_HEALED, ErrorKind::Unavailable)
            } else {
                faults.heal()
            }
            Ok(())
        })
        .with_lost_answers(|store, lost| async move {
            store.inner.faults().lose_answers(if lost { tidings_memory::Faults::UNTIL_HEALED } else { 0 });
            Ok(())
        })
        .with_reopen(|store| async move {
            let inner = if store.bug == Bug::ForgetsAtRestart { MemoryStore::new() } else { store.inner.clone() };
            Ok(Planted { inner, bug: store.bug, known: Arc::clone(&store.known) })
        })
}

plants! { idempotency:
    any_ttl_taken: TakesAnyTtl => i3_a_ttl_is_refused_only_where_it_is_too_short,
    done_though_the_answer_is_lost: SaysDoneWhenDown => i5_a_lost_answer_is_no_success,
    granted_though_the_answer_is_lost: SaysGrantedWhenDown => i5_a_call_with_a_lost_answer_can_be_repeated,
    a_claim_granted_twice: GrantsTwice => i1_an_event_is_granted_to_one_lease,
    a_claim_granted_twice_at_once: GrantsTwice => i1_many_leases_at_once_are_granted_one_claim,
    twins_granted: GrantsTwins => i1_twins_within_one_call_are_granted_once,
    done_before_complete: MarksDoneBeforeComplete => i7_a_claim_alone_is_not_done,
    done_by_burying: CompletesOnBurying => i7_a_release_is_not_done,
    anothers_claim_released: ReleasesOthersClaims => i1_releasing_what_another_has_leaves_it,
    claims_released_by_complete: CompleteReleasesTheRest => i7_completing_releases_and_completes_nothing_else,
    live_claims_purged: PurgeRemovesLiveClaims => i2_a_purge_leaves_live_claims,
    other_scopes_purged: PurgesOtherScopes => i2_a_purge_leaves_other_scopes,
    nothing_purged: PurgesNothing => i2_a_purge_forgets_what_is_old_enough,
    a_late_complete_accepted: AcceptsALateComplete => i3_completing_what_was_taken_over_is_fenced,
    an_unclaimed_event_completed: CompletesUnclaimed => i7_completing_what_was_never_claimed_is_fenced,
    granted_though_down: SaysGrantedWhenDown => i5_a_store_that_is_down_says_so,
    done_though_down: SaysDoneWhenDown => i5_a_store_that_is_down_says_so,
    deaths_forgotten: ForgetsCrashes => i6_deaths_are_counted,
    attempts_forgotten: ForgetsAttempts => i6_released_attempts_are_counted,
    releases_counted_as_deaths: CountsReleasesAsCrashes => i6_released_attempts_are_counted,
    claims_that_expire_by_themselves: ClaimsExpireByThemselves => i3_a_claim_lives_as_long_as_its_lease,
    leases_that_never_die: LeasesNeverDie => i3_a_claim_of_a_dead_lease_can_be_taken,
    claims_kept_by_a_retired_lease: RetiringKeepsClaims => i3_retiring_releases_at_once,
    claimed_events_called_done: CallsClaimedDone => i8_done_is_what_was_completed_in_the_scope,
    done_in_any_scope: DoneInAnyScope => i8_done_is_what_was_completed_in_the_scope,
    events_claimed_by_a_query: ClaimsWhenAsked => i8_a_query_claims_nothing_and_keeps_nothing_alive,
    leases_renewed_by_a_query: RenewsWhenAsked => i8_a_query_claims_nothing_and_keeps_nothing_alive,
    nothing_done_though_down: NoneDoneWhenDown => i5_a_store_that_is_down_says_so,
    all_forgotten_at_a_restart: ForgetsAtRestart => restart_what_is_done_survives,
}
