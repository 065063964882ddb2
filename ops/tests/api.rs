//! Admin over HTTP, end to end: the client against an endpoint in front of the memory transport.

mod common;

use std::time::Duration;

use common::{DEADLINE, caught_up, publish, started, topics};
use tidings_core::{
    AclFilter, Delivery, ErrorKind, LetterQuery, PublisherExt, ReadLimits, Record, SeekTo, Topic, TopicPartition,
    Transport,
};
use tidings_memory::{MemoryStore, MemoryTransport};
use tidings_ops::{Ops, OpsHandle, Role, Tokens};
use tidings_ops_api::Route;
use tidings_ops_api::client::{OpsConfig, OpsTransport};
use tidings_service::{DeadLetters, HandlerExt, Router, Service};

const VIEWER: &str = "viewer-token-0123456789";
const OPERATOR: &str = "operator-token-0123456789";
const ADMIN: &str = "admin-token-0123456789";

fn tokens() -> Tokens {
    let tokens = Tokens::new().with_named_token(Role::Viewer, "vera", VIEWER).expect("a good token");
    let tokens = tokens.with_named_token(Role::Operator, "ann", OPERATOR).expect("a good token");
    tokens.with_named_token(Role::Admin, "root@example.org", ADMIN).expect("a good token")
}

fn url(ops: &OpsHandle) -> String {
    format!("http://{}", ops.local_addr())
}

async fn connected(ops: &OpsHandle) -> OpsTransport {
    OpsTransport::connect(&url(ops)).await.expect("it answers")
}

