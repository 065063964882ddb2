//! Context of a running case: its backend, names, deadlines and history.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tidings_core::{Name, Result, TopicPartition};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::case::{Broken, Checked, broken};
use crate::hooks::{Hook, Live};
use crate::setup::Pace;

/// Number of steps that a history keeps, the latest ones.
const HISTORY_LIMIT: usize = 120;

/// The steps of a case, the last [`HISTORY_LIMIT`] of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct History(Arc<Mutex<Steps>>);

#[derive(Debug, Default)]
struct Steps {
    earlier: u64,
    last: VecDeque<Noted>,
}

#[derive(Debug)]
struct Noted {
    /// Time since the case began, by tokio's clock.
    at: Duration,
    step: String,
    /// Number of consecutive repeats.
    times: u64,
}

impl History {
    /// Adds a step, or counts a repeat of the last one.
    pub(crate) fn push(&self, at: Duration, step: &str) {
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = steps.last.back_mut().filter(|last| last.step == step) {
            last.times += 1;
            return;
        }
        if steps.last.len() == HISTORY_LIMIT {
            steps.last.pop_front();
            steps.earlier += 1;
        }
        steps.last.push_back(Noted { at, step: step.to_owned(), times: 1 });
    }

    /// Formats the history, one step per line.
    pub(crate) fn text(&self) -> String {
        let steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        if steps.earlier > 0 {
            text.push_str(&format!("    ({} earlier steps)\n", steps.earlier));
        }
        for Noted { at, step, times } in &steps.last {
            let repeated = if *times > 1 { format!(" ({times} times)") } else { String::new() };
            text.push_str(&format!("    {:>8.3}s {step}{repeated}\n", at.as_secs_f64()));
        }
        text
    }
}

/// A running case.
///
/// Everything that a case uses; it is dropped with the case, which closes the backend.
pub(crate) struct Context<B: ?Sized> {
    /// `None` only while the backend is being reopened, or after that failed.
    live: Mutex<Option<Box<dyn Live<B>>>>,
    pub(crate) history: History,
    pub(crate) pace: Pace,
    began: Instant,
    /// Highest epochs seen, by group and partition: they grow across members.
    pub(crate) epochs: Mutex<std::collections::HashMap<(Name, TopicPartition), u64>>,
}

impl<B: ?Sized> Context<B> {
    pub(crate) fn new(live: Box<dyn Live<B>>, history: History, pace: Pace) -> Self {
        Self { live: Mutex::new(Some(live)), history, pace, began: Instant::now(), epochs: Mutex::default() }
    }

