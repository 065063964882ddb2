//! The client's group membership. It never reads a record: all its partitions are paused from the start, and separate
//! fetchers fetch them.
//!
//! Membership and fetching are apart so that a slow handler, or a broker that does not answer a
//! fetch, never delays a heartbeat. The member reports assignments and revocations to a
//! [`RebalanceHandler`]; a revocation returns only when the partitions are released, and the client
//! tells the group only then.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use krafka::consumer::{
    AutoOffsetReset, Consumer as Client, ConsumerRebalanceListener, GroupProtocol as Protocol, OffsetAndMetadata,
    PartitionAssignmentStrategy, TopicPartition as ClientPartition,
};
use krafka::error::ErrorCode;
use krafka::{CloseOptions, ConsumerRecord, KrafkaError};
use tidings_core::{ConsumerOptions, Error, ErrorKind, Result, TopicPartition, async_trait};

use tokio::time::timeout;

use super::connection::Connection;
use super::fetcher::{index, isolation};
use crate::config::KafkaConfig;
use crate::error::{failed, kind_of};

/// Duration of a poll that only drives the membership; it notices a rebalance only when it begins.
pub(crate) const MEMBER_POLL: Duration = Duration::from_millis(150);
/// How long a classic member may wait for a join in one poll. See [`Member::drive_classic`].
const JOINING_POLL: Duration = Duration::from_secs(30);
/// Pause of a poll that has nothing to fetch.
const IDLE: Duration = Duration::from_millis(100);
/// How long a revocation may take in addition to twice its deadline: the time to hand it out, and to end it.
const REVOCATION_SLACK: Duration = Duration::from_secs(15);

/// Receives the assignments and revocations of a member, in order.
#[async_trait]
pub(crate) trait RebalanceHandler: Send + Sync + 'static {
    /// Partitions were assigned, under this generation. Must not wait.
    fn assigned(&self, partitions: Vec<TopicPartition>, generation: u32);
    /// Partitions are being revoked; they stay ours until this returns.
    async fn revoked(&self, partitions: Vec<TopicPartition>);
    /// Partitions were lost. The group is joined again when this returns.
    async fn lost(&self, partitions: Vec<TopicPartition>);
}

/// A member of a group. [`drive`](Self::drive) must be called again and again: the client joins,
/// takes assignments and reports losses only within a poll.
pub(crate) struct Member {
    /// The client's consumer; replaced after it gave up for good.
    client: Mutex<Arc<Client>>,
    /// Topics that it subscribes to, unchanged for its lifetime.
    topics: Vec<String>,
    setup: MemberSetup,
    /// Set when the client gave up for good, and no replacement has joined yet.
    gave_up: AtomicBool,
}

/// The parts from which a member is built.
pub(crate) struct MemberSetup {
    pub(crate) connection: Connection,
    pub(crate) config: KafkaConfig,
    pub(crate) options: ConsumerOptions,
    /// Whether it joins by KIP-848; otherwise by the classic protocol.
    pub(crate) newer_protocol: bool,
    pub(crate) handler: Arc<dyn RebalanceHandler>,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("topics", &self.topics).finish_non_exhaustive()
    }
}

/// Passes the client's events on. It needs the client for its answers, but must not keep it alive.
struct Listener {
    handler: Arc<dyn RebalanceHandler>,
    client: OnceLock<Weak<Client>>,
}

impl Member {
    /// Builds the client and subscribes. The group is joined by the first [`drive`](Self::drive).
    pub(crate) async fn open(setup: MemberSetup) -> Result<Self> {
        let client = Mutex::new(build(&setup).await?);
        let topics = setup.options.topics.iter().map(ToString::to_string).collect();
        let member = Self { client, topics, setup, gave_up: AtomicBool::new(false) };
        member.join().await?;
        Ok(member)
    }

