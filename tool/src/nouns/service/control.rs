//! `service pause`, `resume` and `drain`.

use std::time::Duration;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidings_core::{Error, ErrorKind, TopicPartition};

use super::{partition, show_partition};
use crate::change::{Change, ChangeOptions, Draft, Step, one_by_one};
use crate::context::Context;
use crate::exit::Failure;
use crate::input;

/// Default of `--deadline`.
const DEADLINE: &str = "20s";

/// A command to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ControlStep {
    /// `pause`, `resume` or `drain`.
    command: String,
    /// The service.
    service: String,
    /// The partitions, as `TOPIC/NUMBER`; all if there are none.
    partitions: Vec<String>,
    /// How long deliveries that have begun may take, in milliseconds.
    deadline_ms: Option<u64>,
}

impl Step for ControlStep {
    const COLUMNS: &'static [&'static str] = &["COMMAND", "SERVICE", "PARTITIONS"];

    fn cells(&self) -> Vec<String> {
        let partitions = if self.partitions.is_empty() { "all".to_owned() } else { self.partitions.join(",") };
        vec![self.command.clone(), self.service.clone(), partitions]
    }
}

/// Plans a command to a service that must exist.
async fn plan(cx: &Context, step: ControlStep) -> Result<Draft<ControlStep>, Failure> {
    let found = cx.remote_services().await?.describe(&step.service).await?;
    if !found.controlled {
        let text = format!("service {} cannot be controlled from elsewhere", step.service);
        return Err(Failure::failed(text).with_hint("its program must pass it to Ops::with_control"));
    }
    for name in &step.partitions {
        let at = partition(name).map_err(Failure::usage)?;
        if !found.partitions.iter().any(|p| p.topic == at.topic.as_str() && p.partition == at.partition) {
            let text = format!("service {} has no partition {name} here", step.service);
            return Err(Failure::failed(text).with_hint("see `tidings service describe`; another instance may have it"));
        }
    }
    Ok(Draft::new(vec![step]).with_note("It applies to the instance behind this endpoint alone."))
}

async fn apply(cx: &Context, steps: &[ControlStep]) -> Vec<tidings_core::Result<()>> {
    one_by_one(cx, steps, async |step: &ControlStep| {
        let services =
            cx.remote_services().await.map_err(|failure| Error::new(ErrorKind::Unavailable, failure.to_string()))?;
        let wrong = |text: String| Error::new(ErrorKind::Invalid, text);
        let partitions: Vec<TopicPartition> =
            step.partitions.iter().map(|name| partition(name)).collect::<Result<_, _>>().map_err(wrong)?;
        let only = (!partitions.is_empty()).then_some(&*partitions);
        match &*step.command {
            "pause" => services.pause(&step.service, only).await,
            "resume" => services.resume(&step.service, only).await,
            "drain" => {
                let deadline = Duration::from_millis(step.deadline_ms.unwrap_or_default());
                services.drain(&step.service, deadline).await.map(drop)
            }
            other => Err(wrong(format!("the plan has an unknown command: {other}"))),
        }
    })
    .await
}

macro_rules! control {
    ($($(#[$doc:meta])* $name:ident $command:literal;)*) => { $(
        $(#[$doc])*
        #[derive(Debug, Args)]
        pub(crate) struct $name {
            /// Name of the service
            #[arg(required_unless_present = "from_plan")]
            service: Option<String>,
            /// Partitions, such as orders/0; default: all
            #[arg(long = "partition", value_name = "TOPIC/N", value_delimiter = ',', value_parser = partition)]
            partitions: Vec<TopicPartition>,
            #[command(flatten)]
            options: ChangeOptions,
        }

        impl Change for $name {
            const VERB: &'static str = concat!("service.", $command);
            type Step = ControlStep;

            fn options(&self) -> &ChangeOptions {
                &self.options
            }

            fn subjects(&self) -> Vec<String> {
                self.service.iter().cloned().collect()
            }

            async fn plan(&self, cx: &Context) -> Result<Draft<ControlStep>, Failure> {
                let step = ControlStep {
                    command: $command.to_owned(),
                    service: self.service.clone().unwrap_or_default(),
                    partitions: self.partitions.iter().map(show_partition).collect(),
                    deadline_ms: None,
                };
                plan(cx, step).await
            }

            async fn stale(&self, _cx: &Context, _steps: &[ControlStep]) -> Result<Vec<String>, Failure> {
                Ok(Vec::new())
            }

            async fn apply(&self, cx: &Context, steps: &[ControlStep]) -> Vec<tidings_core::Result<()>> {
                apply(cx, steps).await
            }
        }
    )* };
}

control! {
    Pause "pause";
    Resume "resume";
}

#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// Name of the service
    #[arg(required_unless_present = "from_plan")]
    service: Option<String>,
    /// How long deliveries that have begun may take
    #[arg(long, value_name = "DURATION", default_value = DEADLINE, value_parser = input::duration)]
    deadline: Duration,
    #[command(flatten)]
    options: ChangeOptions,
}

impl Change for Drain {
    const VERB: &'static str = "service.drain";
    type Step = ControlStep;

    fn options(&self) -> &ChangeOptions {
        &self.options
    }

    fn subjects(&self) -> Vec<String> {
        self.service.iter().cloned().collect()
    }

    async fn plan(&self, cx: &Context) -> Result<Draft<ControlStep>, Failure> {
        let step = ControlStep {
            command: "drain".to_owned(),
            service: self.service.clone().unwrap_or_default(),
            partitions: Vec::new(),
            deadline_ms: u64::try_from(self.deadline.as_millis()).ok(),
        };
        Ok(plan(cx, step).await?.with_note("The service ends, and with it most often its program."))
    }

    async fn stale(&self, _cx: &Context, _steps: &[ControlStep]) -> Result<Vec<String>, Failure> {
        Ok(Vec::new())
    }

    async fn apply(&self, cx: &Context, steps: &[ControlStep]) -> Vec<tidings_core::Result<()>> {
        apply(cx, steps).await
    }
}
