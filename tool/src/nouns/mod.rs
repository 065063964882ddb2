//! The nouns of the command line.
//!
//! To add a noun: a module with its `Verb` (an enum of clap structs, and `run`), a variant here, and an arm in
//! [`Noun::run`]. A verb that looks is a [`Query`](crate::context::Query), one that changes something a
//! [`Change`](crate::change::Change). Arguments with the ids `topic`, `topics`, `group`, `groups` and `name` are
//! completed with live names.

mod acl;
mod audit;
mod check;
mod cluster;
mod completion;
mod context;
mod dead_letter;
mod describe;
mod doctor;
mod event;
mod generate;
mod group;
mod log;
mod service;
mod topic;
mod version;

use clap::Subcommand;

use crate::context::Context;
use crate::exit::{Exit, Failure};

/// A noun with its verb.
#[derive(Debug, Subcommand)]
pub(crate) enum Noun {
    /// List, describe, create, delete, alter and grow topics
    #[command(subcommand)]
    Topic(topic::Verb),
    /// Publish, tail, get, count, export and import events
    #[command(subcommand)]
    Event(event::Verb),
    /// List, describe, reset, clone and delete consumer groups, show their lag
    #[command(subcommand)]
    Group(group::Verb),
    /// List, show, count, redrive, discard and park dead letters
    #[command(subcommand, visible_alias = "dlq")]
    DeadLetter(dead_letter::Verb),
    /// List, describe, pause, resume, drain, seek and skip running services, at their ops endpoint
    #[command(subcommand)]
    Service(service::Verb),
    /// Read and verify the audit trail
    #[command(subcommand)]
    Audit(audit::Verb),
    /// Look for the causes of lag, duplicates, loss and high memory, and name the remedies
    Doctor(doctor::Doctor),
    /// Describe a cluster, its health and its configuration
    #[command(subcommand)]
    Cluster(cluster::Verb),
    /// List, create and delete entries of access control
    #[command(subcommand)]
    Acl(acl::Verb),
    Check(check::Check),
    Describe(describe::Describe),
    /// Keep targets under names
    #[command(subcommand)]
    Context(context::Verb),
    Generate(generate::Generate),
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
            Self::Event(verb) => verb.run(cx).await,
            Self::Group(verb) => verb.run(cx).await,
            Self::DeadLetter(verb) => verb.run(cx).await,
            Self::Service(verb) => verb.run(cx).await,
            Self::Audit(verb) => verb.run(cx).await,
            Self::Doctor(verb) => cx.show(verb).await,
            Self::Cluster(verb) => verb.run(cx).await,
            Self::Acl(verb) => verb.run(cx).await,
            Self::Check(verb) => verb.run(cx).await,
            Self::Describe(verb) => cx.show(verb).await,
            Self::Context(verb) => verb.run(cx).await,
            Self::Generate(verb) => verb.run(cx),
            Self::Completion(verb) => verb.run(cx),
            Self::Version(verb) => cx.show(verb).await,
        }
    }
}
