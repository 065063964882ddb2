//! Authentication and authorization: each right credential works, each wrong one is reported by its kind within five
//! seconds.

#[expect(dead_code, reason = "the other test files use the rest")]
mod common;

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use common::{TestResult, assigned, fresh};
use tidings_core::{ConsumerOptions, Error, ErrorKind, Record, Topic, Transport};
use tidings_kafka::{KafkaConfig, KafkaTransport, Sasl, ScramHash, Tls, Token};
use tidings_testbed::{Cut, Kafka, KafkaOptions, Listener, Suite};
use tokio::sync::{OnceCell, watch};
use tokio::time::{Instant, timeout};

/// Time limit for an error.
const LIMIT: Duration = Duration::from_secs(5);
const CANARY: &str = "c4n4ry-p4ssw0rd";

fn main() -> ExitCode {
    Suite::new()
        .with_case("right_credentials_work", right_credentials_work)
        .with_case("wrong_passwords_are_denied_and_never_shown", wrong_passwords_are_denied_and_never_shown)
        .with_case("wrong_certificates_are_denied", wrong_certificates_are_denied)
        .with_case("a_wrong_mechanism_is_named", a_wrong_mechanism_is_named)
        .with_case("a_wrong_token_is_denied", a_wrong_token_is_denied)
        .with_case("a_token_source_that_is_down_is_waited_for", a_token_source_that_is_down)
        .with_case("a_token_that_ages_in_a_handshake_is_no_refusal", a_token_that_ages)
        .with_case("a_record_that_may_be_stored_is_not_denied", a_record_that_may_be_stored)
        .with_case("the_wrong_protocol_for_a_port_is_named", the_wrong_protocol_for_a_port_is_named)
        .with_case("a_missing_right_is_denied", a_missing_right_is_denied)
        .run()
}

async fn cluster() -> TestResult<Kafka> {
    static CLUSTER: OnceCell<Kafka> = OnceCell::const_new();
    let options = KafkaOptions::new().with_tls().with_bad_tls().with_sasl().with_acls();
    // One mechanism is missing at one listener.
    let some = "PLAIN,SCRAM-SHA-512,OAUTHBEARER";
    let options = options.with_property("listener.name.sasltls.sasl.enabled.mechanisms", some);
    Ok(CLUSTER.get_or_try_init(|| Kafka::start(options)).await?.clone())
}

fn at(kafka: &Kafka, listener: Listener) -> TestResult<KafkaConfig> {
    // With all timeouts at their defaults.
    Ok(KafkaConfig::new(kafka.bootstrap_on(listener)?.split(',')))
}

async fn works(config: KafkaConfig) -> TestResult {
    KafkaTransport::connect(config).await?.admin().await?.list_topics().await?;
    Ok(())
}

/// Returns tokens from a source that creates a new one each time.
fn bearer(subject: &'static str, life: Duration) -> Sasl {
    let token = move || Token::new(Kafka::bearer_token(subject, life)).with_expires(SystemTime::now() + life);
    Sasl::oauth_bearer(move || std::future::ready(Ok(token())))
}

/// Returns the answer of `ask` if it comes within the limit. A late answer is requested once more: the machine may
/// have been busy.
async fn in_time<T>(what: &str, ask: impl AsyncFn() -> TestResult<T>) -> TestResult<T> {
    let mut took = Vec::new();
    for _ in 0..2 {
        let began = Instant::now();
        let answer = ask().await?;
        took.push(began.elapsed());
        if began.elapsed() < LIMIT {
            println!("{what}: {took:?}");
            return Ok(answer);
        }
    }
    Err(format!("{what}: late, twice: {took:?}").into())
}

async fn denied(what: &str, config: KafkaConfig) -> TestResult<String> {
    let error = in_time(what, async || {
        let connected = KafkaTransport::connect(config.clone()).await;
        Ok(connected.map(drop).err().ok_or_else(|| format!("{what}: it was let in"))?)
    })
    .await?;
    if error.kind() != ErrorKind::Denied {
        return Err(format!("{what}: {:?}: {}", error.kind(), error.report()).into());
    }
    println!("{what}: {}", error.report());
    let all = format!("{} {error:?}", error.report());
    assert!(!all.contains(CANARY), "{what}: {all}");
    Ok(all)
}

