//! Inspection of a broker for its users: its health, the topics they need, and their groups.
//!
//! [`inspect`] composes methods of [`Admin`] into one answer for a health check or a command-line tool. It changes
//! nothing.

use crate::{
    Admin, ErrorKind, GroupDescription, GroupState, Health, Name, PartitionLag, Result, TopicPartition,
    dead_letter_topic, is_dead_letter_topic,
};

/// The result of [`inspect`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// The health of the broker. Its problems include missing topics, lagging groups without members, and partitions
    /// whose lag is unknown.
    pub health: Health,
    /// Required topics that do not exist, including dead-letter topics.
    pub missing: Vec<Name>,
    /// The groups, in the order in which they were requested.
    pub groups: Vec<GroupHealth>,
}

/// The health of a group.
///
/// `lag` may be a lower bound: partitions that no broker leads are listed in `unknown` and not counted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupHealth {
    /// The group's name.
    pub name: Name,
    /// The group's state; [`GroupState::Empty`] also for a group that never ran.
    pub state: GroupState,
    /// The number of members.
    pub members: usize,
    /// The number of offsets still to be read, over all partitions except those that are `unknown`.
    pub lag: u64,
    /// Partitions whose lag is unknown now, because no broker leads them.
    pub unknown: Vec<TopicPartition>,
}

/// Inspects a broker: its [`Health`], whether `topics` and their dead-letter topics exist, and the lag of `groups`
/// (of all groups, if none is named).
///
/// ```
/// # use tidings_core::{Admin, Result, inspect};
/// # async fn example(admin: &dyn Admin) -> Result<()> {
/// let found = inspect(admin, &["user-events".into()], &["user-service-group".into()]).await?;
/// for problem in &found.health.problems {
///     println!("{problem}");
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Unavailable`](ErrorKind::Unavailable) if nothing answers, [`Denied`](ErrorKind::Denied) without permission to
/// look.
///
/// # Cancel safety
/// It only looks: dropping the future has no effect.
pub async fn inspect(admin: &dyn Admin, topics: &[Name], groups: &[Name]) -> Result<Inspection> {
    let mut found = Inspection { health: admin.health().await?, ..Inspection::default() };
    found.missing = missing(admin, topics).await?;
    found.health.problems.extend(found.missing.iter().map(|topic| format!("topic {topic:?} is missing")));
    let all = if groups.is_empty() { admin.list_groups().await? } else { groups.to_vec() };
    let (described, lags) = (admin.describe_groups(&all).await?, admin.group_lags(&all).await?);
    for ((name, described), lag) in all.into_iter().zip(described).zip(lags) {
        let group = group(name, described, lag)?;
        if group.members == 0 && group.lag > 0 {
            found.health.problems.push(format!("group {:?} has no members and a lag of {}", group.name, group.lag));
        }
        let unknown = |at: &TopicPartition| format!("the lag of group {:?} on {at} is unknown", group.name);
        found.health.problems.extend(group.unknown.iter().map(unknown));
        found.groups.push(group);
    }
    Ok(found)
}

/// Returns those of `topics` and their dead-letter topics that do not exist, each once.
async fn missing(admin: &dyn Admin, topics: &[Name]) -> Result<Vec<Name>> {
    let mut needed: Vec<Name> = Vec::new();
    for topic in topics {
        let letters = (!is_dead_letter_topic(topic)).then(|| dead_letter_topic(topic));
        for topic in [Some(topic.clone()), letters].into_iter().flatten() {
            if !needed.contains(&topic) {
                needed.push(topic);
            }
        }
    }
    let mut missing = Vec::new();
    for (topic, described) in needed.iter().zip(admin.describe_topics(&needed).await?) {
        match described {
            Err(error) if error.kind() == ErrorKind::NotFound => missing.push(topic.clone()),
            described => drop(described?),
        }
    }
    Ok(missing)
}

/// Returns the health of a group; a group that has never run is empty, not an error.
fn group(name: Name, described: Result<GroupDescription>, lag: Result<Vec<PartitionLag>>) -> Result<GroupHealth> {
    let described = known(described)?;
    let described = described.unwrap_or_else(|| GroupDescription::new(name.clone(), GroupState::Empty, Vec::new()));
    let lag = known(lag)?.unwrap_or_default();
    let unknown = lag.iter().filter(|at| at.unknown.is_some()).map(|at| at.partition.clone()).collect();
    let lag = lag.iter().filter_map(PartitionLag::lag).fold(0, u64::saturating_add);
    Ok(GroupHealth { name, state: described.state, members: described.members.len(), lag, unknown })
}

/// Returns `None` for a group that has never run, or was deleted since it was listed.
fn known<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        answer => answer.map(Some),
    }
}
