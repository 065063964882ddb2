//! The handle of a started service.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidings_core::{Error, ErrorKind, Name, Result, SeekTo, TopicPartition};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::commands::Command;
use super::control::ServiceControl;
use super::shared::Shared;
use super::stats::{Ended, ServiceStats};
use crate::status::{ShutdownReport, Skipped, Sought, Status};
use crate::telemetry::Snapshot;

/// Handle of a running service. Dropping it stops the service at once: unfinished work is not committed.
///
/// ```
/// use std::time::Duration;
///
/// use tidings_core::{Delivery, PublisherExt, Record, Transport};
/// use tidings_memory::MemoryTransport;
/// use tidings_service::{Router, Service};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let transport = MemoryTransport::new();
/// let router = Router::new().on_topic("clicks", async |_: Delivery| {});
/// let service = Service::new("meter", router).start(&transport).await?;
///
/// transport.publisher().await?.publish_one(Record::new("clicks", "home")).await?;
/// service.caught_up().await?;
/// let status = service.status().await;
/// assert!(status.is_healthy() && status.lag() == 0);
/// assert_eq!(status.totals.handled, 1);
///
/// let report = service.shutdown(Duration::from_secs(10)).await?;
/// assert_eq!(report.records(), 0, "everything that was fetched is settled");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping the handle stops the service at once: keep it, and end with `shutdown`"]
pub struct ServiceHandle {
    control: ServiceControl,
    task: Mutex<Option<JoinHandle<()>>>,
    ended: watch::Receiver<Option<Ended>>,
    abort: tokio::task::AbortHandle,
    /// The task that keeps the record in a directory; it ends after the service.
    announcer: Mutex<Option<JoinHandle<()>>>,
}

impl ServiceHandle {
    pub(crate) fn new(
        shared: Arc<Shared>,
        commands: mpsc::UnboundedSender<Command>,
        task: JoinHandle<Result<(Status, ShutdownReport)>>,
    ) -> Self {
        let abort = task.abort_handle();
        let (sender, ended) = watch::channel(None);
        let watched = tokio::spawn(async move {
            let failed =
                |kind, text| Ended { status: None, shutdown: ShutdownReport::default(), error: Some((kind, text)) };
            let end = match task.await {
                Ok(Ok((status, shutdown))) => Ended { status: Some(status), shutdown, error: None },
                Ok(Err(error)) => failed(error.kind(), error.report()),
                Err(e) if e.is_cancelled() => failed(ErrorKind::Closed, "the service was dropped".to_owned()),
                Err(e) => failed(ErrorKind::Failed, format!("the engine panicked: {e}")),
            };
            let _ = sender.send(Some(end));
        });
        let control = ServiceControl::new(shared, commands, ended.clone());
        Self { control, task: Mutex::new(Some(watched)), ended, abort, announcer: Mutex::default() }
    }

    /// Keeps the task that presents the service in a directory.
    pub(crate) fn with_announcer(self, announcer: JoinHandle<()>) -> Self {
        *self.announcer.lock().unwrap_or_else(PoisonError::into_inner) = Some(announcer);
        self
    }

    /// Waits until the record of the ended service is removed, within the limit of the task that does it.
    pub(crate) async fn withdrawn(&self) {
        let announcer = self.announcer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(announcer) = announcer {
            let _removed = announcer.await;
        }
    }

    /// Returns the service's name.
    pub fn name(&self) -> &Name {
        self.control.name()
    }

    /// Returns the service's consumer group.
    pub fn group(&self) -> &Name {
        self.control.group()
    }

    /// Returns the counters and states of the service at this time, without waiting or I/O.
    pub fn snapshot(&self) -> Snapshot {
        self.stats().snapshot()
    }

    /// Returns a source of snapshots that can be kept apart from the handle, and outlives the service.
    pub fn stats(&self) -> ServiceStats {
        self.control.stats()
    }

    /// Returns a control of the service that can be kept apart from the handle, for an operations endpoint.
    pub fn control(&self) -> ServiceControl {
        self.control.clone()
    }

    /// Returns the current status. After the service has stopped, the last one. Cancel-safe.
    pub async fn status(&self) -> Status {
        self.control.status().await
    }

    /// Waits until the service has handled and committed all records of its partitions: lag 0, nothing in flight. Records
    /// that wait in a [retry topic](crate::Retry::then_topics) are not part of the lag until they are due.
    ///
    /// Has no deadline: wrap it in a timeout if events may keep arriving. While paused partitions have lag it does not
    /// return. Cancel-safe.
    ///
    /// # Errors
    /// The error that stopped the service, if it stopped before.
    pub async fn caught_up(&self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        if self.control.command(Command::CaughtUp(reply)).is_ok() && answer.await.is_ok() {
            return Ok(());
        }
        self.stopped().await?;
        Err(Error::new(ErrorKind::Closed, format!("wait until {} has caught up: it has ended", self.name())))
    }

    /// Pauses the service: starts no deliveries of any partition until [`resume`](Self::resume); those in flight
    /// continue.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed) if the service has ended.
    pub fn pause(&self) -> Result<()> {
        self.control.pause()
    }

