//! Group operations.
//!
//! Groups of both protocols are described by one request each; their states have different names,
//! which [`described`] maps to ours. A group without commits and members is `NotFound`, as in
//! memory.

use std::time::Duration;

use krafka::admin::{
    AlterConsumerGroupOffsetsOptions, ConfigResource, ConsumerGroupDescription, DeleteConsumerGroupsOptions,
    DescribeConfigsOptions, DescribeConsumerGroupsOptions, ListConsumerGroupsOptions,
    TopicPartition as ClientPartition,
};
use tidings_core::{Error, ErrorKind, GroupDescription, GroupState, MemberDescription, Name, Result, TopicPartition};

use super::ClusterClient;
use crate::client::fetcher::index;
use crate::error::failed;

/// The group's session timeout setting.
///
/// Members of the newer protocol get it from the broker; a member's own timeout is not sent.
const SESSION_TIMEOUT: &str = "consumer.session.timeout.ms";

impl ClusterClient {
    /// Returns the names of all groups, sorted; every broker is asked for those that it
    /// coordinates.
    ///
    /// # Errors
    /// Those of the first broker that fails: an incomplete list would pass for a complete one.
    pub(crate) async fn list_groups(&self) -> Result<Vec<Name>> {
        let asked = self.client().list_consumer_groups(ListConsumerGroupsOptions::default().timeout(self.limit)).await;
        let mut names = Vec::new();
        for (broker, groups) in asked.map_err(|e| failed("list groups", e))? {
            let groups = groups.map_err(|e| failed(format!("list groups of broker {broker}"), e))?;
            names.extend(groups.into_iter().map(|g| Name::from(g.group_id)));
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Describes a group.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is none of the name,
    /// [`Invalid`](ErrorKind::Invalid) for a name that no group can have.
    pub(crate) async fn group(&self, name: &str) -> Result<GroupDescription> {
        self.groups(&[Name::from(name)]).await?.remove(0)
    }

    /// Describes groups, each coordinator's in one request; answer `i` is group `i`'s.
    ///
    /// # Errors
    /// Those of [`group`](Self::group), for each group.
    pub(crate) async fn groups(&self, names: &[Name]) -> Result<Vec<Result<GroupDescription>>> {
        let options = DescribeConsumerGroupsOptions::default().timeout(self.limit);
        let possible = names.iter().filter(|name| check_group_name(name).is_ok()).map(Name::as_str);
        let asked = self.client().describe_consumer_groups(possible, options).await;
        let answers = asked.map_err(|e| failed("describe groups", e))?;
        let answer = |name: &Name| {
            check_group_name(name)?;
            let what = || format!("describe group {name:?}");
            let group = answers.get(name.as_str()).ok_or_else(|| Error::new(ErrorKind::NotFound, what()))?;
            let group = group.as_ref().map_err(|e| failed(what(), e.clone()))?;
            // The classic protocol reports an unknown group as dead.
            if group.state.eq_ignore_ascii_case("dead") {
                return Err(Error::new(ErrorKind::NotFound, what()));
            }
            Ok(described(name, group.clone()))
        };
        Ok(names.iter().map(answer).collect())
    }

    /// Returns the session timeout of the newer protocol, as set for the group or else for the cluster.
    ///
    /// `None` if the broker does not report the setting, as older ones do not.
    pub(crate) async fn session(&self, group: &str) -> Result<Option<Duration>> {
        let what = || format!("read the session timeout of group {group:?}");
        let resource = ConfigResource::group(group);
        let options = DescribeConfigsOptions::default().timeout(self.limit);
        let mut answers =
            self.client().describe_configs([resource.clone()], options).await.map_err(|e| failed(what(), e))?;
        let entries = answers.remove(&resource).ok_or_else(|| Error::new(ErrorKind::NotFound, what()))?;
        let entries = entries.map_err(|e| failed(what(), e))?;
        let set = entries.into_iter().find(|entry| entry.name == SESSION_TIMEOUT).and_then(|entry| entry.value);
        Ok(set.and_then(|millis| millis.parse().ok()).map(Duration::from_millis))
    }

    /// Deletes a group and its commits.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) while it has members.
    /// [`Indeterminate`](ErrorKind::Indeterminate) if the answer does not mention the group.
    pub(crate) async fn delete_group(&self, name: &str) -> Result<()> {
        check_group_name(name)?;
        let what = || format!("delete group {name:?}");
        let options = DeleteConsumerGroupsOptions::default().timeout(self.limit);
        let mut answers = self.client().delete_consumer_groups([name], options).await.map_err(|e| failed(what(), e))?;
        let answer = answers.remove(name).ok_or_else(|| Error::new(ErrorKind::Indeterminate, what()))?;
        answer.map_err(|e| failed(what(), e))
    }

    /// Sets the committed offsets of a group without members.
    ///
    /// Not atomic: a refusal of one partition leaves the offsets of others set.
    pub(crate) async fn commit_for(&self, group: &str, offsets: &[(TopicPartition, u64)]) -> Result<()> {
        check_group_name(group)?;
        let offsets = offsets
            .iter()
            .map(|(at, next)| (ClientPartition::new(at.topic.as_str(), index(at)), i64::try_from(*next).unwrap_or(0)));
        let options = AlterConsumerGroupOffsetsOptions::default().timeout(self.limit);
        let answers = self.client().alter_consumer_group_offsets(group, offsets, options).await;
        let what = |at: &str| format!("reset offsets of group {group:?}{at}");
        for (at, answer) in answers.map_err(|e| failed(what(""), e))? {
            answer.map_err(|e| failed(what(&format!(" on {}[{}]", at.topic(), at.partition())), e))?;
        }
        Ok(())
    }
}

/// The longest group name that fits a request.
///
/// The length is a signed 16-bit number on the wire.
const MAX_GROUP_NAME_BYTES: usize = 32_767;

/// Checks that a group can have this name. The client would call it undecodable.
pub(crate) fn check_group_name(name: &str) -> Result<()> {
    if (1..=MAX_GROUP_NAME_BYTES).contains(&name.len()) {
        return Ok(());
    }
    let (shown, long) = (&name[..name.floor_char_boundary(80)], name.len());
    let what = format!("group {shown:?} of {long} bytes: a group name has 1 to {MAX_GROUP_NAME_BYTES} bytes");
    Err(Error::new(ErrorKind::Invalid, what))
}

/// Converts a description; states that this version does not know become `Unknown`.
fn described(name: &str, group: ConsumerGroupDescription) -> GroupDescription {
    let state = match group.state.to_lowercase().as_str() {
        "empty" => GroupState::Empty,
        "stable" => GroupState::Stable,
        "assigning" | "reconciling" | "preparingrebalance" | "completingrebalance" => GroupState::Rebalancing,
        _ => GroupState::Unknown,
    };
    let members = group.members.into_iter().map(|member| {
        let assigned = member.assignment.unwrap_or_default().into_iter().flat_map(|topic| {
            let name = Name::from(topic.topic_name);
            topic.partitions.into_iter().map(move |p| TopicPartition::new(name.clone(), u32::try_from(p).unwrap_or(0)))
        });
        let mut partitions: Vec<_> = assigned.collect();
        partitions.sort();
        MemberDescription::new(member.member_id, member.client_id, partitions)
    });
    GroupDescription::new(name, state, members.collect())
}
