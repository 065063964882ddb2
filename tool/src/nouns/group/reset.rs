//! `group reset`.

use clap::Args;
use tidings_core::{
    EventRef, Name, ResetOffsetsOptions, ResetTo, SeekTo, StoredRecord, TopicPartition, codec, event_id_of,
};

use super::offsets::{OffsetStep, apply, committed, refuse_members, stale};
use crate::change::{Change, ChangeOptions, Draft};
use crate::context::{Context, Store};
use crate::exit::Failure;
use crate::nouns::log::{self, Place, Span};
use crate::nouns::topic::{checked, describe_all};

/// Move the committed offsets of a group without members. Which of the events that are handled anew are marked done is
/// counted where --store is given.
#[derive(Debug, Args)]
pub(crate) struct Reset {
    /// Name of the group
    #[arg(required_unless_present = "from_plan")]
    group: Option<String>,
    /// Only this topic, may be repeated; by default all that the group has committed to
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// Only these partitions; may be repeated
    #[arg(long = "partition", value_name = "N")]
    partitions: Vec<u32>,
    /// Where to: start, end, an offset, a time such as 2026-11-23T10:00:00Z, or 2h for two hours ago
    #[arg(long, value_name = "PLACE", value_parser = log::place, required_unless_present_any = ["from_plan", "shift"])]
    to: Option<Place>,
    /// Move by this number of offsets, back if negative
    #[arg(long, value_name = "N", allow_negative_numbers = true, conflicts_with = "to")]
    shift: Option<i64>,
    /// Scope of the done events; by default the group's name without -group, as services have it
    #[arg(long, value_name = "NAME")]
    scope: Option<String>,
    /// The service deduplicates by event and topic
    #[arg(long)]
    scope_per_topic: bool,
    /// Largest number of events to look up in the store; beyond it their number is unknown
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    max_done: u64,
    #[command(flatten)]
    options: ChangeOptions,
}

impl Reset {
    fn target(&self) -> Result<ResetTo, Failure> {
        match (self.shift, self.to) {
            (Some(by), _) => Ok(ResetTo::Shift(by)),
            (None, Some(Place::Start)) => Ok(ResetTo::Position(SeekTo::Earliest)),
            (None, Some(Place::End)) => Ok(ResetTo::Position(SeekTo::Latest)),
            (None, Some(Place::Offset(offset))) => Ok(ResetTo::Position(SeekTo::Offset(offset))),
            (None, Some(Place::Time(time))) => Ok(ResetTo::Position(SeekTo::Time(time))),
            _ => Err(Failure::usage("group reset: --to -N is not a place for all partitions").with_hint("use --shift")),
        }
    }

    fn scope(&self, group: &str) -> String {
        self.scope.clone().unwrap_or_else(|| group.strip_suffix("-group").unwrap_or(group).to_owned())
    }

    /// Returns the topics that are named, or those that the group has committed to.
    async fn topics(&self, cx: &Context, group: &str) -> Result<Vec<Name>, Failure> {
        if !self.topics.is_empty() {
            let names = checked(&self.topics)?;
            describe_all(cx, &names).await?;
            return Ok(names);
        }
        let mut topics: Vec<Name> = committed(cx, group).await?.into_keys().map(|at| at.topic).collect();
        topics.sort();
        topics.dedup();
        if topics.is_empty() {
            let text = format!("group {group} has committed nothing");
            return Err(Failure::failed(text).with_hint("name the topics by --topic, or see `tidings group list`"));
        }
        Ok(topics)
    }

    /// Counts, per step, the events that are marked done, and says so.
    async fn count_done(&self, cx: &Context, group: &str, draft: &mut Draft<OffsetStep>) -> Result<(), Failure> {
        let again: u64 = draft.steps.iter().filter(|step| step.goes_back()).map(|step| step.offsets).sum();
        if again == 0 {
            return Ok(());
        }
        let Some(store) = cx.store().await? else {
            draft.notes.push("Whether events are marked done is unknown: --store counts them.".to_owned());
            return Ok(());
        };
        if again > self.max_done {
            let note =
                format!("{again} events are too many to look up: --max-done raises the limit of {}.", self.max_done);
            draft.notes.push(note);
            return Ok(());
        }
        let scope = self.scope(group);
        let mut all = 0;
        for step in draft.steps.iter_mut().filter(|step| step.goes_back()) {
            let done = self.done(cx, &store, &scope, step).await?;
            step.done = Some(done);
            all += done;
        }
        if all > 0 {
            draft.notes.push(format!(
                "{all} events are marked done in scope `{scope}`: they will be settled as duplicates. Give the service a new \
                 scope to handle them again, such as `{scope}-{}`.",
                &tidings_core::Timestamp::now().millis().to_string()[..10]
            ));
        }
        Ok(())
    }

    async fn done(&self, cx: &Context, store: &Store, scope: &str, step: &OffsetStep) -> Result<u64, Failure> {
        let reader = log::reader(cx).await?;
        let mut span = Span { partition: step.at(), next: step.to, end: step.from.unwrap_or(step.to) };
        let mut done = 0;
        while span.next < span.end {
            let before = span.next;
            let records = log::chunk(cx, reader.as_ref(), &mut span, log::WAIT).await?;
            let events: Vec<_> = records.iter().map(|record| self.event(&step.at(), record)).collect();
            let found = store.done(&scope.into(), &events).await?;
            done += found.into_iter().filter(|is| *is).count() as u64;
            if span.next == before {
                break;
            }
        }
        Ok(done)
    }

    /// Returns the event as the store knows it.
    fn event(&self, at: &TopicPartition, record: &StoredRecord) -> EventRef {
        let mut context = tidings_core::DeliveryContext::new("", "");
        context.scope_per_topic = self.scope_per_topic;
        let id = context.id_in_store(&at.topic, event_id_of(at, record));
        let event_type = codec::peek(record).map(|head| head.event_type.into_owned()).unwrap_or_default();
        EventRef::new(id, event_type)
    }
}

impl Change for Reset {
    const VERB: &'static str = "group.reset";
    type Step = OffsetStep;

    fn options(&self) -> &ChangeOptions {
        &self.options
    }

    fn subjects(&self) -> Vec<String> {
        self.group.iter().cloned().collect()
    }

    async fn plan(&self, cx: &Context) -> Result<Draft<OffsetStep>, Failure> {
        let group = self.group.clone().unwrap_or_default();
        let target = self.target()?;
        refuse_members(cx, &group, "reset group").await?;
        let topics = self.topics(cx, &group).await?;
        let dry = ResetOffsetsOptions::default().with_dry_run();
        let moves = cx.admin().await?.reset_offsets(&group.as_str().into(), &topics, target, dry).await?;
        let wanted = |number: u32| self.partitions.is_empty() || self.partitions.contains(&number);
        let moves = moves.into_iter().filter(|reset| wanted(reset.partition.partition) && reset.from != Some(reset.to));
        let steps = moves.map(|reset| OffsetStep::new(&group, &reset.partition, reset.from, reset.to)).collect();
        let mut draft = Draft::new(steps);
        self.count_done(cx, &group, &mut draft).await?;
        Ok(draft)
    }

    async fn stale(&self, cx: &Context, steps: &[OffsetStep]) -> Result<Vec<String>, Failure> {
        stale(cx, steps, "reset group").await
    }

    async fn apply(&self, cx: &Context, steps: &[OffsetStep]) -> Vec<tidings_core::Result<()>> {
        apply(cx, steps).await
    }
}
