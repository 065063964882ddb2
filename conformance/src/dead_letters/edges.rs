//! D1, D3 and D4 at the edges: outages, recreated topics, letters that must not come back, and the ends of leases.

use tidings_core::{
    DeadLetter, DeadLetterStore, ErrorKind, Leased, LetterLease, LetterQuery, Resolution, Result, Timestamp,
};

use super::fixture::{Fixture, LONG, held, letter, redriven, same_letter};
use crate::case::{Case, Checked, broken, cases, granted, holds, same};

pub(super) const CASES: &[Case<dyn DeadLetterStore>] = cases![
    d1_an_outage_is_reported_by_every_call[Outage],
    d3_a_letter_of_a_recreated_topic_is_no_repeat,
    d3_a_discarded_letter_stays_discarded,
    d4_a_lease_is_renewed_by_leasing_again,
    d4_a_lease_closes_only_what_it_has,
    d4_ending_an_outlived_lease_leaves_the_next_one,
    d4_burying_again_ends_no_lease,
    d4_twins_within_one_call_are_one_letter,
    d4_noting_a_refusal_changes_nothing,
    restart_a_discarded_letter_stays_discarded[Reopen],
];

fn discarded() -> Resolution {
    Resolution::discarded("ann", "from a test client")
}

/// A service would start without a place for its letters. An empty list would be taken for no letters, and `Closed` for
/// letters that are redriven.
async fn d1_an_outage_is_reported_by_every_call(fixture: &Fixture) -> Checked {
    let (service, ids) = fixture.buried(&[1]).await?;
    let (store, query, lease) =
        (fixture.store()?, LetterQuery::default().with_service(&service), LetterLease::new(LONG));
    fixture.outage(true).await?;
    let reported = async {
        is_retryable("check", fixture.within("check", store.check(&["conformance".into()])).await?)?;
        is_retryable("list", fixture.within("list", store.list(&query)).await?)?;
        is_retryable("count", fixture.within("count", store.count(&query)).await?)?;
        is_retryable("resolve", fixture.within("resolve", store.resolve(&ids, &redriven())).await?)?;
        is_retryable("lease", fixture.within("lease", store.lease(&ids, &lease)).await?)?;
        let closed = fixture.within("resolve_leased", store.resolve_leased(&ids, &lease, &redriven())).await?;
        is_retryable("resolve_leased", closed)?;
        is_retryable("end_lease", fixture.within("end_lease", store.end_lease(&ids, &lease)).await?)
    }
    .await;
    fixture.outage(false).await?;
    reported?;
    let open = fixture.eventually("a list after the outage", || async { Ok(store.list(&query).await.ok()) });
    same("letters that are open, as before", 1, open.await?.len())
}

fn is_retryable<T: std::fmt::Debug>(what: &str, answer: Result<T>) -> Checked {
    match answer {
        Err(error) if error.is_retryable() => Ok(()),
        Err(error) => broken(format!("{what}: a retryable error"), format!("{} ({})", error.report(), error.kind())),
        Ok(answer) => broken(format!("{what}: a retryable error"), format!("Ok({answer:?})")),
    }
}

/// Its offsets begin again: another record is at the place of the old one.
async fn d3_a_letter_of_a_recreated_topic_is_no_repeat(fixture: &Fixture) -> Checked {
    let (service, ids) = fixture.buried(&[1]).await?;
    let mut new = letter(&service, 1);
    new.record.timestamp = Timestamp::from_millis(1_700_000_999_999);
    new.record.value = Some("of the new topic".into());
    let store = fixture.store()?;
    let asked = vec![letter(&service, 2), new.clone(), letter(&service, 3)];
    let mut answers = fixture.within("answers to bury", store.bury(asked)).await?;
    same("answers to bury", 3, answers.len())?;
    if let Err(error) = answers.remove(1) {
        same("the kind of refusal while the old letter is open", ErrorKind::Conflict, error.kind())?;
    }
    answers.into_iter().try_for_each(|answer| granted("bury its neighbours", answer))?;
    let listed = fixture.of(&service).await?;
    same("letters", vec![1, 2, 3], listed.iter().map(|letter| letter.record.offset).collect())?;
    same_letter(&letter(&service, 1), &listed[0])?;
    same("closing the old letter", vec![true], fixture.resolve(&ids).await?)?;
    fixture.bury(vec![new.clone()]).await?;
    let listed = fixture.list(&LetterQuery::default().with_service(&service).with_ids(ids.clone())).await?;
    match &listed[..] {
        [came] => same_letter(&new, came)?,
        other => return broken("the new letter", format!("{} letters", other.len())),
    }
    same("closing the new letter", vec![true, false], fixture.resolve(&[ids[0].clone(), ids[0].clone()]).await?)?;
    same("letters that are open", 2, fixture.of(&service).await?.len())?;
    // Once more, with letters that were buried after it.
    new.record.timestamp = Timestamp::from_millis(1_700_001_999_999);
    fixture.bury(vec![new.clone()]).await?;
    same("closing the third letter", vec![true], fixture.resolve(&ids).await?)?;
    fixture.bury(vec![letter(&service, 4), new]).await?;
    let open = fixture.of(&service).await?.iter().map(|letter| letter.record.offset).collect();
    same("letters that are open", vec![2, 3, 4], open)
}

