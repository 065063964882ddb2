//! No payload and no secret is in an audit record, an error or a debug output; and no change of an event breaks a chain.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidings_audit::{
    Audited, AuditedLetters, Auditor, AuditorOptions, EventOperations, EventPolicy, MemoryAudit, verify,
};
use tidings_core::{
    ConfigResource, DeadLetter, DeadLetterSink, DeadLetterStore, Delivery, ErrorKind, LetterLease, Record, Resolution,
    StoredRecord, Timestamp, Topic, TopicPartition, TransactorOptions, Transport, reject,
};
use tidings_memory::{MemoryDeadLetters, MemoryTransport};
use tidings_service::{Retry, Router, Service};

use crate::common::{Fake, records};

const CANARY: &str = "CANARY-";

/// A record with a canary in each part of it.
fn record(topic: &'static str) -> Record {
    let value = format!(
        r#"{{"eventId":"{}","eventType":"{CANARY}01","timestamp":1,"source":"{CANARY}02","version":"1.0","payload":"{CANARY}03"}}"#,
        uuid::Uuid::now_v7()
    );
    Record::new(topic, value)
        .with_key(format!("{CANARY}04"))
        .with_header("tenant", format!("{CANARY}05"))
        .with_header(format!("{CANARY}06"), "x")
        .with_header("authorization", format!("{CANARY}07"))
}

fn no_canary(what: &str, text: &str) {
    assert!(!text.contains(CANARY), "{what}: {text}");
}

async fn check(sink: &MemoryAudit, auditor: &Auditor) {
    auditor.close().await.unwrap();
    for stored in sink.records() {
        no_canary("a record", str::from_utf8(&stored.bytes).unwrap());
        no_canary("the debug output", &format!("{stored:?}"));
    }
    for record in records(sink).await {
        no_canary("the debug output", &format!("{record:?}"));
    }
    no_canary("the status", &format!("{auditor:?}"));
}

#[tokio::test]
async fn changes_of_settings_show_no_secret() {
    let secrets = [
        ("sasl.jaas.config", "08"),
        ("ssl.keystore.password", "09"),
        ("ssl.key.password", "10"),
        ("client.secret", "11"),
        ("oauth.token", "12"),
        ("listener.extra", "13"),
    ];
    let settings: Vec<_> = secrets.iter().map(|(name, n)| ((*name).to_owned(), Some(format!("{CANARY}{n}")))).collect();
    // A broker that repeats what it refuses.
    let refusal = format!("invalid values: {CANARY}08, {CANARY}09, {CANARY}10, {CANARY}11, {CANARY}12, {CANARY}13");
    for fake in [Fake::ok(), Fake::failing(ErrorKind::Invalid, refusal)] {
        let sink = MemoryAudit::new();
        let auditor = Auditor::new(sink.clone());
        let transport = Audited::new(fake, auditor.clone());
        let cluster = transport.cluster().await.unwrap();
        drop(cluster.alter_configs(&ConfigResource::Broker(1), &settings).await);
        assert_eq!(sink.records().len(), 2);
        check(&sink, &auditor).await;
    }
    // All but the last one, which only the broker's answer shows to be sensitive.
    for fake in [Fake::ok(), Fake::failing(ErrorKind::Invalid, format!("invalid: {CANARY}09"))] {
        let sink = MemoryAudit::new();
        let auditor = Auditor::new(sink.clone());
        let transport = Audited::new(fake, auditor.clone());
        let admin = transport.admin().await.unwrap();
        drop(admin.alter_topic(&"orders".into(), &settings[..5]).await);
        let topic = settings[..5].iter().fold(Topic::new("orders"), |topic, (name, value)| {
            topic.with_setting(name.as_str(), value.clone().unwrap())
        });
        drop(admin.create_topics(&[topic]).await);
        assert_eq!(sink.records().len(), 4);
        check(&sink, &auditor).await;
    }
}

