//! The wrappers as stores.
//!
//! Both wrappers forward in the same way, so one macro writes them; the lint makes a method that a
//! trait gains with a default fail to compile here.

use std::time::Duration;

use async_trait::async_trait;
use tidings_core::{
    Claim, DeadLetter, DeadLetterSink, DeadLetterStore, Error, EventRef, Guarantees, IdempotencyStore, Lease, Leased,
    LetterId, LetterLease, LetterQuery, Name, ReleasedClaim, Resolution, Result, Timestamp,
};

use super::faulty::Faulty;
use super::recording::Recording;
use super::tap::Call;

/// Implements the store traits for wrappers that have an `inner` and a `tap`.
macro_rules! wraps_stores {
    ($($wrapper:ident),+) => { $(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<T: IdempotencyStore> IdempotencyStore for $wrapper<T> {
            async fn acquire_lease(&self, scope: &Name, ttl: Duration) -> Result<Lease> {
                self.tap.one(Call::AcquireLease, (scope, ttl), self.inner.acquire_lease(scope, ttl)).await
            }

            async fn claim(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Claim>> {
                self.tap.one(Call::Claim, (lease, events), self.inner.claim(lease, events)).await
            }

            async fn renew(&self, lease: &Lease) -> Result<()> {
                self.tap.one(Call::Renew, lease, self.inner.renew(lease)).await
            }

            async fn complete(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Result<()>>> {
                self.tap.one(Call::Complete, (lease, events), self.inner.complete(lease, events)).await
            }

            async fn release(&self, lease: &Lease, events: &[ReleasedClaim]) -> Result<()> {
                self.tap.one(Call::ReleaseClaims, (lease, events), self.inner.release(lease, events)).await
            }

            async fn retire(&self, lease: &Lease) -> Result<()> {
                self.tap.one(Call::Retire, lease, self.inner.retire(lease)).await
            }

            async fn purge(&self, scope: &Name, completed_before: Timestamp) -> Result<u64> {
                let made = self.inner.purge(scope, completed_before);
                self.tap.one(Call::Purge, (scope, completed_before), made).await
            }

            async fn done(&self, scope: &Name, events: &[EventRef]) -> Result<Vec<bool>> {
                self.tap.one(Call::Done, (scope, events), self.inner.done(scope, events)).await
            }

            fn guarantees(&self) -> Guarantees {
                self.inner.guarantees()
            }
        }

        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<T: DeadLetterSink> DeadLetterSink for $wrapper<T> {
            async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>> {
                let asked = letters.clone();
                self.tap.each(Call::Bury, asked.len(), asked, self.inner.bury(letters)).await
            }

            async fn check(&self, topics: &[Name]) -> Result<()> {
                self.tap.one(Call::Check, topics, self.inner.check(topics)).await
            }

            fn guarantees(&self) -> Guarantees {
                self.inner.guarantees()
            }
        }

        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<T: DeadLetterStore> DeadLetterStore for $wrapper<T> {
            async fn list(&self, query: &LetterQuery) -> Result<Vec<DeadLetter>> {
                self.tap.one(Call::List, query, self.inner.list(query)).await
            }

            async fn count(&self, query: &LetterQuery) -> Result<u64> {
                self.tap.one(Call::Count, query, self.inner.count(query)).await
            }

            async fn resolve(&self, letters: &[LetterId], resolution: &Resolution) -> Result<Vec<bool>> {
                let made = self.inner.resolve(letters, resolution);
                self.tap.one(Call::Resolve, (letters, resolution), made).await
            }

            async fn lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<Vec<Leased>> {
                self.tap.one(Call::Lease, (letters, lease), self.inner.lease(letters, lease)).await
            }

            async fn resolve_leased(
                &self,
                letters: &[LetterId],
                lease: &LetterLease,
                resolution: &Resolution,
            ) -> Result<Vec<bool>> {
                let made = self.inner.resolve_leased(letters, lease, resolution);
                self.tap.one(Call::ResolveLeased, (letters, lease, resolution), made).await
            }

            async fn end_lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<()> {
                self.tap.one(Call::EndLease, (letters, lease), self.inner.end_lease(letters, lease)).await
            }

            async fn note_refused(&self, refused: &[(LetterId, String)], by: &str) -> Result<()> {
                self.tap.one(Call::NoteRefused, (refused, by), self.inner.note_refused(refused, by)).await
            }

            fn unreadable(&self) -> Vec<Error> {
                self.inner.unreadable()
            }

            fn unreadable_records(&self) -> u64 {
                self.inner.unreadable_records()
            }
        }
    )+ };
}

wraps_stores!(Recording, Faulty);
