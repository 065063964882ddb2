//! `topic delete`.

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidings_core::{Error, ErrorKind, Name, TopicDescription};

use super::{checked, describe_all, describe_each, ends};
use crate::change::{Change, ChangeOptions, Draft, Step, one_by_one};
use crate::context::Context;
use crate::exit::Failure;

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Names of the topics
    #[arg(required_unless_present = "from_plan", value_name = "TOPIC")]
    topics: Vec<String>,
    #[command(flatten)]
    options: ChangeOptions,
}

/// The deletion of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct DeleteStep {
    /// The topic.
    topic: String,
    /// The number of offsets in its log when the plan was made.
    records: u64,
    /// The offset of the next record of each partition when the plan was made.
    ends: Vec<u64>,
}

impl Step for DeleteStep {
    const COLUMNS: &'static [&'static str] = &["DELETE", ">PARTITIONS", ">RECORDS"];

    fn cells(&self) -> Vec<String> {
        vec![self.topic.clone(), self.ends.len().to_string(), self.records.to_string()]
    }
}

impl Change for Delete {
    const VERB: &'static str = "topic.delete";
    type Step = DeleteStep;

    fn options(&self) -> &ChangeOptions {
        &self.options
    }

    fn subjects(&self) -> Vec<String> {
        self.topics.clone()
    }

    async fn plan(&self, cx: &Context) -> Result<Draft<DeleteStep>, Failure> {
        let found = describe_all(cx, &checked(&self.topics)?).await?;
        let step = |topic: &TopicDescription| DeleteStep {
            topic: topic.name.as_str().to_owned(),
            records: topic.partitions.iter().map(|p| p.end.saturating_sub(p.start)).sum(),
            ends: ends(topic),
        };
        let draft = Draft::new(found.iter().map(step).collect());
        Ok(draft.with_note("Records and the offsets that groups committed are deleted with a topic, for good."))
    }

    /// New records do not make the plan stale, or a busy topic could never be deleted by one. Another topic under the
    /// same name does: its log ends earlier, or it has other partitions.
    async fn stale(&self, cx: &Context, steps: &[DeleteStep]) -> Result<Vec<String>, Failure> {
        let names: Vec<Name> = steps.iter().map(|step| step.topic.as_str().into()).collect();
        let found = describe_each(cx.admin().await?.as_ref(), &names).await?;
        let why = |(step, found): (&DeleteStep, &Option<TopicDescription>)| {
            let now = match found {
                Some(found) => ends(found),
                None => return Some(format!("topic {} is gone", step.topic)),
            };
            let grown = now.len() == step.ends.len() && now.iter().zip(&step.ends).all(|(now, then)| now >= then);
            if !grown {
                return Some(format!("topic {} was recreated or has other partitions", step.topic));
            }
            // Of an empty topic it is not known whether it was recreated since; its first records are news in any case.
            let filled = step.records == 0 && now != step.ends;
            filled.then(|| format!("topic {} has records now", step.topic))
        };
        Ok(steps.iter().zip(&found).filter_map(why).collect())
    }

    async fn apply(&self, cx: &Context, steps: &[DeleteStep]) -> Vec<tidings_core::Result<()>> {
        one_by_one(cx, steps, async |step| delete(cx, step).await).await
    }
}

async fn delete(cx: &Context, step: &DeleteStep) -> tidings_core::Result<()> {
    let admin = cx.admin().await.map_err(|failure| Error::new(ErrorKind::Unavailable, failure.to_string()))?;
    let answer = admin.delete_topics(&[step.topic.as_str().into()]).await?.pop();
    answer
        .unwrap_or_else(|| Err(Error::new(ErrorKind::Indeterminate, format!("delete topic {}: no answer", step.topic))))
}
