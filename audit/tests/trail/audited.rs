//! Every method that changes something leaves one intent and its result, whatever comes of it.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tidings_audit::{Audited, AuditedLetters, Auditor, MemoryAudit};
use tidings_core::audit::{AuditOutcome, AuditRecord, Principal};
use tidings_core::{
    Acl, AclOperation, AclResource, AclResourceType, ConfigResource, CreatePartitionsOptions, DeadLetterStore, Error,
    ErrorKind, LetterId, LetterLease, LetterQuery, ResetOffsetsOptions, ResetTo, Resolution, SeekTo, Topic,
    TopicPartition, Transport,
};

use tidings_memory::MemoryTransport;

use crate::common::{Fake, intent_of, records, status};

type Change =
    for<'a> fn(&'a Audited<Fake>, &'a AuditedLetters<Fake>) -> Pin<Box<dyn Future<Output = Option<Error>> + 'a>>;

fn orders() -> AclResource {
    AclResource::literal(AclResourceType::Topic, "orders")
}

fn letter() -> [LetterId; 1] {
    [LetterId::new("billing", TopicPartition::new("orders", 0), 7)]
}

fn lease() -> LetterLease {
    LetterLease::new(Duration::from_secs(9))
}

fn first<T>(answers: Vec<Result<T, Error>>) -> Option<Error> {
    answers.into_iter().find_map(Result::err)
}

/// Lists each method that changes something, with its verb.
macro_rules! changes {
    ($($verb:literal: |$transport:ident, $letters:ident| $change:expr;)*) => {
        &[$(($verb, |$transport, $letters| Box::pin(async move { let _unused = ($transport, $letters); $change }))),*]
    };
}

const CHANGES: &[(&str, Change)] = changes! {
    "topic.create": |t, l| first(t.admin().await.unwrap().create_topics(&[Topic::new("orders")]).await.unwrap());
    "topic.delete": |t, l| first(t.admin().await.unwrap().delete_topics(&["orders".into()]).await.unwrap());
    "topic.grow": |t, l| {
        let options = CreatePartitionsOptions::default();
        t.admin().await.unwrap().create_partitions(&"orders".into(), 9, options).await.err()
    };
    "topic.alter": |t, l| {
        let changes = [("retention.ms".to_owned(), Some("5".to_owned()))];
        t.admin().await.unwrap().alter_topic(&"orders".into(), &changes).await.err()
    };
    "group.reset": |t, l| {
        let to = ResetTo::Position(SeekTo::Earliest);
        let options = ResetOffsetsOptions::default();
        t.admin().await.unwrap().reset_offsets(&"billing".into(), &["orders".into()], to, options).await.err()
    };
    "group.delete": |t, l| t.admin().await.unwrap().delete_group(&"billing".into()).await.err();
    "acl.create": |t, l| {
        let acl = Acl::allow("User:ann", AclOperation::Read, orders());
        first(t.acls().await.unwrap().create(&[acl]).await.unwrap())
    };
    "acl.delete": |t, l| {
        let acl = Acl::allow("User:ann", AclOperation::Read, orders());
        first(t.acls().await.unwrap().delete(&[acl]).await.unwrap())
    };
    "config.alter": |t, l| {
        let changes = [("log.retention.ms".to_owned(), None)];
        t.cluster().await.unwrap().alter_configs(&ConfigResource::Cluster, &changes).await.err()
    };
    "dead-letter.discard": |t, l| l.resolve(&letter(), &Resolution::discarded("ann", "a test")).await.err();
    "dead-letter.park": |t, l| l.resolve(&letter(), &Resolution::parked("ann", "later")).await.err();
    "dead-letter.redrive": |t, l| l.resolve_leased(&letter(), &lease(), &Resolution::redriven("ann")).await.err();
    "dead-letter.lease": |t, l| l.lease(&letter(), &lease()).await.err();
    "dead-letter.end-lease": |t, l| l.end_lease(&letter(), &lease()).await.err();
    "dead-letter.refuse": |t, l| {
        let [letter] = letter();
        l.note_refused(&[(letter, "too large".to_owned())], "ann").await.err()
    };
};

fn audited(fake: Fake) -> (MemoryAudit, Auditor, Audited<Fake>, AuditedLetters<Fake>) {
    let sink = MemoryAudit::new();
    let auditor = Auditor::new(sink.clone());
    let ann = Principal::new("ann").with_authentication("token").with_address("10.0.0.7");
    let transport = Audited::new(fake.clone(), auditor.clone()).as_principal(ann.clone()).with_plan("p1");
    let transport = transport.with_reason("because").with_correlation_id("c1");
    let letters = AuditedLetters::new(fake, auditor.clone()).as_principal(ann).with_plan("p1");
    let letters = letters.with_reason("because").with_correlation_id("c1");
    (sink, auditor, transport, letters)
}

