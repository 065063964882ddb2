//! The connections of the native data path: TLS, each mechanism of SASL, renewal of credentials, deadlines, and brokers
//! that are silent or speak another protocol.
//!
//! The modules are compiled into this program, because they are private.

#[expect(dead_code, unreachable_pub, unused_imports, reason = "only what the data path needs is used here")]
#[path = "../src/config/mod.rs"]
mod config;
#[expect(dead_code, unused_imports, reason = "only what the data path needs is used here")]
#[path = "../src/error.rs"]
mod error;
#[expect(dead_code, unused_imports, reason = "the reader uses the rest")]
#[path = "../src/wire/mod.rs"]
mod wire;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use config::{KafkaConfig, Sasl, ScramHash, Tls, Token};
use kafka_protocol::messages::MetadataRequest;
use tidings_core::{BoxError, Error, ErrorKind};
use tidings_testbed::{Kafka, KafkaOptions, Listener, Suite};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};
use wire::cluster::Cluster;
use wire::connection::{Connection, Endpoint, RequestError};

type TestResult<T = ()> = Result<T, BoxError>;

const CANARY: &str = "c4n4ry-p4ssw0rd";
/// Time limit of any operation.
const LIMIT: Duration = Duration::from_secs(30);
/// Lifetime of a session at the listener whose credentials are renewed.
const SESSION: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    Suite::new()
        .with_case("each_mechanism_and_tls_work", each_mechanism_and_tls_work)
        .with_case("wrong_credentials_and_certificates_are_denied", wrong_credentials_are_denied)
        .with_case("renewed_certificates_are_read_when_connecting_again", renewed_certificates)
        .with_case("credentials_are_renewed_before_the_session_ends", credentials_are_renewed)
        .with_case("requests_are_pipelined", requests_are_pipelined)
        .with_case("a_silent_broker_fails_all_pending_requests", a_silent_broker)
        .with_case("the_first_broker_that_answers_is_taken", the_first_that_answers)
        .with_case("another_protocol_is_refused_within_bounds", another_protocol)
        .run()
}

async fn cluster() -> TestResult<Kafka> {
    static CLUSTER: OnceCell<Kafka> = OnceCell::const_new();
    let options = KafkaOptions::new().with_tls().with_bad_tls().with_sasl().with_proxies();
    let lifetime = SESSION.as_millis().to_string();
    let options = options.with_property("listener.name.sasltls.connections.max.reauth.ms", lifetime);
    Ok(CLUSTER.get_or_try_init(|| Kafka::start(options)).await?.clone())
}

fn at(kafka: &Kafka, listener: Listener) -> TestResult<KafkaConfig> {
    Ok(KafkaConfig::new(kafka.bootstrap_on(listener)?.split(',')))
}

fn tls(kafka: &Kafka) -> Tls {
    Tls::new().with_ca_pem(kafka.ca_pem())
}

fn endpoint(address: &str) -> TestResult<Endpoint> {
    let (host, port) = address.rsplit_once(':').ok_or("host:port")?;
    Ok(Endpoint { host: host.to_owned(), port: port.parse()? })
}

/// Opens a connection to the first broker.
async fn open(config: KafkaConfig) -> TestResult<Connection> {
    let endpoint = endpoint(&config.brokers[0])?;
    Ok(Connection::open(&endpoint, &Arc::new(config), LIMIT).await?)
}

/// Asks for the brokers.
async fn ask(connection: &Connection) -> Result<usize, RequestError> {
    let request = MetadataRequest::default().with_topics(Some(Vec::new()));
    Ok(connection.request(&request, LIMIT).await?.brokers.len())
}

async fn works(config: KafkaConfig) -> TestResult {
    assert_eq!(ask(&open(config.clone()).await?).await.map_err(Error::from)?, 1);
    let cluster = Cluster::connect(&config).await?;
    let id = cluster.connection(0).await.err();
    assert!(id.is_none() || id.is_some_and(|error| error.report().contains("unknown")), "only the id is unknown");
    Ok(())
}

