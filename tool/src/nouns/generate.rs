//! `generate`: a dashboard and alerts for the metrics of services.

use clap::{Args, Subcommand};

use crate::connect::Generated;
use crate::context::Context;
use crate::exit::{Exit, Failure};

/// Print a file for monitoring to standard output.
#[derive(Debug, Args)]
pub(crate) struct Generate {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum What {
    /// A dashboard for Grafana, as JSON
    Dashboard,
    /// Alerts for Prometheus, as YAML
    Alerts,
}

impl Generate {
    pub(crate) fn run(&self, cx: &Context) -> Result<Exit, Failure> {
        let (what, name) = match self.what {
            What::Dashboard => (Generated::Dashboard, "dashboard"),
            What::Alerts => (Generated::Alerts, "alerts"),
        };
        let text = cx.generated(what).ok_or_else(|| {
            Failure::failed(format!("generate {name}: this program has none"))
                .with_hint("the feature ops of tidings has it")
        })?;
        cx.print(&text).map(|()| Exit::Ok)
    }
}
