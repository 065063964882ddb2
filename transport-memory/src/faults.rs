//! Faults to inject, so that users can test what their services do about them.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tidings_core::{Error, ErrorKind, Name, Record, Result, TopicPartition};
use tokio::time::Instant;

use crate::broker::Broker;
use crate::error::{injected, lock};

/// For [`PublishFault::with_times`] and the like: until [`Faults::heal`].
pub const UNTIL_HEALED: u32 = u32::MAX;

type Matcher = Arc<dyn Fn(&Record) -> bool + Send + Sync>;

/// Records that fail to be published. Given to [`Faults::publish`].
#[derive(Clone)]
pub struct PublishFault {
    kind: ErrorKind,
    stored: bool,
    times: u32,
    topic: Option<Name>,
    matching: Option<Matcher>,
}

impl PublishFault {
    /// The next record fails as `kind` and is not stored.
    pub fn new(kind: ErrorKind) -> Self {
        Self { kind, stored: false, times: 1, topic: None, matching: None }
    }

    /// The next record's outcome is [`Indeterminate`](ErrorKind::Indeterminate): the answer is lost, after or before it was stored.
    pub fn unknown(stored: bool) -> Self {
        Self { stored, ..Self::new(ErrorKind::Indeterminate) }
    }

    /// For so many records; [`UNTIL_HEALED`] has no end.
    #[must_use]
    pub fn with_times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    /// Only for records of this topic.
    #[must_use]
    pub fn with_topic(mut self, topic: impl Into<Name>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Only for records that `matching` says yes to. It is called with a lock held: it must not call the transport.
    #[must_use]
    pub fn with_matching(mut self, matching: impl Fn(&Record) -> bool + Send + Sync + 'static) -> Self {
        self.matching = Some(Arc::new(matching));
        self
    }

    fn hits(&self, record: &Record) -> bool {
        self.topic.as_ref().is_none_or(|topic| *topic == record.topic)
            && self.matching.as_ref().is_none_or(|matching| matching(record))
    }
}

impl fmt::Debug for PublishFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishFault")
            .field("kind", &self.kind)
            .field("stored", &self.stored)
            .field("times", &self.times)
            .field("topic", &self.topic)
            .field("matching", &self.matching.is_some())
            .finish()
    }
}

/// What a publish fault does to one record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hit {
    pub(crate) kind: ErrorKind,
    pub(crate) stored: bool,
}

#[derive(Debug, Default)]
struct State {
    down_since: Option<Instant>,
    publish: Vec<PublishFault>,
    fetch: Option<Failure>,
    commit: Option<Failure>,
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

    /// Uses one of `slot`'s failures up.
    pub(crate) fn take(slot: &mut Option<Self>) -> Option<ErrorKind> {
        let failure = slot.as_mut()?;
        let kind = failure.kind;
        if failure.times != UNTIL_HEALED {
            failure.times -= 1;
        }
        if failure.times == 0 {
            *slot = None;
        }
        Some(kind)
    }
}

