//! A dead-letter store with a bug, and the cases that must catch it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidings_conformance::{Setup, dead_letters};
use tidings_core::{
    DeadLetter, DeadLetterSink, DeadLetterStore, Error, ErrorKind, Guarantees, Leased, LetterId, LetterLease,
    LetterQuery, LetterState, Name, Resolution, Result, Timestamp, async_trait,
};
use tidings_memory::MemoryDeadLetters;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    ListsALetterTwice,
    ResolvesTwice,
    ForgetsTheResolution,
    ReadsNullAsEmpty,
    CutsTheError,
    IgnoresTheService,
    ListsBackwards,
    SwallowsAFailure,
    LosesEveryTenthLetter,
    ForgetsAtRestart,
    LeasesToAll,
    ParksByALease,
    SaysHeldForLess,
    HoldsForLongerThanAllowed,
    LeasesWhatIsClosed,
    KeepsALeaseForEver,
    KeepsWhatIsGivenBack,
    ResolvesWhatIsLeased,
    ClosesWhatWasTakenOver,
    ParksNothing,
    ClosesWhatIsParked,
    ParksTwice,
    LeasesNothingParked,
    UnparksWhatIsBuriedAgain,
    HidesWhatIsClosed,
    ForgetsTheReason,
    IgnoresTheText,
    IgnoresTheIds,
    CountsAPage,
}

#[derive(Debug)]
struct Planted {
    inner: MemoryDeadLetters,
    bug: Bug,
    twice: Arc<Mutex<Vec<DeadLetter>>>,
    /// The lease that asked last.
    last: Arc<Mutex<LetterLease>>,
}

impl Planted {
    fn new(inner: MemoryDeadLetters, bug: Bug) -> Self {
        let last = Arc::new(Mutex::new(LetterLease::new(Duration::ZERO)));
        Self { inner, bug, twice: Arc::default(), last }
    }
}

impl Planted {
    fn mangled(&self, mut letter: DeadLetter) -> DeadLetter {
        match self.bug {
            Bug::ReadsNullAsEmpty => letter.record.value = Some(letter.record.value.unwrap_or_default()),
            Bug::CutsTheError => letter.error.truncate(letter.error.floor_char_boundary(255)),
            Bug::IgnoresTheService => letter.service = letter.service.split('-').next().unwrap_or_default().into(),
            _ => {}
        }
        letter
    }
}

#[async_trait]
impl DeadLetterSink for Planted {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>> {
        let count = letters.len();
        let mut letters: Vec<DeadLetter> = letters.into_iter().map(|letter| self.mangled(letter)).collect();
        if self.bug == Bug::ListsALetterTwice {
            self.twice.lock().unwrap_or_else(PoisonError::into_inner).extend(letters.iter().cloned());
        }
        if self.bug == Bug::LosesEveryTenthLetter {
            letters.retain(|letter| letter.record.offset % 10 != 9);
        }
        if self.bug == Bug::UnparksWhatIsBuriedAgain {
            let ids: Vec<LetterId> = letters.iter().map(DeadLetter::id).collect();
            let query = LetterQuery::default().with_state(LetterState::Parked).with_ids(ids.clone());
            if !self.inner.list(&query).await.unwrap_or_default().is_empty() {
                let _closed = self.inner.resolve(&ids, &Resolution::discarded("", "")).await;
                letters.iter_mut().for_each(|letter| letter.record.timestamp = Timestamp::from_millis(1));
            }
        }
        let mut answers = self.inner.bury(letters).await;
        if self.bug == Bug::SwallowsAFailure {
            answers.clear();
        }
        answers.resize_with(count, || Ok(()));
        answers
    }

    async fn check(&self, topics: &[Name]) -> Result<()> {
        self.inner.check(topics).await
    }

    fn guarantees(&self) -> Guarantees {
        // The reopen hook of these tests keeps the store, as a disk would.
        Guarantees::all()
    }
}

