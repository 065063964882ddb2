//! Services on a real Kafka: the interview platform, and dead letters that can't be written. Ignored where there is none.

#[path = "shared/kafka.rs"]
mod on_kafka;

use std::process::ExitCode;
use std::time::Duration;

use tidings::admin::ensure_topics;
use tidings::consumer::Step;
use tidings::dead_letter::{DEAD_LETTER_ROOM, DeadLetter, dead_letter_topic};
use tidings::kafka::{KafkaConfig, KafkaTransport, Sasl};
use tidings::record::Name;
use tidings::service::{PauseReason, ServiceState};
use tidings::{BoxError, Delivery, Record, Router, Service, ServiceHandle, Topic, Transport, reject};
use tidings_integration::interview_platform;
use tidings_testbed::{Kafka, KafkaOptions, Listener, Suite};
use tokio::time::{Instant, sleep, timeout};

use self::on_kafka::{create, fresh, transport};

type TestResult<T = ()> = Result<T, BoxError>;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a test may take that builds an example first, where none was built before.
const BUILD_LIMIT: Duration = Duration::from_secs(900);
/// The limit of a dead-letter topic in the test where it is too low.
const SMALL: u64 = 2_000;
/// The limit of a broker that accepts more than usual.
const LARGE: u64 = 3_000_000;

fn main() -> ExitCode {
    Suite::new()
        .with_case("a_missing_letter_topic_holds_the_record", a_missing_letter_topic_holds_the_record)
        .with_case("a_letter_too_large_for_its_topic_holds_the_record", a_letter_too_large_holds_the_record)
        .with_case("a_letter_that_is_denied_holds_the_record", a_letter_that_is_denied_holds_the_record)
        .with_timeout(BUILD_LIMIT)
        .with_case("the_interview_platform_runs", the_interview_platform_runs)
        .run()
}

async fn the_interview_platform_runs() -> TestResult {
    let kafka = Kafka::shared().await?;
    let url = format!("kafka://{}", kafka.bootstrap());
    let mut command = tokio::process::Command::from(interview_platform());
    command.args(["--url", &url, "--limit", "1500", "--poison", "5", "--duplicate", "5"]);
    let run = command.kill_on_drop(true).output().await?;
    let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{said}");
    assert!(said.contains("Checked: each event was settled once"), "{said}");
    Ok(())
}

async fn poison(delivery: Delivery) -> Result<(), BoxError> {
    match delivery.record().value.as_deref() {
        Some(value) if value.starts_with(b"bad") => Err(reject("it is bad").into()),
        _ => Ok(()),
    }
}

/// A service that rejects what is bad.
async fn start(transport: &KafkaTransport, topic: &Name) -> TestResult<ServiceHandle> {
    let router = Router::new().on_topic(topic.clone(), poison);
    Ok(Service::new(format!("{topic}-service"), router).start(transport).await?)
}

async fn publish(transport: &dyn Transport, topic: &Name, values: [String; 2]) -> TestResult {
    for answer in transport.publisher().await?.publish(values.map(|v| Record::new(topic, v)).into()).await {
        answer?;
    }
    Ok(())
}

