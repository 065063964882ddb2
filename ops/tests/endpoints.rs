//! The answers of each path, on a real socket: codes, forms, names and bounds.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{ask, ask_with, caught_up, get, publish, send, started, topics};
use tidings_audit::{Auditor, MemoryAudit};
use tidings_core::{BoxError, Delivery, ErrorKind, Record};
use tidings_memory::{MemoryStore, MemoryTransport};
use tidings_ops::{MetricKind, Ops, metrics};
use tidings_service::telemetry::{HealthOptions, OutboxSnapshot, RelaySnapshot, RelayStats};
use tidings_service::{EventPublisher, HandlerExt, Retry, Router, Service};

fn ignores() -> Router {
    Router::new().on_topic("t", (async |_: Delivery| {}).named("ignores"))
}

#[tokio::test]
async fn a_working_service_is_live_ready_and_named_only_where_that_is_allowed() {
    let transport = MemoryTransport::new();
    let service = started(ignores(), &transport).await;
    caught_up(&service).await;
    let ops = Ops::new().with_service(&service).serve("127.0.0.1:0").unwrap();
    let address = ops.local_addr();
    let live = get(address, "/livez", &[]);
    assert_eq!((live.code, live.body.as_str()), (200, "ok\n"));
    assert!(live.head.contains("cache-control: no-store") && live.head.contains("text/plain"), "{}", live.head);
    assert_eq!(get(address, "/livez?verbose", &[]).body, "[+] service 1: live\nok\n");
    assert_eq!(get(address, "/readyz", &[]).body, "ok\n");
    assert_eq!(get(address, "/readyz?verbose=1", &[]).body, "[+] service 1: ready\nok\n");
    let json = get(address, "/readyz", &[("accept", "text/html, application/json;q=0.9")]);
    assert!(json.head.contains("content-type: application/json"));
    let expected = r#"{"status":"ready","services":[{"service":1,"status":"ready","standby":false,"reasons":[]}]}"#;
    assert_eq!(json.body, expected);
    assert!(get(address, "/status", &[]).body.contains("\"service\": \"meter\""));
    assert!(get(address, "/metrics", &[]).body.contains("tidings_ready{service=\"meter\"} 1\n"));
}

