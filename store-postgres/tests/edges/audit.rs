//! Audit records: what a reader that follows them sees, and that they stay until they are purged.

use std::time::{Duration, Instant};

use tidings_core::audit::{AuditHash, AuditPosition, AuditSink, StoredAudit};
use tidings_core::{Error, Name};
use tidings_postgres::PostgresStore;

use crate::common::{LIMIT, TestResult};
use crate::open;

fn record(chain: &Name, seq: u64) -> StoredAudit {
    StoredAudit::new(chain.clone(), seq, AuditHash::ZERO, AuditHash::ZERO, format!("{seq}"))
}

async fn all(store: &PostgresStore, mut after: Option<AuditPosition>) -> TestResult<Vec<StoredAudit>> {
    let mut all = Vec::new();
    loop {
        let page = store.read(after.as_ref(), 100).await?;
        if page.records.is_empty() {
            return Ok(all);
        }
        all.extend(page.records);
        after = Some(page.next);
    }
}

/// The number of a record is drawn before its commit: a reader that passed it by would never see it.
pub(super) async fn followed() -> TestResult {
    const RECORDS: u64 = 40;
    let (store, _) = open(|config| config).await?;
    let writer = |n: u64| {
        let (store, chain) = (store.clone(), Name::from(format!("chain-{n}")));
        tokio::spawn(async move {
            for seq in 0..RECORDS {
                store.append(vec![record(&chain, seq)]).await.remove(0)?;
            }
            Ok::<_, Error>(())
        })
    };
    let writers: Vec<_> = (0..4).map(writer).collect();
    let (mut seen, mut after) = (0, None);
    let deadline = Instant::now() + LIMIT;
    while seen < 4 * RECORDS {
        assert!(Instant::now() < deadline, "{seen} records were seen");
        let page = store.read(after.as_ref(), 3).await?;
        seen += page.records.len() as u64;
        after = Some(page.next);
    }
    for writer in writers {
        writer.await??;
    }
    assert_eq!(all(&store, None).await?.len() as u64, 4 * RECORDS);
    Ok(())
}

pub(super) async fn purged() -> TestResult {
    let (store, _) = open(|config| config.with_purge_batch(2)).await?;
    let chain = Name::from("ops");
    store.append((0..5).map(|seq| record(&chain, seq)).collect()).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let position = store.read(None, 5).await?.next;
    for age in [Duration::from_secs(3_600), Duration::MAX] {
        assert_eq!(store.purge_audit(age).await?, 0);
    }
    assert_eq!(store.purge_audit(Duration::ZERO).await?, 5);
    store.append(vec![record(&chain, 5)]).await.remove(0)?;
    assert_eq!(all(&store, Some(position)).await?, [record(&chain, 5)]);
    Ok(())
}
