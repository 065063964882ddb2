//! A1, the cluster: its brokers, and configurations of topics and brokers.
//!
//! A transport may not support descriptions of its cluster: it then answers as unsupported, and the cases are ignored.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{
    Cluster, ConfigEntry, ConfigResource, ConfigSource, ErrorKind, LogDir, Name, Record, Result, Topic, Transport,
};

use super::a1::describe;
use super::fixture::Fixture;
use crate::case::{Broken, Case, Checked, broken, cases, granted, holds, refused, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    a1_a_cluster_lists_its_brokers,
    a1_log_directories_grow_with_published_records,
    a1_a_configuration_names_the_source_of_each_value,
    a1_a_configuration_of_a_broker_is_listed_by_its_number,
    a1_a_configuration_is_altered_and_put_back,
    a1_altering_a_configuration_is_all_or_nothing,
    a1_an_altered_size_limit_applies,
    a1_a_configuration_of_a_missing_topic_is_not_found,
    a1_configurations_are_unavailable_in_an_outage[Outage],
];

/// The number of a broker that no cluster has.
const NO_BROKER: i32 = 987_654;

async fn cluster(fixture: &Fixture) -> Checked<Arc<dyn Cluster>> {
    let transport = fixture.transport()?;
    match fixture.within("the cluster", transport.cluster()).await? {
        Err(error) if error.kind() == ErrorKind::Unsupported => Err(Broken::Ignored(error.report())),
        cluster => Ok(cluster?),
    }
}

async fn configs(fixture: &Fixture, resource: &ConfigResource) -> Checked<Result<Vec<ConfigEntry>>> {
    let cluster = cluster(fixture).await?;
    fixture.within("a configuration", cluster.configs(resource)).await
}

/// Returns an entry of a topic's configuration, which must be sorted by name.
async fn entry(fixture: &Fixture, topic: &Name, name: &str) -> Checked<ConfigEntry> {
    let entries = configs(fixture, &ConfigResource::Topic(topic.clone())).await??;
    let names: Vec<_> = entries.iter().map(|entry| entry.name.clone()).collect();
    holds(names.is_sorted_by(|a, b| a < b), "entries sorted by name, each once", &names)?;
    let found = entries.into_iter().find(|entry| entry.name == name);
    found.map_or_else(|| broken(format!("an entry {name}"), format!("{names:?}")), Ok)
}

async fn alter(fixture: &Fixture, topic: &Name, changes: &[(&str, Option<&str>)]) -> Checked<Result<()>> {
    let cluster = cluster(fixture).await?;
    let owned: Vec<_> = changes.iter().map(|(name, value)| ((*name).into(), value.map(Into::into))).collect();
    fixture.note(format!("alter the configuration of {topic}: {changes:?}"));
    fixture.within("alter", cluster.alter_configs(&ConfigResource::Topic(topic.clone()), &owned)).await
}

/// Waits until an entry has a value: a change may reach the queried broker with a delay.
async fn becomes(fixture: &Fixture, topic: &Name, name: &str, value: Option<&str>, source: ConfigSource) -> Checked {
    let what = format!("{name} of {topic}: {value:?}, set by {source}");
    fixture
        .eventually(&what, || async {
            let entry = entry(fixture, topic, name).await?;
            let right = entry.source == source && value.is_none_or(|value| entry.value.as_deref() == Some(value));
            Ok(right.then_some(()))
        })
        .await
}

async fn a1_a_cluster_lists_its_brokers(fixture: &Fixture) -> Checked {
    let cluster = cluster(fixture).await?;
    let described = fixture.within("a description", cluster.describe()).await??;
    let mut numbers: Vec<_> = described.brokers.iter().map(|broker| broker.id).collect();
    holds(!numbers.is_empty() && numbers.is_sorted_by(|a, b| a < b), "brokers, by number", &numbers)?;
    holds(described.brokers.iter().all(|broker| !broker.host.is_empty()), "hosts of brokers", &described)?;
    let leads = described.controller.is_none_or(|controller| numbers.contains(&controller));
    holds(leads, "a controller among the brokers", &described)?;
    let topic = fixture.topic(3).await?;
    for partition in describe(fixture, &topic).await?.partitions {
        numbers.retain(|number| partition.leader != Some(*number));
        let known = |number: &i32| described.brokers.iter().any(|broker| broker.id == *number);
        holds(partition.leader.is_none_or(|leader| known(&leader)), "a leader among the brokers", &partition)?;
    }
    Ok(())
}