/// Burying it again, a late redrive and time do not open it.
async fn d3_a_discarded_letter_stays_discarded(fixture: &Fixture) -> Checked {
    let (service, ids) = fixture.buried(&[1, 2]).await?;
    let lease = LetterLease::new(fixture.pace.lifetime);
    same("a lease", vec![Leased::Granted], fixture.lease(&ids[..1], &lease).await?)?;
    fixture.end_lease(&ids[..1], &lease).await?;
    same("answers to discarding", vec![true], fixture.resolve_as(&ids[..1], &discarded()).await?)?;
    fixture.bury(vec![letter(&service, 1), letter(&service, 3)]).await?;
    fixture.end_lease(&ids[..1], &lease).await?;
    same("leasing it", vec![Leased::Closed], fixture.lease(&ids[..1], &LetterLease::new(LONG)).await?)?;
    same("closing it by its old lease", vec![false], fixture.resolve_leased(&ids[..1], &lease).await?)?;
    fixture.outlive().await?;
    fixture.bury(vec![letter(&service, 1)]).await?;
    same("letters that are open", vec![2, 3], fixture.offsets(&LetterQuery::default().with_service(&service)).await?)?;
    same("discarding it again", vec![false], fixture.resolve_as(&ids[..1], &discarded()).await?)
}

/// A redrive that publishes slowly keeps its letters.
async fn d4_a_lease_is_renewed_by_leasing_again(fixture: &Fixture) -> Checked {
    let (_, ids) = fixture.buried(&[1]).await?;
    let lifetime = fixture.pace.lifetime;
    let (one, other) = (LetterLease::new(lifetime * 3), LetterLease::new(LONG));
    same("a lease", vec![Leased::Granted], fixture.lease(&ids, &one).await?)?;
    fixture.pass(lifetime * 2).await?;
    same("the same lease again", vec![Leased::Granted], fixture.lease(&ids, &one).await?)?;
    fixture.pass(lifetime * 2).await?;
    held(&fixture.lease(&ids, &other).await?, lifetime)?;
    same("resolving a leased letter", vec![false], fixture.resolve(&ids).await?)?;
    // And asking has not made it longer.
    fixture.pass(lifetime * 2).await?;
    same("a lease of an outlived one's", vec![Leased::Granted], fixture.lease(&ids, &other).await?)
}

/// Not a letter that is free, nor one that it has given back.
async fn d4_a_lease_closes_only_what_it_has(fixture: &Fixture) -> Checked {
    let (service, ids) = fixture.buried(&[1, 2]).await?;
    let one = LetterLease::new(LONG);
    same("closing by a lease of nothing", vec![false; 2], fixture.resolve_leased(&ids, &one).await?)?;
    same("a lease", vec![Leased::Granted], fixture.lease(&ids[..1], &one).await?)?;
    same("closing a leased letter and a free one", vec![true, false], fixture.resolve_leased(&ids, &one).await?)?;
    same("a lease", vec![Leased::Granted], fixture.lease(&ids[1..], &one).await?)?;
    fixture.end_lease(&ids[1..], &one).await?;
    same("closing what was given back", vec![false], fixture.resolve_leased(&ids[1..], &one).await?)?;
    same("letters that are open", 1, fixture.of(&service).await?.len())
}

