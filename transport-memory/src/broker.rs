//! The broker: all topics, groups and faults of one transport.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tidings_core::{Error, ErrorKind, Name, Result, Topic, TopicPartition, is_dead_letter_topic};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::config::MemoryConfig;
use crate::delayed::Delayed;
use crate::error::{lock, no_topic};
use crate::faults::FaultState;
use crate::group::Group;
use crate::log::PartitionLog;
use crate::topic::TopicLog;
use crate::transactions::Transactions;

/// State of one transport, shared by its clones, publishers, consumers and admin clients.
///
/// Locks are taken in this order: a transactor, the groups, a group, the sessions of transactors, a session, the topics, a
/// topic, a partition's log, the faults. A call that needs a later one first releases the earlier, or takes both in this order;
/// otherwise two calls can deadlock.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) config: MemoryConfig,
    pub(crate) clock: Clock,
    pub(crate) faults: FaultState,
    pub(crate) delayed: Delayed,
    pub(crate) transactions: Transactions,
    /// Read by nearly every call, written only when topics are created or deleted.
    topics: RwLock<BTreeMap<Name, Arc<TopicLog>>>,
    /// Groups with members or commits; [`with_group`](Self::with_group) removes vacant ones, so
    /// that short-lived groups of tests do not accumulate.
    groups: Mutex<BTreeMap<Name, Arc<Group>>>,
    /// One counter for epochs and members of all groups, so that both grow even if a group was deleted and recreated.
    serial: AtomicU64,
}

impl Broker {
    pub(crate) fn new(config: MemoryConfig) -> Self {
        Self {
            clock: Clock::new(config.start_time),
            config,
            faults: FaultState::default(),
            delayed: Delayed::default(),
            transactions: Transactions::default(),
            topics: RwLock::default(),
            groups: Mutex::default(),
            serial: AtomicU64::new(0),
        }
    }

    /// Returns a number greater than all before, for an epoch or a member.
    pub(crate) fn next_serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Returns the latest of these numbers.
    pub(crate) fn last_serial(&self) -> u64 {
        self.serial.load(Ordering::Relaxed)
    }

    /// Returns the topic `name` if it exists.
    pub(crate) fn topic(&self, name: &str) -> Option<Arc<TopicLog>> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Returns the log of `partition` if its topic exists and has that many partitions.
    pub(crate) fn log(&self, partition: &TopicPartition) -> Option<Arc<PartitionLog>> {
        self.topic(&partition.topic)?.log(partition.partition)
    }

    /// Returns all topics, sorted.
    pub(crate) fn topics(&self) -> Vec<Arc<TopicLog>> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Returns the topic `name`, creating it if that is allowed.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if it is not; [`Invalid`](ErrorKind::Invalid) for a name that can't be.
    pub(crate) fn topic_or_create(&self, verb: &str, name: &Name) -> Result<Arc<TopicLog>> {
        if let Some(topic) = self.topic(name) {
            return Ok(topic);
        }
        if !self.config.auto_create {
            return Err(no_topic(verb, name));
        }
        let partitions = if is_dead_letter_topic(name) { 1 } else { self.config.partitions };
        match self.create(&Topic::new(name).with_partitions(partitions)) {
            // Another call has created it.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => self.topic(name).ok_or_else(|| no_topic(verb, name)),
            other => other,
        }
    }

    /// Creates a topic and assigns its partitions to the groups that read it.
    ///
    /// The topic is in the map before groups are rebalanced, and the map's lock is released: a
    /// rebalance takes a group's lock, which comes before the topics'.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists), [`Invalid`](ErrorKind::Invalid) for its name or
    /// its number of partitions.
    pub(crate) fn create(&self, spec: &Topic) -> Result<Arc<TopicLog>> {
        let topic = Arc::new(TopicLog::new(spec, &self.config)?);
        {
            let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
            if topics.contains_key(&spec.name) {
                let text = format!("create topic {:?}: it already exists", spec.name);
                return Err(Error::new(ErrorKind::AlreadyExists, text));
            }
            topics.insert(spec.name.clone(), Arc::clone(&topic));
        }
        self.rebalance_all();
        Ok(topic)
    }

    /// Deletes a topic: its records are dropped, its readers lose their partitions, and all groups
    /// forget their commits, so that a topic recreated under the name starts afresh.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound).
    pub(crate) fn delete(&self, name: &Name) -> Result<()> {
        let removed = self.topics.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        removed.ok_or_else(|| no_topic("delete topic", name))?.set_deleted();
        for group in self.groups() {
            group.forget_topic(self, name);
        }
        Ok(())
    }

    /// Returns all groups, sorted.
    pub(crate) fn groups(&self) -> Vec<Arc<Group>> {
        lock(&self.groups).values().cloned().collect()
    }

    pub(crate) fn group(&self, name: &str) -> Option<Arc<Group>> {
        lock(&self.groups).get(name).cloned()
    }

    /// Runs `act` on the group `name`, which is created if it is missing, and forgotten afterwards if it is vacant.
    ///
    /// The lock on the groups is held while `act` runs. Without it, a group could be forgotten
    /// between the lookup and a join, and the member would belong to a group that no call finds.
    pub(crate) fn with_group<T>(&self, name: &Name, act: impl FnOnce(&Arc<Group>) -> T) -> T {
        let mut groups = lock(&self.groups);
        let group = groups.entry(name.clone()).or_insert_with(|| Arc::new(Group::new(name.clone())));
        let group = Arc::clone(group);
        let answer = act(&group);
        if group.is_vacant() {
            groups.remove(name);
        }
        answer
    }

    /// Reassigns the partitions of every group, after a topic or partitions were created.
    pub(crate) fn rebalance_all(&self) {
        for group in self.groups() {
            group.rebalance(self);
        }
    }

    /// Wakes every waiting consumer, which then looks again, after a fault has changed.
    pub(crate) fn wake_all(&self) {
        for group in self.groups() {
            group.wake_all();
        }
    }

    /// Takes `partition` from its owner; see [`Faults::lose`](crate::Faults::lose).
    pub(crate) fn lose(&self, group: &str, partition: &TopicPartition) -> bool {
        self.group(group).is_some_and(|group| group.lose(self, partition))
    }

    pub(crate) fn lose_all(&self, group: &str) {
        if let Some(group) = self.group(group) {
            group.lose_all(self);
        }
    }

    pub(crate) fn force_rebalance(&self, group: &str) {
        if let Some(group) = self.group(group) {
            group.force_rebalance(self, Instant::now());
        }
    }
}
