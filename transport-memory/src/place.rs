//! Where a record goes: its partition, and whether its topic takes it.

use tidings_core::{Error, ErrorKind, Record, Result, partition_for};

use crate::topic::TopicLog;

/// Returns the partition of a record of `topic`, which has `partitions`, and the record's size in bytes.
pub(crate) fn place(topic: &TopicLog, partitions: usize, record: &Record) -> Result<(u32, usize)> {
    let count = partitions as u32;
    let size = check(topic, count, record)?;
    if record.key.is_some() {
        topic.set_keyed();
    }
    let partition = match (record.partition, &record.key) {
        (Some(named), _) => named,
        (None, Some(key)) => partition_for(key, count),
        (None, None) => topic.sticky(size, count),
    };
    Ok((partition, size))
}

/// Returns the size of a record that its topic, with `count` partitions, takes.
pub(crate) fn check(topic: &TopicLog, count: u32, record: &Record) -> Result<usize> {
    let size = record.size();
    if size as u64 > topic.max_record_bytes() {
        let (name, max) = (&topic.name, topic.max_record_bytes());
        let text = format!("publish to {name:?}: a record of {size} bytes exceeds max_record_bytes ({max})");
        return Err(Error::new(ErrorKind::TooLarge, text));
    }
    match record.partition {
        Some(named) if named >= count => {
            let text = format!("publish to {}[{named}]: there is no such partition, the topic has {count}", topic.name);
            Err(Error::new(ErrorKind::NotFound, text))
        }
        _ => Ok(size),
    }
}
