//! Reading logs for verbs: ranges of partitions, chunk by chunk, in bounded memory.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tidings_core::{LogReader, Name, Read, ReadLimits, SeekTo, StoredRecord, Timestamp, TopicPartition};

use crate::context::Context;
use crate::exit::Failure;
use crate::input;

/// How long a read at the end of a log waits for a record.
pub(crate) const WAIT: Duration = Duration::from_millis(500);

/// A position in a log, as the user gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Start,
    End,
    Offset(u64),
    /// This number of offsets before the end.
    Last(u64),
    Time(Timestamp),
}

/// Parses `start`, `end`, an offset, `-10` for the last ten, or a time.
pub(crate) fn place(text: &str) -> Result<Place, String> {
    match text {
        "start" | "earliest" => return Ok(Place::Start),
        "end" | "latest" => return Ok(Place::End),
        _ => {}
    }
    if let Ok(offset) = text.parse() {
        return Ok(Place::Offset(offset));
    }
    if let Some(Ok(last)) = text.strip_prefix('-').map(str::parse) {
        return Ok(Place::Last(last));
    }
    input::time(text).map(Place::Time).map_err(|_| {
        "expected start, end, an offset, -N for the last N, a time such as 2026-11-23T10:00:00Z, or 2h for two hours ago".into()
    })
}

/// Which records of a topic a verb reads.
#[derive(Debug, Clone, Args)]
pub(crate) struct Range {
    /// Only these partitions; may be repeated
    #[arg(long = "partition", value_name = "N")]
    pub(crate) partitions: Vec<u32>,
    /// Where to begin: start, end, an offset, -N for the last N, a time, or a duration before now; default: end for
    /// tail, start for others
    #[arg(long, value_name = "PLACE", value_parser = place, allow_hyphen_values = true)]
    pub(crate) from: Option<Place>,
    /// Where to end, before the record there; by default the present end of the log, and none for tail without --exit
    #[arg(long, value_name = "PLACE", value_parser = place, allow_hyphen_values = true)]
    pub(crate) to: Option<Place>,
}

/// A part of a partition's log, from `next` to before `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) partition: TopicPartition,
    pub(crate) next: u64,
    pub(crate) end: u64,
}

/// Resolves a range of topics to offsets.
pub(crate) async fn spans(cx: &Context, topics: &[Name], range: &Range, begin: Place) -> Result<Vec<Span>, Failure> {
    let mut all = Vec::new();
    for (topic, found) in topics.iter().zip(super::topic::describe_all(cx, topics).await?) {
        let known: Vec<u32> = found.partitions.iter().map(|p| p.partition).collect();
        if let Some(missing) = range.partitions.iter().find(|partition| !known.contains(partition)) {
            let text = format!("topic {topic} has no partition {missing}");
            return Err(Failure::usage(text).with_hint(format!("it has {} partitions", known.len())));
        }
        let wanted =
            known.into_iter().filter(|number| range.partitions.is_empty() || range.partitions.contains(number));
        all.extend(wanted.map(|number| TopicPartition::new(topic.clone(), number)));
    }
    let reader = reader(cx).await?;
    let next = offsets(reader.as_ref(), &all, range.from.unwrap_or(begin)).await?;
    let end = offsets(reader.as_ref(), &all, range.to.unwrap_or(Place::End)).await?;
    let spans = all.into_iter().zip(next.into_iter().zip(end));
    Ok(spans.map(|(partition, (next, end))| Span { partition, next, end: end.max(next) }).collect())
}

/// Returns the target's reader of logs.
pub(crate) async fn reader(cx: &Context) -> Result<Arc<dyn LogReader>, Failure> {
    Ok(cx.transport().await?.log_reader().await?)
}

/// Returns the offset of a place on each partition.
async fn offsets(reader: &dyn LogReader, partitions: &[TopicPartition], at: Place) -> Result<Vec<u64>, Failure> {
    let seek = async |to: SeekTo| -> Result<Vec<u64>, Failure> {
        let found = reader.offsets(partitions, to).await?;
        Ok(found.into_iter().collect::<tidings_core::Result<Vec<_>>>()?)
    };
    match at {
        Place::Start => seek(SeekTo::Earliest).await,
        Place::End => seek(SeekTo::Latest).await,
        Place::Time(time) => seek(SeekTo::Time(time)).await,
        Place::Offset(offset) => seek(SeekTo::Offset(offset)).await,
        Place::Last(last) => {
            let (starts, ends) = (seek(SeekTo::Earliest).await?, seek(SeekTo::Latest).await?);
            Ok(starts.into_iter().zip(ends).map(|(start, end)| end.saturating_sub(last).max(start)).collect())
        }
    }
}

/// Reads the next records of a span, waiting up to `wait` at the end of the log. Bytes that cannot be read are passed
/// over, with a note.
pub(crate) async fn chunk(
    cx: &Context,
    reader: &dyn LogReader,
    span: &mut Span,
    wait: Duration,
) -> Result<Vec<StoredRecord>, Failure> {
    let limits = ReadLimits::default().with_wait(wait);
    let read = reader.read(&span.partition, span.next, limits).await?;
    if read.start_offset > span.next {
        cx.console
            .note(&format!("{}: the log begins at {} now, after {}", span.partition, read.start_offset, span.next));
    }
    let records = read.batch.records().iter().filter(|record| record.offset < span.end).cloned().collect();
    span.next = beyond(cx, &span.partition, &read).max(span.next);
    Ok(records)
}

/// Returns where to read on.
fn beyond(cx: &Context, partition: &TopicPartition, read: &Read) -> u64 {
    let Some(bad) = &read.unreadable else { return read.next_offset };
    let next = bad.next_offset.unwrap_or(bad.offset + 1);
    cx.console.note(&format!("{partition}: offsets {} to {} cannot be read and are left out", bad.offset, next - 1));
    next
}

/// Calls `each` with every record of the spans, in order per partition. Stops early where `each` returns `false`.
pub(crate) async fn for_each(
    cx: &Context,
    spans: Vec<Span>,
    mut each: impl FnMut(&TopicPartition, StoredRecord) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let reader = reader(cx).await?;
    let progress = crate::console::progress(&cx.console, spans.iter().map(|span| span.end - span.next).sum());
    for mut span in spans {
        while span.next < span.end {
            let before = span.next;
            for record in chunk(cx, reader.as_ref(), &mut span, WAIT).await? {
                if !each(&span.partition, record)? {
                    return Ok(());
                }
            }
            progress.inc(span.next - before);
            if span.next == before {
                // Nothing came for the whole wait: records of an open transaction, or a log that was cut.
                break;
            }
        }
    }
    progress.finish_and_clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_word_an_offset_or_a_time() {
        assert_eq!(place("start"), Ok(Place::Start));
        assert_eq!(place("17"), Ok(Place::Offset(17)));
        assert_eq!(place("-3"), Ok(Place::Last(3)));
        assert!(matches!(place("2h"), Ok(Place::Time(_))));
        assert!(matches!(place("2026-11-23T10:00:00Z"), Ok(Place::Time(_))));
        assert!(place("somewhere").is_err());
    }
}
