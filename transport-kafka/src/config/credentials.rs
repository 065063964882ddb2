//! TLS and SASL: authentication of brokers and of the client.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use tidings_core::{Result, Secret};

/// TLS settings. By default, the broker's certificate is checked against Mozilla's roots.
///
/// ```
/// use tidings_kafka::{KafkaConfig, Tls};
///
/// let tls = Tls::new().with_ca_pem("-----BEGIN CERTIFICATE-----...");
/// let config = KafkaConfig::new(["broker:9093"]).with_tls(tls);
/// assert!(config.tls.is_some());
/// assert!(!format!("{config:?}").contains("BEGIN")); // PEM texts are not printed
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Tls {
    /// Certificates to trust in place of Mozilla's roots.
    pub ca: Option<Pem>,
    /// Client certificate chain and key, for brokers that require mutual TLS.
    pub identity: Option<(Pem, Pem)>,
}

/// Certificates or a key in PEM format.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pem {
    /// A file, read again when connections are reopened.
    File(PathBuf),
    /// The PEM text itself.
    Text(Secret),
}

impl Tls {
    /// Creates a configuration that trusts Mozilla's roots and has no client certificate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts only the certificates in this PEM file.
    #[must_use]
    pub fn with_ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca = Some(Pem::File(file.into()));
        self
    }

    /// Trusts only these PEM certificates.
    #[must_use]
    pub fn with_ca_pem(mut self, pem: impl Into<Secret>) -> Self {
        self.ca = Some(Pem::Text(pem.into()));
        self
    }

    /// Presents the certificate chain in the first PEM file, with the key in the second.
    #[must_use]
    pub fn with_identity_files(mut self, certificates: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((Pem::File(certificates.into()), Pem::File(key.into())));
        self
    }

    /// Presents this PEM certificate chain, with this key.
    #[must_use]
    pub fn with_identity_pem(mut self, certificates: impl Into<Secret>, key: impl Into<Secret>) -> Self {
        self.identity = Some((Pem::Text(certificates.into()), Pem::Text(key.into())));
        self
    }
}

/// SASL credentials.
///
/// `Debug` shows the user name, never the password or the token.
///
/// ```
/// use tidings_kafka::{KafkaConfig, Sasl, ScramHash, Tls};
///
/// let sasl = Sasl::scram(ScramHash::Sha512, "user-service", "pa55word");
/// let config = KafkaConfig::new(["broker:9093"]).with_tls(Tls::new()).with_sasl(sasl);
/// let shown = format!("{config:?}");
/// assert!(shown.contains("user-service") && !shown.contains("pa55word"));
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum Sasl {
    /// PLAIN: the name and password in clear text. Use it over TLS only, except in tests.
    Plain {
        /// The user name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// SCRAM: the name and a proof of the password.
    Scram {
        /// The hash function.
        hash: ScramHash,
        /// The user name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// OAUTHBEARER: a token, requested whenever a connection needs one.
    OAuthBearer(Arc<dyn TokenSource>),
}

/// Hash function of SCRAM.
///
/// The broker stores a verifier for each hash separately (RFC 5802, RFC 7677).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScramHash {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

impl Sasl {
    /// Creates PLAIN credentials.
    pub fn plain(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::Plain { username: username.into(), password: password.into() }
    }

    /// Creates SCRAM credentials.
    pub fn scram(hash: ScramHash, username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::Scram { hash, username: username.into(), password: password.into() }
    }

    /// Creates OAUTHBEARER credentials with tokens from `source`.
    pub fn oauth_bearer(source: impl TokenSource) -> Self {
        Self::OAuthBearer(Arc::new(source))
    }
}

impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain { username, .. } => f.debug_struct("Plain").field("username", username).finish_non_exhaustive(),
            Self::Scram { hash, username, .. } => {
                f.debug_struct("Scram").field("hash", hash).field("username", username).finish_non_exhaustive()
            }
            Self::OAuthBearer(_) => f.write_str("OAuthBearer(..)"),
        }
    }
}

/// A token for OAUTHBEARER.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tidings_kafka::Token;
///
/// let expires = SystemTime::now() + Duration::from_secs(3_600);
/// let token = Token::new("eyJhbGciOi...").with_expires(expires).with_extension("logicalCluster", "lkc-1");
/// assert_eq!(token.expires, Some(expires));
/// assert!(!format!("{token:?}").contains("eyJ"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Token {
    /// The token itself, such as a JWT.
    pub value: Secret,
    /// When the token expires; connections are renewed before then.
    pub expires: Option<SystemTime>,
    /// SASL extensions that some brokers require along with the token.
    pub extensions: Vec<(String, String)>,
}

impl Token {
    /// Creates a token without a known expiry.
    pub fn new(value: impl Into<Secret>) -> Self {
        Self { value: value.into(), expires: None, extensions: Vec::new() }
    }

    /// Sets the time at which the token expires.
    ///
    /// A token that expires within 30 seconds is refused when it is to be used.
    #[must_use]
    pub fn with_expires(mut self, time: SystemTime) -> Self {
        self.expires = Some(time);
        self
    }

    /// Adds a SASL extension.
    #[must_use]
    pub fn with_extension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extensions.push((name.into(), value.into()));
        self
    }
}

/// Future returned by [`TokenSource::token`].
pub type TokenFuture<'a> = Pin<Box<dyn Future<Output = Result<Token>> + Send + 'a>>;

/// Source of OAUTHBEARER tokens. It is asked for each new connection, so cache a token that is still valid.
///
/// An async closure is a source:
///
/// ```
/// use tidings_kafka::{KafkaConfig, Sasl, Tls, Token};
///
/// async fn fetch() -> tidings_core::Result<Token> {
///     Ok(Token::new("a token from the identity provider"))
/// }
///
/// let config = KafkaConfig::new(["broker:9093"]).with_tls(Tls::new()).with_sasl(Sasl::oauth_bearer(fetch));
/// assert!(config.sasl.is_some());
/// ```
pub trait TokenSource: Send + Sync + 'static {
    /// Returns a currently valid token.
    ///
    /// # Errors
    /// A [retryable](tidings_core::Error::is_retryable) error, such as
    /// [`Unavailable`](tidings_core::ErrorKind::Unavailable), is treated as a broker that does not answer: records
    /// wait until their deadline. Any other error counts as [`Denied`](tidings_core::ErrorKind::Denied), and
    /// in-flight records end as [`Indeterminate`](tidings_core::ErrorKind::Indeterminate).
    fn token(&self) -> TokenFuture<'_>;
}

impl<F, Fut> TokenSource for F
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Token>> + Send + 'static,
{
    fn token(&self) -> TokenFuture<'_> {
        Box::pin(self())
    }
}
