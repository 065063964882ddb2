//! Unreadable batches: each holds its own partition, and no other one.

use std::sync::Arc;

use tidings_core::{Error, Result, Step, TopicPartition, Unreadable};
use tracing::{debug, error};

use super::Shared;
use super::fetched::Want;
use super::slot::{Chunk, Slot, Stage};
use super::state::State;
use crate::client::admin::Asks;
use crate::client::peek::{HEADER, ONE_BATCH, Peeked};
use crate::client::reader::{Bad, Run};
use crate::error::is_refused_fetch;

/// Why a partition is held.
#[derive(Debug)]
pub(super) struct Stuck {
    /// The first offset that cannot be read.
    pub(super) offset: u64,
    pub(super) next: Option<u64>,
    pub(super) error: Arc<Error>,
    /// Whether the caller knows of it.
    pub(super) told: bool,
}

impl State {
    /// Holds a partition whose next batch cannot be read, if this reading is still current.
    pub(super) fn hold(&mut self, partition: &TopicPartition, ticket: u64, stuck: Stuck) -> bool {
        let reads = |slot: &Slot| slot.ticket == ticket && ticket != 0 && slot.stage == Stage::Reading;
        if !self.slots.get(partition).is_some_and(reads) {
            return false;
        }
        // Accounts for a gap before it.
        self.bring(partition, ticket, Chunk { run: Run::default(), next: stuck.offset, size: 0 });
        let Some(slot) = self.slots.get_mut(partition).filter(|slot| reads(slot)) else { return false };
        if slot.fetched != stuck.offset {
            return false;
        }
        slot.stuck = Some(stuck);
        self.plan += 1;
        if !self.ready.contains(partition) {
            self.ready.push_back(partition.clone());
        }
        true
    }
}

impl Slot {
    /// Returns the step that reports a held partition, once all records before it are handed out and the caller
    /// does not know of it yet.
    pub(super) fn tell_stuck(&mut self) -> Option<Step> {
        let stuck = self.stuck.as_mut().filter(|stuck| !stuck.told && self.queue.is_empty())?;
        stuck.told = true;
        let partition = (*self.origin).clone();
        let unreadable = Unreadable::new(partition, self.mark.epoch, stuck.offset, Arc::clone(&stuck.error));
        Some(Step::Unreadable(match stuck.next {
            Some(next) => unreadable.with_next_offset(next),
            None => unreadable,
        }))
    }
}

/// Holds the partition of `bad`, which `broker` leads; returns whether it was still being read.
pub(super) async fn hold(shared: &Shared, asks: &Asks, broker: i32, want: &Want, bad: Bad) -> bool {
    let Bad { partition, offset, error } = bad;
    let next = behind(asks, broker, &partition, offset).await;
    let report = error.report();
    let stuck = Stuck { offset, next, error: Arc::new(error), told: false };
    let held = shared.change(|state| state.hold(&partition, want.ticket, stuck));
    if held {
        error!(%partition, offset, next, error = report, "cannot read a batch; its partition is held until the batch is skipped");
    }
    held
}

/// Returns where the log continues after the batch at `offset`. The header may be damaged, too: the position of the
/// next batch decides, and the header itself only if that batch begins there.
async fn behind(asks: &Asks, broker: i32, partition: &TopicPartition, offset: u64) -> Option<u64> {
    let peek = async |offset: u64, bytes: usize| {
        let asked = asks.peek(broker, &[(partition.clone(), offset)], bytes).await;
        let answer = asked.and_then(|mut answers| answers.remove(partition).transpose());
        answer.unwrap_or_else(|error| {
            debug!(error = error.report(), %partition, offset, "cannot find the end of a batch");
            None
        })
    };
    let bad = match asks.peek(broker, &[(partition.clone(), offset)], ONE_BATCH).await.ok()?.remove(partition)? {
        Ok(peeked) => peeked.batch?,
        Err(error) if is_refused_fetch(&error) => return behind_refused(asks, broker, partition, offset).await,
        Err(_) => return None,
    };
    let peeked = peek(offset, bad.bytes.saturating_add(HEADER)).await?;
    if let Some(next) = peeked.behind {
        return (next <= peeked.high).then_some(next);
    }
    // The last batch of its segment, or of the log.
    let next = bad.next.filter(|next| *next <= peeked.high)?;
    let ends = next == peeked.high || peek(next, ONE_BATCH).await?.batch.is_some_and(|batch| batch.first >= next);
    ends.then_some(next)
}

/// Maximum distance searched for the end of records that a broker refuses to return.
const FARTHEST: u64 = 1 << 24;

/// Returns where the broker returns the log again, after an offset that it refuses: a search with doubling steps, and
/// then by bisection between the last refused offset and the first that is not.
async fn behind_refused(asks: &Asks, broker: i32, partition: &TopicPartition, offset: u64) -> Option<u64> {
    let ask = async |at: u64| -> Option<Result<Peeked>> {
        let asked = asks.peek(broker, &[(partition.clone(), at)], ONE_BATCH).await;
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
