//! `event export`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use tidings_core::{StoredRecord, TopicPartition};

use super::filter::{Filter, filter};
use super::view::EventView;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::nouns::log::{self, Place, Range};
use crate::nouns::topic::checked;
use crate::output::{Format, Table, View, schema};

/// Write events to a file, one JSON document per line; `event import` reads it.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Names of the topics
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// The file, or - for standard output
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    range: Range,
    /// Only events whose FIELD is, or by ~ contains, a text
    #[arg(long = "filter", value_name = "FIELD=TEXT", value_parser = filter)]
    filters: Vec<Filter>,
}

/// An export.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ExportView {
    /// The file.
    file: String,
    /// The number of events in it.
    events: u64,
    /// Duration of reading and writing, in seconds.
    seconds: f64,
}

impl Export {
    pub(crate) async fn run(&self, cx: &Context) -> Result<Exit, Failure> {
        if cx.globals.output == Format::Schema {
            return cx.print(&schema::<ExportView>()).map(|()| Exit::Ok);
        }
        let names = checked(&self.topics)?;
        let spans = cx.within(log::spans(cx, &names, &self.range, Place::Start)).await?;
        let shown = self.file.display().to_string();
        let fail = |e: std::io::Error| Failure::failed(format!("write {}: {e}", self.file.display()));
        let is_out = self.file.as_os_str() == "-";
        let mut file = match is_out {
            true => None,
            false => Some(BufWriter::new(File::create(&self.file).map_err(fail)?)),
        };
        let (mut events, begun) = (0, Instant::now());
        let write = |partition: &TopicPartition, record: StoredRecord| {
            if self.filters.iter().all(|filter| filter.matches(&record)) {
                let line = super::tail::shown(&EventView::new(partition, &record, true), Format::Jsonl)?;
                match &mut file {
                    Some(file) => file.write_all(line.as_bytes()).map_err(fail)?,
                    None => cx.print(&line)?,
                }
                events += 1;
            }
            Ok(!cx.is_interrupted())
        };
        log::for_each(cx, spans, write).await?;
        if let Some(mut file) = file {
            file.flush().and_then(|()| synced(file.get_ref())).map_err(fail)?;
        }
        if cx.is_interrupted() {
            cx.console.note(&format!("Interrupted: {shown} has the first {events} events."));
            return Ok(Exit::Partial);
        }
        // Standard output has the events themselves.
        if is_out {
            Ok(Exit::Ok)
        } else {
            cx.output(&ExportView { file: shown, events, seconds: begun.elapsed().as_secs_f64() })
        }
    }
}

/// Syncs a regular file to disk. Devices and pipes cannot be synced.
fn synced(file: &File) -> std::io::Result<()> {
    if file.metadata()?.is_file() { file.sync_all() } else { Ok(()) }
}

impl View for ExportView {
    const ITEMS: Option<&'static str> = None;

    fn notes(&self) -> Vec<String> {
        let rate = self.events as f64 / self.seconds.max(f64::MIN_POSITIVE);
        vec![format!("{} events in {:.2} s, {rate:.0} events/s.", self.events, self.seconds)]
    }

    fn tables(&self) -> Vec<Table> {
        vec![Table::new(&["FILE", ">EVENTS"]).with_rows([vec![self.file.clone(), self.events.to_string()]])]
    }
}