/// The faults of one transport, as it asks for them. With none injected, a question costs one load.
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
            if fault.times != UNTIL_HEALED {
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

    /// The first offsets of `partition` from `position` on that can't be read.
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

/// Injects faults into a transport, for tests of what a service does about them.
///
/// All act at once, on all users of the transport; none uses threads or the wall clock, so that a test on tokio's paused
/// clock runs in the same way each time. [`heal`](Self::heal) ends them all.
///
/// ```
/// # use tidings_core::{ErrorKind, Publisher, Record, Transport};
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
    pub(crate) fn new(broker: &Arc<Broker>) -> Self {
        Self { broker: Arc::downgrade(broker) }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        if let Some(broker) = self.broker.upgrade() {
            broker.faults.change(change);
            broker.wake_all();
        }
    }

    /// The broker is gone: publishes, commits, seeks and admin verbs are `Unavailable` and nothing is stored; `next` is
    /// `Unavailable`, until the consumer's session timeout has passed: then it raises `Lost` by itself.
    pub fn down(&self) {
        self.change(|state| state.down_since = state.down_since.or_else(|| Some(Instant::now())));
    }

    /// The broker is back, with all that it held.
    pub fn up(&self) {
        self.change(|state| state.down_since = None);
        self.rebalance_all();
    }

    /// Records to be published fail as `fault` says. Of several faults that match a record, the first counts.
    pub fn publish(&self, fault: PublishFault) {
        if fault.times > 0 {
            self.change(|state| state.publish.push(fault));
        }
    }

    /// The next `times` records to be published, of any topic, fail as `kind` and are not stored.
    pub fn fail_publishes(&self, times: u32, kind: ErrorKind) {
        self.publish(PublishFault::new(kind).with_times(times));
    }

    /// The next `times` calls of `next`, of any consumer, fail as `kind`. No step is lost by it.
    pub fn fail_fetches(&self, times: u32, kind: ErrorKind) {
        self.change(|state| state.fetch = Failure::new(times, kind));
    }

    /// The next `times` calls of `commit`, of any consumer, fail as `kind`. [`Indeterminate`](ErrorKind::Indeterminate) loses the
    /// answer only: what could be committed is. Any other kind commits nothing.
    pub fn fail_commits(&self, times: u32, kind: ErrorKind) {
        self.change(|state| state.commit = Failure::new(times, kind));
    }

    /// Whether the dead-letter sinks of the transport are down: then all they are asked is `Unavailable`.
    pub fn set_dead_letters_down(&self, down: bool) {
        self.change(|state| state.dead_letters_down = down);
    }

    /// Answers to publishes come so late. Their records are stored at once, and are unanswered until then.
    pub fn delay_publishes(&self, delay: Duration) {
        self.change(|state| state.publish_delay = delay);
    }

    /// Each call of `next` waits so long before it looks.
    pub fn delay_fetches(&self, delay: Duration) {
        self.change(|state| state.fetch_delay = delay);
    }

    /// Each commit takes so long to reach the broker.
    pub fn delay_commits(&self, delay: Duration) {
        self.change(|state| state.commit_delay = delay);
    }

    /// The records of `partition` before `offset` are gone, as if retention had dropped them, read or not. `false`: there
    /// is no such partition.
    pub fn drop_records(&self, partition: &TopicPartition, offset: u64) -> bool {
        let Some(broker) = self.broker.upgrade() else { return false };
        let Some(log) = broker.topic(&partition.topic).and_then(|topic| topic.log(partition.partition)) else {
            return false;
        };
        log.drop_before(offset);
        broker.wake_all();
        true
    }

    /// The records of `partition` from `offset` on are gone, as after an unclean election of a leader; with 0, as if the
    /// topic had been made anew. What groups have committed stays, and may lie beyond the end. `false`: there is no such
    /// partition.
    pub fn truncate(&self, partition: &TopicPartition, offset: u64) -> bool {
        let Some(broker) = self.broker.upgrade() else { return false };
        let Some(log) = broker.log(partition) else { return false };
        log.truncate(offset);
        for group in broker.groups() {
            group.truncated(&broker, partition, offset);
        }
        broker.wake_all();
        true
    }

    /// The records of `partition` at these offsets can't be read, as if another client had written bytes that no reader
    /// understands: readers are told so by [`Step::Unreadable`](tidings_core::Step::Unreadable).
    pub fn unreadable(&self, partition: &TopicPartition, offsets: Range<u64>) {
        if !offsets.is_empty() {
            self.change(|state| state.unreadable.push((partition.clone(), offsets)));
        }
    }

    /// The group's owner of `partition` loses it, as if its session had ended: it gets `Lost`, and can commit no more.
    /// The partition is assigned anew at once, to the same member if it is due to it. `false`: nobody had it.
    pub fn lose(&self, group: &str, partition: &TopicPartition) -> bool {
        self.broker.upgrade().is_some_and(|broker| broker.lose(group, partition))
    }

    /// All members of the group lose all their partitions, as if their sessions had ended, and join again.
    pub fn lose_all(&self, group: &str) {
        if let Some(broker) = self.broker.upgrade() {
            broker.lose_all(group);
        }
    }

    /// Every partition of the group is revoked, and goes to the next of the members that could have it (back to its
    /// member, if there is no other) when it was released.
    pub fn rebalance(&self, group: &str) {
        if let Some(broker) = self.broker.upgrade() {
            broker.force_rebalance(group);
        }
    }

    /// Ends all faults; the broker is up.
    pub fn heal(&self) {
        self.change(|state| *state = State::default());
        self.rebalance_all();
    }

    fn rebalance_all(&self) {
        if let Some(broker) = self.broker.upgrade() {
            broker.rebalance_all();
        }
    }
}
