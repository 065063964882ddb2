//! The bounds of admin over HTTP: slow requests keep no operator out, and what a viewer may select.

mod common;

use std::time::Duration;

use common::{Answer, DEADLINE, caught_up, publish, request, topics, until};
use tidings_core::{BoxError, Delivery, ErrorKind, Record, Transport, reject};
use tidings_memory::MemoryTransport;
use tidings_ops::{Ops, OpsHandle, Role, Tokens};
use tidings_ops_api::Route;
use tidings_ops_api::client::OpsTransport;
use tidings_service::{DeadLetters, HandlerExt, Router, Service, ServiceHandle};

const VIEWER: &str = "viewer-token-0123456789";
const OPERATOR: &str = "operator-token-0123456789";

/// A service with a dead letter, and an endpoint that controls it.
async fn world(memory: &MemoryTransport) -> (OpsHandle, ServiceHandle) {
    topics(memory, &["t"], 1).await;
    let fails = async |_: Delivery| -> Result<(), BoxError> { Err(reject("canary-error").into()) };
    let service = Service::new("meter", Router::new().on_topic("t", fails.named("fails")));
    let service = service.start(memory).await.expect("it starts");
    publish(memory, vec![Record::new("t", "1").with_key("canary-key")]).await;
    caught_up(&service).await;
    let letters = DeadLetters::open(memory, ["t"]).await.expect("it opens");
    let tokens = Tokens::new().with_named_token(Role::Viewer, "vera", VIEWER).expect("a good token");
    let tokens = tokens.with_named_token(Role::Operator, "ann", OPERATOR).expect("a good token");
    let ops = Ops::new().with_control(&service).with_admin(memory.clone()).with_dead_letters("topics", letters);
    (ops.with_tokens(tokens).serve("127.0.0.1:0").expect("it listens"), service)
}

