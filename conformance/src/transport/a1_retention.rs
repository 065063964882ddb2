//! A1, retention: a topic's limits delete what lies beyond them, and nothing else.

use std::time::Duration;

use tidings_core::{Cleanup, Name, Record, Timestamp, Topic, TopicPartition, Transport};

use super::a1::describe;
use super::a1_settings::try_alter;
use super::fixture::{Fixture, numbered, same_records};
use crate::case::{Case, Checked, broken, cases, holds, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    a1_retention_deletes_what_is_older_and_nothing_else[RetentionCheck],
    a1_retention_leaves_the_young_of_a_partition[RetentionCheck],
    a1_retention_by_size_keeps_the_newest[RetentionCheck],
    a1_retention_by_size_leaves_what_is_within_it[RetentionCheck],
    a1_retention_by_size_counts_what_is_there[RetentionCheck, DeletedRecords],
    a1_retention_by_size_keeps_a_record_that_is_larger[RetentionCheck],
    a1_altered_retention_applies_to_existing_records[RetentionCheck],
    a1_retention_spares_topics_that_are_compacted[RetentionCheck],
];

/// By the records' own times: one partition's are two hours old, the other's a minute.
async fn a1_retention_deletes_what_is_older_and_nothing_else(fixture: &Fixture) -> Checked {
    let (kept, short) = (fixture.topic(1).await?, fixture.fresh("topic"));
    let hour = Duration::from_secs(3_600);
    fixture.create(Topic::new(&short).with_partitions(2).with_retention(hour)).await?;
    let at = |age: Duration| Timestamp::now().saturating_sub(age);
    let (old, young) = (at(hour * 2), at(Duration::from_secs(60)));
    for (topic, p, time) in [(&short, 0, old), (&short, 1, young), (&kept, 0, young)] {
        fixture.publish((0..5).map(|n| numbered(topic, p, n).with_timestamp(time)).collect()).await?;
    }
    fixture.check_retention().await?;
    let starts = async |topic: &Name| -> Checked<Vec<(u64, u64)>> {
        Ok(describe(fixture, topic).await?.partitions.iter().map(|p| (p.start, p.end)).collect())
    };
    fixture
        .eventually("old records are deleted", || async {
            let bounds = starts(&short).await?;
            let Some((start, 5)) = bounds.first() else { return broken("an end of 5", format!("{bounds:?}")) };
            Ok((*start == 5).then_some(()))
        })
        .await?;
    same("bounds of the topic with retention", vec![(5, 5), (0, 5)], starts(&short).await?)?;
    same("bounds of the topic without", vec![(0, 5)], starts(&kept).await?)
}

/// Old and young ones in one log, which was read in between. A broker deletes whole segments: some old ones may stay.
async fn a1_retention_leaves_the_young_of_a_partition(fixture: &Fixture) -> Checked {
    let topic = fixture.fresh("topic");
    fixture.create(Topic::new(&topic).with_retention(Duration::from_secs(3_600))).await?;
    let aged = |from: usize, age: u64| -> Vec<Record> {
        let time = Timestamp::now().saturating_sub(Duration::from_secs(age));
        (from..from + 5).map(|n| numbered(&topic, 0, n).with_timestamp(time)).collect()
    };
    let young = aged(5, 60);
    fixture.publish(young.clone()).await?;
    let old = aged(10, 7_200);
    fixture.publish(old).await?;
    fixture.check_retention().await?;
    fixture.pass(fixture.pace.quiet).await?;
    let mut members = fixture.reader(&topic).await?;
    members.records(0, 5).await?;
    same_records("the young before the old", 0, &young, &members[0].of(&TopicPartition::new(&topic, 0))[..5])?;
    // Ages that are mixed: the first young one keeps what is behind it.
    let mixed = fixture.fresh("topic");
    fixture.create(Topic::new(&mixed).with_retention(Duration::from_secs(3_600))).await?;
    for age in [7_200, 7_100, 60] {
        let time = Timestamp::now().saturating_sub(Duration::from_secs(age));
        fixture.publish((0..5).map(|n| numbered(&mixed, 0, n).with_timestamp(time)).collect()).await?;
        describe(fixture, &mixed).await?;
    }
    fixture.check_retention().await?;
    fixture.pass(fixture.pace.quiet).await?;
    let bounds = describe(fixture, &mixed).await?.partitions.first().map(|p| (p.start, p.end));
    holds(bounds.is_some_and(|(start, end)| start <= 10 && end == 15), "the five young ones", bounds)
}

/// Of thirty records of 1,000 bytes about a third may stay, and the newest does.
async fn a1_retention_by_size_keeps_the_newest(fixture: &Fixture) -> Checked {
    let topic = fixture.fresh("topic");
    fixture.create(Topic::new(&topic).with_retention_bytes(10_000)).await?;
    for n in 0..30 {
        fixture.publish(vec![Record::new(&topic, vec![n; 1_000])]).await?;
    }
    fixture.check_retention().await?;
    let bounds = fixture
        .eventually("old records are deleted", || async {
            let bounds = describe(fixture, &topic).await?.partitions.first().map(|p| (p.start, p.end));
            Ok(bounds.filter(|(start, _)| *start > 0))
        })
        .await?;
    holds(bounds.1 == 30 && bounds.0 < 30, "an end of 30, and the newest record", bounds)
}