#[async_trait]
impl DeadLetterStore for Planted {
    async fn list(&self, query: &LetterQuery) -> Result<Vec<DeadLetter>> {
        let mut query = query.clone();
        match self.bug {
            Bug::IgnoresTheText => query.error = None,
            Bug::IgnoresTheIds => query.ids = None,
            _ => {}
        }
        let query = &query;
        let mut listed = self.inner.list(query).await?;
        match self.bug {
            Bug::HidesWhatIsClosed => {
                listed.retain(|letter| !letter.resolution.as_ref().is_some_and(|resolution| resolution.kind.closes()));
            }
            Bug::ForgetsTheReason => listed.iter_mut().for_each(|letter| {
                if let Some(resolution) = &mut letter.resolution {
                    resolution.reason.clear();
                }
            }),
            Bug::ListsALetterTwice => {
                let all = self.twice.lock().unwrap_or_else(PoisonError::into_inner).clone();
                listed = all.into_iter().filter(|letter| query.wants(letter)).collect();
            }
            Bug::ListsBackwards => listed.reverse(),
            _ => {}
        }
        Ok(listed)
    }

    async fn resolve(&self, letters: &[LetterId], resolution: &Resolution) -> Result<Vec<bool>> {
        match self.bug {
            Bug::ForgetsTheResolution => Ok(vec![true; letters.len()]),
            Bug::ParksNothing if !resolution.kind.closes() => Ok(vec![true; letters.len()]),
            Bug::ParksTwice if !resolution.kind.closes() => {
                self.inner.resolve(letters, resolution).await?;
                Ok(vec![true; letters.len()])
            }
            Bug::ClosesWhatIsParked => {
                let closing = Resolution::discarded(resolution.by.clone(), resolution.reason.clone());
                self.inner.resolve(letters, &closing).await
            }
            Bug::ResolvesTwice => {
                self.inner.resolve(letters, resolution).await?;
                Ok(vec![true; letters.len()])
            }
            Bug::ResolvesWhatIsLeased => {
                let mut closed = Vec::new();
                for letter in letters {
                    let one = std::slice::from_ref(letter);
                    let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let free = self.inner.resolve(one, resolution).await?[0];
                    closed.push(free || self.inner.resolve_leased(one, &last, resolution).await?[0]);
                }
                Ok(closed)
            }
            _ => self.inner.resolve(letters, resolution).await,
        }
    }

    async fn count(&self, query: &LetterQuery) -> Result<u64> {
        match self.bug {
            Bug::CountsAPage => Ok(self.list(query).await?.len() as u64),
            _ => self.inner.count(query).await,
        }
    }

