//! The audited dead-letter store.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use tidings_core::audit::Principal;
use tidings_core::{
    DeadLetter, DeadLetterSink, DeadLetterStore, Error, Guarantees, Leased, LetterId, LetterLease, LetterQuery, Name,
    Resolution, ResolutionKind, Result, TopicPartition, async_trait,
};

use super::call::Actor;
use crate::auditor::Auditor;

/// A dead-letter store whose changes by operators are recorded: leases, resolutions and refusals, with the letters'
/// positions.
///
/// A redrive leases its letters, publishes them and closes them, so it leaves a pair of records for each lease and each
/// closing. Burying is an operation on events, which a service's [observer](Auditor::observer) records.
///
/// ```
/// use tidings_audit::{AuditedLetters, Auditor, MemoryAudit, decode};
/// use tidings_core::audit::Principal;
/// use tidings_core::{DeadLetterStore, LetterId, Resolution, TopicPartition};
/// use tidings_memory::MemoryDeadLetters;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidings_core::Result<()> {
/// let sink = MemoryAudit::new();
/// let letters = AuditedLetters::new(MemoryDeadLetters::new(), Auditor::new(sink.clone()));
/// let letters = letters.as_principal(Principal::new("ann"));
/// let letter = LetterId::new("billing", TopicPartition::new("orders", 0), 7);
/// letters.resolve(&[letter], &Resolution::discarded("ann", "a test order")).await?;
///
/// let result = decode(&sink.records()[1])?;
/// assert_eq!((result.verb.as_str(), result.reason.as_str()), ("dead-letter.discard", "a test order"));
/// assert_eq!(result.resources, ["letter:billing/orders/0@7"]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct AuditedLetters<S> {
    inner: S,
    actor: Actor,
}

impl<S: DeadLetterStore> AuditedLetters<S> {
    /// Wraps `inner`, which may be an `Arc` of a store. The principal is the auditor's
    /// [source](crate::AuditorOptions::source).
    pub fn new(inner: S, auditor: Auditor) -> Self {
        Self { inner, actor: Actor::new(auditor) }
    }

    /// Sets who acts.
    #[must_use]
    pub fn as_principal(mut self, principal: Principal) -> Self {
        self.actor.principal = principal;
        self
    }

