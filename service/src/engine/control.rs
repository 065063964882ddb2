//! Control of a running service from elsewhere than its handle.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::{Error, ErrorKind, Name, Result, SeekTo, TopicPartition};
use tokio::sync::{mpsc, oneshot, watch};

use super::commands::{Command, Seek, Skip};
use super::shared::Shared;
use super::stats::{Ended, ServiceStats};
use crate::status::{Skipped, Sought, State, Status};

/// Controls a running service, for an operations endpoint or an operator's command.
///
/// Clones are cheap. A control does not keep its service running; after the service has ended, each command is
/// [`Closed`](ErrorKind::Closed).
///
/// ```
/// use std::time::Duration;
///
/// use tidings_core::Delivery;
/// use tidings_memory::MemoryTransport;
/// use tidings_service::{Router, Service};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let router = Router::new().on_topic("clicks", async |_: Delivery| {});
/// let service = Service::new("meter", router).start(&MemoryTransport::new()).await?;
///
/// let control = service.control();
/// control.pause()?;
/// control.drain(Duration::from_secs(10))?;
/// service.stopped().await?; // `Service::run` returns now, too
/// assert!(control.resume().is_err(), "it has ended");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ServiceControl {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
    ended: watch::Receiver<Option<Ended>>,
}

impl fmt::Debug for ServiceControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceControl").field("service", self.name()).finish_non_exhaustive()
    }
}

impl ServiceControl {
    pub(super) fn new(
        shared: Arc<Shared>,
        commands: mpsc::UnboundedSender<Command>,
        ended: watch::Receiver<Option<Ended>>,
    ) -> Self {
        Self { shared, commands, ended }
    }

    /// Returns the service's name.
    pub fn name(&self) -> &Name {
        &self.shared.identity.service
    }

    /// Returns the service's consumer group.
    pub fn group(&self) -> &Name {
        &self.shared.identity.group
    }

    /// Returns the topics that the service reads, with their prefix, sorted.
    pub fn topics(&self) -> &[Name] {
        self.shared.table.topics()
    }

    /// Returns a source of snapshots of the service.
    pub fn stats(&self) -> ServiceStats {
        ServiceStats::new(self.shared.clone(), self.ended.clone())
    }

    /// Returns whether these are the snapshots of the service that this controls.
    pub fn is_of(&self, stats: &ServiceStats) -> bool {
        stats.is_of(&self.shared)
    }

    /// Returns the current status: see [`ServiceHandle::status`](crate::ServiceHandle::status).
    pub async fn status(&self) -> Status {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Status(reply)).is_ok()
            && let Ok(status) = answer.await
        {
            return status;
        }
        self.ended_status()
    }

    fn ended_status(&self) -> Status {
        let ended = self.ended.borrow().clone();
        let (status, error) = ended.map_or((None, None), |end| (end.status, end.error));
        status.unwrap_or_else(|| Status {
            state: if error.is_some() { State::Failed } else { State::Stopped },
            problems: error.into_iter().map(|(_, text)| text).collect(),
            partitions: Vec::new(),
            totals: self.shared.totals(),
            handlers: self.shared.handler_totals(),
            bytes_in_flight: 0,
        })
    }

    /// Pauses the service: see [`ServiceHandle::pause`](crate::ServiceHandle::pause).
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed) if the service has ended.
    pub fn pause(&self) -> Result<()> {
        self.command(Command::Pause(None))
    }

    /// Resumes after [`pause`](Self::pause).
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed) if the service has ended.
    pub fn resume(&self) -> Result<()> {
        self.command(Command::Resume(None))
    }

    /// Pauses fetching from these partitions: see [`ServiceHandle::pause_partitions`](crate::ServiceHandle::pause_partitions).
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed) if the service has ended.
    pub fn pause_partitions(&self, partitions: impl IntoIterator<Item = TopicPartition>) -> Result<()> {
        self.command(Command::Pause(Some(partitions.into_iter().collect())))
    }

    /// Resumes partitions paused by [`pause_partitions`](Self::pause_partitions).
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed) if the service has ended.
    pub fn resume_partitions(&self, partitions: impl IntoIterator<Item = TopicPartition>) -> Result<()> {
        self.command(Command::Resume(Some(partitions.into_iter().collect())))
    }

    /// Skips the hold of a partition: see [`ServiceHandle::skip`](crate::ServiceHandle::skip).
    ///
    /// # Errors
    /// Those of [`ServiceHandle::skip`](crate::ServiceHandle::skip).
    pub async fn skip(&self, partition: &TopicPartition, offsets: Range<u64>) -> Result<Skipped> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Skip(Skip { partition: partition.clone(), offsets, reply }))?;
        let ended = |_| Error::new(ErrorKind::Closed, format!("skip records of {partition}: the service has ended"));
        answer.await.unwrap_or_else(|closed| Err(ended(closed)))
    }

    /// Moves the position of an assigned partition: see [`ServiceHandle::seek`](crate::ServiceHandle::seek).
    ///
    /// # Errors
    /// Those of [`ServiceHandle::seek`](crate::ServiceHandle::seek).
    pub async fn seek(&self, partition: &TopicPartition, to: SeekTo, deadline: Duration) -> Result<Sought> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Seek(Seek { partition: partition.clone(), to, deadline, reply }))?;
        let ended = |_| Error::new(ErrorKind::Closed, format!("seek {partition}: the service has ended"));
        answer.await.unwrap_or_else(|closed| Err(ended(closed)))
    }

    /// Begins to end the service, as [`ServiceHandle::shutdown`](crate::ServiceHandle::shutdown) does, and returns at once: deliveries that have begun
    /// may take until `deadline`.
    ///
    /// The program learns of it: [`Service::run`](crate::Service::run) returns `Ok`, [`ServiceHandle::stopped`](crate::ServiceHandle::stopped) too, and
    /// a [`ServiceHandle::shutdown`](crate::ServiceHandle::shutdown) that follows returns the report. A shutdown with an earlier deadline, as after a
    /// signal, is kept.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed) if the service has ended.
    pub fn drain(&self, deadline: Duration) -> Result<()> {
        self.command(Command::Shutdown(deadline))
    }

    pub(super) fn command(&self, command: Command) -> Result<()> {
        let ended =
            |_| Error::new(ErrorKind::Closed, format!("command {}: it has ended", self.shared.identity.service));
        self.commands.send(command).map_err(ended)
    }
}
