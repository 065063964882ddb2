//! A held partition, and the operator's skip.

use std::ops::Range;

use tidings_core::TopicPartition;
use tidings_service::{Hold, ServiceHandle, Status};

use crate::common::TestResult;

/// Returns where and why a partition is held, if it is.
pub(crate) fn held<'a>(status: &'a Status, partition: &TopicPartition) -> Option<&'a Hold> {
    status.partitions.iter().find(|p| p.partition == *partition)?.held.first()
}

/// Skips exactly the range at which a partition is held, after checking how the status names it. If the end of the
/// range is unknown, one offset is skipped.
pub(crate) async fn skip(
    service: &ServiceHandle,
    status: &Status,
    partition: &TopicPartition,
) -> TestResult<Range<u64>> {
    let Hold { offset, next_offset, cause, .. } = held(status, partition).ok_or("the partition is not held")?;
    let names = |line: &&String| {
        line.contains(&partition.to_string()) && line.contains(&format!("offset {offset}")) && line.contains(cause)
    };
    if cause.is_empty() || status.problems.iter().find(names).is_none() {
        return Err(format!("no problem names {partition}, {offset} and {cause:?}: {:?}", status.problems).into());
    }
    let range = *offset..next_offset.unwrap_or(offset + 1);
    service.skip(partition, range.clone()).await?;
    println!("skipped {range:?} of {next_offset:?}: {cause}");
    Ok(range)
}