    /// Calls the open backend, or fails the case if there is none.
    fn with_live<R>(&self, act: impl FnOnce(&(dyn Live<B> + 'static)) -> R) -> Checked<R> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        match live.as_deref() {
            Some(live) => Ok(act(live)),
            None => broken("an open backend", "it could not be opened again"),
        }
    }

    /// Returns the currently open backend.
    pub(crate) fn backend(&self) -> Checked<Arc<B>> {
        self.with_live(Live::backend)
    }

    /// Adds a step to the history.
    pub(crate) fn note(&self, step: impl AsRef<str>) {
        self.history.push(self.began.elapsed(), step.as_ref());
    }

    /// Returns a unique name.
    pub(crate) fn fresh(&self, what: &str) -> Name {
        format!("{what}-{}", Uuid::new_v4().simple()).into()
    }

    /// Awaits `future` within the setup's patience.
    pub(crate) async fn within<F: Future>(&self, what: &str, future: F) -> Checked<F::Output> {
        match timeout(self.pace.patience, future).await {
            Ok(output) => Ok(output),
            Err(_) => broken(format!("{what} within {:?}", self.pace.patience), "nothing"),
        }
    }

    /// Waits until any session or lease that began before has expired.
    pub(crate) async fn outlive(&self) -> Checked {
        self.pass(self.pace.lifetime + self.pace.lifetime / 2).await
    }

    /// Lets `time` pass for the backend.
    pub(crate) async fn pass(&self, time: Duration) -> Checked {
        self.note(format!("{time:?} pass"));
        match self.with_live(|live| live.pass_time(time))? {
            Some(passing) => Ok(self.within("the hook of passing time", passing).await??),
            None => {
                sleep(time).await;
                Ok(())
            }
        }
    }

    /// Calls `again` until it returns a value, within the setup's patience.
    ///
    /// For facts that a distributed backend shows late. It must not be used for facts that hold at
    /// once: a violation would pass.
    pub(crate) async fn eventually<T, F: Future<Output = Checked<Option<T>>>>(
        &self,
        what: &str,
        mut again: impl FnMut() -> F,
    ) -> Checked<T> {
        let search = async {
            loop {
                if let Some(found) = again().await? {
                    return Ok(found);
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        self.within(what, search).await?
    }

    /// Awaits a hook. One that is not supported for these arguments ignores the case.
    async fn hooked(&self, what: String, hook: Checked<crate::setup::Boxed<'static, Result<()>>>) -> Checked {
        self.note(&what);
        match self.within(&what, hook?).await? {
            Err(error) if error.kind() == tidings_core::ErrorKind::Unsupported => Err(Broken::Ignored(error.report())),
            answer => Ok(answer?),
        }
    }

    /// Makes the backend unreachable or reachable.
    pub(crate) async fn outage(&self, down: bool) -> Checked {
        self.hooked(format!("hook: outage {down}"), self.with_live(|l| l.outage(down))).await
    }

    /// Drops answers to publishes, or delivers them again.
    pub(crate) async fn lost_answers(&self, lost: bool) -> Checked {
        self.hooked(format!("hook: lost answers {lost}"), self.with_live(|l| l.lost_answers(lost))).await
    }

    /// Delays answers to publishes, or delivers them.
    pub(crate) async fn slow_answers(&self, slow: bool) -> Checked {
        self.hooked(format!("hook: slow answers {slow}"), self.with_live(|l| l.slow_answers(slow))).await
    }

    /// Ends the sessions of a group's members.
    pub(crate) async fn session_loss(&self, group: &Name) -> Checked {
        self.hooked(format!("hook: session loss of {group}"), self.with_live(|l| l.session_loss(group.clone()))).await
    }

    /// Deletes records.
    pub(crate) async fn delete_records(&self, partition: &TopicPartition, range: Range<u64>) -> Checked {
        let what = format!("hook: delete records {range:?} of {partition}");
        self.hooked(what, self.with_live(|l| l.deleted_records(partition.clone(), range))).await
    }

    /// Truncates a partition's log.
    pub(crate) async fn truncate_records(&self, partition: &TopicPartition, end: u64) -> Checked {
        let what = format!("hook: truncate {partition} to {end}");
        self.hooked(what, self.with_live(|l| l.truncated_records(partition.clone(), end))).await
    }

    /// Appends bytes that can't be read.
    pub(crate) async fn append_unreadable(&self, partition: &TopicPartition) -> Checked {
        let what = format!("hook: append unreadable bytes to {partition}");
        self.hooked(what, self.with_live(|l| l.unreadable_records(partition.clone()))).await
    }

    /// Lets the log of an empty partition begin at `offset`.
    pub(crate) async fn advance_log(&self, partition: &TopicPartition, offset: u64) -> Checked {
        let what = format!("hook: the log of {partition} begins at {offset}");
        self.hooked(what, self.with_live(|l| l.advanced_log(partition.clone(), offset))).await
    }

    /// Makes the backend apply retention.
    pub(crate) async fn check_retention(&self) -> Checked {
        self.hooked("hook: check of retention".into(), self.with_live(|l| l.retention_check())).await
    }

    /// Makes the next `times` calls of `next` fail.
    pub(crate) async fn failed_reads(&self, times: u32) -> Checked {
        self.hooked(format!("hook: {times} failed reads"), self.with_live(|l| l.failed_reads(times))).await
    }

    /// Drops answers to commits, or delivers them again.
    pub(crate) async fn lost_commits(&self, lost: bool) -> Checked {
        self.hooked(format!("hook: lost commits {lost}"), self.with_live(|l| l.lost_commits(lost))).await
    }

    /// Revokes all partitions of a group.
    pub(crate) async fn rebalance(&self, group: &Name) -> Checked {
        self.hooked(format!("hook: rebalance {group}"), self.with_live(|l| l.rebalance(group.clone()))).await
    }

    /// Replaces the backend by a store with a small limit or a short retention, for the rest of the case.
    pub(crate) async fn another(&self, which: Hook) -> Checked<Arc<B>> {
        self.note(format!("hook: {which}"));
        let taken = self.live.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(live) = taken else { return broken("an open backend", "it could not be opened again") };
        let live = self.within("another store", live.another(which)).await??;
        let backend = live.backend();
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Some(live);
        Ok(backend)
    }

    /// Stops the backend, whose last handle must be `held`, and reopens it.
    pub(crate) async fn reopen(&self, held: Arc<B>) -> Checked<Arc<B>> {
        self.note("hook: reopen");
        drop(held);
        let taken = self.live.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(live) = taken else { return broken("an open backend", "it could not be opened again") };
        let live = self.within("reopen", live.reopen()).await??;
        let backend = live.backend();
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Some(live);
        Ok(backend)
    }
}

/// Polls `future` at most `times` times, yielding in between, then drops it. Returns its output if it completed.
///
/// It stands for a caller that drops its call at any point, as a timeout or a `select` does.
pub(crate) async fn poll_times<F: Future>(times: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for turn in 0..times {
        if turn > 0 {
            sleep(Duration::from_millis(1)).await;
        }
        let once = poll_fn(|task| Poll::Ready(future.as_mut().poll(task))).await;
        if let Poll::Ready(output) = once {
            return Some(output);
        }
    }
    None
}
