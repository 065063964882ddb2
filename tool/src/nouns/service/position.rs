//! `service seek` and `service skip`.

use std::ops::Range;
use std::time::Duration;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidings_core::{Error, ErrorKind, SeekTo, Timestamp, TopicPartition};
use tidings_ops_api::wire::ServicePartition;

use super::partition;
use crate::change::{Change, ChangeOptions, Draft, Step, one_by_one};
use crate::context::Context;
use crate::exit::Failure;
use crate::input;
use crate::nouns::log::{self, Place};

/// Default of `--deadline`.
const DEADLINE: &str = "20s";

/// A move of a partition's position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct SeekStep {
    /// The service.
    service: String,
    /// The topic.
    topic: String,
    /// The partition's number.
    partition: u32,
    /// The committed offset when the plan was made.
    from: Option<u64>,
    /// `earliest`, `latest`, an offset, or a time in milliseconds since 1970 behind `@`.
    to: String,
    /// How long deliveries that have begun may take, in milliseconds.
    deadline_ms: u64,
}

impl Step for SeekStep {
    const COLUMNS: &'static [&'static str] = &["SERVICE", "PARTITION", ">FROM", ">TO"];

    fn cells(&self) -> Vec<String> {
        let from = crate::output::or_dash(self.from);
        vec![self.service.clone(), format!("{}/{}", self.topic, self.partition), from, self.to.clone()]
    }
}

#[derive(Debug, Args)]
pub(crate) struct Seek {
    /// Name of the service
    #[arg(required_unless_present = "from_plan")]
    service: Option<String>,
    /// Partition, such as orders/0
    #[arg(long, value_name = "TOPIC/N", required_unless_present = "from_plan", value_parser = partition)]
    partition: Option<TopicPartition>,
    /// Where to: start, end, an offset, a time such as 2026-11-23T10:00:00Z, or 2h for two hours ago
    #[arg(long, value_name = "PLACE", required_unless_present = "from_plan", value_parser = place)]
    to: Option<String>,
    /// How long deliveries that have begun may take
    #[arg(long, value_name = "DURATION", default_value = DEADLINE, value_parser = input::duration)]
    deadline: Duration,
    #[command(flatten)]
    options: ChangeOptions,
}

/// Parses a position to the form of a plan, in which a time is absolute.
fn place(text: &str) -> Result<String, String> {
    let expected = "expected start, end, an offset, a time such as 2026-11-23T10:00:00Z, or 2h for two hours ago";
    match log::place(text) {
        Ok(Place::Start) => Ok("earliest".to_owned()),
        Ok(Place::End) => Ok("latest".to_owned()),
        Ok(Place::Offset(offset)) => Ok(offset.to_string()),
        Ok(Place::Time(time)) => Ok(format!("@{}", time.millis())),
        Ok(Place::Last(_)) | Err(_) => Err(expected.to_owned()),
    }
}

/// Reads a position from a plan.
fn seek_to(text: &str) -> tidings_core::Result<SeekTo> {
    let wrong = || Error::new(ErrorKind::Invalid, format!("the plan has an unknown position: {text}"));
    match (text, text.strip_prefix('@')) {
        ("earliest", _) => Ok(SeekTo::Earliest),
        ("latest", _) => Ok(SeekTo::Latest),
        (_, Some(time)) => time.parse().map(|time| SeekTo::Time(Timestamp::from_millis(time))).map_err(|_| wrong()),
        (offset, None) => offset.parse().map(SeekTo::Offset).map_err(|_| wrong()),
    }
}

/// Returns a partition of a service, which this instance must have.
async fn found(cx: &Context, service: &str, at: &TopicPartition) -> Result<ServicePartition, Failure> {
    let state = cx.remote_services().await?.describe(service).await?;
    let is_it = |p: &ServicePartition| p.topic == at.topic.as_str() && p.partition == at.partition;
    state.partitions.into_iter().find(is_it).ok_or_else(|| {
        Failure::failed(format!("service {service} does not read {at} here"))
            .with_hint("use the ops endpoint of the instance that does: `tidings group describe`")
    })
}

impl Change for Seek {
    const VERB: &'static str = "service.seek";
    type Step = SeekStep;

    fn options(&self) -> &ChangeOptions {
        &self.options
    }

    fn subjects(&self) -> Vec<String> {
        self.service.iter().cloned().collect()
    }

    async fn plan(&self, cx: &Context) -> Result<Draft<SeekStep>, Failure> {
        let (Some(service), Some(at), Some(to)) = (&self.service, &self.partition, &self.to) else {
            return Err(Failure::usage("a service, --partition and --to are needed"));
        };
        let now = found(cx, service, at).await?;
        let step = SeekStep {
            service: service.clone(),
            topic: at.topic.as_str().to_owned(),
            partition: at.partition,
            from: now.committed,
            to: to.clone(),
            deadline_ms: u64::try_from(self.deadline.as_millis()).unwrap_or(u64::MAX),
        };
        Ok(Draft::new(vec![step])
            .with_note("Events that are marked done in its idempotency store are settled as duplicates.")
            .with_note("Backwards, records are handled again; forwards, records are not handled at all."))
    }

