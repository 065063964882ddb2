//! The audit of changes over HTTP, and that no answer, record or log of them has a secret or an unasked payload.

mod common;

use std::time::Duration;

use common::{caught_up, publish, request, topics};
use tidings_audit::{Auditor, AuditorOptions, EventOperations, EventPolicy, MemoryAudit, decode, verify};
use tidings_core::audit::{AuditPhase, AuditRecord, AuditSink};
use tidings_core::{BoxError, Delivery, ErrorKind, Record, reject};
use tidings_memory::{MemoryStore, MemoryTransport, PublishFault};
use tidings_ops::{Ops, OpsHandle, Role, Tokens};
use tidings_ops_api::client::{OpsConfig, OpsTransport};
use tidings_ops_api::{Method, Route};
use tidings_service::{DeadLetters, HandlerExt, Router, Service, ServiceHandle};

const VIEWER: &str = "canary-token-viewer-0123456789";
const OPERATOR: &str = "canary-token-operator-0123456789";
const ADMIN: &str = "canary-token-admin-0123456789";

struct World {
    ops: OpsHandle,
    sink: MemoryAudit,
    _service: ServiceHandle,
}

/// A service whose records, letters and errors are canaries.
async fn world() -> World {
    let memory = MemoryTransport::new();
    topics(&memory, &["t"], 1).await;
    let fails = async |delivery: Delivery| -> Result<(), BoxError> {
        Err(reject(format!("canary-error-{}", delivery.offset())).into())
    };
    let service = Service::new("meter", Router::new().on_topic("t", fails.named("fails")));
    let service = service.start(&memory).await.expect("it starts");
    for n in 0..20 {
        let record = Record::new("t", format!("canary-value-{n}")).with_key(format!("canary-key-{n}"));
        publish(&memory, vec![record.with_header(format!("canary-name-{n}"), format!("canary-header-{n}"))]).await;
    }
    caught_up(&service).await;
    let letters = DeadLetters::open(&memory, ["t"]).await.expect("it opens");
    let sink = MemoryAudit::new();
    let tokens = Tokens::new().with_named_token(Role::Viewer, "vera", VIEWER).expect("a good token");
    let tokens = tokens.with_named_token(Role::Operator, "ann", OPERATOR).expect("a good token");
    let tokens = tokens.with_named_token(Role::Admin, "root", ADMIN).expect("a good token");
    let ops = Ops::new().with_control(&service).with_admin(memory.clone()).with_dead_letters("topics", letters);
    let ops = ops.with_store("meter", MemoryStore::new()).with_tokens(tokens).with_audit(Auditor::new(sink.clone()));
    World { ops: ops.serve("127.0.0.1:0").expect("it listens"), sink, _service: service }
}

impl World {
    /// Returns the records since a number of them.
    fn records(&self, from: usize) -> Vec<AuditRecord> {
        let stored = self.sink.records();
        stored[from..].iter().map(|record| decode(record).expect("a record")).collect()
    }
}

fn is_intent(record: &AuditRecord) -> bool {
    record.phase == AuditPhase::Intent
}

