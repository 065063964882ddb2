//! `service`: running services, through their ops endpoint.

mod control;
mod describe;
mod instances;
mod list;
mod position;

use clap::Subcommand;
use tidings_core::TopicPartition;

use crate::context::Context;
use crate::exit::{Exit, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the services of an endpoint
    List(list::List),
    /// List the instances of services, by their directory: services that start by `with_directory`
    Instances(instances::Instances),
    /// Describe a service: health, handlers, partitions
    Describe(describe::Describe),
    /// Pause a service, or some of its partitions
    Pause(control::Pause),
    /// Resume a service, or some of its partitions
    Resume(control::Resume),
    /// Finish what has begun, and end the service
    Drain(control::Drain),
    /// Move the position of a partition that the service reads
    Seek(position::Seek),
    /// Skip the records that hold a partition
    Skip(position::Skip),
}

impl Verb {
    pub(crate) async fn run(&self, cx: &Context) -> Result<Exit, Failure> {
        match self {
            Self::List(verb) => cx.show(verb).await,
            Self::Instances(verb) => cx.show(verb).await,
            Self::Describe(verb) => cx.show(verb).await,
            Self::Pause(verb) => cx.change(verb).await,
            Self::Resume(verb) => cx.change(verb).await,
            Self::Drain(verb) => cx.change(verb).await,
            Self::Seek(verb) => cx.change(verb).await,
            Self::Skip(verb) => cx.change(verb).await,
        }
    }
}

/// Parses a partition: `TOPIC/NUMBER`.
fn partition(text: &str) -> Result<TopicPartition, String> {
    let expected = "expected TOPIC/PARTITION, such as orders/0";
    let (topic, number) = text.rsplit_once('/').filter(|(topic, _)| !topic.is_empty()).ok_or(expected)?;
    number.parse().map(|number| TopicPartition::new(topic, number)).map_err(|_| expected.to_owned())
}

/// Formats a partition as it is parsed.
fn show_partition(partition: &TopicPartition) -> String {
    format!("{}/{}", partition.topic, partition.partition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_parsed_as_it_is_shown() {
        assert_eq!(partition("orders/0").map(|at| show_partition(&at)).as_deref(), Ok("orders/0"));
        assert!(["orders", "/0", "orders/-1", "orders/x", ""].into_iter().all(|text| partition(text).is_err()));
    }
}