fn bearer(subject: &'static str) -> Sasl {
    const LIFE: Duration = Duration::from_secs(600);
    let token = || Token::new(Kafka::bearer_token(subject, LIFE)).with_expires(SystemTime::now() + LIFE);
    Sasl::oauth_bearer(move || std::future::ready(Ok(token().with_extension("logicalCluster", "lkc-1"))))
}

fn mechanisms() -> [Sasl; 4] {
    [
        Sasl::plain("alice", "alice-secret"),
        Sasl::scram(ScramHash::Sha256, "alice", "alice-secret"),
        Sasl::scram(ScramHash::Sha512, "alice", "alice-secret"),
        bearer("alice"),
    ]
}

async fn each_mechanism_and_tls_work() -> TestResult {
    let kafka = cluster().await?;
    works(at(&kafka, Listener::Plain)?).await?;
    works(at(&kafka, Listener::Tls)?.with_tls(tls(&kafka))).await?;
    let client = kafka.client_cert("carol")?;
    let identity = tls(&kafka).with_identity_pem(client.cert_pem(), client.key_pem());
    works(at(&kafka, Listener::MutualTls)?.with_tls(identity)).await?;
    for sasl in mechanisms() {
        works(at(&kafka, Listener::Sasl)?.with_sasl(sasl.clone())).await?;
        works(at(&kafka, Listener::SaslTls)?.with_sasl(sasl).with_tls(tls(&kafka))).await?;
    }
    Ok(())
}

async fn denied(what: &str, config: KafkaConfig) -> TestResult<String> {
    let error = match Cluster::connect(&config).await {
        Ok(_) => return Err(format!("{what}: it was let in").into()),
        Err(error) => error,
    };
    let all = format!("{} {error:?} {config:?}", error.report());
    println!("{what}: {}", error.report());
    assert!(error.kind() == ErrorKind::Denied && !all.contains(CANARY), "{what}: {all}");
    Ok(error.report())
}

async fn wrong_credentials_are_denied() -> TestResult {
    let kafka = cluster().await?;
    for sasl in [
        Sasl::plain("alice", CANARY),
        Sasl::scram(ScramHash::Sha256, "alice", CANARY),
        Sasl::scram(ScramHash::Sha512, "nobody", CANARY),
        Sasl::oauth_bearer(|| std::future::ready(Ok(Token::new(CANARY)))),
        Sasl::oauth_bearer(|| std::future::ready(Err(Error::new(ErrorKind::Denied, "refused by the token server")))),
    ] {
        denied(&format!("{sasl:?}"), at(&kafka, Listener::Sasl)?.with_sasl(sasl)).await?;
    }
    let wrong = Tls::new().with_ca_pem(kafka.wrong_ca_pem());
    denied("wrong ca", at(&kafka, Listener::Tls)?.with_tls(wrong)).await?;
    let text = denied("expired", at(&kafka, Listener::ExpiredTls)?.with_tls(tls(&kafka))).await?;
    assert!(text.to_lowercase().contains("expired"), "{text}");
    denied("wrong name", at(&kafka, Listener::WrongNameTls)?.with_tls(tls(&kafka))).await?;
    denied("no client certificate", at(&kafka, Listener::MutualTls)?.with_tls(tls(&kafka))).await?;
    let sasl = Sasl::plain("alice", "alice-secret");
    denied("SASL where there is none", at(&kafka, Listener::Plain)?.with_sasl(sasl)).await?;
    Ok(())
}

/// A file is read for each connection: a wrong certificate that is replaced is no longer used.
async fn renewed_certificates() -> TestResult {
    let kafka = cluster().await?;
    let file = std::env::temp_dir().join(format!("tidings-wire-ca-{}", std::process::id()));
    std::fs::write(&file, kafka.wrong_ca_pem())?;
    let config = at(&kafka, Listener::Tls)?.with_tls(Tls::new().with_ca_file(&file));
    denied("the old certificate", config.clone()).await?;
    std::fs::write(&file, kafka.ca_pem())?;
    works(config).await?;
    std::fs::remove_file(&file)?;
    Ok(())
}

