//! `service list`.

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use tidings_ops_api::wire::ServiceSummary;

use crate::context::{Context, Query};
use crate::exit::Failure;
use crate::output::{Table, View, list};

#[derive(Debug, Args)]
pub(crate) struct List {}

/// The services of an endpoint.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ListedServices {
    /// The services, by name.
    services: Vec<ListedService>,
}

/// A service.
#[derive(Debug, Serialize, JsonSchema)]
struct ListedService {
    /// The name.
    service: String,
    /// The consumer group.
    group: String,
    /// The transport.
    system: String,
    /// `running`, `degraded`, `draining` and so on.
    state: String,
    /// Whether its engine works.
    live: bool,
    /// Whether it takes its share of the work.
    ready: bool,
    /// Why it is not as it should be.
    reasons: Vec<String>,
    /// The number of its partitions.
    partitions: usize,
    /// The number of records that are not settled.
    lag: u64,
}

impl From<ServiceSummary> for ListedService {
    fn from(found: ServiceSummary) -> Self {
        let ServiceSummary { service, group, system, state, live, ready, reasons, partitions, lag, .. } = found;
        Self { service, group, system, state, live, ready, reasons, partitions, lag }
    }
}

impl Query for List {
    type View = ListedServices;

    async fn run(&self, cx: &Context) -> Result<ListedServices, Failure> {
        let found = cx.remote_services().await?.list().await?;
        Ok(ListedServices { services: found.into_iter().map(ListedService::from).collect() })
    }
}

impl View for ListedServices {
    const ITEMS: Option<&'static str> = Some("services");

    fn tables(&self) -> Vec<Table> {
        let row = |found: &ListedService| {
            vec![
                found.service.clone(),
                found.group.clone(),
                found.system.clone(),
                found.state.clone(),
                found.ready.to_string(),
                found.partitions.to_string(),
                found.lag.to_string(),
                list(&found.reasons),
            ]
        };
        let columns = ["SERVICE", "+GROUP", "+SYSTEM", "STATE", "READY", ">PARTITIONS", ">LAG", "REASONS"];
        vec![Table::new(&columns).with_rows(self.services.iter().map(row))]
    }
}
