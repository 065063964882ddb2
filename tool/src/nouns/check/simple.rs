//! The checks of a connection, a cluster, a topic and a store.

use clap::Args;
use tidings_core::TopicDescription;

use super::missing;
use super::view::{CheckView, Status, Value};
use crate::context::Context;
use crate::exit::Failure;

#[derive(Debug, Args)]
pub(super) struct Connection {}

impl Connection {
    pub(super) async fn run(&self, cx: &Context) -> Result<CheckView, Failure> {
        let begun = tokio::time::Instant::now();
        let health = cx.admin().await?.health().await?;
        let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let text = format!("{} answers, {} brokers", cx.target().await?.name(), health.brokers.len());
        Ok(CheckView::new(Status::Ok, text).with_value(Value::new("answer_ms", millis, None, None)))
    }
}

#[derive(Debug, Args)]
pub(super) struct Cluster {
    /// Fewer brokers than this are critical
    #[arg(long, value_name = "N")]
    min_brokers: Option<usize>,
}

impl Cluster {
    pub(super) async fn run(&self, cx: &Context) -> Result<CheckView, Failure> {
        let health = cx.admin().await?.health().await?;
        let brokers = health.brokers.len();
        let few = self.min_brokers.filter(|least| brokers < *least);
        let status = match (health.problems.is_empty(), few, health.controller) {
            (_, Some(_), _) | (_, _, None) => Status::Critical,
            (true, None, Some(_)) => Status::Ok,
            (false, None, Some(_)) if health.problems.iter().any(|line| line.contains("no leader")) => Status::Critical,
            (false, None, Some(_)) => Status::Warning,
        };
        let message = match (few, health.problems.first()) {
            (Some(least), _) => format!("{brokers} brokers, fewer than {least}"),
            (None, Some(first)) if health.problems.len() > 1 => {
                format!("{first} (and {} more)", health.problems.len() - 1)
            }
            (None, Some(first)) => first.clone(),
            (None, None) => format!("{brokers} brokers, all partitions led and in sync"),
        };
        let problems = Value::new("problems", health.problems.len() as u64, None, None);
        Ok(CheckView::new(status, message)
            .with_value(Value::new("brokers", brokers as u64, None, None))
            .with_value(problems))
    }
}

#[derive(Debug, Args)]
pub(super) struct Topic {
    /// Name of the topic
    pub(super) topic: String,
    /// Fewer partitions than this are critical
    #[arg(long, value_name = "N")]
    min_partitions: Option<usize>,
}

impl Topic {
    pub(super) async fn run(&self, cx: &Context) -> Result<CheckView, Failure> {
        let names = crate::nouns::topic::checked(std::slice::from_ref(&self.topic))?;
        match cx.admin().await?.describe_topics(&names).await?.pop() {
            Some(Ok(found)) => Ok(self.judge(&found)),
            Some(Err(error)) => missing(error, &format!("topic {}", self.topic)),
            None => Ok(CheckView::new(Status::Unknown, "the broker did not answer for the topic")),
        }
    }

    fn judge(&self, topic: &TopicDescription) -> CheckView {
        let all = topic.partitions.len();
        let offline = topic.partitions.iter().filter(|p| p.is_offline()).count();
        let behind = topic.partitions.iter().filter(|p| p.in_sync.len() < p.replicas.len()).count();
        let few = self.min_partitions.is_some_and(|least| all < least);
        let (status, message) = match (offline, behind) {
            (1.., _) => (Status::Critical, format!("{offline} of {all} partitions have no leader")),
            _ if few => {
                (Status::Critical, format!("{all} partitions, fewer than {}", self.min_partitions.unwrap_or(0)))
            }
            (0, 1..) => (Status::Warning, format!("{behind} of {all} partitions are under-replicated")),
            (0, 0) => (Status::Ok, format!("{all} partitions, all led and in sync")),
        };
        let value = |name, count: usize| Value::new(name, count as u64, None, None);
        let view = CheckView::new(status, message).with_value(value("partitions", all));
        view.with_value(value("offline", offline)).with_value(value("under_replicated", behind))
    }
}

#[derive(Debug, Args)]
pub(super) struct Store {}

impl Store {
    pub(super) async fn run(&self, cx: &Context) -> Result<CheckView, Failure> {
        let store = cx.store().await?.ok_or_else(|| {
            Failure::usage("check store: no store is given")
                .with_hint("use --store, TIDINGS_STORE or the context's store")
        })?;
        let begun = tokio::time::Instant::now();
        let event = tidings_core::EventRef::new(uuid::Uuid::max(), "tidings.check");
        store.done(&"tidings-check".into(), &[event]).await?;
        let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(CheckView::new(Status::Ok, "the store answers").with_value(Value::new("answer_ms", millis, None, None)))
    }
}