#[tokio::test]
async fn other_paths_methods_and_bodies_are_refused() {
    let ops = Ops::new().serve("127.0.0.1:0").unwrap();
    let address = ops.local_addr();
    assert_eq!(get(address, "/", &[]).code, 404);
    assert_eq!(get(address, "/livez/", &[]).code, 404);
    let post = "POST /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    let method = send(address, &format!("{post}\r\n"));
    assert_eq!(method.code, 405, "{method:?}");
    assert!(method.head.contains("allow: get,head"), "{method:?}");
    assert_eq!(send(address, &format!("{post}content-length: 3\r\n\r\nabc")).code, 413);
    assert_eq!(send(address, &format!("{post}transfer-encoding: chunked\r\n\r\n")).code, 413);
    let head = send(address, "HEAD /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert_eq!((head.code, head.body.as_str()), (200, ""));
    let long = "x".repeat(20 << 10);
    assert_eq!(get(address, "/livez", &[("x-long", &long)]).code, 431);
    let many: Vec<(String, &str)> = (0..70).map(|number| (format!("x-{number}"), "1")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(get(address, "/livez", &many).code, 431);
    assert_eq!(send(address, "garbage\r\n\r\n").code, 400);
    assert_eq!(get(address, "/livez", &[]).code, 200, "it still answers");
}

#[tokio::test]
async fn several_services_are_told_apart_and_the_worst_decides() {
    let transport = MemoryTransport::new();
    let a = started(ignores(), &transport).await;
    let b = Service::new("meter", ignores()).with_group("other").start(&transport).await.unwrap();
    caught_up(&a).await;
    caught_up(&b).await;
    let events = EventPublisher::new(&transport, "meter");
    let ops =
        Ops::new().with_service(&a).with_service(b.stats()).with_publisher(&events).with_publisher(events.stats());
    let router = ops.with_open_metrics().router();
    let (_, text) = ask(&router, "/metrics").await;
    assert!(
        text.contains("tidings_ready{service=\"meter\"} 1") && text.contains("tidings_ready{service=\"meter-2\"} 1")
    );
    assert!(text.contains("tidings_publish_calls_total{publisher=\"meter-2\"} 0"), "{text}");
    b.shutdown(Duration::from_secs(10)).await.unwrap();
    let (code, text) = ask(&router, "/readyz?verbose").await;
    assert_eq!(code.as_u16(), 503);
    assert!(text.starts_with("[+] service 1: ready\n[-] service 2: not ready, stopped for "), "{text}");
    assert!(text.ends_with("\nnot ready: stopped\n"), "{text}");
    assert_eq!(ask(&router, "/livez").await.1, "ok\n", "only a failed engine is not live");
}

#[tokio::test]
async fn both_text_formats_have_the_same_series_and_valid_names() {
    let transport = MemoryTransport::new();
    let service = started(ignores(), &transport).await;
    publish(&transport, vec![Record::new("t", "1"), Record::new("t", "2")]).await;
    caught_up(&service).await;
    let ops = Ops::new().with_service(&service).with_relay(relay()).with_audit(Auditor::new(MemoryAudit::new()));
    let ops = ops.serve("127.0.0.1:0").unwrap();
    let plain = get(ops.local_addr(), "/metrics", &[]);
    let open = get(ops.local_addr(), "/metrics", &[("accept", "application/openmetrics-text;version=1.0.0,*/*;q=0.1")]);
    assert!(plain.head.contains("content-type: text/plain; version=0.0.4"));
    assert!(open.head.contains("content-type: application/openmetrics-text; version=1.0.0"));
    assert!(open.body.ends_with("# EOF\n") && !plain.body.contains("# EOF"));
    assert!(plain.body.contains("# TYPE tidings_fetched_messages_total counter\ntidings_fetched_messages_total{"));
    assert!(open.body.contains("# TYPE tidings_fetched_messages counter\n# UNIT tidings_fetched_messages messages\n"));
    assert!(plain.body.contains("messaging_process_duration_seconds_count{service=\"meter\",handler=\"ignores\"} 2"));
    assert!(
        plain
            .body
            .contains("messaging_process_duration_seconds_bucket{service=\"meter\",handler=\"ignores\",le=\"+Inf\"} 2"),
        "{}",
        plain.body
    );
    assert!(plain.body.contains("tidings_outbox_lag_seconds{relay=\"1\"} 7.5\n"), "{}", plain.body);
    let name = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
    let names = |text: &str| samples(text).map(name).collect::<BTreeSet<String>>();
    let found = names(&plain.body);
    assert_eq!(found, names(&open.body));
    for metric in metrics() {
        let end = if metric.kind == MetricKind::Histogram { "_bucket" } else { "" };
        let wanted = format!("{}{end}", metric.name);
        // Those of a store, of publishers, of retry topics, and what is not known.
        let absent = ["tidings_claims", "tidings_publish", "tidings_group_members", "tidings_retry_"];
        let is_absent = absent.iter().any(|name| metric.name.starts_with(name));
        assert!(is_absent || found.contains(&wanted), "{wanted}");
    }
}

fn samples(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty())
}

#[derive(Debug)]
struct Relay;

impl RelayStats for Relay {
    fn snapshot(&self) -> RelaySnapshot {
        let mut outbox = OutboxSnapshot::default();
        (outbox.waiting, outbox.time_lag) = (3, Duration::from_millis(7_500));
        let mut snapshot = RelaySnapshot::default();
        (snapshot.is_running, snapshot.outbox) = (true, Some(outbox));
        snapshot
    }
}

fn relay() -> std::sync::Arc<dyn RelayStats> {
    std::sync::Arc::new(Relay)
}

#[tokio::test(start_paused = true)]
async fn the_number_of_series_depends_on_partitions_and_handlers_only() {
    const KEYS: usize = 10_000;
    let transport = MemoryTransport::new();
    topics(&transport, &["t", "u"], 4).await;
    let fails = async |delivery: Delivery| -> Result<(), BoxError> {
        let text = delivery.record().value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned());
        match text {
            Some(text) if text.starts_with("error") => Err(tidings_core::reject(text).into()),
            _ => Ok(()),
        }
    };
    let router = Router::new().on_topic("t", fails.named("a")).on_topic("u", (async |_: Delivery| {}).named("b"));
    let service = Service::new("meter", router).with_idempotency(MemoryStore::new()).with_breaker(None);
    let service = service.with_retry(Retry::never()).start(&transport).await.unwrap();
    let record = |n: usize| {
        let value = if n.is_multiple_of(10) { format!("error text {n}") } else { format!("{n}") };
        Record::new("t", value).with_key(format!("key-{n}"))
    };
    for first in (0..KEYS).step_by(1_000) {
        publish(&transport, (first..first + 1_000).map(record).collect()).await;
    }
    caught_up(&service).await;
    assert_eq!(service.snapshot().totals().dead_lettered, 1_000);
    let router = Ops::new().with_service(&service).with_open_metrics().router();
    let (_, text) = ask(&router, "/metrics").await;
    let of_service: Vec<&str> = samples(&text).filter(|line| line.contains("service=\"")).collect();
    let has = |line: &&&str, label: &str| line.contains(&format!("{label}=\"")) && !line.contains("handler=\"\"");
    let partitions = of_service.iter().filter(|line| has(line, "partition")).count();
    let handlers = of_service.iter().filter(|line| has(line, "handler")).count();
    assert_eq!((partitions, handlers), (10 * 8, 38 * 2), "{text}");
    // All that a service can have of its own, but for the number of members, which only a surplus instance has.
    assert_eq!(of_service.len() - partitions - handlers, 40 - 1, "{text}");
    let letters = r#"tidings_dead_letters_total{service="meter",handler="a",kind="failed"} 1000"#;
    let rejected = r#"tidings_dead_letters_total{service="meter",handler="a",kind="invalid"} 1000"#;
    assert!(text.contains(letters) || text.contains(rejected), "{text}");
    let sum = |name: &str| -> u64 {
        let of = samples(&text).filter(|line| line.starts_with(name));
        of.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    };
    assert_eq!(sum("tidings_dead_letters_total{"), 1_000);
    assert!(!text.contains("key-") && !text.contains("error text"));
}

