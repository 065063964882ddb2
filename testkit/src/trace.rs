//! The trace: one line per step, with its time.
//!
//! The trace is kept as data and rendered when it is read, usually by a failing test. It is
//! bounded, since a test may run for long: the last lines are those that explain a failure.

use crate::Harness;
use std::collections::{HashMap, VecDeque};
use std::fmt::{self, Write};
use std::time::Duration;

use tidings_core::{Name, StoredRecord, TopicPartition, codec};

impl Harness {
    /// The maximum number of lines that a trace keeps; older ones are dropped.
    pub const MAX_TRACE: usize = 10_000;
}

/// The position of the record that a line describes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RecordId {
    pub(crate) origin: TopicPartition,
    pub(crate) offset: u64,
}

impl RecordId {
    pub(crate) fn new(origin: &TopicPartition, offset: u64) -> Self {
        Self { origin: origin.clone(), offset }
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.origin.topic, self.origin.partition, self.offset)
    }
}

/// A step.
///
/// Each kind corresponds to one call of the journal.
#[derive(Debug)]
pub(crate) enum Line {
    Sent,
    Published { by: Name },
    NotPublished { what: String, error: String },
    Attempt { number: u32, handler: Name },
    Failed { number: u32, error: String },
    Settled { how: &'static str, reason: Option<String> },
    Buried { error: String, attempts: u32 },
    NotBuried { error: String },
    Note(String),
}

/// A step, its time since the start, and the record it concerns, if any.
#[derive(Debug)]
struct Entry {
    at: Duration,
    record_id: Option<RecordId>,
    line: Line,
}

/// Lines of the trace, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    entries: VecDeque<Entry>,
    /// Number of lines dropped from the front; shown at the top, lest a cut trace seem complete.
    dropped: usize,
    /// Descriptions of the records, for readers to distinguish them.
    names: HashMap<RecordId, String>,
}

impl Trace {
    /// Appends a line, dropping the oldest beyond [`Harness::MAX_TRACE`].
    pub(crate) fn push(&mut self, at: Duration, record_id: Option<RecordId>, line: Line) {
        if self.entries.len() == Harness::MAX_TRACE {
            self.dropped += 1;
            self.entries.pop_front();
        }
        self.entries.push_back(Entry { at, record_id, line });
    }

    /// Describes a record when it is first seen; its bytes are not kept.
    pub(crate) fn name(&mut self, record_id: &RecordId, record: &StoredRecord) {
        if self.names.len() < Harness::MAX_TRACE && !self.names.contains_key(record_id) {
            self.names.insert(record_id.clone(), describe(record));
        }
    }

    /// Renders all lines. An attempt after a failed one shows the wait between them, which is the
    /// backoff that a test on a paused clock never sees pass.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        if self.dropped > 0 {
            // Writing to a string does not fail.
            let _ = writeln!(text, "... {} earlier lines", self.dropped);
        }
        let mut failed: HashMap<&RecordId, Duration> = HashMap::new();
        for Entry { at, record_id, line } in &self.entries {
            let _ = write!(text, "{:>9.3} s  {:<13} ", at.as_secs_f64(), line.word());
            if let Some(record_id) = record_id {
                let name = self.names.get(record_id).map_or("", String::as_str);
                let _ = write!(text, "{name} {record_id}");
                match line {
                    Line::Failed { .. } => drop(failed.insert(record_id, *at)),
                    Line::Attempt { number, .. } if *number > 1 => {
                        let wait = failed.get(record_id).map(|before| at.saturating_sub(*before));
                        let _ = wait.map(|wait| write!(text, " after a wait of {:.3} s", wait.as_secs_f64()));
                    }
                    _ => {}
                }
            }
            let _ = line.details(&mut text);
            text.push('\n');
        }
        text
    }
}

/// Returns the event's type, key and the end of its id.
fn describe(record: &StoredRecord) -> String {
    let head = codec::peek(record).ok();
    let mut text = match &head {
        Some(head) => head.event_type.to_string(),
        None if record.value.is_none() => "tombstone".to_owned(),
        None => format!("{} bytes", record.value.as_ref().map_or(0, |value| value.len())),
    };
    if let Some(key) = &record.key {
        let _ = write!(text, " {:?}", String::from_utf8_lossy(key).chars().take(32).collect::<String>());
    }
    if let Some(head) = head {
        let id = head.id.simple().to_string();
        // The end: ids created together start alike.
        let _ = write!(text, " ..{}", &id[id.len() - 6..]);
    }
    text
}

impl Line {
    /// Returns the word of the second column.
    fn word(&self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Published { .. } => "published",
            Self::NotPublished { .. } => "not published",
            Self::Attempt { .. } => "attempt",
            Self::Failed { .. } => "failed",
            Self::Settled { how, .. } => how,
            Self::Buried { .. } => "buried",
            Self::NotBuried { .. } => "not buried",
            Self::Note(_) => "note",
        }
    }

    /// Writes the rest of the line.
    fn details(&self, text: &mut String) -> fmt::Result {
        match self {
            Self::Sent => Ok(()),
            Self::Published { by } => write!(text, " by {by}"),
            Self::NotPublished { what, error } => write!(text, "{what}: {error}"),
            Self::Attempt { number, handler } => write!(text, ", number {number}, by {handler}"),
            Self::Failed { number, error } => write!(text, ", attempt {number}: {error}"),
            Self::Settled { reason: Some(reason), .. } => write!(text, ": {reason}"),
            Self::Settled { reason: None, .. } => Ok(()),
            Self::Buried { error, attempts } => write!(text, " after {attempts} attempts: {error}"),
            Self::NotBuried { error } => write!(text, ": {error}"),
            Self::Note(note) => write!(text, "{note}"),
        }
    }
}