async fn right_credentials_work() -> TestResult {
    let kafka = cluster().await?;
    let sasl = [
        Sasl::plain("alice", "alice-secret"),
        Sasl::scram(ScramHash::Sha512, "alice", "alice-secret"),
        bearer("alice", Duration::from_secs(600)),
    ];
    for sasl in sasl {
        works(at(&kafka, Listener::Sasl)?.with_sasl(sasl.clone())).await?;
        let tls = Tls::new().with_ca_pem(kafka.ca_pem());
        works(at(&kafka, Listener::SaslTls)?.with_sasl(sasl).with_tls(tls)).await?;
    }
    works(at(&kafka, Listener::Sasl)?.with_sasl(Sasl::scram(ScramHash::Sha256, "alice", "alice-secret"))).await?;
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

async fn a_wrong_mechanism_is_named() -> TestResult {
    let kafka = cluster().await?;
    let scram = Sasl::scram(ScramHash::Sha256, "alice", "alice-secret");
    let config = at(&kafka, Listener::SaslTls)?.with_sasl(scram).with_tls(Tls::new().with_ca_pem(kafka.ca_pem()));
    let text = denied("a mechanism that is not there", config).await?;
    assert!(text.contains("SCRAM-SHA-256") || text.to_lowercase().contains("mechanism"), "{text}");
    Ok(())
}

async fn a_wrong_token_is_denied() -> TestResult {
    let kafka = cluster().await?;
    denied("an expired token", at(&kafka, Listener::Sasl)?.with_sasl(bearer("alice", Duration::ZERO))).await?;
    let nonsense = Sasl::oauth_bearer(|| std::future::ready(Ok(Token::new(CANARY))));
    denied("a token that is none", at(&kafka, Listener::Sasl)?.with_sasl(nonsense)).await?;
    let failing = |kind| {
        let config = at(&kafka, Listener::Sasl)?;
        let error = move || std::future::ready(Err(Error::new(kind, "the token server says no")));
        TestResult::Ok(config.with_sasl(Sasl::oauth_bearer(error)))
    };
    let text = denied("no token", failing(ErrorKind::Denied)?).await?;
    assert!(text.contains("the token server says no"), "{text}");
    let down = failing(ErrorKind::Unavailable)?;
    let error = in_time("no token for now", async || {
        Ok(KafkaTransport::connect(down.clone()).await.map(drop).expect_err("there is no token"))
    })
    .await?;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
    assert!(error.report().contains("the token server says no"), "{}", error.report());
    Ok(())
}

/// Lifetime of a token: the client asks for another one in its last half minute.
const LIFE: Duration = Duration::from_secs(34);

/// A source of tokens for a broker behind a proxy, which refuses on request.
#[derive(Clone)]
struct Source {
    refusal: watch::Sender<Option<ErrorKind>>,
    refused: watch::Sender<usize>,
}

impl Source {
    fn new() -> Self {
        Self { refusal: watch::Sender::new(None), refused: watch::Sender::new(0) }
    }

    fn sasl(&self) -> Sasl {
        let source = self.clone();
        Sasl::oauth_bearer(move || {
            let refusal = *source.refusal.borrow();
            std::future::ready(match refusal {
                None => Ok(Token::new(Kafka::bearer_token("alice", LIFE)).with_expires(SystemTime::now() + LIFE)),
                Some(kind) => {
                    source.refused.send_modify(|times| *times += 1);
                    Err(Error::new(kind, "the token server says no"))
                }
            })
        })
    }
}

/// Starts a broker that requires tokens behind its proxy.
async fn behind_a_proxy() -> TestResult<Kafka> {
    static KAFKA: OnceCell<Kafka> = OnceCell::const_new();
    let doors = "CONTROLLER:PLAINTEXT,PLAIN:PLAINTEXT,SASL:SASL_PLAINTEXT,PROXIED:SASL_PLAINTEXT";
    let module = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule";
    let options = KafkaOptions::new()
        .with_sasl()
        .with_proxies()
        .with_property("listener.security.protocol.map", doors)
        .with_property("listener.name.proxied.sasl.enabled.mechanisms", "OAUTHBEARER")
        .with_property(
            "listener.name.proxied.oauthbearer.sasl.jaas.config",
            format!("{module} required unsecuredLoginStringClaim_sub=\"admin\";"),
        );
    Ok(KAFKA.get_or_try_init(|| Kafka::start(options)).await?.clone())
}

async fn a_token_source_that_is_down() -> TestResult {
    let (kafka, source) = (behind_a_proxy().await?, Source::new());
    let transport = KafkaTransport::connect(at(&kafka, Listener::Proxied)?.with_sasl(source.sasl())).await?;
    let (topic, publisher) = (fresh(&transport, "tokens", 1).await?, transport.publisher().await?);
    let one = || publisher.publish(vec![Record::new(topic.clone(), "v")]);
    one().await.remove(0)?;
    source.refusal.send_replace(Some(ErrorKind::Unavailable));
    let mut refused = source.refused.subscribe();
    // The client keeps a token until half a minute before it expires: from then on, no connection is opened without a
    // new one. (At that very moment a handshake would fail with the old one, and waiting records end as
    // indeterminate.)
    let kept = LIFE - Duration::from_secs(30);
    tokio::time::sleep(kept).await;
    let (proxy, ends) = (kafka.node(0).proxy().ok_or("there is a proxy")?, Instant::now() + 2 * LIMIT);
    loop {
        assert!(Instant::now() < ends, "the connection is not cut");
        proxy.cut_all();
        let before = *refused.borrow_and_update();
        let publishing = one();
        tokio::pin!(publishing);
        tokio::select! {
            // It was sent before its connection was cut.
            mut answers = &mut publishing => drop(answers.remove(0)?),
            refused = refused.wait_for(|times| *times > before + 2) => {
                drop(refused?);
                source.refusal.send_replace(None);
                return Ok(publishing.await.remove(0).map(drop)?);
            }
        }
    }
}

/// The token is new when it is created, but within half a minute of its expiry before the handshake's first answer
/// arrives.
async fn a_token_that_ages() -> TestResult {
    const DELAY: Duration = Duration::from_millis(300);
    let kafka = behind_a_proxy().await?;
    let (proxy, life) = (kafka.node(0).proxy().ok_or("there is a proxy")?, Duration::from_secs(30) + DELAY / 2);
    let config = at(&kafka, Listener::Proxied)?.with_sasl(bearer("alice", life));
    let ends = Instant::now() + 6 * LIMIT;
    proxy.delay(DELAY);
    let error = loop {
        let error = KafkaTransport::connect(config.clone()).await.err().ok_or("it was let in")?;
        // If the machine stalled, the token was too old to begin with.
        if error.report().contains("too close to expiry") || Instant::now() >= ends {
            break error;
        }
    };
    proxy.delay(Duration::ZERO);
    assert!(error.report().contains("too close to expiry"), "{}", error.report());
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
    Ok(())
}

/// Its answer is lost, and then all logins are refused.
async fn a_record_that_may_be_stored() -> TestResult {
    const PRODUCE: i16 = 0;
    let (kafka, source) = (behind_a_proxy().await?, Source::new());
    let transport = KafkaTransport::connect(at(&kafka, Listener::Proxied)?.with_sasl(source.sasl())).await?;
    let (topic, publisher) = (fresh(&transport, "stored", 1).await?, transport.publisher().await?);
    source.refusal.send_replace(Some(ErrorKind::Denied));
    let (mut stored, ends) = (1, Instant::now() + 6 * LIMIT);
    let error = loop {
        assert!(Instant::now() < ends, "nobody asks for a token");
        match publisher.publish(vec![Record::new(topic.clone(), "v")]).await.remove(0) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        kafka.node(0).proxy().ok_or("there is a proxy")?.cut_at(Cut::before_answer(1).to_api(PRODUCE));
    };
    assert_eq!(error.kind(), ErrorKind::Indeterminate, "{}", error.report());
    let admin = KafkaTransport::connect(at(&kafka, Listener::Plain)?).await?.admin().await?;
    assert_eq!(admin.describe_topics(&[topic]).await?.remove(0)?.partitions[0].end, stored);
    Ok(())
}

/// Plain text at a TLS port, TLS at a plain one, no SASL where it is required, SASL where it is not.
async fn the_wrong_protocol_for_a_port_is_named() -> TestResult {
    let kafka = cluster().await?;
    let tls = || Tls::new().with_ca_pem(kafka.ca_pem());
    let sasl = || Sasl::plain("alice", "alice-secret");
    let cases = [
        ("plain text at TLS", "TLS", at(&kafka, Listener::Tls)?),
        ("TLS at plain text", "plain text", at(&kafka, Listener::Plain)?.with_tls(tls())),
        ("nobody at SASL", "SASL", at(&kafka, Listener::Sasl)?),
        ("nobody at SASL over TLS", "SASL", at(&kafka, Listener::SaslTls)?.with_tls(tls())),
        ("SASL at nobody", "SASL", at(&kafka, Listener::Plain)?.with_sasl(sasl())),
        ("SASL at TLS", "SASL", at(&kafka, Listener::Tls)?.with_tls(tls()).with_sasl(sasl())),
        ("plain SASL at SASL over TLS", "TLS", at(&kafka, Listener::SaslTls)?.with_sasl(sasl())),
        ("SASL over TLS at SASL", "plain text", at(&kafka, Listener::Sasl)?.with_sasl(sasl()).with_tls(tls())),
    ];
    let mut wrong = Vec::new();
    for (what, named, config) in cases {
        match denied(what, config).await {
            Ok(text) if text.contains(named) => {}
            Ok(text) => wrong.push(format!("{what}: {named} is not in {text}")),
            Err(error) => wrong.push(error.to_string()),
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

async fn a_missing_right_is_denied() -> TestResult {
    let kafka = cluster().await?;
    let owner = KafkaTransport::connect(at(&kafka, Listener::Plain)?).await?;
    let admin = owner.admin().await?;
    let topic = tidings_core::Name::from("guarded");
    for answer in admin.create_topics(&[Topic::new(topic.clone())]).await? {
        answer?;
    }
    kafka.allow("bob", "Describe", &["--topic", "guarded"]).await?;
    // A user who may write anywhere may get the producer id that an idempotent publisher needs.
    kafka.allow("bob", "Write", &["--topic", "elsewhere"]).await?;
    let bob = at(&kafka, Listener::Sasl)?.with_sasl(Sasl::plain("bob", "bob-secret"));
    let bob = KafkaTransport::connect(bob).await?;
    let answers =
        in_time("publishing", async || Ok(bob.publisher().await?.publish(vec![Record::new(topic.clone(), "v")]).await))
            .await?;
    let kind = answers[0].as_ref().map_err(Error::kind);
    assert_eq!(kind.err(), Some(ErrorKind::Denied), "{answers:?}");
    let error = bob.admin().await?.create_topics(&[Topic::new("bobs")]).await?.remove(0).map_err(|e| e.kind());
    assert_eq!(error, Err(ErrorKind::Denied));
    // The first group of a cluster waits for the offsets topic: that must not count towards a refusal.
    let first = owner.consumer(ConsumerOptions::new("first-group", [topic])).await?;
    assigned(&*first, 1).await?;
    first.close().await?;
    // At first he may not join, then he may not read.
    let text = refused_to_read(&bob, "bobs-group").await?;
    assert!(text.contains("bobs-group") || text.to_lowercase().contains("group"), "{text}");
    kafka.allow("bob", "Read", &["--group", "bobs-group"]).await?;
    let text = refused_to_read(&bob, "bobs-group").await?;
    assert!(text.contains("guarded[0]"), "{text}");
    Ok(())
}

/// Returns the error of a member that reads a protected topic.
async fn refused_to_read(bob: &KafkaTransport, group: &'static str) -> TestResult<String> {
    let error = in_time(group, async || refusal_to_read(bob, group).await).await?;
    println!("{}", error.report());
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.report());
    Ok(error.report())
}

/// Returns the first error that is not transient.
async fn refusal_to_read(bob: &KafkaTransport, group: &'static str) -> TestResult<Error> {
    let consumer = match bob.consumer(ConsumerOptions::new(group, ["guarded"])).await {
        Ok(consumer) => consumer,
        Err(error) => return Ok(error),
    };
    loop {
        match timeout(4 * LIMIT, consumer.next()).await.map_err(|_| "nothing was refused")? {
            Err(error) if error.is_retryable() => {}
            Err(error) => return Ok(error),
            Ok(step) => return Err(format!("what may not be read was given: {step:?}").into()),
        }
    }
}
