//! `cluster health`.

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::{Context, Query};
use crate::exit::{Exit, Failure};
use crate::output::{Table, View, or_dash};

/// Show problems; exit code 4 if there are any.
#[derive(Debug, Args)]
pub(crate) struct Health {}

/// The health of a cluster.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct HealthView {
    /// Whether there are no problems.
    healthy: bool,
    /// The controller's number, if there is one now.
    controller: Option<i32>,
    /// The brokers that answer.
    brokers: Vec<HealthyBroker>,
    /// The problems, one line each.
    problems: Vec<String>,
}

/// A broker that answers.
#[derive(Debug, Serialize, JsonSchema)]
struct HealthyBroker {
    /// The number.
    id: i32,
    /// The address.
    address: String,
}

impl Query for Health {
    type View = HealthView;

    async fn run(&self, cx: &Context) -> Result<HealthView, Failure> {
        let found = cx.admin().await?.health().await?;
        let brokers = found.brokers.iter().map(|(id, address)| HealthyBroker { id: *id, address: address.clone() });
        Ok(HealthView {
            healthy: found.is_healthy(),
            controller: found.controller,
            brokers: brokers.collect(),
            problems: found.problems,
        })
    }
}

impl View for HealthView {
    const ITEMS: Option<&'static str> = None;

    fn tables(&self) -> Vec<Table> {
        let brokers = self.brokers.iter().map(|broker| vec![broker.id.to_string(), broker.address.clone()]);
        let title = format!("{} brokers, controller {}", self.brokers.len(), or_dash(self.controller));
        let brokers = Table::new(&[">ID", "ADDRESS"]).with_title(title).with_rows(brokers);
        let problems = Table::new(&["PROBLEM"]).with_rows(self.problems.iter().map(|problem| vec![problem.clone()]));
        if self.healthy { vec![brokers] } else { vec![brokers, problems] }
    }

    fn notes(&self) -> Vec<String> {
        vec![if self.healthy { "Healthy.".to_owned() } else { format!("{} problems.", self.problems.len()) }]
    }

    fn exit(&self) -> Exit {
        if self.healthy { Exit::Ok } else { Exit::CheckFailed }
    }
}
