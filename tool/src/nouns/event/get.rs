//! `event get`.

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use tidings_core::TopicPartition;

use super::view::EventView;
use crate::context::{Context, Query};
use crate::exit::Failure;
use crate::nouns::log::{self, Place, Range};
use crate::nouns::topic::checked;
use crate::output::{Table, View, or_dash};

/// The largest number of events in one answer.
const MAX: u64 = 10_000;

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Name of the topic
    topic: String,
    /// Number of the partition
    #[arg(long, value_name = "N", default_value_t = 0)]
    partition: u32,
    /// Offset of the first event
    #[arg(long, value_name = "OFFSET")]
    offset: u64,
    /// Number of events
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=MAX))]
    limit: u64,
}

/// Events.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct EventsView {
    /// The events, by offset.
    events: Vec<EventView>,
}

impl Query for Get {
    type View = EventsView;

    async fn run(&self, cx: &Context) -> Result<EventsView, Failure> {
        let names = checked(std::slice::from_ref(&self.topic))?;
        let (from, to) = (Some(Place::Offset(self.offset)), None);
        let spans = log::spans(cx, &names, &Range { partitions: vec![self.partition], from, to }, Place::Start).await?;
        let mut events = Vec::new();
        if spans.iter().any(|span| span.next == self.offset && span.next < span.end) {
            log::for_each(cx, spans, |partition: &TopicPartition, record| {
                let decoded = cx.services.decode(&partition.topic, &record);
                events.push(EventView::new(partition, &record, true).with_decoded(decoded));
                Ok((events.len() as u64) < self.limit)
            })
            .await?;
        }
        if events.is_empty() {
            let text =
                format!("topic {} has no event at offset {} of partition {}", self.topic, self.offset, self.partition);
            return Err(Failure::failed(text).with_hint(format!("see `tidings topic describe {}`", self.topic)));
        }
        Ok(EventsView { events })
    }
}

impl View for EventsView {
    const ITEMS: Option<&'static str> = Some("events");

    fn tables(&self) -> Vec<Table> {
        let row = |event: &EventView| {
            vec![
                or_dash(event.offset),
                or_dash(event.time.as_ref()),
                or_dash(event.event_type.as_ref()),
                or_dash(event.id.as_ref()),
                or_dash(event.key.as_ref().map(super::view::Text::shown)),
                or_dash(event.content()),
            ]
        };
        let columns = [">OFFSET", "TIME", "TYPE", "+ID", "KEY", "VALUE"];
        vec![Table::new(&columns).with_rows(self.events.iter().map(row))]
    }
}