/// A request of each route that changes something, which is carried out.
const CHANGES: [(Route, &str, &str); 16] = [
    (Route::TopicsCreate, r#"{"topics":[{"name":"new"}]}"#, "topic.create"),
    (Route::TopicsGrow, r#"{"topic":"new","partitions":2,"allow_rekeying":true}"#, "topic.grow"),
    (Route::TopicsDelete, r#"{"names":["new"]}"#, "topic.delete"),
    (Route::GroupsReset, r#"{"group":"other","topics":["t"],"to":"earliest"}"#, "group.reset"),
    (
        Route::GroupsAlterOffsets,
        r#"{"group":"other","offsets":[{"topic":"t","partition":0,"offset":0}]}"#,
        "group.alter-offsets",
    ),
    (Route::GroupsDelete, r#"{"group":"other"}"#, "group.delete"),
    (Route::RecordsPublish, r#"{"records":[{"topic":"t","value":"canary-published"}]}"#, "event.publish"),
    (Route::ServicesPause, r#"{"service":"meter"}"#, "service.pause"),
    (Route::ServicesResume, r#"{"service":"meter"}"#, "service.resume"),
    (
        Route::ServicesSeek,
        r#"{"service":"meter","topic":"t","partition":0,"to":"latest","deadline_ms":1000}"#,
        "service.seek",
    ),
    (Route::ServicesSkip, r#"{"service":"meter","topic":"t","partition":0,"from":0,"to":1}"#, "service.skip"),
    (
        Route::LettersDiscard,
        r#"{"store":"topics","query":{"ids":[{"service":"meter","topic":"t","partition":0,"offset":1}]},"reason":"old"}"#,
        "dead-letter.discard",
    ),
    (
        Route::LettersResolve,
        r#"{"store":"topics","ids":[{"service":"meter","topic":"t","partition":0,"offset":2}],"resolution":{"kind":"parked","by":"bob"}}"#,
        "dead-letter.park",
    ),
    (
        Route::LettersLease,
        r#"{"store":"topics","ids":[{"service":"meter","topic":"t","partition":0,"offset":3}],"lease":{"id":"0190163d-8694-739b-aea5-966c26f8ad91","ttl_ms":1000}}"#,
        "dead-letter.lease",
    ),
    (
        Route::LettersEndLease,
        r#"{"store":"topics","ids":[{"service":"meter","topic":"t","partition":0,"offset":3}],"lease":{"id":"0190163d-8694-739b-aea5-966c26f8ad91","ttl_ms":1000}}"#,
        "dead-letter.end-lease",
    ),
    (Route::ServicesDrain, r#"{"service":"meter","deadline_ms":1000}"#, "service.drain"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_leaves_an_intent_and_a_result_with_the_name_of_the_token() {
    let world = world().await;
    for (route, body, verb) in CHANGES {
        let from = world.sink.records().len();
        let answer = request(&world.ops, "POST", route.path(), ADMIN, body);
        let records = world.records(from);
        let (intents, results): (Vec<_>, Vec<_>) = records.iter().partition(|record| is_intent(record));
        assert!(intents.len() == 1 && results.len() == 1, "{route:?}: {answer:?} {records:#?}");
        let outcome = results[0].outcome().map(|outcome| outcome.as_str());
        assert_eq!(outcome == Some("ok"), answer.code == 200, "{route:?}: {answer:?} {records:#?}");
        for record in &records {
            assert_eq!(record.verb.as_str(), verb);
            assert_eq!((record.principal.name.as_str(), record.principal.authenticated_by.as_str()), ("root", "token"));
            assert!(!record.resources.is_empty() && record.correlation_id.is_some(), "{record:#?}");
        }
    }
    assert!(verify(&world.sink, &[]).await.unwrap().is_intact());
    assert!(!format!("{:?}", world.records(0)).contains("canary"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_role_forbids_is_recorded_as_denied() {
    let world = world().await;
    for route in Route::ALL {
        let from = world.sink.records().len();
        let answer = request(&world.ops, route.method().as_str(), route.path(), VIEWER, "{}");
        let records = world.records(from);
        assert_eq!(
            records.len(),
            if route.role() > Role::Viewer { 2 } else { 0 },
            "{route:?}: {answer:?} {records:#?}"
        );
        for record in records.iter().filter(|record| !is_intent(record)) {
            let outcome = record.outcome().map(|outcome| outcome.as_str());
            assert_eq!((record.principal.name.as_str(), outcome), ("vera", Some("denied")), "{route:?}");
            assert_eq!(record.principal.address.as_deref(), Some("127.0.0.1"), "{route:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_cannot_be_recorded_is_not_made() {
    let world = world().await;
    world.sink.fail_with(Some(ErrorKind::Unavailable));
    let refused = request(&world.ops, "POST", Route::TopicsCreate.path(), ADMIN, r#"{"topics":[{"name":"new"}]}"#);
    assert!(refused.code >= 500 && refused.body.contains("audit"), "{refused:?}");
    let topics = request(&world.ops, "GET", Route::Topics.path(), ADMIN, "");
    assert!(topics.code == 200 && !topics.body.contains("\"new\""), "{topics:?}");
    let paused = request(&world.ops, "POST", Route::ServicesPause.path(), ADMIN, r#"{"service":"meter"}"#);
    assert!(paused.code >= 500, "{paused:?}");
    let service = request(&world.ops, "GET", "/api/v1/services/meter", ADMIN, "");
    assert!(!service.body.contains("\"state\":\"paused\""), "{service:?}");
}

/// Twenty records with canaries in key, value, header and error: only the two routes that ask for payloads have them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_has_a_secret_or_a_payload_that_was_not_asked_for() {
    let world = world().await;
    let body = |route: Route| match route {
        Route::TopicsDescribe => r#"{"names":["t"]}"#,
        Route::GroupsDescribe | Route::GroupsLag => r#"{"names":["meter-group"]}"#,
        Route::GroupsPlanReset => r#"{"group":"meter-group","topics":["t"],"to":"earliest"}"#,
        Route::RecordsOffsets => r#"{"partitions":[{"topic":"t","partition":0}],"at":"latest"}"#,
        Route::RecordsRead => r#"{"topic":"t","partition":0,"offset":0}"#,
        Route::StoresDone => r#"{"store":"meter","scope":"meter","events":[]}"#,
        Route::ConfigsDescribe => r#"{"resource":"topic:t"}"#,
        Route::LettersList | Route::LettersRead | Route::LettersCount => r#"{"store":"topics"}"#,
        Route::LettersCheck => r#"{"store":"topics","topics":["t"]}"#,
        _ => "{}",
    };
    let mut answered = 0;
    for route in Route::ALL.iter().filter(|route| !route.changes()) {
        let named = if matches!(route, Route::Topic) { "t" } else { "meter" };
        let named = if matches!(route, Route::Group | Route::GroupLag) { "meter-group" } else { named };
        let path = route.path().replace("{name}", named);
        let sent = if route.method() == Method::Post { body(*route) } else { "" };
        let answer = request(&world.ops, route.method().as_str(), &path, OPERATOR, sent);
        let may = matches!(route, Route::LettersRead | Route::RecordsRead);
        assert!(may || !answer.body.contains("canary"), "{route:?}: {answer:?}");
        assert!(!answer.body.contains("canary-token") && !answer.head.contains("canary"), "{route:?}: {answer:?}");
        answered += usize::from(answer.code == 200);
    }
    assert!(answered > 15, "only {answered} routes answered");
    assert!(!format!("{:?}", world.ops).contains("canary"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_was_denied_or_has_no_answer_is_recorded_so_with_the_counts() {
    let (memory, sink) = (MemoryTransport::new(), MemoryAudit::new());
    topics(&memory, &["t"], 1).await;
    let ops = Ops::new().with_admin(memory.clone()).with_audit(Auditor::new(sink.clone()));
    let ops = ops.serve("127.0.0.1:0").expect("it listens");
    let body = r#"{"records":[{"topic":"t","value":"1"},{"topic":"t","value":"2"}]}"#;
    let faults =
        [(2, ErrorKind::Denied, "denied"), (1, ErrorKind::Denied, "failed"), (2, ErrorKind::Indeterminate, "unknown")];
    for (failed, kind, expected) in faults {
        memory.faults().publish(PublishFault::new(kind).with_times(failed));
        assert_eq!(request(&ops, "POST", Route::RecordsPublish.path(), ADMIN, body).code, 200);
        let result = decode(sink.records().last().expect("a result")).expect("a record");
        assert_eq!(result.outcome().map(|outcome| outcome.as_str()), Some(expected), "{result:?}");
        assert_eq!((result.counts["ok"], result.counts["failed"]), (2 - u64::from(failed), u64::from(failed)));
    }
}

/// The path of the trail, with parameters.
fn page(parameters: &str) -> String {
    format!("{}?{parameters}", Route::Audit.path())
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).expect("it is JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admins_read_the_trail_page_by_page_and_verify_it() {
    let world = world().await;
    for n in 0..50 {
        let body = format!(r#"{{"topics":[{{"name":"new-{n}"}}]}}"#);
        assert_eq!(request(&world.ops, "POST", Route::TopicsCreate.path(), ADMIN, &body).code, 200);
    }
    let (mut seqs, mut after) = (Vec::new(), String::new());
    loop {
        let answer = request(&world.ops, "GET", &page(&format!("limit=30{after}")), ADMIN, "");
        assert_eq!(answer.code, 200, "{answer:?}");
        let answer = json(&answer.body);
        let records = answer["records"].as_array().expect("records");
        if records.is_empty() {
            break;
        }
        assert!(records.len() <= 30);
        seqs.extend(records.iter().filter_map(|record| record["seq"].as_u64()));
        after = format!("&after={}", answer["next"].as_str().expect("a position"));
    }
    assert_eq!(seqs, (0..101).collect::<Vec<u64>>(), "an intent and a result for each topic, and one record of reads");
    let read = world.records(100).remove(0);
    let by = (read.verb.as_str(), read.principal.name.as_str(), read.principal.address.as_deref());
    assert_eq!(by, ("audit.read", "root", Some("127.0.0.1")));
    assert_eq!((read.counts["records"], read.outcome().map(|outcome| outcome.as_str())), (30, Some("ok")));
    for wrong in ["limit=x", "limits=1", "after=%ff"] {
        assert_eq!(request(&world.ops, "GET", &page(wrong), ADMIN, "").code, 400, "{wrong}");
    }
    assert!(request(&world.ops, "GET", &page("after=x"), ADMIN, "").code >= 400);

    assert_eq!(world.sink.records().len(), 101, "one a minute, and none about such records alone");
    let config = OpsConfig::new(format!("http://{}", world.ops.local_addr())).with_token(ADMIN);
    let trail = OpsTransport::open(config).await.expect("it connects").audit();
    let verified = verify(&*trail, &[]).await.expect("it reads");
    assert!(verified.is_intact() && verified.records == 101, "{verified:?}");
    let refused = trail.append(world.sink.records()).await;
    assert!(refused.iter().all(|answer| answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unsupported)));
    assert_eq!(request(&world.ops, "GET", &page("limit=1"), OPERATOR, "").code, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_without_a_trail_is_unsupported() {
    let ops = Ops::new().with_admin(MemoryTransport::new()).serve("127.0.0.1:0").expect("it listens");
    let refused = request(&ops, "GET", Route::Audit.path(), "", "");
    assert!(refused.code == 501 && refused.body.contains("with_audit"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_payloads_are_recorded_by_policy() {
    let (memory, sink) = (MemoryTransport::new(), MemoryAudit::new());
    topics(&memory, &["secret", "open"], 1).await;
    let fails = async |_: Delivery| -> Result<(), BoxError> { Err(reject("no").into()) };
    let router = Router::new().on_topic("secret", fails.named("a")).on_topic("open", fails.named("b"));
    let service = Service::new("meter", router).start(&memory).await.expect("it starts");
    for topic in ["secret", "open"] {
        publish(&memory, vec![Record::new(topic, "canary-value"), Record::new(topic, "canary-value")]).await;
    }
    caught_up(&service).await;
    let policy = EventPolicy::default().with_topic("secret", EventOperations::default().with_read());
    let auditor = Auditor::with_options(sink.clone(), AuditorOptions::default().with_events(policy));
    let letters = DeadLetters::open(&memory, ["secret", "open"]).await.expect("it opens");
    let ops = Ops::new().with_admin(memory.clone()).with_dead_letters("topics", letters).with_audit(auditor);
    let ops = ops.serve("127.0.0.1:0").expect("it listens");
    let read = |topic: &str, offset: u64| {
        let body = format!(r#"{{"topic":"{topic}","partition":0,"offset":{offset}}}"#);
        request(&ops, "POST", Route::RecordsRead.path(), "", &body)
    };
    let whole = || request(&ops, "POST", Route::LettersRead.path(), "", r#"{"store":"topics"}"#);
    assert!(read("open", 0).code == 200 && read("secret", 2).code == 200, "nothing of the policy is read");
    assert_eq!(request(&ops, "POST", Route::LettersList.path(), "", r#"{"store":"topics"}"#).code, 200);
    assert_eq!(sink.records().len(), 0);

    assert!(read("secret", 0).body.contains("canary-value") && whole().code == 200);
    let records: Vec<AuditRecord> = sink.records().iter().map(|record| decode(record).expect("a record")).collect();
    let [of_log, of_letters] = &records[..] else { panic!("two records: {records:#?}") };
    assert_eq!((of_log.verb.as_str(), &*of_log.resources), ("event.read", &["topic:secret".to_owned()][..]));
    let offsets: Vec<u64> = of_log.events.iter().map(|event| event.offset).collect();
    assert_eq!((&*offsets, of_log.principal.name.as_str()), (&[0, 1][..], "local"));
    assert_eq!((of_letters.verb.as_str(), of_letters.counts["letters"]), ("dead-letter.read", 2));
    assert_eq!(of_letters.resources, ["letter:meter/secret/0@0-1"]);
    assert!(!format!("{records:?}").contains("canary"));

    sink.fail_with(Some(ErrorKind::Unavailable));
    for refused in [read("secret", 0), whole()] {
        assert!(refused.code >= 500 && !refused.body.contains("canary"), "{refused:?}");
    }
    assert_eq!(read("open", 0).code, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_without_a_valid_token_are_counted_and_recorded_at_a_bounded_rate() {
    let world = world().await;
    let paths = [Route::Topics.path(), "/status"];
    for n in 0..100 {
        for path in paths {
            let answer = request(&world.ops, "GET", path, &format!("a-guess-of-a-token-{n:03}"), "");
            assert_eq!(answer.code, 401, "{answer:?}");
        }
    }
    let written = async {
        while world.sink.records().len() < 64 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), written).await.expect("they are recorded");
    let records = world.records(0);
    assert!((64..=68).contains(&records.len()), "64, and few later: {}", records.len());
    for record in &records {
        assert_eq!((record.principal.name.as_str(), record.verb.as_str()), ("(unknown)", "topic.read"));
        assert_eq!(record.principal.address.as_deref(), Some("127.0.0.1"));
    }
    assert!(!format!("{records:?}").contains("a-guess"));
    assert_eq!(request(&world.ops, "POST", Route::TopicsCreate.path(), VIEWER, "{}").code, 403);
    let metrics = request(&world.ops, "GET", "/metrics", VIEWER, "").body;
    for counted in ["unauthenticated\"} 200", "role\"} 1", "read_only\"} 0"] {
        let line = format!("tidings_requests_refused_total{{reason=\"{counted}");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
    assert!(metrics.contains("\ntidings_audit_failing 0\n"), "{metrics}");
}
