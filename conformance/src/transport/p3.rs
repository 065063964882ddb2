//! P3: the same key goes to the same partition, in the order of the calls' first polls.
//!
//! Services in other languages publish to the same topics, so a key's partition is part of the
//! contract: murmur2, as in Kafka's Java client.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use tidings_core::{Position, Publisher, PublisherExt, Record, Result, Topic, Transport, partition_for};

use super::fixture::{Fixture, numbered};
use crate::case::{Case, Checked, cases, granted, holds, only, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    p3_keys_go_where_java_puts_them,
    p3_keys_of_any_bytes_and_length_are_hashed_whole,
    p3_a_key_keeps_its_partition_whoever_publishes,
    p3_a_named_partition_wins_over_the_key,
    p3_a_record_without_a_key_goes_somewhere,
    p3_records_without_a_key_use_every_partition,
    p3_a_key_keeps_its_order_within_a_call,
    p3_a_key_keeps_its_order_from_call_to_call,
    p3_calls_keep_the_order_of_their_first_polls,
    p3_a_flood_of_large_records_keeps_its_order,
    p3_small_records_do_not_overtake_large_ones,
];

/// Keys and Java's hashes of them, from Apache Kafka's own `UtilsTest.testMurmur2`.
const JAVA: [(&str, i32); 7] = [
    ("21", -973_932_308),
    ("foobar", -790_332_482),
    ("a-little-bit-long-string", -985_981_536),
    ("a-little-bit-longer-string", -1_486_304_829),
    ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
    ("abc", 479_470_107),
    ("", 275_646_681),
];

async fn p3_keys_go_where_java_puts_them(fixture: &Fixture) -> Checked {
    for partitions in [3, 12] {
        let topic = fixture.topic(partitions).await?;
        let records = JAVA.iter().map(|(key, _)| Record::new(&topic, "v").with_key(*key)).collect();
        let positions = fixture.publish(records).await?;
        for ((key, hash), position) in JAVA.iter().zip(positions) {
            let expected = (hash & 0x7fff_ffff) as u32 % partitions;
            same(&format!("the partition of {key:?} among {partitions}"), expected, position.partition)?;
        }
    }
    Ok(())
}

/// Catches a hash of a prefix, of text, or of signed bytes. The keys are of each length modulo 4, and long ones differ
/// only at their end.
async fn p3_keys_of_any_bytes_and_length_are_hashed_whole(fixture: &Fixture) -> Checked {
    const COUNT: u32 = 7;
    let topic = fixture.topic(COUNT).await?;
    let key = |length: usize, last: u8| {
        let mut key: Vec<u8> = (0..length).map(|n| (n * 37 + 200) as u8).collect();
        key.extend([last]);
        key
    };
    let lengths = (0..9).chain([254, 255, 256, 257, 1_000, 70_000]);
    let keys: Vec<Vec<u8>> =
        lengths.flat_map(|length| [0x00, 0x7f, 0x80, 0xff].map(|last| key(length, last))).collect();
    let records: Vec<Record> = keys.iter().map(|key| Record::new(&topic, "v").with_key(key.clone())).collect();
    let mut positions = fixture.publish(records.clone()).await?;
    let publisher = fixture.publisher().await?;
    for record in records {
        positions.push(granted("a record alone", fixture.within("an answer", publisher.publish_one(record)).await?)?);
    }
    for (key, position) in keys.iter().chain(&keys).zip(positions) {
        let what = format!("the partition of a key of {} bytes that ends with {:?}", key.len(), key.last());
        same(&what, partition_for(key, COUNT), position.partition)?;
    }
    Ok(())
}

async fn p3_a_key_keeps_its_partition_whoever_publishes(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(5).await?;
    let keyed = || (0..20).map(|n| Record::new(&topic, "v").with_key(format!("k{n}"))).collect();
    let first = fixture.publish(keyed()).await?;
    let second = fixture.publish(keyed()).await?;
    let of = |positions: Vec<Position>| positions.into_iter().map(|p| p.partition).collect::<Vec<_>>();
    same("partitions of the same keys", of(first), of(second))
}

/// Redrives and mirrors put a record where it was.
async fn p3_a_named_partition_wins_over_the_key(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(4).await?;
    let records = (0..4).map(|p| Record::new(&topic, "v").with_key("one key").with_partition(p)).collect();
    let positions = fixture.publish(records).await?;
    same("the partitions that were named", vec![0, 1, 2, 3], positions.iter().map(|p| p.partition).collect())?;
    let publisher = fixture.publisher().await?;
    for p in 0..4 {
        let record = Record::new(&topic, "v").with_key("one key").with_partition(p);
        let answer = fixture.within("an answer", publisher.publish_one(record)).await?;
        same("the partition that one record names", p, granted("a record alone", answer)?.partition)?;
    }
    Ok(())
}

async fn p3_a_record_without_a_key_goes_somewhere(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(3).await?;
    let positions = fixture.publish((0..30).map(|n| Record::new(&topic, format!("{n}"))).collect()).await?;
    holds(positions.iter().all(|p| p.partition < 3), "partitions of the topic", &positions)?;
    fixture.read_all(&topic, 3, 30).await.map(drop)
}

