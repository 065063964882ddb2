//! `cluster alter`.

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidings_core::{ConfigEntry, ConfigResource, Error, ErrorKind};

use crate::change::{Change, ChangeOptions, Draft, Step, same_for_all};
use crate::context::Context;
use crate::exit::Failure;
use crate::input;
use crate::nouns::topic::wanted;
use crate::output::or_dash;

#[derive(Debug, Args)]
pub(crate) struct Alter {
    /// topic:NAME, broker:NUMBER, group:NAME, or cluster for the defaults of all brokers
    #[arg(required_unless_present = "from_plan")]
    resource: Option<ConfigResource>,
    /// An entry; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = input::pair)]
    set: Vec<(String, String)>,
    /// An entry that returns to its default; may be repeated
    #[arg(long = "unset", value_name = "NAME")]
    unset: Vec<String>,
    #[command(flatten)]
    options: ChangeOptions,
}

/// An entry of a configuration with its old and its new value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ConfigStep {
    /// The resource.
    resource: String,
    /// The entry.
    name: String,
    /// The value when the plan was made; null if it is not set.
    from: Option<String>,
    /// The new value; null for the default.
    to: Option<String>,
}

impl Step for ConfigStep {
    const COLUMNS: &'static [&'static str] = &["ALTER", "NAME", "FROM", "TO"];

    fn cells(&self) -> Vec<String> {
        let to = self.to.clone().unwrap_or_else(|| "(default)".to_owned());
        vec![self.resource.clone(), self.name.clone(), or_dash(self.from.as_ref()), to]
    }
}

impl Change for Alter {
    const VERB: &'static str = "cluster.alter";
    type Step = ConfigStep;

    fn options(&self) -> &ChangeOptions {
        &self.options
    }

    fn subjects(&self) -> Vec<String> {
        self.resource.iter().map(ToString::to_string).collect()
    }

    async fn plan(&self, cx: &Context) -> Result<Draft<ConfigStep>, Failure> {
        let wanted = wanted("cluster alter", &self.set, &self.unset)?;
        let mut steps = Vec::new();
        if let Some(resource) = &self.resource {
            let now = entries(cx, resource).await?;
            for (name, to) in &wanted {
                let found = now.iter().find(|entry| entry.name == *name);
                // A plan is a file: it must not hold a secret.
                if found.is_some_and(|entry| entry.sensitive) {
                    let text = format!("{name} of {resource} is a secret, which neither arguments nor plans may hold");
                    return Err(Failure::usage(text).with_hint("set it by the broker's own tools"));
                }
                if let Some(entry) = found.filter(|entry| entry.read_only) {
                    return Err(Failure::failed(format!("{} of {resource} cannot be changed at run time", entry.name)));
                }
                let from = found.and_then(|entry| entry.value.clone());
                if to.is_none() || from != *to {
                    steps.push(ConfigStep { resource: resource.to_string(), name: name.clone(), from, to: to.clone() });
                }
            }
        }
        Ok(Draft::new(steps))
    }

    async fn stale(&self, cx: &Context, steps: &[ConfigStep]) -> Result<Vec<String>, Failure> {
        let Some(first) = steps.first() else { return Ok(Vec::new()) };
        let now = entries(cx, &parsed(&first.resource)?).await?;
        let mut why = Vec::new();
        for step in steps {
            let value = now.iter().find(|entry| entry.name == step.name).and_then(|entry| entry.value.clone());
            if value != step.from {
                let (now, then) = (or_dash(value), or_dash(step.from.as_ref()));
                why.push(format!("{} of {} is {now} now, not {then}", step.name, step.resource));
            }
        }
        Ok(why)
    }

    async fn apply(&self, cx: &Context, steps: &[ConfigStep]) -> Vec<tidings_core::Result<()>> {
        same_for_all(steps.len(), alter(cx, steps).await)
    }
}

fn parsed(resource: &str) -> Result<ConfigResource, Failure> {
    resource.parse().map_err(|error: Error| Failure::usage(error.report()))
}

async fn entries(cx: &Context, resource: &ConfigResource) -> Result<Vec<ConfigEntry>, Failure> {
    Ok(cx.transport().await?.cluster().await?.configs(resource).await?)
}

async fn alter(cx: &Context, steps: &[ConfigStep]) -> tidings_core::Result<()> {
    let Some(first) = steps.first() else { return Ok(()) };
    let resource: ConfigResource = first.resource.parse()?;
    let transport = cx.transport().await.map_err(|failure| Error::new(ErrorKind::Unavailable, failure.to_string()))?;
    let changes: Vec<_> = steps.iter().map(|step| (step.name.clone(), step.to.clone())).collect();
    transport.cluster().await?.alter_configs(&resource, &changes).await
}
