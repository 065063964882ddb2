//! `event tail`.

use clap::Args;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tidings_core::{StoredRecord, TopicPartition};

use super::filter::{Filter, filter};
use super::view::EventView;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::nouns::log::{self, Place, Range, Span};
use crate::nouns::topic::checked;
use crate::output::{Format, schema, yaml};

/// The number of partitions that are read at the same time.
const AT_ONCE: usize = 64;

/// Print events as they come, until Ctrl-C; nothing changes on the broker, no group is used.
#[derive(Debug, Args)]
pub(crate) struct Tail {
    /// Names of the topics
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    #[command(flatten)]
    range: Range,
    /// Only events whose FIELD is, or by ~ contains, a text: key, value, type, id, header.NAME; may be repeated
    #[arg(long = "filter", value_name = "FIELD=TEXT", value_parser = filter)]
    filters: Vec<Filter>,
    /// End after this number of events
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<u64>,
    /// End at the end of the log instead of waiting
    #[arg(long)]
    exit: bool,
    /// No key, value and headers
    #[arg(long)]
    no_payload: bool,
}

impl Tail {
    pub(crate) async fn run(&self, cx: &Context) -> Result<Exit, Failure> {
        if cx.globals.output == Format::Schema {
            return cx.print(&schema::<EventView>()).map(|()| Exit::Ok);
        }
        let names = checked(&self.topics)?;
        let mut spans = cx.within(log::spans(cx, &names, &self.range, Place::End)).await?;
        let ends = self.exit || self.range.to.is_some();
        if !ends {
            spans.iter_mut().for_each(|span| span.end = u64::MAX);
        }
        let mut left = self.limit.unwrap_or(u64::MAX);
        let print = |partition: &TopicPartition, record: StoredRecord| {
            if !self.filters.iter().all(|filter| filter.matches(&record)) {
                return Ok(true);
            }
            let event = EventView::new(partition, &record, !self.no_payload);
            let decoded = if self.no_payload { None } else { cx.services.decode(&partition.topic, &record) };
            cx.print(&shown(&event.with_decoded(decoded), cx.globals.output)?)?;
            left = left.saturating_sub(1);
            Ok(left > 0)
        };
        if self.limit == Some(0) {
            return Ok(Exit::Ok);
        }
        let reading =
            async { if ends { log::for_each(cx, spans, print).await } else { follow(cx, spans, print).await } };
        tokio::select! {
            // A user who interrupts a tail has seen enough.
            () = cx.interrupted() => Ok(Exit::Ok),
            read = reading => read.map(|()| Exit::Ok),
        }
    }
}

/// Reads all partitions at the same time, for ever.
async fn follow(
    cx: &Context,
    spans: Vec<Span>,
    mut each: impl FnMut(&TopicPartition, StoredRecord) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let reader = log::reader(cx).await?;
    let reader = reader.as_ref();
    let next = async |mut span: Span| {
        let read = log::chunk(cx, reader, &mut span, log::WAIT).await;
        (span, read)
    };
    let mut waiting: std::collections::VecDeque<Span> = spans.into();
    let mut reading = FuturesUnordered::new();
    loop {
        while reading.len() < AT_ONCE {
            let Some(span) = waiting.pop_front() else { break };
            reading.push(next(span));
        }
        let Some((span, read)) = reading.next().await else { return Ok(()) };
        for record in read? {
            if !each(&span.partition, record)? {
                return Ok(());
            }
        }
        waiting.push_back(span);
    }
}

/// Formats one event for standard output.
pub(super) fn shown(event: &EventView, format: Format) -> Result<String, Failure> {
    let fail = |e: serde_json::Error| Failure::failed(format!("write an event: {e}"));
    match format {
        Format::Table | Format::Wide => Ok(format!("{}\n", event.line())),
        // One document per line: there is no end at which a single one could be closed.
        Format::Json | Format::Jsonl => Ok(format!("{}\n", serde_json::to_string(event).map_err(fail)?)),
        Format::Yaml => Ok(format!("---\n{}", yaml(&serde_json::to_value(event).map_err(fail)?))),
        Format::Schema | Format::Nagios | Format::Prometheus => {
            Err(Failure::usage("event tail: use -o table, json, jsonl, yaml or schema"))
        }
    }
}
