//! Starts and runs services, as deployed.
//!
//! [`Service::run`] is for programs that are one service: it owns the signals of the process. A program with several
//! services, or with a server next to them, uses [`Service::start`] and decides by itself when to shut down.

use std::sync::Arc;

use tidings_core::{Error, ErrorKind, Result, Transport};

use crate::announce::Announcement;
use crate::engine::{self, ServiceHandle};
use crate::environment;
use crate::logs;
use crate::service::Service;
use crate::signal::Signals;

/// The prefix of the environment variables of [`Service::with_env`].
const ENV_PREFIX: &str = "TIDINGS_SERVICE_";

impl Service {
    /// Overrides settings by the environment variables `TIDINGS_SERVICE_GROUP`, `TIDINGS_SERVICE_WORKERS` and so on.
    ///
    /// Each variable is named after the `with_` method that it stands for: `GROUP`, `INSTANCE_ID`, `TOPIC_PREFIX`,
    /// `SCOPE`, `START` (`earliest`, `latest`), `WORKERS`, `CONCURRENCY`, `MAX_BYTES_IN_FLIGHT`, `MAX_SPAN`,
    /// `COMMIT_INTERVAL`, `HANDLER_TIMEOUT`, `LEASE_TTL`, `SESSION_TIMEOUT`, `REVOCATION_DEADLINE`,
    /// `SHUTDOWN_TIMEOUT`. Durations have a unit (`500ms`, `30s`, `5m`), sizes may have one (`64MiB`). Call it after
    /// the settings in code, which it overrides.
    ///
    /// # Errors
    /// [`Invalid`](tidings_core::ErrorKind::Invalid), naming the variable and the expected form, for a wrong value or
    /// an unknown variable with the prefix.
    ///
    /// ```
    /// # use tidings_core::Delivery;
    /// # use tidings_service::{Router, Service};
    /// # fn main() -> tidings_core::Result<()> {
    /// let router = Router::new().on_topic("orders", async |_: Delivery| {});
    /// let service = Service::new("billing", router).with_concurrency(64).with_env()?;
    /// assert_eq!(service.group(), "billing-group"); // TIDINGS_SERVICE_GROUP is not set
    /// # Ok(()) }
    /// ```
    pub fn with_env(self) -> Result<Self> {
        self.with_env_prefix(ENV_PREFIX)
    }

    /// Overrides settings as [`with_env`](Self::with_env) does, by variables with another prefix, such as `BILLING_`:
    /// for several services in one process. A variable with the prefix that is not a setting is an error.
    ///
    /// # Errors
    /// Those of [`with_env`](Self::with_env).
    ///
    /// ```
    /// # use tidings_core::Delivery;
    /// # use tidings_service::{Router, Service};
    /// let router = Router::new().on_topic("orders", async |_: Delivery| {});
    /// let service = Service::new("billing", router).with_env_prefix("BILLING_")?; // BILLING_WORKERS, BILLING_GROUP ..
    /// assert_eq!(service.group(), "billing-group");
    /// # Ok::<(), tidings_core::Error>(())
    /// ```
    pub fn with_env_prefix(mut self, prefix: &str) -> Result<Self> {
        environment::apply(&mut self.options, prefix, std::env::vars_os())
            .map_err(|e| e.in_context(format_args!("configure {:?}", self.name)))?;
        Ok(self)
    }

    /// Starts the service: validates its routes, topics and dead-letter sink, and joins the group.
    ///
    /// # Errors
    /// [`Invalid`](tidings_core::ErrorKind::Invalid) for conflicting handlers or settings out of range,
    /// [`NotFound`](tidings_core::ErrorKind::NotFound) for a missing topic or dead-letter topic, and the errors of the
    /// transport and the store.
    ///
    /// # Cancel safety
    /// Dropping the future starts nothing. Topics that it created stay, and a lease that it acquired expires after its ttl.
    ///
    /// ```
    /// use tidings_core::{Delivery, ErrorKind};
    /// use tidings_memory::MemoryTransport;
    /// use tidings_service::{Router, Service};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> tidings_core::Result<()> {
    /// let router = Router::new().on_topic("clicks", async |_: Delivery| {});
    /// let error = Service::new("meter", router).with_workers(0).start(&MemoryTransport::new()).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Invalid);
    /// assert!(error.to_string().contains("number of workers is zero"), "{error}");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn start<T: Transport + Clone>(self, transport: &T) -> Result<ServiceHandle> {
        let announcer = match Announcement::of(&self)? {
            Some(announcement) => Some(announcement.open(transport).await?),
            None => None,
        };
        let Self { name, router, options } = self;
        let service = engine::start(name, router, options, Arc::new(transport.clone())).await?;
        Ok(match announcer {
            Some(announcer) => {
                let announcer = announcer.begin(service.stats());
                service.with_announcer(announcer)
            }
            None => service,
        })
    }

    /// Runs the service until Ctrl-C or SIGTERM, or until it fails; then drains for at most its
    /// [shutdown timeout](Self::with_shutdown_timeout).
    ///
    /// A second signal stops it at once: unfinished work is not committed, and is delivered again.
    ///
    /// # Errors
    /// Those of [`start`](Self::start) and [`ServiceHandle::shutdown`], the error that stopped the service, and
    /// [`Closed`](ErrorKind::Closed) after a second signal.
    ///
    /// # Cancel safety
    /// Dropping the future stops the service at once, as dropping a [`ServiceHandle`] does.
    pub async fn run<T: Transport + Clone>(self, transport: &T) -> Result<()> {
        let timeout = self.options.shutdown_timeout;
        let running = self.start(transport).await?;
        let (name, mut signals) = (running.name().clone(), Signals::listen()?);
        tokio::select! {
            stopped = running.stopped() => {
                running.withdrawn().await;
                return stopped;
            }
            signal = signals.next() => signal?,
        }
        logs::Signalled { service: &name.as_str(), timeout_ms: &logs::millis(timeout) }.log();
        tokio::select! {
            ended = running.shutdown(timeout) => ended.map(drop),
            signal = signals.next() => {
                signal?;
                let what = format!("run {name:?}: stopped at once by a second signal; unfinished records are not committed");
                Err(Error::new(ErrorKind::Closed, what))
            }
        }
    }
}
