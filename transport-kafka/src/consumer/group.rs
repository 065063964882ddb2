//! The membership: drives and supervises it, and turns its events into steps.
//!
//! Tasks on the member's thread: [`drive`] polls the membership and joins again when it ends,
//! [`watch`] checks that the coordinator is alive, and a start lookup runs for each assignment.
//! They change the shared state; `next` hands out the resulting steps. A transient failure is
//! retried in silence and reported through `next` once it lasts.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tidings_core::{ConsumerOptions, Error, ErrorKind, Name, Result, Start, Timestamp, TopicPartition, async_trait};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, warn};

use super::epoch::Generation;
use super::readers::Readers;
use super::start::{self, FoundStart, GroupHistory};
use super::state::StartHints;
use super::{Shared, until};
use crate::client::admin::ClusterClient;
use crate::client::member::{Member, RebalanceHandler};
use crate::client::peek::ONE_BATCH;

/// Pause before a failed operation is retried.
const AGAIN: Duration = Duration::from_millis(300);
/// How long the group may be unreachable before `next` reports it.
const TELL_AFTER: Duration = Duration::from_secs(3);
/// Interval between liveness checks of the group's coordinator; shorter if the session is short.
const WATCH: Duration = Duration::from_secs(3);
/// How long revoked partitions wait for a commit in flight: longer than the client retries it.
const COMMIT_UNDER_WAY: Duration = Duration::from_secs(30);

/// How many partitions of a broker are inspected one by one before they are read.
///
/// More would take a request each; the others are found to be packed when they are fetched.
const SINGLE_PEEKS: usize = 64;

/// Receives the member's assignments and revocations.
pub(super) struct GroupHandler {
    shared: Arc<Shared>,
    cluster: ClusterClient,
    readers: Readers,
    options: ConsumerOptions,
    /// Whether generations are the member's epochs of KIP-848.
    newer: bool,
}

impl GroupHandler {
    /// Creates the handler of one consumer's membership.
    pub(super) fn new(
        shared: Arc<Shared>,
        cluster: ClusterClient,
        readers: Readers,
        options: ConsumerOptions,
        newer: bool,
    ) -> Self {
        Self { shared, cluster, readers, options, newer }
    }
}

#[async_trait]
impl RebalanceHandler for GroupHandler {
    /// Registers the partitions and looks up their starts in the background.
    fn assigned(&self, partitions: Vec<TopicPartition>, generation: u32) {
        let number = self.shared.change(|state| {
            // The group has just answered.
            state.last_answer = Instant::now();
            state.register(partitions.clone())
        });
        let lookup = StartLookup { number, generation: Generation { number: generation, newer: self.newer } };
        // Spawned: the member continues meanwhile, and asks nothing through its own connection (K9).
        let (shared, cluster) = (Arc::clone(&self.shared), self.cluster.clone());
        let (readers, options) = (self.readers.clone(), self.options.clone());
        tokio::spawn(async move { begin(&shared, &cluster, &readers, &options, partitions, lookup).await });
    }

    /// Waits until the caller has released the partitions, their deadline has passed, or twice the
    /// deadline since now if the caller never asks for the step. Those still held are lost.
    async fn revoked(&self, partitions: Vec<TopicPartition>) {
        if self.shared.lock().closed {
            return;
        }
        let deadline = self.options.revocation_deadline;
        let known = self.shared.change(|state| state.revoke(&partitions, deadline));
        // The caller may never ask for the step.
        let at_last = Instant::now() + deadline * 2;
        loop {
            let wait = until(&self.shared.released, || {
                let state = self.shared.lock();
                let (held, until) = state.held(&known);
                (held.is_empty() || state.closed || until.is_some()).then_some((held, until))
            });
            let (held, ends) = match timeout(at_last.saturating_duration_since(Instant::now()), wait).await {
                Ok((held, ends)) => (held, ends.unwrap_or(at_last)),
                Err(_) => (self.shared.lock().held(&known).0, at_last),
            };
            if held.is_empty() || self.shared.lock().closed {
                break;
            }
            if ends <= Instant::now() {
                warn!(?held, "partitions were not released before the revocation deadline; they are lost");
                self.shared.change(|state| state.lose(&held));
                break;
            }
            let gone = until(&self.shared.released, || {
                let state = self.shared.lock();
                (state.held(&known).0.is_empty() || state.closed).then_some(())
            });
            tokio::select! { () = gone => {} () = sleep_until(ends) => {} }
        }
        self.settle_commits().await;
    }

    /// Reports the loss; the partitions may have new owners already.
    async fn lost(&self, partitions: Vec<TopicPartition>) {
        self.shared.change(|state| state.lose(&partitions));
        self.settle_commits().await;
    }
}

impl GroupHandler {
    /// Waits for a commit in flight: if the client resent it under the next generation, it would be accepted although
    /// the partition has a new owner.
    ///
    /// Bounded: a commit that takes longer than the client retries it will not succeed any more.
    async fn settle_commits(&self) {
        let _settled = timeout(COMMIT_UNDER_WAY, self.shared.commits.lock()).await;
    }
}