#[tokio::test]
async fn changes_of_letters_show_no_payload() {
    let sink = MemoryAudit::new();
    let auditor = Auditor::new(sink.clone());
    let letters = AuditedLetters::new(MemoryDeadLetters::new(), auditor.clone());
    let stored = StoredRecord::from_record(record("orders"), 7, Timestamp::now());
    let letter = DeadLetter::new("billing", TopicPartition::new("orders", 0), stored, ErrorKind::Failed)
        .with_error(format!("{CANARY}14"))
        .with_handler("handle");
    letters.bury(vec![letter.clone()]).await.remove(0).unwrap();
    let (id, lease) = (letter.id(), LetterLease::new(Duration::from_secs(9)));
    letters.lease(std::slice::from_ref(&id), &lease).await.unwrap();
    letters.note_refused(&[(id.clone(), format!("{CANARY}15"))], "ann").await.unwrap();
    letters.end_lease(std::slice::from_ref(&id), &lease).await.unwrap();
    letters.resolve(&[id], &Resolution::discarded("ann", "a test")).await.unwrap();
    assert_eq!(sink.records().len(), 8);
    check(&sink, &auditor).await;
}

#[tokio::test(start_paused = true)]
async fn operations_on_events_show_positions_and_ids_only() {
    let sink = MemoryAudit::new();
    let policy = EventPolicy::default().with_topic("orders", EventOperations::all());
    let auditor = Auditor::with_options(sink.clone(), AuditorOptions::default().with_events(policy));
    let broker = MemoryTransport::new();
    let transport = Audited::new(broker.clone(), auditor.clone());
    let seen = Arc::new(AtomicU64::new(0));
    let handler = move |_: Delivery| {
        let seen = seen.fetch_add(1, Ordering::Relaxed);
        async move { if seen.is_multiple_of(2) { Ok(()) } else { Err(reject(format!("{CANARY}16"))) } }
    };
    let service = Service::new("billing", Router::new().on_topic("orders", handler))
        .with_retry(Retry::exponential(Duration::from_millis(1)).with_max_retries(0))
        .with_observer(auditor.observer());
    let service = service.start(&transport).await.unwrap();
    let publisher = transport.publisher().await.unwrap();
    assert!(publisher.publish((0..4).map(|_| record("orders")).collect()).await.iter().all(Result::is_ok));
    service.caught_up().await.unwrap();
    service.shutdown(Duration::from_secs(10)).await.unwrap();
    let transactor = transport.transactor(TransactorOptions::new("importer")).await.unwrap();
    assert!(transactor.publish(vec![record("orders"), record("unrecorded")]).await.iter().all(Result::is_ok));
    transactor.commit(None).await.unwrap();
    check(&sink, &auditor).await;
    let records = records(&sink).await;
    let events = |verb: &str| records.iter().filter(|r| r.verb == verb).map(|r| r.events.len()).sum::<usize>();
    assert_eq!((events("event.publish"), events("event.handle"), events("event.dead-letter")), (5, 2, 2));
    assert!(records.iter().flat_map(|record| &record.events).all(|event| event.id.is_some()));
}

/// The key of a person's data is deleted, and so is the record of it: the audit trail never contained either.
#[tokio::test]
async fn shredding_a_person_breaks_no_chain() {
    let sink = MemoryAudit::new();
    let policy = EventPolicy::default().with_topic("people", EventOperations::all());
    let auditor = Auditor::with_options(sink.clone(), AuditorOptions::default().with_events(policy));
    let broker = MemoryTransport::new();
    let transport = Audited::new(broker.clone(), auditor.clone());
    let publisher = transport.publisher().await.unwrap();
    let mut key = [0x5a_u8; 16];
    let sealed: Vec<u8> = b"a person's name".iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    publisher.publish(vec![Record::new("people", sealed.clone()).with_key("p1")]).await.remove(0).unwrap();
    let kept = auditor.close().await.unwrap().unwrap();
    key.fill(0);
    broker.admin().await.unwrap().delete_topics(&["people".into()]).await.unwrap().remove(0).unwrap();
    let verified = verify(&sink, &[kept]).await.unwrap();
    assert!(verified.is_intact(), "{verified:?}");
    let sealed = |bytes: &[u8]| bytes.windows(sealed.len()).any(|part| part == sealed);
    assert!(sink.records().iter().all(|stored| !sealed(&stored.bytes)));
}
