//! Helpers of the cases of a dead-letter store: letters, and calls with their answers checked.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{
    Clause, DeadLetter, DeadLetterStore, ErrorKind, Header, Headers, Leased, LetterId, LetterLease, LetterQuery,
    LetterState, Name, Resolution, StoredRecord, Timestamp, TopicPartition,
};

use crate::case::{Checked, broken, granted, holds, same};
use crate::context::Context;

/// Context of a case of a dead-letter store.
pub(super) type Fixture = Context<dyn DeadLetterStore>;

/// Longer than any case takes.
pub(super) const LONG: Duration = Duration::from_secs(600);

/// Creates a letter whose record has bytes that are no UTF-8, duplicate headers, a null and an
/// empty one.
pub(super) fn letter(service: &Name, offset: u64) -> DeadLetter {
    let mut headers = Headers::new().with("a", "1").with("a", "2").with("", vec![0xff, 0]);
    headers.push(Header::null("n"));
    headers.push(Header::new("e", ""));
    let record = StoredRecord::new(offset, Timestamp::from_millis(1_700_000_000_123))
        .with_key(vec![0, 0xfe, 1])
        .with_value(vec![0xff, 0, 0xc3, 0x28])
        .with_headers(headers);
    DeadLetter::new(service, TopicPartition::new("conformance", 3), record, ErrorKind::Undecodable)
        .with_handler("a handler")
        .with_error("no such field: größe")
        .with_attempts(4)
        .with_failed_at(Timestamp::from_millis(1_700_000_111_456_i64.saturating_add(offset.cast_signed())))
}

/// A resolution for closing letters.
pub(super) fn redriven() -> Resolution {
    Resolution::redriven("the conformance suite")
}

impl Fixture {
    pub(super) fn store(&self) -> Checked<Arc<dyn DeadLetterStore>> {
        self.backend()
    }

    pub(super) async fn bury(&self, letters: Vec<DeadLetter>) -> Checked {
        let (store, count) = (self.store()?, letters.len());
        let answers = self.within("answers to bury", store.bury(letters)).await?;
        self.note(format!("bury {count} letters: {} answers", answers.len()));
        same("answers to bury", count, answers.len())?;
        answers.into_iter().try_for_each(|answer| granted("bury", answer))
    }

    pub(super) async fn list(&self, query: &LetterQuery) -> Checked<Vec<DeadLetter>> {
        let store = self.store()?;
        let listed = self.within("a list", store.list(query)).await??;
        self.note(format!("listed {} letters", listed.len()));
        Ok(listed)
    }

    pub(super) fn keeps(&self, clause: Clause) -> Checked<bool> {
        Ok(self.store()?.guarantees().keeps(clause))
    }

    pub(super) async fn count(&self, query: &LetterQuery) -> Checked<u64> {
        let store = self.store()?;
        Ok(self.within("a count", store.count(query)).await??)
    }

    /// Returns all open letters of a service.
    pub(super) async fn of(&self, service: &Name) -> Checked<Vec<DeadLetter>> {
        self.list(&LetterQuery::default().with_service(service)).await
    }

    pub(super) async fn resolve(&self, letters: &[LetterId]) -> Checked<Vec<bool>> {
        self.resolve_as(letters, &redriven()).await
    }

    pub(super) async fn lease(&self, letters: &[LetterId], lease: &LetterLease) -> Checked<Vec<Leased>> {
        let store = self.store()?;
        let leased = self.within("a lease", store.lease(letters, lease)).await??;
        self.note(format!("lease {} of {} letters: {leased:?}", lease.id, letters.len()));
        same("answers to lease", letters.len(), leased.len())?;
        Ok(leased)
    }

    pub(super) async fn resolve_leased(&self, letters: &[LetterId], lease: &LetterLease) -> Checked<Vec<bool>> {
        let store = self.store()?;
        let closed = self.within("resolve_leased", store.resolve_leased(letters, lease, &redriven())).await??;
        self.note(format!("the lease {} closes {} letters: {closed:?}", lease.id, letters.len()));
        same("answers to resolve_leased", letters.len(), closed.len())?;
        Ok(closed)
    }

