//! Troubles at night that only Kafka can show: the last 20 lines of the log and `/status` alone name the cause and the
//! remedy. The others are in `ops/tests/troubles.rs`. Ignored where there is no Kafka.

#[path = "../../ops/tests/common/night.rs"]
mod night;

use std::process::ExitCode;
use std::time::Duration;

use night::{Log, Seen};
use serde::{Deserialize, Serialize};
use tidings::admin::ensure_topics;
use tidings::kafka::{KafkaConfig, KafkaTransport, Sasl, ScramHash};
use tidings::ops::{Ops, OpsHandle};
use tidings::record::{Name, Timestamp};
use tidings::service::ServiceState;
use tidings::telemetry::HealthOptions;
use tidings::{BoxError, Delivery, Event, Record, Router, Service, ServiceHandle, Topic, Transport};
use tidings_integration::get;
use tidings_testbed::{Kafka, KafkaOptions, Listener, Suite};
use tokio::time::{Instant, sleep, timeout};

type TestResult<T = ()> = Result<T, BoxError>;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    Suite::new()
        .with_case("the_topic_is_deleted", the_topic_is_deleted)
        .with_case("a_publisher_is_throttled_then_the_password_is_rotated", on_a_cluster_of_its_own)
        .run()
}

async fn connect(bootstrap: &str) -> TestResult<KafkaTransport> {
    Ok(KafkaTransport::connect(KafkaConfig::new(bootstrap.split(','))).await?)
}

fn endpoint(service: &ServiceHandle) -> TestResult<OpsHandle> {
    let health = HealthOptions::default().with_unready_after(Duration::from_secs(1));
    Ok(Ops::new().with_service(service).with_health(health).serve("127.0.0.1:0")?)
}

/// Looks until the operator sees it, or for as long as anything may take.
async fn look(ops: &OpsHandle, is_seen: impl Fn(&Seen) -> bool) -> TestResult<Seen> {
    let (begun, address) = (Instant::now(), ops.local_addr().to_string());
    loop {
        let (code, status) = get(&address, "/status")?;
        assert_eq!(code, 200, "{status}");
        let seen = Seen::new(Log::captured().last_lines(false), &status);
        if is_seen(&seen) || begun.elapsed() > LIMIT {
            return Ok(seen);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn publish(transport: &KafkaTransport, topic: &str, count: usize) -> TestResult {
    let records = (0..count).map(|n| Record::new(topic, "secret-payload").with_key(n.to_string())).collect();
    for answer in transport.publisher().await?.publish(records).await {
        answer?;
    }
    Ok(())
}

async fn the_topic_is_deleted() -> TestResult {
    Log::captured();
    let transport = connect(Kafka::shared().await?.bootstrap()).await?;
    let topic = Name::from(format!("deleted-{}-{}", std::process::id(), Timestamp::now().millis()));
    let admin = transport.admin().await?;
    ensure_topics(&*admin, &[Topic::new(&topic)]).await?;
    let router = Router::new().on_topic(topic.clone(), async |_: Delivery| {});
    let service = Service::new(format!("{topic}-service"), router).start(&transport).await?;
    publish(&transport, &topic, 10).await?;
    timeout(LIMIT, service.caught_up()).await??;
    let ops = endpoint(&service)?;
    admin.delete_topics(std::slice::from_ref(&topic)).await?.remove(0)?;
    let seen = look(&ops, |seen| !seen.status["notes"][0].is_null()).await?;
    seen.status(&[], &["no_partition", "check that the topics of the service exist"]);
    seen.log(&["this instance has no partition, and is the only member of its group", "check that its topics exist"]);
    service.shutdown(LIMIT).await?;
    Ok(())
}

/// The event that a handler returns: it is large.
#[derive(Serialize, Deserialize, Event)]
#[event(topic = "shipped", type = "shipped", key = "id")]
struct Shipped {
    id: String,
    parcel: String,
}

async fn ship(delivery: Delivery) -> Shipped {
    let id = delivery.record().key.as_deref().map(|key| String::from_utf8_lossy(key).into_owned());
    Shipped { id: id.unwrap_or_default(), parcel: "secret-payload".repeat(1_000) }
}

async fn on_a_cluster_of_its_own() -> TestResult {
    Log::captured();
    // Connections have to log in again after this time, and a quota is measured over two windows of a second.
    let options = KafkaOptions::new().with_sasl().with_property("connections.max.reauth.ms", "3000");
    let options = options.with_property("quota.window.num", "2").with_property("quota.window.size.seconds", "1");
    let kafka = Kafka::start(options).await?;
    let admin = connect(&kafka.bootstrap()).await?;
    ensure_topics(&*admin.admin().await?, &[Topic::new("orders"), Topic::new("shipped")]).await?;
    let config = KafkaConfig::new(kafka.bootstrap_on(Listener::Sasl)?.split(','));
    let sasl = Sasl::scram(ScramHash::Sha256, "alice", "alice-secret");
    let alice = KafkaTransport::connect(config.with_sasl(sasl)).await?;
    let service = Service::new("shipping", Router::new().on_topic("orders", ship)).start(&alice).await?;
    timeout(LIMIT, service.caught_up()).await??;
    let ops = endpoint(&service)?;
    throttled(&kafka, &admin, &ops).await?;
    rotated(&kafka, &service, &ops).await
}

/// Changes the settings of alice.
async fn configure_alice(kafka: &Kafka, setting: &str) -> TestResult {
    let alice = ["--bootstrap-server", "@", "--alter", "--entity-type", "users", "--entity-name", "alice"];
    kafka.tool("kafka.admin.ConfigCommand", &[&alice[..], &["--add-config", setting]].concat()).await?;
    Ok(())
}

async fn throttled(kafka: &Kafka, admin: &KafkaTransport, ops: &OpsHandle) -> TestResult {
    configure_alice(kafka, "producer_byte_rate=20000").await?;
    let load = async {
        loop {
            publish(admin, "orders", 5).await?;
            sleep(Duration::from_millis(100)).await;
        }
    };
    let throttled = ["the brokers throttle this publisher", "exceeds a quota", "raise the quota (producer_byte_rate"];
    let seen = tokio::select! {
        seen = look(ops, |seen| seen.has_line(&throttled)) => seen?,
        failed = load => return failed,
    };
    seen.log(&throttled);
    Ok(())
}

async fn rotated(kafka: &Kafka, service: &ServiceHandle, ops: &OpsHandle) -> TestResult {
    configure_alice(kafka, "SCRAM-SHA-256=[password=rotated-secret]").await?;
    let seen = look(ops, |seen| seen.status["live"] == false).await?;
    seen.log(&["ERROR tidings::service: the service failed", "authentication error", "invalid credentials"]);
    // Publishing failed before: that reason is shown for some seconds yet.
    let reasons = |seen: &Seen| seen.status["reasons"].as_array().map_or(0, Vec::len);
    let seen = look(ops, |seen| reasons(seen) == 1).await?;
    seen.status(&["engine_failed"], &["read the last error in the log", "credentials", "restart the process"]);
    let said = seen.to_string();
    assert!(!said.contains("alice-secret") && !said.contains("rotated-secret"), "{said}");
    assert_eq!(service.status().await.state, ServiceState::Failed);
    Ok(())
}
