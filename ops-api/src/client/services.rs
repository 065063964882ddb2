//! The services of an endpoint.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::{Result, SeekTo, TopicPartition};

use super::call::Client;
use crate::Route;
use crate::wire::{
    Accepted, At, Drain, Nothing, Pause, Seek, ServiceState, ServiceSummary, Services, Skip, Skipped, Sought,
};

/// The services of an endpoint: lists, describes and controls them.
///
/// A service is controlled only if its program passed it to `Ops::with_control`; otherwise a command is
/// [`Unsupported`](tidings_core::ErrorKind::Unsupported).
#[derive(Debug, Clone)]
pub struct RemoteServices {
    client: Arc<Client>,
}

impl RemoteServices {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self { client }
    }

    /// Lists the services.
    ///
    /// # Errors
    /// Those of any request.
    pub async fn list(&self) -> Result<Vec<ServiceSummary>> {
        Ok(self.client.get::<Services>(Route::Services).await?.services)
    }

    /// Describes a service.
    ///
    /// # Errors
    /// [`NotFound`](tidings_core::ErrorKind::NotFound), with the names that the endpoint has.
    pub async fn describe(&self, service: &str) -> Result<ServiceState> {
        self.client.get_of(Route::Service, service).await
    }

    /// Pauses a service, or only some of its partitions.
    ///
    /// # Errors
    /// [`NotFound`](tidings_core::ErrorKind::NotFound), [`Closed`](tidings_core::ErrorKind::Closed) if it has ended.
    pub async fn pause(&self, service: &str, partitions: Option<&[TopicPartition]>) -> Result<()> {
        self.set_paused(Route::ServicesPause, service, partitions).await
    }

    /// Resumes a service, or only some of its partitions.
    ///
    /// # Errors
    /// Those of [`pause`](Self::pause).
    pub async fn resume(&self, service: &str, partitions: Option<&[TopicPartition]>) -> Result<()> {
        self.set_paused(Route::ServicesResume, service, partitions).await
    }

    async fn set_paused(&self, route: Route, service: &str, partitions: Option<&[TopicPartition]>) -> Result<()> {
        let partitions = partitions.map(|all| all.iter().map(At::from).collect());
        let pause = Pause { service: service.to_owned(), partitions };
        self.client.post::<Nothing>(route, &pause).await.map(drop)
    }

    /// Begins to drain a service, which then ends, and with it most often its program. Deliveries that have begun may
    /// take until `deadline`. Returns at once: [`describe`](Self::describe) it, until it is `stopped` or the endpoint is
    /// gone.
    ///
    /// # Errors
    /// Those of [`pause`](Self::pause).
    pub async fn drain(&self, service: &str, deadline: Duration) -> Result<Accepted> {
        let drain = Drain { service: service.to_owned(), deadline_ms: millis(deadline) };
        self.client.post(Route::ServicesDrain, &drain).await
    }

    /// Moves the position of a partition that is assigned to the service. Deliveries that have begun may take until
    /// `deadline`, at most 30 s, and are cancelled then.
    ///
    /// # Errors
    /// Those of `ServiceHandle::seek`: [`NotFound`](tidings_core::ErrorKind::NotFound) if the partition is not assigned
    /// to the instance behind the endpoint.
    pub async fn seek(
        &self,
        service: &str,
        partition: &TopicPartition,
        to: SeekTo,
        deadline: Duration,
    ) -> Result<Sought> {
        let At { topic, partition } = partition.into();
        let (service, deadline_ms) = (service.to_owned(), millis(deadline));
        self.client
            .post(Route::ServicesSeek, &Seek { service, topic, partition, to: to.try_into()?, deadline_ms })
            .await
    }

    /// Skips what holds a partition: exactly this range.
    ///
    /// # Errors
    /// Those of `ServiceHandle::skip`.
    pub async fn skip(&self, service: &str, partition: &TopicPartition, offsets: Range<u64>) -> Result<Skipped> {
        let At { topic, partition } = partition.into();
        let skip = Skip { service: service.to_owned(), topic, partition, from: offsets.start, to: offsets.end };
        self.client.post(Route::ServicesSkip, &skip).await
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
