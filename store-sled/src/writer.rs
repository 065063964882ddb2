//! The writer: the only thread that accesses the directory.
//!
//! sled blocks, so the store has a thread. Calls that arrive while it works are gathered and share
//! the next commit: the more callers, the fewer syncs each. A call is answered only after the sync.
//!
//! If anything fails, no call of that commit is answered; the directory is closed and reopened with
//! a backoff. Reopening verifies what reached the disk, so the store never guesses.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tidings_core::{ErrorKind, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use crate::claims::Claims;
use crate::clock::StoreTime;
use crate::config::SledConfig;
use crate::disk::{DirectoryLock, Disk};
use crate::error::{Broken, Result, guarded};
use crate::memory::Memory;
use crate::store::Damage;

/// Maximum events of calls that are committed together, which bounds how long a caller waits for others.
const GROUP: u32 = 8_192;
/// Interval at which an idle store checks whether its oldest part has expired.
const TICK: Duration = Duration::from_secs(5);
/// Maximum interval of the watch, so that its thread ends with the store.
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// Interval at which an idle store stores the time.
///
/// A clock that is set back while the store is down hides at most this much time.
const MARK_EVERY: Duration = Duration::from_secs(60);
/// How long to wait for a previous owner that is closing.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// Pause between two attempts to take the lock.
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// Answers a call once its changes are durable. Dropping it reports that they are not.
pub(crate) type Deliver = Box<dyn FnOnce() + Send>;

/// Executes a call up to the changes that must become durable.
pub(crate) type Stage = Box<dyn FnOnce(&mut Claims<'_>) -> (Deliver, Result<()>) + Send>;

/// A call.
pub(crate) struct Job {
    pub(crate) stage: Stage,
    /// The call's share of the bounded queue.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// Order matters: calls sent before the close are completed.
pub(crate) enum Message {
    Call(Job),
    Close,
}

/// Status of the store.
///
/// Callers read it to learn why their call was not answered.
#[derive(Debug, Clone)]
pub(crate) enum Status {
    Open,
    /// The store broke and will be reopened.
    Down(Broken),
    /// The disk has not answered for longer than callers wait.
    ///
    /// It becomes open again when the disk answers.
    Stuck,
    /// For good.
    Closed,
}

/// State that the writer shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) status: watch::Sender<Status>,
    /// Parts set aside by any opening of this store.
    pub(crate) damages: Mutex<Vec<Damage>>,
    /// Start of the writer's current work.
    busy: Mutex<Option<Instant>>,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self { status: watch::Sender::new(Status::Open), damages: Mutex::default(), busy: Mutex::default() }
    }

    /// Set around each piece of work, for the watch.
    fn set_busy(&self, since: Option<Instant>) {
        *self.busy.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = since;
    }

    /// Reports to callers when the writer is stuck, until the store is closed.
    ///
    /// Runs on a thread of its own: the writer can't report that it is stuck.
    pub(crate) fn watch(&self, limit: Duration) {
        while !matches!(*self.status.borrow(), Status::Closed) {
            thread::park_timeout((limit / 4).min(LONGEST_LOOK));
            let busy = *self.busy.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if busy.is_some_and(|since| since.elapsed() > limit) {
                self.status.send_if_modified(|status| {
                    let open = matches!(status, Status::Open);
                    if open {
                        *status = Status::Stuck;
                    }
                    open
                });
            }
        }
    }
}

pub(crate) struct Writer {
    config: SledConfig,
    shared: Arc<Shared>,
    calls: Receiver<Message>,
    /// Leases and live claims; they survive a broken disk.
    memory: Memory,
    time: StoreTime,
    /// The latest stored time.
    ///
    /// An idle store stores the time when it is a minute older.
    marked: Timestamp,
    /// `None` while the store is down.
    disk: Option<Disk>,
    reopen_wait: Duration,
    /// When the next attempt to reopen may begin.
    reopen_at: Instant,
    closing: bool,
    /// Whether there may be more closed letters to forget, in steps so that no caller waits for all of them.
    forgetting: bool,
    _lock: DirectoryLock,
}

impl Writer {
    /// Takes the lock and opens the directory, on the writer's own thread.
    pub(crate) fn open(config: SledConfig, shared: Arc<Shared>, calls: Receiver<Message>) -> Result<Self> {
        let lock = take_lock(&config)?;
        let time = StoreTime::resume(&*config.clock, Timestamp::from_millis(i64::MIN));
        let marked = Timestamp::from_millis(i64::MIN);
        let (memory, reopen_wait, reopen_at) = (Memory::default(), SledConfig::MIN_REOPEN_WAIT, Instant::now());
        let mut writer = Self {
            config,
            shared,
            calls,
            memory,
            time,
            marked,
            disk: None,
            reopen_wait,
            reopen_at,
            closing: false,
            forgetting: false,
            _lock: lock,
        };
        writer.open_disk()?;
        Ok(writer)
    }