    /// Sets the reason, of records without one of their own.
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<String>) -> Self {
        self.actor.reason = reason.into();
        self
    }

    /// Sets the id that the records of one request or command share.
    #[must_use]
    pub fn with_correlation_id(mut self, id: impl Into<String>) -> Self {
        self.actor.correlation_id = Some(id.into());
        self
    }

    /// Sets the digest of the plan that is executed.
    #[must_use]
    pub fn with_plan(mut self, digest: impl Into<String>) -> Self {
        self.actor.plan = Some(digest.into());
        self
    }

    /// Returns the wrapped store.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    async fn resolved(
        &self,
        letters: &[LetterId],
        lease: Option<&LetterLease>,
        resolution: &Resolution,
        work: impl Future<Output = Result<Vec<bool>>>,
    ) -> Result<Vec<bool>> {
        let verb = match resolution.kind {
            ResolutionKind::Redriven => "dead-letter.redrive",
            ResolutionKind::Discarded => "dead-letter.discard",
            ResolutionKind::Parked => "dead-letter.park",
            _ => "dead-letter.resolve",
        };
        let mut call = self.actor.call(verb).on_all(letter_resources(letters));
        call = call.after([("state".to_owned(), resolution.kind.as_str().to_owned())]);
        call = call.after(lease.map(|lease| ("lease".to_owned(), lease.id.to_string())));
        if !resolution.reason.is_empty() {
            call.record.reason.clone_from(&resolution.reason);
        }
        if resolution.by != self.actor.principal.name {
            call = call.after([("by".to_owned(), resolution.by.clone())]);
        }
        call.one(work, |result, answers| {
            let resolved = answers.iter().filter(|resolved| **resolved).count();
            result.counts.insert("ok".to_owned(), resolved as u64);
            result.counts.insert("unchanged".to_owned(), (answers.len() - resolved) as u64);
            let unchanged = letters.iter().zip(answers).filter(|(_, resolved)| !**resolved).map(|(letter, _)| letter);
            result
                .failures
                .extend(letter_resources(unchanged).into_iter().map(|letter| (letter, "unchanged".to_owned())));
        })
        .await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: DeadLetterStore> DeadLetterSink for AuditedLetters<S> {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>> {
        self.inner.bury(letters).await
    }

    async fn check(&self, topics: &[Name]) -> Result<()> {
        self.inner.check(topics).await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: DeadLetterStore> DeadLetterStore for AuditedLetters<S> {
    async fn list(&self, query: &LetterQuery) -> Result<Vec<DeadLetter>> {
        self.inner.list(query).await
    }

    async fn count(&self, query: &LetterQuery) -> Result<u64> {
        self.inner.count(query).await
    }

    async fn resolve(&self, letters: &[LetterId], resolution: &Resolution) -> Result<Vec<bool>> {
        self.resolved(letters, None, resolution, self.inner.resolve(letters, resolution)).await
    }

    async fn lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<Vec<Leased>> {
        let call = self.actor.call("dead-letter.lease").on_all(letter_resources(letters)).after(facts(lease));
        call.one(self.inner.lease(letters, lease), |result, answers| {
            let granted = answers.iter().filter(|answer| matches!(answer, Leased::Granted)).count();
            result.counts.insert("ok".to_owned(), granted as u64);
            result.counts.insert("refused".to_owned(), (answers.len() - granted) as u64);
        })
        .await
    }

    async fn resolve_leased(
        &self,
        letters: &[LetterId],
        lease: &LetterLease,
        resolution: &Resolution,
    ) -> Result<Vec<bool>> {
        let work = self.inner.resolve_leased(letters, lease, resolution);
        self.resolved(letters, Some(lease), resolution, work).await
    }

    async fn end_lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<()> {
        let call = self.actor.call("dead-letter.end-lease").on_all(letter_resources(letters)).after(facts(lease));
        call.one(self.inner.end_lease(letters, lease), |_, ()| {}).await
    }

    /// The causes are left out: a publisher's error is not known to be free of contents.
    async fn note_refused(&self, refused: &[(LetterId, String)], by: &str) -> Result<()> {
        let call =
            self.actor.call("dead-letter.refuse").on_all(letter_resources(refused.iter().map(|(letter, _)| letter)));
        let call = call.after([("by".to_owned(), by.to_owned())]);
        call.one(self.inner.note_refused(refused, by), |_, ()| {}).await
    }

    fn unreadable(&self) -> Vec<Error> {
        self.inner.unreadable()
    }

    fn unreadable_records(&self) -> u64 {
        self.inner.unreadable_records()
    }
}

fn facts(lease: &LetterLease) -> [(String, String); 2] {
    [("lease".to_owned(), lease.id.to_string()), ("ttl".to_owned(), format!("{:?}", lease.ttl))]
}

/// The longest list of offsets of one resource, so that its text is not cut.
const MAX_RANGES: usize = 20;

/// Returns the letters as resources of a record, `letter:<service>/<topic>/<partition>@<offsets>`: consecutive offsets
/// are a range. More than [`MAX_RESOURCES`](crate::MAX_RESOURCES) need several [records](Auditor::record_all).
///
/// ```
/// use tidings_audit::letter_resources;
/// use tidings_core::{LetterId, TopicPartition};
///
/// let letters = [7, 8, 12].map(|offset| LetterId::new("billing", TopicPartition::new("orders", 0), offset));
/// assert_eq!(letter_resources(&letters), ["letter:billing/orders/0@7-8,12"]);
/// ```
pub fn letter_resources<'a>(letters: impl IntoIterator<Item = &'a LetterId>) -> Vec<String> {
    let mut offsets: BTreeMap<(&Name, &TopicPartition), Vec<u64>> = BTreeMap::new();
    for LetterId { service, origin, offset, .. } in letters {
        match offsets.entry((service, origin)) {
            Entry::Vacant(place) => drop(place.insert(vec![*offset])),
            Entry::Occupied(mut place) => place.get_mut().push(*offset),
        }
    }
    let mut resources = Vec::new();
    for ((service, origin), mut offsets) in offsets {
        offsets.sort_unstable();
        offsets.dedup();
        for ranges in ranges(&offsets).chunks(MAX_RANGES) {
            let place = format!("letter:{service}/{}/{}", origin.topic, origin.partition);
            resources.push(format!("{place}@{}", ranges.join(",")));
        }
    }
    resources
}

/// Returns sorted numbers as ranges: `5-7`, `9`.
fn ranges(offsets: &[u64]) -> Vec<String> {
    let groups = offsets.chunk_by(|a, b| a.checked_add(1) == Some(*b));
    let text = |group: &[u64]| match group {
        [] => String::new(),
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
    };
    groups.map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_named_by_ranges_of_offsets() {
        let letter = |service: &'static str, offset| LetterId::new(service, TopicPartition::new("orders", 2), offset);
        let letters = [letter("b", 9), letter("a", 7), letter("b", 7), letter("b", 8), letter("b", 7), letter("b", 20)];
        assert_eq!(letter_resources(&letters), ["letter:a/orders/2@7", "letter:b/orders/2@7-9,20"]);
    }

    #[test]
    fn many_ranges_are_several_resources() {
        let letters: Vec<_> = (0..50).map(|n| LetterId::new("a", TopicPartition::new("orders", 2), n * 2)).collect();
        assert_eq!(letter_resources(&letters).len(), 3);
    }
}
