//! `topic apply`: topics as a file describes them.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidings_core::{Name, TopicDescription};

use super::alter::AlterStep;
use super::create::{companions, create};
use super::grow::{GrowStep, grow};
use super::spec::TopicSpec;
use super::{checked, describe_each};
use crate::change::{Change, ChangeOptions, Draft, Step, one_by_one};
use crate::context::Context;
use crate::contexts::parse;
use crate::exit::Failure;

/// The largest file that is read.
const MAX_BYTES: u64 = 16 << 20;

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// The file
    #[arg(required_unless_present = "from_plan")]
    file: Option<PathBuf>,
    /// Allow keys to move to other partitions where a topic with records grows, which breaks their order
    #[arg(long)]
    allow_rekeying: bool,
    /// Include dead-letter topics and those of their letters' states
    #[arg(long)]
    with_dead_letters: bool,
    #[command(flatten)]
    options: ChangeOptions,
}

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    topic: Vec<TopicSpec>,
}

/// One change towards the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ApplyStep {
    /// Creates a topic.
    Create(TopicSpec),
    /// Raises a topic's number of partitions.
    Grow(GrowStep),
    /// Changes a setting of a topic.
    Alter(AlterStep),
}

impl Step for ApplyStep {
    const COLUMNS: &'static [&'static str] = &["CHANGE", "TOPIC", "DETAILS"];

    fn cells(&self) -> Vec<String> {
        match self {
            Self::Create(spec) => {
                let settings = spec.by_name().map(|settings| super::shown(&settings)).unwrap_or_default();
                vec!["create".into(), spec.name.clone(), format!("{} partitions, settings {settings}", spec.partitions)]
            }
            Self::Grow(step) => {
                vec!["grow".into(), step.topic.clone(), format!("{} to {} partitions", step.from, step.to)]
            }
            Self::Alter(step) => {
                let [from, to] = [&step.from, &step.to].map(|value| crate::output::or_dash(value.as_ref()));
                vec!["alter".into(), step.topic.clone(), format!("{} from {from} to {to}", step.setting)]
            }
        }
    }
}

impl Apply {
    /// Reads the file: its topics, with those of their letters if asked for.
    fn wanted(&self, path: &Path) -> Result<Vec<TopicSpec>, Failure> {
        let fail = |why: String| Failure::usage(format!("file {}: {why}", path.display()));
        let size = fs::metadata(path).map_err(|e| fail(e.to_string()))?.len();
        if size > MAX_BYTES {
            return Err(fail("larger than 16 MiB".into()));
        }
        let text = fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        let file: File = parse(&text).map_err(&fail)?;
        let mut all = Vec::new();
        for spec in file.topic {
            spec.topic().map_err(&fail)?;
            let letters = self.with_dead_letters.then(|| companions(&spec));
            all.push(spec);
            all.extend(letters.into_iter().flatten());
        }
        let names: Vec<String> = all.iter().map(|spec| spec.name.clone()).collect();
        checked(&names)?;
        let twice = names.iter().enumerate().find(|(place, name)| names[..*place].contains(name));
        twice.map_or(Ok(all), |(_, name)| Err(fail(format!("topic {name} is there twice"))))
    }

    /// Plans the steps of one topic, and says what stays different.
    fn compare(
        &self,
        wanted: &TopicSpec,
        found: &TopicDescription,
        draft: &mut Draft<ApplyStep>,
    ) -> Result<(), Failure> {
        let topic = wanted.name.clone();
        let from = u32::try_from(found.partitions.len()).unwrap_or(u32::MAX);
        let is_filled = found.partitions.iter().any(|p| p.end > 0);
        match wanted.partitions {
            to if to < from => {
                draft.notes.push(format!("{topic} has {from} partitions, not {to}: they cannot be reduced."))
            }
            to if to > from && is_filled && !self.allow_rekeying => {
                draft
                    .notes
                    .push(format!("{topic} has records and {from} partitions, not {to}: --allow-rekeying grows it."));
            }
            to if to > from => {
                let step = GrowStep { topic: topic.clone(), from, to, allow_rekeying: self.allow_rekeying };
                draft.steps.push(ApplyStep::Grow(step));
            }
            _ => {}
        }
        for (name, value) in wanted.by_name().map_err(Failure::usage)? {
            if let Some(now) = found.settings.get(&name).filter(|now| **now != value) {
                let (topic, from, to) = (topic.clone(), Some(now.clone()), Some(value));
                draft.steps.push(ApplyStep::Alter(AlterStep { topic, setting: name, from, to }));
            }
        }
        Ok(())
    }
}

impl Change for Apply {
    const VERB: &'static str = "topic.apply";
    type Step = ApplyStep;

    fn options(&self) -> &ChangeOptions {
        &self.options
    }

    fn subjects(&self) -> Vec<String> {
        self.file.iter().map(|file| file.display().to_string()).collect()
    }

    async fn plan(&self, cx: &Context) -> Result<Draft<ApplyStep>, Failure> {
        let wanted = self.wanted(self.file.as_deref().unwrap_or(Path::new("")))?;
        let names: Vec<Name> = wanted.iter().map(|spec| spec.name.as_str().into()).collect();
        let found = describe_each(cx.admin().await?.as_ref(), &names).await?;
        let mut draft = Draft::new(Vec::new());
        for (wanted, found) in wanted.into_iter().zip(found) {
            match found {
                Some(found) => self.compare(&wanted, &found, &mut draft)?,
                None => draft.steps.push(ApplyStep::Create(wanted)),
            }
        }
        Ok(draft)
    }

    async fn stale(&self, cx: &Context, steps: &[ApplyStep]) -> Result<Vec<String>, Failure> {
        let (mut created, mut grown, mut altered) = (Vec::new(), Vec::new(), Vec::new());
        for step in steps {
            match step {
                ApplyStep::Create(spec) => created.push(Name::from(spec.name.as_str())),
                ApplyStep::Grow(step) => grown.push(step.clone()),
                ApplyStep::Alter(step) => altered.push(step.clone()),
            }
        }
        let found = describe_each(cx.admin().await?.as_ref(), &created).await?;
        let mut why: Vec<String> =
            found.into_iter().flatten().map(|topic| format!("topic {} exists now", topic.name)).collect();
        why.extend(super::grow::stale(cx, &grown).await?);
        why.extend(super::alter::stale(cx, &altered).await?);
        Ok(why)
    }

    async fn apply(&self, cx: &Context, steps: &[ApplyStep]) -> Vec<tidings_core::Result<()>> {
        let apply = async |step: &ApplyStep| match step {
            ApplyStep::Create(spec) => create(cx, spec).await,
            ApplyStep::Grow(step) => grow(cx, step).await,
            ApplyStep::Alter(step) => super::alter::alter(cx, &step.topic, std::slice::from_ref(step)).await,
        };
        one_by_one(cx, steps, apply).await
    }
}
