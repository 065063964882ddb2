//! Creation of topics and their dead-letter topics: missing ones are created, existing ones never shrunk or deleted.
//!
//! Every instance of a service may call [`ensure_topics`] at its start, at the same time: an instance that loses the
//! race to create a topic uses the existing one. Differences are reported to the caller and not resolved, because no
//! change of an existing topic is safe to make unasked: more partitions move keys, a shorter retention deletes records.

use std::time::Duration;

use crate::{
    Admin, Cleanup, Error, ErrorKind, Name, Result, Topic, TopicDescription, check_topic_name, dead_letter_state_topic,
    dead_letter_topic, is_dead_letter_topic,
};

/// The additional size of a dead letter over its topic's records, for the headers that state the cause.
pub const DEAD_LETTER_ROOM: u64 = 64 << 10;

/// How long the states of letters stay uncompacted: a redrive's lease is shorter.
const STATE_COMPACTION_LAG: Duration = Duration::from_secs(24 * 3_600);

/// The record size that [`ensure_topics`] assumes where neither the topic nor the broker states one: Kafka's default.
const USUAL_RECORD_BYTES: u64 = 1_048_588;

/// The report of [`ensure_topics`].
///
/// A topic is in `created`, in `unchanged`, or named by at least one entry of `different`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EnsureReport {
    /// Topics that were missing and were created.
    pub created: Vec<Name>,
    /// Topics that existed with the desired configuration.
    pub unchanged: Vec<Name>,
    /// Topics that existed with a different configuration; they were not changed.
    pub different: Vec<Difference>,
}

/// A difference between the current and the desired configuration of a topic.
///
/// Only settings that were asked for are compared; `wanted` and `found` are texts as the broker writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// The topic.
    pub topic: Name,
    /// The setting that differs: `partitions`, `replication`, or a setting by the broker's name.
    pub what: String,
    /// The desired value.
    pub wanted: String,
    /// The current value.
    pub found: String,
}

/// Creates the missing ones of `topics`, each with its dead-letter topic (`<topic>-dlq`) and the topic of its letters'
/// states (`<topic>-dlq-state`).
///
/// Both have as many partitions as the topic. A dead-letter topic deletes nothing by age; a topic of states is
/// compacted, and stamps its records with the broker's clock. If a topic of that name is among `topics`, it is created
/// as that says. A topic that exists and differs is reported and not changed: nothing is shrunk, grown
/// or deleted. A setting that the broker does not report cannot differ.
///
/// The call is idempotent, so that every instance of a service may make it at its start.
///
/// # Errors
/// [`Invalid`](ErrorKind::Invalid), before anything is created, for an invalid topic name: one of `topics`, or that
/// of its dead-letter topic, which may be too long. [`Unavailable`](ErrorKind::Unavailable) for a topic that another
/// instance has just created and that the broker does not show yet. Otherwise those of [`Admin::create_topics`] and
/// [`Admin::describe_topics`]. Topics created before the error stay.
///
/// # Cancel safety
/// Dropping the future may leave some of the topics created. Call it again.
pub async fn ensure_topics(admin: &dyn Admin, topics: &[Topic]) -> Result<EnsureReport> {
    topics.iter().try_for_each(check_names)?;
    let mut report = EnsureReport::default();
    for topic in topics {
        let described = ensure_one(admin, topic, &mut report).await?;
        if is_dead_letter_topic(&topic.name) {
            continue;
        }
        for companion in [letters_of(topic, described.as_ref()), states_of(topic)] {
            if topics.iter().all(|other| other.name != companion.name) {
                ensure_one(admin, &companion, &mut report).await?;
            }
        }
    }
    Ok(report)
}

