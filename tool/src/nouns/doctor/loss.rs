//! Why events are not handled at all.

use tidings_core::{PartitionDescription, TopicDescription, dead_letter_topic};

use super::sample::Sample;
use super::{Complaint, Finding, has_events};

pub(super) fn findings(sample: &Sample) -> Vec<Finding> {
    let mut all = Vec::new();
    for (group, lags) in &sample.groups {
        for lag in lags.iter().filter(|lag| lag.unknown.is_none()) {
            let subject = format!("{} {}", group.name, lag.partition);
            match lag.committed {
                Some(committed) if committed < lag.start => {
                    let finding = format!("records {committed}..{} were deleted before they were read", lag.start);
                    let remedy = "raise the topic's retention above the longest outage: `topic alter`, and alert on lag \
                        in seconds";
                    all.push(Finding::problem(Complaint::Loss, subject, finding, remedy));
                }
                Some(committed) if committed > lag.end => {
                    let finding = format!("committed {committed}, but the log ends at {}", lag.end);
                    let remedy = "the topic was recreated or lost its log; its new records up to there may be skipped: \
                        `group reset`";
                    all.push(Finding::problem(Complaint::Loss, subject, finding, remedy));
                }
                None if lag.end > lag.start && group.members.is_empty() => {
                    let finding = format!("nothing is committed of {} records", lag.end - lag.start);
                    let remedy = "the next member begins by its `Start`: with `Start::Latest` it skips them; \
                        `group reset --to earliest` reads them";
                    all.push(Finding::hint(Complaint::Loss, subject, finding, remedy));
                }
                _ => {}
            }
        }
    }
    for topic in sample.topics.values().filter(|topic| has_events(&topic.name)) {
        all.extend(of_topic(sample, topic));
    }
    all
}

fn of_topic(sample: &Sample, topic: &TopicDescription) -> Vec<Finding> {
    let mut all = Vec::new();
    let mut problem = |finding: String, remedy: &str| {
        all.push(Finding::problem(Complaint::Loss, topic.name.as_str(), finding, remedy));
    };
    let count = |is: &dyn Fn(&PartitionDescription) -> bool| topic.partitions.iter().filter(|p| is(p)).count();
    let offline = count(&PartitionDescription::is_offline);
    if offline > 0 {
        problem(format!("{offline} partitions have no leader"), "bring their brokers back: `check cluster`");
    }
    let single = count(&|p| p.replicas.len() == 1);
    if single > 0 {
        let finding = format!("{single} partitions are on one broker only: with its disk they are gone");
        problem(finding, "use a replication factor of 3");
    }
    let lagging = count(&|p| p.in_sync.len() < p.replicas.len());
    if lagging > 0 {
        let finding = format!("{lagging} partitions have replicas that are not in sync");
        problem(finding, "look at the brokers that lag: `check cluster`");
    }
    let setting = |name: &str| topic.settings.get(name).map(String::as_str);
    if setting("unclean.leader.election.enable") == Some("true") {
        let finding = "a replica that misses records may become leader (unclean.leader.election.enable)".to_owned();
        problem(finding, "set it to false: `topic alter`");
    }
    let is_replicated = topic.partitions.iter().any(|p| p.replicas.len() > 1);
    if is_replicated && setting("min.insync.replicas") == Some("1") {
        let finding = "a record counts as written on one broker (min.insync.replicas=1)".to_owned();
        problem(finding, "set it to 2: `topic alter`");
    }
    if setting("cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
        let finding = "it is compacted: of each key only the last record stays".to_owned();
        all.push(Finding::hint(Complaint::Loss, topic.name.as_str(), finding, "right for states, wrong for events"));
    }
    let letters = dead_letter_topic(&topic.name);
    if !sample.known.contains(&letters) {
        let finding = format!("{letters} does not exist: a poison record would hold its partition");
        let remedy = "create it, as services with `TopicPolicy::Create` do: `topic create --with-dead-letters`";
        all.push(Finding::hint(Complaint::Loss, topic.name.as_str(), finding, remedy));
    }
    all
}

#[cfg(test)]
mod tests {
    use tidings_core::{GroupDescription, GroupState, PartitionLag, TopicPartition};

    use super::super::sample::sampled;
    use super::*;

    fn texts(sample: &Sample) -> Vec<String> {
        findings(sample).into_iter().map(|finding| finding.finding).collect()
    }

    fn topic(replicas: &[i32], in_sync: &[i32], settings: &[(&str, &str)]) -> TopicDescription {
        let mut partition = PartitionDescription::new(0, 0, 9);
        (partition.leader, partition.replicas, partition.in_sync) = (Some(1), replicas.to_vec(), in_sync.to_vec());
        let mut topic = TopicDescription::new("orders", vec![partition]);
        topic.settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        topic
    }

    #[test]
    fn offsets_outside_of_the_log_are_lost_records() {
        let at = || TopicPartition::new("orders", 0);
        let of = |committed| {
            let group = GroupDescription::new("shop", GroupState::Empty, Vec::new());
            texts(&sampled(vec![(group, vec![PartitionLag::new(at(), committed, 5, 9)])], Vec::new()))
        };
        assert_eq!(of(Some(3)), ["records 3..5 were deleted before they were read"]);
        assert_eq!(of(Some(10)), ["committed 10, but the log ends at 9"]);
        assert_eq!(of(None), ["nothing is committed of 4 records"]);
        assert_eq!(of(Some(9)), [""; 0]);
    }

    #[test]
    fn a_topic_that_can_lose_records_is_named() {
        let letters = TopicDescription::new("orders-dlq", Vec::new());
        let of = |found| texts(&sampled(Vec::new(), vec![found, letters.clone()]));
        assert_eq!(of(topic(&[1, 2, 3], &[1, 2, 3], &[("min.insync.replicas", "2")])), [""; 0]);
        assert!(of(topic(&[1], &[1], &[]))[0].contains("on one broker only"));
        assert!(of(topic(&[1, 2], &[1], &[]))[0].contains("not in sync"));
        assert!(of(topic(&[1, 2], &[1, 2], &[("min.insync.replicas", "1")]))[0].contains("on one broker"));
        assert!(of(topic(&[1, 2], &[1, 2], &[("unclean.leader.election.enable", "true")]))[0].contains("unclean"));
        assert!(of(topic(&[1, 2], &[1, 2], &[("cleanup.policy", "compact,delete")]))[0].contains("compacted"));
        let alone = texts(&sampled(Vec::new(), vec![topic(&[1, 2], &[1, 2], &[])]));
        assert!(alone[0].contains("orders-dlq does not exist"));
    }
}
