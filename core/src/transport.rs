//! Brokers: the [`Transport`] trait, which opens publishers, consumers, dead-letter sinks and admins.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{Admin, Consumer, ConsumerOptions, DeadLetterSink, Guarantees, Publisher, Result};

/// A broker, or something that acts as one.
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

    /// Returns the clauses that this backend keeps.
    fn guarantees(&self) -> Guarantees;
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

    fn guarantees(&self) -> Guarantees {
        (**self).guarantees()
    }
}