    pub(super) async fn end_lease(&self, letters: &[LetterId], lease: &LetterLease) -> Checked {
        let store = self.store()?;
        Ok(self.within("end_lease", store.end_lease(letters, lease)).await??)
    }

    /// Buries letters with these offsets for a new service; returns the service and their identities.
    pub(super) async fn buried(&self, offsets: &[u64]) -> Checked<(Name, Vec<LetterId>)> {
        let service = self.fresh("service");
        let letters: Vec<_> = offsets.iter().map(|offset| letter(&service, *offset)).collect();
        let ids = letters.iter().map(DeadLetter::id).collect();
        self.bury(letters).await?;
        Ok((service, ids))
    }

    /// Returns the offsets of the letters of a service in this state, and their resolutions.
    pub(super) async fn in_state(&self, service: &Name, state: LetterState) -> Checked<Vec<(u64, Option<Resolution>)>> {
        let listed = self.list(&LetterQuery::default().with_service(service).with_state(state)).await?;
        Ok(listed.into_iter().map(|letter| (letter.record.offset, letter.resolution)).collect())
    }

    pub(super) async fn offsets_in(&self, service: &Name, state: LetterState) -> Checked<Vec<u64>> {
        Ok(self.in_state(service, state).await?.into_iter().map(|(offset, _)| offset).collect())
    }

    /// Returns the offsets of the letters that a query selects.
    pub(super) async fn offsets(&self, query: &LetterQuery) -> Checked<Vec<u64>> {
        Ok(self.list(query).await?.iter().map(|letter| letter.record.offset).collect())
    }

    pub(super) async fn resolve_as(&self, letters: &[LetterId], resolution: &Resolution) -> Checked<Vec<bool>> {
        let store = self.store()?;
        let resolved = self.within("resolve", store.resolve(letters, resolution)).await??;
        self.note(format!("{} letters are {}: {resolved:?}", letters.len(), resolution.kind.as_str()));
        same("answers to resolve", letters.len(), resolved.len())?;
        Ok(resolved)
    }
}

/// Compares each field of a letter, including contents that `Debug` hides.
pub(super) fn same_letter(expected: &DeadLetter, came: &DeadLetter) -> Checked {
    same("the origin", &expected.origin, &came.origin)?;
    same("the offset", expected.record.offset, came.record.offset)?;
    same("the timestamp", expected.record.timestamp, came.record.timestamp)?;
    same("the key", &expected.record.key, &came.record.key)?;
    same(
        "the value's length",
        expected.record.value.as_ref().map(|v| v.len()),
        came.record.value.as_ref().map(|v| v.len()),
    )?;
    same("the headers", plain(expected), plain(came))?;
    same("the letter", expected, came)
}

/// Returns names and values of headers, which `Debug` shortens.
fn plain(letter: &DeadLetter) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    letter.record.headers.iter().map(|h| (h.name.to_vec(), h.value.as_ref().map(|v| v.to_vec()))).collect()
}

/// Buries one letter and compares what is listed.
pub(super) async fn kept(fixture: &Fixture, change: impl FnOnce(&mut DeadLetter)) -> Checked {
    let service = fixture.fresh("service");
    let mut expected = letter(&service, 77);
    change(&mut expected);
    fixture.bury(vec![expected.clone()]).await?;
    match &fixture.of(&service).await?[..] {
        [came] => same_letter(&expected, came),
        other => broken("one letter", other.len()),
    }
}

/// Checks that another lease has the letter, for at most `ttl`.
pub(super) fn held(leased: &[Leased], ttl: Duration) -> Checked {
    let is_held = |answer: &Leased| matches!(answer, Leased::Held { at_most } if *at_most <= ttl);
    holds(leased.iter().all(is_held), "Held, for the ttl at most", format!("{leased:?}"))
}

/// Compares a resolution without its time, which may be the store's.
pub(super) fn same_resolution(expected: &Resolution, found: Option<&Resolution>) -> Checked {
    match found {
        Some(found) => {
            same("the kind", expected.kind, found.kind)?;
            same("who decided", &expected.by, &found.by)?;
            same("the reason", &expected.reason, &found.reason)
        }
        None => broken("a resolution", "none"),
    }
}