    /// Opens the directory. The time continues from the latest stored one.
    fn open_disk(&mut self) -> Result<()> {
        let now = self.time.now(&*self.config.clock);
        let disk = guarded("open the store", ErrorKind::Unavailable, || Disk::open(&self.config, now))?;
        self.time = StoreTime::resume(&*self.config.clock, disk.time().max(now));
        self.marked = disk.time();
        if !disk.damages().is_empty() {
            // Claims may be among the lost data, and names may have other numbers: all claims end.
            self.memory = Memory::default();
            let mut damages = self.shared.damages.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            damages.extend_from_slice(disk.damages());
        }
        self.disk = Some(disk);
        Ok(())
    }

    /// Runs until the store is closed or every handle is dropped.
    ///
    /// `closed` is signalled after the lock is free.
    pub(crate) fn run(mut self, closed: oneshot::Sender<()>) {
        while let Some(jobs) = self.gather() {
            if self.disk.is_none() {
                self.try_reopen();
            }
            self.shared.set_busy(Some(Instant::now()));
            let worked = self.work(jobs);
            self.shared.set_busy(None);
            match worked {
                Ok(()) => self.is_unstuck(),
                Err(broken) => self.go_down(broken),
            }
        }
        self.end();
        drop(self);
        let _ = closed.send(());
    }

    /// Returns the calls that arrived until the next tick; `None` if the store is closing.
    ///
    /// It waits for the first call only; the others are those that have arrived meanwhile.
    fn gather(&mut self) -> Option<VecDeque<Job>> {
        if self.closing {
            return None;
        }
        let patience = match self.disk {
            Some(_) => TICK,
            None => self.reopen_at.saturating_duration_since(Instant::now()),
        };
        let mut jobs = VecDeque::new();
        let mut weight = 0;
        match self.calls.recv_timeout(patience) {
            Ok(Message::Call(job)) => {
                weight += permits(&job);
                jobs.push_back(job);
            }
            Err(RecvTimeoutError::Timeout) => return Some(jobs),
            Ok(Message::Close) | Err(RecvTimeoutError::Disconnected) => return None,
        }
        while weight < GROUP {
            match self.calls.try_recv() {
                Ok(Message::Call(job)) => {
                    weight += permits(&job);
                    jobs.push_back(job);
                }
                // Earlier calls are completed first.
                Ok(Message::Close) => {
                    self.closing = true;
                    break;
                }
                Err(_) => break,
            }
        }
        Some(jobs)
    }

    /// Executes the calls, makes their changes durable with one sync, then answers them.
    ///
    /// On failure the changes in memory are reverted and the answers dropped; the status is set
    /// first, so that callers see why.
    fn work(&mut self, mut jobs: VecDeque<Job>) -> Result<()> {
        let Some(disk) = &mut self.disk else { return Ok(()) };
        let now = self.time.now(&*self.config.clock);
        let instant = self.config.clock.monotonic();
        let mut claims = Claims { disk, memory: &mut self.memory, config: &self.config, now, instant };
        let mut answers = Vec::with_capacity(jobs.len());
        let mut places = Vec::with_capacity(jobs.len());
        let idle = jobs.is_empty();
        let is_late = now.millis().saturating_sub(self.marked.millis()) >= millis(MARK_EVERY);
        let forgetting = &mut self.forgetting;
        let done = guarded("write", ErrorKind::Unavailable, || {
            if claims.disk.is_due(claims.config, now) {
                *forgetting = claims.turn()?;
            } else if *forgetting {
                *forgetting = claims.forget_closed()?;
            }
            // Neither calls nor answers may be dropped here: callers whose answer is dropped read the status.
            while let Some(job) = jobs.pop_front() {
                let (answer, staged) = (job.stage)(&mut claims);
                answers.push(answer);
                places.push(job.permit);
                staged?;
            }
            if idle && is_late {
                return claims.disk.mark(now).map(|()| true);
            }
            claims.disk.commit(now).map(|()| !idle)
        });
        match done {
            Ok(stored) => {
                self.memory.keep();
                if stored {
                    self.marked = now;
                }
                answers.into_iter().for_each(|deliver| deliver());
                Ok(())
            }
            Err(broken) => {
                self.memory.revert();
                self.shared.status.send_replace(Status::Down(broken.clone()));
                Err(broken)
            }
        }
    }