/// Broker default of `group.consumer.session.timeout.ms`.
///
/// Assumed where the broker does not report the setting.
const BROKERS_SESSION: Duration = Duration::from_secs(45);

/// Returns the session timeout of a member of the newer protocol: the group's own, if it is shorter than the
/// requested one. If it is unknown, the broker's default is assumed: a member that considers itself expired too early
/// joins again, but one that does so too late holds a partition that another member has, too.
pub(super) async fn session(cluster: ClusterClient, options: ConsumerOptions) -> Result<Duration> {
    let session = cluster.session(&options.group).await.unwrap_or_else(|error| {
        // A group member may lack the right to read the group's settings, and older brokers have none.
        debug!(error = error.report(), "cannot read the group's session timeout; the broker's default is assumed");
        None
    });
    Ok(session.unwrap_or(BROKERS_SESSION).min(options.session_timeout))
}

/// A lookup of partition starts: its number, and the generation that assigned the partitions.
#[derive(Debug, Clone, Copy)]
struct StartLookup {
    /// Distinguishes it from a lookup for an earlier assignment of the same partitions.
    number: u64,
    generation: Generation,
}

/// Looks up the starts of new partitions, while they stay assigned, and hands the partitions to the caller.
///
/// Retries until all starts are found or the partitions are gone. An error that is not transient,
/// or lasts for [`TELL_AFTER`], is reported through `next`, and the lookup goes on. A missing topic counts as
/// transient: its partitions are assigned.
async fn begin(
    shared: &Shared,
    cluster: &ClusterClient,
    readers: &Readers,
    options: &ConsumerOptions,
    partitions: Vec<TopicPartition>,
    lookup: StartLookup,
) {
    let mut told = Instant::now();
    loop {
        let wanted = shared.lock().starting(&partitions, lookup.number);
        if wanted.is_empty() {
            return;
        }
        match find_starts(shared, cluster, readers, options, wanted, lookup).await {
            Ok(()) => return,
            Err(error) => {
                debug!(
                    error = error.report(),
                    "cannot look up the start offsets of partitions; the attempt is repeated"
                );
                // Brokers learn of a new topic at different times, so a missing topic is not an error at first.
                if told.elapsed() > TELL_AFTER || !(error.is_retryable() || error.kind() == ErrorKind::NotFound) {
                    told = Instant::now();
                    shared.change(|state| state.trouble = Some(error));
                }
                sleep(AGAIN).await;
            }
        }
    }
}

/// Hands those of `wanted` to the caller whose starts were found; the error is that of another one.
///
/// Leaders are asked concurrently: one that does not answer delays only its own partitions.
///
/// A partition is handed out as soon as its own start is known.
async fn find_starts(
    shared: &Shared,
    cluster: &ClusterClient,
    readers: &Readers,
    options: &ConsumerOptions,
    wanted: Vec<TopicPartition>,
    lookup: StartLookup,
) -> Result<()> {
    let now = Timestamp::now();
    let history = &GroupHistory::of(cluster, &options.group, shared.first_start.get().copied()).await?;
    let (leaders, mut wrong) = leaders(readers, &wanted).await;
    let mut led: HashMap<i32, Vec<TopicPartition>> = HashMap::new();
    for partition in wanted {
        match leaders.get(&partition).copied().flatten() {
            Some(leader) => led.entry(leader).or_default().push(partition),
            None => {
                let no_leader = || {
                    Error::new(
                        ErrorKind::Unavailable,
                        format!("look up the start offset of {partition}: it has no leader"),
                    )
                };
                wrong.get_or_insert_with(no_leader);
            }
        }
    }
    let starts = led.into_iter().map(|(leader, partitions)| {
        let leaders = &leaders;
        async move {
            let found = start::assignments(cluster, history, options.start, &partitions, lookup.generation).await?;
            let single = find_packed(cluster, leader, &found).await?;
            if let (false, Some(time)) = (options.start == Start::Earliest, history.first_start(now)) {
                let _first = shared.first_start.set(time);
            }
            let (found, missed): (Vec<_>, Vec<_>) = found.into_iter().partition(Result::is_ok);
            let hints = StartHints { leaders: leaders.clone(), single };
            shared.change(|state| state.assign(lookup.number, found.into_iter().flatten().collect(), &hints));
            missed.into_iter().find_map(Result::err).map_or(Ok(()), Err)
        }
    });
    let missed = join_all(starts).await.into_iter().find_map(Result::err);
    wrong.or(missed).map_or(Ok(()), Err)
}

