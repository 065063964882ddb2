//! Fault injection, so that users can test how their services react.

mod publish;
mod transaction;

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tidings_core::{Error, ErrorKind, Record, Result, TopicPartition};
use tokio::time::Instant;

pub(crate) use self::publish::Hit;
pub use self::publish::PublishFault;
pub use self::transaction::TransactionFault;
use crate::broker::Broker;
use crate::error::{injected, lock};
use crate::log::PartitionLog;

#[derive(Debug, Default)]
struct State {
    down_since: Option<Instant>,
    publish: Vec<PublishFault>,
    fetch: Option<Failure>,
    commit: Option<Failure>,
    transactions: Option<TransactionFault>,
    unreadable: Vec<(TopicPartition, Range<u64>)>,
    dead_letters_down: bool,
    publish_delay: Duration,
    fetch_delay: Duration,
    commit_delay: Duration,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure {
    kind: ErrorKind,
    times: u32,
}

impl Failure {
    pub(crate) fn new(times: u32, kind: ErrorKind) -> Option<Self> {
        (times > 0).then_some(Self { kind, times })
    }

    /// Takes one of `assigned`'s failures.
    pub(crate) fn take(assigned: &mut Option<Self>) -> Option<ErrorKind> {
        let failure = assigned.as_mut()?;
        let kind = failure.kind;
        if failure.times != Faults::UNTIL_HEALED {
            failure.times -= 1;
        }
        if failure.times == 0 {
            *assigned = None;
        }
        Some(kind)
    }
}

/// The faults of one transport. Without any, a check costs one atomic load.
#[derive(Debug, Default)]
pub(crate) struct FaultState {
    active: AtomicBool,
    state: Mutex<State>,
}

impl FaultState {
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = lock(&self.state);
        let answer = change(&mut state);
        let none = state.down_since.is_none()
            && state.publish.is_empty()
            && state.fetch.is_none()
            && state.commit.is_none()
            && state.transactions.is_none()
            && state.unreadable.is_empty()
            && !state.dead_letters_down
            && [state.publish_delay, state.fetch_delay, state.commit_delay].iter().all(Duration::is_zero);
        self.active.store(!none, Ordering::Release);
        answer
    }

    pub(crate) fn active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    fn ask<T: Default>(&self, question: impl FnOnce(&mut State) -> T) -> T {
        if self.active() { self.change(question) } else { T::default() }
    }

    pub(crate) fn down_since(&self) -> Option<Instant> {
        self.ask(|state| state.down_since)
    }

    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) while the broker is down.
    pub(crate) fn reach(&self, verb: &str) -> Result<()> {
        match self.down_since() {
            Some(_) => Err(Error::new(ErrorKind::Unavailable, format!("{verb}: the broker is down (injected fault)"))),
            None => Ok(()),
        }
    }

    pub(crate) fn publish(&self, record: &Record) -> Option<Hit> {
        self.ask(|state| {
            let at = state.publish.iter().position(|fault| fault.hits(record))?;
            let fault = &mut state.publish[at];
            let hit = Hit { kind: fault.kind, stored: fault.stored };
            if fault.times != Faults::UNTIL_HEALED {
                fault.times -= 1;
            }
            if fault.times == 0 {
                state.publish.remove(at);
            }
            Some(hit)
        })
    }

    pub(crate) fn fetch(&self) -> Result<()> {
        match self.ask(|state| Failure::take(&mut state.fetch)) {
            Some(kind) => Err(injected("next", kind)),
            None => Ok(()),
        }
    }

    /// Returns the first range of unreadable offsets of `partition` at or after `position`.
    pub(crate) fn unreadable(&self, partition: &TopicPartition, position: u64) -> Option<Range<u64>> {
        self.ask(|state| {
            let ranges = state.unreadable.iter().filter(|(at, range)| at == partition && range.end > position);
            ranges.map(|(_, range)| range.clone()).min_by_key(|range| range.start)
        })
    }

    pub(crate) fn commit(&self) -> Option<ErrorKind> {
        self.ask(|state| {
            if state.down_since.is_some() { Some(ErrorKind::Unavailable) } else { Failure::take(&mut state.commit) }
        })
    }

    /// Returns the fault of the next commit of a transaction.
    pub(crate) fn transaction(&self) -> Option<TransactionFault> {
        self.ask(|state| TransactionFault::take(&mut state.transactions))
    }

    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) while the sink is down.
    pub(crate) fn bury(&self) -> Result<()> {
        if self.ask(|state| state.dead_letters_down) { Err(injected("bury", ErrorKind::Unavailable)) } else { Ok(()) }
    }

    pub(crate) fn publish_delay(&self) -> Duration {
        self.ask(|state| state.publish_delay)
    }

    pub(crate) fn fetch_delay(&self) -> Duration {
        self.ask(|state| state.fetch_delay)
    }

    pub(crate) fn commit_delay(&self) -> Duration {
        self.ask(|state| state.commit_delay)
    }
}

