//! A1, topics: admin verbs do what they say, name what is missing, and lose nothing unasked.
//!
//! Brokers of a cluster learn of a change at different times, so reads after a change are repeated
//! until they show it; a refusal is expected at once.

use std::time::Duration;

use tidings_core::{Cleanup, CreatePartitionsOptions, ErrorKind, Name, Record, Topic, TopicPartition, Transport};

use super::fixture::{Fixture, partitions, same_records};
use crate::case::{Case, Checked, broken, cases, granted, holds, only, refused, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    a1_a_topic_is_created_as_asked,
    a1_creating_a_topic_twice_is_told_and_changes_nothing,
    a1_each_topic_has_its_own_answer,
    a1_a_topic_of_no_partition_is_invalid,
    a1_describing_a_missing_topic_names_it,
    a1_a_description_tells_the_log,
    a1_topics_are_listed_in_order,
    a1_a_deleted_topic_is_gone,
    a1_deleting_a_missing_topic_is_told,
    a1_a_topic_grows_and_keeps_its_records,
    a1_growing_a_topic_with_keys_needs_to_be_allowed,
    a1_a_topic_does_not_shrink,
    a1_growing_a_missing_topic_is_told,
    a1_a_healthy_broker_says_so,
    a1_an_outage_is_seen_by_health[Outage],
];

/// A broker may report its own names for settings, or none; those of these names are Kafka's.
async fn a1_a_topic_is_created_as_asked(fixture: &Fixture) -> Checked {
    let name = fixture.fresh("topic");
    let topic = Topic::new(&name)
        .with_partitions(5)
        .with_retention(Duration::from_secs(86_400))
        .with_retention_bytes(12_345_678)
        .with_cleanup(Cleanup::CompactAndDelete)
        .with_max_record_bytes(100_000);
    fixture.create(topic).await?;
    let described = describe(fixture, &name).await?;
    same("its name", &name, &described.name)?;
    same("its partitions", (0..5).collect::<Vec<u32>>(), described.partitions.iter().map(|p| p.partition).collect())?;
    for (setting, wanted) in [
        ("retention.ms", "86400000"),
        ("retention.bytes", "12345678"),
        ("cleanup.policy", "compact,delete"),
        ("max.message.bytes", "100000"),
    ] {
        let told = described.settings.get(setting).map_or(wanted, String::as_str);
        same(&format!("its setting {setting}, as it is reported"), wanted, told)?;
    }
    Ok(())
}

/// Describes an existing topic. Brokers other than the one that reported it may learn of it later.
pub(super) async fn describe(fixture: &Fixture, topic: &Name) -> Checked<tidings_core::TopicDescription> {
    let admin = fixture.admin().await?;
    fixture
        .eventually("a description", || async {
            match only("describe", admin.describe_topics(std::slice::from_ref(topic)).await?)? {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                answer => granted("describe", answer).map(Some),
            }
        })
        .await
}

/// Catches a backend that treats creation as an upsert and grows the topic.
async fn a1_creating_a_topic_twice_is_told_and_changes_nothing(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let admin = fixture.admin().await?;
    let again = [Topic::new(&topic).with_partitions(5)];
    let answers = fixture.within("create", admin.create_topics(&again)).await??;
    refused("a topic that is there", &[ErrorKind::AlreadyExists], only("create", answers)?)?;
    same("partitions", 2, describe(fixture, &topic).await?.partitions.len())
}