/// Twenty texts that must not leave the process by any answer.
#[tokio::test(start_paused = true)]
async fn no_answer_has_a_payload_a_key_a_header_an_error_or_a_token() {
    let transport = MemoryTransport::new();
    let fails = async |delivery: Delivery| -> Result<(), BoxError> {
        Err(format!("canary-error {:?}", delivery.record().key).into())
    };
    topics(&transport, &["t"], 1).await;
    let service = Service::new("meter", Router::new().on_topic("t", fails.named("fails")));
    let service = service.with_retry(Retry::exponential(Duration::from_secs(600)).without_jitter());
    let service = service.with_instance_id("canary-instance").start(&transport).await.unwrap();
    for n in 0..20 {
        let record = Record::new("t", format!("canary-value-{n}")).with_key(format!("canary-key-{n}"));
        publish(&transport, vec![record.with_header("x-canary", "canary-header")]).await;
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
    let tokens = tidings_ops::Tokens::new().with_token(tidings_ops::Role::Admin, "canary-token-0123456789").unwrap();
    let open = Ops::new().with_service(&service).with_open_metrics().with_tokens(tokens.clone());
    assert!(!format!("{open:?}").contains("canary"), "{open:?}");
    let router = open.router();
    for path in ["/livez?verbose", "/readyz?verbose", "/metrics", "/status"] {
        let (code, text) = ask(&router, path).await;
        assert!(!text.contains("canary"), "{path}: {text}");
        let names = text.contains("meter") || text.contains("fails") || text.contains("\"t\"");
        assert_eq!(names, path == "/metrics", "{path} {code}: {text}");
    }
    let ops = Ops::new().with_service(&service).with_tokens(tokens).serve("127.0.0.1:0").unwrap();
    let status = get(ops.local_addr(), "/status", &[("authorization", "Bearer canary-token-0123456789")]);
    assert_eq!(status.code, 200);
    assert!(!status.body.contains("canary") && status.body.contains("\"fails\""), "{}", status.body);
}

#[tokio::test(start_paused = true)]
async fn each_field_of_the_status_is_documented_and_names_what_holds_a_partition() {
    let transport = MemoryTransport::new();
    let forever = async |_: Delivery| std::future::pending::<()>().await;
    topics(&transport, &["t"], 1).await;
    let service = Service::new("meter", Router::new().on_topic("t", forever.named("forever")));
    let service = service.with_handler_timeout(None).with_idempotency(MemoryStore::new());
    let service = service.start(&transport).await.unwrap();
    publish(&transport, vec![Record::new("t", "1")]).await;
    tokio::time::sleep(Duration::from_secs(70)).await;
    let events = EventPublisher::new(&transport, "gateway");
    transport.faults().fail_fetches(1, ErrorKind::Unavailable);
    let ops = Ops::new().with_service(&service).with_publisher(&events).with_relay(relay());
    let ops = ops.with_health(HealthOptions::default().with_max_lag(0)).with_tokens(
        tidings_ops::Tokens::new().with_token(tidings_ops::Role::Viewer, "viewer-token-0123456789").unwrap(),
    );
    let (code, text) = ask_with(&ops.router(), "/status", "viewer-token-0123456789").await;
    assert_eq!(code, 200);
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    let documented = include_str!("../src/docs/status.md");
    let mut fields = BTreeSet::new();
    names(&status, &mut fields);
    assert!(fields.len() > 60, "{fields:?}");
    let unknown: Vec<_> = fields.iter().filter(|field| !documented.contains(&format!("`{field}`"))).collect();
    assert!(unknown.is_empty(), "not documented: {unknown:?}");
    let partition = &status["services"][0]["partitions"][0];
    assert_eq!((&partition["state"], &partition["lag"]), (&"stalled".into(), &1.into()));
    let holding = &partition["holding"];
    assert_eq!((&holding["offset"], &holding["handler"]), (&0.into(), &"forever".into()));
    assert_eq!((&holding["attempt"], &holding["cause"]), (&1.into(), &"handler".into()));
    let reasons = status["services"][0]["reasons"].as_array().unwrap();
    assert!(reasons.iter().any(|reason| reason["reason"] == "partition_stalled" && reason["remedy"] != ""), "{text}");
}

fn names(value: &serde_json::Value, into: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            into.insert(name.clone());
            names(value, into);
        }),
        serde_json::Value::Array(values) => values.iter().for_each(|value| names(value, into)),
        _ => {}
    }
}

