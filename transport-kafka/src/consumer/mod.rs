//! The consumer: a group member, fetchers of its partitions, and the steps that both queue for the caller.

mod assigned;
mod epoch;
mod fetch_buffer;
mod fetch_mode;
mod fetcher_task;
mod fetchers;
mod group;
mod native;
mod offset_check;
mod options;
mod readers;
mod replica;
mod running;
mod shared;
mod stall_check;
mod start;
mod state;
mod unreadable;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidings_core::{
    Commit, Consumer, ConsumerOptions, Error, ErrorKind, Guarantees, Progress, Result, SeekTo, Step, TopicPartition,
    async_trait,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use self::fetch_buffer::NextStep;
use self::group::GroupHandler;
use self::readers::Readers;
pub(crate) use self::shared::Shared;
use self::shared::until;
use self::state::{State, closed, not_ours};
pub(crate) use self::unreadable::behind;
use crate::client::admin::ClusterClient;
use crate::client::connection::{Connection, Role};
use crate::client::fetcher::FetchSizes;
use crate::client::member::{Member, MemberSetup};
use crate::config::{GroupProtocol, KafkaConfig, ReaderKind};
use crate::dedicated_runtime::DedicatedRuntime;

/// How long a commit is retried before its error is returned.
const COMMIT_PATIENCE: Duration = Duration::from_secs(10);
/// Pause before a commit is retried.
const COMMIT_AGAIN: Duration = Duration::from_millis(100);
/// How long leaving the group may take.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);
/// How long `progress` waits for the ends of the logs before it reports the last known ones.
const PROGRESS_LIMIT: Duration = Duration::from_secs(2);

/// Member of a Kafka consumer group.
///
/// The group protocol is KIP-848 where the cluster supports it. The epoch of an assignment counts the member's epochs
/// (KIP-848) or the group's generations (classic) from a timestamp stored with each commit, so that epochs keep
/// growing when the group is created anew.
///
/// Records whose offsets differ from those of their batch, which another client can write, hold their partition (C8).
/// A gap between offsets is compared with the batch's header, until one of the partition has a reason (compaction, or
/// transactions): comparing every gap of a compacted topic would take a request each. From then on, until the
/// partition is assigned again, a record that such a batch hides in a gap is skipped.
pub struct KafkaConsumer {
    shared: Arc<Shared>,
    member: Arc<Member>,
    runtime: DedicatedRuntime,
    cluster: ClusterClient,
    options: ConsumerOptions,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl KafkaConsumer {
    /// Opens the connections, the fetchers and the membership, and starts their tasks.
    pub(crate) async fn open(config: &KafkaConfig, cluster: &ClusterClient, options: ConsumerOptions) -> Result<Self> {
        let mut options = options::checked(options)?;
        let newer = match config.group_protocol {
            GroupProtocol::Consumer => true,
            GroupProtocol::Classic => false,
            GroupProtocol::Auto => cluster.has_newer_groups().await?,
        };
        let runtime = DedicatedRuntime::new("kafka-member")?;
        let connect = |role| {
            let config = config.clone();
            runtime.run(async move { Connection::open(&config, role).await })
        };
        let (joined, requests) =
            tokio::try_join!(connect(if newer { Role::Membership } else { Role::Steady }), connect(Role::Membership),)?;
        let cluster = ClusterClient::new(&requests, config);
        if newer {
            options.session_timeout = runtime.run(group::session(cluster.clone(), options.clone())).await?;
        }
        // The two fetchers of a broker share the fetch limit.
        let max_bytes = (config.fetch_max_bytes.min(options.max_buffered_bytes / 2) / 2).max(1);
        let sizes = FetchSizes {
            max_bytes,
            max_partition_bytes: config.fetch_max_partition_bytes.min(max_bytes),
            max_records: options.max_batch_records,
        };
        let readers = Readers::open(config, &cluster, &options, sizes).await?;
        for topic in &options.topics {
            readers.find(topic).await?;
        }
        let shared = Arc::new(Shared::new(&options, sizes, config.reader));
        let group =
            Arc::new(GroupHandler::new(Arc::clone(&shared), cluster.clone(), readers.clone(), options.clone(), newer));
        let setup = MemberSetup {
            connection: joined,
            config: config.clone(),
            options: options.clone(),
            newer_protocol: newer,
            handler: group,
        };
        let member = Arc::new(runtime.run(Member::open(setup)).await?);
        let mut tasks = vec![
            runtime.spawn(group::drive(Arc::clone(&shared), Arc::clone(&member), options.max_idle)),
            runtime.spawn(group::watch(Arc::clone(&shared), cluster.clone(), options.clone())),
            tokio::spawn(readers.run(Arc::clone(&shared))),
        ];
        // The native reader reports what a broker answers; the client retries it silently.
        if config.reader == ReaderKind::Client {
            let watch = stall_check::watch(Arc::clone(&shared), cluster.clone(), config.rack.is_some());
            tasks.push(runtime.spawn(watch));
        }
        Ok(Self { shared, member, runtime, cluster, options, tasks: Mutex::new(tasks) })
    }

    /// Locks the state; [`Closed`](ErrorKind::Closed) once the consumer is closed.
    fn open_state(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.shared.lock();
        if state.closed { Err(closed()) } else { Ok(state) }
    }

    /// Sends the commits that are still valid, in one request, and fills in the result of each. `readings` is the
    /// number of readings when they were requested.
    async fn send(&self, commits: &[Commit], readings: u64, results: &mut [Option<Result<()>>]) {
        let ends = Instant::now() + COMMIT_PATIENCE;
        loop {
            let open: Vec<usize> = self.still_open(commits, results);
            if open.is_empty() {
                return;
            }
            let failed = match self.send_once(commits, &open).await {
                Ok(()) => return self.sent(commits, &open, readings, results),
                Err(error) => error,
            };
            if !failed.is_retryable() && open.len() > 1 {
                for index in open {
                    let one = self.send_once(commits, &[index]).await;
                    if one.is_ok() {
                        self.sent(commits, &[index], readings, results);
                    } else {
                        results[index] = Some(one);
                    }
                }
                return;
            }
            if !failed.is_retryable() || Instant::now() >= ends {
                let (kind, text) = (failed.kind(), failed.report());
                for index in open {
                    results[index] = Some(Err(Error::new(kind, text.clone())));
                }
                return;
            }
            sleep(COMMIT_AGAIN).await;
        }
    }

    /// Answers commits that need no broker, and returns the furthest of the others for each partition.
    fn still_open(&self, commits: &[Commit], results: &mut [Option<Result<()>>]) -> Vec<usize> {
        let mut state = self.shared.lock();
        state.expire();
        for (commit, result) in commits.iter().zip(results.iter_mut()).filter(|(_, result)| result.is_none()) {
            match state.may_commit(commit) {
                Ok(Some(())) => {}
                Ok(None) => *result = Some(Ok(())),
                Err(error) => *result = Some(Err(error)),
            }
        }
        let open = (0..commits.len()).filter(|i| results[*i].is_none());
        let furthest = |i: &usize| {
            let rivals = commits.iter().enumerate().filter(|(j, _)| results[*j].is_none());
            let mut same = rivals.filter(|(_, c)| c.partition == commits[*i].partition);
            same.all(|(j, c)| (c.next_offset, j) <= (commits[*i].next_offset, *i))
        };
        open.filter(furthest).collect()
    }

    /// Sends the commits at these indices in one request.
    async fn send_once(&self, commits: &[Commit], open: &[usize]) -> Result<()> {
        let first_start = self.shared.first_start.get().copied();
        let offset = |i: &usize| {
            let commit = &commits[*i];
            // Lost since the check: without its mark the commit would remove the partition's mark.
            let mark = self.shared.lock().mark(commit).ok_or_else(|| not_ours(&commit.partition))?;
            let metadata = start::to_metadata(Some(mark), first_start, commit.metadata.as_deref());
            Ok((commit.partition.clone(), commit.next_offset, metadata))
        };
        let offsets: Vec<_> = open.iter().map(offset).collect::<Result<_>>()?;
        let member = Arc::clone(&self.member);
        self.runtime.run(async move { member.commit(&offsets).await }).await
    }

    /// Marks the commits that were sent, and those they cover, as done.
    fn sent(&self, commits: &[Commit], open: &[usize], readings: u64, results: &mut [Option<Result<()>>]) {
        let mut state = self.shared.lock();
        for index in open {
            state.committed(&commits[*index], readings);
            for (other, result) in commits.iter().zip(results.iter_mut()) {
                if result.is_none() && other.partition == commits[*index].partition {
                    *result = Some(Ok(()));
                }
            }
        }
    }

    /// Closes the consumer without leaving the group; returns whether this is the first call.
    fn end(&self) -> bool {
        // The tasks first: a member that learns of the close during a revocation would join again before it leaves.
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            task.abort();
        }
        self.shared.change(|state| !std::mem::replace(&mut state.closed, true))
    }
}

/// Marks that `next` is waiting: until this is dropped, the member is not idle.
struct IdleGuard<'a>(&'a Shared);