/// Injects faults into a transport, to test how a service reacts.
///
/// Faults act immediately, on all users of the transport. None uses threads or the wall clock, so tests on tokio's
/// paused clock are deterministic. [`heal`](Self::heal) ends all faults.
///
/// ```
/// # use tidings_core::{ErrorKind, PublisherExt, Record, Transport};
/// # use tidings_memory::{MemoryTransport, PublishFault};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidings_core::Result<()> {
/// let transport = MemoryTransport::new();
/// transport.faults().publish(PublishFault::unknown(true).with_topic("orders"));
/// let publisher = transport.publisher().await?;
///
/// let lost = publisher.publish_one(Record::new("orders", "1")).await;
/// assert_eq!(lost.unwrap_err().kind(), ErrorKind::Indeterminate); // yet it is stored
/// let next = publisher.publish_one(Record::new("orders", "2")).await?;
/// assert_eq!(next.offset, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Faults {
    // Weak: a test that keeps its faults must not keep the topics.
    broker: Weak<Broker>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").finish_non_exhaustive()
    }
}

impl Faults {
    /// A number of times that lasts until [`Faults::heal`], for [`PublishFault::with_times`] and similar methods.
    pub const UNTIL_HEALED: u32 = u32::MAX;

    pub(crate) fn new(broker: &Arc<Broker>) -> Self {
        Self { broker: Arc::downgrade(broker) }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        if let Some(broker) = self.broker.upgrade() {
            broker.faults.change(change);
            broker.wake_all();
        }
    }

    /// Takes the broker down: publishes, commits, seeks and admin calls fail as `Unavailable` and nothing is stored.
    /// `next` fails as `Unavailable` until the consumer's session timeout has passed; then it returns `Lost`.
    pub fn down(&self) {
        self.change(|state| state.down_since = state.down_since.or_else(|| Some(Instant::now())));
    }

    /// Brings the broker back with all its data.
    pub fn up(&self) {
        self.change(|state| state.down_since = None);
        self.rebalance_all();
    }

    /// Makes publishes fail as described by `fault`. If several faults match a record, the first applies.
    pub fn publish(&self, fault: PublishFault) {
        if fault.times > 0 {
            self.change(|state| state.publish.push(fault));
        }
    }

    /// Makes the next `times` published records, of any topic, fail as `kind`; they are not stored.
    pub fn fail_publishes(&self, times: u32, kind: ErrorKind) {
        self.publish(PublishFault::new(kind).with_times(times));
    }

    /// Makes the next `times` calls of `next`, by any consumer, fail as `kind`. No step is lost.
    pub fn fail_fetches(&self, times: u32, kind: ErrorKind) {
        self.change(|state| state.fetch = Failure::new(times, kind));
    }

    /// Makes the next `times` calls of `commit`, by any consumer, fail as `kind`.
    /// [`Indeterminate`](ErrorKind::Indeterminate) loses only the answer: valid offsets are committed. Any other kind
    /// commits nothing.
    pub fn fail_commits(&self, times: u32, kind: ErrorKind) {
        self.change(|state| state.commit = Failure::new(times, kind));
    }

