//! D1, D3, D4 and D5 with many letters: in one call, and over several pages.

use tidings_core::{DeadLetter, DeadLetterStore, Leased, LetterId, LetterLease, LetterQuery, LetterState, Resolution};

use super::fixture::{Fixture, LONG, held, letter, same_letter};
use crate::case::{Case, Checked, cases, same};

pub(super) const CASES: &[Case<dyn DeadLetterStore>] = cases![
    d3_more_than_a_page_of_letters_is_listed_by_pages,
    d3_a_page_begins_behind_a_letter_in_any_state,
    d3_pages_of_many_bytes_are_whole,
    d3_answers_come_in_the_order_of_the_call,
    d4_answers_come_in_the_order_of_the_call,
    d4_a_thousand_letters_are_leased_and_closed_in_one_call,
    d5_parked_letters_are_listed_by_pages_and_counted,
];

/// More letters than a query without a limit lists.
const MORE: u64 = LetterQuery::DEFAULT_PAGE as u64 + 100;
/// More letters than a chunk of a store may hold, and quick to check.
const MANY: u64 = 150;

/// Returns the offsets from 0 to `count`, in no order.
fn unordered(count: u64) -> Vec<u64> {
    // Both numbers have no common divisor with the counts here.
    (0..count).map(|n| (n * 97 + 13) % count).collect()
}

/// Returns every `step`th identity, from the `first` on.
fn each(ids: &[LetterId], first: usize, step: usize) -> Vec<LetterId> {
    ids.iter().skip(first).step_by(step).cloned().collect()
}

fn repeated<T: Copy>(pattern: &[T], count: usize) -> Vec<T> {
    pattern.iter().copied().cycle().take(count).collect()
}

async fn d3_more_than_a_page_of_letters_is_listed_by_pages(fixture: &Fixture) -> Checked {
    let order = unordered(MORE);
    let (service, ids) = fixture.buried(&order).await?;
    let mine = LetterQuery::default().with_service(&service);
    let page = LetterQuery::DEFAULT_PAGE;
    let first = fixture.list(&mine).await?;
    same("offsets of the first page", &order[..page], &first.iter().map(|l| l.record.offset).collect::<Vec<_>>())?;
    let next = mine.clone().with_after(ids[page - 1].clone());
    same("offsets of the next page", &order[page..], &fixture.offsets(&next).await?)?;
    let none = mine.clone().with_after(ids[ids.len() - 1].clone());
    same("offsets behind the last letter", 0, fixture.list(&none).await?.len())?;
    for limit in [ids.len(), 4_000_000_000, usize::MAX] {
        same("offsets of one long page", &order, &fixture.offsets(&mine.clone().with_limit(limit)).await?)?;
    }
    same("letters of a page of none", 0, fixture.list(&mine.clone().with_limit(0)).await?.len())?;
    let by_ids = mine.clone().with_ids(ids).with_limit(usize::MAX);
    same("offsets of letters selected by identity", &order, &fixture.offsets(&by_ids).await?)?;
    same("the count", MORE, fixture.count(&mine).await?)
}

/// An operator closes letters of a page before the next one is listed.
async fn d3_a_page_begins_behind_a_letter_in_any_state(fixture: &Fixture) -> Checked {
    let order = [5, 3, 9, 1, 7];
    let (service, ids) = fixture.buried(&order).await?;
    let behind =
        |letter: &LetterId| LetterQuery::default().with_service(&service).with_limit(2).with_after(letter.clone());
    same("answers to resolve", vec![true], fixture.resolve(&ids[1..2]).await?)?;
    same("the page behind a closed letter", vec![9, 1], fixture.offsets(&behind(&ids[1])).await?)?;
    fixture.bury(vec![letter(&service, 3)]).await?;
    same("the page behind it, buried again", vec![9, 1], fixture.offsets(&behind(&ids[1])).await?)?;
    fixture.lease(&ids[2..3], &LetterLease::new(LONG)).await?;
    same("the page behind a leased letter", vec![1, 7], fixture.offsets(&behind(&ids[2])).await?)?;
    if fixture.keeps(tidings_core::Clause::D5)? {
        let parked = Resolution::parked("ann", "later");
        same("answers to parking", vec![true], fixture.resolve_as(&ids[3..4], &parked).await?)?;
        same("the page behind a parked letter", vec![7], fixture.offsets(&behind(&ids[3])).await?)?;
    }
    // One that was purged, say: nothing may be left out.
    same("the page behind an unknown letter", vec![5, 9], fixture.offsets(&behind(&letter(&service, 99).id())).await?)
}