/// Creates the missing ones of `topics` as [`ensure_topics`] does, but without dead-letter topics: for topics whose
/// records are dead-lettered as records of another topic, such as retry topics.
///
/// # Errors
/// [`Invalid`](ErrorKind::Invalid), before anything is created, for an invalid topic name; otherwise those of
/// [`ensure_topics`].
///
/// # Cancel safety
/// Dropping the future may leave some of the topics created. Call it again.
pub async fn ensure_topics_alone(admin: &dyn Admin, topics: &[Topic]) -> Result<EnsureReport> {
    topics.iter().try_for_each(|topic| check_topic_name(&topic.name))?;
    let mut report = EnsureReport::default();
    for topic in topics {
        ensure_one(admin, topic, &mut report).await?;
    }
    Ok(report)
}

/// Checks a topic's name, and those of its dead-letter topic and its states if it gets them.
fn check_names(topic: &Topic) -> Result<()> {
    check_topic_name(&topic.name)?;
    if is_dead_letter_topic(&topic.name) {
        return Ok(());
    }
    let wrong =
        |e| Error::caused_by(ErrorKind::Invalid, format!("name the dead-letter topic of topic {:?}", topic.name), e);
    check_topic_name(&dead_letter_topic(&topic.name)).map_err(wrong)?;
    check_topic_name(&dead_letter_state_topic(&topic.name)).map_err(wrong)
}

/// Returns the dead-letter topic of `topic`.
fn letters_of(topic: &Topic, found: Option<&TopicDescription>) -> Topic {
    let told = found.and_then(|found| found.settings.get("max.message.bytes")?.parse().ok());
    let largest = topic.max_record_bytes.or(told).unwrap_or(USUAL_RECORD_BYTES);
    let mut letters = Topic::new(dead_letter_topic(&topic.name))
        .with_partitions(topic.partitions)
        .with_cleanup(Cleanup::Delete)
        .with_retention(Duration::MAX)
        .with_max_record_bytes(largest.saturating_add(DEAD_LETTER_ROOM));
    letters.replication = topic.replication;
    letters
}

/// Returns the topic of the states of `topic`'s letters.
fn states_of(topic: &Topic) -> Topic {
    let mut states = Topic::new(dead_letter_state_topic(&topic.name))
        .with_partitions(topic.partitions)
        .with_cleanup(Cleanup::Compact)
        // A lease's records must not be compacted while it lives, and expires by one clock.
        .with_setting("min.compaction.lag.ms", STATE_COMPACTION_LAG.as_millis().to_string())
        .with_setting("message.timestamp.type", "LogAppendTime");
    states.replication = topic.replication;
    states
}

/// Ensures one topic and returns its current description.
async fn ensure_one(admin: &dyn Admin, topic: &Topic, report: &mut EnsureReport) -> Result<Option<TopicDescription>> {
    let mut found = describe(admin, &topic.name).await?;
    if found.is_none() {
        match create(admin, topic).await {
            Ok(()) => {
                report.created.push(topic.name.clone());
                // Its dead-letter topic depends on the broker's defaults for it.
                return describe(admin, &topic.name).await;
            }
            // Another instance created it first. A transport waits until the topic is visible.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                found = Some(describe(admin, &topic.name).await?.ok_or_else(|| unseen(&topic.name))?);
            }
            Err(error) => return Err(error),
        }
    }
    let different = found.as_ref().map(|found| differences(topic, found)).unwrap_or_default();
    if different.is_empty() {
        report.unchanged.push(topic.name.clone());
    }
    report.different.extend(different);
    Ok(found)
}

/// Returns the error of a topic that exists by one answer of the broker and not by the next.
fn unseen(topic: &Name) -> Error {
    let what = format!("create topic {topic:?}: another instance has just created it, and it is not visible yet");
    Error::new(ErrorKind::Unavailable, what)
}

/// Describes one topic; `None` if it does not exist.
async fn describe(admin: &dyn Admin, topic: &Name) -> Result<Option<TopicDescription>> {
    match admin.describe_topics(std::slice::from_ref(topic)).await?.pop() {
        Some(Ok(found)) => Ok(Some(found)),
        Some(Err(error)) if error.kind() == ErrorKind::NotFound => Ok(None),
        Some(Err(error)) => Err(error),
        None => Err(Error::new(ErrorKind::Indeterminate, format!("describe topic {topic:?}: no answer"))),
    }
}

