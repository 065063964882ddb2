//! D4: one letter, one redrive.
//!
//! A redrive publishes before it closes a letter. Without a lease two redrives would both publish;
//! with a lease that outlives its process, none ever would again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidings_core::{
    DeadLetterStore, Error, ErrorKind, Guarantees, Leased, LetterLease, LetterState, Position, Publisher, Record,
    Redrive, RedriveOutcome, Resolution, Result, async_trait,
};

use super::fixture::{Fixture, LONG, held, letter};
use crate::case::{Case, Checked, broken, cases, holds, refused, same};
use crate::setup::Clock;

pub(super) const CASES: &[Case<dyn DeadLetterStore>] = cases![
    d4_a_leased_letter_is_held_until_it_is_given_back,
    d4_a_leased_letter_is_closed_by_its_lease_alone,
    d4_a_closed_letter_is_not_leased,
    d4_a_lease_is_granted_once_to_many,
    d4_a_lease_that_was_outlived_is_taken_over,
    d4_held_says_how_long_at_most,
    d4_a_lease_closes_letters_and_parks_none,
    d4_a_lease_of_the_longest_time_is_granted,
    d4_redrives_at_once_publish_each_letter_once,
    d4_a_letter_discarded_since_it_was_listed_is_not_published,
    d4_a_letter_that_the_broker_refuses_can_be_redriven_at_once,
];

/// A publisher that records the offsets of letters, by their last value byte, and yields in between.
#[derive(Debug, Default)]
struct Broker {
    published: Mutex<Vec<Record>>,
    refuses: bool,
}

#[async_trait]
impl Publisher for Broker {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        tokio::task::yield_now().await;
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = |record| {
            if self.refuses {
                return Err(Error::new(ErrorKind::TooLarge, "publish"));
            }
            published.push(record);
            Ok(Position::new(0, published.len() as u64))
        };
        records.into_iter().map(answer).collect()
    }

    async fn close(&self, _: Duration) -> Result<()> {
        Ok(())
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees::all()
    }
}

