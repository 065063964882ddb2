//! `check`: thresholds for monitoring.

mod group;
mod letters;
mod simple;
mod view;

use clap::{Args, Subcommand};
use tidings_core::ErrorKind;

use self::view::{CheckView, Status};
use crate::context::{Context, Query};
use crate::exit::{Exit, Failure};

/// Check a target against thresholds: exit code 0 or 4, and with -o nagios those of Nagios (0, 1, 2, 3).
#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Whether the target answers
    Connection(simple::Connection),
    /// Whether there is a controller, and no partition is offline or under-replicated
    Cluster(simple::Cluster),
    /// Whether a topic exists, with its partitions led and in sync
    Topic(simple::Topic),
    /// Whether a group has members, and its lag is below thresholds
    Group(group::Group),
    /// Whether there are fewer open dead letters than thresholds
    DeadLetters(letters::Letters),
    /// Whether the idempotency store answers
    Store(simple::Store),
}

impl Check {
    pub(crate) async fn run(&self, cx: &Context) -> Result<Exit, Failure> {
        cx.show(self).await
    }
}

impl Query for Check {
    type View = CheckView;

    async fn run(&self, cx: &Context) -> Result<CheckView, Failure> {
        let (name, checked) = match &self.what {
            What::Connection(check) => ("connection".to_owned(), cx.within(check.run(cx)).await),
            What::Cluster(check) => ("cluster".to_owned(), cx.within(check.run(cx)).await),
            What::Topic(check) => (format!("topic {}", check.topic), cx.within(check.run(cx)).await),
            What::Group(check) => (format!("group {}", check.group), cx.within(check.run(cx)).await),
            What::DeadLetters(check) => ("dead-letters".to_owned(), cx.within(check.run(cx)).await),
            What::Store(check) => ("store".to_owned(), cx.within(check.run(cx)).await),
        };
        match checked {
            Ok(found) => Ok(found.named(&name)),
            // Wrong usage is no finding about the target.
            Err(failure) if matches!(failure.exit(), Exit::Usage | Exit::Interrupted) => Err(failure),
            Err(failure) => Ok(CheckView::new(Status::Critical, failure.to_string()).named(&name)),
        }
    }
}

/// Returns the finding about a resource that does not exist, or the error.
fn missing(error: tidings_core::Error, what: &str) -> Result<CheckView, Failure> {
    match error.kind() {
        ErrorKind::NotFound => Ok(CheckView::new(Status::Critical, format!("{what} does not exist"))),
        _ => Err(error.into()),
    }
}