/// Returns the bytes and replicas of all directories; the case is ignored where they are not known.
async fn held(fixture: &Fixture) -> Checked<(u64, usize)> {
    let cluster = cluster(fixture).await?;
    let described = fixture.within("a description", cluster.describe()).await??;
    let known: Option<Vec<Vec<LogDir>>> = described.brokers.into_iter().map(|broker| broker.log_dirs).collect();
    let Some(directories) = known else { return Err(Broken::Ignored("the log directories are not known".into())) };
    let all = || directories.iter().flatten();
    Ok((all().map(|at| at.bytes).sum(), all().map(|at| at.replicas).sum()))
}

/// Other cases publish at the same time, so the size is a lower bound.
async fn a1_log_directories_grow_with_published_records(fixture: &Fixture) -> Checked {
    const BYTES: usize = 400_000;
    let topic = fixture.topic(3).await?;
    for p in 0..3 {
        fixture.publish(vec![Record::new(&topic, vec![b'v'; BYTES]).with_partition(p)]).await?;
    }
    let least = (3 * BYTES as u64, 3);
    fixture
        .eventually(&format!("at least {least:?} bytes and replicas"), || async {
            let there = held(fixture).await?;
            Ok((there.0 >= least.0 && there.1 >= least.1).then_some(()))
        })
        .await
}

async fn a1_a_configuration_names_the_source_of_each_value(fixture: &Fixture) -> Checked {
    let (own, plain) = (fixture.fresh("topic"), fixture.topic(1).await?);
    fixture.create(Topic::new(&own).with_retention(Duration::from_secs(7_200)).with_retention_bytes(1 << 20)).await?;
    becomes(fixture, &own, "retention.ms", Some("7200000"), ConfigSource::Resource).await?;
    becomes(fixture, &own, "retention.bytes", Some("1048576"), ConfigSource::Resource).await?;
    for name in ["retention.ms", "retention.bytes", "cleanup.policy"] {
        let entry = entry(fixture, &plain, name).await?;
        holds(entry.source != ConfigSource::Resource, &format!("{name}, not set by the topic"), &entry)?;
        holds(entry.value.is_some() && !entry.sensitive, &format!("{name} with its value"), &entry)?;
    }
    Ok(())
}

async fn a1_a_configuration_of_a_broker_is_listed_by_its_number(fixture: &Fixture) -> Checked {
    let cluster = cluster(fixture).await?;
    let described = fixture.within("a description", cluster.describe()).await??;
    for broker in described.brokers.iter().filter(|broker| !broker.fenced) {
        let resource = ConfigResource::Broker(broker.id);
        let entries = configs(fixture, &resource).await??;
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        holds(!names.is_empty() && names.is_sorted_by(|a, b| a < b), "entries sorted by name", &names)?;
        let nothing = cluster.alter_configs(&resource, &[]);
        granted("altering nothing of a broker", fixture.within("alter", nothing).await?)?;
    }
    let missing = ConfigResource::Broker(NO_BROKER);
    let kinds = [ErrorKind::NotFound];
    refused("the configuration of a missing broker", &kinds, configs(fixture, &missing).await?)?;
    let changed = [("a.setting".to_owned(), Some("1".to_owned()))];
    let answer = fixture.within("alter", cluster.alter_configs(&missing, &changed)).await?;
    refused("altering a missing broker", &kinds, answer)
}