impl Broker {
    fn count(&self) -> usize {
        self.published.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// A lease that is taken again by its owner is renewed, not refused.
async fn d4_a_leased_letter_is_held_until_it_is_given_back(fixture: &Fixture) -> Checked {
    let (_, ids) = fixture.buried(&[1, 2]).await?;
    let (one, other) = (LetterLease::new(LONG), LetterLease::new(LONG));
    same("the first lease", vec![Leased::Granted; 2], fixture.lease(&ids, &one).await?)?;
    same("the same lease again", vec![Leased::Granted; 2], fixture.lease(&ids, &one).await?)?;
    held(&fixture.lease(&ids, &other).await?, LONG)?;
    // Another lease releases nothing.
    fixture.end_lease(&ids, &other).await?;
    held(&fixture.lease(&ids, &other).await?, LONG)?;
    fixture.end_lease(&ids[..1], &one).await?;
    same("a letter that was given back", vec![Leased::Granted], fixture.lease(&ids[..1], &other).await?)?;
    held(&fixture.lease(&ids[1..], &other).await?, LONG)
}

/// An operator who discards a letter must not do so under a redrive.
async fn d4_a_leased_letter_is_closed_by_its_lease_alone(fixture: &Fixture) -> Checked {
    let (service, ids) = fixture.buried(&[1, 2]).await?;
    let (one, other) = (LetterLease::new(LONG), LetterLease::new(LONG));
    same("a lease", vec![Leased::Granted], fixture.lease(&ids[..1], &one).await?)?;
    same("resolving a leased letter and a free one", vec![false, true], fixture.resolve(&ids).await?)?;
    same("letters that are open", 1, fixture.of(&service).await?.len())?;
    same("closing by another lease", vec![false], fixture.resolve_leased(&ids[..1], &other).await?)?;
    same("closing by the lease", vec![true, false], fixture.resolve_leased(&ids, &one).await?)?;
    same("closing again", vec![false], fixture.resolve_leased(&ids[..1], &one).await?)?;
    same("letters that are open", 0, fixture.of(&service).await?.len())
}

async fn d4_a_closed_letter_is_not_leased(fixture: &Fixture) -> Checked {
    let (service, ids) = fixture.buried(&[1]).await?;
    same("answers to resolve", vec![true], fixture.resolve(&ids).await?)?;
    let asked = [ids[0].clone(), letter(&service, 99).id()];
    let leased = fixture.lease(&asked, &LetterLease::new(LONG)).await?;
    same("a closed letter and one that never was", vec![Leased::Closed; 2], leased)?;
    same("answers to no letters", 0, fixture.lease(&[], &LetterLease::new(LONG)).await?.len())
}

/// Half of the callers ask in reverse order, so that stores that lock rows may deadlock.
async fn d4_a_lease_is_granted_once_to_many(fixture: &Fixture) -> Checked {
    let (_, ids) = fixture.buried(&[1, 2, 3]).await?;
    let mut leasing = tokio::task::JoinSet::new();
    for n in 0..8 {
        let (store, mut ids) = (fixture.store()?, ids.clone());
        if n % 2 == 0 {
            ids.reverse();
        }
        leasing.spawn(async move { store.lease(&ids, &LetterLease::new(LONG)).await });
    }
    let mut granted = 0;
    for answer in fixture.within("all answers", leasing.join_all()).await? {
        granted += answer?.into_iter().filter(|leased| *leased == Leased::Granted).count();
    }
    same("leases that were granted", 3, granted)
}

/// The old lease may still close a letter that no other has taken: it was published.
async fn d4_a_lease_that_was_outlived_is_taken_over(fixture: &Fixture) -> Checked {
    let (service, ids) = fixture.buried(&[1, 2, 3]).await?;
    let (old, new) = (LetterLease::new(fixture.pace.lifetime), LetterLease::new(LONG));
    same("a lease", vec![Leased::Granted; 3], fixture.lease(&ids, &old).await?)?;
    fixture.outlive().await?;
    same("a lease of an outlived one's", vec![Leased::Granted], fixture.lease(&ids[..1], &new).await?)?;
    // A letter that was not taken over can be closed by the old lease, or by any caller.
    same("closing by the old lease", vec![false, true], fixture.resolve_leased(&ids[..2], &old).await?)?;
    same("resolving what was leased once", vec![true], fixture.resolve(&ids[2..]).await?)?;
    same("letters that are open", 1, fixture.of(&service).await?.len())?;
    same("closing by the new lease", vec![true], fixture.resolve_leased(&ids[..1], &new).await?)
}

/// Another redrive waits that long before it asks again.
async fn d4_held_says_how_long_at_most(fixture: &Fixture) -> Checked {
    let (_, ids) = fixture.buried(&[1]).await?;
    let (old, new) = (LetterLease::new(fixture.pace.lifetime), LetterLease::new(LONG));
    fixture.lease(&ids, &old).await?;
    let leased = fixture.lease(&ids, &new).await?;
    let [Leased::Held { at_most }] = leased[..] else { return broken("Held", format!("{leased:?}")) };
    let rounding = match fixture.pace.clock {
        Clock::Paused => Duration::ZERO,
        Clock::Real => (fixture.pace.lifetime / 20).min(Duration::from_millis(100)),
    };
    fixture.pass(at_most + rounding).await?;
    same("the letter after as long as it said", vec![Leased::Granted], fixture.lease(&ids, &new).await?)
}

/// Who parks a letter looks at it; a redrive that can't publish it gives it back.
async fn d4_a_lease_closes_letters_and_parks_none(fixture: &Fixture) -> Checked {
    let (service, ids) = fixture.buried(&[1, 2]).await?;
    let (store, lease) = (fixture.store()?, LetterLease::new(LONG));
    fixture.lease(&ids[..1], &lease).await?;
    let parked = Resolution::parked("ann", "until later");
    let parking = fixture.within("resolve_leased", store.resolve_leased(&ids, &lease, &parked)).await?;
    refused("parking by a lease", &[ErrorKind::Invalid], parking)?;
    same("letters that are parked", 0, fixture.offsets_in(&service, LetterState::Parked).await?.len())?;
    held(&fixture.lease(&ids[..1], &LetterLease::new(LONG)).await?, LONG)?;
    same("closing by the lease", vec![true, false], fixture.resolve_leased(&ids, &lease).await?)
}

async fn d4_a_lease_of_the_longest_time_is_granted(fixture: &Fixture) -> Checked {
    let (_, ids) = fixture.buried(&[1]).await?;
    let mut lease = LetterLease::new(LONG);
    lease.ttl = Duration::MAX;
    same("a lease", vec![Leased::Granted], fixture.lease(&ids, &lease).await?)?;
    held(&fixture.lease(&ids, &LetterLease::new(LONG)).await?, LetterLease::MAX_TTL)?;
    same("closing by the lease", vec![true], fixture.resolve_leased(&ids, &lease).await?)
}

/// With keys and without: core's redrive orders the former.
async fn d4_redrives_at_once_publish_each_letter_once(fixture: &Fixture) -> Checked {
    let service = fixture.fresh("service");
    let mut letters: Vec<_> = (0..20).map(|offset| letter(&service, offset)).collect();
    letters.iter_mut().skip(10).for_each(|letter| letter.record.key = None);
    fixture.bury(letters.clone()).await?;
    // A duplicate letter is published once.
    letters.push(letters[19].clone());
    let broker = Arc::new(Broker::default());
    let mut redriving = tokio::task::JoinSet::new();
    for by in ["ann", "bob", "cid"] {
        let (store, broker, letters) = (fixture.store()?, Arc::clone(&broker), letters.clone());
        redriving.spawn(async move { Redrive::new(&*store, &*broker, by).batch(&letters).await });
    }
    let answers = fixture.within("all redrives", redriving.join_all()).await?;
    same("records that were published", 20, broker.count())?;
    let done = answers.iter().flatten().filter(|outcome| outcome.is_redriven()).count();
    same("letters that were redriven", 20, done)?;
    same("letters that are open", 0, fixture.of(&service).await?.len())
}

async fn d4_a_letter_discarded_since_it_was_listed_is_not_published(fixture: &Fixture) -> Checked {
    let (service, ids) = fixture.buried(&[1, 2]).await?;
    let (listed, broker, store) = (fixture.of(&service).await?, Broker::default(), fixture.store()?);
    same("answers to resolve", vec![true], fixture.resolve(&ids[..1]).await?)?;
    let outcomes = fixture.within("a redrive", Redrive::new(&*store, &broker, "ann").batch(&listed)).await?;
    let expected = matches!(&outcomes[..], [RedriveOutcome::Closed, RedriveOutcome::Redriven]);
    holds(expected, "a closed letter and a redriven one", format!("{outcomes:?}"))?;
    same("records that were published", 1, broker.count())
}

/// A failed redrive ends its lease.
async fn d4_a_letter_that_the_broker_refuses_can_be_redriven_at_once(fixture: &Fixture) -> Checked {
    let (service, _) = fixture.buried(&[1]).await?;
    let (listed, store) = (fixture.of(&service).await?, fixture.store()?);
    let refusing = Broker { refuses: true, ..Broker::default() };
    let refused = fixture.within("a redrive", Redrive::new(&*store, &refusing, "ann").batch(&listed)).await?;
    match &refused[..] {
        [RedriveOutcome::Failed(error)] if error.kind() == ErrorKind::TooLarge => {}
        other => return broken("the broker's error", format!("{other:?}")),
    }
    let broker = Broker::default();
    let again = fixture.within("a redrive", Redrive::new(&*store, &broker, "bob").batch(&listed)).await?;
    holds(matches!(&again[..], [RedriveOutcome::Redriven]), "a letter that is redriven", format!("{again:?}"))?;
    same("letters that are open", 0, fixture.of(&service).await?.len())
}
