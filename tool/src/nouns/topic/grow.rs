//! `topic grow`.

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidings_core::{CreatePartitionsOptions, Error, ErrorKind, Name};

use super::{checked, describe_all, describe_each};
use crate::change::{Change, ChangeOptions, Draft, Step, one_by_one};
use crate::context::Context;
use crate::exit::Failure;

#[derive(Debug, Args)]
pub(crate) struct Grow {
    /// Name of the topic
    #[arg(required_unless_present = "from_plan")]
    topic: Option<String>,
    /// Number of partitions in all
    #[arg(long, value_name = "N", required_unless_present = "from_plan")]
    partitions: Option<u32>,
    /// Allow keys to move to other partitions, which breaks their order
    #[arg(long)]
    allow_rekeying: bool,
    #[command(flatten)]
    options: ChangeOptions,
}

/// More partitions for a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct GrowStep {
    /// The topic.
    pub(super) topic: String,
    /// The number of partitions when the plan was made.
    pub(super) from: u32,
    /// The number of partitions in the end.
    pub(super) to: u32,
    /// Whether keys may move to other partitions.
    pub(super) allow_rekeying: bool,
}

impl Step for GrowStep {
    const COLUMNS: &'static [&'static str] = &["GROW", ">FROM", ">TO"];

    fn cells(&self) -> Vec<String> {
        vec![self.topic.clone(), self.from.to_string(), self.to.to_string()]
    }
}

impl Change for Grow {
    const VERB: &'static str = "topic.grow";
    type Step = GrowStep;

    fn options(&self) -> &ChangeOptions {
        &self.options
    }

    fn subjects(&self) -> Vec<String> {
        self.topic.iter().cloned().collect()
    }

    async fn plan(&self, cx: &Context) -> Result<Draft<GrowStep>, Failure> {
        let names = checked(self.topic.as_slice())?;
        let to = self.partitions.unwrap_or_default();
        let mut draft = Draft::new(Vec::new());
        for topic in describe_all(cx, &names).await? {
            let from = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
            if to < from {
                let text = format!("topic {} has {from} partitions: they cannot be reduced to {to}", topic.name);
                return Err(Failure::usage(text));
            }
            let is_filled = topic.partitions.iter().any(|p| p.end > 0);
            if is_filled && to > from && !self.allow_rekeying {
                let text = format!(
                    "topic {} has records: its keys would move to other partitions and lose their order",
                    topic.name
                );
                return Err(Failure::failed(text).with_hint("--allow-rekeying accepts that"));
            }
            if to > from {
                let topic = topic.name.as_str().to_owned();
                draft.steps.push(GrowStep { topic, from, to, allow_rekeying: self.allow_rekeying });
            }
        }
        Ok(draft)
    }

    async fn stale(&self, cx: &Context, steps: &[GrowStep]) -> Result<Vec<String>, Failure> {
        stale(cx, steps).await
    }

    async fn apply(&self, cx: &Context, steps: &[GrowStep]) -> Vec<tidings_core::Result<()>> {
        one_by_one(cx, steps, async |step| grow(cx, step).await).await
    }
}

/// Returns which topics no longer have the number of partitions that the plan begins with.
pub(super) async fn stale(cx: &Context, steps: &[GrowStep]) -> Result<Vec<String>, Failure> {
    let names: Vec<Name> = steps.iter().map(|step| step.topic.as_str().into()).collect();
    let found = describe_each(cx.admin().await?.as_ref(), &names).await?;
    let why = |(step, found): (&GrowStep, _)| match Option::map(found, |found: &tidings_core::TopicDescription| {
        found.partitions.len()
    }) {
        None => Some(format!("topic {} is gone", step.topic)),
        Some(now) if now == step.from as usize => None,
        Some(now) => Some(format!("topic {} has {now} partitions now, not {}", step.topic, step.from)),
    };
    Ok(steps.iter().zip(found.iter().map(Option::as_ref)).filter_map(why).collect())
}

/// Raises the number of partitions of one topic.
pub(super) async fn grow(cx: &Context, step: &GrowStep) -> tidings_core::Result<()> {
    let admin = cx.admin().await.map_err(|failure| Error::new(ErrorKind::Unavailable, failure.to_string()))?;
    let mut options = CreatePartitionsOptions::default();
    options.allow_rekeying = step.allow_rekeying;
    admin.create_partitions(&step.topic.as_str().into(), step.to, options).await
}
