//! D2: what a letter keeps, of any size, sign and form.

use tidings_core::{
    Clause, DeadLetterStore, ErrorKind, Header, Headers, LetterQuery, LetterState, Resolution, Timestamp,
};

use super::fixture::{Fixture, kept, letter, same_letter, same_resolution};
use crate::case::{Case, Checked, broken, cases, granted, holds, same};

pub(super) const CASES: &[Case<dyn DeadLetterStore>] = cases![
    d2_keys_and_headers_of_any_size_are_kept,
    d2_a_value_of_more_than_two_mebibytes_is_kept_or_refused,
    d2_null_and_empty_are_apart,
    d2_times_before_1970_are_kept_and_selected,
    d2_causes_of_any_form_are_kept,
    d3_the_writer_of_a_letter_does_not_resolve_it,
    d5_a_parked_letters_reason_is_kept_in_full,
    d6_a_closed_letter_is_kept_in_full,
];

async fn d2_keys_and_headers_of_any_size_are_kept(fixture: &Fixture) -> Checked {
    for size in [256, 257, 70_000] {
        kept(fixture, |letter| letter.record.key = Some(vec![0xfe; size].into())).await?;
    }
    // More than a hundred, and more than 65,535 bytes in one.
    for count in [101, 300] {
        let headers = (0..count).map(|n| Header::new(format!("header {}", n % 100), n.to_string()));
        kept(fixture, |letter| letter.record.headers = headers.collect()).await?;
    }
    kept(fixture, |letter| {
        letter.record.headers = Headers::new().with("n".repeat(300), "v").with("value", vec![7; 70_000]);
    })
    .await
}

/// A letter that is cut cannot be redriven; one that is refused holds its partition, and an operator is called.
async fn d2_a_value_of_more_than_two_mebibytes_is_kept_or_refused(fixture: &Fixture) -> Checked {
    let service = fixture.fresh("service");
    let mut large = letter(&service, 1);
    let value: Vec<u8> = (0..(2_u32 << 20) + 1).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    large.record.value = Some(value.into());
    let store = fixture.store()?;
    let asked = vec![letter(&service, 0), large.clone(), letter(&service, 2)];
    let mut answers = fixture.within("answers to bury", store.bury(asked)).await?;
    same("answers to bury", 3, answers.len())?;
    granted("bury the letter behind it", answers.remove(2))?;
    let listed = fixture.of(&service).await?;
    match answers.remove(1) {
        Ok(()) => {
            same("letters", 3, listed.len())?;
            same_letter(&large, &listed[1])?;
        }
        Err(error) => {
            same("the kind of refusal", ErrorKind::TooLarge, error.kind())?;
            same("letters", vec![0, 2], listed.iter().map(|letter| letter.record.offset).collect())?;
        }
    }
    granted("bury the letter before it", answers.remove(0))
}

async fn d2_null_and_empty_are_apart(fixture: &Fixture) -> Checked {
    for (key, value) in [(None, Some("")), (Some(""), None), (None, None), (Some(""), Some(""))] {
        kept(fixture, |letter| {
            letter.record.key = key.map(Into::into);
            letter.record.value = value.map(Into::into);
            let mut headers = Headers::new().with("a", "");
            headers.push(Header::null("a"));
            headers.push(Header::null(""));
            letter.record.headers = headers.with("", "");
        })
        .await?;
    }
    Ok(())
}

/// Of records that a device with a wrong clock has dated.
async fn d2_times_before_1970_are_kept_and_selected(fixture: &Fixture) -> Checked {
    for millis in [-1, 0, -1_700_000_000_123, i64::MIN, i64::MAX] {
        kept(fixture, |letter| {
            letter.record.timestamp = Timestamp::from_millis(millis);
            letter.failed_at = Timestamp::from_millis(millis);
        })
        .await?;
    }
    let service = fixture.fresh("service");
    let failed = |(offset, millis)| letter(&service, offset).with_failed_at(Timestamp::from_millis(millis));
    fixture.bury([(0, -2_000), (1, -1), (2, 0), (3, 5)].map(failed).to_vec()).await?;
    let between = |since: i64, until: i64| {
        let times = (Some(Timestamp::from_millis(since)), Some(Timestamp::from_millis(until)));
        LetterQuery::default().with_service(&service).with_times(times.0, times.1)
    };
    same("failed before 1970", vec![0, 1], fixture.offsets(&between(i64::MIN, 0)).await?)?;
    same("failed since shortly before 1970", vec![1, 2, 3], fixture.offsets(&between(-1, i64::MAX)).await?)?;
    same("failed in between", vec![0], fixture.offsets(&between(-2_000, -1)).await?)?;
    same("failed at no time", 0, fixture.list(&between(0, 0)).await?.len())
}

