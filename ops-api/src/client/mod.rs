//! The client: a [`Transport`] over HTTP, remote dead letters, and control of services.

mod acls;
mod admin;
mod audit;
mod call;
mod cluster;
mod connection;
mod letters;
mod log_reader;
mod publisher;
mod services;
mod store;
mod tls;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidings_core::audit::AuditSink;
use tidings_core::{
    Acls, Admin, Clause, Cluster, Consumer, ConsumerOptions, DeadLetterSink, DeadLetterStore, DeadLetterTopics, Error,
    ErrorKind, EventRef, Guarantees, LogReader, Name, Publisher, Result, Secret, Transactor, TransactorOptions,
    Transport, async_trait,
};

use self::call::Client;
pub use self::services::RemoteServices;
use crate::Route;
use crate::wire::{About, Stores};

/// The settings of a client.
///
/// ```
/// use std::time::Duration;
/// use tidings_ops_api::client::OpsConfig;
///
/// let config = OpsConfig::new("https://ops.example.org:9400").with_token("a long random text");
/// assert!(!format!("{config:?}").contains("a long random text"));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OpsConfig {
    /// The URL of the endpoint: `http://host:9400` or `https://host:9400`, with the path below which it is mounted.
    pub url: String,
    /// The bearer token, if the endpoint has tokens.
    pub token: Option<Secret>,
    /// A PEM file of the certificates that are trusted, in place of Mozilla's list.
    pub roots: Option<PathBuf>,
    /// The time limit of connecting: [`Self::DEFAULT_CONNECT_TIMEOUT`].
    pub connect_timeout: Duration,
    /// The time limit of a request: [`Self::DEFAULT_TIMEOUT`].
    pub timeout: Duration,
}

impl OpsConfig {
    /// The default of [`connect_timeout`](Self::connect_timeout).
    pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
    /// The default of [`timeout`](Self::timeout): longer than an endpoint works on a request.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(55);

    /// Creates the settings of a client of the endpoint at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            token: None,
            roots: None,
            connect_timeout: Self::DEFAULT_CONNECT_TIMEOUT,
            timeout: Self::DEFAULT_TIMEOUT,
        }
    }

    /// Sets the bearer token.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<Secret>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Trusts the certificates in this PEM file, and no other.
    #[must_use]
    pub fn with_roots(mut self, file: impl AsRef<Path>) -> Self {
        self.roots = Some(file.as_ref().to_owned());
        self
    }

    /// Sets the time limit of connecting.
    #[must_use]
    pub fn with_connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// Sets the time limit of a request.
    #[must_use]
    pub fn with_timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }
}

/// The transport of an operations endpoint: administers and publishes over HTTP.
///
/// It has no consumers and no transactions: [`consumer`](Transport::consumer) and [`transactor`](Transport::transactor)
/// are [`Unsupported`](ErrorKind::Unsupported). Errors have the
/// kinds that the endpoint's own transport gave them; a change whose answer was lost is
/// [`Indeterminate`](ErrorKind::Indeterminate).
///
/// Clones share their connections, of which a few are kept open.
///
/// ```no_run
/// use tidings_core::Transport;
/// use tidings_ops_api::client::OpsTransport;
///
/// # async fn example() -> tidings_core::Result<()> {
/// let transport = OpsTransport::connect("http://127.0.0.1:9400").await?;
/// for topic in transport.admin().await?.list_topics().await? {
///     println!("{topic}");
/// }
/// for service in transport.services().list().await? {
///     println!("{} is {}, lag {}", service.service, service.state, service.lag);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct OpsTransport {
    client: Arc<Client>,
    about: Arc<About>,
}

