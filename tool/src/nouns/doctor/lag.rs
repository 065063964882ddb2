//! Why a group falls behind.

use std::time::Duration;

use tidings_core::{GroupDescription, GroupState, PartitionLag, TopicPartition};

use super::sample::Sample;
use super::{Complaint, Finding};

/// The share of a group's lag from which on one partition has most of it.
const MOST: f64 = 0.8;
/// The number of partitions from which on a share means something.
const SEVERAL: usize = 4;

pub(super) fn findings(before: &Sample, after: &Sample, passed: Duration) -> Vec<Finding> {
    let mut all = Vec::new();
    for (group, lags) in &after.groups {
        all.extend(of_group(group, lags));
        if !group.members.is_empty() {
            all.extend(of_progress(before, group, lags, passed));
        }
    }
    all
}

fn problem(group: &GroupDescription, finding: String, remedy: &str) -> Finding {
    Finding::problem(Complaint::Lag, group.name.as_str(), finding, remedy)
}

fn hint(group: &GroupDescription, finding: String, remedy: &str) -> Finding {
    Finding::hint(Complaint::Lag, group.name.as_str(), finding, remedy)
}

/// Findings by the group's state alone.
fn of_group(group: &GroupDescription, lags: &[PartitionLag]) -> Vec<Finding> {
    let mut all = Vec::new();
    let behind: u64 = lags.iter().filter_map(PartitionLag::lag).sum();
    for lag in lags {
        if let Some(why) = &lag.unknown {
            all.push(problem(
                group,
                format!("the lag of {} is unknown: {why}", lag.partition),
                "look at `check cluster`",
            ));
        }
    }
    if group.members.is_empty() && behind > 0 {
        let finding = format!("no member, and {behind} records are not read");
        all.push(problem(group, finding, "start the service, or look at why it stops: its log and /readyz?verbose"));
        return all;
    }
    if group.state == GroupState::Rebalancing {
        let remedy = "repeat this in a minute; a group that stays so has members that come and go, as in a crash loop";
        all.push(problem(group, "it is rebalancing: no member may read".to_owned(), remedy));
    }
    let owned: Vec<&TopicPartition> = group.members.iter().flat_map(|member| &member.partitions).collect();
    let unowned: Vec<String> = lags
        .iter()
        .filter(|lag| lag.lag().is_some_and(|lag| lag > 0) && !owned.contains(&&lag.partition))
        .map(|lag| lag.partition.to_string())
        .collect();
    if !unowned.is_empty() && group.state == GroupState::Stable {
        let finding = format!("no member reads {}", unowned.join(", "));
        all.push(problem(group, finding, "check that all instances subscribe to the same topics: `group describe`"));
    }
    let idle = group.members.iter().filter(|member| member.partitions.is_empty()).count();
    if idle > 0 && behind > 0 && unowned.is_empty() {
        let finding = format!("{idle} of {} members have no partition", group.members.len());
        all.push(hint(group, finding, "more members than partitions do nothing: `topic grow`, or fewer instances"));
    }
    let most = lags.iter().max_by_key(|lag| lag.lag().unwrap_or_default());
    if let Some(most) =
        most.filter(|lag| lags.len() >= SEVERAL && lag.lag().unwrap_or_default() as f64 > MOST * behind as f64)
    {
        let finding = format!("{} has most of the lag", most.partition);
        all.push(hint(group, finding, "a hot key, or a handler that blocks there: `event tail` shows the keys"));
    }
    all
}

