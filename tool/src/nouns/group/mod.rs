//! `group`.

mod clone;
mod delete;
mod describe;
mod lag;
mod list;
mod offsets;
mod reset;

use clap::Subcommand;
use tidings_core::{ErrorKind, GroupDescription, GroupState};

use crate::context::Context;
use crate::exit::{Exit, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List groups
    List(list::List),
    /// Describe groups: state, members and their partitions
    Describe(describe::Describe),
    /// Show how far a group is behind, per partition
    Lag(lag::Lag),
    /// Move committed offsets
    Reset(Box<reset::Reset>),
    /// Give a group the committed offsets of another one
    Clone(clone::Clone),
    /// Delete groups without members, with their committed offsets
    Delete(delete::Delete),
}

impl Verb {
    pub(crate) async fn run(&self, cx: &Context) -> Result<Exit, Failure> {
        match self {
            Self::List(verb) => cx.show(verb).await,
            Self::Describe(verb) => cx.show(verb).await,
            Self::Lag(verb) => cx.show(verb).await,
            Self::Reset(verb) => cx.change(verb.as_ref()).await,
            Self::Clone(verb) => cx.change(verb).await,
            Self::Delete(verb) => cx.change(verb).await,
        }
    }
}

/// Describes a group that must exist.
async fn describe(cx: &Context, group: &str) -> Result<GroupDescription, Failure> {
    match cx.admin().await?.describe_group(&group.into()).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(cx.unknown("group", group).await),
        answer => Ok(answer?),
    }
}

/// Refuses a group that has members, and names them.
fn refuse_live(described: &GroupDescription, what: &str) -> Result<(), Failure> {
    if described.members.is_empty() && matches!(described.state, GroupState::Empty | GroupState::Unknown) {
        return Ok(());
    }
    /// The number of members that are named.
    const NAMED: usize = 5;
    let named = described.members.iter().take(NAMED).map(|member| format!("{} ({})", member.client, member.id));
    let named: Vec<String> = named.collect();
    let (count, more) = (described.members.len(), if described.members.len() > NAMED { ", ..." } else { "" });
    let text = format!("{what} {}: it has {count} members: {}{more}", described.name, named.join(", "));
    Err(Failure::failed(text).with_hint("stop them first"))
}

/// The name of a state.
pub(super) fn state(state: GroupState) -> &'static str {
    match state {
        GroupState::Empty => "empty",
        GroupState::Rebalancing => "rebalancing",
        GroupState::Stable => "stable",
        _ => "unknown",
    }
}