#[tokio::test(start_paused = true)]
async fn the_status_lists_a_bounded_number_of_partitions() {
    let transport = MemoryTransport::new();
    topics(&transport, &["t"], 600).await;
    let service = Service::new("meter", ignores()).start(&transport).await.unwrap();
    caught_up(&service).await;
    let token = "viewer-token-0123456789";
    let tokens = tidings_ops::Tokens::new().with_token(tidings_ops::Role::Viewer, token).unwrap();
    let (_, text) = ask_with(&Ops::new().with_service(&service).with_tokens(tokens).router(), "/status", token).await;
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    let service = &status["services"][0];
    assert_eq!(service["partitions"].as_array().map(Vec::len), Some(500));
    assert_eq!(service["partitions_left_out"], 100);
    assert!(text.len() < 1 << 20, "{} bytes", text.len());
}

/// `docs/metrics.md` has the table of the code. Set `TIDINGS_BLESS=1` to write it.
#[test]
fn the_documented_metrics_are_those_of_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let text = std::fs::read_to_string(path).unwrap();
    let begin = text.find("| metric |").expect("a table");
    let end = text[begin..].find("\n\n").map_or(text.len(), |length| begin + length + 1);
    let wanted = format!("{}{}{}", &text[..begin], tidings_ops::metrics_table(), &text[end..]);
    if std::env::var_os("TIDINGS_BLESS").is_some() {
        std::fs::write(path, &wanted).unwrap();
    }
    assert_eq!(text, wanted, "run this test with TIDINGS_BLESS=1 to write docs/metrics.md");
}
