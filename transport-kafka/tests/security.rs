//! Who may come in: each right credential works, each wrong one is told by its kind within five seconds.

use std::process::ExitCode;
use std::time::Duration;

use tidings_core::{BoxError, ErrorKind, Record, Topic, Transport};
use tidings_kafka::{KafkaConfig, KafkaTransport, Sasl, ScramHash, Tls};
use tidings_testbed::{Kafka, KafkaOptions, Listener, Suite};
use tokio::sync::OnceCell;
use tokio::time::Instant;

type TestResult<T = ()> = Result<T, BoxError>;

/// By when an error has to be there.
const LIMIT: Duration = Duration::from_secs(5);
const CANARY: &str = "c4n4ry-p4ssw0rd";

fn main() -> ExitCode {
    Suite::new()
        .with_case("right_credentials_work", right_credentials_work)
        .with_case("wrong_passwords_are_denied_and_never_shown", wrong_passwords_are_denied_and_never_shown)
        .with_case("wrong_certificates_are_denied", wrong_certificates_are_denied)
        .with_case("a_missing_right_is_denied", a_missing_right_is_denied)
        .run()
}

async fn cluster() -> TestResult<Kafka> {
    static CLUSTER: OnceCell<Kafka> = OnceCell::const_new();
    let options = KafkaOptions::new().with_tls().with_bad_tls().with_sasl().with_acls();
    Ok(CLUSTER.get_or_try_init(|| Kafka::start(options)).await?.clone())
}

fn at(kafka: &Kafka, listener: Listener) -> TestResult<KafkaConfig> {
    // By name, as the certificates have it.
    Ok(KafkaConfig::new(kafka.bootstrap_on(listener)?.split(',')).with_connect_timeout(LIMIT))
}

async fn works(config: KafkaConfig) -> TestResult {
    KafkaTransport::connect(config).await?.admin().await?.list_topics().await?;
    Ok(())
}

async fn denied(what: &str, config: KafkaConfig) -> TestResult<String> {
    let began = Instant::now();
    let connected = KafkaTransport::connect(config).await;
    let error = connected.map(drop).err().ok_or_else(|| format!("{what}: it was let in"))?;
    assert!(began.elapsed() < LIMIT, "{what}: {:?}", began.elapsed());
    assert_eq!(error.kind(), ErrorKind::Denied, "{what}: {}", error.report());
    println!("{what}: {:?}, {}", began.elapsed(), error.report());
    let all = format!("{} {error:?}", error.report());
    assert!(!all.contains(CANARY), "{what}: {all}");
    Ok(all)
}

async fn right_credentials_work() -> TestResult {
    let kafka = cluster().await?;
    let sasl = [
        Sasl::plain("alice", "alice-secret"),
        Sasl::scram(ScramHash::Sha256, "alice", "alice-secret"),
        Sasl::scram(ScramHash::Sha512, "alice", "alice-secret"),
    ];
    for sasl in sasl {
        works(at(&kafka, Listener::Sasl)?.with_sasl(sasl.clone())).await?;
        let tls = Tls::new().with_ca_pem(kafka.ca_pem());
        works(at(&kafka, Listener::SaslTls)?.with_sasl(sasl).with_tls(tls)).await?;
    }
    works(at(&kafka, Listener::Tls)?.with_tls(Tls::new().with_ca_pem(kafka.ca_pem()))).await?;
    let client = kafka.client_cert("carol")?;
    let tls = Tls::new().with_ca_pem(kafka.ca_pem()).with_identity_pem(client.cert_pem(), client.key_pem());
    works(at(&kafka, Listener::MutualTls)?.with_tls(tls)).await?;
    let dir = std::env::temp_dir().join(format!("tidings-tls-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    for (name, text) in [("ca", kafka.ca_pem().as_str()), ("cert", client.cert_pem()), ("key", client.key_pem())] {
        std::fs::write(dir.join(name), text)?;
    }
    let tls = Tls::new().with_ca_file(dir.join("ca")).with_identity_files(dir.join("cert"), dir.join("key"));
    works(at(&kafka, Listener::MutualTls)?.with_tls(tls)).await?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

async fn wrong_passwords_are_denied_and_never_shown() -> TestResult {
    let kafka = cluster().await?;
    for sasl in [
        Sasl::plain("alice", CANARY),
        Sasl::plain("nobody", CANARY),
        Sasl::scram(ScramHash::Sha256, "alice", CANARY),
        Sasl::scram(ScramHash::Sha512, "nobody", CANARY),
    ] {
        denied(&format!("{sasl:?}"), at(&kafka, Listener::Sasl)?.with_sasl(sasl)).await?;
    }
    Ok(())
}

async fn wrong_certificates_are_denied() -> TestResult {
    let kafka = cluster().await?;
    let (good, wrong) = (|| Tls::new().with_ca_pem(kafka.ca_pem()), Tls::new().with_ca_pem(kafka.wrong_ca_pem()));
    denied("wrong ca", at(&kafka, Listener::Tls)?.with_tls(wrong)).await?;
    let text = denied("wrong name", at(&kafka, Listener::WrongNameTls)?.with_tls(good())).await?;
    assert!(text.to_lowercase().contains("name"), "{text}");
    let text = denied("expired", at(&kafka, Listener::ExpiredTls)?.with_tls(good())).await?;
    assert!(text.to_lowercase().contains("expired"), "{text}");
    denied("no client certificate", at(&kafka, Listener::MutualTls)?.with_tls(good())).await?;
    let stranger = kafka.wrong_client_cert("mallory")?;
    let tls = good().with_identity_pem(stranger.cert_pem(), stranger.key_pem());
    denied("a stranger's certificate", at(&kafka, Listener::MutualTls)?.with_tls(tls)).await?;
    Ok(())
}

async fn a_missing_right_is_denied() -> TestResult {
    let kafka = cluster().await?;
    let admin = KafkaTransport::connect(at(&kafka, Listener::Plain)?).await?.admin().await?;
    let topic = tidings_core::Name::from("guarded");
    for answer in admin.create_topics(&[Topic::new(topic.clone())]).await? {
        answer?;
    }
    kafka.allow("bob", "Describe", &["--topic", "guarded"]).await?;
    // Whoever may write anywhere may have the producer id that an idempotent publisher needs.
    kafka.allow("bob", "Write", &["--topic", "elsewhere"]).await?;
    let bob = at(&kafka, Listener::Sasl)?.with_sasl(Sasl::plain("bob", "bob-secret"));
    let bob = KafkaTransport::connect(bob).await?;
    let began = Instant::now();
    let answers = bob.publisher().await?.publish(vec![Record::new(topic, "v")]).await;
    let kind = answers[0].as_ref().map_err(tidings_core::Error::kind);
    assert_eq!(kind.err(), Some(ErrorKind::Denied), "{answers:?}");
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    Ok(())
}
