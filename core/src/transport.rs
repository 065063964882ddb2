//! Brokers: the [`Transport`] trait, which opens publishers, consumers, dead-letter sinks and admins.
//!
//! A service reaches a broker only through these trait objects, so that it runs unchanged on another one. The traits
//! that it opens state their promises as numbered clauses; [`Transport::guarantees`] names those that a backend cannot
//! keep.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    Acls, Admin, Cluster, Consumer, ConsumerOptions, DeadLetterSink, Error, ErrorKind, Guarantees, LogReader,
    Publisher, Result, Transactor, TransactorOptions,
};

/// A broker, or something that acts as one.
///
/// An `Arc` of a transport is one as well: share it where a service and a publisher use the same broker.
///
/// ```
/// # use std::sync::Arc;
/// # use tidings_core::*;
/// /// A broker that is always down, for a test of how a program starts without one.
/// #[derive(Debug)]
/// struct Down;
///
/// fn down<T>() -> Result<T> {
///     Err(Error::new(ErrorKind::Unavailable, "connect: the broker is down"))
/// }
///
/// #[async_trait]
/// impl Transport for Down {
///     fn system(&self) -> &'static str { "down" }
///     async fn publisher(&self) -> Result<Arc<dyn Publisher>> { down() }
///     async fn consumer(&self, _: ConsumerOptions) -> Result<Arc<dyn Consumer>> { down() }
///     async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> { down() }
///     async fn admin(&self) -> Result<Arc<dyn Admin>> { down() }
///     fn guarantees(&self) -> Guarantees { Guarantees::all() }
/// }
///
/// let transport: Arc<dyn Transport> = Arc::new(Down);
/// # let mut opening = transport.publisher();
/// # let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
/// # let std::task::Poll::Ready(answer) = opening.as_mut().poll(&mut cx) else { panic!() };
/// // let answer = transport.publisher().await;
/// assert!(answer.unwrap_err().is_retryable());
/// ```
#[async_trait]
pub trait Transport: Debug + Send + Sync + 'static {
    /// Returns the broker's name in OpenTelemetry's `messaging.system`: `memory`, `kafka`.
    fn system(&self) -> &'static str;

    /// Opens a publisher.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable), [`Denied`](crate::ErrorKind::Denied), and
    /// [`Invalid`](crate::ErrorKind::Invalid) for a wrong setting.
    async fn publisher(&self) -> Result<Arc<dyn Publisher>>;

    /// Joins a consumer group.
    ///
    /// # Errors
    /// As [`publisher`](Self::publisher), and [`NotFound`](crate::ErrorKind::NotFound) for a topic that is missing.
    ///
    /// # Cancel safety
    /// A dropped future may have joined the group: that member is gone after its session timeout at the latest.
    async fn consumer(&self, options: ConsumerOptions) -> Result<Arc<dyn Consumer>>;

    /// Opens the dead-letter sink of this broker, which writes to `<topic>-dlq`.
    ///
    /// # Errors
    /// As [`publisher`](Self::publisher).
    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>>;

    /// Opens the admin interface.
    ///
    /// # Errors
    /// As [`publisher`](Self::publisher).
    async fn admin(&self) -> Result<Arc<dyn Admin>>;

    /// Opens a reader of logs by position, without a group. Default: [`Unsupported`](crate::ErrorKind::Unsupported).
    ///
    /// # Errors
    /// As [`publisher`](Self::publisher), and [`Unsupported`](crate::ErrorKind::Unsupported) if the transport cannot
    /// read by position.
    async fn log_reader(&self) -> Result<Arc<dyn LogReader>> {
        Err(unsupported(self.system(), "reading logs by position"))
    }

    /// Opens the access control lists. Default: [`Unsupported`](crate::ErrorKind::Unsupported).
    ///
    /// # Errors
    /// As [`publisher`](Self::publisher), and [`Unsupported`](crate::ErrorKind::Unsupported) if the transport has none.
    async fn acls(&self) -> Result<Arc<dyn Acls>> {
        Err(unsupported(self.system(), "access control lists"))
    }

    /// Opens the description of brokers and their configurations. Default:
    /// [`Unsupported`](crate::ErrorKind::Unsupported).
    ///
    /// # Errors
    /// As [`publisher`](Self::publisher), and [`Unsupported`](crate::ErrorKind::Unsupported) if the transport has none.
    async fn cluster(&self) -> Result<Arc<dyn Cluster>> {
        Err(unsupported(self.system(), "describing its brokers"))
    }

    /// Opens a publisher with transactions. Default: [`Unsupported`](crate::ErrorKind::Unsupported).
    ///
    /// # Errors
    /// As [`publisher`](Self::publisher), and [`Unsupported`](crate::ErrorKind::Unsupported) if the transport has no
    /// transactions.
    ///
    /// # Cancel safety
    /// A dropped future may have ended the earlier transactor of the same id (X3).
    async fn transactor(&self, options: TransactorOptions) -> Result<Arc<dyn Transactor>> {
        drop(options);
        Err(unsupported(self.system(), "transactions"))
    }

    /// Returns whether the publishers write a trace context to records that have none, as an instrumented transport's
    /// do. Events without a trace of their own are then published without one. Default: `false`.
    fn writes_trace_context(&self) -> bool {
        false
    }

    /// Returns the clauses that this backend keeps. The parts that it opens promise the same.
    fn guarantees(&self) -> Guarantees;
}

/// The error of a capability that a transport does not have.
fn unsupported(system: &str, what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{system}: this transport does not offer {what}"))
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: Transport + ?Sized> Transport for Arc<T> {
    fn system(&self) -> &'static str {
        (**self).system()
    }

    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        (**self).publisher().await
    }

    async fn consumer(&self, options: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        (**self).consumer(options).await
    }

    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        (**self).dead_letters().await
    }

    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        (**self).admin().await
    }

    async fn log_reader(&self) -> Result<Arc<dyn LogReader>> {
        (**self).log_reader().await
    }

    async fn acls(&self) -> Result<Arc<dyn Acls>> {
        (**self).acls().await
    }

    async fn cluster(&self) -> Result<Arc<dyn Cluster>> {
        (**self).cluster().await
    }

    async fn transactor(&self, options: TransactorOptions) -> Result<Arc<dyn Transactor>> {
        (**self).transactor(options).await
    }

    fn writes_trace_context(&self) -> bool {
        (**self).writes_trace_context()
    }

    fn guarantees(&self) -> Guarantees {
        (**self).guarantees()
    }
}
