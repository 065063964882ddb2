//! A1, several in one call: each has its own answer in its place, and what is not named stays as it was.
//!
//! The cases give each topic and partition another state, so that answers in another order differ.

use std::time::Duration;

use tidings_core::{
    Admin, CreatePartitionsOptions, Error, ErrorKind, Name, PartitionLag, PartitionReset, ResetOffsetsOptions, ResetTo,
    Result, SeekTo, Timestamp, Topic, TopicPartition, Transport,
};

use super::a1::describe;
use super::fixture::{Fixture, numbered, partitions};
use crate::case::{Case, Checked, cases, granted, holds, refused, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    a1_topics_of_one_call_are_created_each_as_asked,
    a1_a_name_or_a_number_that_cannot_be_fails_alone,
    a1_a_thousand_names_are_answered_in_their_places,
    a1_topics_of_one_call_are_deleted_and_no_other,
    a1_a_deleted_topic_takes_its_commits_along,
    a1_topics_that_begin_alike_are_deleted_and_grown_apart,
    a1_growing_a_topic_without_records_needs_no_permission,
    a1_reset_moves_several_topics_and_no_other,
    a1_reset_far_beyond_the_log_goes_to_its_ends,
    a1_reset_goes_to_no_record_that_is_gone[DeletedRecords],
    a1_reset_with_a_missing_topic_moves_nothing,
    a1_groups_that_begin_alike_are_reset_and_deleted_apart,
];

fn kinds<T>(answers: &[Result<T>]) -> Vec<Option<ErrorKind>> {
    answers.iter().map(|a| a.as_ref().err().map(Error::kind)).collect()
}

async fn a1_topics_of_one_call_are_created_each_as_asked(fixture: &Fixture) -> Checked {
    let names = [(); 4].map(|()| fixture.fresh("topic"));
    let topic = |n: usize| {
        let retention = Duration::from_secs(86_400 * (n as u64 + 1));
        Topic::new(&names[n]).with_partitions(n as u32 + 1).with_retention(retention)
    };
    let admin = fixture.admin().await?;
    // The last one twice: the second of them is there already.
    let asked = [topic(2), topic(0), topic(3), topic(1), topic(3)];
    let answers = fixture.within("create", admin.create_topics(&asked)).await??;
    same("answers to create", vec![None, None, None, None, Some(ErrorKind::AlreadyExists)], kinds(&answers))?;
    for (n, name) in names.iter().enumerate() {
        fixture.described(name, n as u32 + 1).await?;
        let described = describe(fixture, name).await?;
        same("its name", name, &described.name)?;
        // A broker may report other settings, or none; one of this name is Kafka's.
        let millis = (86_400_000 * (n as u64 + 1)).to_string();
        let told = described.settings.get("retention.ms").cloned();
        holds(told.as_ref().is_none_or(|told| *told == millis), &format!("a retention of {millis} ms"), told)?;
    }
    Ok(())
}

/// Numbers that a signed type would take for negative ones, which stand for a default in some protocols.
async fn a1_a_name_or_a_number_that_cannot_be_fails_alone(fixture: &Fixture) -> Checked {
    let admin = fixture.admin().await?;
    let (first, last) = (fixture.fresh("topic"), fixture.fresh("topic"));
    let many = |count: u32| Topic::new(fixture.fresh("topic")).with_partitions(count);
    let asked = [Topic::new(&first), Topic::new("a b"), many(0), many(1 << 31), many(u32::MAX), Topic::new(&last)];
    let answers = fixture.within("create", admin.create_topics(&asked)).await??;
    let invalid = Some(ErrorKind::Invalid);
    same("answers to create", vec![None, invalid, invalid, invalid, invalid, None], kinds(&answers))?;
    fixture.described(&first, 1).await?;
    fixture.described(&last, 1).await?;
    let names = [first.clone(), "a b".into(), last];
    let answers = fixture.within("describe", admin.describe_topics(&names)).await??;
    same("the answer to describe a name that cannot be", invalid, kinds(&answers)[1])?;
    let rekeying = CreatePartitionsOptions::default().with_rekeying();
    let answer = fixture.within("grow", admin.create_partitions(&first, u32::MAX, rekeying)).await?;
    refused("partitions beyond any number", &[ErrorKind::Invalid], answer)?;
    same("partitions", 1, describe(fixture, &first).await?.partitions.len())
}

