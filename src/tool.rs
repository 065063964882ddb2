//! The `tidings` command as a library, for a program of your own.
//!
//! A program that passes its services to [`main`] has all verbs as its subcommand `tool`, so operators need no second
//! binary. Unlike the binary `tidings`, it has the services' types: `my-service tool describe` shows handlers, topics
//! and types, and payloads are decoded by their types.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use tidings::{Delivery, Router, Service};
//!
//! fn service() -> Service {
//!     Service::new("meter", Router::new().on_topic("clicks", async |_: Delivery| {}))
//! }
//!
//! fn main() -> ExitCode {
//!     if tidings::tool::is_called() {
//!         return tidings::tool::main([service()]);
//!     }
//!     // .. runs the service, in a runtime of its own.
//! #   ExitCode::SUCCESS
//! }
//! ```

use std::process::ExitCode;
use std::sync::Arc;

pub use tidings_tool::{Connect, Exit, Generated, Tool};

use tidings_core::audit::AuditSink;

use crate::dead_letter::DeadLetterStore;
use crate::idempotency::IdempotencyStore;
use crate::service::ServiceDescription;
use crate::{Error, ErrorKind, Result, Service, Transport};

/// Runs the command line of the process for these services, with the transports and stores that the features enable.
///
/// The verb may follow the word `tool`: see [`is_called`]. Call it outside of a runtime, because it creates one. The
/// services are described, not started. For routers that lack their state, or a program without services, use [`Tool`]:
///
/// ```no_run
/// use tidings::service::ServiceDescription;
/// use tidings::tool::{Facade, Tool};
/// use tidings::{Delivery, Router, State};
///
/// let router: Router<u64> = Router::new().on_topic("clicks", async |_: Delivery, _: State<u64>| {});
/// Tool::new(Facade).with_service(ServiceDescription::of_router("meter", &router)).main();
/// ```
pub fn main(services: impl IntoIterator<Item = Service>) -> ExitCode {
    let services = services.into_iter().map(ServiceDescription::from);
    services.fold(Tool::new(Facade), Tool::with_service).main()
}

/// Returns whether the first argument of the process is the word `tool`, or a shell requests completions.
pub fn is_called() -> bool {
    Tool::is_called()
}

/// Opens what the features of this crate enable: the transports of [`connect`](crate::connect()), and stores by
/// `postgres://` and `sled:PATH`.
///
/// ```
/// use tidings::tool::{Connect, Facade};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let error = Facade.transport("kafka://127.0.0.1:1").await.unwrap_err();
/// assert!(error.to_string().contains("127.0.0.1:1"));
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Facade;

/// Opens the store of a URL as any trait that both stores implement; nothing is created or changed by that.
macro_rules! opened {
    ($url:ident, $expected:literal) => {{
        #[cfg(feature = "postgres")]
        if $url.starts_with("postgres://") || $url.starts_with("postgresql://") {
            let config = crate::postgres::PostgresConfig::new($url).with_migrate(false);
            return Ok(Arc::new(crate::postgres::PostgresStore::connect_with(config).await?));
        }
        #[cfg(feature = "sled")]
        if let Some(path) = $url.strip_prefix("sled:") {
            return Ok(Arc::new(crate::sled::SledStore::open(existing(path)?).await?));
        }
        // Not repeated: it may hold a password.
        let _ = $url;
        Err(Error::new(ErrorKind::Invalid, $expected))
    }};
}

/// Refuses a directory that does not exist, which sled would create.
#[cfg(feature = "sled")]
fn existing(path: &str) -> Result<&std::path::Path> {
    let missing = || Error::new(ErrorKind::NotFound, format!("open the store: there is no directory {path}"));
    Some(std::path::Path::new(path)).filter(|path| path.is_dir()).ok_or_else(missing)
}

#[tidings_core::async_trait]
impl Connect for Facade {
    async fn transport(&self, url: &str) -> Result<Arc<dyn Transport>> {
        crate::connect(url).await
    }

    async fn idempotency_store(&self, url: &str) -> Result<Arc<dyn IdempotencyStore>> {
        opened!(url, "open the store: expected a URL that starts with postgres:// or sled:")
    }

    async fn audit_sink(&self, url: &str) -> Result<Arc<dyn AuditSink>> {
        opened!(url, "open the audit trail: expected topic:NAME, or a URL that starts with postgres:// or sled:")
    }

    async fn dead_letter_store(&self, url: &str) -> Result<Arc<dyn DeadLetterStore>> {
        opened!(url, "open the dead letters: expected topics, or a URL that starts with postgres:// or sled:")
    }

    fn generated(&self, what: Generated) -> Option<String> {
        #[cfg(feature = "ops")]
        match what {
            Generated::Dashboard => return Some(crate::ops::generate::dashboard()),
            Generated::Alerts => return Some(crate::ops::generate::alerts()),
            _ => {}
        }
        let _ = what;
        None
    }
}