impl Drop for IdleGuard<'_> {
    fn drop(&mut self) {
        self.0.lock().handed_out = Some(Instant::now());
    }
}

#[async_trait]
impl Consumer for KafkaConsumer {
    async fn next(&self) -> Result<Step> {
        // A caller that reads what was prefetched, record by record, never waits: other tasks must have their turn.
        tokio::task::coop::consume_budget().await;
        self.shared.change(|state| state.handed_out = None);
        let _guard = IdleGuard(&self.shared);
        let step = until(&self.shared.steps, || self.shared.lock().take_next(self.options.max_batch_records)).await;
        // Handing out records made room.
        self.shared.plans.notify_waiters();
        step.map(|next| match next {
            NextStep::Step(step) => step,
            NextStep::Records(popped) => Step::Records(popped.into()),
        })
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<()>> {
        let mut results: Vec<Option<Result<()>>> = commits.iter().map(|_| None).collect();
        let Ok(readings) = self.open_state().map(|state| state.tickets) else {
            return commits.iter().map(|_| Err(closed())).collect();
        };
        let _alone = self.shared.commits.lock().await;
        self.send(&commits, readings, &mut results).await;
        let open = || Err(Error::new(ErrorKind::Indeterminate, "commit: the result is unknown"));
        results.into_iter().map(|result| result.unwrap_or_else(open)).collect()
    }

    async fn release(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.open_state()?.release(partitions);
        self.shared.change(|_| ());
        Ok(())
    }

    async fn pause(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.open_state()?.pause(partitions);
        self.shared.change(|_| ());
        Ok(())
    }

    async fn resume(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.open_state()?.resume(partitions);
        self.shared.change(|_| ());
        Ok(())
    }

    async fn seek(&self, partition: &TopicPartition, to: SeekTo) -> Result<u64> {
        if !self.open_state()?.reads(partition) {
            return Err(not_ours(partition));
        }
        let (cluster, at) = (self.cluster.clone(), partition.clone());
        let offset = self.runtime.run(async move { start::offset_of(&cluster, &at, to).await }).await?;
        self.open_state()?.move_to(partition, offset, true)?;
        self.shared.change(|_| ());
        Ok(offset)
    }

    async fn progress(&self) -> Result<Vec<Progress>> {
        let known = self.open_state()?.progress();
        let cluster = self.cluster.within(PROGRESS_LIMIT);
        let ends = known.into_iter().map(|p| (p.partition, SeekTo::Latest));
        let ends = self.runtime.run(async move { cluster.offsets_each(ends).await }).await.unwrap_or_default();
        // Read again: records handed out meanwhile must not seem to be beyond the end.
        let mut progress = self.open_state()?.progress();
        for partition in &mut progress {
            let end = ends.get(&partition.partition).and_then(|end| end.as_ref().ok().copied().flatten());
            partition.end = end.unwrap_or(partition.end).max(partition.end);
        }
        progress.sort_by(|a, b| a.partition.cmp(&b.partition));
        Ok(progress)
    }

    fn is_member(&self) -> Option<bool> {
        let state = self.shared.lock();
        Some(state.is_member && !state.closed)
    }

    async fn close(&self) -> Result<()> {
        if !self.end() {
            return Ok(());
        }
        // Spawned: a caller that stops waiting must not make the group wait for a session timeout.
        let (member, runtime) = (Arc::clone(&self.member), self.runtime.clone());
        let left = self.runtime.spawn(async move {
            let left = member.close(LEAVE_LIMIT).await;
            drop(runtime);
            left
        });
        let left = left.await;
        left.unwrap_or_else(|e| Err(Error::caused_by(ErrorKind::Indeterminate, "leave the group", e)))
    }

    fn guarantees(&self) -> Guarantees {
        crate::transport::guarantees()
    }
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        if self.end() {
            let (member, runtime) = (Arc::clone(&self.member), self.runtime.clone());
            self.runtime.spawn(async move {
                let _left = member.close(LEAVE_LIMIT).await;
                drop(runtime);
            });
        }
    }
}

impl std::fmt::Debug for KafkaConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaConsumer").field("options", &self.options).finish_non_exhaustive()
    }
}