/// Two that are there are among them, one of them twice: a page, or a list without duplicates, is caught.
async fn a1_a_thousand_names_are_answered_in_their_places(fixture: &Fixture) -> Checked {
    const COUNT: usize = 1_100;
    let admin = fixture.admin().await?;
    let (one, two) = (fixture.topic(1).await?, fixture.topic(2).await?);
    let mut names: Vec<Name> = (0..COUNT - 3).map(|_| fixture.fresh("missing")).collect();
    names.insert(0, two.clone());
    names.insert(500, one.clone());
    names.push(two.clone());
    let expected: Vec<Option<(Name, usize)>> = names
        .iter()
        .map(|name| (*name == one || *name == two).then(|| (name.clone(), 1 + usize::from(*name == two))))
        .collect();
    fixture
        .eventually("descriptions in their places", || async {
            let answers = admin.describe_topics(&names).await?;
            same("answers to describe", COUNT, answers.len())?;
            let wrong = answers.iter().flat_map(|a| a.as_ref().err()).find(|e| e.kind() != ErrorKind::NotFound);
            holds(wrong.is_none(), "no error but not-found", wrong)?;
            let found: Vec<_> = answers.into_iter().map(|a| a.ok().map(|t| (t.name, t.partitions.len()))).collect();
            same("the answers to a name that is asked for twice", &found[0], &found[COUNT - 1])?;
            // Brokers other than the one that reported a topic may learn of it later.
            let late = found[0].is_none() || found[500].is_none();
            same("which names are found", !late, found == expected).map(|()| (!late).then_some(()))
        })
        .await
}

/// With one that is missing in between. The third one begins like the first.
async fn a1_topics_of_one_call_are_deleted_and_no_other(fixture: &Fixture) -> Checked {
    let (one, two) = (fixture.topic(1).await?, fixture.topic(2).await?);
    let other = Name::from(format!("{one}-eu"));
    fixture.create(Topic::new(&other)).await?;
    fixture.fill(&other, 0, 0, 3).await?;
    let admin = fixture.admin().await?;
    let asked = [one.clone(), fixture.fresh("missing"), two.clone()];
    let answers = fixture.within("delete", admin.delete_topics(&asked)).await??;
    same("answers to delete", vec![None, Some(ErrorKind::NotFound), None], kinds(&answers))?;
    fixture
        .eventually("a list in which only the other topic is left", || async {
            let listed = admin.list_topics().await?;
            let gone = !listed.contains(&one) && !listed.contains(&two);
            holds(listed.contains(&other), "the other topic in the list", &listed)?;
            Ok(gone.then_some(()))
        })
        .await?;
    same("the end of the other topic", 3, describe(fixture, &other).await?.partitions[0].end)
}

/// Creates a group without members that has committed these offsets, each on a partition with ten records.
async fn committed(fixture: &Fixture, group: &Name, commits: &[(&TopicPartition, u64)]) -> Checked {
    let topics: std::collections::BTreeSet<&Name> = commits.iter().map(|(p, _)| &p.topic).collect();
    let mut members = fixture.join(tidings_core::ConsumerOptions::new(group, topics)).await?;
    members.until("all partitions", |m| commits.iter().all(|(p, _)| m[0].owned.contains_key(*p))).await?;
    for (p, next) in commits {
        members[0].commit(p, *next).await?;
    }
    members.close(0).await
}