/// Batches of some kilobytes may stay together; all of them may not.
async fn p3_records_without_a_key_use_every_partition(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(3).await?;
    let publisher = fixture.publisher().await?;
    let mut counts = [0_usize; 3];
    let has_all = |counts: &[usize; 3]| counts.iter().all(|count| *count >= 100);
    // A publisher may fill a batch of one partition before it picks the next one, at random.
    for _ in 0..500 {
        let records = vec![Record::new(&topic, vec![b'v'; 1_000]); 20];
        for position in fixture.publish_by(&*publisher, records).await? {
            counts[position.partition as usize % 3] += 1;
        }
        if has_all(&counts) {
            break;
        }
    }
    holds(has_all(&counts), "a share of 10,000 records for each of 3 partitions", counts)
}

/// Checks that offsets grow within one partition.
pub(super) fn in_order(what: &str, positions: &[Position]) -> Checked {
    let one = positions.iter().all(|p| Some(p.partition) == positions.first().map(|f| f.partition));
    holds(one, "one partition for one key", positions)?;
    holds(positions.is_sorted_by(|a, b| a.offset < b.offset), what, positions)
}

/// Several keys are interleaved; each must be stored in its own order.
async fn p3_a_key_keeps_its_order_within_a_call(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(3).await?;
    let records = (0..200).map(|n| Record::new(&topic, format!("{n}")).with_key(format!("k{}", n % 4))).collect();
    let positions = fixture.publish(records).await?;
    for key in 0..4 {
        let of: Vec<Position> = positions.iter().skip(key).step_by(4).copied().collect();
        in_order("the order within the call", &of)?;
    }
    Ok(())
}

async fn p3_a_key_keeps_its_order_from_call_to_call(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(3).await?;
    let publisher = fixture.publisher().await?;
    let mut all = Vec::new();
    for n in 0..20 {
        let record = Record::new(&topic, format!("{n}")).with_key("k");
        all.extend(fixture.publish_by(&*publisher, vec![record]).await?);
    }
    in_order("the order of the calls", &all)
}

/// A call of `publish` that the case polls itself.
pub(super) type Publishing<'a> = Pin<Box<dyn Future<Output = Vec<Result<Position>>> + Send + 'a>>;

/// Publishes a single record, every second one as a list, since both calls share one order.
pub(super) fn alone(publisher: &dyn Publisher, n: usize, record: Record) -> Publishing<'_> {
    if n.is_multiple_of(2) {
        publisher.publish(vec![record])
    } else {
        Box::pin(async move { vec![publisher.publish_one(record).await] })
    }
}

/// Polls all once in order, then in reverse order until each is done.
pub(super) async fn first_polled_in_order(mut calls: Vec<Publishing<'_>>) -> Vec<Vec<Result<Position>>> {
    let mut done: Vec<Option<Vec<Result<Position>>>> = calls.iter().map(|_| None).collect();
    let mut first = true;
    poll_fn(|task| {
        let order: Vec<usize> = if first { (0..calls.len()).collect() } else { (0..calls.len()).rev().collect() };
        first = false;
        for i in order {
            if done[i].is_none()
                && let Poll::Ready(answers) = calls[i].as_mut().poll(task)
            {
                done[i] = Some(answers);
            }
        }
        if done.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

/// Calls that are all pending at once, which a retry inside the backend could reorder.
async fn concurrent(fixture: &Fixture, records: Vec<Record>) -> Checked {
    let publisher = fixture.publisher().await?;
    let calls = records.into_iter().enumerate().map(|(n, record)| alone(&*publisher, n, record)).collect();
    let mut positions = Vec::new();
    for answers in fixture.within("answers to all calls", first_polled_in_order(calls)).await? {
        positions.push(granted("a concurrent publish", only("answers to one record", answers)?)?);
    }
    in_order("the order of the first polls", &positions)
}

async fn p3_calls_keep_the_order_of_their_first_polls(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(3).await?;
    concurrent(fixture, (0..300).map(|n| Record::new(&topic, format!("{n}")).with_key("k")).collect()).await
}

/// The bound in bytes makes calls wait in the midst of the flood.
async fn p3_a_flood_of_large_records_keeps_its_order(fixture: &Fixture) -> Checked {
    let topic = fixture.fresh("topic");
    fixture.create(Topic::new(&topic).with_partitions(1).with_max_record_bytes(4 << 20)).await?;
    // More than any sensible bound in bytes, without being hard on a small machine: one value, shared.
    let value = bytes::Bytes::from(vec![b'v'; 1 << 20]);
    let record = |n: usize| {
        let mut record = numbered(&topic, 0, n);
        record.key = Some("k".into());
        record.value = Some(value.clone());
        record
    };
    concurrent(fixture, (0..96).map(record).collect()).await
}

/// Large records may fill a batch of their own, which must not be sent later than the small ones behind it.
async fn p3_small_records_do_not_overtake_large_ones(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let large = bytes::Bytes::from(vec![b'v'; 200_000]);
    let record = |n: usize| {
        let mut record = Record::new(&topic, format!("{n}")).with_key("k");
        if n % 5 == 2 {
            record.value = Some(large.clone());
        }
        record
    };
    concurrent(fixture, (0..40).map(record).collect()).await
}
