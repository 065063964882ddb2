//! `dead-letter`: list, show, count, redrive, discard and park dead letters, in topics and in stores.

mod count;
mod filter;
mod list;
mod plan;
mod redrive;
mod resolve;
mod show;

use std::collections::BTreeSet;
use std::sync::Arc;

use clap::Subcommand;
use tidings_core::{
    DeadLetterStore, ErrorKind, LetterId, Name, TopicPartition, Transport, dead_letter_state_topic, dead_letter_topic,
    is_dead_letter_topic,
};
use tidings_service::{DeadLetters, TopicDeadLetters};

use crate::context::Context;
use crate::exit::{Exit, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List letters, without their payload
    List(Box<list::List>),
    /// Show one letter
    Show(show::Show),
    /// Count letters, by cause, service, topic, handler, type or hour
    Count(Box<count::Count>),
    /// Publish letters to their topics again, in the order of their keys
    Redrive(Box<redrive::Redrive>),
    /// Close letters that are not needed any more
    Discard(Box<resolve::Discard>),
    /// Set letters aside, until they are redriven or discarded
    Park(Box<resolve::Park>),
}

impl Verb {
    pub(crate) async fn run(&self, cx: &Context) -> Result<Exit, Failure> {
        match self {
            Self::List(verb) => cx.show(verb.as_ref()).await,
            Self::Show(verb) => cx.show(verb).await,
            Self::Count(verb) => cx.show(verb.as_ref()).await,
            Self::Redrive(verb) => cx.change(verb.as_ref()).await,
            Self::Discard(verb) => cx.change(verb.as_ref()).await,
            Self::Park(verb) => cx.change(verb.as_ref()).await,
        }
    }
}

/// Opens the dead letters of the target, in the name of the user who runs the tool.
///
/// Those in topics are opened for `topics`, or for all that have a dead-letter topic.
pub(super) async fn open(cx: &Context, topics: &[String]) -> Result<DeadLetters, Failure> {
    let transport = cx.transport().await?;
    let letters = match cx.letters().await? {
        Some(store) => of(cx, store, transport),
        None => {
            let topics = match topics {
                [] => with_letters(cx).await?,
                topics => topics.iter().map(|topic| Name::from(topic.as_str())).collect(),
            };
            match TopicDeadLetters::open(transport, topics.clone()).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let names: Vec<&str> = topics.iter().map(Name::as_str).collect();
                    let text = format!("the topics {} have no dead letters: {}", names.join(", "), error.report());
                    return Err(Failure::failed(text).with_hint("see `tidings topic list`"));
                }
                opened => of(cx, opened?, transport),
            }
        }
    };
    Ok(letters.with_operator(cx.user()))
}

/// Records what becomes of the letters while a plan is applied.
fn of(cx: &Context, store: impl DeadLetterStore, transport: &Arc<dyn Transport>) -> DeadLetters {
    let transport = Arc::clone(transport);
    match cx.trail() {
        Some(trail) => DeadLetters::through(trail.of_letters(store), transport),
        None => DeadLetters::through(store, transport),
    }
}

/// Returns all topics that have a dead-letter topic with its states.
async fn with_letters(cx: &Context) -> Result<Vec<Name>, Failure> {
    let all: BTreeSet<Name> = cx.admin().await?.list_topics().await?.into_iter().collect();
    let has = |topic: &Name| all.contains(&dead_letter_topic(topic)) && all.contains(&dead_letter_state_topic(topic));
    let topics: Vec<Name> = all.iter().filter(|topic| !is_dead_letter_topic(topic) && has(topic)).cloned().collect();
    match topics.is_empty() {
        true => Err(Failure::failed("no topic has dead letters").with_hint("use --letters for those in a store")),
        false => Ok(topics),
    }
}

/// Formats an identity: `SERVICE/TOPIC/PARTITION/OFFSET`.
fn show_id(id: &LetterId) -> String {
    format!("{}/{}/{}/{}", id.service, id.origin.topic, id.origin.partition, id.offset)
}

/// Parses an identity. The service's name may contain slashes.
fn parse_id(text: &str) -> Result<LetterId, String> {
    let expected = || "expected SERVICE/TOPIC/PARTITION/OFFSET, as `dead-letter list` prints it".to_owned();
    let parts: Vec<&str> = text.rsplitn(4, '/').collect();
    let [offset, partition, topic, service] = parts[..] else { return Err(expected()) };
    let (Ok(offset), Ok(partition)) = (offset.parse(), partition.parse()) else { return Err(expected()) };
    let named = !service.is_empty() && !topic.is_empty();
    named.then(|| LetterId::new(service, TopicPartition::new(topic, partition), offset)).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_parsed_as_it_is_shown() {
        for text in ["shop/orders/0/7", "a/b/orders.v1/12/18446744073709551615"] {
            assert_eq!(parse_id(text).map(|id| show_id(&id)).as_deref(), Ok(text));
        }
        for text in ["orders/0/7", "/orders/0/7", "shop//0/7", "shop/orders/x/7", "shop/orders/0/-1", ""] {
            assert!(parse_id(text).is_err(), "{text}");
        }
    }
}
