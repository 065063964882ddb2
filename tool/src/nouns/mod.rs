//! The nouns of the command line.
//!
//! To add a noun: a module with its `Verb` (an enum of clap structs, and `run`), a variant here, and an arm in
//! [`Noun::run`]. A verb that looks is a [`Query`](crate::context::Query), one that changes something a
//! [`Change`](crate::change::Change). Arguments with the ids `topic`, `topics`, `group`, `groups` and `name` are
//! completed with live names.

mod completion;
mod context;
mod dead_letter;
mod doctor;
mod group;
mod topic;
mod version;

use clap::Subcommand;

use crate::context::Context;
use crate::exit::{Exit, Failure};

/// A noun with its verb.
#[derive(Debug, Subcommand)]
pub(crate) enum Noun {
    /// List, describe, create, delete and grow topics
    #[command(subcommand)]
    Topic(topic::Verb),
    /// List, describe and delete consumer groups, show their lag
    #[command(subcommand)]
    Group(group::Verb),
    /// List, show, count, redrive, discard and park dead letters
    #[command(subcommand, visible_alias = "dlq")]
    DeadLetter(dead_letter::Verb),
    /// Look for the causes of lag, duplicates, loss and high memory, and name the remedies
    Doctor(doctor::Doctor),
    /// Keep targets under names
    #[command(subcommand)]
    Context(context::Verb),
    /// Print a shell's completion script
    Completion(completion::Completion),
    /// Print the version
    Version(version::Version),
}

impl Noun {
    /// Runs the verb.
    pub(crate) async fn run(&self, cx: &Context) -> Result<Exit, Failure> {
        match self {
            Self::Topic(verb) => verb.run(cx).await,
            Self::Group(verb) => verb.run(cx).await,
            Self::DeadLetter(verb) => verb.run(cx).await,
            Self::Doctor(verb) => cx.show(verb).await,
            Self::Context(verb) => verb.run(cx).await,
            Self::Completion(verb) => verb.run(cx),
            Self::Version(verb) => cx.show(verb).await,
        }
    }
}
