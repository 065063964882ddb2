//! A running fetcher: its client, the partitions that the client was told, and the records that it brings.

use std::collections::{BTreeMap, HashMap, HashSet};

use tidings_core::{Result, TopicPartition};
use tokio::time::sleep;

use super::assigned::Chunk;
use super::fetch_buffer::{FetchTarget, FetcherId};
use super::fetchers::AGAIN;
use super::offset_check::{self, OffsetOrder, SuspectChunk};
use super::{Shared, unreadable};
use crate::client::admin::ClusterClient;
use crate::client::fetcher::{FetchedPartition, FetchedRecords, Fetcher, UnreadableBatch};

/// A fetcher and its current partitions.
pub(super) struct FetcherTask {
    pub(super) client: Fetcher,
    pub(super) targets: BTreeMap<TopicPartition, FetchTarget>,
    /// Whether the client may read other partitions: it did not accept all of a change.
    pub(super) unsure: bool,
    /// Partitions whose gaps have a reason.
    pub(super) with_gaps: HashSet<TopicPartition>,
    /// The plan that was last applied.
    pub(super) seen: u64,
}

impl FetcherTask {
    /// Makes the client read exactly the wanted partitions.
    pub(super) async fn take(&mut self, targets: Vec<FetchTarget>) -> Result<()> {
        let targets: BTreeMap<_, _> = targets.into_iter().map(|target| (target.partition.clone(), target)).collect();
        let unsure = std::mem::replace(&mut self.unsure, true);
        let applied = self.apply(&targets, unsure).await;
        if applied.is_ok() {
            self.with_gaps.retain(|partition| targets.contains_key(partition));
            self.targets = targets;
            self.unsure = false;
        } else {
            // All topics that the client may have, for the next time.
            self.targets.extend(targets);
        }
        applied
    }

    /// Changes only the difference, unless the client's state is unsure: then everything is set
    /// anew.
    async fn apply(&self, targets: &BTreeMap<TopicPartition, FetchTarget>, unsure: bool) -> Result<()> {
        let topics: HashSet<_> = targets.keys().chain(self.targets.keys()).map(|p| p.topic.clone()).collect();
        for topic in topics {
            let of = |all: &BTreeMap<TopicPartition, FetchTarget>| -> Vec<u32> {
                all.keys().filter(|p| p.topic == topic).map(|p| p.partition).collect()
            };
            let (before, now) = (of(&self.targets), of(targets));
            if unsure || before != now {
                self.client.assign(&topic, &now).await?;
            }
        }
        for (partition, target) in targets {
            let before = self.targets.get(partition).filter(|_| !unsure);
            if before.is_none_or(|b| b.ticket != target.ticket) {
                self.client.seek(partition, target.from).await?;
            }
            if unsure || before.map_or(target.held, |b| b.held != target.held) {
                self.client.hold(partition, target.held).await;
            }
        }
        Ok(())
    }

    /// Stops reading a partition whose next batch cannot be read.
    pub(super) async fn hold(
        &self,
        shared: &Shared,
        cluster: &ClusterClient,
        fetcher: FetcherId,
        bad: UnreadableBatch,
    ) {
        let held = match self.targets.get(&bad.partition) {
            Some(target) => unreadable::hold(shared, cluster, fetcher.broker, target, bad).await,
            None => false,
        };
        if !held {
            // The partition is just moving; otherwise the error recurs, and must not do so in a tight loop.
            sleep(AGAIN).await;
        }
    }

    /// Returns the current readings of these partitions.
    pub(super) fn of(&self, partitions: Vec<TopicPartition>) -> Vec<FetchTarget> {
        partitions.iter().filter_map(|partition| self.targets.get(partition)).cloned().collect()
    }

    /// Hands on fetched records and the extent of gaps. Returns the partitions whose logs end before their next
    /// offset: the client then resets them to the end of the log.
    pub(super) async fn accept(
        &mut self,
        shared: &Shared,
        cluster: &ClusterClient,
        fetcher: FetcherId,
        reads: Vec<FetchedPartition>,
    ) -> Vec<TopicPartition> {
        let positions = self.client.positions().await;
        let sized = |FetchedPartition { partition, records }: FetchedPartition| (partition, (records.size(), records));
        let mut reads: HashMap<TopicPartition, (usize, FetchedRecords)> = reads.into_iter().map(sized).collect();
        let (mut came, mut cut_off, mut suspects) = (false, Vec::new(), Vec::new());
        {
            let mut state = shared.lock();
            for position in positions {
                let Some(target) = self.targets.get(&position.partition) else { continue };
                if state.is_beyond(&position.partition, target.ticket, position.offset) {
                    cut_off.push(position.partition);
                    continue;
                }
                let (size, records) = reads.remove(&position.partition).unwrap_or_default();
                // Without records only a gap is news: never skip records that are still in the client's buffer.
                came |= !records.is_empty();
                let chunk = Chunk { records, size, ..Chunk::gap(position.offset) };
                let from = state.fetched(&position.partition, target.ticket).unwrap_or(chunk.next);
                let order = offset_check::order(&chunk.records, from, chunk.next, position.end);
                if order == OffsetOrder::Broken
                    || order == OffsetOrder::Gaps && !self.with_gaps.contains(&position.partition)
                {
                    suspects.push(SuspectChunk { target: target.clone(), from, chunk, order });
                } else {
                    state.accept(&position.partition, target.ticket, chunk);
                }
            }
        }
        if came {
            shared.steps.notify_waiters();
        }
        for suspect in suspects {
            let (partition, order) = (suspect.target.partition.clone(), suspect.order);
            if !offset_check::check(shared, cluster, fetcher.broker, suspect).await {
                sleep(AGAIN).await;
            } else if order == OffsetOrder::Gaps {
                self.with_gaps.insert(partition);
            }
        }
        cut_off
    }
}
