//! The end of a delivery: its events, its dead letter, and the offset that is committed. The one seam between the
//! engine and the systems that keep them.

pub(crate) mod plain;

use std::fmt::Debug;

use tidings_core::{Commit, DeadLetter, Record, Result, async_trait};

use super::assigned::AssignmentId;

/// The events that a delivery returned.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) assignment: AssignmentId,
    /// The lowest offset of the delivery.
    pub(crate) offset: u64,
    /// The records that are still to be published.
    pub(crate) records: Vec<Record>,
}

/// Publishes, dead-letters and commits.
#[async_trait]
pub(crate) trait Settlement: Debug + Send + Sync {
    /// Publishes events. A failed output keeps its unpublished records; an error that is not of an infrastructure kind
    /// is final.
    async fn publish(&self, outputs: Vec<Output>) -> Vec<(Output, Result<()>)>;

    /// Forwards records to their retry topics; returns a result for each. An error that is not of an infrastructure
    /// kind is final.
    async fn forward(&self, records: Vec<Record>) -> Vec<Result<()>>;

    /// Writes dead letters; returns a result for each.
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>>;

    /// Commits offsets; returns a result for each.
    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<()>>;
}
