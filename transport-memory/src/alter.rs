//! Changes of a topic's settings, by Kafka's names.

use std::time::Duration;

use tidings_core::{Cleanup, Error, ErrorKind, Result, Topic};

const RETENTION_MS: &str = "retention.ms";
const RETENTION_BYTES: &str = "retention.bytes";
const MAX_BYTES: &str = "max.message.bytes";
const CLEANUP: &str = "cleanup.policy";
/// The bound of the transport, the same for all topics.
const RETENTION_RECORDS: &str = "retention.records";

/// Kafka's other settings of a topic, which have no effect here.
const NO_EFFECT: &[&str] = &[
    "compression.type",
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.zstd.level",
    "delete.retention.ms",
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "index.interval.bytes",
    "local.retention.bytes",
    "local.retention.ms",
    "max.compaction.lag.ms",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.type",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "min.insync.replicas",
    "preallocate",
    "remote.storage.enable",
    "segment.bytes",
    "segment.index.bytes",
    "segment.jitter.ms",
    "segment.ms",
    "unclean.leader.election.enable",
];

/// Returns the topic to create, with the settings of `spec` checked and applied as [`change`] does.
///
/// # Errors
/// Those of [`change`], with the topic.
pub(crate) fn created(spec: &Topic) -> Result<Topic> {
    let mut topic = spec.clone();
    topic.settings.clear();
    for (name, value) in &spec.settings {
        let in_topic = |error: Error| error.in_context(format_args!("create topic {:?}", spec.name.as_str()));
        change(&mut topic, name, Some(value)).map_err(in_topic)?;
    }
    Ok(topic)
}

/// Changes one setting; without a value it returns to the transport's default.
///
/// # Errors
/// [`Invalid`](ErrorKind::Invalid) for a name that is no setting, a wrong value, or one that cannot be changed.
pub(crate) fn change(topic: &mut Topic, name: &str, value: Option<&str>) -> Result<()> {
    match name {
        RETENTION_MS => topic.retention = value.map(retention).transpose()?,
        RETENTION_BYTES => topic.retention_bytes = value.map(|value| bytes(name, value, -1)).transpose()?.flatten(),
        MAX_BYTES => topic.max_record_bytes = value.map(|value| bytes(name, value, 0)).transpose()?.flatten(),
        CLEANUP => topic.cleanup = value.map(cleanup).transpose()?,
        RETENTION_RECORDS => return Err(invalid(name, "it is the transport's and cannot be changed")),
        _ if NO_EFFECT.contains(&name) => {
            match value {
                Some(value) => topic.settings.insert(name.to_owned(), value.to_owned()),
                None => topic.settings.remove(name),
            };
        }
        _ => return Err(invalid(name, "there is no such setting of a topic")),
    }
    Ok(())
}

/// Returns the names of the settings that a topic has itself, and not from the transport.
pub(crate) fn own(topic: &Topic) -> Vec<String> {
    let typed = [
        (RETENTION_MS, topic.retention.is_some()),
        (RETENTION_BYTES, topic.retention_bytes.is_some()),
        (MAX_BYTES, topic.max_record_bytes.is_some()),
        (CLEANUP, topic.cleanup.is_some()),
    ];
    let typed = typed.into_iter().filter(|(_, set)| *set).map(|(name, _)| name.to_owned());
    typed.chain(topic.settings.keys().cloned()).collect()
}

fn retention(value: &str) -> Result<Duration> {
    match value.trim().parse::<i64>() {
        Ok(-1) => Ok(Duration::MAX),
        Ok(millis @ 0..) => Ok(Duration::from_millis(millis.unsigned_abs())),
        _ => Err(invalid(RETENTION_MS, "expected milliseconds, or -1 to keep records forever")),
    }
}

/// Reads a number of at least `least`; -1 is no limit of the topic's own.
fn bytes(name: &str, value: &str, least: i64) -> Result<Option<u64>> {
    let number = value.trim().parse::<i64>().ok().filter(|number| *number >= least);
    let number = number.ok_or_else(|| invalid(name, &format!("expected a number of bytes, {least} or more")))?;
    Ok(u64::try_from(number).ok())
}

fn cleanup(value: &str) -> Result<Cleanup> {
    let mut policies: Vec<&str> = value.split(',').map(str::trim).collect();
    policies.sort_unstable();
    match policies[..] {
        ["delete"] => Ok(Cleanup::Delete),
        ["compact"] => Ok(Cleanup::Compact),
        ["compact", "delete"] => Ok(Cleanup::CompactAndDelete),
        _ => Err(invalid(CLEANUP, "expected delete, compact, or both with a comma")),
    }
}

fn invalid(name: &str, why: &str) -> Error {
    let shown = &name[..name.floor_char_boundary(80)];
    Error::new(ErrorKind::Invalid, format!("setting {shown:?}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_created_with_settings_as_they_are_altered() {
        let spec = Topic::new("orders").with_setting("retention.ms", "7").with_setting("segment.ms", "1");
        let topic = created(&spec).unwrap();
        assert_eq!(topic.retention, Some(Duration::from_millis(7)));
        assert_eq!(topic.settings.keys().collect::<Vec<_>>(), ["segment.ms"]);
        for (name, value) in [("retention.sm", "7"), ("retention.ms", "soon"), ("retention.records", "7")] {
            let error = created(&Topic::new("orders").with_setting(name, value)).unwrap_err();
            let text = error.report();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(text.contains(name) && text.contains("orders") && !text.contains("soon"), "{text}");
        }
    }
}
