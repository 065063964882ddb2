//! Dead letters: records that could not be handled, stored with the cause.

mod lease;
mod letter;
pub(crate) mod packed;
mod query;
mod redrive;
mod state;
mod topics;
mod wire;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

pub use self::lease::{Leased, LetterLease, REDRIVE_LEASE};
pub use self::letter::{DeadLetter, LetterId, Resolution, ResolutionKind};
pub use self::query::{LetterQuery, LetterState};
pub use self::redrive::{Redrive, RedriveOutcome};
pub use self::state::{LetterEntry, LetterKey};
pub use self::topics::{
    DEAD_LETTER_STATE_SUFFIX, DEAD_LETTER_SUFFIX, DeadLetterTopics, dead_letter_state_topic, dead_letter_topic,
    is_dead_letter_topic,
};
pub use self::wire::{MAX_PLAIN_HEADERS, Redriven, header_names, is_dead_letter_header};
use crate::{Error, Guarantees, Name, Result};

/// Stores dead letters.
///
/// # Contract
/// - **D1** `Ok` means that the letter is durable.
/// - **D2** The original topic, partition, offset, timestamp, key, value and headers are kept byte for byte, together
///   with the cause: error kind and text (bounded), attempts, handler, service, time. Null is not empty, times before
///   1970 are times, and a letter that is too large is [`TooLarge`](crate::ErrorKind::TooLarge), never cut.
/// - **D3** A letter's identity is (service, topic, partition, offset), compared in full: buried twice, it is listed and
///   redriven once, and stays in the state that it has, closed or leased.
///   A record of another time under a known identity belongs to a topic that was recreated, and is no repeat: its
///   letter is a new one, or [`Conflict`](crate::ErrorKind::Conflict) while that of the old record is open.
#[async_trait]
pub trait DeadLetterSink: Debug + Send + Sync + 'static {
    /// Buries `letters` as open ones; answer `i` is letter `i`'s. Dropping the future may still bury any of them.
    ///
    /// # Errors
    /// Per letter, those of [`Publisher::publish`](crate::Publisher::publish).
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>>;

    /// Checks that letters of records from `topics` can be buried. Called when a service starts, not at its first
    /// poison record.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`Denied`](crate::ErrorKind::Denied) or
    /// [`Unavailable`](crate::ErrorKind::Unavailable), with what is missing.
    async fn check(&self, topics: &[Name]) -> Result<()>;

    /// Returns the clauses that this sink keeps.
    fn guarantees(&self) -> Guarantees;
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: DeadLetterSink + ?Sized> DeadLetterSink for Arc<S> {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>> {
        (**self).bury(letters).await
    }

    async fn check(&self, topics: &[Name]) -> Result<()> {
        (**self).check(topics).await
    }

    fn guarantees(&self) -> Guarantees {
        (**self).guarantees()
    }
}

/// A sink whose letters can be listed, parked and closed.
///
/// A letter is **open** until it is redriven or discarded, which **closes** it; a **parked** letter is set aside.
///
/// # Contract
/// - **D4** One letter, one redrive: a letter that is granted to a [`LetterLease`] is granted to no other, and closed
///   by no [`resolve`](Self::resolve), until it is given back or the lease's ttl has passed on the store's own clock.
///   A letter that another lease took over meanwhile is never closed nor given back by the old lease. A closed letter
///   is never granted. A lease closes letters and parks none. A store caps the ttl at [`LetterLease::MAX_TTL`].
/// - **D5** A parked letter stays until it is redriven or discarded, and only a query for
///   [`Parked`](LetterState::Parked) or [`Any`](LetterState::Any) letters selects it. A store that cannot park
///   answers [`Unsupported`](crate::ErrorKind::Unsupported).
/// - **D6** A closed letter stays listed, whole and with its [`Resolution`], until it is purged. A store that keeps no
///   closed letters answers a query for them as [`Unsupported`](crate::ErrorKind::Unsupported).
#[async_trait]
pub trait DeadLetterStore: DeadLetterSink {
    /// Lists letters in the order of burying, at most [`LetterQuery::limit`].
    ///
    /// The page [after](LetterQuery::after) a letter begins behind it, whatever became of the letter; after a letter
    /// that the store does not know, such as a purged one, it is the first page.
    ///
    /// Letters in topics come by topic, partition and offset of the dead-letter topics.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable); [`Unsupported`](crate::ErrorKind::Unsupported) for closed
    /// letters (D6).
    async fn list(&self, query: &LetterQuery) -> Result<Vec<DeadLetter>>;

