//! Why services need much memory.

use std::collections::BTreeMap;

use tidings_core::Name;

use super::sample::Sample;
use super::{Complaint, Finding};

/// The size of a record from which on it is large.
const LARGE: u64 = 8 << 20;
/// The number of partitions of one member from which on their buffers count.
const MANY: usize = 200;

pub(super) fn findings(sample: &Sample) -> Vec<Finding> {
    let mut all = Vec::new();
    let large: BTreeMap<&Name, u64> = sample
        .topics
        .values()
        .filter_map(|topic| Some((&topic.name, topic.settings.get("max.message.bytes")?.parse().ok()?)))
        .filter(|(_, bytes)| *bytes > LARGE)
        .collect();
    for (topic, bytes) in &large {
        let finding = format!("batches of up to {} MiB are allowed (max.message.bytes)", bytes >> 20);
        let remedy = "a member holds at least one whole batch, unpacked: lower it by `topic alter`, or set \
            `fetch_max_unpacked_bytes`; put large data elsewhere and publish a reference";
        all.push(Finding::hint(Complaint::Memory, topic.as_str(), finding, remedy));
    }
    for (group, _) in &sample.groups {
        for member in group.members.iter().filter(|member| member.partitions.len() >= MANY) {
            let finding = format!("{} has {} partitions", member.client, member.partitions.len());
            let remedy = "add instances; per partition a service keeps its offsets and counters";
            all.push(Finding::hint(Complaint::Memory, group.name.as_str(), finding, remedy));
        }
        if !group.members.is_empty() {
            let finding = format!("{} members, each with its bound of bytes in flight", group.members.len());
            let remedy = "`with_max_bytes_in_flight(m)`, 64 MiB by default, bounds what a service holds to about m and \
                one fetch for each broker; what lies beyond is the memory of its handlers: see /metrics";
            all.push(Finding::hint(Complaint::Memory, group.name.as_str(), finding, remedy));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use tidings_core::TopicDescription;

    use super::super::sample::sampled;
    use super::*;

    #[test]
    fn a_topic_of_large_batches_is_named() {
        let of = |bytes: &str| {
            let mut topic = TopicDescription::new("orders", Vec::new());
            topic.settings.insert("max.message.bytes".into(), bytes.into());
            findings(&sampled(Vec::new(), vec![topic])).len()
        };
        assert_eq!([of("1048588"), of("33554432"), of("none")], [0, 1, 0]);
    }
}
