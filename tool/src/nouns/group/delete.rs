//! `group delete`.

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidings_core::{Error, ErrorKind};

use super::{describe, refuse_live};
use crate::change::{Change, ChangeOptions, Draft, Step, one_by_one};
use crate::context::Context;
use crate::exit::Failure;

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Names of the groups
    #[arg(required_unless_present = "from_plan", value_name = "GROUP")]
    groups: Vec<String>,
    #[command(flatten)]
    options: ChangeOptions,
}

/// The deletion of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct DeleteStep {
    /// The group.
    group: String,
    /// Its committed offsets when the plan was made.
    offsets: Vec<CommittedOffset>,
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
struct CommittedOffset {
    /// The topic.
    topic: String,
    /// The partition's number.
    partition: u32,
    /// The committed next offset to read.
    offset: u64,
}

impl Step for DeleteStep {
    const COLUMNS: &'static [&'static str] = &["DELETE", ">COMMITTED OFFSETS"];

    fn cells(&self) -> Vec<String> {
        vec![self.group.clone(), self.offsets.len().to_string()]
    }
}

impl Change for Delete {
    const VERB: &'static str = "group.delete";
    type Step = DeleteStep;

    fn options(&self) -> &ChangeOptions {
        &self.options
    }

    fn subjects(&self) -> Vec<String> {
        self.groups.clone()
    }

    async fn plan(&self, cx: &Context) -> Result<Draft<DeleteStep>, Failure> {
        let mut steps = Vec::with_capacity(self.groups.len());
        for group in &self.groups {
            refuse_live(&describe(cx, group).await?, "delete group")?;
            steps.push(DeleteStep { group: group.clone(), offsets: committed(cx, group).await? });
        }
        Ok(Draft::new(steps)
            .with_note("A service that uses the group later starts where its settings say, as a new one."))
    }

    async fn stale(&self, cx: &Context, steps: &[DeleteStep]) -> Result<Vec<String>, Failure> {
        let mut why = Vec::new();
        for step in steps {
            match cx.admin().await?.describe_group(&step.group.as_str().into()).await {
                Err(error) if error.kind() == ErrorKind::NotFound => why.push(format!("group {} is gone", step.group)),
                Err(error) => return Err(error.into()),
                Ok(found) => {
                    refuse_live(&found, "delete group")?;
                    if committed(cx, &step.group).await? != step.offsets {
                        why.push(format!("group {} has other committed offsets now", step.group));
                    }
                }
            }
        }
        Ok(why)
    }

    async fn apply(&self, cx: &Context, steps: &[DeleteStep]) -> Vec<tidings_core::Result<()>> {
        one_by_one(cx, steps, async |step: &DeleteStep| {
            let admin = cx.admin().await.map_err(|failure| Error::new(ErrorKind::Unavailable, failure.to_string()))?;
            admin.delete_group(&step.group.as_str().into()).await
        })
        .await
    }
}

async fn committed(cx: &Context, group: &str) -> Result<Vec<CommittedOffset>, Failure> {
    let lag = cx.admin().await?.group_lag(&group.into()).await?;
    let offset = |lag: tidings_core::PartitionLag| {
        let (topic, partition) = (lag.partition.topic.as_str().to_owned(), lag.partition.partition);
        lag.committed.map(|offset| CommittedOffset { topic, partition, offset })
    };
    Ok(lag.into_iter().filter_map(offset).collect())
}
