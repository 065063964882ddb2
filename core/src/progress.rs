//! The progress of a consumer on a partition.

use crate::TopicPartition;

/// The progress of an assigned partition.
///
/// ```
/// use tidings_core::{Progress, TopicPartition};
///
/// let progress = Progress::new(TopicPartition::new("orders", 0), 8, Some(5), 12);
/// assert_eq!(progress.lag(), 7, "from the committed offset, not from the position");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The partition.
    pub partition: TopicPartition,
    /// The next offset that will be yielded.
    pub position: u64,
    /// The committed next offset to read.
    pub committed: Option<u64>,
    /// The oldest offset of the log, if known; otherwise 0.
    pub start: u64,
    /// The end of the log; where transactions are open, the end of what may be read.
    pub end: u64,
    /// Whether the partition is paused.
    pub paused: bool,
}

impl Progress {
    /// Creates the progress of a partition that is not paused.
    pub fn new(partition: TopicPartition, position: u64, committed: Option<u64>, end: u64) -> Self {
        Self { partition, position, committed, start: 0, end, paused: false }
    }

    /// Returns the number of offsets between the committed offset (without one, the position) and the end.
    ///
    /// A committed offset beyond the end belongs to a log that was truncated or recreated: the lag then counts from
    /// the position, or from the start if the position lies beyond the end as well.
    pub fn lag(&self) -> u64 {
        let in_log = |offset: &u64| *offset <= self.end;
        let from = self.committed.filter(in_log).or(Some(self.position)).filter(in_log).unwrap_or(self.start);
        self.end.saturating_sub(from.max(self.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_committed_offset_beyond_the_end_counts_from_where_reading_goes_on() {
        let lag = |position, committed, start, end| {
            let mut progress = Progress::new(TopicPartition::new("t", 0), position, committed, end);
            progress.start = start;
            progress.lag()
        };
        assert_eq!(lag(3, Some(2), 0, 5), 3);
        assert_eq!(lag(3, None, 0, 5), 2);
        assert_eq!(lag(0, Some(20), 0, 4), 4, "made anew, and read anew");
        assert_eq!(lag(20, Some(20), 1, 4), 3, "truncated, and not yet noticed");
        assert_eq!(lag(20, Some(20), 0, 20), 0);
        assert_eq!(lag(3, Some(1), 4, 4), 0);
    }
}