    async fn lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<Vec<Leased>> {
        let mut lease = lease.clone();
        if self.bug == Bug::KeepsALeaseForEver {
            lease.ttl = Duration::MAX;
        }
        let mut leased = self.inner.lease(letters, &lease).await?;
        if self.bug == Bug::LeasesNothingParked {
            let query = LetterQuery::default().with_state(LetterState::Parked).with_limit(usize::MAX);
            let parked: Vec<_> = self.inner.list(&query).await?.iter().map(DeadLetter::id).collect();
            for (answer, _) in leased.iter_mut().zip(letters).filter(|(_, id)| parked.contains(id)) {
                *answer = Leased::Closed;
            }
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = lease;
        for answer in &mut leased {
            match (self.bug, *answer) {
                (Bug::LeasesToAll, Leased::Held { .. }) | (Bug::LeasesWhatIsClosed, Leased::Closed) => {
                    *answer = Leased::Granted;
                }
                (Bug::SaysHeldForLess, Leased::Held { at_most }) => *answer = Leased::Held { at_most: at_most / 2 },
                (Bug::HoldsForLongerThanAllowed, Leased::Held { at_most }) if at_most > LetterLease::MAX_TTL / 2 => {
                    *answer = Leased::Held { at_most: at_most * 2 };
                }
                _ => {}
            }
        }
        Ok(leased)
    }

    async fn resolve_leased(
        &self,
        letters: &[LetterId],
        lease: &LetterLease,
        resolution: &Resolution,
    ) -> Result<Vec<bool>> {
        if self.bug == Bug::ParksByALease && !resolution.kind.closes() {
            self.inner.end_lease(letters, lease).await?;
            return self.inner.resolve(letters, resolution).await;
        }
        let closed = self.inner.resolve_leased(letters, lease, resolution).await?;
        Ok(if self.bug == Bug::ClosesWhatWasTakenOver { vec![true; letters.len()] } else { closed })
    }

    async fn end_lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<()> {
        match self.bug {
            Bug::KeepsWhatIsGivenBack => Ok(()),
            _ => self.inner.end_lease(letters, lease).await,
        }
    }
}

fn setup(bug: Bug) -> Setup<Planted> {
    Setup::new("planted", move || async move { Ok(Planted::new(MemoryDeadLetters::new(), bug)) })
        .with_paused_clock()
        .with_outage(|letters, down| async move {
            if down {
                letters.inner.faults().down()
            } else {
                letters.inner.faults().up()
            }
            Ok(())
        })
        .with_reopen(|letters| async move {
            let letters =
                Arc::into_inner(letters).ok_or_else(|| Error::new(ErrorKind::Conflict, "it is still open"))?;
            let forgets = letters.bug == Bug::ForgetsAtRestart;
            let inner = if forgets { MemoryDeadLetters::new() } else { letters.inner };
            Ok(Planted { twice: letters.twice, ..Planted::new(inner, letters.bug) })
        })
}

plants! { dead_letters:
    a_letter_listed_twice: ListsALetterTwice => d3_a_letter_buried_twice_is_listed_once,
    a_letter_redriven_twice: ResolvesTwice => d3_resolving_from_many_sides_is_granted_once,
    a_resolution_forgotten: ForgetsTheResolution => d3_a_letter_is_resolved_once,
    null_read_as_empty: ReadsNullAsEmpty => d2_a_tombstone_without_key_and_headers_is_kept,
    an_error_cut: CutsTheError => d2_the_longest_error_is_kept,
    services_mixed_up: IgnoresTheService => d3_letters_differ_by_service_topic_partition_and_offset,
    letters_listed_backwards: ListsBackwards => d3_letters_are_listed_in_the_order_of_burying_and_by_pages,
    a_failure_swallowed: SwallowsAFailure => d1_an_outage_is_told_and_forgets_nothing,
    letters_lost: LosesEveryTenthLetter => d1_hundreds_of_letters_in_one_call,
    all_forgotten_at_a_restart: ForgetsAtRestart => restart_letters_survive,
    a_letter_leased_to_all: LeasesToAll => d4_redrives_at_once_publish_each_letter_once,
    a_letter_parked_by_a_lease: ParksByALease => d4_a_lease_closes_letters_and_parks_none,
    a_letter_held_longer_than_it_said: SaysHeldForLess => d4_held_says_how_long_at_most,
    a_letter_held_for_longer_than_allowed: HoldsForLongerThanAllowed => d4_a_lease_of_the_longest_time_is_granted,
    a_closed_letter_leased: LeasesWhatIsClosed => d4_a_letter_discarded_since_it_was_listed_is_not_published,
    a_lease_kept_for_ever: KeepsALeaseForEver => d4_a_lease_that_was_outlived_is_taken_over,
    a_letter_not_given_back: KeepsWhatIsGivenBack => d4_a_letter_that_the_broker_refuses_can_be_redriven_at_once,
    a_leased_letter_resolved: ResolvesWhatIsLeased => d4_a_leased_letter_is_closed_by_its_lease_alone,
    a_letter_not_parked: ParksNothing => d5_a_parked_letter_is_listed_among_the_parked_alone,
    a_parked_letter_closed: ClosesWhatIsParked => d5_a_parked_letter_is_listed_among_the_parked_alone,
    a_letter_parked_twice: ParksTwice => d5_a_letter_is_parked_once_and_not_when_closed_or_leased,
    a_parked_letter_not_leased: LeasesNothingParked => d5_a_parked_letter_can_be_discarded_and_redriven,
    a_parked_letter_opened_by_burying: UnparksWhatIsBuriedAgain => d5_a_parked_letter_that_is_buried_again_stays_parked,
    a_closed_letter_hidden: HidesWhatIsClosed => d6_a_closed_letter_is_listed_with_its_resolution,
    a_reason_forgotten: ForgetsTheReason => d6_a_closed_letter_is_listed_with_its_resolution,
    a_text_ignored: IgnoresTheText => d3_letters_are_selected_by_their_error_and_counted,
    identities_ignored: IgnoresTheIds => d3_letters_are_listed_as_asked,
    a_page_counted: CountsAPage => d3_letters_are_selected_by_their_error_and_counted,
    a_letter_closed_by_a_lease_that_was_taken_over: ClosesWhatWasTakenOver => d4_a_lease_that_was_outlived_is_taken_over,
}