    /// Closes a broken directory and schedules the next attempt.
    fn go_down(&mut self, broken: Broken) {
        tracing::error!(error = %broken, "the store failed; it is closed and will be reopened");
        if let Some(disk) = self.disk.take() {
            dispose(disk);
        }
        self.reopen_wait = SledConfig::MIN_REOPEN_WAIT;
        self.reopen_at = Instant::now() + self.reopen_wait;
    }

    /// Reopens a broken directory once its time has come; each failure doubles the backoff.
    fn try_reopen(&mut self) {
        if Instant::now() < self.reopen_at {
            return;
        }
        match self.open_disk() {
            Ok(()) => {
                tracing::info!("the store was reopened");
                self.set_open();
            }
            Err(broken) => {
                self.reopen_wait = self
                    .reopen_wait
                    .saturating_mul(2)
                    .min(self.config.max_reopen_wait)
                    .max(SledConfig::MIN_REOPEN_WAIT);
                self.reopen_at = Instant::now() + self.reopen_wait;
                tracing::warn!(error = %broken, again_in = ?self.reopen_wait, "cannot reopen the store; the attempt is repeated");
                self.shared.status.send_if_modified(|status| {
                    let down = !matches!(status, Status::Closed);
                    if down {
                        *status = Status::Down(broken);
                    }
                    down
                });
            }
        }
    }

    /// The disk has answered after all.
    fn is_unstuck(&self) {
        if matches!(*self.shared.status.borrow(), Status::Stuck) {
            self.set_open();
        }
    }

    /// A closed store stays closed.
    fn set_open(&self) {
        self.shared.status.send_if_modified(|status| {
            let other = !matches!(status, Status::Open | Status::Closed);
            if other {
                *status = Status::Open;
            }
            other
        });
    }

    /// Closes the directory in order.
    fn end(&mut self) {
        self.shared.status.send_replace(Status::Closed);
        let Some(disk) = self.disk.take() else { return };
        if let Err(broken) = guarded("close the store", ErrorKind::Unavailable, || disk.close()) {
            // All acknowledged changes are durable already.
            tracing::warn!(error = %broken, "the store did not close cleanly");
        }
    }
}

