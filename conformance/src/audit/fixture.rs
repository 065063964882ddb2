//! Helpers of the cases of an audit sink: chains, and calls with their answers checked.

use std::sync::Arc;

use tidings_core::Name;
use tidings_core::audit::{AuditHash, AuditPage, AuditPosition, AuditSink, StoredAudit};

use crate::case::{Checked, broken, granted, same};
use crate::context::Context;

/// Context of a case of an audit sink.
pub(super) type Fixture = Context<dyn AuditSink>;

/// The records of one page.
const PAGE: usize = 100;

/// Creates record `seq` of a chain. Its hashes are of the right length, and no sink can check more.
pub(super) fn record(chain: &Name, seq: u64) -> StoredAudit {
    let hash = |seq: u64| {
        let mut bytes = [0xab; 32];
        bytes[..8].copy_from_slice(&seq.to_be_bytes());
        AuditHash::new(bytes)
    };
    let prev = seq.checked_sub(1).map_or(AuditHash::ZERO, hash);
    StoredAudit::new(chain.clone(), seq, prev, hash(seq), format!(r#"{{"record":{seq},"größe":"é\u0000"}}"#))
}

/// Creates the records of a chain.
pub(super) fn records(chain: &Name, seqs: std::ops::Range<u64>) -> Vec<StoredAudit> {
    seqs.map(|seq| record(chain, seq)).collect()
}

impl Fixture {
    pub(super) fn sink(&self) -> Checked<Arc<dyn AuditSink>> {
        self.backend()
    }

    pub(super) async fn append(&self, records: Vec<StoredAudit>) -> Checked {
        let (sink, count) = (self.sink()?, records.len());
        let answers = self.within("answers to append", sink.append(records)).await?;
        self.note(format!("append {count} records: {} answers", answers.len()));
        same("answers to append", count, answers.len())?;
        answers.into_iter().try_for_each(|answer| granted("append", answer))
    }

    pub(super) async fn page(&self, after: Option<&AuditPosition>, limit: usize) -> Checked<AuditPage> {
        let sink = self.sink()?;
        let page = self.within("a page", sink.read(after, limit)).await??;
        self.note(format!("read {} of at most {limit} records", page.records.len()));
        if page.records.len() > limit {
            return broken(format!("at most {limit} records"), page.records.len());
        }
        Ok(page)
    }

    /// Reads everything after a position, and returns the records of some chains.
    pub(super) async fn read_after(
        &self,
        mut after: Option<AuditPosition>,
        chains: &[Name],
    ) -> Checked<(Vec<StoredAudit>, Option<AuditPosition>)> {
        let mut read = Vec::new();
        loop {
            let page = self.page(after.as_ref(), PAGE).await?;
            if page.records.is_empty() {
                return Ok((read, after));
            }
            read.extend(page.records.into_iter().filter(|record| chains.contains(&record.chain)));
            after = Some(page.next);
        }
    }

    /// Reads a chain, without records that come again.
    pub(super) async fn chain(&self, chain: &Name) -> Checked<Vec<StoredAudit>> {
        let (read, _) = self.read_after(None, std::slice::from_ref(chain)).await?;
        let mut distinct: Vec<StoredAudit> = Vec::new();
        for record in read {
            if !distinct.contains(&record) {
                distinct.push(record);
            }
        }
        Ok(distinct)
    }
}

/// Compares records with their bytes, which `Debug` hides.
pub(super) fn same_records(what: &str, expected: &[StoredAudit], came: &[StoredAudit]) -> Checked {
    let seqs = |records: &[StoredAudit]| records.iter().map(|record| record.seq).collect::<Vec<_>>();
    same(&format!("{what}: the numbers"), seqs(expected), seqs(came))?;
    for (expected, came) in expected.iter().zip(came) {
        same(&format!("{what}: the record"), expected, came)?;
        same(&format!("{what}: the bytes"), &expected.bytes, &came.bytes)?;
    }
    Ok(())
}
