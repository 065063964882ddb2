//! Connections to a cluster. Each role has its own, because one long request delays all others of a connection (K2).
//!
//! Opening a connection has two parts. [`Connection::open`] makes one attempt, and if that fails
//! asks the ports which protocol they speak, so that a TLS or SASL mismatch is reported as such and
//! not retried. [`Connection::open_patiently`] repeats attempts while nothing answers.
//!
//! TLS and SASL settings are converted to the client's here, and nowhere else: secrets leave their
//! [`Secret`](tidings_core::Secret) only in this file.

use std::io;
use std::time::Duration;

use krafka::auth::{AuthConfig, OAuthBearerToken, TlsConfig};
use krafka::{Kafka, KrafkaError, MetadataRecoveryStrategy};
use tidings_core::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep, timeout};

use super::protocol_probe::{self, PortProtocol};
use crate::config::{KafkaConfig, Pem, Sasl, ScramHash, Tls, Token, TokenSource};
use crate::error::{cause_of, failed};

/// Request timeout of fetchers and members: a broker that hangs must not delay them for longer, when others have long
/// taken over its partitions and groups.
const HASTY_REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum age of a member's broker metadata.
const MEMBER_METADATA_AGE: Duration = Duration::from_secs(2);
/// Maximum age of a fetcher's leader metadata: it is requested that often.
const READER_METADATA_AGE: Duration = Duration::from_millis(500);
/// Pause after the first failed connection attempt; doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Upper bound of that pause: a broker that starts is found within this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Pause before a port that closed the connection is tried again.
const ASK_AGAIN: Duration = Duration::from_millis(300);
/// Maximum age of broker and topic metadata elsewhere.
const METADATA_AGE: Duration = Duration::from_secs(60);

/// Purpose of a connection.
///
/// It decides the request timeout and how often brokers are asked for metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Admin operations, or membership where a join may take long (the classic protocol).
    Steady,
    /// Publishing: the publisher decides when topics are refreshed.
    Publishing,
    /// Membership, and the other requests of a member.
    Membership,
    /// Fetching, and following leaders.
    Reading,
}

/// A pool of connections to a cluster, one per broker.
#[derive(Debug, Clone)]
pub(crate) struct Connection(pub(super) Kafka);

impl Connection {
    /// Connects to the first broker that answers.
    ///
    /// # Errors
    /// [`Denied`](ErrorKind::Denied) if credentials, certificates or the protocol are wrong;
    /// [`Unavailable`](ErrorKind::Unavailable) if no broker answers. The text names the brokers and
    /// the cause, without secrets.
    pub(crate) async fn open(config: &KafkaConfig, role: Role) -> Result<Self> {
        let error = match Self::try_open(config, role).await {
            Err(error) => error,
            opened => return opened,
        };
        let known = match error.kind() {
            ErrorKind::Unavailable => other_protocol(config, role, &error).await,
            _ => None,
        };
        let context = connecting(config);
        let (kind, cause) = match known {
            Some(why) => (ErrorKind::Denied, why),
            None => (error.kind(), cause_of(&context, &error)),
        };
        Err(Error::new(kind, format!("{context}: {cause}")))
    }

