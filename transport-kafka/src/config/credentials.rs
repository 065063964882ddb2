//! TLS and SASL: what proves the broker to us and us to the broker.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use tidings_core::{Result, Secret};

/// TLS: with nothing said, the broker's certificate is checked against Mozilla's roots.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Tls {
    /// The certificates to trust in place of Mozilla's roots.
    pub ca: Option<Pem>,
    /// The client's certificate chain and key, for brokers that ask for one.
    pub identity: Option<(Pem, Pem)>,
}

/// Certificates or a key in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pem {
    /// In a file, read again when connections are made anew.
    File(PathBuf),
    /// Here.
    Text(Secret),
}

impl Tls {
    /// TLS that trusts Mozilla's roots and shows no certificate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the certificates in this PEM file, and no others.
    #[must_use]
    pub fn with_ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca = Some(Pem::File(file.into()));
        self
    }

    /// Trusts these certificates in PEM, and no others.
    #[must_use]
    pub fn with_ca_pem(mut self, pem: impl Into<Secret>) -> Self {
        self.ca = Some(Pem::Text(pem.into()));
        self
    }

    /// Shows the certificate chain in this PEM file, with the key in that one.
    #[must_use]
    pub fn with_identity_files(mut self, certificates: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((Pem::File(certificates.into()), Pem::File(key.into())));
        self
    }

    /// Shows this certificate chain in PEM, with this key.
    #[must_use]
    pub fn with_identity_pem(mut self, certificates: impl Into<Secret>, key: impl Into<Secret>) -> Self {
        self.identity = Some((Pem::Text(certificates.into()), Pem::Text(key.into())));
        self
    }
}

/// How we say who we are.
#[derive(Clone)]
#[non_exhaustive]
pub enum Sasl {
    /// Name and password in the clear: over TLS only, outside of tests.
    Plain {
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// Name and a proof of the password (SCRAM).
    Scram {
        /// The hash.
        hash: ScramHash,
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A token (OAUTHBEARER), asked for whenever a connection needs one.
    OAuthBearer(Arc<dyn TokenSource>),
}

/// The hash of SCRAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScramHash {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

impl Sasl {
    /// PLAIN with this name and password.
    pub fn plain(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::Plain { username: username.into(), password: password.into() }
    }

    /// SCRAM with this hash, name and password.
    pub fn scram(hash: ScramHash, username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::Scram { hash, username: username.into(), password: password.into() }
    }

    /// OAUTHBEARER with tokens from `source`.
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
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Token {
    /// The token itself, such as a JWT.
    pub value: Secret,
    /// When it ends; connections are then renewed in time.
    pub expires: Option<SystemTime>,
    /// Pairs that some brokers want beside it.
    pub extensions: Vec<(String, String)>,
}

impl Token {
    /// A token of which it is not known when it ends.
    pub fn new(value: impl Into<Secret>) -> Self {
        Self { value: value.into(), expires: None, extensions: Vec::new() }
    }

    /// Ending at this time.
    #[must_use]
    pub fn with_expires(mut self, time: SystemTime) -> Self {
        self.expires = Some(time);
        self
    }

    /// With one more extension.
    #[must_use]
    pub fn with_extension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extensions.push((name.into(), value.into()));
        self
    }
}

/// What [`TokenSource::token`] returns.
pub type TokenFuture<'a> = Pin<Box<dyn Future<Output = Result<Token>> + Send + 'a>>;

/// Gives tokens for OAUTHBEARER. Asked for each new connection: keep a token that is still good.
pub trait TokenSource: Send + Sync + 'static {
    /// A token that is good now.
    ///
    /// # Errors
    /// One that is [retryable](tidings_core::Error::is_retryable), such as
    /// [`Unavailable`](tidings_core::ErrorKind::Unavailable), is as a broker that does not answer, and records wait for it
    /// up to their deadline; any other counts as [`Denied`](tidings_core::ErrorKind::Denied), and records under way end as
    /// [`Indeterminate`](tidings_core::ErrorKind::Indeterminate).
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
