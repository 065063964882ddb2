//! The transports and stores that a tool can open.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use tidings_core::audit::AuditSink;
use tidings_core::{DeadLetterStore, Error, ErrorKind, IdempotencyStore, Result, Transport};

/// A file for monitoring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Generated {
    /// A dashboard for Grafana, as JSON.
    Dashboard,
    /// Alerts for Prometheus, as YAML.
    Alerts,
}

/// Opens the transports and stores that a [`Tool`](crate::Tool) works on.
///
/// The library depends on no backend. The facade implements the trait for the backends that its features enable;
/// implement it yourself to add a transport or a store of your own.
///
/// ```
/// use std::sync::Arc;
///
/// use tidings_core::{Result, Transport, async_trait};
/// use tidings_memory::MemoryTransport;
/// use tidings_tool::Connect;
///
/// /// Works on the transport of this process, whatever the URL is.
/// #[derive(Debug)]
/// struct Own(Arc<MemoryTransport>);
///
/// #[async_trait]
/// impl Connect for Own {
///     async fn transport(&self, _url: &str) -> Result<Arc<dyn Transport>> {
///         Ok(self.0.clone())
///     }
/// }
/// ```
#[async_trait]
pub trait Connect: Debug + Send + Sync + 'static {
    /// Opens the transport of `url`, which may contain a user and a password.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for a URL that names no transport, [`Unavailable`](ErrorKind::Unavailable),
    /// [`Denied`](ErrorKind::Denied). No error repeats a part of the URL that may be a secret.
    async fn transport(&self, url: &str) -> Result<Arc<dyn Transport>>;

    /// Opens the idempotency store of `url`, to count which events are done. By default there is none.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported), and as [`transport`](Self::transport).
    async fn idempotency_store(&self, _url: &str) -> Result<Arc<dyn IdempotencyStore>> {
        Err(Error::new(ErrorKind::Unsupported, "open the store: this program opens no stores"))
    }

    /// Returns a file for monitoring the metrics of services. By default there is none.
    fn generated(&self, _what: Generated) -> Option<String> {
        None
    }

    /// Opens the audit trail of `url`. By default there is none; one in a topic needs no store.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported), and as [`transport`](Self::transport).
    async fn audit_sink(&self, _url: &str) -> Result<Arc<dyn AuditSink>> {
        Err(Error::new(ErrorKind::Unsupported, "open the audit trail: this program opens no stores"))
    }

    /// Opens the dead-letter store of `url`. By default there is none.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported), and as [`transport`](Self::transport).
    async fn dead_letter_store(&self, _url: &str) -> Result<Arc<dyn DeadLetterStore>> {
        Err(Error::new(ErrorKind::Unsupported, "open the dead letters: this program opens no stores"))
    }
}
