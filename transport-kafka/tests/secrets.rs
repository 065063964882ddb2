//! No secret is ever shown: not by `Debug`, not by an error, not in a trace at any level.

#[expect(dead_code, reason = "the other test files use the rest")]
mod common;
#[path = "common/traces.rs"]
mod traces;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use common::{TestResult, assigned, fresh, published, records};
use tidings_core::{ConsumerOptions, Transport};
use tidings_kafka::{KafkaConfig, KafkaTransport, Sasl, ScramHash, Tls, Token};
use tidings_testbed::{Kafka, KafkaOptions, Listener, Suite};

fn main() -> ExitCode {
    Suite::new().with_timeout(Duration::from_secs(150)).with_case("no_secret_is_ever_shown", never_shown).run()
}

/// All output.
type Shown = Arc<Mutex<Vec<String>>>;

/// Returns some lines from the middle of a private key: the lines around them are the same in all keys.
fn heart(pem: &str) -> String {
    pem.lines().filter(|line| !line.starts_with("---")).nth(1).unwrap_or_default().to_owned()
}

async fn never_shown() -> TestResult {
    let shown = Shown::default();
    let kept = Arc::clone(&shown);
    let keep = move |line: &str| kept.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
    traces::Traces::install(keep.clone())?;
    let kafka = Kafka::start(KafkaOptions::new().with_tls().with_sasl()).await?;
    let bearer = Kafka::bearer_token("alice", Duration::from_secs(600));
    let identity = kafka.client_cert("carol")?;
    let (right, wrong) = ("alice-secret", "c4n4ry-p4ssw0rd");
    let tls = || Tls::new().with_ca_pem(kafka.ca_pem());
    let own = || tls().with_identity_pem(identity.cert_pem(), identity.key_pem());
    let token = bearer.clone();
    let oauth = Sasl::oauth_bearer(move || {
        let token = Token::new(token.clone()).with_expires(SystemTime::now() + Duration::from_secs(600));
        std::future::ready(Ok(token))
    });
    let at = |listener: Listener| -> TestResult<KafkaConfig> {
        Ok(KafkaConfig::new(kafka.bootstrap_on(listener)?.split(',')))
    };
    let with = |sasl: Sasl| -> TestResult<KafkaConfig> { Ok(at(Listener::SaslTls)?.with_sasl(sasl).with_tls(own())) };
    let mut works = 0;
    for config in [
        with(Sasl::plain("alice", right))?,
        with(Sasl::scram(ScramHash::Sha256, "alice", right))?,
        with(Sasl::scram(ScramHash::Sha512, "alice", right))?,
        with(oauth)?,
        at(Listener::Sasl)?.with_sasl(Sasl::plain("alice", right)),
        at(Listener::MutualTls)?.with_tls(own()),
        with(Sasl::plain("alice", wrong))?,
        with(Sasl::scram(ScramHash::Sha512, "alice", wrong))?,
        with(Sasl::oauth_bearer(move || std::future::ready(Ok(Token::new(wrong)))))?,
        // At the wrong listener.
        at(Listener::Plain)?.with_sasl(Sasl::plain("alice", wrong)),
        at(Listener::Tls)?.with_sasl(Sasl::plain("alice", wrong)),
    ] {
        keep(&format!("{config:?} {config:#?}"));
        match KafkaTransport::connect(config).await {
            Ok(kafka) => {
                works += 1;
                use_it(&kafka, &keep).await?;
            }
            Err(error) => keep(&format!("{error} {error:?} {error:#?} {}", error.report())),
        }
    }
    assert_eq!(works, 6);
    let shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
    let traced = shown.iter().filter(|line| line.starts_with("TRACE")).count();
    assert!(traced > 100, "only {traced} lines are of the finest level");
    // Nor in the encodings of PLAIN and SCRAM, nor in parts.
    let signature = bearer.split('.').nth(1).unwrap_or_default().to_owned();
    for secret in [right.to_owned(), wrong.to_owned(), bearer.clone(), signature, heart(identity.key_pem())] {
        assert!(secret.len() > 8, "{secret:?} could be anything");
        let bytes = format!("{:?}", secret.as_bytes());
        let bytes = bytes.trim_matches(['[', ']']).to_owned();
        let found = shown.iter().find(|line| line.contains(&secret) || line.contains(&bytes));
        assert!(found.is_none(), "a secret is shown: {}", found.map_or("", |line| &**line));
    }
    Ok(())
}

/// Opens everything that a transport offers, and keeps its `Debug` output.
async fn use_it(kafka: &KafkaTransport, keep: &impl Fn(&str)) -> TestResult {
    let topic = fresh(kafka, "secret", 1).await?;
    published(kafka, vec![tidings_core::Record::new(topic.clone(), "v")]).await?;
    let publisher = kafka.publisher().await?;
    let consumer = kafka.consumer(ConsumerOptions::new(format!("{topic}-group"), [topic])).await?;
    assigned(&*consumer, 1).await?;
    records(&*consumer, 1).await?;
    keep(&format!("{kafka:?} {kafka:#?} {publisher:?} {consumer:?} {:?}", kafka.admin().await?));
    consumer.close().await?;
    publisher.close(Duration::from_secs(5)).await?;
    Ok(())
}