    /// Makes commits of transactions fail as described by `fault`, which replaces an earlier one.
    pub fn commit_transactions(&self, fault: TransactionFault) {
        self.change(|state| state.transactions = fault.of_some());
    }

    /// Takes the transport's dead-letter sinks down or brings them back; while down, all their calls fail as
    /// `Unavailable`.
    pub fn set_dead_letters_down(&self, down: bool) {
        self.change(|state| state.dead_letters_down = down);
    }

    /// Delays the answers to publishes. Records are stored at once and stay unanswered for `delay`.
    pub fn delay_publishes(&self, delay: Duration) {
        self.change(|state| state.publish_delay = delay);
    }

    /// Delays each call of `next` before it fetches.
    pub fn delay_fetches(&self, delay: Duration) {
        self.change(|state| state.fetch_delay = delay);
    }

    /// Delays each commit, of a consumer or a transaction, before it reaches the broker.
    pub fn delay_commits(&self, delay: Duration) {
        self.change(|state| state.commit_delay = delay);
    }

    /// Drops the records of `partition` before `offset`, read or not, as retention would. Returns `false` if the
    /// partition does not exist.
    pub fn drop_records(&self, partition: &TopicPartition, offset: u64) -> bool {
        self.on_log(partition, |_, log| log.drop_before(offset)).is_some()
    }

    /// Lets the log of `partition` begin at `offset`, as if all earlier records had been dropped. Returns `false` if the
    /// partition does not exist, holds records, or has come further.
    pub fn advance(&self, partition: &TopicPartition, offset: u64) -> bool {
        self.on_log(partition, |_, log| log.advance(offset)) == Some(true)
    }

    /// Drops the records of `partition` from `offset` on, as after an unclean leader election; with 0, as if the
    /// topic had been recreated. Committed offsets stay and may lie beyond the end. Returns `false` if the partition
    /// does not exist.
    pub fn truncate(&self, partition: &TopicPartition, offset: u64) -> bool {
        let truncate = |broker: &Broker, log: &PartitionLog| {
            log.truncate(offset);
            broker.groups().iter().for_each(|group| group.truncated(broker, partition, offset));
        };
        self.on_log(partition, truncate).is_some()
    }

    /// Makes the records of `partition` at these offsets unreadable, as if another client had written bytes that no
    /// reader can decode: readers get [`Step::Unreadable`](tidings_core::Step::Unreadable).
    pub fn unreadable(&self, partition: &TopicPartition, offsets: Range<u64>) {
        if !offsets.is_empty() {
            self.change(|state| state.unreadable.push((partition.clone(), offsets)));
        }
    }

    /// Takes `partition` from its owner in the group, as if the owner's session had ended: it gets `Lost` and can't
    /// commit any more. The partition is reassigned at once, possibly to the same member. Returns `false` if no
    /// member owned it.
    pub fn lose(&self, group: &str, partition: &TopicPartition) -> bool {
        self.broker.upgrade().is_some_and(|broker| broker.lose(group, partition))
    }

    /// Takes all partitions from all members of the group, as if their sessions had ended; the members join again.
    pub fn lose_all(&self, group: &str) {
        if let Some(broker) = self.broker.upgrade() {
            broker.lose_all(group);
        }
    }

    /// Revokes every partition of the group. Once released, each goes to the next eligible member (back to the same
    /// one if there is no other).
    pub fn rebalance(&self, group: &str) {
        if let Some(broker) = self.broker.upgrade() {
            broker.force_rebalance(group);
        }
    }

    /// Ends all faults and brings the broker up.
    pub fn heal(&self) {
        self.change(|state| *state = State::default());
        self.rebalance_all();
    }

    /// Acts on the log of `partition`, if it exists, and wakes all consumers.
    fn on_log<T>(&self, partition: &TopicPartition, act: impl FnOnce(&Broker, &PartitionLog) -> T) -> Option<T> {
        let broker = self.broker.upgrade()?;
        let answer = act(&broker, &*broker.log(partition)?);
        broker.wake_all();
        Some(answer)
    }

    fn rebalance_all(&self) {
        if let Some(broker) = self.broker.upgrade() {
            broker.rebalance_all();
        }
    }
}