/// Findings by what was committed and published meanwhile.
fn of_progress(before: &Sample, group: &GroupDescription, lags: &[PartitionLag], passed: Duration) -> Vec<Finding> {
    let (mut all, mut read, mut published, mut behind) = (Vec::new(), 0, 0, 0);
    for lag in lags {
        let Some(then) = before.lag_of(&group.name, &lag.partition) else { continue };
        let (Some(left), Some(_)) = (lag.lag(), then.lag()) else { continue };
        let from = then.committed.unwrap_or(then.start);
        let progress = lag.committed.unwrap_or(lag.start).saturating_sub(from);
        read += progress;
        published += lag.end.saturating_sub(then.end);
        behind += left;
        let is_owned = group.members.iter().any(|member| member.partitions.contains(&lag.partition));
        if left > 0 && progress == 0 && then.lag().is_some_and(|lag| lag > 0) && is_owned {
            let at = lag.committed.map_or_else(|| "the start".to_owned(), |offset| format!("offset {offset}"));
            let finding = format!("{} stands at {at}, with {left} records behind it", lag.partition);
            let remedy = "its member's log and /status name the handler, the attempt and the cause: a slow or blocked \
                handler, a failing dependency, or a pause";
            all.push(problem(group, finding, remedy));
        }
    }
    let per_second = |records: u64| records as f64 / passed.as_secs_f64().max(0.001);
    if behind > 0 && read > 0 && published > read {
        let (out, into) = (per_second(read), per_second(published));
        let finding = format!("{behind} behind and falling: {out:.0} records/s are handled, {into:.0}/s published");
        let remedy = "add instances up to the number of partitions, raise `with_workers`, handle in batches, or look \
            for a slow handler in /metrics";
        all.push(problem(group, finding, remedy));
    } else if behind > 0 && read > published {
        let left = behind as f64 / (per_second(read) - per_second(published));
        let finding = format!("{behind} behind, and catching up: about {left:.0} s left");
        all.push(hint(group, finding, "wait"));
    }
    all
}

#[cfg(test)]
mod tests {
    use tidings_core::MemberDescription;

    use super::super::sample::sampled;
    use super::*;

    fn at(partition: u32) -> TopicPartition {
        TopicPartition::new("orders", partition)
    }

    fn group(members: &[&[u32]]) -> GroupDescription {
        let member = |own: &&[u32]| MemberDescription::new("m", "c", own.iter().map(|p| at(*p)).collect());
        let state = if members.is_empty() { GroupState::Empty } else { GroupState::Stable };
        GroupDescription::new("shop", state, members.iter().map(member).collect())
    }

    fn texts(members: &[&[u32]], then: &[(u64, u64)], now: &[(u64, u64)]) -> Vec<String> {
        let lags = |all: &[(u64, u64)]| {
            let lag = |(p, (committed, end)): (u32, &(u64, u64))| PartitionLag::new(at(p), Some(*committed), 0, *end);
            (0..).zip(all).map(lag).collect::<Vec<_>>()
        };
        let sample = |all| sampled(vec![(group(members), lags(all))], Vec::new());
        let found = findings(&sample(then), &sample(now), Duration::from_secs(2));
        found.into_iter().map(|finding| finding.finding).collect()
    }

    #[test]
    fn a_group_that_is_caught_up_has_no_finding() {
        assert_eq!(texts(&[&[0]], &[(9, 9)], &[(9, 9)]), [""; 0]);
        assert_eq!(texts(&[], &[(9, 9)], &[(9, 9)]), [""; 0]);
    }

    #[test]
    fn each_cause_is_told_from_the_others() {
        assert_eq!(texts(&[], &[(3, 9)], &[(3, 9)]), ["no member, and 6 records are not read"]);
        let stands = "orders[0] stands at offset 3, with 6 records behind it";
        assert_eq!(texts(&[&[0]], &[(3, 9)], &[(3, 9)]), [stands]);
        assert_eq!(
            texts(&[&[0]], &[(3, 9)], &[(5, 19)]),
            ["14 behind and falling: 1 records/s are handled, 5/s published"]
        );
        assert_eq!(texts(&[&[0]], &[(3, 19)], &[(11, 19)]), ["8 behind, and catching up: about 2 s left"]);
        assert_eq!(texts(&[&[0]], &[(9, 9), (3, 9)], &[(9, 9), (3, 9)]), ["no member reads orders[1]"]);
        let idle = texts(&[&[0], &[]], &[(3, 19)], &[(11, 19)]);
        assert_eq!(idle[0], "1 of 2 members have no partition");
        let hot = [(9, 9), (9, 9), (9, 9), (0, 9)];
        let found = texts(&[&[0, 1, 2, 3]], &hot, &[(9, 9), (9, 9), (9, 9), (1, 9)]);
        assert_eq!(found[0], "orders[3] has most of the lag");
    }
}
