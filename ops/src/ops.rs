//! The builder of an endpoint.

use std::fmt::Display;
use std::io;
use std::net::{TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use tidings_audit::Auditor;
use tidings_core::{Error, ErrorKind, IdempotencyStore, Result, Transport};
use tidings_service::telemetry::{HealthOptions, PublisherStats, RelayStats};
use tidings_service::{DeadLetters, ServiceControl, ServiceStats};

use crate::access::{Guard, Reach, Tokens};
use crate::api::{self, Api, Backends};
use crate::routes;
use crate::server::{self, OpsHandle, Security};
use crate::sources::Sources;

/// An operations endpoint: probes, metrics and the status of services, publishers and outbox relays over HTTP.
///
/// ```
/// use std::time::Duration;
///
/// use tidings_core::Delivery;
/// use tidings_memory::MemoryTransport;
/// use tidings_ops::Ops;
/// use tidings_service::{EventPublisher, Router, Service};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidings_core::Result<()> {
/// let transport = MemoryTransport::new();
/// let router = Router::new().on_topic("clicks", async |_: Delivery| {});
/// let service = Service::new("meter", router).start(&transport).await?;
/// let events = EventPublisher::new(&transport, "gateway");
///
/// let ops = Ops::new().with_service(&service).with_publisher(&events).serve("127.0.0.1:0")?;
/// println!("curl http://{}/status", ops.local_addr());
///
/// // /readyz answers 503 while the service drains. The endpoint ends last.
/// service.shutdown(Duration::from_secs(10)).await?;
/// ops.shutdown(Duration::from_secs(1)).await
/// # }
/// ```
#[derive(Debug, Default)]
#[must_use = "an endpoint does nothing until it is served or mounted"]
pub struct Ops {
    services: Vec<ServiceStats>,
    publishers: Vec<PublisherStats>,
    relays: Vec<Arc<dyn RelayStats>>,
    health: HealthOptions,
    tokens: Tokens,
    open_metrics: bool,
    read_only: bool,
    backends: Backends,
    client_timeout: Option<Duration>,
    #[cfg(feature = "tls")]
    tls: Option<(std::path::PathBuf, std::path::PathBuf)>,
}

impl Ops {
    /// The maximum number of concurrent connections. At the limit, the oldest one is closed.
    pub const MAX_CONNECTIONS: usize = server::MAX_CONNECTIONS;
    /// The default of [`with_client_timeout`](Self::with_client_timeout).
    pub const DEFAULT_CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

    /// Creates an endpoint that reports on nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reports on a service: a `&ServiceHandle`, or its `stats()`. A service whose name is taken already is shown with a
    /// number after its name.
    pub fn with_service(mut self, service: impl Into<ServiceStats>) -> Self {
        self.services.push(service.into());
        self
    }

    /// Reports on a publisher: an `&EventPublisher`, or its `stats()`. The events that handlers return are reported with
    /// their service.
    pub fn with_publisher(mut self, publisher: impl Into<PublisherStats>) -> Self {
        self.publishers.push(publisher.into());
        self
    }

    /// Reports on an outbox relay: a `&Relay`, or its `stats()`.
    pub fn with_relay(mut self, relay: impl Into<Arc<dyn RelayStats>>) -> Self {
        self.relays.push(relay.into());
        self
    }

    /// Reports on a service as [`with_service`](Self::with_service) does, and lets operators control it: pause, resume,
    /// drain, seek and skip. Pass a `&ServiceHandle`, or its `control()`.
    pub fn with_control(mut self, service: impl Into<ServiceControl>) -> Self {
        let control = service.into();
        if !self.services.iter().any(|stats| control.is_of(stats)) {
            self.services.push(control.stats());
        }
        self.backends.controls.push(control);
        self.here()
    }

    /// Serves the admin of a broker below `/api/v1`: its topics, groups, records, health, ACLs, brokers and
    /// configurations. The routes and the roles that they need are those of [`tidings_ops_api`].
    ///
    /// Requests are carried out on the runtime in which this is called.
    ///
    /// ```
    /// use tidings_core::Transport;
    /// use tidings_memory::MemoryTransport;
    /// use tidings_ops::Ops;
    /// use tidings_ops_api::client::OpsTransport;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> tidings_core::Result<()> {
    /// let ops = Ops::new().with_admin(MemoryTransport::new()).serve("127.0.0.1:0")?;
    ///
    /// // In another program, or `curl http://127.0.0.1:9400/api/v1/topics`.
    /// let transport = OpsTransport::connect(&format!("http://{}", ops.local_addr())).await?;
    /// assert!(transport.admin().await?.list_topics().await?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_admin(mut self, transport: impl Transport) -> Self {
        self.backends.set_transport(Arc::new(transport));
        self.here()
    }

    /// Serves dead letters under a name, such as that of their service or `"topics"`: lists, redrives, discards and
    /// parks them.
    ///
    /// A decision carries the name of the token's bearer.
    pub fn with_dead_letters(mut self, name: impl Into<String>, letters: DeadLetters) -> Self {
        self.backends.letters.insert(name.into(), letters);
        self.here()
    }

    /// Answers which events an idempotency store has as done, under a name such as that of its service. Nothing of the
    /// store can be changed.
    pub fn with_store(mut self, name: impl Into<String>, store: impl IdempotencyStore) -> Self {
        self.backends.stores.insert(name.into(), Arc::new(store));
        self.here()
    }

    /// Records every change over HTTP in an audit trail, with the name of the token's bearer. Requests that a role
    /// above viewer or read-only mode refused, and those without a valid token, are recorded at a bounded rate. A change that cannot
    /// be recorded is not made, unless the auditor's options permit it.
    ///
    /// Reads of records and of whole letters are recorded for the topics of the auditor's
    /// [event policy](tidings_audit::EventOperations::read). Admins read the trail at `/api/v1/audit`.
    ///
    /// ```
    /// use tidings_audit::{Auditor, MemoryAudit};
    /// use tidings_memory::MemoryTransport;
    /// use tidings_ops::Ops;
    ///
    /// let auditor = Auditor::new(MemoryAudit::new());
    /// let ops = Ops::new().with_admin(MemoryTransport::new()).with_audit(auditor);
    /// ```
    pub fn with_audit(mut self, auditor: Auditor) -> Self {
        self.backends.auditor = Some(auditor);
        self.here()
    }

    /// Refuses everything that changes something, whatever the role.
    pub fn with_read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Notes the runtime of the caller.
    fn here(mut self) -> Self {
        self.backends.runtime = tokio::runtime::Handle::try_current().ok().or(self.backends.runtime);
        self
    }

    /// Sets the thresholds of health, for all services.
    pub fn with_health(mut self, options: HealthOptions) -> Self {
        self.health = options;
        self
    }

    /// Sets the bearer tokens. With any, metrics and status need one of them on every address; with none, they are
    /// served to local requests on a loopback address only.
    pub fn with_tokens(mut self, tokens: Tokens) -> Self {
        self.tokens = tokens;
        self
    }

    /// Serves `/metrics` to everybody. It has the names of services, groups, topics and handlers.
    pub fn with_open_metrics(mut self) -> Self {
        self.open_metrics = true;
        self
    }

    /// Sets how long a client may take to send a request, and how long an idle connection is kept. Defaults to
    /// [`DEFAULT_CLIENT_TIMEOUT`](Self::DEFAULT_CLIENT_TIMEOUT). At most a minute counts: a connection lasts no longer.
    pub fn with_client_timeout(mut self, timeout: Duration) -> Self {
        self.client_timeout = Some(timeout);
        self
    }

    /// Serves by TLS, with the certificate chain and the private key in these PEM files.
    ///
    /// They are read once, by [`serve`](Self::serve): restart the process after a renewal. [`router`](Self::router)
    /// does not use them.
    #[cfg(feature = "tls")]
    pub fn with_tls(mut self, certificates: impl Into<std::path::PathBuf>, key: impl Into<std::path::PathBuf>) -> Self {
        self.tls = Some((certificates.into(), key.into()));
        self
    }

    /// Serves on `address`, such as `"0.0.0.0:9400"`, on a thread and a runtime of its own.
    ///
    /// Returns once the address is bound. Needs no runtime; a host name is resolved on the calling thread.
    ///
    /// # Errors
    /// The error names the address. [`Conflict`](ErrorKind::Conflict): it is in use. [`Denied`](ErrorKind::Denied): it
    /// may not be used. [`Invalid`](ErrorKind::Invalid): it is no address of this host, or a TLS file is wrong, which
    /// the error names. [`Unavailable`](ErrorKind::Unavailable): the system has no socket or thread left.
    pub fn serve<A: ToSocketAddrs + Display>(self, address: A) -> Result<OpsHandle> {
        let security = self.security()?;
        let context = format!("serve operations on {address}");
        let failed = |error: io::Error| Error::explained(kind_of(&error), &context, &error);
        let listener = TcpListener::bind(&address).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let reach = if bound.ip().is_loopback() { Reach::Loopback } else { Reach::Anywhere };
        let is_plain = matches!(security, Security::Plain);
        if reach == Reach::Anywhere && is_plain && !self.tokens.is_empty() {
            tracing::warn!(target: "tidings_ops", address = %bound, "bearer tokens cross the network in plain text; use TLS");
        }
        let client_timeout = self.client_timeout.unwrap_or(Self::DEFAULT_CLIENT_TIMEOUT).min(server::MAX_LIFETIME);
        let handle = server::start(listener, self.routes(reach), security, client_timeout).map_err(failed)?;
        tracing::info!(target: "tidings_ops", address = %bound, tls = !is_plain, "serving operations");
        Ok(handle)
    }

    /// Returns the routes, to be mounted in a server of yours. They answer only as well as its runtime does.
    ///
    /// Metrics and status need a token, unless metrics are open: the routes do not know where a request comes from.
    ///
    /// ```
    /// use tidings_ops::Ops;
    ///
    /// let app: axum::Router = axum::Router::new().nest("/ops", Ops::new().router());
    /// ```
    pub fn router(self) -> axum::Router {
        self.routes(Reach::Anywhere)
    }

    fn routes(self, reach: Reach) -> axum::Router {
        let auditor = self.backends.auditor.clone();
        let sources = Arc::new(Sources::new(self.services, self.publishers, self.relays, &self.health, auditor));
        let guard = Guard { tokens: self.tokens, reach };
        let api = Api::new(sources.clone(), guard.clone(), self.read_only, self.backends);
        routes::router(sources, guard, self.open_metrics).merge(api::routes(Arc::new(api)))
    }

    #[cfg(feature = "tls")]
    fn security(&self) -> Result<Security> {
        match &self.tls {
            Some((certificates, key)) => server::tls::Acceptor::read(certificates, key).map(Security::Tls),
            None => Ok(Security::Plain),
        }
    }

    #[cfg(not(feature = "tls"))]
    fn security(&self) -> Result<Security> {
        Ok(Security::Plain)
    }
}

fn kind_of(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::AddrInUse => ErrorKind::Conflict,
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::InvalidInput => ErrorKind::Invalid,
        _ => ErrorKind::Unavailable,
    }
}