/// Returns the offsets that a group has committed, by partition; `None` where the broker knows no such group.
async fn commits_of(admin: &dyn Admin, group: &Name) -> Checked<Vec<(TopicPartition, Option<u64>)>> {
    match admin.group_lag(group).await {
        Ok(lag) => Ok(lag.into_iter().map(|l: PartitionLag| (l.partition, l.committed)).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// A topic that is created again under the name has other records at these offsets: a group reads all of them.
async fn a1_a_deleted_topic_takes_its_commits_along(fixture: &Fixture) -> Checked {
    let (topic, other) = (fixture.topic(1).await?, fixture.topic(1).await?);
    let (p, kept) = (TopicPartition::new(&topic, 0), TopicPartition::new(&other, 0));
    fixture.fill(&topic, 0, 0, 10).await?;
    fixture.fill(&other, 0, 0, 10).await?;
    let (group, admin) = (fixture.fresh("group"), fixture.admin().await?);
    committed(fixture, &group, &[(&p, 6), (&kept, 7)]).await?;
    for answer in fixture.within("delete", admin.delete_topics(std::slice::from_ref(&topic))).await?? {
        granted("delete", answer)?;
    }
    fixture
        .eventually("the commits of the other topic alone", || async {
            let left = commits_of(&*admin, &group).await?;
            Ok((left == [(kept.clone(), Some(7))]).then_some(()))
        })
        .await?;
    fixture.create(Topic::new(&topic)).await?;
    let records = fixture.fill(&topic, 0, 0, 8).await?;
    let mut members = fixture.join(tidings_core::ConsumerOptions::new(&group, [&topic, &other])).await?;
    members.records(0, 11).await?;
    members.rest().await?;
    super::fixture::same_records("records of the new topic", 0, &records, members[0].of(&p))?;
    same("what is committed of it", None, members[0].assignment(&p)?.committed)?;
    same("what is committed of the other topic", Some(7), members[0].assignment(&kept)?.committed)
}

async fn a1_topics_that_begin_alike_are_deleted_and_grown_apart(fixture: &Fixture) -> Checked {
    let first = fixture.topic(1).await?;
    let others = [format!("{first}-eu"), format!("{first}1"), first.to_uppercase()].map(Name::from);
    for (n, other) in others.iter().enumerate() {
        fixture.create(Topic::new(other)).await?;
        fixture.fill(other, 0, 0, 2 + n).await?;
    }
    let admin = fixture.admin().await?;
    fixture.within("grow", admin.create_partitions(&first, 3, CreatePartitionsOptions::default())).await??;
    fixture.described(&first, 3).await?;
    for answer in fixture.within("delete", admin.delete_topics(std::slice::from_ref(&first))).await?? {
        granted("delete", answer)?;
    }
    for (n, other) in others.iter().enumerate() {
        let ends: Vec<u64> = describe(fixture, other).await?.partitions.iter().map(|p| p.end).collect();
        same(&format!("partitions and records of {other}"), vec![2 + n as u64], ends)?;
    }
    Ok(())
}

/// Nor does a number that is as it was, even where keys would move.
async fn a1_growing_a_topic_without_records_needs_no_permission(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let admin = fixture.admin().await?;
    let grow = |count: u32| admin.create_partitions(&topic, count, CreatePartitionsOptions::default());
    fixture.within("grow", grow(3)).await??;
    fixture.described(&topic, 3).await?;
    fixture.publish((0..3).map(|p| numbered(&topic, p, 0)).collect()).await?;
    granted("the number that it has", fixture.within("grow", grow(3)).await?)?;
    let described = describe(fixture, &topic).await?;
    same("ends", vec![1, 1, 1], described.partitions.iter().map(|p| p.end).collect())
}

/// Three topics with ten records in partition 0 and four in partition 1, whose group has committed different offsets.
struct Behind {
    group: Name,
    topics: [Name; 3],
    all: Vec<TopicPartition>,
}

/// The offsets that the group of [`Behind`] has committed, by topic and partition.
const BEFORE: [u64; 6] = [2, 1, 5, 3, 7, 4];

async fn behind(fixture: &Fixture) -> Checked<Behind> {
    let mut topics = [fixture.topic(2).await?, fixture.topic(2).await?, fixture.topic(2).await?];
    topics.sort();
    for topic in &topics {
        fixture.fill(topic, 0, 0, 10).await?;
        fixture.fill(topic, 1, 0, 4).await?;
    }
    let all: Vec<TopicPartition> = topics.iter().flat_map(|topic| partitions(topic, 2)).collect();
    let group = fixture.fresh("group");
    let commits: Vec<_> = all.iter().zip(BEFORE).collect();
    committed(fixture, &group, &commits).await?;
    Ok(Behind { group, topics, all })
}

impl Behind {
    /// Resets these topics; answers what the broker does, but for members that it has not missed yet.
    async fn reset(&self, fixture: &Fixture, topics: &[Name], to: ResetTo) -> Checked<Result<Vec<PartitionReset>>> {
        let admin = fixture.admin().await?;
        fixture.note(format!("reset {topics:?} to {to:?}"));
        fixture
            .eventually("a group without members", || async {
                match admin.reset_offsets(&self.group, topics, to, ResetOffsetsOptions::default()).await {
                    Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
                    answer => Ok(Some(answer)),
                }
            })
            .await
    }

    /// Checks what is committed of each partition.
    async fn has(&self, fixture: &Fixture, what: &str, committed: [u64; 6]) -> Checked {
        let told = commits_of(&*fixture.admin().await?, &self.group).await?;
        let expected = self.all.iter().cloned().zip(committed.map(Some)).collect();
        same(&format!("committed after {what}"), expected, told)
    }
}

/// The first and the last of three topics: each partition by its own log and commit.
async fn a1_reset_moves_several_topics_and_no_other(fixture: &Fixture) -> Checked {
    let behind = behind(fixture).await?;
    let asked = [behind.topics[2].clone(), behind.topics[0].clone()];
    let mut now = BEFORE;
    for (to, after) in [
        (ResetTo::Shift(2), [4, 3, 5, 3, 9, 4]),
        (ResetTo::Shift(-1), [3, 2, 5, 3, 8, 3]),
        (ResetTo::Position(SeekTo::Latest), [10, 4, 5, 3, 10, 4]),
        (ResetTo::Position(SeekTo::Offset(7)), [7, 4, 5, 3, 7, 4]),
        (ResetTo::Position(SeekTo::Earliest), [0, 0, 5, 3, 0, 0]),
    ] {
        let mut moved = granted("reset", behind.reset(fixture, &asked, to).await?)?;
        moved.sort_by(|a, b| a.partition.cmp(&b.partition));
        let expected: Vec<PartitionReset> = [0, 1, 4, 5]
            .map(|n: usize| PartitionReset::new(behind.all[n].clone(), Some(now[n]), after[n]))
            .into_iter()
            .collect();
        same(&format!("moves by {to:?}"), expected, moved)?;
        behind.has(fixture, &format!("a reset to {to:?}"), after).await?;
        now = after;
    }
    Ok(())
}

/// Numbers that a narrower or a signed type would take for small or special ones.
async fn a1_reset_far_beyond_the_log_goes_to_its_ends(fixture: &Fixture) -> Checked {
    let behind = behind(fixture).await?;
    let asked = [behind.topics[0].clone()];
    let (ends, starts) = ([10, 4, 5, 3, 7, 4], [0, 0, 5, 3, 7, 4]);
    let time = |millis: i64| ResetTo::Position(SeekTo::Time(Timestamp::from_millis(millis)));
    let place = |offset: u64| ResetTo::Position(SeekTo::Offset(offset));
    for (to, after) in [
        (place((1 << 32) + 3), ends),
        (time(i64::MIN), starts),
        (place((1 << 53) + 1), ends),
        (ResetTo::Shift(i64::MIN), starts),
        (place(u64::MAX), ends),
        (time(-1), starts),
        (ResetTo::Shift(i64::MAX), ends),
        (ResetTo::Shift(-(1 << 33)), starts),
        (ResetTo::Shift((1 << 32) + 1), ends),
    ] {
        granted("reset", behind.reset(fixture, &asked, to).await?)?;
        behind.has(fixture, &format!("a reset to {to:?}"), after).await?;
    }
    Ok(())
}

/// A group that never committed begins at the oldest record as well.
async fn a1_reset_goes_to_no_record_that_is_gone(fixture: &Fixture) -> Checked {
    let behind = behind(fixture).await?;
    fixture.delete_records(&behind.all[0], 0..6).await?;
    let asked = [behind.topics[0].clone()];
    let place = |to: SeekTo| ResetTo::Position(to);
    for to in [place(SeekTo::Earliest), place(SeekTo::Offset(0)), ResetTo::Shift(-100)] {
        let moved = granted("reset", behind.reset(fixture, &asked, to).await?)?;
        same(&format!("where {to:?} went"), vec![6, 0], moved.iter().map(|m| m.to).collect())?;
        behind.has(fixture, &format!("a reset to {to:?}"), [6, 0, 5, 3, 7, 4]).await?;
    }
    let (admin, never) = (fixture.admin().await?, fixture.fresh("never"));
    let moved =
        fixture.within("reset", admin.reset_offsets(&never, &asked, ResetTo::Shift(1), Default::default())).await??;
    same("a shift without a commit", vec![(None, 7), (None, 1)], moved.iter().map(|m| (m.from, m.to)).collect())
}

async fn a1_reset_with_a_missing_topic_moves_nothing(fixture: &Fixture) -> Checked {
    let behind = behind(fixture).await?;
    let asked = [behind.topics[0].clone(), fixture.fresh("missing"), behind.topics[1].clone()];
    let answer = behind.reset(fixture, &asked, ResetTo::Position(SeekTo::Earliest)).await?;
    refused("a reset with a missing topic", &[ErrorKind::NotFound], answer)?;
    behind.has(fixture, "a refused reset", BEFORE).await?;
    // A dry run of a group that never ran creates none.
    let (admin, never) = (fixture.admin().await?, fixture.fresh("never"));
    let dry = ResetOffsetsOptions::default().with_dry_run();
    let to = ResetTo::Position(SeekTo::Earliest);
    fixture.within("dry run", admin.reset_offsets(&never, &behind.topics[..1], to, dry)).await??;
    let listed = fixture.within("list", admin.list_groups()).await??;
    holds(!listed.contains(&never), "no group by a dry run", listed)
}

/// The first one is reset, then deleted; the others keep their commits.
async fn a1_groups_that_begin_alike_are_reset_and_deleted_apart(fixture: &Fixture) -> Checked {
    let behind = behind(fixture).await?;
    let first = &behind.group;
    let others = [format!("{first}-eu"), format!("{first}1"), first.to_uppercase()].map(Name::from);
    let p = &behind.all[0];
    for (n, other) in others.iter().enumerate() {
        committed(fixture, other, &[(p, n as u64 + 6)]).await?;
    }
    let admin = fixture.admin().await?;
    let unmoved = async |what: &str| -> Checked {
        for (n, other) in others.iter().enumerate() {
            let expected: Vec<_> = vec![(p.clone(), Some(n as u64 + 6))];
            let told = commits_of(&*admin, other).await?.into_iter().filter(|(_, c)| c.is_some()).collect();
            same(&format!("what {other} has committed after {what} of {first}"), expected, told)?;
        }
        Ok(())
    };
    granted("reset", behind.reset(fixture, &behind.topics, ResetTo::Position(SeekTo::Earliest)).await?)?;
    unmoved("a reset").await?;
    granted("delete", fixture.within("delete", admin.delete_group(first)).await?)?;
    unmoved("a deletion").await?;
    let listed = fixture.within("list", admin.list_groups()).await??;
    holds(!listed.contains(first) && others.iter().all(|o| listed.contains(o)), "a list of the others", listed)
}
