//! A1, long lists and outages: no page is left out, and a broker that does not answer is no empty one.

use tidings_core::{ErrorKind, Name, ResetOffsetsOptions, ResetTo, SeekTo, Topic, Transport};

use super::fixture::Fixture;
use crate::case::{Broken, Case, Checked, cases, granted, holds, refused, same};
use crate::setup::Clock;

pub(super) const CASES: &[Case<dyn Transport>] =
    cases![a1_more_than_a_thousand_topics_and_groups_are_listed, a1_nothing_is_answered_in_an_outage[Outage],];

/// Only on a paused clock: a real broker needs minutes for this number.
async fn a1_more_than_a_thousand_topics_and_groups_are_listed(fixture: &Fixture) -> Checked {
    if fixture.pace.clock == Clock::Real {
        return Err(Broken::Ignored("a thousand topics take too long on a real clock".into()));
    }
    let admin = fixture.admin().await?;
    let mut topics: Vec<Name> = (0..1_050).map(|_| fixture.fresh("topic")).collect();
    let asked: Vec<Topic> = topics.iter().map(Topic::new).collect();
    for answer in fixture.within("create", admin.create_topics(&asked)).await?? {
        granted("create", answer)?;
    }
    topics.sort();
    let among = |listed: Vec<Name>, mine: &[Name]| -> Vec<Name> {
        listed.into_iter().filter(|name| mine.binary_search(name).is_ok()).collect()
    };
    let listed = fixture.within("list", admin.list_topics()).await??;
    holds(listed.is_sorted(), "a sorted list", listed.len())?;
    same("topics in the list", &topics, &among(listed, &topics))?;
    let described = fixture.within("describe", admin.describe_topics(&topics)).await??;
    let names: Vec<Name> = described.into_iter().flatten().map(|d| d.name).collect();
    same("descriptions, each in its place", &topics, &names)?;
    let mut groups: Vec<Name> = (0..1_050).map(|_| fixture.fresh("group")).collect();
    let (to, options) = (ResetTo::Position(SeekTo::Earliest), ResetOffsetsOptions::default());
    for group in &groups {
        fixture.within("reset", admin.reset_offsets(group, &topics[..1], to, options)).await??;
    }
    groups.sort();
    let listed = fixture.within("list", admin.list_groups()).await??;
    holds(listed.is_sorted(), "a sorted list", listed.len())?;
    same("groups in the list", &groups, &among(listed, &groups))?;
    for answer in fixture.within("delete", admin.delete_topics(&topics)).await?? {
        granted("delete", answer)?;
    }
    let left = among(fixture.within("list", admin.list_topics()).await??, &topics);
    same("topics after their deletion", 0, left.len())
}

/// An empty list would look as if everything were gone, and a success as if it were done.
async fn a1_nothing_is_answered_in_an_outage(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let mut members = fixture.reader(&topic).await?;
    members.owns(0, &topic, 1).await?;
    members[0].commit(&tidings_core::TopicPartition::new(&topic, 0), 0).await?;
    let group = members[0].options.group.clone();
    members.close(0).await?;
    let (admin, late, names) = (fixture.admin().await?, fixture.fresh("late"), [topic.clone()]);
    fixture.outage(true).await?;
    let checked = async {
        let down = &[ErrorKind::Unavailable, ErrorKind::Indeterminate];
        let asked = [Topic::new(&late)];
        let each = |answers: tidings_core::Result<Vec<tidings_core::Result<()>>>| answers.and_then(|mut a| a.remove(0));
        refused("a list of topics", down, fixture.within("list", admin.list_topics()).await?)?;
        refused("a list of groups", down, fixture.within("list", admin.list_groups()).await?)?;
        refused("a lag", down, fixture.within("lag", admin.group_lag(&group)).await?)?;
        refused("a group", down, fixture.within("describe", admin.describe_group(&group)).await?)?;
        refused("a creation", down, each(fixture.within("create", admin.create_topics(&asked)).await?))?;
        refused("a deletion", down, each(fixture.within("delete", admin.delete_topics(&names)).await?))?;
        let described = fixture.within("describe", admin.describe_topics(&names)).await?.and_then(|mut d| d.remove(0));
        refused("a description", down, described)
    };
    let checked = checked.await;
    fixture.outage(false).await?;
    checked?;
    // A change that was refused as unavailable did not happen.
    fixture.described(&topic, 1).await
}