impl OpsTransport {
    /// Connects to the endpoint at a URL, without a token.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub async fn connect(url: &str) -> Result<Self> {
        Self::open(OpsConfig::new(url)).await
    }

    /// Connects to an endpoint, and asks what it offers.
    ///
    /// # Errors
    /// The error names the endpoint. [`Invalid`](ErrorKind::Invalid): a setting is wrong.
    /// [`Unavailable`](ErrorKind::Unavailable): it does not answer. [`Denied`](ErrorKind::Denied): the token is missing
    /// or wrong. [`Unsupported`](ErrorKind::Unsupported): what answers is no operations endpoint with this API.
    pub async fn open(config: OpsConfig) -> Result<Self> {
        let client = Client::new(&config)?;
        let about = client.get(Route::About).await;
        let about = about.map_err(|error| error.in_context(format_args!("connect to {}", client.address())))?;
        Ok(Self { client: Arc::new(client), about: Arc::new(about) })
    }

    /// Returns what the endpoint offers, and the caller's role, as of connecting.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Returns the services of the endpoint.
    pub fn services(&self) -> RemoteServices {
        RemoteServices::new(self.client.clone())
    }

    /// Opens the dead letters that the endpoint has under this name; the names are in [`about`](Self::about).
    ///
    /// A redrive by [`DeadLetterStore`]'s leases works as in the endpoint's own process; letters travel to the client and
    /// back.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound): it has none of the name; those of any request.
    pub async fn letters(&self, name: &str) -> Result<Arc<dyn DeadLetterStore>> {
        let mut stores = self.client.get::<Stores>(Route::Letters).await?.stores;
        let known = stores.keys().cloned().collect::<Vec<_>>().join(", ");
        let missing = || {
            let text = format!("the endpoint has no dead letters named {name:?}, only: {known}");
            Error::new(ErrorKind::NotFound, text)
        };
        let kept = stores.remove(name).ok_or_else(missing)?;
        Ok(Arc::new(letters::RemoteLetters::new(self.client.clone(), name, kept.into())))
    }

    /// Returns which events are done in the endpoint's idempotency store of this name; answer `i` is event `i`'s.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound): it has none of the name; those of
    /// [`IdempotencyStore::done`](tidings_core::IdempotencyStore::done).
    pub async fn done(&self, store: &str, scope: &Name, events: &[EventRef]) -> Result<Vec<bool>> {
        store::done(&self.client, store, scope, events).await
    }

    /// Returns the endpoint's audit trail, which is read-only. Requires the role admin.
    ///
    /// Reads fail as [`Unsupported`](ErrorKind::Unsupported) if the endpoint has no trail.
    pub fn audit(&self) -> Arc<dyn AuditSink> {
        Arc::new(audit::RemoteAudit::new(self.client.clone()))
    }

    fn guarantees_of_admin(&self) -> Guarantees {
        self.about.guarantees.get("transport").cloned().unwrap_or_default().into()
    }
}

/// Returns the error of what HTTP does not offer.
fn unsupported<T>(what: &str) -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, format!("{what}: not over HTTP")))
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Transport for OpsTransport {
    fn system(&self) -> &'static str {
        "http"
    }

    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        Ok(Arc::new(publisher::RemotePublisher::new(self.client.clone(), self.guarantees_of_admin())))
    }

    async fn consumer(&self, _: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        unsupported("join a consumer group")
    }

    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        Ok(Arc::new(DeadLetterTopics::new(self.publisher().await?, self.admin().await?)))
    }

    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        Ok(Arc::new(admin::RemoteAdmin::new(self.client.clone(), self.guarantees_of_admin())))
    }

    async fn log_reader(&self) -> Result<Arc<dyn LogReader>> {
        Ok(Arc::new(log_reader::RemoteLog::new(self.client.clone(), self.guarantees_of_admin())))
    }

    async fn acls(&self) -> Result<Arc<dyn Acls>> {
        Ok(Arc::new(acls::RemoteAcls::new(self.client.clone())))
    }

    async fn cluster(&self) -> Result<Arc<dyn Cluster>> {
        Ok(Arc::new(cluster::RemoteCluster::new(self.client.clone())))
    }

    async fn transactor(&self, _: TransactorOptions) -> Result<Arc<dyn Transactor>> {
        unsupported("open a transactor")
    }

    fn writes_trace_context(&self) -> bool {
        false
    }

    fn guarantees(&self) -> Guarantees {
        // Derived, so that the next clause of consumers is not promised by accident.
        let of_consumers = Clause::ALL.iter().copied().filter(|clause| clause.id().starts_with('c'));
        of_consumers
            .fold(self.guarantees_of_admin(), |kept, clause| kept.without(clause, "there are no consumers over HTTP"))
            .without_transactions("there are no transactions over HTTP")
    }
}
