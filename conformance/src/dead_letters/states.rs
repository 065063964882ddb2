//! D5: parked. D6: closed letters stay listed.

use std::time::Duration;

use tidings_core::{DeadLetter, LetterId, LetterLease, LetterQuery, LetterState, Name, Resolution, ResolutionKind};

use super::cases::{Rig, letter, redriven};
use crate::case::{Case, Checked, broken, cases, same};

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

impl Rig {
    /// Returns the offsets of the letters of a service in this state, and their resolutions.
    async fn in_state(&self, service: &Name, state: LetterState) -> Checked<Vec<(u64, Option<Resolution>)>> {
        let listed = self.list(&LetterQuery::default().with_service(service).with_state(state)).await?;
        Ok(listed.into_iter().map(|letter| (letter.record.offset, letter.resolution)).collect())
    }

    async fn offsets_in(&self, service: &Name, state: LetterState) -> Checked<Vec<u64>> {
        Ok(self.in_state(service, state).await?.into_iter().map(|(offset, _)| offset).collect())
    }

    async fn resolve_as(&self, letters: &[LetterId], resolution: &Resolution) -> Checked<Vec<bool>> {
        let store = self.store()?;
        Ok(self.within("resolve", store.resolve(letters, resolution)).await??)
    }

    async fn two(&self) -> Checked<(Name, Vec<LetterId>)> {
        let service = self.fresh("service");
        let letters = [letter(&service, 1), letter(&service, 2)];
        let ids = letters.iter().map(DeadLetter::id).collect();
        self.bury(letters.to_vec()).await?;
        Ok((service, ids))
    }
}

/// Compares a resolution without its time, which may be the store's.
fn same_resolution(expected: &Resolution, found: Option<&Resolution>) -> Checked {
    match found {
        Some(found) => {
            same("the kind", expected.kind, found.kind)?;
            same("who decided", &expected.by, &found.by)?;
            same("the reason", &expected.reason, &found.reason)
        }
        None => broken("a resolution", "none"),
    }
}

async fn d5_a_parked_letter_is_listed_among_the_parked_alone(rig: &Rig) -> Checked {
    let (service, ids) = rig.two().await?;
    same("answers to parking", vec![true], rig.resolve_as(&ids[..1], &parked()).await?)?;
    same("open letters", vec![2], rig.offsets_in(&service, LetterState::Open).await?)?;
    let listed = rig.in_state(&service, LetterState::Parked).await?;
    same("parked letters", vec![1], listed.iter().map(|(offset, _)| *offset).collect::<Vec<_>>())?;
    same_resolution(&parked(), listed[0].1.as_ref())
}

async fn d5_a_letter_is_parked_once_and_not_when_closed_or_leased(rig: &Rig) -> Checked {
    let (service, ids) = rig.two().await?;
    let lease = LetterLease::new(Duration::from_secs(600));
    same("answers to parking", vec![true], rig.resolve_as(&ids[..1], &parked()).await?)?;
    same("answers to parking again", vec![false], rig.resolve_as(&ids[..1], &parked()).await?)?;
    rig.lease(&ids[1..], &lease).await?;
    same("answers to parking a leased letter", vec![false], rig.resolve_as(&ids[1..], &parked()).await?)?;
    same("closing by the lease", vec![true], rig.resolve_leased(&ids[1..], &lease).await?)?;
    same("answers to parking a closed letter", vec![false], rig.resolve_as(&ids[1..], &parked()).await?)?;
    same("parked letters", vec![1], rig.offsets_in(&service, LetterState::Parked).await?)
}

async fn d5_a_parked_letter_that_is_buried_again_stays_parked(rig: &Rig) -> Checked {
    let (service, ids) = rig.two().await?;
    rig.resolve_as(&ids, &parked()).await?;
    rig.bury(vec![letter(&service, 1)]).await?;
    same("open letters", 0, rig.of(&service).await?.len())?;
    same("parked letters", vec![1, 2], rig.offsets_in(&service, LetterState::Parked).await?)
}

async fn d5_a_parked_letter_can_be_discarded_and_redriven(rig: &Rig) -> Checked {
    let (service, ids) = rig.two().await?;
    rig.resolve_as(&ids, &parked()).await?;
    same("answers to discarding", vec![true], rig.resolve_as(&ids[..1], &Resolution::discarded("ann", "old")).await?)?;
    let lease = LetterLease::new(Duration::from_secs(600));
    let leased = rig.lease(&ids, &lease).await?;
    same("leases", vec![tidings_core::Leased::Closed, tidings_core::Leased::Granted], leased)?;
    same("closing by the lease", vec![true], rig.resolve_leased(&ids[1..], &lease).await?)?;
    same("parked letters", 0, rig.offsets_in(&service, LetterState::Parked).await?.len())
}

async fn d6_a_closed_letter_is_listed_with_its_resolution(rig: &Rig) -> Checked {
    let (service, ids) = rig.two().await?;
    let discarded = Resolution::discarded("ann", "from a test client");
    rig.resolve_as(&ids[..1], &discarded).await?;
    same("closed letters", vec![1], rig.offsets_in(&service, LetterState::Closed).await?)?;
    rig.resolve_as(&ids[1..], &redriven()).await?;
    // Also one that was buried again.
    rig.bury(vec![letter(&service, 1)]).await?;
    let mut closed = rig.in_state(&service, LetterState::Closed).await?;
    closed.sort_by_key(|(offset, _)| *offset);
    same("closed letters", vec![1, 2], closed.iter().map(|(offset, _)| *offset).collect::<Vec<_>>())?;
    same_resolution(&discarded, closed[0].1.as_ref())?;
    same("the kind", Some(ResolutionKind::Redriven), closed[1].1.as_ref().map(|resolution| resolution.kind))?;
    same("letters in any state", 2, rig.offsets_in(&service, LetterState::Any).await?.len())
}

async fn restart_parked_letters_survive(rig: &Rig) -> Checked {
    let (service, ids) = rig.two().await?;
    if !rig.keeps(tidings_core::Clause::D5)? {
        return Ok(());
    }
    rig.resolve_as(&ids[..1], &parked()).await?;
    drop(rig.reopen(rig.store()?).await?);
    same("open letters after a restart", vec![2], rig.offsets_in(&service, LetterState::Open).await?)?;
    let listed = rig.in_state(&service, LetterState::Parked).await?;
    same_resolution(&parked(), listed.first().and_then(|(_, resolution)| resolution.as_ref()))
}
