//! Unreadable batches: each holds its own partition, and no other one.
//!
//! The partition stands still until the caller seeks beyond the batch: skipping it silently would
//! lose records. The offset after the batch is looked up once, and reported with the step if it is
//! known.

use std::sync::Arc;

use tidings_core::{Error, Result, Step, TopicPartition, Unreadable};
use tracing::{debug, error};

use super::Shared;
use super::assigned::{AssignedPartition, Chunk, Stage};
use super::fetch_buffer::FetchTarget;
use super::state::State;
use crate::client::admin::ClusterClient;
use crate::client::fetcher::UnreadableBatch;
use crate::client::peek::{HEADER_BYTES, ONE_BATCH, Peeked};
use crate::error::is_refused_fetch;

/// Why a partition is held.
#[derive(Debug)]
pub(super) struct Hold {
    /// The first offset that cannot be read.
    pub(super) offset: u64,
    /// Offset after the unreadable batch, if it could be found.
    pub(super) next: Option<u64>,
    /// Shared with the step that reports it.
    pub(super) error: Arc<Error>,
    /// Whether the caller knows of it.
    pub(super) reported: bool,
}

impl State {
    /// Holds a partition whose next batch cannot be read, if this reading is still current.
    ///
    /// Records before the batch are handed out first.
    pub(super) fn hold(&mut self, partition: &TopicPartition, ticket: u64, hold: Hold) -> bool {
        let reads =
            |assigned: &AssignedPartition| assigned.ticket == ticket && ticket != 0 && assigned.stage == Stage::Reading;
        if !self.assigned.get(partition).is_some_and(reads) {
            return false;
        }
        // Accounts for a gap before it.
        self.accept(partition, ticket, Chunk::gap(hold.offset));
        let Some(assigned) = self.assigned.get_mut(partition).filter(|assigned| reads(assigned)) else { return false };
        if assigned.fetched != hold.offset {
            return false;
        }
        assigned.hold = Some(hold);
        self.plan += 1;
        if !self.ready.contains(partition) {
            self.ready.push_back(partition.clone());
        }
        true
    }
}

impl AssignedPartition {
    /// Returns the step that reports a held partition, once all records before it are handed out and the caller
    /// does not know of it yet.
    pub(super) fn report_hold(&mut self) -> Option<Step> {
        let hold = self.hold.as_mut().filter(|hold| !hold.reported && self.queue.is_empty())?;
        hold.reported = true;
        let partition = (*self.origin).clone();
        let unreadable = Unreadable::new(partition, self.mark.epoch, hold.offset, Arc::clone(&hold.error));
        Some(Step::Unreadable(match hold.next {
            Some(next) => unreadable.with_next_offset(next),
            None => unreadable,
        }))
    }
}

/// Holds the partition of `bad`, which `broker` leads; returns whether it was still being read.
///
/// Logged as an error even if the caller skips it: a producer wrote bytes that no reader can use.
pub(super) async fn hold(
    shared: &Shared,
    cluster: &ClusterClient,
    broker: i32,
    target: &FetchTarget,
    bad: UnreadableBatch,
) -> bool {
    let UnreadableBatch { partition, offset, error } = bad;
    let next = behind(cluster, broker, &partition, offset).await;
    let report = error.report();
    let hold = Hold { offset, next, error: Arc::new(error), reported: false };
    let held = shared.change(|state| state.hold(&partition, target.ticket, hold));
    if held {
        error!(%partition, offset, next, error = report, "cannot read a batch; its partition is held until the batch is skipped");
    }
    held
}

/// Returns where the log continues after the batch at `offset`. The header may be damaged, too: the position of the
/// next batch decides, and the header itself only if that batch begins there.
///
/// A result beyond the log's end is not trusted.
pub(crate) async fn behind(
    cluster: &ClusterClient,
    broker: i32,
    partition: &TopicPartition,
    offset: u64,
) -> Option<u64> {
    let peek = async |offset: u64, bytes: usize| {
        let asked = cluster.peek(broker, &[(partition.clone(), offset)], bytes).await;
        let answer = asked.and_then(|mut answers| answers.remove(partition).transpose());
        answer.unwrap_or_else(|error| {
            debug!(error = error.report(), %partition, offset, "cannot find the end of an unreadable batch; it cannot be skipped yet");
            None
        })
    };
    let bad = match cluster.peek(broker, &[(partition.clone(), offset)], ONE_BATCH).await.ok()?.remove(partition)? {
        Ok(peeked) => peeked.batch?,
        Err(error) if is_refused_fetch(&error) => return behind_refused(cluster, broker, partition, offset).await,
        Err(_) => return None,
    };
    let peeked = peek(offset, bad.bytes.saturating_add(HEADER_BYTES)).await?;
    if let Some(next) = peeked.behind {
        return (next <= peeked.high).then_some(next);
    }
    // The last batch of its segment, or of the log.
    let next = bad.next.filter(|next| *next <= peeked.high)?;
    let ends = next == peeked.high || peek(next, ONE_BATCH).await?.batch.is_some_and(|batch| batch.first >= next);
    ends.then_some(next)
}

/// Maximum distance searched for the end of records that a broker refuses to return.
///
/// Beyond it the caller has to choose an offset.
const FARTHEST: u64 = 1 << 24;

/// Returns where the broker returns the log again, after an offset that it refuses: a search with doubling steps, and
/// then by bisection between the last refused offset and the first that is not.
///
/// Each step is one request; `None` if one fails, or beyond [`FARTHEST`].
async fn behind_refused(cluster: &ClusterClient, broker: i32, partition: &TopicPartition, offset: u64) -> Option<u64> {
    let ask = async |at: u64| -> Option<Result<Peeked>> {
        let asked = cluster.peek(broker, &[(partition.clone(), at)], ONE_BATCH).await;
        asked.ok()?.remove(partition)
    };
    let is_refused = async |at: u64| Some(matches!(ask(at).await?, Err(error) if is_refused_fetch(&error)));
    let (mut bad, mut step) = (offset, 1);
    while is_refused(offset.checked_add(step)?).await? {
        bad = offset + step;
        step = step.checked_mul(2).filter(|step| *step <= FARTHEST)?;
    }
    let mut good = offset + step;
    while good - bad > 1 {
        let middle = bad + (good - bad) / 2;
        if is_refused(middle).await? { bad = middle } else { good = middle }
    }
    let peeked = ask(good).await?.ok()?;
    // After the last batch comes the end of the log.
    let next = peeked.batch.map_or(peeked.high, |batch| batch.first);
    Some(next).filter(|next| *next > offset)
}