/// More bytes than a store may read at once.
async fn d3_pages_of_many_bytes_are_whole(fixture: &Fixture) -> Checked {
    let service = fixture.fresh("service");
    let large = |offset: u64| {
        let mut letter = letter(&service, offset);
        letter.record.value = Some(vec![offset as u8; 256 << 10].into());
        letter
    };
    let all: Vec<DeadLetter> = (0..20).map(large).collect();
    for part in all.chunks(3) {
        fixture.bury(part.to_vec()).await?;
    }
    let of = LetterQuery::default().with_service(&service);
    let named = of.clone().with_ids(all.iter().map(DeadLetter::id));
    for query in [of, named] {
        for limit in [usize::MAX, 18] {
            let listed = fixture.list(&query.clone().with_limit(limit)).await?;
            same("letters", all.len().min(limit), listed.len())?;
            all.iter().zip(&listed).try_for_each(|(letter, listed)| same_letter(letter, listed))?;
        }
        same("the count of letters", 20, fixture.count(&query).await?)?;
    }
    Ok(())
}

async fn d3_answers_come_in_the_order_of_the_call(fixture: &Fixture) -> Checked {
    let order = unordered(MANY);
    let service = fixture.fresh("service");
    let all: Vec<DeadLetter> = order.iter().map(|offset| letter(&service, *offset)).collect();
    let ids: Vec<LetterId> = all.iter().map(DeadLetter::id).collect();
    fixture.bury(all.into_iter().enumerate().filter(|(at, _)| at % 3 != 2).map(|(_, letter)| letter).collect()).await?;
    let closed = each(&ids, 1, 3);
    same("answers to resolve", vec![true; closed.len()], fixture.resolve(&closed).await?)?;
    let expected = repeated(&[true, false, false], ids.len());
    same("answers for open, closed and unknown letters by turns", expected, fixture.resolve(&ids).await?)?;
    same("letters that are open", 0, fixture.of(&service).await?.len())
}

async fn d4_answers_come_in_the_order_of_the_call(fixture: &Fixture) -> Checked {
    let order = unordered(MANY);
    let (_, ids) = fixture.buried(&order).await?;
    let (one, other) = (LetterLease::new(LONG), LetterLease::new(LONG));
    let (closed, leased) = (each(&ids, 1, 3), each(&ids, 2, 3));
    same("answers to resolve", vec![true; closed.len()], fixture.resolve(&closed).await?)?;
    same("a lease", vec![Leased::Granted; leased.len()], fixture.lease(&leased, &one).await?)?;
    for (at, answer) in fixture.lease(&ids, &other).await?.into_iter().enumerate() {
        match at % 3 {
            0 => same("a free letter's answer", Leased::Granted, answer)?,
            1 => same("a closed letter's answer", Leased::Closed, answer)?,
            _ => held(&[answer], LONG)?,
        }
    }
    let expected = repeated(&[true, false, false], ids.len());
    let came = fixture.resolve_leased(&ids, &other).await?;
    same("closing one's own, closed and another's letters by turns", expected, came)?;
    fixture.end_lease(&ids, &one).await?;
    let expected = repeated(&[false, false, true], ids.len());
    same("closing what was given back", expected, fixture.resolve(&ids).await?)
}

async fn d4_a_thousand_letters_are_leased_and_closed_in_one_call(fixture: &Fixture) -> Checked {
    let (service, ids) = fixture.buried(&unordered(MORE)).await?;
    let (half, all) = (ids.len() / 2, ids.len());
    let (one, other) = (LetterLease::new(LONG), LetterLease::new(LONG));
    same("a lease", vec![Leased::Granted; all], fixture.lease(&ids, &one).await?)?;
    held(&fixture.lease(&ids, &other).await?, LONG)?;
    fixture.end_lease(&ids[half..], &one).await?;
    let expected: Vec<bool> = (0..all).map(|at| at >= half).collect();
    same("closing what was given back", expected, fixture.resolve(&ids).await?)?;
    same("letters that are open", half as u64, fixture.count(&LetterQuery::default().with_service(&service)).await?)?;
    let expected: Vec<bool> = (0..all).map(|at| at < half).collect();
    same("closing by the lease", expected, fixture.resolve_leased(&ids, &one).await?)?;
    same("letters that are open", 0, fixture.of(&service).await?.len())
}

/// In the order of burying, not in that of parking.
async fn d5_parked_letters_are_listed_by_pages_and_counted(fixture: &Fixture) -> Checked {
    let order = [5, 3, 9, 1, 7];
    let (service, ids) = fixture.buried(&order).await?;
    for at in [4, 0, 3] {
        let parked = Resolution::parked("ann", "later");
        same("answers to parking", vec![true], fixture.resolve_as(&ids[at..=at], &parked).await?)?;
    }
    let parked = LetterQuery::default().with_service(&service).with_state(LetterState::Parked).with_limit(2);
    same("the first page", vec![5, 1], fixture.offsets(&parked).await?)?;
    let next = parked.clone().with_after(ids[3].clone());
    same("the second page", vec![7], fixture.offsets(&next).await?)?;
    same(
        "the page behind an open letter",
        vec![1, 7],
        fixture.offsets(&parked.clone().with_after(ids[1].clone())).await?,
    )?;
    same("the count of parked letters", 3, fixture.count(&parked).await?)?;
    let open = LetterQuery::default().with_service(&service);
    same("the count of open letters", 2, fixture.count(&open).await?)
}
