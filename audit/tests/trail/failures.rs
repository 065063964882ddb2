//! The fate of changes and events while the sink takes no records.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tidings_audit::{
    Audited, AuditedLetters, Auditor, AuditorOptions, EventOperations, EventPolicy, MemoryAudit, OnSinkFailure, verify,
};
use tidings_core::audit::{
    AuditHash, AuditOutcome, AuditPage, AuditPosition, AuditRecord, AuditSink, Principal, StoredAudit,
};
use tidings_core::{
    Clause, DeadLetterStore, DelayedRecord, Error, ErrorKind, Guarantees, LetterId, Publisher, ReadLimits, Record,
    Resolution, Result, Topic, TopicPartition, Transport, async_trait,
};
use tidings_memory::MemoryTransport;
use uuid::Uuid;

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

#[tokio::test(start_paused = true)]
async fn a_read_that_is_refused_is_recorded_as_failed() {
    let sink = MemoryAudit::new();
    let auditor = Auditor::new(sink.clone());
    sink.fail_with(Some(ErrorKind::Unavailable));
    auditor.record(&intent("event.read"), AuditOutcome::Ok).await.unwrap_err();
    sink.fail_with(None);
    written(&auditor).await;
    assert_eq!(records(&sink).await.iter().map(status).collect::<Vec<_>>(), ["ok", "failed"]);
}

#[tokio::test(start_paused = true)]
async fn refusals_and_reads_leave_room_for_changes() {
    let sink = MemoryAudit::new();
    let options = AuditorOptions::default().with_max_waiting(10).with_on_sink_failure(OnSinkFailure::Proceed);
    let auditor = Auditor::with_options(sink.clone(), options);
    sink.fail_with(Some(ErrorKind::Unavailable));
    for _ in 0..20 {
        auditor.denied(intent("topic.create"), "a viewer").await.unwrap_err();
        auditor.record(&intent("event.read"), AuditOutcome::Ok).await.unwrap();
    }
    assert_eq!(auditor.status().waiting, 5);
    let attempt = auditor.begin(intent("topic.delete")).await.unwrap();
    attempt.finish(intent("topic.delete").result(AuditOutcome::Ok)).await;
    assert_eq!(auditor.status().waiting, 7, "the change is recorded");
}

/// Publishes an event during each append, as a busy service does.
#[derive(Debug, Default)]
struct Busy {
    inner: MemoryAudit,
    publisher: OnceLock<Arc<dyn Publisher>>,
    calls: AtomicU64,
}

#[async_trait]
impl AuditSink for Busy {
    async fn append(&self, records: Vec<StoredAudit>) -> Vec<Result<()>> {
        let called = self.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(publisher) = self.publisher.get().filter(|_| called < 1_000) {
            publisher.publish(vec![Record::new("orders", "1")]).await.remove(0).unwrap();
        }
        self.inner.append(records).await
    }
    async fn read(&self, after: Option<&AuditPosition>, limit: usize) -> Result<AuditPage> {
        self.inner.read(after, limit).await
    }
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

#[tokio::test(start_paused = true)]
async fn a_flush_ends_although_events_come() {
    let sink = Arc::new(Busy::default());
    let auditor = Auditor::with_options(Arc::clone(&sink), events(100));
    let publisher = Audited::new(MemoryTransport::new(), auditor.clone()).publisher().await.unwrap();
    assert!(sink.publisher.set(Arc::clone(&publisher)).is_ok());
    publisher.publish(vec![Record::new("orders", "1")]).await.remove(0).unwrap();
    auditor.flush().await.unwrap();
    assert_eq!((sink.calls.load(Ordering::Relaxed), auditor.status().waiting_events), (1, 1));
}

/// The broker would publish it unrecorded.
#[tokio::test(start_paused = true)]
async fn a_delayed_event_of_a_recorded_topic_is_refused_and_others_are_not() {
    let auditor = Auditor::with_options(MemoryAudit::new(), events(100));
    let publisher = Audited::new(MemoryTransport::new(), auditor).publisher().await.unwrap();
    let delayed = DelayedRecord::new(Uuid::now_v7(), Record::new("orders", "1"), Duration::from_secs(1));
    let error = publisher.publish_delayed(delayed.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("orders"), "{error}");
    assert!(!publisher.cancel_delayed(delayed.id).await.unwrap());

    let auditor = Auditor::new(MemoryAudit::new());
    let publisher = Audited::new(MemoryTransport::new(), auditor).publisher().await.unwrap();
    publisher.publish_delayed(delayed.clone()).await.unwrap();
    assert!(publisher.cancel_delayed(delayed.id).await.unwrap());
}

#[test]
fn events_are_written_after_the_end_of_the_runtime_of_the_first() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let sink = MemoryAudit::new();
    let auditor = Auditor::with_options(sink.clone(), events(100));
    let transport = Audited::new(MemoryTransport::new(), auditor.clone());
    let publish = async || {
        let publisher = transport.publisher().await.unwrap();
        publisher.publish(vec![Record::new("orders", "1")]).await.remove(0).unwrap();
    };
    runtime().block_on(publish());
    runtime().block_on(async {
        publish().await;
        written(&auditor).await;
    });
    assert_eq!(sink.records().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_read_names_all_its_records_also_in_dead_letter_topics() {
    let (sink, broker) = (MemoryAudit::new(), MemoryTransport::new());
    let auditor = Auditor::with_options(sink.clone(), events(100));
    let transport = Audited::new(broker.clone(), auditor);
    broker.admin().await.unwrap().create_topics(&[Topic::new("orders-dlq")]).await.unwrap().remove(0).unwrap();
    let sent = (0..2_500).map(|n| Record::new("orders-dlq", format!("{n}")).with_partition(0)).collect();
    assert!(broker.publisher().await.unwrap().publish(sent).await.iter().all(Result::is_ok));
    let limits = ReadLimits::default().with_max_records(10_000);
    let reader = transport.log_reader().await.unwrap();
    let read = reader.read(&TopicPartition::new("orders-dlq", 0), 0, limits).await.unwrap();
    let offsets = |record: &AuditRecord| record.events.iter().map(|event| event.offset).collect::<Vec<_>>();
    let named: Vec<u64> = records(&sink).await.iter().flat_map(offsets).collect();
    assert_eq!((named, read.batch.records().len()), ((0..2_500).collect(), 2_500));
}