#[tokio::test]
async fn each_change_leaves_one_intent_and_its_result() {
    let ends = [
        (Fake::ok(), "ok", None),
        (Fake::failing(ErrorKind::Denied, "no right"), "denied", Some(ErrorKind::Denied)),
        (Fake::failing(ErrorKind::Conflict, "it is in use"), "failed", Some(ErrorKind::Conflict)),
        (Fake::failing(ErrorKind::Indeterminate, "no answer"), "unknown", Some(ErrorKind::Indeterminate)),
    ];
    for (verb, change) in CHANGES {
        for (fake, expected, error) in &ends {
            let (sink, _, transport, letters) = audited(fake.clone());
            assert_eq!(change(&transport, &letters).await.map(|error| error.kind()), *error, "{verb}: the answer");
            let records = records(&sink).await;
            let [intent, result] = &records[..] else { panic!("{verb}: {records:?}") };
            assert_eq!((status(intent), status(result)), ("intent", *expected), "{verb}");
            assert_eq!(intent_of(result), Some(intent.id), "{verb}");
            for record in [intent, result] {
                assert_eq!(record.verb, *verb);
                assert_eq!((record.principal.name.as_str(), &*record.principal.authenticated_by), ("ann", "token"));
                let deletes = ["topic.delete", "group.delete"].contains(verb);
                assert!(!record.resources.is_empty() && (deletes || !record.after.is_empty()), "{record:?}");
                assert!(!record.reason.is_empty(), "{verb}");
                assert_eq!((record.correlation_id.as_deref(), record.plan.as_deref()), (Some("c1"), Some("p1")));
            }
        }
    }
}

#[tokio::test]
async fn a_result_states_what_was_before_and_what_is_after() {
    let expected: &[(&str, &str, &str, &str)] = &[
        ("topic.delete", "orders.offsets", "7", ""),
        ("topic.grow", "orders.partitions", "1", "9"),
        ("topic.alter", "retention.ms", "1000", "5"),
        ("group.reset", "orders[0]", "5", "0"),
        ("group.delete", "orders[0]", "5", ""),
        ("acl.delete", "acl:allow User:ann read on topic orders from *", "present", "absent"),
        ("config.alter", "log.retention.ms", "7", "(default)"),
    ];
    for (verb, name, before, after) in expected {
        let (sink, _, transport, letters) = audited(Fake::ok());
        let (_, change) = CHANGES.iter().find(|(of, _)| of == verb).unwrap();
        assert!(change(&transport, &letters).await.is_none());
        let result = records(&sink).await.remove(1);
        assert_eq!(result.before.get(*name).map(String::as_str), Some(*before), "{result:?}");
        assert_eq!(result.after.get(*name).map_or("", String::as_str), *after, "{result:?}");
    }
}

#[tokio::test]
async fn reading_leaves_no_record() {
    let (sink, _, transport, letters) = audited(Fake::ok());
    let admin = transport.admin().await.unwrap();
    admin.list_topics().await.unwrap();
    admin.describe_topics(&["orders".into()]).await.unwrap();
    admin.group_lag(&"billing".into()).await.unwrap();
    admin.group_lags(&["billing".into()]).await.unwrap();
    admin.health().await.unwrap();
    let (to, dry_run) = (ResetTo::Shift(-1), ResetOffsetsOptions::default().with_dry_run());
    admin.reset_offsets(&"billing".into(), &["orders".into()], to, dry_run).await.unwrap();
    transport.acls().await.unwrap().list(&Default::default()).await.unwrap();
    transport.cluster().await.unwrap().configs(&ConfigResource::Cluster).await.unwrap();
    letters.list(&LetterQuery::default()).await.unwrap();
    letters.count(&LetterQuery::default()).await.unwrap();
    assert!(sink.records().is_empty());
}

#[tokio::test]
async fn a_change_that_is_dropped_has_an_unknown_result() {
    let (sink, auditor, ..) = audited(Fake::ok());
    let intent = AuditRecord::intent(Principal::new("ann"), "topic.create");
    drop(auditor.begin(intent).await.unwrap());
    auditor.flush().await.unwrap();
    let records = records(&sink).await;
    assert_eq!(records.iter().map(status).collect::<Vec<_>>(), ["intent", "unknown"]);
}

#[tokio::test]
async fn an_attempt_that_was_refused_before_is_recorded_as_denied() {
    let (sink, auditor, ..) = audited(Fake::ok());
    let intent = AuditRecord::intent(Principal::new("eve"), "topic.delete");
    auditor.denied(intent.with_resource("topic:orders"), "the role admin is needed").await.unwrap();
    let records = records(&sink).await;
    assert_eq!(records.iter().map(status).collect::<Vec<_>>(), ["intent", "denied"]);
    let expected = AuditOutcome::Denied { error: "the role admin is needed".to_owned() };
    assert_eq!(records[1].outcome(), Some(&expected));
}

#[tokio::test(start_paused = true)]
async fn a_service_is_recorded_at_its_start_and_soon_after_its_end() {
    let (sink, broker) = (MemoryAudit::new(), MemoryTransport::new());
    let auditor = Auditor::new(sink.clone());
    let router = tidings_service::Router::new().on_topic("orders", async |_: tidings_core::Delivery| {});
    let service = tidings_service::Service::new("billing", router).start(&broker).await.unwrap();
    auditor.watch(&service).await.unwrap();
    auditor.flush().await.unwrap();
    assert_eq!(records(&sink).await.len(), 1, "it runs");
    service.shutdown(Duration::from_secs(10)).await.unwrap();
    let ended = async {
        while records(&sink).await.len() < 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap();
    let records = records(&sink).await;
    let verbs: Vec<&str> = records.iter().map(|record| record.verb.as_str()).collect();
    assert_eq!(verbs, ["service.start", "service.stop"]);
    assert!(records.iter().all(|record| record.resources == ["service:billing"]), "{records:?}");
    assert_eq!(records[0].after["handlers"], "topic:orders");
    assert_eq!(records.iter().map(status).collect::<Vec<_>>(), ["ok", "ok"]);
}
