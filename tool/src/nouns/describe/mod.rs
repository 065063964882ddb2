//! `describe`: which groups read which topics of a target, and what the services of the program declare.

mod declared;

use std::collections::BTreeMap;

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use tidings_core::{Name, dead_letter_topic, is_dead_letter_topic};

use self::declared::ServiceNode;
use super::group::state;
use crate::context::{Context, Query};
use crate::exit::Failure;
use crate::output::{Table, View, list};

/// Describe the target: its topics, who reads them, and how far behind; and the services that this program declares.
#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// Only topics of the target whose name begins with this prefix
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// Only the services that this program declares, without calling a broker
    #[arg(long)]
    declared: bool,
}

/// A target, and the services of the program.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct TargetView {
    /// The target, without secrets; absent if none is given.
    target: Option<String>,
    /// The broker's kind, such as kafka; absent without a target.
    system: Option<String>,
    /// The services that this program declares; none in the binary `tidings`.
    services: Vec<ServiceNode>,
    /// The topics, by name; those of dead letters belong to their topic.
    topics: Vec<TopicNode>,
    /// The groups, by name.
    groups: Vec<GroupNode>,
}

/// A topic.
#[derive(Debug, Serialize, JsonSchema)]
struct TopicNode {
    /// The name.
    name: String,
    /// Whether it has a dead-letter topic.
    dead_letters: bool,
    /// The groups that read it or have committed offsets to it.
    groups: Vec<String>,
}

/// A group.
#[derive(Debug, Serialize, JsonSchema)]
struct GroupNode {
    /// The name.
    name: String,
    /// The state: empty, rebalancing, stable or unknown.
    state: String,
    /// The number of members.
    members: usize,
    /// The topics that it reads or has committed offsets to.
    topics: Vec<String>,
    /// The offsets still to be read, over all partitions whose lag is known.
    lag: u64,
}

impl Query for Describe {
    type View = TargetView;

    async fn run(&self, cx: &Context) -> Result<TargetView, Failure> {
        if self.declared && cx.services.is_empty() {
            return Err(Failure::usage("describe --declared: this program declares no services")
                .with_hint("run the services' program with its subcommand `tool`"));
        }
        if self.declared || (!cx.services.is_empty() && !cx.has_target()?) {
            return Ok(TargetView { services: declared::services(cx, None), ..TargetView::default() });
        }
        self.target(cx).await
    }
}

impl Describe {
    async fn target(&self, cx: &Context) -> Result<TargetView, Failure> {
        let admin = cx.admin().await?.as_ref();
        let (topics, names) = (admin.list_topics().await?, admin.list_groups().await?);
        let (described, lags) = (admin.describe_groups(&names).await?, admin.group_lags(&names).await?);
        let mut groups = Vec::new();
        let mut readers: BTreeMap<Name, Vec<String>> = BTreeMap::new();
        // A group that was deleted meanwhile is left out.
        for (found, lag) in described.into_iter().zip(lags).filter_map(|(found, lag)| Some((found.ok()?, lag.ok()?))) {
            let mut reads: Vec<Name> = lag.iter().map(|lag| lag.partition.topic.clone()).collect();
            reads.retain(|topic| topic.starts_with(&self.prefix));
            reads.sort();
            reads.dedup();
            if reads.is_empty() && !self.prefix.is_empty() {
                continue;
            }
            reads
                .iter()
                .for_each(|topic| readers.entry(topic.clone()).or_default().push(found.name.as_str().to_owned()));
            groups.push(GroupNode {
                name: found.name.as_str().to_owned(),
                state: state(found.state).to_owned(),
                members: found.members.len(),
                topics: reads.iter().map(|topic| topic.as_str().to_owned()).collect(),
                lag: lag.iter().filter_map(tidings_core::PartitionLag::lag).sum(),
            });
        }
        let shown = topics.iter().filter(|name| !is_dead_letter_topic(name) && name.starts_with(&self.prefix));
        let shown = shown.filter(|name| !name.ends_with(tidings_core::DEAD_LETTER_STATE_SUFFIX));
        let node = |name: &Name| TopicNode {
            name: name.as_str().to_owned(),
            dead_letters: topics.contains(&dead_letter_topic(name)),
            groups: readers.get(name).cloned().unwrap_or_default(),
        };
        Ok(TargetView {
            target: Some(cx.target().await?.name().to_owned()),
            system: Some(cx.transport().await?.system().to_owned()),
            services: declared::services(cx, Some(&topics)),
            topics: shown.map(node).collect(),
            groups,
        })
    }
}

impl View for TargetView {
    const ITEMS: Option<&'static str> = None;

    fn tables(&self) -> Vec<Table> {
        let topic = |topic: &TopicNode| {
            let letters = if topic.dead_letters { "yes" } else { "no" };
            vec![topic.name.clone(), letters.to_owned(), list(&topic.groups)]
        };
        let group = |group: &GroupNode| {
            let (members, lag) = (group.members.to_string(), group.lag.to_string());
            vec![group.name.clone(), group.state.clone(), members, lag, list(&group.topics)]
        };
        let mut tables = declared::tables(&self.services);
        let (Some(target), Some(system)) = (&self.target, &self.system) else { return tables };
        let topics = Table::new(&["TOPIC", "DEAD LETTERS", "READ BY"]).with_rows(self.topics.iter().map(topic));
        let columns = ["GROUP", "STATE", ">MEMBERS", ">LAG", "READS"];
        tables.push(topics.with_title(format!("{target} ({system})")));
        tables.push(Table::new(&columns).with_rows(self.groups.iter().map(group)));
        tables
    }

    fn notes(&self) -> Vec<String> {
        self.services.iter().filter_map(ServiceNode::note).collect()
    }
}