/// Catches a backend that stops at the first refusal, or answers in another order.
async fn a1_each_topic_has_its_own_answer(fixture: &Fixture) -> Checked {
    let there = fixture.topic(1).await?;
    let admin = fixture.admin().await?;
    let (one, two) = (fixture.fresh("topic"), fixture.fresh("topic"));
    let asked = [Topic::new(&one), Topic::new(&there), Topic::new(&two)];
    let answers = fixture.within("create", admin.create_topics(&asked)).await??;
    let kinds: Vec<_> = answers.iter().map(|a| a.as_ref().err().map(tidings_core::Error::kind)).collect();
    same("answers to create", vec![None, Some(ErrorKind::AlreadyExists), None], kinds)?;
    fixture.described(&one, 1).await?;
    fixture.described(&two, 1).await?;
    let asked = [one, fixture.fresh("missing"), two];
    let names = fixture
        .eventually("descriptions", || async {
            let answers = admin.describe_topics(&asked).await?;
            let names: Vec<_> = answers.into_iter().map(|a| a.map(|t| t.name).map_err(|e| e.kind())).collect();
            // Brokers other than the one that reported them may learn of them later.
            let late = [0, 2].iter().any(|place: &usize| names.get(*place) == Some(&Err(ErrorKind::NotFound)));
            Ok((!late).then_some(names))
        })
        .await?;
    let [one, _, two] = asked;
    same("answers to describe", vec![Ok(one), Err(ErrorKind::NotFound), Ok(two)], names)
}

async fn a1_a_topic_of_no_partition_is_invalid(fixture: &Fixture) -> Checked {
    let admin = fixture.admin().await?;
    let asked = [Topic::new(fixture.fresh("topic")).with_partitions(0)];
    let answers = fixture.within("create", admin.create_topics(&asked)).await??;
    refused("a topic of no partition", &[ErrorKind::Invalid], only("create", answers)?)
}

/// An operator who asked for twenty topics must learn which one is missing.
async fn a1_describing_a_missing_topic_names_it(fixture: &Fixture) -> Checked {
    let admin = fixture.admin().await?;
    let missing = fixture.fresh("missing");
    let answers = fixture.within("describe", admin.describe_topics(std::slice::from_ref(&missing))).await??;
    match only("describe", answers)? {
        Ok(found) => broken("no such topic", format!("{found:?}")),
        Err(error) => {
            let named = error.report().contains(missing.as_str());
            holds(named, &format!("an error that names {missing}"), error.report())?;
            same("its kind", ErrorKind::NotFound, error.kind())
        }
    }
}

/// The end is the next offset, not the last one; an empty partition has both bounds at 0.
async fn a1_a_description_tells_the_log(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    fixture.fill(&topic, 0, 0, 7).await?;
    let described = describe(fixture, &topic).await?;
    let ends = described.partitions.iter().map(|p| (p.partition, p.start, p.end)).collect();
    same("partition, oldest offset, next offset", vec![(0, 0, 7), (1, 0, 0)], ends)
}

/// Other cases share the broker, so only this case's topics are compared.
async fn a1_topics_are_listed_in_order(fixture: &Fixture) -> Checked {
    let mut mine = vec![fixture.topic(1).await?, fixture.topic(1).await?, fixture.topic(1).await?];
    mine.sort();
    let admin = fixture.admin().await?;
    // A broker may learn of them later than the one that created them.
    fixture
        .eventually("a list with my topics in it, each once", || async {
            let listed = admin.list_topics().await?;
            holds(listed.is_sorted(), "a sorted list", &listed)?;
            let came: Vec<Name> = listed.into_iter().filter(|t| mine.contains(t)).collect();
            fixture.note(format!("my topics in the list: {came:?}"));
            Ok((came == mine).then_some(()))
        })
        .await
}

/// Catches a deletion by prefix or pattern: the other topic must stay.
async fn a1_a_deleted_topic_is_gone(fixture: &Fixture) -> Checked {
    let (topic, other) = (fixture.topic(1).await?, fixture.topic(1).await?);
    fixture.fill(&topic, 0, 0, 3).await?;
    let admin = fixture.admin().await?;
    let answers = fixture.within("delete", admin.delete_topics(std::slice::from_ref(&topic))).await??;
    granted("delete", only("delete", answers)?)?;
    fixture
        .eventually("the topic is gone", || async {
            let mut answers = admin.describe_topics(std::slice::from_ref(&topic)).await?;
            Ok(answers.pop().filter(|a| a.as_ref().is_err_and(|e| e.kind() == ErrorKind::NotFound)).map(drop))
        })
        .await?;
    fixture
        .eventually("a list in which only the other topic is left", || async {
            let listed = admin.list_topics().await?;
            Ok((!listed.contains(&topic) && listed.contains(&other)).then_some(()))
        })
        .await
}

