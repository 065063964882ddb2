//! Committed offsets of groups without members.

use std::collections::BTreeSet;

use tidings_core::{Error, ErrorKind, GroupState, Name, Result, TopicPartition};

use crate::admin::KafkaAdmin;

impl KafkaAdmin {
    /// Refuses a group with members, which would commit over the new offsets. One that does not exist may be given
    /// offsets before any member joins.
    pub(crate) async fn refuse_members(&self, what: &str, group: &Name) -> Result<()> {
        match self.cluster.group(group).await {
            Ok(described) if described.state != GroupState::Empty || !described.members.is_empty() => {
                Err(Error::new(ErrorKind::Conflict, format!("{what} of group {group:?}: it has members")))
            }
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Sets offsets, once all of them are known to be in their logs.
    pub(crate) async fn set_offsets(&self, group: &Name, offsets: &[(TopicPartition, u64)]) -> Result<()> {
        self.refuse_members("alter offsets", group).await?;
        let topics: BTreeSet<&Name> = offsets.iter().map(|(at, _)| &at.topic).collect();
        let known = self.partitions(&topics.into_iter().cloned().collect::<Vec<_>>()).await?;
        if let Some((missing, _)) = offsets.iter().find(|(at, _)| !known.contains(at)) {
            let what = format!("alter offsets of group {group:?}: there is no partition {missing}");
            return Err(Error::new(ErrorKind::NotFound, what));
        }
        let bounds = self.bounds(&offsets.iter().map(|(at, _)| at.clone()).collect::<Vec<_>>()).await?;
        for (at, offset) in offsets {
            let (start, end) = bounds.get(at).copied().unwrap_or_default();
            if !(start..=end).contains(offset) {
                let what = format!("alter offsets of group {group:?}: the log of {at} has no offset {offset}");
                return Err(Error::new(ErrorKind::Invalid, what));
            }
        }
        self.cluster.commit_for(group, offsets).await
    }
}