/// Creates one topic. A missing answer is [`Indeterminate`](ErrorKind::Indeterminate): the topic may exist.
async fn create(admin: &dyn Admin, topic: &Topic) -> Result<()> {
    let answer = admin.create_topics(std::slice::from_ref(topic)).await?.pop();
    answer.unwrap_or_else(|| {
        Err(Error::new(ErrorKind::Indeterminate, format!("create topic {:?}: no answer", topic.name)))
    })
}

/// Compares what the topic asks for with what the broker reports. A setting that is not asked for, or not reported, is
/// equal.
fn differences(topic: &Topic, found: &TopicDescription) -> Vec<Difference> {
    let mut different = Vec::new();
    let mut compare = |what: &str, wanted: String, found: String| {
        if wanted != found {
            different.push(Difference { topic: topic.name.clone(), what: what.to_owned(), wanted, found });
        }
    };
    compare("partitions", topic.partitions.to_string(), found.partitions.len().to_string());
    let replicas = found.partitions.iter().map(|p| p.replicas.len()).find(|count| *count > 0);
    if let (Some(wanted), Some(replicas)) = (topic.replication, replicas) {
        compare("replication", wanted.to_string(), replicas.to_string());
    }
    for (setting, wanted) in wanted_settings(topic) {
        if let Some(told) = found.settings.get(&setting) {
            compare(&setting, wanted, told.clone());
        }
    }
    different
}