    /// Resumes after [`pause`](Self::pause).
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed) if the service has ended.
    pub fn resume(&self) -> Result<()> {
        self.control.resume()
    }

    /// Pauses fetching from these partitions until they are resumed; records fetched before are handled.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed) if the service has ended.
    pub fn pause_partitions(&self, partitions: impl IntoIterator<Item = TopicPartition>) -> Result<()> {
        self.control.pause_partitions(partitions)
    }

    /// Resumes partitions paused by [`pause_partitions`](Self::pause_partitions).
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed) if the service has ended.
    pub fn resume_partitions(&self, partitions: impl IntoIterator<Item = TopicPartition>) -> Result<()> {
        self.control.resume_partitions(partitions)
    }

    /// Skips the hold of a partition: a range that cannot be read, or a record whose dead letter cannot be written.
    /// Skips nothing else.
    ///
    /// Pass the range of [`PartitionStatus::held`](crate::PartitionStatus::held): its offset, and the offset after it.
    /// If the latter is unknown, choose one; the partition is held again if it cannot be read from there. This group
    /// does not handle the skipped records any more, and a warning is logged.
    ///
    /// Not cancel-safe: a dropped future may have skipped.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the partition is not assigned to this instance,
    /// [`Conflict`](ErrorKind::Conflict) if it is not held there, [`Invalid`](ErrorKind::Invalid) if the range
    /// differs, [`Fenced`](ErrorKind::Fenced) if the partition was revoked meanwhile, [`Closed`](ErrorKind::Closed) if
    /// the service has ended, and those of [`Consumer::seek`](tidings_core::Consumer::seek). After an error nothing
    /// was skipped.
    pub async fn skip(&self, partition: &TopicPartition, offsets: Range<u64>) -> Result<Skipped> {
        self.control.skip(partition, offsets).await
    }

    /// Moves the position of an assigned partition, back or forth, while the service and its group go on.
    ///
    /// Deliveries of the partition that have begun may take until `deadline`; then they are cancelled, and what is settled
    /// is committed. The new position is committed before its first record is handled. Records before it that were not
    /// settled are not handled any more by this group; those behind it are handled again, unless the idempotency store
    /// knows them. The order of keys holds, and other partitions go on meanwhile.
    ///
    /// A partition of another instance is moved through that instance, and a group without members by
    /// [`Admin::reset_offsets`](tidings_core::Admin::reset_offsets). Not cancel-safe.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tidings_core::{Delivery, PublisherExt, Record, SeekTo, TopicPartition, Transport};
    /// # use tidings_memory::MemoryTransport;
    /// # use tidings_service::{Router, Service};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> tidings_core::Result<()> {
    /// # let (transport, partition) = (MemoryTransport::new(), TopicPartition::new("clicks", 0));
    /// # transport.publisher().await?.publish_one(Record::new("clicks", "home")).await?;
    /// # let router = Router::new().on_topic("clicks", async |_: Delivery| {});
    /// # let service = Service::new("meter", router).start(&transport).await?;
    /// service.caught_up().await?;
    /// let sought = service.seek(&partition, SeekTo::Earliest, Duration::from_secs(10)).await?;
    /// assert_eq!((sought.from, sought.to), (1, 0));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the partition is not assigned to this instance,
    /// [`Conflict`](ErrorKind::Conflict) if another seek of it is under way, [`Fenced`](ErrorKind::Fenced) if it was
    /// revoked meanwhile, [`Closed`](ErrorKind::Closed) if the service has ended, and those of
    /// [`Consumer::seek`](tidings_core::Consumer::seek). After an error the position is the old one: the lowest offset
    /// that is not settled.
    pub async fn seek(&self, partition: &TopicPartition, to: SeekTo, deadline: Duration) -> Result<Sought> {
        self.control.seek(partition, to, deadline).await
    }

    /// Waits until the service has stopped, by itself or by [`shutdown`](Self::shutdown). Cancel-safe.
    ///
    /// # Errors
    /// The error that stopped the service.
    pub async fn stopped(&self) -> Result<()> {
        self.ended().await.map(drop)
    }

    async fn ended(&self) -> Result<ShutdownReport> {
        let mut ended = self.ended.clone();
        let ended = ended.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        match ended {
            Some(Ended { error: Some((kind, text)), .. }) => {
                Err(Error::new(kind, format!("run {}: {text}", self.name())))
            }
            ended => Ok(ended.map(|end| end.shutdown).unwrap_or_default()),
        }
    }

    /// Shuts the service down: stops reading, returns deliveries that have not started, lets started ones finish until
    /// `deadline`, cancels the rest, commits what is settled, and leaves the group.
    ///
    /// Reports what was fetched and not settled, by partition, and whether deliveries were cancelled. These records
    /// are delivered again. Dropping the future stops the service at once.
    ///
    /// # Errors
    /// The error that had stopped the service before.
    pub async fn shutdown(self, deadline: Duration) -> Result<ShutdownReport> {
        let _ = self.control.drain(deadline);
        let ended = self.ended().await;
        self.withdrawn().await;
        ended
    }
}

impl From<&ServiceHandle> for ServiceStats {
    fn from(service: &ServiceHandle) -> Self {
        service.stats()
    }
}

impl From<&ServiceHandle> for ServiceControl {
    fn from(service: &ServiceHandle) -> Self {
        service.control()
    }
}

impl Drop for ServiceHandle {
    fn drop(&mut self) {
        self.abort.abort();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The watcher ends with the task that it watches.
        drop(task);
    }
}
