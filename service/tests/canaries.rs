//! No payload, key, header or secret is in the log or in a snapshot.

#[path = "common/capture.rs"]
#[expect(dead_code, reason = "only a part of it is needed here")]
mod capture;
#[expect(dead_code, reason = "only a part of it is needed here")]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use capture::Captured;
use common::{caught_up, publish, topics};
use tidings_core::{BoxError, Delivery, ErrorKind, Record, TopicPartition, reject, unavailable};
use tidings_memory::{MemoryStore, MemoryTransport};
use tidings_service::telemetry::{Health, HealthOptions};
use tidings_service::{HandlerExt, Retry, Router, Service, State};
use tokio::time::sleep;

type Switch = Arc<AtomicBool>;

#[derive(serde::Serialize, serde::Deserialize, tidings_macros::Event)]
#[event(crate = "tidings_core", topic = "typed", type = "user.registered", key = "user_id")]
struct UserRegistered {
    user_id: String,
    age: u8,
    #[serde(default)]
    scores: std::collections::BTreeMap<String, u8>,
    #[serde(default, deserialize_with = "checked")]
    country: String,
}

/// A reader of the user's, which puts the value into its error.
fn checked<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = <String as serde::Deserialize>::deserialize(deserializer)?;
    if text == "NL" { Ok(text) } else { Err(serde::de::Error::custom(format!("{text} is no country"))) }
}

/// A record with canaries in all its parts.
fn record(topic: &'static str, n: usize, body: &str) -> Record {
    Record::new(topic, body.replace("CANARY", &format!("canary-value-{n}")))
        .with_key(format!("canary-key-{n}"))
        .with_header("tenant", format!("canary-header-{n}"))
        .with_header(format!("canary-name-{n}"), "x")
}

#[tokio::test(start_paused = true)]
async fn canaries_are_neither_logged_nor_shown() {
    let (transport, log) = (MemoryTransport::new(), Captured::log());
    topics(&transport, &["t", "typed"]).await;
    let fails = async |delivery: Delivery, State(down): State<Switch>| -> Result<(), BoxError> {
        match delivery.offset() % 4 {
            0 => Err(reject("refused").into()),
            1 => Err("failed".into()),
            2 if down.swap(false, Ordering::Relaxed) => Err(unavailable("down").into()),
            _ => Ok(()),
        }
    };
    let down = Switch::new(AtomicBool::new(true));
    let router = Router::new().on_topic("t", fails.named("fails")).on(async |_: UserRegistered| {}).with_state(down);
    let retry = Retry::exponential(Duration::from_millis(10)).with_max_retries(1);
    let service = Service::new("canaries", router).with_idempotency(MemoryStore::new()).with_retry(retry);
    let service = service.start(&transport).await.unwrap();

    let bodies = [
        "CANARY",
        "{\"eventId\": \"CANARY\"}",
        "{\"eventId\": \"0190163d-8694-739b-aea5-966c26f8ad91\", \"eventType\": \"user.registered\", \
         \"timestamp\": 1, \"source\": \"s\", \"version\": \"1.0\", \"payload\": {\"user_id\": \"u\", \"age\": \"CANARY\"}}",
        "{\"eventId\": \"0190163d-8694-739b-aea5-966c26f8ad91\", \"eventType\": \"user.registered\", \
         \"timestamp\": \"CANARY\", \"source\": \"s\", \"version\": \"1.0\", \"payload\": {}}",
        "{\"eventId\": \"0190163d-8694-739b-aea5-966c26f8ad91\", \"eventType\": \"CANARY\", \"payload\": {}}",
        "{\"eventId\": \"0190163d-8694-739b-aea5-966c26f8ad91\", \"eventType\": \"user.registered\", \
         \"timestamp\": 1, \"source\": \"s\", \"version\": \"1.0\", \"payload\": {\"user_id\": 5, \"age\": \"CANARY\"}}",
        "{\"eventId\": \"0190163d-8694-739b-aea5-966c26f8ad91\", \"eventType\": \"user.registered\", \
         \"timestamp\": \"CANARY\", \"source\": \"s\", \"version\": \"CANARY\", \"payload\": {\"CANARY\": 1}}",
        "{\"eventId\": \"0190163d-8694-739b-aea5-966c26f8ad91\", \"eventType\": \"user.registered\", \
         \"timestamp\": 1, \"source\": \"s\", \"version\": \"1.0\", \"payload\": {\"user_id\": \"u\", \"age\": 3, \
         \"scores\": {\"CANARY\": []}}}",
        "{\"eventId\": \"0190163d-8694-739b-aea5-966c26f8ad91\", \"eventType\": \"user.registered\", \
         \"timestamp\": 1, \"source\": \"s\", \"version\": \"1.0\", \"payload\": {\"user_id\": \"u\", \"age\": 3, \
         \"country\": \"CANARY\"}}",
    ];
    let typed = bodies.iter().enumerate().map(|(n, body)| record("typed", n, body));
    let raw = (0..20).map(|n| record("t", n, "CANARY"));
    publish(&transport, typed.chain(raw).collect()).await;
    transport.faults().unreadable(&TopicPartition::new("t", 0), 18..19);
    transport.faults().fail_commits(2, ErrorKind::Unavailable);
    sleep(Duration::from_secs(30)).await;
    let shown = service.snapshot();
    service.skip(&TopicPartition::new("t", 0), 18..19).await.unwrap();
    caught_up(&service).await;
    let health = Health::of(&shown, &HealthOptions::default());
    let text = format!("{:?} {shown:?} {health:?} {:?}", log.all(), service.snapshot());
    assert!(log.all().len() > 20 && text.contains("refused"), "{text}");
    for useful in ["payload.age: invalid type: string ..", "payload.scores. ..", "payload.country: .."] {
        assert!(text.contains(useful), "{useful}: {text}");
    }
    let found: Vec<_> = text.match_indices("canary-").map(|(at, _)| &text[at.saturating_sub(100)..at + 20]).collect();
    assert!(found.is_empty(), "{found:#?}");
}
