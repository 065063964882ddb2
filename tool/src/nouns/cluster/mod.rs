//! `cluster`.

mod alter;
mod configs;
mod describe;
mod health;

use clap::Subcommand;

use crate::context::Context;
use crate::exit::{Exit, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Describe the cluster: brokers, racks, versions, log directories
    Describe(describe::Describe),
    /// Show problems: brokers, controller, offline and under-replicated partitions
    Health(health::Health),
    /// Show the configuration of a topic, a broker, a group or all brokers
    Configs(configs::Configs),
    /// Change the configuration of a topic, a broker, a group or all brokers
    Alter(alter::Alter),
}

impl Verb {
    pub(crate) async fn run(&self, cx: &Context) -> Result<Exit, Failure> {
        match self {
            Self::Describe(verb) => cx.show(verb).await,
            Self::Health(verb) => cx.show(verb).await,
            Self::Configs(verb) => cx.show(verb).await,
            Self::Alter(verb) => cx.change(verb).await,
        }
    }
}