/// Waits until the service says that the letter can't be written, and why; nothing may be committed beyond it.
async fn held(service: &ServiceHandle, topic: &Name) -> TestResult {
    let ends = Instant::now() + LIMIT;
    loop {
        let status = service.status().await;
        let paused = status.partitions.iter().any(|p| p.paused.contains(&PauseReason::DeadLetters));
        let named = status.problems.iter().any(|line| line.contains(dead_letter_topic(topic).as_str()));
        if paused && named {
            assert_eq!((status.state, status.is_healthy()), (ServiceState::Degraded, false));
            assert!(status.partitions.iter().all(|p| p.committed.unwrap_or(0) == 0), "{status:?}");
            return Ok(());
        }
        if Instant::now() > ends {
            return Err(format!("it does not say so: {status:#?}").into());
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Once the letter can be written, it is; and what lay behind it is handled.
async fn recovered(transport: &dyn Transport, service: ServiceHandle, topic: &Name, value: &str) -> TestResult {
    timeout(LIMIT, service.caught_up()).await??;
    let totals = service.status().await.totals;
    assert_eq!((totals.dead_lettered, totals.handled), (1, 1));
    service.shutdown(LIMIT).await?;
    let options = tidings::consumer::ConsumerOptions::new(format!("{topic}-witness"), [dead_letter_topic(topic)]);
    let reader = transport.consumer(options).await?;
    let letter = loop {
        if let Step::Records(fetched) = timeout(LIMIT, reader.next()).await?? {
            break DeadLetter::from_record(&fetched.batch.records()[0])?;
        }
    };
    reader.close().await?;
    assert_eq!((letter.record.offset, letter.record.value.as_deref()), (0, Some(value.as_bytes())));
    Ok(())
}

async fn a_missing_letter_topic_holds_the_record() -> TestResult {
    let transport = transport().await?;
    let topic = fresh("letterless");
    let letters = dead_letter_topic(&topic);
    create(&transport, &[Topic::new(&topic), Topic::new(&letters)]).await?;
    let service = start(&transport, &topic).await?;
    transport.admin().await?.delete_topics(std::slice::from_ref(&letters)).await?.remove(0)?;
    publish(&transport, &topic, ["bad".into(), "good".into()]).await?;
    held(&service, &topic).await?;
    create(&transport, &[Topic::new(&letters)]).await?;
    recovered(&transport, service, &topic, "bad").await
}

async fn a_letter_too_large_holds_the_record() -> TestResult {
    let transport = transport().await?;
    let topic = fresh("large");
    let letters = dead_letter_topic(&topic);
    create(&transport, &[Topic::new(&topic), Topic::new(&letters).with_max_record_bytes(SMALL)]).await?;
    let bad = format!("bad{}", "x".repeat(2 * SMALL as usize));
    let service = start(&transport, &topic).await?;
    publish(&transport, &topic, [bad.clone(), "good".into()]).await?;
    held(&service, &topic).await?;
    transport.admin().await?.delete_topics(std::slice::from_ref(&letters)).await?.remove(0)?;
    create(&transport, &[Topic::new(&letters)]).await?;
    recovered(&transport, service, &topic, &bad).await
}

async fn a_letter_that_is_denied_holds_the_record() -> TestResult {
    let options = KafkaOptions::new().with_sasl().with_acls().with_property("message.max.bytes", LARGE.to_string());
    let kafka = Kafka::start(options).await?;
    let admin = KafkaTransport::connect(KafkaConfig::new(kafka.bootstrap().split(','))).await?;
    let topic = fresh("guarded");
    let letters = dead_letter_topic(&topic);
    ensure_topics(&*admin.admin().await?, &[Topic::new(&topic)]).await?;
    let described = admin.admin().await?.describe_topics(std::slice::from_ref(&letters)).await?.remove(0)?;
    assert_eq!(described.settings["max.message.bytes"], (LARGE + DEAD_LETTER_ROOM).to_string());
    kafka.allow("bob", "Read", &["--topic", &topic, "--group", "*"]).await?;
    kafka.allow("bob", "Describe", &["--topic", &letters]).await?;
    // The right to write to any topic includes the producer id that an idempotent publisher needs.
    kafka.allow("bob", "Write", &["--topic", "elsewhere"]).await?;
    let config = KafkaConfig::new(kafka.bootstrap_on(Listener::Sasl)?.split(','));
    let bob = KafkaTransport::connect(config.with_sasl(Sasl::plain("bob", "bob-secret"))).await?;
    let service = start(&bob, &topic).await?;
    publish(&admin, &topic, ["bad".into(), "good".into()]).await?;
    held(&service, &topic).await?;
    kafka.allow("bob", "Write", &["--topic", &letters]).await?;
    recovered(&admin, service, &topic, "bad").await
}
