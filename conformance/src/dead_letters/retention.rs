//! D3, D5 and D6 in a store that deletes closed letters when they are older than its retention.

use tidings_core::{DeadLetterStore, LetterState, Resolution};

use super::fixture::{Fixture, letter};
use crate::case::{Case, Checked, cases, same};
use crate::hooks::Hook;

pub(super) const CASES: &[Case<dyn DeadLetterStore>] = cases![
    d3_a_closed_letter_is_remembered_for_the_retention[Retention],
    d5_open_and_parked_letters_outlive_it[Retention]
];

/// Number of steps of a retention: a store may delete in parts.
const STEPS: u32 = 8;

/// A letter is not a repeat once the first one is deleted: the service may bury it again.
async fn d3_a_closed_letter_is_remembered_for_the_retention(fixture: &Fixture) -> Checked {
    let part = fixture.pace.retention / STEPS;
    drop(fixture.another(Hook::Retention).await?);
    let (service, ids) = fixture.buried(&[1, 2, 3]).await?;
    same("answers to resolve", vec![true; 2], fixture.resolve(&ids[..2]).await?)?;
    for _ in 0..STEPS - 1 {
        fixture.pass(part).await?;
        fixture.bury(vec![letter(&service, 1), letter(&service, 2)]).await?;
        same("letters that are open", 1, fixture.of(&service).await?.len())?;
    }
    for _ in 0..STEPS * 2 {
        fixture.pass(part).await?;
        fixture.buried(&[7]).await?;
    }
    fixture
        .eventually("closed letters are forgotten", || async {
            fixture.buried(&[7]).await?;
            fixture.bury(vec![letter(&service, 1), letter(&service, 2)]).await?;
            Ok((fixture.of(&service).await?.len() == 3).then_some(()))
        })
        .await?;
    same("closing letters that came again", vec![true; 3], fixture.resolve(&ids).await?)
}

async fn d5_open_and_parked_letters_outlive_it(fixture: &Fixture) -> Checked {
    let part = fixture.pace.retention / STEPS;
    drop(fixture.another(Hook::Retention).await?);
    let (service, ids) = fixture.buried(&[1, 2]).await?;
    let parked = Resolution::parked("ann", "until later");
    same("parking", vec![true], fixture.resolve_as(&ids[..1], &parked).await?)?;
    for n in 0..STEPS * 3 {
        fixture.pass(part).await?;
        let (_, others) = fixture.buried(&[u64::from(n)]).await?;
        same("closing another one", vec![true], fixture.resolve(&others).await?)?;
    }
    let open: Vec<u64> = fixture.of(&service).await?.iter().map(|letter| letter.record.offset).collect();
    same("letters that are open", vec![2], open)?;
    same("letters that are parked", vec![1], fixture.offsets_in(&service, LetterState::Parked).await?)
}