    /// The commit of a running service moves on: only a partition that another instance reads now makes a plan stale.
    async fn stale(&self, cx: &Context, steps: &[SeekStep]) -> Result<Vec<String>, Failure> {
        for step in steps {
            found(cx, &step.service, &TopicPartition::new(step.topic.as_str(), step.partition)).await?;
        }
        Ok(Vec::new())
    }

    async fn apply(&self, cx: &Context, steps: &[SeekStep]) -> Vec<tidings_core::Result<()>> {
        one_by_one(cx, steps, async |step: &SeekStep| {
            let services = cx
                .remote_services()
                .await
                .map_err(|failure| Error::new(ErrorKind::Unavailable, failure.to_string()))?;
            let at = TopicPartition::new(step.topic.as_str(), step.partition);
            let deadline = Duration::from_millis(step.deadline_ms);
            let moved = services.seek(&step.service, &at, seek_to(&step.to)?, deadline).await?;
            cx.console.note(&format!("{at} moved from {} to {}.", moved.from, moved.to));
            Ok(())
        })
        .await
    }
}

/// A skip of the records that hold a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct SkipStep {
    /// The service.
    service: String,
    /// The topic.
    topic: String,
    /// The partition's number.
    partition: u32,
    /// The first offset that is skipped.
    from: u64,
    /// The offset behind the last one.
    to: u64,
    /// The reason why the partition is held.
    reason: String,
}

impl Step for SkipStep {
    const COLUMNS: &'static [&'static str] = &["SERVICE", "PARTITION", ">FROM", ">TO", "HELD BY"];

    fn cells(&self) -> Vec<String> {
        let place = format!("{}/{}", self.topic, self.partition);
        vec![self.service.clone(), place, self.from.to_string(), self.to.to_string(), self.reason.clone()]
    }
}

#[derive(Debug, Args)]
pub(crate) struct Skip {
    /// Name of the service
    #[arg(required_unless_present = "from_plan")]
    service: Option<String>,
    /// Partition, such as orders/0
    #[arg(long, value_name = "TOPIC/N", required_unless_present = "from_plan", value_parser = partition)]
    partition: Option<TopicPartition>,
    /// Offset to go on at, where the end of what holds the partition is not known
    #[arg(long, value_name = "OFFSET")]
    to: Option<u64>,
    #[command(flatten)]
    options: ChangeOptions,
}

impl Change for Skip {
    const VERB: &'static str = "service.skip";
    type Step = SkipStep;

    fn options(&self) -> &ChangeOptions {
        &self.options
    }

    fn subjects(&self) -> Vec<String> {
        self.service.iter().cloned().collect()
    }

    async fn plan(&self, cx: &Context) -> Result<Draft<SkipStep>, Failure> {
        let (Some(service), Some(at)) = (&self.service, &self.partition) else {
            return Err(Failure::usage("a service and --partition are needed"));
        };
        let state = cx.remote_services().await?.describe(service).await?;
        let held = state.held.into_iter().find(|h| h.at.topic == at.topic.as_str() && h.at.partition == at.partition);
        let Some(held) = held else {
            return Err(Failure::failed(format!("nothing holds {at} of service {service}")));
        };
        let Some(to) = self.to.or(held.next_offset) else {
            return Err(
                Failure::usage(format!("the end of what holds {at} is not known")).with_hint("give --to OFFSET")
            );
        };
        let (service, topic, partition) = (service.clone(), held.at.topic, held.at.partition);
        let step = SkipStep { service, topic, partition, from: held.offset, to, reason: held.reason };
        Ok(Draft::new(vec![step]).with_note("Skipped records are not handled, and are no dead letters."))
    }

    /// The service refuses a range that is not exactly what holds the partition.
    async fn stale(&self, _cx: &Context, _steps: &[SkipStep]) -> Result<Vec<String>, Failure> {
        Ok(Vec::new())
    }

    async fn apply(&self, cx: &Context, steps: &[SkipStep]) -> Vec<tidings_core::Result<()>> {
        one_by_one(cx, steps, async |step: &SkipStep| {
            let services = cx
                .remote_services()
                .await
                .map_err(|failure| Error::new(ErrorKind::Unavailable, failure.to_string()))?;
            let at = TopicPartition::new(step.topic.as_str(), step.partition);
            let offsets = Range { start: step.from, end: step.to };
            services.skip(&step.service, &at, offsets).await.map(drop)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_pinned_in_the_plan() {
        let pinned = |text: &str| place(text).map(|text| seek_to(&text).unwrap());
        assert_eq!(["start", "earliest"].map(pinned), [Ok(SeekTo::Earliest), Ok(SeekTo::Earliest)]);
        assert_eq!(["end", "latest"].map(pinned), [Ok(SeekTo::Latest), Ok(SeekTo::Latest)]);
        assert_eq!(pinned("17"), Ok(SeekTo::Offset(17)));
        let time = Timestamp::from_millis(1_795_428_000_000);
        assert_eq!(pinned("2026-11-23T10:00:00Z"), Ok(SeekTo::Time(time)));
        assert!(place("-3").is_err() && place("soon").unwrap_err().contains("start, end, an offset"));
        assert!(seek_to("@x").is_err() && seek_to("-1").is_err());
    }
}
