//! A service that was started.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidings_core::{Error, ErrorKind, Name, Result, TopicPartition};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::coordinator::Skip;
use super::shared::Shared;
use crate::status::{Skipped, State, Status};

/// A running service. Dropped, it stops at once: nothing that is unfinished is committed.
#[derive(Debug)]
pub struct ServiceHandle {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
    task: Mutex<Option<JoinHandle<Result<Status>>>>,
    ended: watch::Receiver<Option<Ended>>,
    abort: tokio::task::AbortHandle,
}

/// How a service ended.
#[derive(Debug, Clone)]
struct Ended {
    status: Option<Status>,
    error: Option<(ErrorKind, String)>,
}

/// What users ask of the coordinator.
#[derive(Debug)]
pub(crate) enum Command {
    Status(oneshot::Sender<Status>),
    CaughtUp(oneshot::Sender<()>),
    /// Of these partitions; `None` is of all.
    Pause(Option<Vec<TopicPartition>>),
    Resume(Option<Vec<TopicPartition>>),
    Skip(Skip),
    Shutdown(Duration),
}

impl ServiceHandle {
    pub(crate) fn new(
        shared: Arc<Shared>,
        commands: mpsc::UnboundedSender<Command>,
        task: JoinHandle<Result<Status>>,
    ) -> Self {
        let abort = task.abort_handle();
        let (sender, ended) = watch::channel(None);
        let watched = tokio::spawn(async move {
            let end = match task.await {
                Ok(Ok(status)) => Ended { status: Some(status), error: None },
                Ok(Err(error)) => Ended { status: None, error: Some((error.kind(), error.report())) },
                Err(e) if e.is_cancelled() => {
                    Ended { status: None, error: Some((ErrorKind::Closed, "the service was dropped".to_owned())) }
                }
                Err(e) => Ended { status: None, error: Some((ErrorKind::Failed, format!("the engine panicked: {e}"))) },
            };
            let result = end.status.clone().ok_or_else(|| Error::new(ErrorKind::Closed, "the service has ended"));
            let _ = sender.send(Some(end));
            result
        });
        Self { shared, commands, task: Mutex::new(Some(watched)), ended, abort }
    }

    /// The service's name.
    pub fn name(&self) -> &Name {
        &self.shared.service
    }

    /// The service's consumer group.
    pub fn group(&self) -> &Name {
        &self.shared.group
    }

    /// How the service is. Of one that has ended, how it ended.
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
            bytes_in_flight: 0,
        })
    }

    /// Waits until the service has handled and committed all that is in its partitions: lag 0, nothing in flight.
    ///
    /// There is no deadline: put one around it where events may go on coming. While partitions are paused and have lag it
    /// does not return. Cancel-safe.
    ///
    /// # Errors
    /// How the service ended, if it did before.
    pub async fn caught_up(&self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::CaughtUp(reply)).is_ok() && answer.await.is_ok() {
            return Ok(());
        }
        self.stopped().await?;
        Err(Error::new(ErrorKind::Closed, format!("wait until {} has caught up: it has ended", self.name())))
    }

    /// Begins no more deliveries of any partition until [`resume`](Self::resume); those under way go on.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed) if the service has ended.
    pub fn pause(&self) -> Result<()> {
        self.command(Command::Pause(None))
    }

    /// Ends [`pause`](Self::pause).
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed) if the service has ended.
    pub fn resume(&self) -> Result<()> {
        self.command(Command::Resume(None))
    }

    /// Reads no more of these partitions until they are resumed; what is fetched already is handled.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed) if the service has ended.
    pub fn pause_partitions(&self, partitions: impl IntoIterator<Item = TopicPartition>) -> Result<()> {
        self.command(Command::Pause(Some(partitions.into_iter().collect())))
    }

    /// Ends [`pause_partitions`](Self::pause_partitions).
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed) if the service has ended.
    pub fn resume_partitions(&self, partitions: impl IntoIterator<Item = TopicPartition>) -> Result<()> {
        self.command(Command::Resume(Some(partitions.into_iter().collect())))
    }

    /// Skips what holds a partition: a range that cannot be read, or a record whose dead letter cannot be written. Nothing
    /// else is skipped.
    ///
    /// Name exactly what [`PartitionStatus::held`](crate::PartitionStatus::held) has: its offset, and the offset after it.
    /// Where that is not known, choose it; the partition is held again if it cannot be read from there. What was skipped is
    /// not handled by this group any more, and is logged as a warning.
    ///
    /// Not cancel-safe: dropped, it may have skipped.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the partition is not assigned to this instance,
    /// [`Conflict`](ErrorKind::Conflict) if it is not held there, [`Invalid`](ErrorKind::Invalid) if the range is another
    /// one, [`Fenced`](ErrorKind::Fenced) if the partition was given up meanwhile, [`Closed`](ErrorKind::Closed) if the
    /// service has ended, and those of [`Consumer::seek`](tidings_core::Consumer::seek). Nothing was skipped then.
    pub async fn skip(&self, partition: &TopicPartition, offsets: Range<u64>) -> Result<Skipped> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Skip(Skip { partition: partition.clone(), offsets, reply }))?;
        let ended = |_| Error::new(ErrorKind::Closed, format!("skip records of {partition}: the service has ended"));
        answer.await.unwrap_or_else(|closed| Err(ended(closed)))
    }

    fn command(&self, command: Command) -> Result<()> {
        let ended = |_| Error::new(ErrorKind::Closed, format!("command {}: it has ended", self.shared.service));
        self.commands.send(command).map_err(ended)
    }

    /// Waits until the service has ended, by itself or by [`shutdown`](Self::shutdown). Cancel-safe.
    ///
    /// # Errors
    /// What it failed of.
    pub async fn stopped(&self) -> Result<()> {
        let mut ended = self.ended.clone();
        let ended = ended.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        match ended.and_then(|end| end.error) {
            Some((kind, text)) => Err(Error::new(kind, format!("run {}: {text}", self.name()))),
            None => Ok(()),
        }
    }

    /// Stops the service: reads no more, gives back what has not begun, lets what has begun end until `deadline`, cancels
    /// what is left, commits what is settled, and leaves the group.
    ///
    /// # Errors
    /// What the service had failed of before.
    pub async fn shutdown(self, deadline: Duration) -> Result<()> {
        let _ = self.commands.send(Command::Shutdown(deadline));
        self.stopped().await
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