/// Of a redrive that was only slow.
async fn d4_ending_an_outlived_lease_leaves_the_next_one(fixture: &Fixture) -> Checked {
    let (_, ids) = fixture.buried(&[1]).await?;
    let (old, new, third) = (LetterLease::new(fixture.pace.lifetime), LetterLease::new(LONG), LetterLease::new(LONG));
    same("a lease", vec![Leased::Granted], fixture.lease(&ids, &old).await?)?;
    fixture.outlive().await?;
    same("a lease of an outlived one's", vec![Leased::Granted], fixture.lease(&ids, &new).await?)?;
    fixture.end_lease(&ids, &old).await?;
    held(&fixture.lease(&ids, &old).await?, LONG)?;
    held(&fixture.lease(&ids, &third).await?, LONG)?;
    same("closing by the new lease", vec![true], fixture.resolve_leased(&ids, &new).await?)
}

/// A service that crashed before its commit buries the letter again, under a redrive.
async fn d4_burying_again_ends_no_lease(fixture: &Fixture) -> Checked {
    let (service, ids) = fixture.buried(&[1]).await?;
    let (one, other) = (LetterLease::new(LONG), LetterLease::new(LONG));
    same("a lease", vec![Leased::Granted], fixture.lease(&ids, &one).await?)?;
    fixture.bury(vec![letter(&service, 1)]).await?;
    held(&fixture.lease(&ids, &other).await?, LONG)?;
    same("resolving a leased letter", vec![false], fixture.resolve(&ids).await?)?;
    same("closing by the lease", vec![true], fixture.resolve_leased(&ids, &one).await?)?;
    same("letters that are open", 0, fixture.of(&service).await?.len())
}

async fn d4_twins_within_one_call_are_one_letter(fixture: &Fixture) -> Checked {
    let (_, ids) = fixture.buried(&[1, 2]).await?;
    let twins = [ids[0].clone(), ids[1].clone(), ids[0].clone()];
    let (one, other) = (LetterLease::new(LONG), LetterLease::new(LONG));
    same("a lease of twins", vec![Leased::Granted; 3], fixture.lease(&twins, &one).await?)?;
    held(&fixture.lease(&twins, &other).await?, LONG)?;
    same("closing twins", vec![true, true, false], fixture.resolve_leased(&twins, &one).await?)
}

/// It is for the audit trail: the letter stays, and so does its lease.
async fn d4_noting_a_refusal_changes_nothing(fixture: &Fixture) -> Checked {
    let (service, ids) = fixture.buried(&[1, 2]).await?;
    let (one, other, store) = (LetterLease::new(LONG), LetterLease::new(LONG), fixture.store()?);
    same("a lease", vec![Leased::Granted], fixture.lease(&ids[..1], &one).await?)?;
    let mut refused: Vec<_> = ids.iter().map(|id| (id.clone(), "too large\0 \\".to_owned())).collect();
    refused.push((letter(&service, 99).id(), String::new()));
    for refused in [&refused[..], &[]] {
        granted("note_refused", fixture.within("note_refused", store.note_refused(refused, "ann\0")).await?)?;
    }
    let open = fixture.of(&service).await?;
    same("open letters", vec![1, 2], open.iter().map(|letter| letter.record.offset).collect())?;
    holds(open.iter().all(|letter| letter.resolution.is_none()), "no resolution", format!("{open:?}"))?;
    held(&fixture.lease(&ids[..1], &other).await?, LONG)?;
    same("leasing the other", vec![Leased::Granted], fixture.lease(&ids[1..], &other).await?)
}

async fn restart_a_discarded_letter_stays_discarded(fixture: &Fixture) -> Checked {
    let (service, ids) = fixture.buried(&[1, 2]).await?;
    same("answers to discarding", vec![true], fixture.resolve_as(&ids[..1], &discarded()).await?)?;
    drop(fixture.reopen(fixture.store()?).await?);
    fixture.bury(vec![letter(&service, 1)]).await?;
    let open: Vec<_> = fixture.of(&service).await?.iter().map(DeadLetter::id).collect();
    same("letters that are open after a restart", &ids[1..], &open[..])?;
    same("discarding it again", vec![false], fixture.resolve_as(&ids[..1], &discarded()).await?)?;
    same("leasing it", vec![Leased::Closed], fixture.lease(&ids[..1], &LetterLease::new(LONG)).await?)
}