async fn with_token(ops: &OpsHandle, token: &str) -> OpsTransport {
    OpsTransport::open(OpsConfig::new(url(ops)).with_token(token)).await.expect("it answers")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_groups_and_health_are_those_of_the_broker() {
    let memory = MemoryTransport::new();
    let service = started(Router::new().on_topic("t", async |_: Delivery| {}), &memory).await;
    publish(&memory, vec![Record::new("t", "1"), Record::new("t", "2")]).await;
    caught_up(&service).await;
    let ops = Ops::new().with_admin(memory.clone()).serve("127.0.0.1:0").unwrap();
    let transport = connected(&ops).await;
    assert_eq!((transport.system(), transport.about().system.as_deref()), ("http", Some("memory")));
    let (here, there) = (memory.admin().await.unwrap(), transport.admin().await.unwrap());
    assert_eq!(there.list_topics().await.unwrap(), here.list_topics().await.unwrap());
    assert_eq!(there.list_groups().await.unwrap(), here.list_groups().await.unwrap());
    let (topic, group) = (["t".into(), "missing".into()], "meter-group".into());
    let (here_all, there_all) =
        (here.describe_topics(&topic).await.unwrap(), there.describe_topics(&topic).await.unwrap());
    assert_eq!(there_all[0].as_ref().unwrap(), here_all[0].as_ref().unwrap());
    assert_eq!(there_all[1].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(there_all[1].as_ref().unwrap_err().to_string(), here_all[1].as_ref().unwrap_err().report());
    assert_eq!(there.describe_group(&group).await.unwrap(), here.describe_group(&group).await.unwrap());
    assert_eq!(there.group_lag(&group).await.unwrap(), here.group_lag(&group).await.unwrap());
    let lags = there.group_lags(&[group.clone(), "missing".into()]).await.unwrap();
    assert_eq!(lags[0].as_ref().unwrap(), &here.group_lag(&group).await.unwrap());
    assert_eq!(lags[1].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(there.health().await.unwrap(), here.health().await.unwrap());
    assert_eq!(there.describe_group(&"a/ b%2F?".into()).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_are_listed_and_described() {
    let memory = MemoryTransport::new();
    let service = started(Router::new().on_topic("t", (async |_: Delivery| {}).named("counts")), &memory).await;
    publish(&memory, vec![Record::new("t", "1")]).await;
    caught_up(&service).await;
    let ops = Ops::new().with_service(&service).serve("127.0.0.1:0").unwrap();
    let transport = connected(&ops).await;
    assert_eq!(transport.about().system, None);
    let list = transport.services().list().await.unwrap();
    assert_eq!((list.len(), list[0].service.as_str(), list[0].controlled), (1, "meter", false));
    let described = transport.services().describe("meter").await.unwrap();
    assert_eq!((described.handlers[0].handler.as_str(), described.totals.handled), ("counts", 1));
    assert_eq!((described.partitions[0].topic.as_str(), described.partitions[0].settled), ("t", 1));
    assert!(described.live && described.ready && !described.controlled);
    let missing = transport.services().describe("metre").await.unwrap_err();
    assert!(missing.kind() == ErrorKind::NotFound && missing.to_string().contains("meter"), "{missing}");
    let refused = transport.services().pause("meter", None).await.unwrap_err();
    assert!(refused.kind() == ErrorKind::Unsupported && refused.to_string().contains("with_control"), "{refused}");
    let admin = transport.admin().await.unwrap().list_topics().await.unwrap_err();
    assert!(admin.kind() == ErrorKind::Unsupported && admin.to_string().contains("with_admin"), "{admin}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_pauses_resumes_and_drains_a_service() {
    let memory = MemoryTransport::new();
    topics(&memory, &["t"], 2).await;
    let service = Service::new("meter", Router::new().on_topic("t", async |_: Delivery| {}));
    let service = service.start(&memory).await.unwrap();
    caught_up(&service).await;
    let ops = Ops::new().with_service(&service).with_control(&service).serve("127.0.0.1:0").unwrap();
    let services = connected(&ops).await.services();
    assert_eq!(services.list().await.unwrap().len(), 1, "it is reported on once");
    services.pause("meter", None).await.unwrap();
    assert_eq!(services.describe("meter").await.unwrap().state, "paused");
    services.resume("meter", None).await.unwrap();
    let partition = TopicPartition::new("t", 1);
    services.pause("meter", Some(std::slice::from_ref(&partition))).await.unwrap();
    let paused = service.status().await;
    let is_paused = |number: u32| {
        let partition = paused.partitions.iter().find(|p| p.partition.partition == number);
        !partition.expect("it is assigned").paused.is_empty()
    };
    assert!(is_paused(1) && !is_paused(0));
    services.resume("meter", Some(&[partition])).await.unwrap();
    let held = services.skip("meter", &TopicPartition::new("t", 0), 0..1).await.unwrap_err();
    assert_eq!(held.kind(), ErrorKind::Conflict, "nothing holds it");
    services.drain("meter", Duration::from_secs(10)).await.unwrap();
    tokio::time::timeout(DEADLINE, service.stopped()).await.expect("it ends").unwrap();
    assert_eq!(services.describe("meter").await.unwrap().state, "stopped");
    assert_eq!(services.pause("meter", None).await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_published_and_read_over_http() {
    let memory = MemoryTransport::new();
    topics(&memory, &["t"], 1).await;
    let ops = Ops::new().with_admin(memory.clone()).serve("127.0.0.1:0").unwrap();
    let transport = connected(&ops).await;
    let record = Record::new("t", vec![0_u8, 255]).with_key("k").with_header("h", "v");
    let position = transport.publisher().await.unwrap().publish_one(record).await.unwrap();
    assert_eq!((position.partition, position.offset), (0, 0));
    let missing = transport.publisher().await.unwrap().publish_one(Record::new("t", "x").with_partition(9)).await;
    assert!(missing.is_err());
    match transport.log_reader().await.unwrap().offsets(&[TopicPartition::new("t", 0)], SeekTo::Latest).await {
        Ok(offsets) => {
            assert_eq!(*offsets[0].as_ref().unwrap(), 1);
            let reader = transport.log_reader().await.unwrap();
            let read = reader.read(&TopicPartition::new("t", 0), 0, ReadLimits::default()).await.unwrap();
            assert_eq!(read.batch.records()[0].value.as_deref(), Some(&[0_u8, 255][..]));
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}"),
    }
    let acls = transport.acls().await.unwrap().list(&AclFilter::default()).await.unwrap_err();
    assert_eq!(acls.kind(), ErrorKind::Unsupported, "memory has none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_does_what_its_role_may_and_an_error_names_the_role_that_is_needed() {
    let memory = MemoryTransport::new();
    topics(&memory, &["t"], 1).await;
    let letters = DeadLetters::open(&memory, ["t"]).await.unwrap();
    let ops = Ops::new().with_admin(memory.clone()).with_dead_letters("topics", letters);
    let ops = ops.with_store("meter", MemoryStore::new()).with_tokens(tokens()).serve("127.0.0.1:0").unwrap();
    let nobody = OpsTransport::connect(&url(&ops)).await.unwrap_err();
    assert!(nobody.kind() == ErrorKind::Denied && nobody.to_string().contains("bearer token"), "{nobody}");
    for (token, name, role) in
        [(VIEWER, "vera", Role::Viewer), (OPERATOR, "ann", Role::Operator), (ADMIN, "root@example.org", Role::Admin)]
    {
        let transport = with_token(&ops, token).await;
        assert_eq!((transport.about().principal.as_str(), transport.about().role.as_str()), (name, role.as_str()));
        for route in Route::ALL {
            let answer = common::request(&ops, route.method().as_str(), route.path(), token, "{}");
            let is_refused = answer.code == 403;
            assert_eq!(is_refused, !role.includes(route.role()), "{route:?} as {role}: {answer:?}");
            let needed = format!("{} is needed", route.role());
            assert!(!is_refused || answer.body.contains(&needed), "{route:?} as {role}: {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_endpoint_changes_nothing_whatever_the_role() {
    let memory = MemoryTransport::new();
    topics(&memory, &["t"], 1).await;
    let service = Service::new("meter", Router::new().on_topic("t", async |_: Delivery| {}));
    let service = service.start(&memory).await.unwrap();
    let ops =
        Ops::new().with_admin(memory.clone()).with_control(&service).with_read_only().serve("127.0.0.1:0").unwrap();
    let transport = connected(&ops).await;
    assert!(transport.about().read_only);
    for route in Route::ALL {
        let answer = common::request(&ops, route.method().as_str(), route.path(), ADMIN, "{}");
        assert_eq!(answer.body.contains("read-only"), route.changes(), "{route:?}: {answer:?}");
    }
    let created = transport.admin().await.unwrap().create_topics(&[Topic::new("new")]).await.unwrap_err();
    assert_eq!(created.kind(), ErrorKind::Denied);
    assert!(!memory.admin().await.unwrap().list_topics().await.unwrap().contains(&"new".into()));
    assert_eq!(transport.services().pause("meter", None).await.unwrap_err().kind(), ErrorKind::Denied);
    assert_ne!(transport.services().describe("meter").await.unwrap().state, "paused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_web_page_can_send_is_refused() {
    let ops = Ops::new().with_admin(MemoryTransport::new()).serve("127.0.0.1:0").unwrap();
    let host = ops.local_addr();
    let body = r#"{"topics":[{"name":"x"}]}"#;
    let send = |headers: &str| {
        let length = body.len();
        let head = format!("POST /api/v1/topics:create HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}");
        common::send(host, &format!("{head}content-length: {length}\r\n\r\n{body}"))
    };
    assert_eq!(send("content-type: text/plain\r\n").code, 415);
    assert_eq!(send("").code, 415);
    assert_eq!(send("content-type: application/json\r\norigin: http://evil.example\r\n").code, 403);
    assert_eq!(send("content-type: application/json\r\nx-forwarded-for: 10.0.0.1\r\n").code, 403);
    assert_eq!(send("content-type: application/json; charset=utf-8\r\n").code, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_bounded_and_errors_repeat_none_of_them() {
    let ops = Ops::new().with_admin(MemoryTransport::new()).serve("127.0.0.1:0").unwrap();
    let ask = |path: &str, body: &str| common::request(&ops, "POST", path, ADMIN, body);
    for body in [
        "canary",
        "{\"canary\": 1}",
        "{\"names\": \"canary\"}",
        "{\"names\": [\"canary\"",
        "[\"canary\"]",
        "{\"names\": [{\"canary\": 1}]}",
    ] {
        let answer = ask("/api/v1/topics:delete", body);
        assert_eq!(answer.code, 400, "{answer:?}");
        assert!(!answer.body.contains("canary") || body.starts_with("{\"canary"), "{answer:?}");
        assert!(answer.body.contains("\"kind\":\"invalid\""), "{answer:?}");
    }
    let many: Vec<String> = (0..1_001).map(|n| format!("\"t{n}\"")).collect();
    let answer = ask("/api/v1/topics:describe", &format!("{{\"names\":[{}]}}", many.join(",")));
    assert!(answer.code == 413 && answer.body.contains("too-large"), "{answer:?}");
    let long = format!("{{\"names\":[\"{}\"]}}", "x".repeat(tidings_ops_api::MAX_BODY_BYTES));
    assert_eq!(ask("/api/v1/topics:describe", &long).code, 413);
    assert_eq!(common::get(ops.local_addr(), "/api/v1/nothing", &[]).code, 404);
    assert_eq!(ask("/api/v1/topics", "{}").code, 405);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_are_read_by_operators_and_listed_without_payloads_by_viewers() {
    let memory = MemoryTransport::new();
    topics(&memory, &["t"], 1).await;
    let fails =
        async |_: Delivery| -> Result<(), tidings_core::BoxError> { Err(tidings_core::reject("canary-error").into()) };
    let service =
        Service::new("meter", Router::new().on_topic("t", fails.named("fails"))).start(&memory).await.unwrap();
    publish(&memory, vec![Record::new("t", "canary-value").with_key("canary-key").with_header("x", "canary-header")])
        .await;
    caught_up(&service).await;
    let letters = DeadLetters::open(&memory, ["t"]).await.unwrap();
    let ops = Ops::new().with_admin(memory.clone()).with_dead_letters("topics", letters).with_tokens(tokens());
    let ops = ops.serve("127.0.0.1:0").unwrap();
    let listed = common::request(&ops, "POST", "/api/v1/dead-letters:list", VIEWER, r#"{"store":"topics"}"#);
    assert!(listed.code == 200 && listed.body.contains("\"handler\":\"fails\""), "{listed:?}");
    assert!(!listed.body.contains("canary"), "{listed:?}");
    let operator = with_token(&ops, OPERATOR).await;
    let remote = operator.letters("topics").await.unwrap();
    let all = remote.list(&LetterQuery::default()).await.unwrap();
    assert_eq!(all[0].record.value.as_deref(), Some(&b"canary-value"[..]));
    assert!(all[0].error.contains("canary-error"));
    assert_eq!(remote.count(&LetterQuery::default()).await.unwrap(), 1);
    let workbench = DeadLetters::new(remote, operator.publisher().await.unwrap()).with_operator("bob");
    let report = workbench.redrive(&LetterQuery::default(), &tidings_service::RedriveOptions::default()).await.unwrap();
    assert_eq!(report.redriven, 1);
    assert_eq!(operator.letters("other").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_wrong_or_away_is_named_in_one_line_and_no_secret_is() {
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = OpsTransport::connect(&format!("http://{away}")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&away.to_string()) && error.report().lines().count() == 1, "{error}");
    for url in ["ftp://host", "host:9400", "http://a,b", "http://", "http://ann:s3cr3t@host:9400"] {
        let error = OpsTransport::connect(url).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && !error.report().contains("s3cr3t"), "{url}: {error}");
    }
    let ops = Ops::new().with_tokens(tokens()).serve("127.0.0.1:0").unwrap();
    let wrong = OpsConfig::new(url(&ops)).with_token("s3cr3t-token-0123456789");
    assert!(!format!("{wrong:?}").contains("s3cr3t"));
    let denied = OpsTransport::open(wrong).await.unwrap_err();
    assert!(denied.kind() == ErrorKind::Denied && !denied.report().contains("s3cr3t"), "{denied}");
    let other = OpsConfig::new(format!("{}/elsewhere", url(&ops))).with_token(ADMIN);
    let other = OpsTransport::open(other).await.unwrap_err();
    assert!(other.kind() == ErrorKind::Unsupported && other.to_string().contains("with_admin"), "{other}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_the_endpoint_closed_meanwhile_is_replaced() {
    let memory = MemoryTransport::new();
    let ops = Ops::new().with_admin(memory.clone()).serve("127.0.0.1:0").unwrap();
    let (address, admin) = (ops.local_addr(), connected(&ops).await.admin().await.unwrap());
    admin.create_topics(&[Topic::new("a")]).await.unwrap();
    ops.shutdown(DEADLINE).await.unwrap();
    assert_eq!(admin.list_topics().await.unwrap_err().kind(), ErrorKind::Unavailable);
    let _again = Ops::new().with_admin(memory).serve(address).unwrap();
    for answer in admin.create_topics(&[Topic::new("b")]).await.unwrap() {
        answer.unwrap();
    }
}