async fn a1_a_configuration_is_altered_and_put_back(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let before = entry(fixture, &topic, "retention.ms").await?;
    alter(fixture, &topic, &[("retention.ms", Some("3600000")), ("cleanup.policy", Some("compact"))]).await??;
    becomes(fixture, &topic, "retention.ms", Some("3600000"), ConfigSource::Resource).await?;
    becomes(fixture, &topic, "cleanup.policy", Some("compact"), ConfigSource::Resource).await?;
    alter(fixture, &topic, &[("segment.ms", Some("7200000"))]).await??;
    becomes(fixture, &topic, "segment.ms", Some("7200000"), ConfigSource::Resource).await?;
    let size = entry(fixture, &topic, "retention.bytes").await?;
    holds(size.source != ConfigSource::Resource, "an entry that was not named, as it was", &size)?;
    alter(fixture, &topic, &[("retention.ms", Some("-1")), ("retention.bytes", Some("2000000"))]).await??;
    becomes(fixture, &topic, "retention.ms", Some("-1"), ConfigSource::Resource).await?;
    becomes(fixture, &topic, "retention.bytes", Some("2000000"), ConfigSource::Resource).await?;
    alter(fixture, &topic, &[("cleanup.policy", Some("delete,compact")), ("retention.bytes", Some("-1"))]).await??;
    fixture
        .eventually("both policies", || async {
            let policy = entry(fixture, &topic, "cleanup.policy").await?.value.unwrap_or_default();
            let both = policy.contains("delete") && policy.contains("compact");
            Ok(both.then_some(()))
        })
        .await?;
    alter(fixture, &topic, &[("retention.ms", None), ("cleanup.policy", None)]).await??;
    becomes(fixture, &topic, "retention.ms", before.value.as_deref(), before.source).await
}

async fn a1_altering_a_configuration_is_all_or_nothing(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let before = entry(fixture, &topic, "retention.ms").await?;
    let wrong = [
        ("retention.ms.of.none", Some("1")),
        ("retention.bytes", Some("many")),
        ("max.message.bytes", Some("-1")),
        ("cleanup.policy", Some("burn")),
    ];
    for second in wrong {
        let answer = alter(fixture, &topic, &[("retention.ms", Some("3600000")), second]).await?;
        refused(&format!("alter {second:?}"), &[ErrorKind::Invalid], answer)?;
        same("the first entry", &before, &entry(fixture, &topic, "retention.ms").await?)?;
    }
    let answer = alter(fixture, &topic, &[("retention.ms", Some("-2"))]).await?;
    refused("an impossible time", &[ErrorKind::Invalid], answer)
}

/// A broker may apply it with a delay.
async fn a1_an_altered_size_limit_applies(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let publisher = fixture.publisher().await?;
    let record = || Record::new(&topic, vec![b'v'; 20_000]);
    fixture.publish_by(&*publisher, vec![record()]).await?;
    alter(fixture, &topic, &[("max.message.bytes", Some("10000"))]).await??;
    let takes = async |kind: Option<ErrorKind>| {
        let what = format!("an answer to a large record: {kind:?}");
        fixture
            .eventually(&what, || async {
                let answers = fixture.within("publish", publisher.publish(vec![record()])).await?;
                let came = answers.into_iter().next().and_then(Result::err).map(|error| error.kind());
                Ok((came == kind).then_some(()))
            })
            .await
    };
    takes(Some(ErrorKind::TooLarge)).await?;
    alter(fixture, &topic, &[("max.message.bytes", Some("1000000"))]).await??;
    takes(None).await
}

async fn a1_a_configuration_of_a_missing_topic_is_not_found(fixture: &Fixture) -> Checked {
    let missing = fixture.fresh("topic");
    let answer = configs(fixture, &ConfigResource::Topic(missing.clone())).await?;
    refused("the configuration of a missing topic", &[ErrorKind::NotFound], answer)?;
    let answer = alter(fixture, &missing, &[("retention.ms", Some("3600000"))]).await?;
    refused("altering a missing topic", &[ErrorKind::NotFound], answer)
}

async fn a1_configurations_are_unavailable_in_an_outage(fixture: &Fixture) -> Checked {
    let (topic, cluster) = (fixture.topic(1).await?, cluster(fixture).await?);
    let resource = ConfigResource::Topic(topic.clone());
    fixture.outage(true).await?;
    let checked = async {
        let kinds = [ErrorKind::Unavailable, ErrorKind::Indeterminate];
        refused("describe", &kinds, fixture.within("describe", cluster.describe()).await?)?;
        refused("configs", &kinds, fixture.within("configs", cluster.configs(&resource)).await?)?;
        let changes = [("retention.ms".to_owned(), Some("3600000".to_owned()))];
        refused("alter", &kinds, fixture.within("alter", cluster.alter_configs(&resource, &changes)).await?)
    }
    .await;
    fixture.outage(false).await?;
    checked?;
    let entry = entry(fixture, &topic, "retention.ms").await?;
    holds(entry.source != ConfigSource::Resource, "an entry that was not altered in an outage", &entry)
}
