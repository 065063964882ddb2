//! A sink that writes to the program's log.

use tidings_core::audit::{AuditPage, AuditPosition, AuditSink, StoredAudit};
use tidings_core::{Clause, Error, ErrorKind, Guarantees, Result, async_trait};

/// Writes each record to the log, through `tracing`, as an event of the target `tidings::audit` and the level `INFO`.
///
/// It cannot be read. A log that keeps the fields `chain`, `seq`, `prev`, `hash` and `record` can be verified by a
/// [`Verifier`](crate::Verifier). A subscriber that filters the target drops the records unnoticed.
///
/// ```
/// use tidings_audit::{Auditor, TracingAudit};
///
/// let auditor = Auditor::new(TracingAudit::new());
/// # let _ = auditor;
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct TracingAudit {}

impl TracingAudit {
    /// Creates the sink.
    pub const fn new() -> Self {
        Self {}
    }
}

const ONLY_WRITES: &str = "the log is only written";

#[async_trait]
impl AuditSink for TracingAudit {
    async fn append(&self, records: Vec<StoredAudit>) -> Vec<Result<()>> {
        let log = |record: StoredAudit| {
            let StoredAudit { chain, seq, prev, hash, bytes, .. } = record;
            let record = String::from_utf8_lossy(&bytes);
            tracing::info!(target: "tidings::audit", %chain, seq, %prev, %hash, %record, "audit record");
            Ok(())
        };
        records.into_iter().map(log).collect()
    }

    async fn read(&self, _: Option<&AuditPosition>, _: usize) -> Result<AuditPage> {
        Err(Error::new(ErrorKind::Unsupported, format!("read audit records: {ONLY_WRITES}")))
    }

    fn guarantees(&self) -> Guarantees {
        [Clause::T1, Clause::T2, Clause::T3, Clause::T4, Clause::Restart]
            .into_iter()
            .fold(Guarantees::all(), |guarantees, clause| guarantees.without(clause, ONLY_WRITES))
    }
}
