//! D1, D3 and D5 in a full store: it refuses letters, and drops none in favour of another.

use tidings_core::{DeadLetter, DeadLetterStore, Error, LetterState, Name, Resolution};

use super::fixture::{Fixture, letter};
use crate::case::{Case, Checked, cases, holds, same};
use crate::hooks::Hook;

pub(super) const CASES: &[Case<dyn DeadLetterStore>] = cases![
    d1_a_full_store_refuses_letters_until_some_are_closed[MaxLetters],
    d3_a_full_store_takes_a_repeat[MaxLetters],
    d5_a_parked_letter_takes_room[MaxLetters],
    d1_letters_that_are_closed_take_no_room[MaxLetters],
];

/// Opens a small store and fills it for a new service; returns the service and the number of letters.
async fn filled(fixture: &Fixture) -> Checked<(Name, u64)> {
    let (service, count) = (fixture.fresh("service"), fixture.pace.max_letters as u64);
    drop(fixture.another(Hook::MaxLetters).await?);
    fixture.bury((0..count).map(|offset| letter(&service, offset)).collect()).await?;
    Ok((service, count))
}

/// Buries letters, and returns which are accepted; refusals must be retriable.
async fn taken(fixture: &Fixture, letters: Vec<DeadLetter>) -> Checked<Vec<bool>> {
    let (store, count) = (fixture.store()?, letters.len());
    let answers = fixture.within("answers to bury", store.bury(letters)).await?;
    same("answers to bury", count, answers.len())?;
    let refusals: Vec<&Error> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    holds(refusals.iter().all(|error| error.is_retryable()), "retriable refusals", &refusals)?;
    Ok(answers.iter().map(Result::is_ok).collect())
}

async fn d1_a_full_store_refuses_letters_until_some_are_closed(fixture: &Fixture) -> Checked {
    let (service, count) = filled(fixture).await?;
    let more = |from: u64, to: u64| (from..to).map(|offset| letter(&service, offset)).collect::<Vec<_>>();
    same("letters that a full store accepts", vec![false; 2], taken(fixture, more(count, count + 2)).await?)?;
    let open = |offsets: Vec<u64>| async {
        let listed: Vec<u64> = fixture.of(&service).await?.iter().map(|letter| letter.record.offset).collect();
        same("letters that are open", offsets, listed)
    };
    open((0..count).collect()).await?;
    same(
        "answers to resolve",
        vec![true; 2],
        fixture.resolve(&[letter(&service, 0).id(), letter(&service, 1).id()]).await?,
    )?;
    let answers = taken(fixture, more(count, count + 3)).await?;
    same("letters that a store with room for two accepts", vec![true, true, false], answers)?;
    open((2..count + 2).collect()).await
}

/// A service buries a letter again if it did not get the answer; the store has it already.
async fn d3_a_full_store_takes_a_repeat(fixture: &Fixture) -> Checked {
    let (service, count) = filled(fixture).await?;
    let letters = vec![letter(&service, 0), letter(&service, count), letter(&service, 1)];
    same("a repeat, a new one and a repeat", vec![true, false, true], taken(fixture, letters).await?)
}

async fn d5_a_parked_letter_takes_room(fixture: &Fixture) -> Checked {
    let (service, count) = filled(fixture).await?;
    let (first, parked) = ([letter(&service, 0).id()], Resolution::parked("ann", "until later"));
    same("parking", vec![true], fixture.resolve_as(&first, &parked).await?)?;
    same("a new letter", vec![false], taken(fixture, vec![letter(&service, count)]).await?)?;
    same("letters that are parked", vec![0], fixture.offsets_in(&service, LetterState::Parked).await?)?;
    same("closing it", vec![true], fixture.resolve(&first).await?)?;
    same("a new letter", vec![true], taken(fixture, vec![letter(&service, count)]).await?)
}

/// Buries and closes several times the limit.
async fn d1_letters_that_are_closed_take_no_room(fixture: &Fixture) -> Checked {
    let (service, count) = (fixture.fresh("service"), fixture.pace.max_letters as u64);
    drop(fixture.another(Hook::MaxLetters).await?);
    for round in 0..4 {
        let letters: Vec<_> = (0..count).map(|n| letter(&service, round * count + n)).collect();
        let ids: Vec<_> = letters.iter().map(DeadLetter::id).collect();
        same("letters that are taken", vec![true; letters.len()], taken(fixture, letters.clone()).await?)?;
        same("closing them", vec![true; ids.len()], fixture.resolve(&ids).await?)?;
        fixture.bury(letters).await?;
        same("letters that are open", 0, fixture.of(&service).await?.len())?;
    }
    Ok(())
}
