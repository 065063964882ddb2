//! In-flight records of one lane.
//!
//! Lanes are published concurrently, the records of one lane in order. A lane stops at its first
//! failure: a later record of the key must not overtake the failed one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidings_core::{Error, ErrorKind, Publisher, Record};

use super::Shared;

/// Time after which a lane returns its results, so that a crash repeats few records however many the lane holds.
const SLICE: Duration = Duration::from_millis(500);

/// A record of the outbox.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) id: i64,
    pub(super) shard: i16,
    /// Hash of topic and key: the unit of order.
    pub(super) lane: i64,
    pub(super) record: Record,
}

/// Result of publishing a lane's records.
#[derive(Debug)]
pub(super) struct Landed {
    pub(super) lane: i64,
    pub(super) shard: i16,
    /// Records that it had taken, published or not.
    pub(super) records: usize,
    pub(super) bytes: usize,
    /// The ids of those that the broker holds.
    pub(super) held: Vec<i64>,
    /// The error that stopped the lane, and the id of its record.
    pub(super) failed: Option<(i64, Error)>,
}

/// Publishes records of one lane in order, `at_once` of them at a time, up to the first that fails.
///
/// Records after a failed one of the same step may have been published: the price of more than one
/// at a time. They are not reported as held and will be published again.
pub(super) async fn fly(
    publisher: Arc<dyn Publisher>,
    shared: Arc<Shared>,
    records: Vec<Fetched>,
    at_once: usize,
) -> Landed {
    let started = Instant::now();
    let (lane, shard) = records.first().map_or((0, 0), |first| (first.lane, first.shard));
    let bytes = records.iter().map(|fetched| fetched.record.size()).sum();
    let mut landed = Landed { lane, shard, records: records.len(), bytes, held: Vec::new(), failed: None };
    let mut records = records.into_iter();
    loop {
        let (ids, step): (Vec<_>, Vec<_>) = records.by_ref().take(at_once).map(|f| (f.id, f.record)).unzip();
        if ids.is_empty() {
            return landed;
        }
        let mut answers = publisher.publish(step).await.into_iter();
        for id in ids {
            match answers.next().unwrap_or_else(|| Err(unanswered())) {
                Ok(_) => landed.held.push(id),
                Err(error) if landed.failed.is_none() => landed.failed = Some((id, error)),
                Err(_) => {}
            }
        }
        if landed.failed.is_some() || shared.is_stopping() || started.elapsed() >= SLICE {
            return landed;
        }
    }
}

/// A publisher that answers too few records breaks its contract; the rest may be stored.
fn unanswered() -> Error {
    Error::new(ErrorKind::Indeterminate, "publish: the publisher gave no answer")
}
