//! `cluster configs`.

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use tidings_core::{ConfigEntry, ConfigResource};

use crate::context::{Context, Query};
use crate::exit::Failure;
use crate::output::{Table, View};

#[derive(Debug, Args)]
pub(crate) struct Configs {
    /// topic:NAME, broker:NUMBER, group:NAME, or cluster for the defaults of all brokers
    resource: ConfigResource,
    /// Also those with the broker's default
    #[arg(long)]
    all: bool,
}

/// The configuration of a resource.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConfigsView {
    /// The resource.
    resource: String,
    /// The entries, by name.
    entries: Vec<EntryView>,
}

/// An entry of a configuration.
#[derive(Debug, Serialize, JsonSchema)]
struct EntryView {
    /// The name.
    name: String,
    /// The value; null if it is sensitive or not set.
    value: Option<String>,
    /// Where the value is set.
    source: String,
    /// Whether it cannot be changed at run time.
    read_only: bool,
    /// Whether the value is a secret, which is not shown.
    sensitive: bool,
}

impl Query for Configs {
    type View = ConfigsView;

    async fn run(&self, cx: &Context) -> Result<ConfigsView, Failure> {
        let found = cx.transport().await?.cluster().await?.configs(&self.resource).await?;
        let view = |entry: ConfigEntry| EntryView {
            source: entry.source.to_string(),
            value: entry.value.filter(|_| !entry.sensitive),
            name: entry.name,
            read_only: entry.read_only,
            sensitive: entry.sensitive,
        };
        let entries = found.into_iter().filter(|entry| self.all || !entry.is_default()).map(view).collect();
        Ok(ConfigsView { resource: self.resource.to_string(), entries })
    }
}

impl View for ConfigsView {
    const ITEMS: Option<&'static str> = Some("entries");

    fn tables(&self) -> Vec<Table> {
        let row = |entry: &EntryView| {
            let value = match &entry.value {
                Some(value) => value.clone(),
                None if entry.sensitive => "(hidden)".to_owned(),
                None => "-".to_owned(),
            };
            let read_only = if entry.read_only { "yes" } else { "no" };
            vec![entry.name.clone(), value, entry.source.clone(), read_only.to_owned()]
        };
        let columns = ["NAME", "VALUE", "SOURCE", "+READ ONLY"];
        vec![Table::new(&columns).with_title(&self.resource).with_rows(self.entries.iter().map(row))]
    }
}
