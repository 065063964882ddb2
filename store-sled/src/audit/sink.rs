//! The store as an audit sink.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::audit::{AuditPage, AuditPosition, AuditSink, StoredAudit};
use tidings_core::{Error, ErrorKind, Guarantees, Result, async_trait};

use crate::store::{SledStore, guarantees};

impl SledStore {
    /// Deletes audit records that were stored `age` ago or earlier, in small steps, and returns how many. The store never
    /// does so by itself: its owner decides how long to keep the trail.
    ///
    /// What is left of a chain is verified from its oldest checkpoint.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable): the store is down. [`Closed`](ErrorKind::Closed).
    pub async fn purge_audit(&self, age: Duration) -> Result<u64> {
        let mut purged = 0;
        loop {
            let (removed, more) = self.call(1, move |claims| claims.purge_audit(age)).await?;
            purged += removed;
            if !more {
                return Ok(purged);
            }
        }
    }
}

#[async_trait]
impl AuditSink for SledStore {
    async fn append(&self, records: Vec<StoredAudit>) -> Vec<Result<()>> {
        let count = records.len();
        let size = records.iter().map(|record| record.bytes.len() >> 10).sum::<usize>();
        let max = self.max_audit_records();
        match self.call(count.max(size), move |claims| claims.append_audit(&records, max)).await {
            Ok(answers) => answers,
            Err(error) => {
                let error = Arc::new(error);
                let each = |_| Err(Error::caused_by(error.kind(), "append an audit record", Arc::clone(&error)));
                (0..count).map(each).collect()
            }
        }
    }

    async fn read(&self, after: Option<&AuditPosition>, limit: usize) -> Result<AuditPage> {
        let unknown = |_| Error::new(ErrorKind::Undecodable, "read audit records: the position is of another sink");
        let mut from = after.map_or(Ok(0), |after| after.as_str().parse::<u64>().map_err(unknown))?;
        let mut records = Vec::new();
        loop {
            let left = limit - records.len();
            let page = self.call(1, move |claims| claims.disk.read_audit(from, left).map(Ok)).await?;
            records.extend(page.records);
            from = page.next;
            if !page.more {
                return Ok(AuditPage::new(records, AuditPosition::new(from.to_string())));
            }
        }
    }

    fn guarantees(&self) -> Guarantees {
        guarantees()
    }
}
