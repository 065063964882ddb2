//! The fate of changes and events while the sink takes no records.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tidings_audit::{
    Audited, AuditedLetters, Auditor, AuditorOptions, EventOperations, EventPolicy, MemoryAudit, OnSinkFailure, verify,
};
use tidings_core::audit::{
    AuditHash, AuditOutcome, AuditPage, AuditPosition, AuditRecord, AuditSink, Principal, StoredAudit,
};
use tidings_core::{
    Clause, DeadLetterStore, Error, ErrorKind, Guarantees, LetterId, Record, Resolution, Result, Topic, TopicPartition,
    Transport, async_trait,
};
use tidings_memory::MemoryTransport;

use crate::common::{Fake, records, status};

fn intent(verb: &'static str) -> AuditRecord {
    AuditRecord::intent(Principal::new("ann"), verb).with_resource("topic:orders")
}

/// Waits until nothing waits for the sink any more; the clock is paused.
async fn written(auditor: &Auditor) {
    let wait = async {
        while auditor.status().waiting > 0 || auditor.status().waiting_events > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_change_is_refused_while_the_sink_takes_no_record() {
    let kinds = [
        (ErrorKind::Denied, ErrorKind::Denied),
        (ErrorKind::Unavailable, ErrorKind::Unavailable),
        // The change itself was certainly not made.
        (ErrorKind::Indeterminate, ErrorKind::Unavailable),
    ];
    for (of_sink, expected) in kinds {
        let (sink, broker) = (MemoryAudit::new(), MemoryTransport::new());
        let auditor = Auditor::new(sink.clone());
        let transport = Audited::new(broker.clone(), auditor.clone());
        sink.fail_with(Some(of_sink));
        let admin = transport.admin().await.unwrap();
        let error = admin.create_topics(&[Topic::new("orders")]).await.unwrap_err();
        assert_eq!(error.kind(), expected, "{error:?}");
        assert!(error.to_string().starts_with("topic.create is refused"), "{error}");
        assert!(broker.admin().await.unwrap().list_topics().await.unwrap().is_empty(), "nothing was created");
        assert!(auditor.status().is_degraded());

        // The attempt is recorded once the sink takes records again.
        sink.fail_with(None);
        written(&auditor).await;
        assert_eq!(records(&sink).await.iter().map(status).collect::<Vec<_>>(), ["intent", "failed"]);
        assert!(!auditor.status().is_degraded());
        admin.create_topics(&[Topic::new("orders")]).await.unwrap().remove(0).unwrap();
        assert_eq!(records(&sink).await.len(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn letters_stay_as_they_are_while_the_sink_takes_no_record() {
    let sink = MemoryAudit::new();
    let letters = AuditedLetters::new(Fake::ok(), Auditor::new(sink.clone()));
    let letter = [LetterId::new("billing", TopicPartition::new("orders", 0), 7)];
    sink.fail_with(Some(ErrorKind::Denied));
    let refused = letters.resolve(&letter, &Resolution::discarded("ann", "a test")).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test(start_paused = true)]
async fn a_full_sink_refuses_changes() {
    let sink = MemoryAudit::new().with_max_records(2);
    let auditor = Auditor::new(sink.clone());
    let attempt = auditor.begin(intent("topic.create")).await.unwrap();
    attempt.finish(intent("topic.create").result(AuditOutcome::Ok)).await;
    assert_eq!(auditor.begin(intent("topic.delete")).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(records(&sink).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_result_that_the_sink_does_not_take_waits_for_it() {
    let sink = MemoryAudit::new();
    let auditor = Auditor::new(sink.clone());
    let intent = intent("topic.create");
    let attempt = auditor.begin(intent.clone()).await.unwrap();
    sink.fail_with(Some(ErrorKind::Unavailable));
    // It does not fail: the change was made.
    attempt.finish(intent.result(AuditOutcome::Ok)).await;
    assert_eq!(auditor.status().waiting, 1);
    sink.fail_with(None);
    written(&auditor).await;
    assert_eq!(records(&sink).await.iter().map(status).collect::<Vec<_>>(), ["intent", "ok"]);
}

#[tokio::test(start_paused = true)]
async fn changes_can_proceed_without_records() {
    let (sink, broker) = (MemoryAudit::new(), MemoryTransport::new());
    let options = AuditorOptions::default().with_on_sink_failure(OnSinkFailure::Proceed);
    let auditor = Auditor::with_options(sink.clone(), options);
    sink.fail_with(Some(ErrorKind::Unavailable));
    let admin = Audited::new(broker.clone(), auditor.clone()).admin().await.unwrap();
    admin.create_topics(&[Topic::new("orders")]).await.unwrap().remove(0).unwrap();
    assert_eq!(broker.admin().await.unwrap().list_topics().await.unwrap(), ["orders"]);
    sink.fail_with(None);
    written(&auditor).await;
    assert_eq!(records(&sink).await.iter().map(status).collect::<Vec<_>>(), ["intent", "ok"]);
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_bounded_and_what_is_lost_is_stated() {
    let sink = MemoryAudit::new();
    let auditor = Auditor::with_options(sink.clone(), AuditorOptions::default().with_max_waiting(10));
    sink.fail_with(Some(ErrorKind::Unavailable));
    for _ in 0..40 {
        auditor.begin(intent("topic.create")).await.unwrap_err();
    }
    let status = auditor.status();
    assert!(status.waiting <= 20 && status.lost > 0, "{status:?}");
    sink.fail_with(None);
    auditor.close().await.unwrap();
    let checkpoint = records(&sink).await.pop().unwrap();
    assert_eq!((checkpoint.verb.as_str(), checkpoint.counts.get("lost")), ("chain.checkpoint", Some(&status.lost)));
}

/// Takes every record, and loses the answer of every third append.
#[derive(Debug, Default)]
struct Forgetful {
    inner: MemoryAudit,
    calls: AtomicU64,
}

#[async_trait]
impl AuditSink for Forgetful {
    async fn append(&self, records: Vec<StoredAudit>) -> Vec<Result<()>> {
        let count = records.len();
        let answers = self.inner.append(records).await;
        let lost = |_| Err(Error::new(ErrorKind::Indeterminate, "no answer"));
        match self.calls.fetch_add(1, Ordering::Relaxed) % 3 {
            2 => (0..count).map(lost).collect(),
            _ => answers,
        }
    }
    async fn read(&self, after: Option<&AuditPosition>, limit: usize) -> Result<AuditPage> {
        self.inner.read(after, limit).await
    }
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees().without(Clause::T1, "its answers are lost")
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_lost_break_no_chain() {
    let sink = Arc::new(Forgetful::default());
    let auditor = Auditor::new(Arc::clone(&sink));
    let mut refused = 0;
    for _ in 0..30 {
        let intent = intent("topic.create");
        match auditor.begin(intent.clone()).await {
            Ok(attempt) => attempt.finish(intent.result(AuditOutcome::Ok)).await,
            Err(_) => refused += 1,
        }
    }
    written(&auditor).await;
    let records = records(&sink.inner).await;
    assert_eq!(records.len(), 60);
    assert_eq!(records.iter().filter(|record| status(record) == "failed").count(), refused);
    assert!(refused > 0);
}

/// Takes a while for each record, as a topic does.
#[derive(Debug)]
struct Slow {
    inner: MemoryAudit,
    is_down: AtomicBool,
    each: Duration,
}

#[async_trait]
impl AuditSink for Slow {
    async fn append(&self, records: Vec<StoredAudit>) -> Vec<Result<()>> {
        if self.is_down.load(Ordering::Relaxed) {
            return records.iter().map(|_| Err(Error::new(ErrorKind::Unavailable, "down"))).collect();
        }
        let mut answers = Vec::new();
        for record in records {
            tokio::time::sleep(self.each).await;
            answers.extend(self.inner.append(vec![record]).await);
        }
        answers
    }
    async fn read(&self, after: Option<&AuditPosition>, limit: usize) -> Result<AuditPage> {
        self.inner.read(after, limit).await
    }
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_sink_takes_what_waited_for_it() {
    for each in [100, 400].map(Duration::from_millis) {
        let sink = Arc::new(Slow { inner: MemoryAudit::new(), is_down: true.into(), each });
        let auditor = Auditor::new(Arc::clone(&sink));
        for _ in 0..150 {
            auditor.begin(intent("topic.create")).await.unwrap_err();
        }
        assert_eq!(auditor.status().waiting, 300);
        sink.is_down.store(false, Ordering::Relaxed);

        let asked = tokio::time::Instant::now();
        let late = auditor.begin(intent("topic.delete")).await;
        assert!(asked.elapsed() <= 2 * AuditorOptions::DEFAULT_ANSWER_WITHIN, "{:?}", asked.elapsed());
        assert_eq!(late.unwrap_err().kind(), ErrorKind::Unavailable, "too many records are before it");
        let wait = async {
            while auditor.status().waiting > 0 {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(300), wait).await.unwrap();
        assert_eq!(records(&sink.inner).await.len(), 302, "at {each:?} for each record");
    }
}

#[tokio::test(start_paused = true)]
async fn a_number_that_is_taken_begins_a_new_chain() {
    let sink = MemoryAudit::new();
    let auditor = Auditor::new(sink.clone());
    let attempt = auditor.begin(intent("topic.create")).await.unwrap();
    let (chain, zero) = (auditor.status().chain, AuditHash::ZERO);
    sink.append(vec![StoredAudit::new(chain.clone(), 1, zero, zero, "forged")]).await.remove(0).unwrap();
    attempt.finish(intent("topic.create").result(AuditOutcome::Ok)).await;
    written(&auditor).await;
    assert_ne!(auditor.status().chain, chain);
    let verified = verify(&sink, &[]).await.unwrap();
    let bad: Vec<_> = verified.problems().map(|(report, problem)| (&report.chain, problem.seq)).collect();
    assert_eq!(bad, [(&chain, 1)], "the forged record, and no other");
    assert_eq!(verified.records, 3);
}

fn events(max: usize) -> AuditorOptions {
    let policy = EventPolicy::default().with_topic("orders", EventOperations::all());
    AuditorOptions::default().with_events(policy).with_max_events(max)
}

#[tokio::test(start_paused = true)]
async fn events_wait_up_to_a_bound_then_are_counted_and_dropped() {
    let (sink, broker) = (MemoryAudit::new(), MemoryTransport::new());
    let auditor = Auditor::with_options(sink.clone(), events(100));
    let publisher = Audited::new(broker, auditor.clone()).publisher().await.unwrap();
    sink.fail_with(Some(ErrorKind::Denied));
    for _ in 0..25 {
        let records = (0..10).map(|n| Record::new("orders", format!("{n}"))).collect();
        // Publishing never waits for the sink, and never fails with it.
        assert!(publisher.publish(records).await.iter().all(Result::is_ok));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let status = auditor.status();
    assert!(status.is_degraded() && status.waiting_events <= 100 && status.dropped_events > 0, "{status:?}");
    sink.fail_with(None);
    written(&auditor).await;
    let records = records(&sink).await;
    let recorded: u64 = records.iter().map(|record| record.events.len() as u64).sum();
    let stated: u64 = records.iter().filter_map(|record| record.counts.get("dropped")).sum();
    assert_eq!((recorded + stated, stated), (250, status.dropped_events));
}