    /// Returns the current client.
    fn client(&self) -> Arc<Client> {
        Arc::clone(&self.client.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the client after it gave up for good.
    async fn rebuild(&self) -> Result<()> {
        let client = build(&self.setup).await?;
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
        self.join().await?;
        self.gave_up.store(false, Ordering::Release);
        Ok(())
    }

    /// Joins, or joins again after [`leave`](Self::leave), on the next [`drive`](Self::drive).
    pub(crate) async fn join(&self) -> Result<()> {
        self.client().subscribe(&self.topics).await.map_err(|e| failed("join the group", e))
    }

    /// Drives the membership for a moment; assignments and revocations are reported meanwhile.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) between two generations: drive again.
    /// [`Conflict`](ErrorKind::Conflict) if the group is of another kind.
    /// [`Fenced`](ErrorKind::Fenced) if another member has taken the instance id.
    pub(crate) async fn drive(&self) -> Result<()> {
        if self.gave_up.load(Ordering::Acquire) {
            self.rebuild().await?;
        }
        let client = self.client();
        let polled =
            if self.setup.newer_protocol { client.poll(MEMBER_POLL).await } else { self.drive_classic(&client).await };
        match polled {
            Ok(_none) => Ok(()),
            Err(error) => {
                if matches!(&error, KrafkaError::Broker { code: ErrorCode::UnreleasedInstanceId, .. }) {
                    // The client gives up for good, without another word.
                    self.gave_up.store(true, Ordering::Release);
                }
                let kind = match &error {
                    error if is_of_another_kind(error) => ErrorKind::Conflict,
                    error if is_between(error) => ErrorKind::Unavailable,
                    error => kind_of(error),
                };
                Err(Error::caused_by(kind, format!("poll group {:?}", self.setup.options.group), error))
            }
        }
    }

    /// Polls for as long as a join takes, and no longer.
    ///
    /// A heartbeat queued behind the join is answered, before the join completes, with the error that its generation
    /// is unknown; a poll that begins in between takes this for the end of the membership. So a single poll waits for
    /// the whole join. After the join, or after a join that failed because another member left before it completed,
    /// the poll would wait for records that never come: a wake-up ends that wait, and does not disturb a join.
    async fn drive_classic(&self, client: &Client) -> Result<Vec<ConsumerRecord>, KrafkaError> {
        loop {
            let poll = client.poll(JOINING_POLL);
            tokio::pin!(poll);
            let mut woken = false;
            let polled = loop {
                match timeout(MEMBER_POLL, &mut poll).await {
                    Ok(polled) => break polled,
                    Err(_) => client.wakeup(),
                }
                woken = true;
            };
            match polled {
                Err(KrafkaError::Wakeup) if woken => return Ok(Vec::new()),
                // Left over from the previous poll, which had ended by itself.
                Err(KrafkaError::Wakeup) => {}
                polled => return polled,
            }
        }
    }

    /// Returns whether the group has accepted the member: its generation, or epoch, is known. Both begin at one; a member
    /// that has left has none, or a negative epoch.
    pub(crate) async fn is_accepted(&self) -> bool {
        self.client().group_metadata().await.is_some_and(|known| known.generation_id() > 0)
    }

    /// Commits offsets as given, all or none: the broker's first refusal is the result for all.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) in a rebalance,
    /// [`Indeterminate`](ErrorKind::Indeterminate) without an answer; both may be repeated.
    pub(crate) async fn commit(&self, offsets: &[(TopicPartition, u64, Option<String>)]) -> Result<()> {
        let offsets = offsets.iter().map(|(at, next, metadata)| {
            let next = i64::try_from(*next).unwrap_or(i64::MAX);
            let position = match metadata {
                Some(text) => OffsetAndMetadata::with_metadata(next, text.clone()),
                None => OffsetAndMetadata::new(next),
            };
            (ClientPartition::new(at.topic.as_str(), index(at)), position)
        });
        let offsets: HashMap<ClientPartition, OffsetAndMetadata> = offsets.collect();
        self.client().commit_offsets(&offsets).await.map_err(commit_failed)
    }

    /// Leaves the group; the member can join again.
    pub(crate) async fn leave(&self) -> Result<()> {
        self.client().unsubscribe().await.map_err(|e| failed("leave the group", e))
    }

    /// Leaves the group for good; a static member stays in it until its session expires.
    pub(crate) async fn close(&self, limit: Duration) -> Result<()> {
        let closed = self.client().close_with(CloseOptions::new().timeout(limit)).await;
        closed.map_err(|e| failed("leave the group", e))
    }
}

/// Builds the client's consumer, with heartbeats at a quarter of the session timeout and at most
/// three seconds apart.
async fn build(setup: &MemberSetup) -> Result<Arc<Client>> {
    let MemberSetup { connection, config, options, newer_protocol, handler } = setup;
    let listener = Arc::new(Listener { handler: Arc::clone(handler), client: OnceLock::new() });
    let mut builder = connection
        .0
        .consumer(options.group.as_str())
        .group_protocol(if *newer_protocol { Protocol::Consumer } else { Protocol::Classic })
        .isolation_level(isolation(config))
        .enable_auto_commit(false)
        // The client's own position is never used; this keeps it from failing where nothing is committed.
        .auto_offset_reset(AutoOffsetReset::Latest)
        .idle_poll_backoff(IDLE)
        .session_timeout(options.session_timeout)
        .heartbeat_interval((options.session_timeout / 4).min(Duration::from_secs(3)))
        .max_poll_interval(options.revocation_deadline * 2 + REVOCATION_SLACK)
        .metrics_push(false)
        .rebalance_listener(Arc::clone(&listener));
    if !*newer_protocol {
        // Not the cooperative one: a heartbeat of the client waits behind a long join on the same connection, and
        // then names a generation that is over. In a cooperative round the client takes the answer for the end of its
        // membership and joins under another name, and the old name delays the next round, which does the same to
        // others: such a group never stabilized after a kill and a restart.
        builder = builder.partition_assignment_strategy(PartitionAssignmentStrategy::Range);
    }
    if let Some(id) = options.instance_id.as_deref().or(config.instance_id.as_deref()) {
        builder = builder.group_instance_id(id);
    }
    if let Some(rack) = &config.rack {
        builder = builder.client_rack(rack);
    }
    let client = builder.build().await.map_err(|e| failed(format!("join group {:?}", options.group), e))?;
    let client = Arc::new(client);
    let _first = listener.client.set(Arc::downgrade(&client));
    Ok(client)
}

/// Checks whether the membership is between two generations: the next poll joins again.
///
/// When the coordinator moves, the client forgets its identity and sends a heartbeat that joins and owns partitions
/// at once. The broker calls that an invalid request; the partitions are lost, and the only remedy is to join again.
fn is_between(error: &KrafkaError) -> bool {
    use ErrorCode as Code;
    let passing = |code: &Code| {
        matches!(
            code,
            Code::InvalidRequest
                | Code::UnknownMemberId
                | Code::FencedMemberEpoch
                | Code::StaleMemberEpoch
                | Code::IllegalGeneration
                | Code::RebalanceInProgress
                | Code::GroupIdNotFound
        )
    };
    matches!(error, KrafkaError::Broker { code, .. } if passing(code))
}

/// Checks whether the group is not a consumer group. To a member of the newer protocol the broker reports that the
/// group does not exist, with the reason only in the message.
fn is_of_another_kind(error: &KrafkaError) -> bool {
    matches!(error, KrafkaError::Broker { code: ErrorCode::GroupIdNotFound, message } if message.contains(" group because "))
        || matches!(error, KrafkaError::Broker { code: ErrorCode::GroupIdNotFound, message } if message.contains("is not a"))
}

/// Maps a refused commit. The epoch of an assignment decides who may commit, so a passed generation
/// is transient here.
fn commit_failed(error: KrafkaError) -> Error {
    let kind = match &error {
        // A generation that has just ended: either the next one is ours too, or the partitions are about to be lost.
        KrafkaError::Broker {
            code:
                ErrorCode::RebalanceInProgress
                | ErrorCode::IllegalGeneration
                | ErrorCode::UnknownMemberId
                | ErrorCode::FencedMemberEpoch
                | ErrorCode::StaleMemberEpoch,
            ..
        } => ErrorKind::Unavailable,
        // The answer was lost: the commit may have succeeded, and repeating it is harmless.
        KrafkaError::Network(_) | KrafkaError::Timeout { .. } => ErrorKind::Indeterminate,
        other => kind_of(other),
    };
    Error::caused_by(kind, "commit", error)
}

/// Converts the client's partitions.
fn ours(partitions: &[ClientPartition]) -> Vec<TopicPartition> {
    partitions.iter().map(|p| TopicPartition::new(p.topic(), u32::try_from(p.partition()).unwrap_or(0))).collect()
}

impl ConsumerRebalanceListener for Listener {
    /// Pauses each partition before it is reported, so that the member never fetches.
    async fn on_partitions_assigned(&self, partitions: &[ClientPartition]) {
        let Some(client) = self.client.get().and_then(Weak::upgrade) else { return };
        for partition in partitions {
            client.pause(partition.topic(), &[partition.partition()]).await;
            // Otherwise its polls would look up positions, and wait for brokers that do not matter here.
            let _assigned = client.seek(partition.topic(), partition.partition(), 0).await;
        }
        let generation = client.group_metadata().await.map_or(0, |m| u32::try_from(m.generation_id()).unwrap_or(0));
        if !partitions.is_empty() {
            self.handler.assigned(ours(partitions), generation);
        }
    }

    async fn on_partitions_revoked(&self, partitions: &[ClientPartition]) {
        if !partitions.is_empty() {
            self.handler.revoked(ours(partitions)).await;
        }
    }

    async fn on_partitions_lost(&self, partitions: &[ClientPartition]) {
        self.handler.lost(ours(partitions)).await;
    }
}
