//! `topic create`.

use std::collections::BTreeMap;

use clap::Args;
use tidings_core::{DEAD_LETTER_ROOM, Error, ErrorKind, Name, dead_letter_state_topic, dead_letter_topic};

use super::spec::{CleanupSpec, TopicSpec};
use super::{checked, describe_each, shown};
use crate::change::{Change, ChangeOptions, Draft, Step, one_by_one};
use crate::context::Context;
use crate::exit::Failure;
use crate::input;
use crate::output::or_dash;

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Names of the topics
    #[arg(required_unless_present = "from_plan", value_name = "TOPIC")]
    new_topics: Vec<String>,
    /// Number of partitions
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
    /// Number of brokers that hold each partition; by default the broker's
    #[arg(long, value_name = "N")]
    replication: Option<u16>,
    /// How long records are kept: a duration such as 7d, or forever
    #[arg(long, value_name = "DURATION")]
    retention: Option<String>,
    /// How many bytes are kept per partition
    #[arg(long, value_name = "BYTES", value_parser = input::bytes)]
    retention_bytes: Option<u64>,
    /// Cleanup policy
    #[arg(long)]
    cleanup: Option<CleanupSpec>,
    /// Size limit of a record
    #[arg(long, value_name = "BYTES", value_parser = input::bytes)]
    max_record_bytes: Option<u64>,
    /// A setting by the broker's name; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = input::pair)]
    settings: Vec<(String, String)>,
    /// Create the dead-letter topic and that of its letters' states as well
    #[arg(long)]
    with_dead_letters: bool,
    #[command(flatten)]
    options: ChangeOptions,
}

impl Step for TopicSpec {
    const COLUMNS: &'static [&'static str] = &["CREATE", ">PARTITIONS", ">REPLICATION", "SETTINGS"];

    fn cells(&self) -> Vec<String> {
        let settings = self.by_name().unwrap_or_default();
        vec![self.name.clone(), self.partitions.to_string(), or_dash(self.replication), shown(&settings)]
    }
}

impl Create {
    fn spec(&self, name: &str) -> TopicSpec {
        TopicSpec {
            name: name.to_owned(),
            partitions: self.partitions,
            replication: self.replication,
            retention: self.retention.clone(),
            retention_bytes: self.retention_bytes,
            cleanup: self.cleanup,
            max_record_bytes: self.max_record_bytes,
            settings: self.settings.iter().cloned().collect(),
        }
    }
}

impl Change for Create {
    const VERB: &'static str = "topic.create";
    type Step = TopicSpec;

    fn options(&self) -> &ChangeOptions {
        &self.options
    }

    fn subjects(&self) -> Vec<String> {
        self.new_topics.clone()
    }

    async fn plan(&self, cx: &Context) -> Result<Draft<TopicSpec>, Failure> {
        let mut steps = Vec::new();
        for name in &self.new_topics {
            let spec = self.spec(name);
            spec.topic().map_err(Failure::usage)?;
            let letters = self.with_dead_letters.then(|| companions(&spec));
            steps.push(spec);
            steps.extend(letters.into_iter().flatten());
        }
        checked(&steps.iter().map(|step| step.name.clone()).collect::<Vec<_>>())?;
        match existing(cx, &steps).await?.as_slice() {
            [] => Ok(Draft::new(steps)),
            [first, ..] => Err(Failure::failed(format!("topic {first} exists already"))
                .with_hint(format!("see `tidings topic describe {first}`"))),
        }
    }

    async fn stale(&self, cx: &Context, steps: &[TopicSpec]) -> Result<Vec<String>, Failure> {
        let existing = existing(cx, steps).await?;
        Ok(existing.iter().map(|name| format!("topic {name} exists now")).collect())
    }

    async fn apply(&self, cx: &Context, steps: &[TopicSpec]) -> Vec<tidings_core::Result<()>> {
        one_by_one(cx, steps, async |step| create(cx, step).await).await
    }
}

/// Creates one topic.
pub(super) async fn create(cx: &Context, spec: &TopicSpec) -> tidings_core::Result<()> {
    let invalid = |text: String| Error::new(ErrorKind::Invalid, text);
    let topic = spec.topic().map_err(invalid)?;
    let admin = cx.admin().await.map_err(|failure| Error::new(ErrorKind::Unavailable, failure.to_string()))?;
    let answer = admin.create_topics(std::slice::from_ref(&topic)).await?.pop();
    answer
        .unwrap_or_else(|| Err(Error::new(ErrorKind::Indeterminate, format!("create topic {}: no answer", spec.name))))
}

/// Returns those topics that exist.
async fn existing(cx: &Context, steps: &[TopicSpec]) -> Result<Vec<String>, Failure> {
    let names: Vec<Name> = steps.iter().map(|step| step.name.as_str().into()).collect();
    let found = describe_each(cx.admin().await?.as_ref(), &names).await?;
    Ok(found.into_iter().flatten().map(|topic| topic.name.as_str().to_owned()).collect())
}

/// Returns the topics of dead letters and of their states, as `ensure_topics` creates them.
pub(super) fn companions(spec: &TopicSpec) -> [TopicSpec; 2] {
    let name = Name::from(spec.name.as_str());
    let of = |name: Name, cleanup| TopicSpec {
        name: name.as_str().to_owned(),
        partitions: spec.partitions,
        replication: spec.replication,
        retention: None,
        retention_bytes: None,
        cleanup: Some(cleanup),
        max_record_bytes: None,
        settings: BTreeMap::new(),
    };
    /// Kafka's default size limit of a record.
    const USUAL: u64 = 1_048_588;
    let letters = TopicSpec {
        retention: Some("forever".to_owned()),
        max_record_bytes: Some(spec.max_record_bytes.unwrap_or(USUAL).saturating_add(DEAD_LETTER_ROOM)),
        ..of(dead_letter_topic(&name), CleanupSpec::Delete)
    };
    let settings = [("min.compaction.lag.ms", "86400000"), ("message.timestamp.type", "LogAppendTime")];
    let states = TopicSpec {
        settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..of(dead_letter_state_topic(&name), CleanupSpec::Compact)
    };
    [letters, states]
}