/// The size of topics in bytes.
const LIMIT: u64 = 100_000;

async fn limited(fixture: &Fixture) -> Checked<Name> {
    let topic = fixture.fresh("topic");
    fixture.create(Topic::new(&topic).with_retention_bytes(LIMIT)).await?;
    Ok(topic)
}

/// Publishes records of 1,000 bytes and a little on top, five in a call.
async fn publish_thousands(fixture: &Fixture, topic: &Name, count: usize) -> Checked {
    for _ in 0..count / 5 {
        fixture.publish(vec![Record::new(topic, vec![b'v'; 1_000]); 5]).await?;
    }
    Ok(())
}

/// Returns the bounds of the log some time after retention was applied.
async fn bounds_at_last(fixture: &Fixture, topic: &Name) -> Checked<Option<(u64, u64)>> {
    fixture.check_retention().await?;
    fixture.pass(fixture.pace.quiet).await?;
    Ok(describe(fixture, topic).await?.partitions.first().map(|p| (p.start, p.end)))
}

async fn a1_retention_by_size_leaves_what_is_within_it(fixture: &Fixture) -> Checked {
    let topic = limited(fixture).await?;
    publish_thousands(fixture, &topic, 80).await?;
    same("bounds of a log of 80,000 bytes", Some((0, 80)), bounds_at_last(fixture, &topic).await?)
}

/// Records that were deleted before take no room any more, whether they went at once or in parts.
async fn a1_retention_by_size_counts_what_is_there(fixture: &Fixture) -> Checked {
    let topic = limited(fixture).await?;
    let p = TopicPartition::new(&topic, 0);
    publish_thousands(fixture, &topic, 40).await?;
    fixture.read_all(&topic, 1, 40).await?;
    publish_thousands(fixture, &topic, 40).await?;
    for end in [1, 7, 40, 55, 70] {
        fixture.delete_records(&p, 0..end).await?;
        same("bounds of a log in parts deleted", Some((end, 80)), bounds_at_last(fixture, &topic).await?)?;
    }
    publish_thousands(fixture, &topic, 80).await?;
    same("bounds of a log of 90,000 bytes", Some((70, 160)), bounds_at_last(fixture, &topic).await?)?;
    publish_thousands(fixture, &topic, 60).await?;
    let bounds = fixture
        .eventually("old records are deleted", || async {
            let bounds = describe(fixture, &topic).await?.partitions.first().map(|p| (p.start, p.end));
            Ok(bounds.filter(|(start, _)| *start > 70))
        })
        .await?;
    holds(bounds.1 == 220 && bounds.0 < 220, "an end of 220, and the newest record", bounds)
}

/// The newest record stays, whatever its size.
async fn a1_retention_by_size_keeps_a_record_that_is_larger(fixture: &Fixture) -> Checked {
    let topic = limited(fixture).await?;
    let large = |n: u64| Record::new(&topic, vec![b'l'; LIMIT as usize * 3]).with_header("n", n.to_string());
    fixture.publish(vec![large(0)]).await?;
    same("bounds of a log of one large record", Some((0, 1)), bounds_at_last(fixture, &topic).await?)?;
    fixture.publish(vec![large(1)]).await?;
    let bounds = bounds_at_last(fixture, &topic).await?;
    holds(bounds.is_some_and(|(start, end)| start < 2 && end == 2), "the newest of two large records", bounds)
}

/// Records that were published before the change count as well.
async fn a1_altered_retention_applies_to_existing_records(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    publish_thousands(fixture, &topic, 80).await?;
    try_alter(fixture, &topic, &[("retention.bytes", Some("1000000"))]).await??;
    same("bounds of a log within its limit", Some((0, 80)), bounds_at_last(fixture, &topic).await?)?;
    try_alter(fixture, &topic, &[("retention.bytes", Some("20000"))]).await??;
    fixture.check_retention().await?;
    let bounds = fixture
        .eventually("old records are deleted", || async {
            let bounds = describe(fixture, &topic).await?.partitions.first().map(|p| (p.start, p.end));
            Ok(bounds.filter(|(start, _)| *start > 0))
        })
        .await?;
    holds(bounds.1 == 80 && bounds.0 < 80, "an end of 80, and the newest record", bounds)
}

/// The last record of each key stays, whatever its age; here each record is the last of its key.
async fn a1_retention_spares_topics_that_are_compacted(fixture: &Fixture) -> Checked {
    let topic = fixture.fresh("topic");
    let hour = Duration::from_secs(3_600);
    let spec = Topic::new(&topic).with_cleanup(Cleanup::Compact).with_retention(hour).with_retention_bytes(LIMIT);
    fixture.create(spec).await?;
    let old = Timestamp::now().saturating_sub(hour * 2);
    let keyed = |n: usize| Record::new(&topic, vec![b'v'; LIMIT as usize]).with_key(format!("{n}")).with_timestamp(old);
    fixture.publish((0..3).map(keyed).collect()).await?;
    same("bounds of a compacted log", Some((0, 3)), bounds_at_last(fixture, &topic).await?)
}