fn post(ops: &OpsHandle, route: Route, token: &str, body: &str) -> Answer {
    request(ops, "POST", route.path(), token, body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_wait_keep_out_no_command() {
    let memory = MemoryTransport::new();
    let (ops, _service) = world(&memory).await;
    let address = ops.local_addr();
    let body = r#"{"topic":"t","partition":0,"offset":1,"wait_ms":30000}"#;
    let head = format!("POST /api/v1/records:read HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {OPERATOR}\r\n");
    let text = format!("{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let waiting: Vec<_> = (0..16)
        .map(|_| {
            let mut stream = common::connect(address);
            std::io::Write::write_all(&mut stream, text.as_bytes()).expect("it is sent");
            stream
        })
        .collect();
    let now = r#"{"topic":"t","partition":0,"offset":0}"#;
    until("the reads wait", || post(&ops, Route::RecordsRead, OPERATOR, now).code == 503);
    let begun = std::time::Instant::now();
    assert_eq!(request(&ops, "GET", Route::Topics.path(), VIEWER, "").code, 200);
    assert_eq!(post(&ops, Route::ServicesPause, OPERATOR, r#"{"service":"meter"}"#).code, 200);
    assert_eq!(post(&ops, Route::ServicesDrain, OPERATOR, r#"{"service":"meter","deadline_ms":1000}"#).code, 200);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    drop(waiting);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_selects_no_letters_by_what_it_may_not_see() {
    let memory = MemoryTransport::new();
    let (ops, _service) = world(&memory).await;
    for condition in [r#""error":"canary-e""#, r#""key":"canary-key""#] {
        let body = format!(r#"{{"store":"topics","query":{{{condition}}}}}"#);
        for route in [Route::LettersList, Route::LettersCount] {
            let refused = post(&ops, route, VIEWER, &body);
            assert!(refused.code == 403 && refused.body.contains("operator is needed"), "{route:?}: {refused:?}");
            let answer = post(&ops, route, OPERATOR, &body);
            assert!(answer.code == 200 && !answer.body.contains("canary"), "{route:?}: {answer:?}");
        }
    }
    assert!(post(&ops, Route::LettersCount, VIEWER, r#"{"store":"topics"}"#).body.contains("\"count\":1"));
    let parked = r#"{"store":"topics","ids":[{"service":"meter","topic":"t","partition":0,"offset":0}],"resolution":{"kind":"parked","by":"","reason":"canary-reason"}}"#;
    assert_eq!(post(&ops, Route::LettersResolve, OPERATOR, parked).code, 200);
    let listed = r#"{"store":"topics","query":{"state":"parked"}}"#;
    let list = post(&ops, Route::LettersList, VIEWER, listed);
    assert!(list.body.contains("\"by\":\"ann\"") && !list.body.contains("canary"), "{list:?}");
    assert!(post(&ops, Route::LettersRead, OPERATOR, listed).body.contains("canary-reason"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_over_http_lasts_an_hour_at_most() {
    let memory = MemoryTransport::new();
    let (ops, _service) = world(&memory).await;
    let lease = |ttl: u64| {
        let id = "0190163d-8694-739b-aea5-966c26f8ad91";
        let ids = r#"[{"service":"meter","topic":"t","partition":0,"offset":0}]"#;
        let body = format!(r#"{{"store":"topics","ids":{ids},"lease":{{"id":"{id}","ttl_ms":{ttl}}}}}"#);
        post(&ops, Route::LettersLease, OPERATOR, &body)
    };
    for ttl in [0, 3_600_001, u64::MAX] {
        let refused = lease(ttl);
        assert!(refused.code == 400 && refused.body.contains("ttl_ms"), "{ttl}: {refused:?}");
    }
    assert_eq!(lease(3_600_000).code, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redrive_over_http_reports_a_misspelt_service_and_leaves_what_came_back_too_often() {
    let memory = MemoryTransport::new();
    let (ops, service) = world(&memory).await;
    let redrive = |body: &str| post(&ops, Route::LettersRedrive, OPERATOR, body).body;
    let misspelt = redrive(r#"{"store":"topics","query":{"service":"metre"}}"#);
    assert!(misspelt.contains(r#""known_services":["meter"]"#), "{misspelt}");
    let first = redrive(r#"{"store":"topics","max_redrives":1,"per_second":1}"#);
    assert!(first.contains(r#""redriven":1"#) && first.contains(r#""repeated":0"#), "{first}");
    caught_up(&service).await;
    let again = redrive(r#"{"store":"topics","max_redrives":1}"#);
    assert!(again.contains(r#""redriven":0"#) && again.contains(r#""repeated":1"#), "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_is_closed_meanwhile_gives_each_record_its_own_answer() {
    let memory = MemoryTransport::new();
    topics(&memory, &["t"], 1).await;
    let ops = Ops::new().with_admin(memory.clone()).serve("127.0.0.1:0").unwrap();
    let publisher =
        OpsTransport::connect(&format!("http://{}", ops.local_addr())).await.unwrap().publisher().await.unwrap();
    memory.faults().delay_publishes(Duration::from_millis(200));
    let large = "x".repeat(tidings_ops_api::MAX_BODY_BYTES);
    // Two requests, with a record between them that none can have.
    let mut records: Vec<Record> = (0..1_500).map(|n| Record::new("t", n.to_string())).collect();
    records.insert(1_200, Record::new("t", large));
    let (published, closed) = tokio::join!(publisher.publish(records), async {
        tokio::task::yield_now().await;
        publisher.close(DEADLINE).await
    });
    closed.unwrap();
    assert_eq!(published.len(), 1_501);
    assert_eq!(published[1_200].as_ref().unwrap_err().kind(), ErrorKind::TooLarge);
    let offsets: Vec<u64> = published.iter().flatten().map(|position| position.offset).collect();
    assert_eq!(offsets, (0..1_500).collect::<Vec<u64>>());
    let late = publisher.publish(vec![Record::new("t", "late")]).await;
    assert_eq!(late[0].as_ref().unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_of_a_topic_that_the_service_does_not_read_is_not_paused() {
    let memory = MemoryTransport::new();
    let (ops, _service) = world(&memory).await;
    let pause = |topic: &str| {
        let body = format!(r#"{{"service":"meter","partitions":[{{"topic":"{topic}","partition":0}}]}}"#);
        post(&ops, Route::ServicesPause, OPERATOR, &body)
    };
    let refused = pause("tt");
    assert!(refused.code == 404 && refused.body.contains("it reads t"), "{refused:?}");
    assert_eq!(pause("t").code, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_discard_ends_in_time_and_reports_that_letters_remain() {
    let memory = MemoryTransport::new();
    let (ops, service) = world(&memory).await;
    publish(&memory, (0..9).map(|n| Record::new("t", n.to_string())).collect()).await;
    caught_up(&service).await;
    let discard =
        || post(&ops, Route::LettersDiscard, OPERATOR, r#"{"store":"topics","query":{},"reason":"old","limit":6}"#);
    let count = || post(&ops, Route::LettersCount, VIEWER, r#"{"store":"topics"}"#).body;
    assert_eq!(discard().body, "{\"count\":6,\"more\":true}\n");
    assert!(count().contains("\"count\":4"), "{}", count());
    assert_eq!(discard().body, "{\"count\":4,\"more\":false}\n");
}
