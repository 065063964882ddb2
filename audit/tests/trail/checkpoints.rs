//! When checkpoints are written and logged.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_audit::{Auditor, AuditorOptions, Checkpoint, MemoryAudit};
use tidings_core::ErrorKind;
use tidings_core::audit::{AuditHash, AuditOutcome, AuditRecord, AuditSink, Principal, StoredAudit};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::common::records;

fn intent() -> AuditRecord {
    AuditRecord::intent(Principal::new("ann"), "topic.delete").with_resource("topic:orders")
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_follows_the_last_records_without_a_further_one() {
    let sink = MemoryAudit::new();
    let auditor = Auditor::new(sink.clone());
    for _ in 0..3 {
        auditor.begin(intent()).await.unwrap().finish(intent().result(AuditOutcome::Ok)).await;
    }
    tokio::time::sleep(Duration::from_secs(590)).await;
    assert_eq!(records(&sink).await.len(), 6);
    // Once, however long nothing happens.
    for minutes in [1, 60] {
        tokio::time::sleep(Duration::from_secs(minutes * 60)).await;
        let records = records(&sink).await;
        assert_eq!((records.len(), records[6].verb.as_str()), (7, "chain.checkpoint"));
    }
    // Also where the last records are those of a refusal.
    auditor.denied(intent(), "a viewer").await.unwrap();
    auditor.denied(intent(), "a viewer").await.unwrap();
    tokio::time::sleep(Duration::from_secs(660)).await;
    let verbs: Vec<_> = records(&sink).await.into_iter().skip(7).map(|record| record.verb.to_string()).collect();
    let (denied, checkpoint) = ("topic.delete", "chain.checkpoint");
    assert_eq!(verbs, [denied, denied, checkpoint, denied, denied, checkpoint]);
}

/// Keeps the checkpoints that are logged.
#[derive(Debug, Clone, Default)]
struct Logged(Arc<Mutex<Vec<Checkpoint>>>);

impl Subscriber for Logged {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "tidings::audit"
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl Visit for Logged {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "checkpoint" {
            self.0.lock().unwrap().push(format!("{value:?}").parse().unwrap());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_is_logged_when_the_sink_has_it() {
    let logged = Logged::default();
    let _guard = tracing::subscriber::set_default(logged.clone());
    let sink = MemoryAudit::new();
    let options = AuditorOptions::default().with_checkpoints(1, Duration::from_secs(600));
    let auditor = Auditor::with_options(sink.clone(), options);
    sink.fail_with(Some(ErrorKind::Unavailable));
    auditor.begin(intent()).await.unwrap_err();
    assert_eq!(*logged.0.lock().unwrap(), []);

    // The chain is broken off: its waiting checkpoints will never be stored.
    let (chain, zero) = (auditor.status().chain, AuditHash::ZERO);
    sink.fail_with(None);
    sink.append(vec![StoredAudit::new(chain, 0, zero, zero, "forged")]).await.remove(0).unwrap();
    while auditor.flush().await.is_err() {}
    auditor.begin(intent()).await.unwrap().finish(intent().result(AuditOutcome::Ok)).await;
    auditor.close().await.unwrap();

    let stored = sink.records();
    let logged = logged.0.lock().unwrap();
    assert!(logged.len() >= 2, "{logged:?}");
    for head in &*logged {
        let is_stored =
            |record: &StoredAudit| (&record.chain, record.seq, record.hash) == (&head.chain, head.seq, head.hash);
        assert!(stored.iter().any(is_stored), "{head}");
    }
    assert_eq!(logged.last(), auditor.status().stored.as_ref());
}