/// Returns the settings that a topic asks for, by Kafka's names; other brokers' descriptions need not report them.
fn wanted_settings(topic: &Topic) -> Vec<(String, String)> {
    let mut wanted: Vec<_> = topic.settings.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut add = |name: &str, value: Option<String>| wanted.extend(value.map(|value| (name.to_owned(), value)));
    let millis = |time: Duration| i64::try_from(time.as_millis()).map_or("-1".to_owned(), |millis| millis.to_string());
    add("retention.ms", topic.retention.map(millis));
    add("retention.bytes", topic.retention_bytes.map(|bytes| bytes.to_string()));
    add("max.message.bytes", topic.max_record_bytes.map(|bytes| bytes.to_string()));
    let cleanup = topic.cleanup.map(|cleanup| match cleanup {
        Cleanup::Delete => "delete",
        Cleanup::Compact => "compact",
        Cleanup::CompactAndDelete => "compact,delete",
    });
    add("cleanup.policy", cleanup.map(str::to_owned));
    wanted
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Mutex;
    use std::task::{Context, Poll, Waker};

    use async_trait::async_trait;

    use super::*;
    use crate::{
        CreatePartitionsOptions, GroupDescription, Guarantees, Health, PartitionDescription, PartitionLag,
        PartitionReset, ResetOffsetsOptions, ResetTo,
    };

    /// A broker on which another instance always creates topics first, and whose topics are never visible.
    #[derive(Debug, Default)]
    struct Slow {
        created: Mutex<Vec<Name>>,
    }

    fn unused<T>() -> Result<T> {
        Err(Error::new(ErrorKind::Unsupported, "it is not asked for this"))
    }

    #[async_trait]
    impl Admin for Slow {
        async fn create_topics(&self, topics: &[Topic]) -> Result<Vec<Result<()>>> {
            self.created.lock().unwrap().extend(topics.iter().map(|topic| topic.name.clone()));
            Ok(topics.iter().map(|_| Err(Error::new(ErrorKind::AlreadyExists, "it exists"))).collect())
        }
        async fn list_topics(&self) -> Result<Vec<Name>> {
            unused()
        }
        async fn describe_topics(&self, topics: &[Name]) -> Result<Vec<Result<TopicDescription>>> {
            Ok(topics.iter().map(|_| Err(Error::new(ErrorKind::NotFound, "it is not seen"))).collect())
        }
        async fn delete_topics(&self, _: &[Name]) -> Result<Vec<Result<()>>> {
            unused()
        }
        async fn create_partitions(&self, _: &Name, _: u32, _: CreatePartitionsOptions) -> Result<()> {
            unused()
        }
        async fn list_groups(&self) -> Result<Vec<Name>> {
            unused()
        }
        async fn describe_group(&self, _: &Name) -> Result<GroupDescription> {
            unused()
        }
        async fn group_lag(&self, _: &Name) -> Result<Vec<PartitionLag>> {
            unused()
        }
        async fn reset_offsets(
            &self,
            _: &Name,
            _: &[Name],
            _: ResetTo,
            _: ResetOffsetsOptions,
        ) -> Result<Vec<PartitionReset>> {
            unused()
        }
        async fn delete_group(&self, _: &Name) -> Result<()> {
            unused()
        }
        async fn health(&self) -> Result<Health> {
            unused()
        }
        fn guarantees(&self) -> Guarantees {
            Guarantees::all()
        }
    }

    /// Polls [`ensure_topics`] once; on this broker it never waits.
    fn ensured(admin: &Slow, topics: &[Topic]) -> Result<EnsureReport> {
        let mut ensuring = pin!(ensure_topics(admin, topics));
        match ensuring.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(report) => report,
            Poll::Pending => panic!("it waits"),
        }
    }

    #[test]
    fn a_topic_that_another_instance_created_and_that_is_not_seen_is_no_success() {
        let error = ensured(&Slow::default(), &[Topic::new("t")]).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().contains("topic \"t\"")),
            (ErrorKind::Unavailable, true),
            "{error}"
        );
    }

    #[test]
    fn an_impossible_name_is_refused_before_anything_is_created() {
        for (bad, named) in
            [("a b".to_owned(), "a b".to_owned()), ("x".repeat(240), format!("{}-dlq-state", "x".repeat(240)))]
        {
            let admin = Slow::default();
            let error = ensured(&admin, &[Topic::new("good"), Topic::new(bad)]).unwrap_err();
            assert_eq!(
                (error.kind(), error.report().contains(&named)),
                (ErrorKind::Invalid, true),
                "{}",
                error.report()
            );
            assert!(admin.created.lock().unwrap().is_empty());
        }
    }

    fn found(partitions: u32, settings: &[(&str, &str)]) -> TopicDescription {
        let mut found =
            TopicDescription::new("t", (0..partitions).map(|p| PartitionDescription::new(p, 0, 0)).collect());
        found.settings = settings.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        found
    }

    #[test]
    fn letters_are_kept_for_ever_and_have_room_for_why() {
        let topic = Topic::new("t").with_partitions(3).with_retention(Duration::from_secs(1)).with_replication(2);
        let letters = letters_of(&topic, Some(&found(3, &[("max.message.bytes", "1000")])));
        assert_eq!((letters.name.as_str(), letters.partitions, letters.replication), ("t-dlq", 3, Some(2)));
        assert_eq!((letters.retention, letters.cleanup), (Some(Duration::MAX), Some(Cleanup::Delete)));
        assert_eq!(letters.max_record_bytes, Some(1_000 + DEAD_LETTER_ROOM));
    }

    #[test]
    fn what_differs_is_named_with_both_sides() {
        let topic = Topic::new("t").with_partitions(3).with_retention(Duration::MAX).with_setting("x", "1");
        let all = differences(&topic, &found(2, &[("retention.ms", "604800000"), ("y", "2")]));
        let what: Vec<_> = all.iter().map(|d| (d.what.as_str(), d.wanted.as_str(), d.found.as_str())).collect();
        assert_eq!(what, [("partitions", "3", "2"), ("retention.ms", "-1", "604800000")]);
        assert!(differences(&topic, &found(3, &[("retention.ms", "-1")])).is_empty());
    }

    #[test]
    fn states_of_letters_are_compacted_by_the_brokers_clock() {
        let states = states_of(&Topic::new("t").with_partitions(3).with_replication(2));
        assert_eq!((states.name.as_str(), states.partitions, states.replication), ("t-dlq-state", 3, Some(2)));
        assert_eq!((states.cleanup, states.retention), (Some(Cleanup::Compact), None));
        assert_eq!(states.settings.get("message.timestamp.type").map(String::as_str), Some("LogAppendTime"));
    }
}
