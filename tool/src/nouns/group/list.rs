//! `group list`.

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use tidings_core::ErrorKind;

use super::state;
use crate::context::{Context, Query};
use crate::exit::Failure;
use crate::output::{Format, Table, View, or_dash};

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only groups whose name begins so
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// Look at each group: state and number of members; the same as -o wide
    #[arg(long)]
    details: bool,
}

/// Groups.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct GroupsView {
    /// The groups, by name.
    groups: Vec<GroupRow>,
    #[serde(skip)]
    details: bool,
}

/// A group.
#[derive(Debug, Serialize, JsonSchema)]
struct GroupRow {
    /// The name.
    name: String,
    /// The state: empty, rebalancing, stable or unknown; with --details.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    /// The number of members; with --details.
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<usize>,
}

impl Query for List {
    type View = GroupsView;

    async fn run(&self, cx: &Context) -> Result<GroupsView, Failure> {
        let admin = cx.admin().await?.as_ref();
        let mut names = admin.list_groups().await?;
        names.retain(|name| name.starts_with(&self.prefix));
        let details = self.details || cx.globals.output == Format::Wide;
        let described = if details { admin.describe_groups(&names).await? } else { Vec::new() };
        let mut described = described.into_iter();
        let mut groups = Vec::with_capacity(names.len());
        for name in names {
            let row = GroupRow { name: name.as_str().to_owned(), state: None, members: None };
            groups.push(match described.next() {
                None => row,
                Some(Ok(found)) => {
                    GroupRow { state: Some(state(found.state).into()), members: Some(found.members.len()), ..row }
                }
                // It was deleted meanwhile.
                Some(Err(error)) if error.kind() == ErrorKind::NotFound => continue,
                Some(Err(error)) => return Err(error.into()),
            });
        }
        Ok(GroupsView { groups, details })
    }
}

impl View for GroupsView {
    const ITEMS: Option<&'static str> = Some("groups");

    fn tables(&self) -> Vec<Table> {
        let columns: &[_] = if self.details { &["NAME", "STATE", ">MEMBERS"] } else { &["NAME"] };
        let rows = self.groups.iter().map(|group| {
            let cells = [group.name.clone(), or_dash(group.state.as_ref()), or_dash(group.members)];
            cells.into_iter().take(columns.len()).collect()
        });
        vec![Table::new(columns).with_rows(rows)]
    }
}
