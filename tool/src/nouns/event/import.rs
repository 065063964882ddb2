//! `event import`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tidings_core::{Error, ErrorKind, Record, check_topic_name};

use super::view::EventView;
use crate::change::{Change, ChangeOptions, Draft, Step, partly};
use crate::console::progress;
use crate::context::Context;
use crate::exit::Failure;

/// The longest line that is read.
const MAX_LINE: usize = 256 << 20;
/// The number of records that are published together.
const BATCH: usize = 500;

/// Publish the events of a file that `event export` wrote.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The file
    #[arg(required_unless_present = "from_plan")]
    file: Option<PathBuf>,
    /// Publish to this topic instead of those in the file
    #[arg(long)]
    topic: Option<String>,
    /// Keep the partitions of the file; by default the key decides
    #[arg(long)]
    keep_partitions: bool,
    /// Keep the times of the file; by default they are new
    #[arg(long)]
    keep_times: bool,
    #[command(flatten)]
    options: ChangeOptions,
}

/// The events of a file for one topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ImportStep {
    /// The file.
    file: PathBuf,
    /// SHA-256 of the file.
    sha256: String,
    /// The topic; null for those in the file.
    topic: Option<String>,
    /// The number of events, by topic.
    events: BTreeMap<String, u64>,
    /// Whether the partitions of the file are kept.
    keep_partitions: bool,
    /// Whether the times of the file are kept.
    keep_times: bool,
}

impl Step for ImportStep {
    const COLUMNS: &'static [&'static str] = &["IMPORT", "EVENTS"];

    fn cells(&self) -> Vec<String> {
        let events: Vec<String> = self.events.iter().map(|(topic, count)| format!("{topic}: {count}")).collect();
        vec![self.file.display().to_string(), events.join(", ")]
    }
}

impl Change for Import {
    const VERB: &'static str = "event.import";
    type Step = ImportStep;

    fn options(&self) -> &ChangeOptions {
        &self.options
    }

    fn subjects(&self) -> Vec<String> {
        self.file.iter().map(|file| file.display().to_string()).collect()
    }

    async fn plan(&self, cx: &Context) -> Result<Draft<ImportStep>, Failure> {
        let file = self.file.clone().unwrap_or_default();
        let mut step = ImportStep {
            sha256: digest(&file)?,
            file: file.clone(),
            topic: self.topic.clone(),
            events: BTreeMap::new(),
            keep_partitions: self.keep_partitions,
            keep_times: self.keep_times,
        };
        let mut counted = BTreeMap::new();
        each_record(&file, &step, |record| {
            *counted.entry(record.topic.as_str().to_owned()).or_insert(0) += 1;
            Ok(())
        })?;
        let names: Vec<String> = counted.keys().cloned().collect();
        crate::nouns::topic::describe_all(cx, &crate::nouns::topic::checked(&names)?).await?;
        step.events = counted;
        Ok(Draft::new(if step.events.is_empty() { Vec::new() } else { vec![step] }))
    }

    async fn stale(&self, _: &Context, steps: &[ImportStep]) -> Result<Vec<String>, Failure> {
        let mut why = Vec::new();
        for step in steps {
            if digest(&step.file)? != step.sha256 {
                why.push(format!("file {} has changed", step.file.display()));
            }
        }
        Ok(why)
    }

    async fn apply(&self, cx: &Context, steps: &[ImportStep]) -> Vec<tidings_core::Result<()>> {
        let mut answers = Vec::with_capacity(steps.len());
        for step in steps {
            answers.push(import(cx, step).await);
        }
        answers
    }
}

