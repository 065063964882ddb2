//! `group clone`.

use clap::Args;
use tidings_core::TopicPartition;

use super::offsets::{OffsetStep, apply, committed, refuse_members, stale};
use crate::change::{Change, ChangeOptions, Draft};
use crate::context::Context;
use crate::exit::Failure;

/// Give a group the committed offsets of another one.
#[derive(Debug, Args)]
pub(crate) struct Clone {
    /// Name of the group whose offsets are copied
    #[arg(required_unless_present = "from_plan")]
    group: Option<String>,
    /// Name of the group that gets them; it must have no members
    #[arg(required_unless_present = "from_plan")]
    new_group: Option<String>,
    #[command(flatten)]
    options: ChangeOptions,
}

impl Change for Clone {
    const VERB: &'static str = "group.clone";
    type Step = OffsetStep;

    fn options(&self) -> &ChangeOptions {
        &self.options
    }

    fn subjects(&self) -> Vec<String> {
        self.group.iter().chain(&self.new_group).cloned().collect()
    }

    async fn plan(&self, cx: &Context) -> Result<Draft<OffsetStep>, Failure> {
        let (group, to) = (self.group.clone().unwrap_or_default(), self.new_group.clone().unwrap_or_default());
        if group == to {
            return Err(Failure::usage(format!("group clone: {group} and {to} are the same group")));
        }
        super::describe(cx, &group).await?;
        refuse_members(cx, &to, "clone to group").await?;
        let (source, now) = (committed(cx, &group).await?, committed(cx, &to).await?);
        let mut source: Vec<(TopicPartition, u64)> = source.into_iter().collect();
        source.sort();
        let changed = source.into_iter().filter(|(at, offset)| now.get(at) != Some(offset));
        Ok(Draft::new(changed.map(|(at, offset)| OffsetStep::new(&to, &at, now.get(&at).copied(), offset)).collect()))
    }

    async fn stale(&self, cx: &Context, steps: &[OffsetStep]) -> Result<Vec<String>, Failure> {
        stale(cx, steps, "clone to group").await
    }

    async fn apply(&self, cx: &Context, steps: &[OffsetStep]) -> Vec<tidings_core::Result<()>> {
        apply(cx, steps).await
    }
}