/// Returns the weight of a call: the events that it counts for.
fn permits(job: &Job) -> u32 {
    u32::try_from(job.permit.num_permits()).unwrap_or(u32::MAX)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A store that was just dropped may still hold it.
fn take_lock(config: &SledConfig) -> Result<DirectoryLock> {
    let give_up = Instant::now() + LOCK_PATIENCE;
    loop {
        match DirectoryLock::take(config) {
            Err(taken) if taken.kind == ErrorKind::Conflict && Instant::now() < give_up => thread::sleep(LOCK_RETRY),
            other => return other,
        }
    }
}

/// Drops a broken directory on another thread: sled flushes on drop, which may panic, or wait for an IO thread that
/// is gone. Until that is done, reopening fails at sled's own lock and is retried.
fn dispose(disk: Disk) {
    let spawned = thread::Builder::new().name("tidings-sled-dispose".to_owned()).spawn(move || {
        let _ = guarded("close the broken store", ErrorKind::Unavailable, || {
            drop(disk);
            Ok(())
        });
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "cannot start a thread to close the failed store");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::{Sender, channel};

    use tokio::sync::Semaphore;

    use super::*;
    use crate::clock::Clock;

    /// Both clocks, set by hand, in milliseconds.
    #[derive(Debug, Clone, Default)]
    struct Hands(Arc<Mutex<u64>>);

    impl Clock for Hands {
        fn wall(&self) -> Timestamp {
            Timestamp::from_millis(self.0.lock().unwrap().cast_signed())
        }

        fn monotonic(&self) -> Duration {
            Duration::from_millis(*self.0.lock().unwrap())
        }
    }

    fn writer(directory: &Path, clock: &Hands) -> (Writer, Sender<Message>) {
        let (calls, received) = channel();
        let config = SledConfig::new(directory).with_clock(clock.clone()).with_max_reopen_wait(Duration::from_secs(1));
        (Writer::open(config, Arc::new(Shared::new()), received).unwrap(), calls)
    }

    fn call(events: u32) -> Message {
        let room = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let permit = room.try_acquire_many_owned(events).unwrap();
        Message::Call(Job { stage: Box::new(|_| (Box::new(|| {}), Ok(()))), permit })
    }

    fn weights(jobs: Option<VecDeque<Job>>) -> Option<Vec<u32>> {
        jobs.map(|jobs| jobs.iter().map(permits).collect())
    }

    #[test]
    fn calls_share_a_commit_up_to_a_bound() {
        let directory = tempfile::tempdir().unwrap();
        let (mut writer, calls) = writer(directory.path(), &Hands::default());
        [GROUP - 1, 1, 7, GROUP, 3].into_iter().for_each(|events| calls.send(call(events)).unwrap());
        calls.send(Message::Close).unwrap();
        assert_eq!(weights(writer.gather()), Some(vec![GROUP - 1, 1]));
        assert_eq!(weights(writer.gather()), Some(vec![7, GROUP]));
        // Calls made before the close are still executed.
        assert_eq!(weights(writer.gather()), Some(vec![3]));
        assert_eq!(weights(writer.gather()), None);
    }

    #[test]
    fn an_idle_store_stores_the_time_once_a_minute() {
        let (directory, clock) = (tempfile::tempdir().unwrap(), Hands::default());
        let (mut writer, _calls) = writer(directory.path(), &clock);
        let began = writer.disk.as_ref().unwrap().time();
        for (millis, stored) in [(59_999, 0), (60_000, 60_000), (119_999, 60_000), (120_000, 120_000)] {
            *clock.0.lock().unwrap() = millis;
            writer.work(VecDeque::new()).unwrap();
            let time = writer.disk.as_ref().unwrap().time();
            assert_eq!((time, writer.marked), (Timestamp::from_millis(stored), time), "{millis} after {began}");
        }
        // A store in use stores the time with each commit.
        *clock.0.lock().unwrap() = 120_001;
        let Message::Call(job) = call(1) else { panic!("it is a call") };
        writer.work(VecDeque::from([job])).unwrap();
        assert_eq!(writer.marked, Timestamp::from_millis(120_001));
    }

    #[test]
    fn a_store_that_cannot_be_reopened_is_tried_less_and_less_often() {
        let (directory, away) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mut writer, _calls) = writer(directory.path(), &Hands::default());
        let manifest = directory.path().join("manifest");
        let kept = away.path().join("manifest");
        std::fs::rename(&manifest, &kept).unwrap();
        writer.go_down(Broken::new(ErrorKind::Unavailable, "a broken disk"));
        let soon = Instant::now() + SledConfig::MIN_REOPEN_WAIT;
        assert!(writer.disk.is_none() && writer.reopen_at <= soon);
        // It is not tried before `reopen_at`.
        writer.reopen_at = Instant::now() + Duration::from_secs(3_600);
        writer.try_reopen();
        assert_eq!(writer.reopen_wait, SledConfig::MIN_REOPEN_WAIT);
        for wait in [200, 400, 800, 1_000, 1_000] {
            writer.reopen_at = Instant::now();
            writer.try_reopen();
            assert_eq!(writer.reopen_wait, Duration::from_millis(wait));
            let left = writer.reopen_at.saturating_duration_since(Instant::now());
            assert!(left <= writer.reopen_wait && !left.is_zero(), "{left:?}");
            assert!(matches!(*writer.shared.status.borrow(), Status::Down(_)));
        }
        std::fs::rename(kept, manifest).unwrap();
        writer.reopen_at = Instant::now();
        writer.try_reopen();
        assert!(writer.disk.is_some() && matches!(*writer.shared.status.borrow(), Status::Open));
    }

    #[test]
    fn a_closed_store_stays_closed_whatever_the_disk_does() {
        let directory = tempfile::tempdir().unwrap();
        let (mut writer, _calls) = writer(directory.path(), &Hands::default());
        writer.shared.status.send_replace(Status::Stuck);
        writer.is_unstuck();
        assert!(matches!(*writer.shared.status.borrow(), Status::Open));
        writer.end();
        writer.is_unstuck();
        writer.set_open();
        assert!(writer.disk.is_none() && matches!(*writer.shared.status.borrow(), Status::Closed));
    }

    #[test]
    fn the_lock_of_an_owner_that_is_closing_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let config = SledConfig::new(directory.path());
        let held = DirectoryLock::take(&config).unwrap();
        let (waiting, taken) = (config.clone(), channel());
        thread::spawn(move || taken.0.send(take_lock(&waiting).map(drop)));
        assert!(taken.1.recv_timeout(LOCK_RETRY * 3).is_err(), "it is locked still");
        drop(held);
        taken.1.recv().unwrap().unwrap();
        let _held = DirectoryLock::take(&config).unwrap();
        let began = Instant::now();
        assert_eq!(take_lock(&config).unwrap_err().kind, ErrorKind::Conflict);
        assert!(began.elapsed() >= LOCK_PATIENCE);
    }
}
