//! `group describe`.

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::{describe, state};
use crate::context::{Context, Query};
use crate::exit::Failure;
use crate::output::{Table, View, list};

#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// Names of the groups
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<String>,
}

/// Groups, with their members.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DescribedGroups {
    /// The groups, as they were asked for.
    groups: Vec<DescribedGroup>,
}

/// A group.
#[derive(Debug, Serialize, JsonSchema)]
struct DescribedGroup {
    /// The name.
    name: String,
    /// The state: empty, rebalancing, stable or unknown.
    state: String,
    /// The members.
    members: Vec<Member>,
}

/// A member of a group.
#[derive(Debug, Serialize, JsonSchema)]
struct Member {
    /// The id, assigned by the broker.
    id: String,
    /// The client's name for itself.
    client: String,
    /// The partitions that it reads.
    partitions: Vec<Partition>,
}

/// A partition.
#[derive(Debug, Serialize, JsonSchema)]
struct Partition {
    /// The topic.
    topic: String,
    /// The number.
    partition: u32,
}

impl Query for Describe {
    type View = DescribedGroups;

    async fn run(&self, cx: &Context) -> Result<DescribedGroups, Failure> {
        let mut groups = Vec::with_capacity(self.groups.len());
        for group in &self.groups {
            let found = describe(cx, group).await?;
            let members = found.members.into_iter().map(|member| {
                let partition = |at: tidings_core::TopicPartition| Partition {
                    topic: at.topic.as_str().to_owned(),
                    partition: at.partition,
                };
                Member {
                    id: member.id,
                    client: member.client,
                    partitions: member.partitions.into_iter().map(partition).collect(),
                }
            });
            let name = found.name.as_str().to_owned();
            groups.push(DescribedGroup { name, state: state(found.state).into(), members: members.collect() });
        }
        Ok(DescribedGroups { groups })
    }
}

impl View for DescribedGroups {
    const ITEMS: Option<&'static str> = Some("groups");

    fn tables(&self) -> Vec<Table> {
        let table = |group: &DescribedGroup| {
            let row = |member: &Member| {
                let partitions = member.partitions.iter().map(|at| format!("{}[{}]", at.topic, at.partition));
                vec![member.client.clone(), member.id.clone(), list(partitions)]
            };
            let title = format!("{}: {}, {} members", group.name, group.state, group.members.len());
            Table::new(&["CLIENT", "MEMBER", "PARTITIONS"]).with_title(title).with_rows(group.members.iter().map(row))
        };
        self.groups.iter().map(table).collect()
    }
}
