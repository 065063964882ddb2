//! `service instances`.

use std::time::Duration;

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use tidings_core::directory::{DIRECTORY_TOPIC, DirectoryEntry, DirectoryTopic, Drift, list};
use tidings_core::{ErrorKind, Timestamp};

use crate::context::{Context, Query};
use crate::exit::{Exit, Failure};
use crate::input::{show_time, since};
use crate::output::{Table, View, or_dash};

#[derive(Debug, Args)]
pub(crate) struct Instances {
    /// Names of services; default: all
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Topic of the directory
    #[arg(long = "directory", value_name = "TOPIC", default_value = DIRECTORY_TOPIC)]
    directory: String,
    /// End with exit code 4 if instances of a service differ
    #[arg(long)]
    check: bool,
}

/// The instances in a directory.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ListedInstances {
    /// The instances that are live.
    instances: Vec<ListedInstance>,
    /// The number of instances whose entries have expired.
    expired: usize,
    /// Services whose instances differ.
    drifts: Vec<ListedDrift>,
    #[serde(skip)]
    check: bool,
}

/// An instance.
#[derive(Debug, Serialize, JsonSchema)]
struct ListedInstance {
    /// The service.
    service: String,
    /// The instance's id.
    instance: String,
    /// The consumer group.
    group: String,
    /// The version of the program.
    version: String,
    /// `running`, `draining` and so on, when the entry was written.
    state: String,
    /// The URL of its ops endpoint, which other verbs of `service` take as `--url`.
    ops_url: Option<String>,
    /// The time of its start (RFC 3339).
    started: String,
    /// The time of its last entry (RFC 3339).
    refreshed: String,
    #[serde(skip)]
    up: String,
}

/// A difference between the instances of a service.
#[derive(Debug, Serialize, JsonSchema)]
struct ListedDrift {
    /// The service.
    service: String,
    /// The property that differs: `version`, `topology` and so on.
    kind: String,
    /// The number of instances with each value.
    values: Vec<(String, usize)>,
}

impl From<DirectoryEntry> for ListedInstance {
    fn from(entry: DirectoryEntry) -> Self {
        Self {
            service: entry.service.as_str().to_owned(),
            instance: entry.instance,
            group: entry.group.as_str().to_owned(),
            version: entry.version,
            state: entry.state,
            ops_url: entry.ops_url,
            started: show_time(entry.started),
            refreshed: show_time(entry.refreshed),
            up: humantime::format_duration(Duration::from_secs(since(entry.started).as_secs())).to_string(),
        }
    }
}

impl From<Drift> for ListedDrift {
    fn from(drift: Drift) -> Self {
        let values = drift.instances.into_iter().map(|(value, instances)| (value, instances.len())).collect();
        Self { service: drift.service.as_str().to_owned(), kind: drift.kind.as_str().to_owned(), values }
    }
}

impl Query for Instances {
    type View = ListedInstances;

    async fn run(&self, cx: &Context) -> Result<ListedInstances, Failure> {
        let transport = cx.transport().await?;
        let listing = async {
            let directory = DirectoryTopic::open(transport.as_ref(), self.directory.as_str()).await?;
            list(&directory, Timestamp::now()).await
        };
        let found = match listing.await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let text = format!("there is no directory {}", self.directory);
                return Err(Failure::failed(text).with_hint("services that start by `with_directory` create it"));
            }
            found => found?,
        };
        let wanted = |service: &str| self.services.is_empty() || self.services.iter().any(|name| name == service);
        let live = found.live.into_iter().filter(|entry| wanted(&entry.service));
        let drifts = found.drifts.into_iter().filter(|drift| wanted(&drift.service));
        Ok(ListedInstances {
            instances: live.map(ListedInstance::from).collect(),
            expired: found.expired.iter().filter(|entry| wanted(&entry.service)).count(),
            drifts: drifts.map(ListedDrift::from).collect(),
            check: self.check,
        })
    }
}

impl View for ListedInstances {
    const ITEMS: Option<&'static str> = Some("instances");

    fn tables(&self) -> Vec<Table> {
        let row = |found: &ListedInstance| {
            vec![
                found.service.clone(),
                found.instance.clone(),
                found.version.clone(),
                found.state.clone(),
                found.up.clone(),
                or_dash(found.ops_url.as_ref()),
                found.refreshed.clone(),
            ]
        };
        let columns = ["SERVICE", "INSTANCE", "VERSION", "STATE", ">UP", "OPS URL", "+REFRESHED"];
        vec![Table::new(&columns).with_rows(self.instances.iter().map(row))]
    }

    fn notes(&self) -> Vec<String> {
        let drift = |drift: &ListedDrift| {
            let values: Vec<String> = drift.values.iter().map(|(value, count)| format!("{value} ({count})")).collect();
            format!("Instances of {} differ in {}: {}.", drift.service, drift.kind, values.join(", "))
        };
        let expired = (self.expired > 0).then(|| format!("{} entries have expired.", self.expired));
        self.drifts.iter().map(drift).chain(expired).collect()
    }

    fn exit(&self) -> Exit {
        if self.check && !self.drifts.is_empty() { Exit::CheckFailed } else { Exit::Ok }
    }
}