async fn d2_causes_of_any_form_are_kept(fixture: &Fixture) -> Checked {
    let kinds = [
        ErrorKind::Invalid,
        ErrorKind::NotFound,
        ErrorKind::AlreadyExists,
        ErrorKind::Denied,
        ErrorKind::TooLarge,
        ErrorKind::Undecodable,
        ErrorKind::Unavailable,
        ErrorKind::Indeterminate,
        ErrorKind::Fenced,
        ErrorKind::Conflict,
        ErrorKind::Closed,
        ErrorKind::Corrupt,
        ErrorKind::Unsupported,
        ErrorKind::Failed,
    ];
    let service = fixture.fresh("service");
    let mut letters: Vec<_> = (0..kinds.len() as u64).map(|offset| letter(&service, offset)).collect();
    letters.iter_mut().zip(kinds).for_each(|(letter, kind)| letter.kind = kind);
    fixture.bury(letters).await?;
    for (offset, kind) in (0..).zip(kinds) {
        let of_kind = LetterQuery::default().with_service(&service).with_kind(kind);
        same(&format!("letters of the kind {kind}"), vec![offset], fixture.offsets(&of_kind).await?)?;
    }
    let texts = ["\\", "\\0", "\\\\0\0", "a \"quoted\" 'text'\r\n\t", " \u{feff}", "%s {} $1", &"h".repeat(300)];
    for (text, attempts) in texts.into_iter().zip([0, 1, 255, 65_536, 1 << 31, u32::MAX, 2]) {
        kept(fixture, |letter| {
            letter.attempts = attempts;
            letter.handler = text.into();
            letter.error = text.into();
        })
        .await?;
    }
    Ok(())
}

/// A letter that was listed and is buried elsewhere must not arrive as a closed one, which is redriven never.
async fn d3_the_writer_of_a_letter_does_not_resolve_it(fixture: &Fixture) -> Checked {
    let service = fixture.fresh("service");
    let resolutions = [Resolution::discarded("ann", "old"), Resolution::redriven("ann"), Resolution::parked("ann", "")];
    let letters =
        (0..).zip(resolutions).map(|(offset, resolution)| letter(&service, offset).with_resolution(resolution));
    fixture.bury(letters.collect()).await?;
    let open = fixture.of(&service).await?;
    same("open letters", vec![0, 1, 2], open.iter().map(|letter| letter.record.offset).collect())?;
    holds(open.iter().all(|letter| letter.resolution.is_none()), "no resolution", format!("{open:?}"))
}

/// Returns a name and a reason at the length that each store keeps, in characters that it may mangle.
fn longest(kind: tidings_core::ResolutionKind) -> Resolution {
    let text = |end: &str| format!("{}{end}", "\u{e9}'\\0 %\n".repeat(110));
    Resolution::new(kind, text("by")).with_reason(text("why"))
}

/// Checks a resolution, and that its time is about now.
fn resolved_now(expected: &Resolution, found: Option<&Resolution>) -> Checked {
    same_resolution(expected, found)?;
    let at = found.map_or(0, |found| found.at.millis());
    let apart = expected.at.millis().abs_diff(at);
    // The store's clock is not this host's.
    holds(apart < 86_400_000, "a time of this day", format!("{at} ms"))
}

async fn d5_a_parked_letters_reason_is_kept_in_full(fixture: &Fixture) -> Checked {
    let (service, ids) = fixture.buried(&[1, 2]).await?;
    let parked = longest(tidings_core::ResolutionKind::Parked);
    same("answers to parking", vec![true; 2], fixture.resolve_as(&ids, &parked).await?)?;
    let listed = fixture.in_state(&service, LetterState::Parked).await?;
    same("parked letters", 2, listed.len())?;
    listed.iter().try_for_each(|(_, resolution)| resolved_now(&parked, resolution.as_ref()))
}

/// With its record, so that it can be looked into and redriven by hand.
async fn d6_a_closed_letter_is_kept_in_full(fixture: &Fixture) -> Checked {
    let (service, ids) = fixture.buried(&[1, 2, 3]).await?;
    let discarded = longest(tidings_core::ResolutionKind::Discarded);
    if fixture.keeps(Clause::D5)? {
        fixture.resolve_as(&ids[..1], &longest(tidings_core::ResolutionKind::Parked)).await?;
    }
    same("answers to discarding", vec![true; 2], fixture.resolve_as(&ids[..2], &discarded).await?)?;
    let closed = LetterQuery::default().with_service(&service).with_state(LetterState::Closed);
    let listed = fixture.list(&closed).await?;
    same("closed letters", 2, listed.len())?;
    for (mut found, offset) in listed.into_iter().zip(1..) {
        resolved_now(&discarded, found.resolution.take().as_ref())?;
        same_letter(&letter(&service, offset), &found)?;
    }
    same("the count of closed letters", 2, fixture.count(&closed).await?)?;
    let second = closed.with_limit(1).with_after(ids[0].clone());
    match &fixture.offsets(&second).await?[..] {
        [2] => Ok(()),
        other => broken("the second closed letter", format!("{other:?}")),
    }
}
