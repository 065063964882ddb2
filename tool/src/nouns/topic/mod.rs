//! `topic`.

mod alter;
mod apply;
mod create;
mod delete;
mod describe;
mod grow;
mod list;
mod spec;

pub(super) use self::alter::wanted;

use clap::Subcommand;
use tidings_core::{Admin, ErrorKind, Name, TopicDescription};

use crate::context::Context;
use crate::exit::{Exit, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List topics
    List(list::List),
    /// Describe topics: partitions, offsets, replicas, settings
    Describe(describe::Describe),
    /// Create topics
    Create(Box<create::Create>),
    /// Delete topics with their records
    Delete(delete::Delete),
    /// Change settings
    Alter(alter::Alter),
    /// Raise the number of partitions
    Grow(grow::Grow),
    /// Create, grow and alter topics until they are as a file says; nothing is shrunk or deleted
    ///
    /// The file is TOML: a table [[topic]] for each, with name, partitions, replication, retention ("7d", "forever"),
    /// retention_bytes, cleanup ("delete", "compact", "compact-and-delete"), max_record_bytes and a table settings.
    Apply(apply::Apply),
}

impl Verb {
    pub(crate) async fn run(&self, cx: &Context) -> Result<Exit, Failure> {
        match self {
            Self::List(verb) => cx.show(verb).await,
            Self::Describe(verb) => cx.show(verb).await,
            Self::Create(verb) => cx.change(verb.as_ref()).await,
            Self::Delete(verb) => cx.change(verb).await,
            Self::Alter(verb) => cx.change(verb).await,
            Self::Grow(verb) => cx.change(verb).await,
            Self::Apply(verb) => cx.change(verb).await,
        }
    }
}

/// Describes topics; `None` for one that does not exist.
pub(super) async fn describe_each(
    admin: &dyn Admin,
    topics: &[Name],
) -> Result<Vec<Option<TopicDescription>>, Failure> {
    let described = admin.describe_topics(topics).await?;
    let found = described.into_iter().map(|answer| match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    });
    found.collect()
}

/// Describes topics that must exist.
pub(super) async fn describe_all(cx: &Context, topics: &[Name]) -> Result<Vec<TopicDescription>, Failure> {
    let mut all = Vec::with_capacity(topics.len());
    for (topic, found) in topics.iter().zip(describe_each(cx.admin().await?.as_ref(), topics).await?) {
        match found {
            Some(found) => all.push(found),
            None => return Err(cx.unknown("topic", topic).await),
        }
    }
    Ok(all)
}

/// Checks the names of topics before anything is sent.
pub(super) fn checked(topics: &[String]) -> Result<Vec<Name>, Failure> {
    let names: Vec<Name> = topics.iter().map(|topic| Name::from(topic.as_str())).collect();
    names.iter().try_for_each(|name| tidings_core::check_topic_name(name)).map_err(|e| Failure::usage(e.report()))?;
    Ok(names)
}

/// Formats settings: `a=1 b=2`; none are `-`.
fn shown(settings: &std::collections::BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if pairs.is_empty() { "-".to_owned() } else { pairs.join(" ") }
}

/// Returns the offset of the next record of each partition.
fn ends(topic: &TopicDescription) -> Vec<u64> {
    topic.partitions.iter().map(|partition| partition.end).collect()
}
