//! `topic alter`.

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidings_core::{Error, ErrorKind, Name};

use super::{checked, describe_all};
use crate::change::{Change, ChangeOptions, Draft, Step, same_for_all};
use crate::context::Context;
use crate::exit::Failure;
use crate::input;
use crate::output::or_dash;

/// Change settings of a topic; those that are not named keep their values.
#[derive(Debug, Args)]
pub(crate) struct Alter {
    /// Name of the topic
    #[arg(required_unless_present = "from_plan")]
    topic: Option<String>,
    /// A setting by the broker's name; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = input::pair)]
    set: Vec<(String, String)>,
    /// A setting that returns to the broker's default; may be repeated
    #[arg(long = "unset", value_name = "NAME")]
    unset: Vec<String>,
    #[command(flatten)]
    options: ChangeOptions,
}

/// A setting of a topic with its old and its new value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct AlterStep {
    /// The topic.
    pub(super) topic: String,
    /// The setting, by the broker's name.
    pub(super) setting: String,
    /// The value when the plan was made; null if the broker does not report it.
    pub(super) from: Option<String>,
    /// The new value; null for the broker's default.
    pub(super) to: Option<String>,
}

impl Step for AlterStep {
    const COLUMNS: &'static [&'static str] = &["ALTER", "SETTING", "FROM", "TO"];

    fn cells(&self) -> Vec<String> {
        let to = self.to.clone().unwrap_or_else(|| "(default)".to_owned());
        vec![self.topic.clone(), self.setting.clone(), or_dash(self.from.as_ref()), to]
    }
}

impl Change for Alter {
    const VERB: &'static str = "topic.alter";
    type Step = AlterStep;

    fn options(&self) -> &ChangeOptions {
        &self.options
    }

    fn subjects(&self) -> Vec<String> {
        self.topic.iter().cloned().collect()
    }

    async fn plan(&self, cx: &Context) -> Result<Draft<AlterStep>, Failure> {
        let wanted = wanted("topic alter", &self.set, &self.unset)?;
        let mut steps = Vec::new();
        for topic in describe_all(cx, &checked(self.topic.as_slice())?).await? {
            let of = |(setting, to): &(String, Option<String>)| AlterStep {
                topic: topic.name.as_str().to_owned(),
                from: topic.settings.get(setting).cloned(),
                setting: setting.clone(),
                to: to.clone(),
            };
            steps.extend(wanted.iter().map(of).filter(|step| step.to.is_none() || step.from != step.to));
        }
        Ok(Draft::new(steps))
    }

    async fn stale(&self, cx: &Context, steps: &[AlterStep]) -> Result<Vec<String>, Failure> {
        stale(cx, steps).await
    }

    async fn apply(&self, cx: &Context, steps: &[AlterStep]) -> Vec<tidings_core::Result<()>> {
        let topic = steps.first().map_or("", |step| &step.topic);
        same_for_all(steps.len(), alter(cx, topic, steps).await)
    }
}

/// Combines the settings to set and to unset; none, or one named twice, is an error.
pub(in crate::nouns) fn wanted(
    verb: &str,
    set: &[(String, String)],
    unset: &[String],
) -> Result<Vec<(String, Option<String>)>, Failure> {
    let set = set.iter().map(|(name, value)| (name.clone(), Some(value.clone())));
    let all: Vec<_> = set.chain(unset.iter().map(|name| (name.clone(), None))).collect();
    let twice = all.iter().enumerate().find(|(place, (name, _))| all[..*place].iter().any(|(other, _)| other == name));
    match twice {
        Some((_, (name, _))) => Err(Failure::usage(format!("{verb}: {name} is named twice"))),
        None if all.is_empty() => {
            Err(Failure::usage(format!("{verb}: nothing to change")).with_hint("use --set or --unset"))
        }
        None => Ok(all),
    }
}

/// Returns which settings have another value than the plan begins with.
pub(super) async fn stale(cx: &Context, steps: &[AlterStep]) -> Result<Vec<String>, Failure> {
    let mut names: Vec<Name> = steps.iter().map(|step| step.topic.as_str().into()).collect();
    names.dedup();
    let found = super::describe_each(cx.admin().await?.as_ref(), &names).await?;
    let mut why = Vec::new();
    for step in steps {
        match found.iter().flatten().find(|topic| topic.name == step.topic.as_str()) {
            None => why.push(format!("topic {} is gone", step.topic)),
            Some(topic) if topic.settings.get(&step.setting) != step.from.as_ref() => {
                let now = or_dash(topic.settings.get(&step.setting));
                why.push(format!(
                    "{} of topic {} is {now} now, not {}",
                    step.setting,
                    step.topic,
                    or_dash(step.from.as_ref())
                ));
            }
            Some(_) => {}
        }
    }
    Ok(why)
}

/// Changes the settings of one topic, all or none.
pub(super) async fn alter(cx: &Context, topic: &str, steps: &[AlterStep]) -> tidings_core::Result<()> {
    let admin = cx.admin().await.map_err(|failure| Error::new(ErrorKind::Unavailable, failure.to_string()))?;
    let changes: Vec<_> = steps.iter().map(|step| (step.setting.clone(), step.to.clone())).collect();
    admin.alter_topic(&topic.into(), &changes).await
}