/// Publishes the records of a file, in batches. An error says how many were published before.
async fn import(cx: &Context, step: &ImportStep) -> tidings_core::Result<()> {
    let publisher =
        cx.transport().await.map_err(|f| Error::new(ErrorKind::Unavailable, f.to_string()))?.publisher().await?;
    let bar = progress(&cx.console, step.events.values().sum());
    let mut done = 0_u64;
    let mut lines = Lines::open(&step.file).map_err(|f| Error::new(ErrorKind::Failed, f.to_string()))?;
    loop {
        let mut batch: Vec<Record> = Vec::with_capacity(BATCH);
        while batch.len() < BATCH {
            match lines.next_record(step).map_err(|f| early(done, Error::new(ErrorKind::Failed, f.to_string())))? {
                Some(record) => batch.push(record),
                None => break,
            }
        }
        if batch.is_empty() {
            bar.finish_and_clear();
            return Ok(());
        }
        if cx.is_interrupted() {
            return Err(early(done, Error::new(ErrorKind::Failed, "interrupted")));
        }
        // No limit over all: a long file takes long. Each batch has the publisher's own time limit.
        let sent = publisher.publish(batch).await;
        done += sent.iter().filter(|answer| answer.is_ok()).count() as u64;
        bar.set_position(done);
        if let Some(error) = gravest(sent.into_iter().filter_map(Result::err)) {
            return Err(early(done, error));
        }
    }
}

/// Returns the first error after which a record may have been published, or else the first.
fn gravest(errors: impl Iterator<Item = Error>) -> Option<Error> {
    errors.min_by_key(|error| error.kind() != ErrorKind::Indeterminate)
}

/// Returns the error of an import that ended early. If events were published before, it was applied in part.
fn early(done: u64, error: Error) -> Error {
    let text = format!("the import ended early, after {done} events were published");
    match (done, error.kind()) {
        (0, kind) | (_, kind @ ErrorKind::Indeterminate) => Error::caused_by(kind, text, error),
        _ => partly(format!("{text}: {}", error.report())),
    }
}

fn digest(file: &Path) -> Result<String, Failure> {
    let fail = |e: std::io::Error| Failure::usage(format!("file {}: {e}", file.display()));
    let mut reader = BufReader::new(File::open(file).map_err(fail)?);
    let mut hash = Sha256::new();
    loop {
        let bytes = reader.fill_buf().map_err(fail)?;
        if bytes.is_empty() {
            return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(bytes);
        let read = bytes.len();
        reader.consume(read);
    }
}

fn each_record(
    file: &Path,
    step: &ImportStep,
    mut each: impl FnMut(Record) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut lines = Lines::open(file)?;
    while let Some(record) = lines.next_record(step)? {
        each(record)?;
    }
    Ok(())
}

/// The lines of a file of events.
struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    number: usize,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, Failure> {
        let file = File::open(path).map_err(|e| Failure::usage(format!("file {}: {e}", path.display())))?;
        Ok(Self { path: path.to_owned(), reader: BufReader::new(file), number: 0 })
    }

    fn next_record(&mut self, step: &ImportStep) -> Result<Option<Record>, Failure> {
        let mut line = Vec::new();
        loop {
            line.clear();
            self.number += 1;
            let mut bounded = std::io::Read::take(&mut self.reader, MAX_LINE as u64);
            let read = bounded.read_until(b'\n', &mut line).map_err(|e| self.fail(&e))?;
            if read == 0 {
                return Ok(None);
            }
            if !line.trim_ascii().is_empty() {
                break;
            }
        }
        // The error of the parser names the place, and no data.
        let event: EventView =
            serde_json::from_slice(&line).map_err(|e| self.fail(&format!("no event: {}", shape(&e))))?;
        let record =
            event.record(step.topic.as_deref(), step.keep_partitions, step.keep_times).map_err(|e| self.fail(&e))?;
        check_topic_name(&record.topic).map_err(|e| self.fail(&e))?;
        Ok(Some(record))
    }

    fn fail(&self, why: &dyn std::fmt::Display) -> Failure {
        Failure::usage(format!("file {}, line {}: {why}", self.path.display(), self.number))
    }
}

/// Describes an error of the parser by its category and column: its text may repeat data.
fn shape(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "it ends early",
        serde_json::error::Category::Syntax => "it is not JSON",
        _ => "a field is unknown, missing or of another type",
    };
    format!("{what} (column {})", error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_whose_records_may_be_there_is_indeterminate() {
        let errors = [ErrorKind::Unavailable, ErrorKind::Indeterminate].map(|kind| Error::new(kind, "publish"));
        let error = early(0, gravest(errors.into_iter()).unwrap());
        assert_eq!(error.kind(), ErrorKind::Indeterminate);
    }
}