    /// Like [`open`](Self::open), but retries while no broker answers, for [`KafkaConfig::connect_wait`].
    ///
    /// # Errors
    /// Those of [`open`](Self::open); the last one, once the wait is over.
    pub(crate) async fn open_patiently(config: &KafkaConfig, role: Role) -> Result<Self> {
        let begin = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match Self::open(config, role).await {
                Err(error) if error.is_retryable() => error,
                result => return result,
            };
            let left = config.connect_wait.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return Err(error);
            }
            tracing::warn!(%error, ?left, "cannot connect to Kafka; the attempt is repeated until connect_wait has passed");
            sleep(pause.min(left)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Makes one attempt, within [`KafkaConfig::connect_timeout`].
    async fn try_open(config: &KafkaConfig, role: Role) -> Result<Self> {
        let (request, age) = match role {
            Role::Steady => (config.request_timeout, METADATA_AGE),
            Role::Publishing => (config.request_timeout, Duration::ZERO),
            Role::Membership => (config.request_timeout.min(HASTY_REQUEST_TIMEOUT), MEMBER_METADATA_AGE),
            Role::Reading => {
                (config.request_timeout.min(HASTY_REQUEST_TIMEOUT.max(config.fetch_max_wait * 2)), READER_METADATA_AGE)
            }
        };
        let security = security(config)?;
        let opening = async {
            // A broker that accepts the connection and then falls silent must not fail the attempt: others may answer.
            let mut left = config.brokers.len().max(2);
            loop {
                let builder = Kafka::builder(config.brokers.join(","))
                    .client_id(&config.client_id)
                    .request_timeout(request)
                    .connect_timeout(config.connect_timeout.min(request))
                    .metadata_max_age(age)
                    // Otherwise the client forgets all brokers when none answers, and neither members nor admin
                    // operations ask for them again. The brokers of the configuration are tried in any case.
                    .metadata_recovery_strategy(MetadataRecoveryStrategy::None);
                let builder = match &security {
                    Some(security) => builder.security(security.clone()),
                    None => builder,
                };
                left -= 1;
                match builder.connect().await {
                    Err(error) if left > 0 && fell_silent(&error) => {}
                    answer => return answer,
                }
            }
        };
        match timeout(config.connect_timeout, opening).await {
            Ok(Ok(kafka)) => Ok(Self(kafka)),
            Ok(Err(error)) => Err(failed(connecting(config), error)),
            Err(_) => {
                let limit = config.connect_timeout;
                Err(Error::new(ErrorKind::Unavailable, format!("no answer within {limit:?}")))
            }
        }
    }
}

/// Checks whether a broker was reached and failed later; the client reports `NotConnected` if it reached none.
fn fell_silent(error: &KrafkaError) -> bool {
    match error {
        KrafkaError::Timeout { .. } => true,
        KrafkaError::Network(error) => error.kind() != io::ErrorKind::NotConnected,
        _ => false,
    }
}

/// The context of all errors of opening.
fn connecting(config: &KafkaConfig) -> String {
    format!("connect to Kafka at {}", config.brokers.join(", "))
}

/// Returns the reason of `error` if a broker expects another protocol.
///
/// Only the configured brokers are asked: no other is known yet. A port that answers as expected,
/// or not at all, says nothing, and the next one is asked.
async fn other_protocol(config: &KafkaConfig, role: Role, error: &Error) -> Option<String> {
    for broker in &config.brokers {
        let why = match (protocol_probe::probe(broker).await, &config.tls, &config.sasl) {
            (Some(PortProtocol::Tls), None, _) => {
                format!("{broker} speaks TLS, but TLS is not configured (kafkas:// sets it)")
            }
            (Some(PortProtocol::Plain | PortProtocol::Sasl(_)), Some(_), _) => {
                format!("{broker} speaks plain text, but TLS is configured (kafka:// is without)")
            }
            (Some(PortProtocol::Sasl(mechanisms)), None, None) => {
                format!("{broker} requires SASL, but no credentials are configured; it offers {mechanisms}")
            }
            // The port cannot be probed through TLS; but a broker that accepts the connection and closes it at the
            // first request, twice, requires authentication.
            (Some(PortProtocol::Tls), Some(_), None) if hangs_up(error) => {
                sleep(ASK_AGAIN).await;
                match Connection::try_open(config, role).await {
                    Err(again) if hangs_up(&again) => {
                        format!("{broker} closes the connection: it requires SASL, but no credentials are configured")
                    }
                    _ => continue,
                }
            }
            _ => continue,
        };
        return Some(why);
    }
    None
}

/// Checks whether the connection was established and then closed. The client has no other text for it.
fn hangs_up(error: &Error) -> bool {
    let report = error.report();
    report.contains("connection closed") && !report.contains("could not connect")
}

/// Combines TLS and SASL; each works without the other.
fn security(config: &KafkaConfig) -> Result<Option<AuthConfig>> {
    let sasl = config.sasl.as_ref().map(sasl);
    let tls = config.tls.as_ref().map(tls).transpose()?;
    Ok(match (sasl, tls) {
        (None, None) => None,
        (None, Some(tls)) => Some(AuthConfig::ssl(tls)),
        (Some(sasl), None) => Some(sasl),
        (Some(sasl), Some(tls)) => Some(sasl.with_tls(tls)),
    })
}

/// Converts credentials. A token source is asked again for each connection that authenticates.
fn sasl(sasl: &Sasl) -> AuthConfig {
    match sasl {
        Sasl::Plain { username, password } => AuthConfig::sasl_plain(username, password.expose()),
        Sasl::Scram { hash: ScramHash::Sha256, username, password } => {
            AuthConfig::sasl_scram_sha256(username, password.expose())
        }
        Sasl::Scram { hash: ScramHash::Sha512, username, password } => {
            AuthConfig::sasl_scram_sha512(username, password.expose())
        }
        Sasl::OAuthBearer(source) => {
            let source = source.clone();
            AuthConfig::sasl_oauthbearer_provider(move || {
                let source = source.clone();
                async move { token(source.as_ref()).await }
            })
        }
    }
}

/// Asks the source for a token.
///
/// One that expires within the client's margin is refused here: the client would fail the handshake
/// with a text that does not name the source.
async fn token(source: &dyn TokenSource) -> krafka::Result<OAuthBearerToken> {
    let Token { value, expires, extensions } = source.token().await.map_err(no_token)?;
    let mut token = OAuthBearerToken::new(value.expose());
    for (name, text) in extensions {
        token = token.with_extension(name, text);
    }
    if let Some(time) = expires {
        token = token.with_lifetime_ms(tidings_core::Timestamp::from(time).millis());
    }
    if token.needs_refresh() {
        return Err(KrafkaError::auth(
            "the token source returned a token that has expired or expires within 30 seconds",
        ));
    }
    Ok(token)
}

/// Reports a transient error as a network failure, which the client retries; on any other it gives up all pending
/// requests.
fn no_token(error: Error) -> KrafkaError {
    let what = "the token source returned no token";
    if error.is_retryable() {
        return KrafkaError::network(io::Error::other(Error::caused_by(ErrorKind::Unavailable, what, error)));
    }
    KrafkaError::auth_with_source(what, error)
}

/// Converts the TLS settings. Files are passed on by name, so that the client reads renewed
/// certificates when it reconnects.
fn tls(tls: &Tls) -> Result<TlsConfig> {
    let mut config = TlsConfig::new();
    config = match &tls.ca {
        None => config,
        Some(Pem::File(path)) => config.with_ca_cert(path.display().to_string()),
        Some(Pem::Text(text)) => config.with_ca_cert_pem(text.expose().as_bytes()),
    };
    let Some((certificates, key)) = &tls.identity else { return Ok(config) };
    match (certificates, key) {
        (Pem::File(certificates), Pem::File(key)) => {
            Ok(config.with_client_cert(certificates.display().to_string(), key.display().to_string()))
        }
        (certificates, key) => {
            let (certificates, key) = (text(certificates)?, text(key)?);
            Ok(config.with_client_cert_pem(certificates.into_bytes(), key.into_bytes()))
        }
    }
}

/// Reads PEM text from wherever it is: the client takes a chain and a key either both from files or
/// both as text.
fn text(pem: &Pem) -> Result<String> {
    match pem {
        Pem::Text(text) => Ok(text.expose().to_owned()),
        Pem::File(path) => std::fs::read_to_string(path)
            .map_err(|e| Error::caused_by(ErrorKind::Invalid, format!("tls.identity: read {}", path.display()), e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_error_names_the_brokers_and_the_cause_in_one_line() {
        let config = KafkaConfig::new(["127.0.0.1:1", "127.0.0.1:2"]);
        let error = Connection::open(&config, Role::Steady).await.unwrap_err();
        let text = "connect to Kafka at 127.0.0.1:1, 127.0.0.1:2: Connection refused (os error 111)";
        assert_eq!((error.to_string(), error.report()), (text.to_owned(), text.to_owned()));
    }

    #[tokio::test]
    async fn a_broker_that_does_not_answer_is_waited_for() {
        let wait = Duration::from_millis(500);
        let config = KafkaConfig::new(["127.0.0.1:1"]).with_connect_wait(wait);
        let begin = Instant::now();
        let error = Connection::open_patiently(&config, Role::Steady).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(begin.elapsed() >= wait, "{:?}", begin.elapsed());
    }

    #[tokio::test]
    async fn a_setting_that_is_wrong_is_not_waited_for() {
        let tls = Tls::new().with_ca_pem("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----");
        let config = KafkaConfig::new(["127.0.0.1:1"]).with_tls(tls).with_connect_wait(Duration::from_secs(3_600));
        let opening = timeout(Duration::from_secs(60), Connection::open_patiently(&config, Role::Steady));
        let error = opening.await.unwrap().unwrap_err();
        assert!(!error.is_retryable(), "{error}");
    }
}
