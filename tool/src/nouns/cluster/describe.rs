//! `cluster describe`.

use std::collections::BTreeMap;

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::{Context, Query};
use crate::exit::Failure;
use crate::output::{Table, View, or_dash};

#[derive(Debug, Args)]
pub(crate) struct Describe {}

/// A cluster.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ClusterView {
    /// The id, if the cluster has one.
    id: Option<String>,
    /// The controller's number, if there is one now.
    controller: Option<i32>,
    /// The release whose features are enabled, if known.
    version: Option<String>,
    /// The levels of features, by the broker's names.
    features: BTreeMap<String, i16>,
    /// The brokers, by number.
    brokers: Vec<BrokerView>,
}

/// A broker.
#[derive(Debug, Serialize, JsonSchema)]
struct BrokerView {
    /// The number.
    id: i32,
    /// The host that clients connect to.
    host: String,
    /// The port that clients connect to.
    port: u16,
    /// The rack or zone.
    rack: Option<String>,
    /// Whether the cluster has fenced it.
    fenced: bool,
    /// The directories of its logs; null if they are not known.
    log_dirs: Option<Vec<LogDirView>>,
}

/// A directory of logs.
#[derive(Debug, Serialize, JsonSchema)]
struct LogDirView {
    /// The path on the broker's machine.
    path: String,
    /// The bytes of all logs in it.
    bytes: u64,
    /// The number of replicas in it.
    replicas: usize,
    /// The size of its volume in bytes.
    total_bytes: Option<u64>,
    /// The free bytes of its volume.
    usable_bytes: Option<u64>,
    /// Why it is offline.
    offline: Option<String>,
}

impl Query for Describe {
    type View = ClusterView;

    async fn run(&self, cx: &Context) -> Result<ClusterView, Failure> {
        let found = cx.transport().await?.cluster().await?.describe().await?;
        let dir = |dir: tidings_core::LogDir| LogDirView {
            path: dir.path,
            bytes: dir.bytes,
            replicas: dir.replicas,
            total_bytes: dir.total_bytes,
            usable_bytes: dir.usable_bytes,
            offline: dir.offline,
        };
        let broker = |broker: tidings_core::BrokerDescription| BrokerView {
            id: broker.id,
            host: broker.host,
            port: broker.port,
            rack: broker.rack,
            fenced: broker.fenced,
            log_dirs: broker.log_dirs.map(|dirs| dirs.into_iter().map(dir).collect()),
        };
        Ok(ClusterView {
            id: found.id,
            controller: found.controller,
            version: found.version,
            features: found.features,
            brokers: found.brokers.into_iter().map(broker).collect(),
        })
    }
}

impl View for ClusterView {
    const ITEMS: Option<&'static str> = Some("brokers");

    fn tables(&self) -> Vec<Table> {
        let row = |broker: &BrokerView| {
            let role = match (broker.fenced, self.controller == Some(broker.id)) {
                (true, _) => "fenced",
                (false, true) => "controller",
                (false, false) => "broker",
            };
            let dirs = broker.log_dirs.as_ref();
            vec![
                broker.id.to_string(),
                format!("{}:{}", broker.host, broker.port),
                or_dash(broker.rack.as_ref()),
                role.to_owned(),
                or_dash(dirs.map(|dirs| dirs.iter().map(|dir| dir.bytes).sum::<u64>())),
                or_dash(dirs.map(|dirs| dirs.iter().map(|dir| dir.replicas).sum::<usize>())),
                crate::output::list(dirs.into_iter().flatten().map(|dir| &dir.path)),
            ]
        };
        let title = format!("cluster {}, version {}", or_dash(self.id.as_ref()), or_dash(self.version.as_ref()));
        let columns = [">ID", "ADDRESS", "RACK", "ROLE", ">LOG BYTES", ">REPLICAS", "+LOG DIRECTORIES"];
        vec![Table::new(&columns).with_title(title).with_rows(self.brokers.iter().map(row))]
    }
}