    /// Counts letters, without the query's paging. The default lists them page by page.
    ///
    /// # Errors
    /// Those of [`list`](Self::list).
    async fn count(&self, query: &LetterQuery) -> Result<u64> {
        let mut query = LetterQuery { after: None, limit: Some(LetterQuery::DEFAULT_PAGE), ..query.clone() };
        let mut count = 0;
        loop {
            let page = self.list(&query).await?;
            count += page.len() as u64;
            match page.last() {
                Some(last) if page.len() >= LetterQuery::DEFAULT_PAGE => query.after = Some(last.id()),
                _ => return Ok(count),
            }
        }
    }

    /// Parks letters, or closes letters that were redriven or are not needed any more.
    ///
    /// Answer `i` is letter `i`'s; `false` means that it was closed (or parked, to be parked) before, never existed,
    /// or is leased by a redrive.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable); [`Unsupported`](crate::ErrorKind::Unsupported) where letters
    /// cannot be parked (D5).
    async fn resolve(&self, letters: &[LetterId], resolution: &Resolution) -> Result<Vec<bool>>;

    /// Leases open or parked letters to a redrive before it publishes them; answer `i` is letter `i`'s.
    ///
    /// A letter that the lease already has is granted again, for a ttl from now on; so is a letter given twice. The
    /// letters of a dropped call are free again after the ttl.
    ///
    /// The default grants every letter and stores nothing: a store that keeps it disclaims D4.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable).
    async fn lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<Vec<Leased>> {
        let _unknown = lease;
        Ok(vec![Leased::Granted; letters.len()])
    }

    /// Closes letters that the lease has.
    ///
    /// Answer `i` is letter `i`'s; `false` means that it was closed before, that another lease has taken it over, or
    /// that this lease never had it or gave it back. A lease whose ttl has passed closes the letters that were not
    /// taken over.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable); [`Invalid`](crate::ErrorKind::Invalid) for a resolution that
    /// does not close ([`Resolution::check_closes`]): nothing is changed.
    async fn resolve_leased(
        &self,
        letters: &[LetterId],
        lease: &LetterLease,
        resolution: &Resolution,
    ) -> Result<Vec<bool>> {
        let _unknown = lease;
        resolution.check_closes()?;
        self.resolve(letters, resolution).await
    }

    /// Releases letters that were not published, so that any redrive may lease them at once.
    ///
    /// Letters that the lease does not have are not affected.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable): the letters are then free after the lease's ttl.
    async fn end_lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<()> {
        let _unknown = (letters, lease);
        Ok(())
    }

    /// Notes in the store's audit trail that letters were refused when `by` redrove them, each with the cause. The
    /// letters and their leases do not change.
    ///
    /// The default does nothing: a store without an audit trail.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable).
    async fn note_refused(&self, refused: &[(LetterId, String)], by: &str) -> Result<()> {
        let _unknown = (refused, by);
        Ok(())
    }

    /// Returns the ranges of records that cannot be read, each as an error with its position and cause; only the first
    /// ones if there are very many.
    ///
    /// Known after a [`list`](Self::list) or a [`count`](Self::count), which contain only letters that can be read. The
    /// default returns none.
    fn unreadable(&self) -> Vec<Error> {
        Vec::new()
    }

    /// Returns the number of offsets in all ranges that cannot be read, which is the maximum number of letters missing
    /// from lists and counts. The default returns 0.
    fn unreadable_records(&self) -> u64 {
        0
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: DeadLetterStore + ?Sized> DeadLetterStore for Arc<T> {
    async fn list(&self, query: &LetterQuery) -> Result<Vec<DeadLetter>> {
        (**self).list(query).await
    }

    async fn count(&self, query: &LetterQuery) -> Result<u64> {
        (**self).count(query).await
    }

    async fn resolve(&self, letters: &[LetterId], resolution: &Resolution) -> Result<Vec<bool>> {
        (**self).resolve(letters, resolution).await
    }

    async fn lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<Vec<Leased>> {
        (**self).lease(letters, lease).await
    }

    async fn resolve_leased(
        &self,
        letters: &[LetterId],
        lease: &LetterLease,
        resolution: &Resolution,
    ) -> Result<Vec<bool>> {
        (**self).resolve_leased(letters, lease, resolution).await
    }

    async fn end_lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<()> {
        (**self).end_lease(letters, lease).await
    }

    async fn note_refused(&self, refused: &[(LetterId, String)], by: &str) -> Result<()> {
        (**self).note_refused(refused, by).await
    }

    fn unreadable(&self) -> Vec<Error> {
        (**self).unreadable()
    }

    fn unreadable_records(&self) -> u64 {
        (**self).unreadable_records()
    }
}