async fn a1_deleting_a_missing_topic_is_told(fixture: &Fixture) -> Checked {
    let admin = fixture.admin().await?;
    let answers = fixture.within("delete", admin.delete_topics(&[fixture.fresh("missing")])).await??;
    refused("deleting a missing topic", &[ErrorKind::NotFound], only("delete", answers)?)
}

/// Catches a backend that recreates the topic to change its partitions.
async fn a1_a_topic_grows_and_keeps_its_records(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let records = fixture.fill(&topic, 1, 0, 5).await?;
    let admin = fixture.admin().await?;
    fixture
        .within("grow", admin.create_partitions(&topic, 4, CreatePartitionsOptions::default().with_rekeying()))
        .await??;
    fixture.described(&topic, 4).await?;
    let members = fixture.read_all(&topic, 4, 5).await?;
    same_records("records of before", 0, &records, members[0].of(&partitions(&topic, 2)[1]))
}

/// Without the option, keys would silently change their partitions and lose their order.
async fn a1_growing_a_topic_with_keys_needs_to_be_allowed(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    fixture.publish(vec![Record::new(&topic, "v").with_key("k")]).await?;
    let admin = fixture.admin().await?;
    let refusal =
        fixture.within("grow", admin.create_partitions(&topic, 4, CreatePartitionsOptions::default())).await?;
    refused("growing a topic with keys", &[ErrorKind::Conflict], refusal)?;
    same("partitions", 2, describe(fixture, &topic).await?.partitions.len())?;
    fixture
        .within("grow", admin.create_partitions(&topic, 4, CreatePartitionsOptions::default().with_rekeying()))
        .await??;
    fixture.described(&topic, 4).await
}

/// Not even where rekeying is allowed: the records of a removed partition would be lost.
async fn a1_a_topic_does_not_shrink(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(3).await?;
    let admin = fixture.admin().await?;
    let refusal = fixture
        .within("grow", admin.create_partitions(&topic, 2, CreatePartitionsOptions::default().with_rekeying()))
        .await?;
    refused("fewer partitions", &[ErrorKind::Invalid], refusal)?;
    same("partitions", 3, describe(fixture, &topic).await?.partitions.len())
}

async fn a1_growing_a_missing_topic_is_told(fixture: &Fixture) -> Checked {
    let admin = fixture.admin().await?;
    let refusal = fixture
        .within(
            "grow",
            admin.create_partitions(&fixture.fresh("missing"), 4, CreatePartitionsOptions::default().with_rekeying()),
        )
        .await?;
    refused("growing a missing topic", &[ErrorKind::NotFound], refusal)
}

async fn a1_a_healthy_broker_says_so(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    fixture.publish(vec![Record::new(&topic, "v").with_partition(TopicPartition::new(&topic, 0).partition)]).await?;
    let admin = fixture.admin().await?;
    // Other tests may be creating topics, which have no leader for a moment.
    fixture
        .eventually("a broker that answers, and no problem", || async {
            let health = admin.health().await?;
            fixture.note(format!("health: {health:?}"));
            Ok((health.is_healthy() && !health.brokers.is_empty()).then_some(()))
        })
        .await
}

/// Either answer is right: an error, or a report that names a problem.
async fn a1_an_outage_is_seen_by_health(fixture: &Fixture) -> Checked {
    let admin = fixture.admin().await?;
    fixture.within("health", admin.health()).await??;
    fixture.outage(true).await?;
    let health = fixture.within("health", admin.health()).await;
    fixture.outage(false).await?;
    match health? {
        Ok(health) => holds(!health.is_healthy(), "a problem", health),
        Err(error) => same("the kind of error", ErrorKind::Unavailable, error.kind()),
    }
}