/// Returns the partitions that begin with a compressed batch. The error is that a topic may not be read, because the
/// client retries denied fetches silently. Fetching will meet all other errors, too.
async fn find_packed(
    cluster: &ClusterClient,
    leader: i32,
    found: &[Result<FoundStart>],
) -> Result<HashSet<TopicPartition>> {
    let starts =
        found.iter().flatten().map(|found| (found.assignment.partition.clone(), found.assignment.start_offset));
    let starts: Vec<_> = starts.collect();
    // Of the partitions requested together, only one is answered with its batch.
    let (alone, together) = starts.split_at(starts.len().min(SINGLE_PEEKS));
    let asked = alone.chunks(1).chain([together]).filter(|targets| !targets.is_empty());
    let answers = join_all(asked.map(|targets| cluster.peek(leader, targets, ONE_BATCH))).await;
    let mut packed = HashSet::new();
    for (partition, answer) in answers.into_iter().flatten().flatten() {
        match answer {
            Ok(peeked) if peeked.batch.is_some_and(|batch| batch.packed) => {
                packed.insert(partition);
            }
            Err(error) if error.kind() == ErrorKind::Denied => return Err(error),
            _ => {}
        }
    }
    Ok(packed)
}

/// Returns the known leaders of partitions; the error is that of a requested topic.
///
/// All topics are asked, even after one has failed.
async fn leaders(
    readers: &Readers,
    partitions: &[TopicPartition],
) -> (HashMap<TopicPartition, Option<i32>>, Option<Error>) {
    let topics: HashSet<&Name> = partitions.iter().map(|p| &p.topic).collect();
    let (mut leaders, mut wrong) = (HashMap::new(), None);
    for topic in topics {
        match readers.leaders(topic).await {
            Ok(found) => leaders.extend(found.into_iter().map(|(p, l)| (TopicPartition::new(topic.clone(), p), l))),
            Err(error) => wrong = Some(error),
        }
    }
    (leaders, wrong)
}

/// Drives the membership until the consumer is closed.
///
/// While `next` is not called for `max_idle`, the group is left, so that other members take over. A
/// fenced static member ends for good: another process has its name.
pub(super) async fn drive(shared: Arc<Shared>, member: Arc<Member>, max_idle: Duration) {
    let mut failing: Option<Instant> = None;
    loop {
        if is_idle(&shared, max_idle) {
            warn!(?max_idle, "`next` was not called within max_idle; the member leaves the group until it is called");
            shared.change(super::state::State::end);
            let _left = member.leave().await;
            until(&shared.steps, || shared.lock().handed_out.is_none().then_some(())).await;
        }
        let ended = std::mem::take(&mut shared.lock().ended);
        let result = if ended { rejoin(&member).await } else { member.drive().await };
        let is_accepted = member.is_accepted().await;
        {
            // Not if the membership ended on our side meanwhile.
            let mut state = shared.lock();
            state.is_member = is_accepted && !state.ended;
        }
        let Err(error) = result else {
            failing = None;
            continue;
        };
        if ended {
            // The client has left by now, and takes a poll for a member that reads no topic.
            shared.lock().ended = true;
        }
        let since = *failing.get_or_insert_with(Instant::now);
        debug!(error = error.report(), "the group refused the member or did not answer; the attempt is repeated");
        if error.kind() == ErrorKind::Fenced {
            let what = error.report();
            return shared.change(|state| {
                state.end();
                state.fatal = Some((ErrorKind::Fenced, what));
            });
        }
        if since.elapsed() > TELL_AFTER || !error.is_retryable() {
            shared.change(|state| state.trouble = Some(error));
        }
        sleep(AGAIN).await;
    }
}

/// Leaves and joins again.
async fn rejoin(member: &Member) -> Result<()> {
    // The request to leave may be lost; joining again is what counts.
    let _left = member.leave().await;
    member.join().await
}

/// Checks whether the caller has not asked for a step for too long.
fn is_idle(shared: &Shared, max_idle: Duration) -> bool {
    shared.lock().handed_out.is_some_and(|at| at.elapsed() > max_idle)
}

/// Checks periodically that the group's coordinator is alive. The client does not report when its heartbeats were
/// last answered; this check takes the same route, on its own connection.
///
/// A member that is cut off from the coordinator thus stops by itself within its session timeout,
/// before the group gives its partitions away.
pub(super) async fn watch(shared: Arc<Shared>, cluster: ClusterClient, options: ConsumerOptions) {
    let every = (options.session_timeout / 4).min(WATCH);
    let cluster = cluster.within(every);
    loop {
        sleep(every).await;
        shared.change(super::state::State::expire);
        let asked = Instant::now();
        match cluster.committed(&options.group).await {
            Ok(_) => shared.lock().last_answer = asked,
            Err(error) => {
                debug!(
                    error = error.report(),
                    "the group's coordinator does not answer; after a session timeout the partitions are lost"
                );
                shared.change(|state| {
                    if state.last_answer.elapsed() > every + TELL_AFTER {
                        state.trouble = Some(error);
                    }
                });
            }
        }
        shared.change(super::state::State::expire);
    }
}

impl std::fmt::Debug for GroupHandler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupHandler").field("options", &self.options).finish_non_exhaustive()
    }
}
