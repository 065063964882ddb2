//! D5: parked. D6: closed letters stay listed.

use tidings_core::{LetterLease, LetterState, Resolution, ResolutionKind};

use super::fixture::{Fixture, LONG, letter, redriven, same_resolution};
use crate::case::{Case, Checked, cases, same};

pub(super) const CASES: &[Case<dyn tidings_core::DeadLetterStore>] = cases![
    d5_a_parked_letter_is_listed_among_the_parked_alone,
    d5_a_letter_is_parked_once_and_not_when_closed_or_leased,
    d5_a_parked_letter_that_is_buried_again_stays_parked,
    d5_a_parked_letter_can_be_discarded_and_redriven,
    d6_a_closed_letter_is_listed_with_its_resolution,
    restart_parked_letters_survive[Reopen],
];

fn parked() -> Resolution {
    Resolution::parked("ann", "until größe is known\n")
}

async fn d5_a_parked_letter_is_listed_among_the_parked_alone(fixture: &Fixture) -> Checked {
    let (service, ids) = fixture.buried(&[1, 2]).await?;
    same("answers to parking", vec![true], fixture.resolve_as(&ids[..1], &parked()).await?)?;
    same("open letters", vec![2], fixture.offsets_in(&service, LetterState::Open).await?)?;
    let listed = fixture.in_state(&service, LetterState::Parked).await?;
    same("parked letters", vec![1], listed.iter().map(|(offset, _)| *offset).collect::<Vec<_>>())?;
    same_resolution(&parked(), listed[0].1.as_ref())
}

async fn d5_a_letter_is_parked_once_and_not_when_closed_or_leased(fixture: &Fixture) -> Checked {
    let (service, ids) = fixture.buried(&[1, 2]).await?;
    let lease = LetterLease::new(LONG);
    same("answers to parking", vec![true], fixture.resolve_as(&ids[..1], &parked()).await?)?;
    same("answers to parking again", vec![false], fixture.resolve_as(&ids[..1], &parked()).await?)?;
    fixture.lease(&ids[1..], &lease).await?;
    same("answers to parking a leased letter", vec![false], fixture.resolve_as(&ids[1..], &parked()).await?)?;
    same("closing by the lease", vec![true], fixture.resolve_leased(&ids[1..], &lease).await?)?;
    same("answers to parking a closed letter", vec![false], fixture.resolve_as(&ids[1..], &parked()).await?)?;
    same("parked letters", vec![1], fixture.offsets_in(&service, LetterState::Parked).await?)
}

async fn d5_a_parked_letter_that_is_buried_again_stays_parked(fixture: &Fixture) -> Checked {
    let (service, ids) = fixture.buried(&[1, 2]).await?;
    fixture.resolve_as(&ids, &parked()).await?;
    fixture.bury(vec![letter(&service, 1)]).await?;
    same("open letters", 0, fixture.of(&service).await?.len())?;
    same("parked letters", vec![1, 2], fixture.offsets_in(&service, LetterState::Parked).await?)
}

async fn d5_a_parked_letter_can_be_discarded_and_redriven(fixture: &Fixture) -> Checked {
    let (service, ids) = fixture.buried(&[1, 2]).await?;
    fixture.resolve_as(&ids, &parked()).await?;
    same(
        "answers to discarding",
        vec![true],
        fixture.resolve_as(&ids[..1], &Resolution::discarded("ann", "old")).await?,
    )?;
    let lease = LetterLease::new(LONG);
    let leased = fixture.lease(&ids, &lease).await?;
    same("leases", vec![tidings_core::Leased::Closed, tidings_core::Leased::Granted], leased)?;
    same("closing by the lease", vec![true], fixture.resolve_leased(&ids[1..], &lease).await?)?;
    same("parked letters", 0, fixture.offsets_in(&service, LetterState::Parked).await?.len())
}

async fn d6_a_closed_letter_is_listed_with_its_resolution(fixture: &Fixture) -> Checked {
    let (service, ids) = fixture.buried(&[1, 2]).await?;
    let discarded = Resolution::discarded("ann", "from a test client");
    fixture.resolve_as(&ids[..1], &discarded).await?;
    same("closed letters", vec![1], fixture.offsets_in(&service, LetterState::Closed).await?)?;
    fixture.resolve_as(&ids[1..], &redriven()).await?;
    // Also one that was buried again.
    fixture.bury(vec![letter(&service, 1)]).await?;
    let mut closed = fixture.in_state(&service, LetterState::Closed).await?;
    closed.sort_by_key(|(offset, _)| *offset);
    same("closed letters", vec![1, 2], closed.iter().map(|(offset, _)| *offset).collect::<Vec<_>>())?;
    same_resolution(&discarded, closed[0].1.as_ref())?;
    same("the kind", Some(ResolutionKind::Redriven), closed[1].1.as_ref().map(|resolution| resolution.kind))?;
    same("letters in any state", 2, fixture.offsets_in(&service, LetterState::Any).await?.len())
}

async fn restart_parked_letters_survive(fixture: &Fixture) -> Checked {
    let (service, ids) = fixture.buried(&[1, 2]).await?;
    if !fixture.keeps(tidings_core::Clause::D5)? {
        return Ok(());
    }
    fixture.resolve_as(&ids[..1], &parked()).await?;
    drop(fixture.reopen(fixture.store()?).await?);
    same("open letters after a restart", vec![2], fixture.offsets_in(&service, LetterState::Open).await?)?;
    let listed = fixture.in_state(&service, LetterState::Parked).await?;
    same_resolution(&parked(), listed.first().and_then(|(_, resolution)| resolution.as_ref()))
}
