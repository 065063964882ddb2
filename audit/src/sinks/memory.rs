//! A sink in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidings_core::audit::{AuditHash, AuditPage, AuditPosition, AuditSink, StoredAudit};
use tidings_core::{Clause, Error, ErrorKind, Guarantees, Name, Result, async_trait};

/// Keeps records in memory, for tests. Clones share the records.
///
/// At [`max_records`](Self::with_max_records) it refuses further ones.
///
/// ```
/// use tidings_audit::{Auditor, MemoryAudit};
/// use tidings_core::ErrorKind;
/// use tidings_core::audit::{AuditRecord, Principal};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let sink = MemoryAudit::new();
/// let auditor = Auditor::new(sink.clone());
/// sink.fail_with(Some(ErrorKind::Denied));
/// let refused = auditor.begin(AuditRecord::intent(Principal::new("ann"), "group.delete")).await;
/// assert_eq!(refused.unwrap_err().kind(), ErrorKind::Denied, "the group must not be deleted");
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct MemoryAudit {
    state: Arc<Mutex<State>>,
    max_records: usize,
}

#[derive(Debug, Default)]
struct State {
    records: Vec<StoredAudit>,
    known: HashMap<(Name, u64), AuditHash>,
    failure: Option<ErrorKind>,
}

impl MemoryAudit {
    /// The default of the most records.
    pub const DEFAULT_MAX_RECORDS: usize = 1_000_000;

    /// Creates an empty sink.
    pub fn new() -> Self {
        Self { state: Arc::default(), max_records: Self::DEFAULT_MAX_RECORDS }
    }

    /// Sets the most records.
    #[must_use]
    pub fn with_max_records(mut self, records: usize) -> Self {
        self.max_records = records;
        self
    }

    /// Makes all calls fail with this kind, or ends that.
    pub fn fail_with(&self, kind: Option<ErrorKind>) {
        self.state().failure = kind;
    }

    /// Returns all records, in the order of appending.
    pub fn records(&self) -> Vec<StoredAudit> {
        self.state().records.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryAudit {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    fn check(&self, doing: &'static str) -> Result<()> {
        self.failure.map_or(Ok(()), |kind| Err(Error::new(kind, format!("{doing}: the sink was made to fail"))))
    }

    fn append(&mut self, record: StoredAudit, max_records: usize) -> Result<()> {
        self.check("append an audit record")?;
        let key = (record.chain.clone(), record.seq);
        match self.known.get(&key) {
            Some(known) if *known == record.hash => return Ok(()),
            Some(_) => {
                let text = format!("append the audit record {}@{}: another one has its number", key.0, key.1);
                return Err(Error::new(ErrorKind::Conflict, text));
            }
            None => {}
        }
        if self.records.len() >= max_records {
            return Err(Error::new(ErrorKind::Unavailable, "append an audit record: the sink is full"));
        }
        self.known.insert(key, record.hash);
        self.records.push(record);
        Ok(())
    }
}

#[async_trait]
impl AuditSink for MemoryAudit {
    async fn append(&self, records: Vec<StoredAudit>) -> Vec<Result<()>> {
        let mut state = self.state();
        let mut failed = false;
        let mut append = |record| {
            if failed {
                return Err(Error::new(ErrorKind::Unavailable, "append: an earlier audit record is not stored"));
            }
            let answer = state.append(record, self.max_records);
            failed = answer.is_err();
            answer
        };
        records.into_iter().map(&mut append).collect()
    }

    async fn read(&self, after: Option<&AuditPosition>, limit: usize) -> Result<AuditPage> {
        let state = self.state();
        state.check("read audit records")?;
        let unknown = |_| Error::new(ErrorKind::Undecodable, "read audit records: the position is of another sink");
        let from = after.map_or(Ok(0), |position| position.as_str().parse::<usize>().map_err(unknown))?;
        let records: Vec<_> = state.records.iter().skip(from).take(limit).cloned().collect();
        let next = AuditPosition::new((from + records.len()).to_string());
        Ok(AuditPage::new(records, next))
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees::all().without(Clause::Restart, "everything is in memory")
    }
}