/// The broker closes a connection whose session has ended at its next request.
async fn credentials_are_renewed() -> TestResult {
    let kafka = cluster().await?;
    for sasl in mechanisms() {
        let name = format!("{sasl:?}");
        let connection = open(at(&kafka, Listener::SaslTls)?.with_sasl(sasl).with_tls(tls(&kafka))).await?;
        let begin = Instant::now();
        while begin.elapsed() < SESSION * 2 {
            ask(&connection).await.map_err(|error| format!("{name}: {}", error.error().report()))?;
            tokio::time::sleep(SESSION / 20).await;
        }
        assert!(connection.is_usable(), "{name}");
    }
    Ok(())
}

async fn requests_are_pipelined() -> TestResult {
    let connection = open(at(&cluster().await?, Listener::Plain)?).await?;
    // More than may be in flight, and some whose callers give up.
    let asked = (0..500).map(|n| {
        let connection = connection.clone();
        tokio::spawn(async move {
            if n % 7 == 0 {
                let _gone = timeout(Duration::ZERO, ask(&connection)).await;
                return Ok(1);
            }
            ask(&connection).await
        })
    });
    for asked in asked.collect::<Vec<_>>() {
        assert_eq!(timeout(LIMIT, asked).await??.map_err(Error::from)?, 1);
    }
    Ok(())
}

async fn a_silent_broker() -> TestResult {
    let kafka = cluster().await?;
    let (connection, proxy) = (open(at(&kafka, Listener::Proxied)?).await?, kafka.node(0).proxy().ok_or("a proxy")?);
    ask(&connection).await.map_err(Error::from)?;
    proxy.black_hole();
    let request = MetadataRequest::default().with_topics(Some(Vec::new()));
    let limit = Duration::from_millis(300);
    let begin = Instant::now();
    let (patient, hasty) = tokio::join!(ask(&connection), connection.request(&request, limit));
    proxy.resume();
    for answer in [patient.err(), hasty.err()] {
        let error = answer.ok_or("there was an answer")?;
        assert!(matches!(error, RequestError::Unanswered(_)), "{error:?}");
        assert!(error.error().report().contains("no answer within 300ms"), "{error:?}");
    }
    assert!(begin.elapsed() < LIMIT / 2 && !connection.is_usable());
    assert!(matches!(ask(&connection).await, Err(RequestError::Unsent(_))));
    Ok(())
}

async fn the_first_that_answers() -> TestResult {
    let kafka = cluster().await?;
    // Accepts connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let silent = silent.local_addr()?.to_string();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mute = listener.local_addr()?.to_string();
    let accepting = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            kept.push(socket);
        }
    });
    let brokers = [silent, mute, "127.0.0.1:1".to_owned(), kafka.bootstrap_on(Listener::Plain)?];
    let limit = Duration::from_secs(20);
    let config = KafkaConfig::new(brokers).with_connect_timeout(limit);
    let begin = Instant::now();
    Cluster::connect(&config).await?;
    assert!(begin.elapsed() < limit / 2, "{:?}", begin.elapsed());
    accepting.abort();
    Ok(())
}

/// Returns the error of a connection to a port that answers with these bytes.
async fn answered_with(answer: Vec<u8>) -> TestResult<Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let answering = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await?;
        let _request = socket.read(&mut [0; 1_024]).await?;
        socket.write_all(&answer).await?;
        socket.read(&mut [0; 1_024]).await
    });
    let config = Arc::new(KafkaConfig::new([address.clone()]));
    let opened = Connection::open(&endpoint(&address)?, &config, LIMIT).await;
    answering.abort();
    Ok(opened.map(drop).err().ok_or("it was taken for a broker")?)
}

async fn another_protocol() -> TestResult {
    let echo = [&[0, 0, 0, 10][..], &[0; 10]].concat();
    for (answer, kind) in [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), ErrorKind::TooLarge),
        (vec![0xff; 64], ErrorKind::TooLarge),
        (echo, ErrorKind::Undecodable),
        (vec![0, 0, 0, 0], ErrorKind::Undecodable),
    ] {
        let error = answered_with(answer.clone()).await?;
        assert_eq!(error.kind(), kind, "{answer:?}: {}", error.report());
    }
    Ok(())
}
