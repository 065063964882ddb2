//! Audit trails: records of what was changed, by whom and with which result, in a log that shows tampering.
//!
//! An [`AuditRecord`] states one change. Its writer links it into a **chain**: each record carries its number in the
//! chain, the hash of the record before it and its own, so that a later change of the log is found. A linked record is
//! a [`StoredAudit`]; an [`AuditSink`] stores it as it is. The crate `tidings-audit` links, verifies and decodes records,
//! and wraps transports and dead-letter stores so that their changes are recorded.

mod record;
mod stored;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

pub use self::record::{AuditOutcome, AuditPhase, AuditRecord, AuditedEvent, Principal};
pub use self::stored::{AuditHash, AuditPage, AuditPosition, StoredAudit, header_names};
use crate::{Guarantees, Result};

/// Stores audit records, only ever adding to them.
///
/// # Contract
/// - **T1** `Ok` means that the record is durable; answer `i` is record `i`'s. Records of a call are stored in their
///   order: after one that is not stored, later ones of its chain in the call are not stored either.
/// - **T2** A record is kept byte for byte, with its chain, number and hashes, and is never replaced: an append of the
///   same number with other bytes is a [`Conflict`](crate::ErrorKind::Conflict), or is stored next to the first.
/// - **T3** A record that is appended again, as after an answer that was lost, is `Ok` again, and is read once or as
///   identical records.
/// - **T4** Reading yields each record, those of a chain in the order of their first appends; a page
///   [after](AuditPage::next) another one begins behind it, also after more was appended.
///
/// ```
/// use tidings_core::Result;
/// use tidings_core::audit::{AuditSink, StoredAudit};
///
/// /// Returns all records of a sink.
/// async fn all(sink: &dyn AuditSink) -> Result<Vec<StoredAudit>> {
///     let (mut all, mut after) = (Vec::new(), None);
///     loop {
///         let page = sink.read(after.as_ref(), 1_000).await?;
///         if page.records.is_empty() {
///             return Ok(all);
///         }
///         all.extend(page.records);
///         after = Some(page.next);
///     }
/// }
/// ```
#[async_trait]
pub trait AuditSink: Debug + Send + Sync + 'static {
    /// Appends records, in their order. Dropping the future may still append any of them.
    ///
    /// # Errors
    /// Per record, those of [`Publisher::publish`](crate::Publisher::publish), and
    /// [`Conflict`](crate::ErrorKind::Conflict) (T2).
    async fn append(&self, records: Vec<StoredAudit>) -> Vec<Result<()>>;

    /// Reads at most `limit` records after a position, or from the oldest one; no records if there are none, without
    /// waiting for more. Has no effect.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable); [`Undecodable`](crate::ErrorKind::Undecodable) for a position of
    /// another sink; [`Unsupported`](crate::ErrorKind::Unsupported) for a sink that only writes, such as a log.
    async fn read(&self, after: Option<&AuditPosition>, limit: usize) -> Result<AuditPage>;

    /// Returns the clauses that this sink keeps.
    fn guarantees(&self) -> Guarantees;
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: AuditSink + ?Sized> AuditSink for Arc<S> {
    async fn append(&self, records: Vec<StoredAudit>) -> Vec<Result<()>> {
        (**self).append(records).await
    }

    async fn read(&self, after: Option<&AuditPosition>, limit: usize) -> Result<AuditPage> {
        (**self).read(after, limit).await
    }

    fn guarantees(&self) -> Guarantees {
        (**self).guarantees()
    }
}
