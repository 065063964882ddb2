//! P5: null values, empty keys, duplicate and null headers survive byte for byte.
//!
//! A record is bytes. A backend that converts, trims, merges or defaults any of them changes events
//! of other services.

use std::time::Duration;

use tidings_core::{
    ConsumerOptions, Header, Headers, PublisherExt, Record, SeekTo, Timestamp, Topic, TopicPartition, Transport,
};

use super::fixture::{Fixture, same_records};
use crate::case::{Case, Checked, cases, granted, holds};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    p5_tombstones_stay_null,
    p5_an_empty_value_is_no_tombstone,
    p5_empty_and_null_keys_differ,
    p5_duplicate_headers_keep_their_order,
    p5_null_and_empty_headers_differ,
    p5_null_and_empty_differ_side_by_side,
    p5_a_thousand_headers,
    p5_long_keys_and_headers,
    p5_header_names_may_be_empty_or_beyond_ascii,
    p5_values_and_keys_need_not_be_utf_8,
    p5_a_value_of_three_mebibytes,
    p5_timestamps_that_are_given_are_kept,
    p5_timestamps_of_any_age_are_kept,
    p5_records_without_a_timestamp_get_one,
    p5_every_byte_value_survives,
];

/// Publishes `records` to partition 0 of a new topic, and compares the records read.
async fn survives(fixture: &Fixture, records: Vec<Record>) -> Checked {
    let topic = fixture.topic(1).await?;
    let mut records = records;
    records.iter_mut().for_each(|record| {
        record.topic = topic.clone();
        record.partition = Some(0);
    });
    fixture.publish(records.clone()).await?;
    // Each record alone too, which may take another code path.
    let publisher = fixture.publisher().await?;
    for record in records.clone() {
        granted("a record alone", fixture.within("an answer", publisher.publish_one(record.clone())).await?)?;
        records.push(record);
    }
    let members = fixture.read_all(&topic, 1, records.len()).await?;
    same_records("what was published", 0, &records, members[0].of(&TopicPartition::new(&topic, 0)))
}

async fn p5_tombstones_stay_null(fixture: &Fixture) -> Checked {
    let mut bare = Record::tombstone("");
    bare.headers.push(Header::new("why", "gone"));
    survives(fixture, vec![Record::new("", "v").with_key("k"), Record::tombstone("").with_key("k"), bare]).await
}

/// A compacted topic deletes the key for one and keeps it for the other.
async fn p5_an_empty_value_is_no_tombstone(fixture: &Fixture) -> Checked {
    survives(fixture, vec![Record::new("", "").with_key("k"), Record::tombstone("").with_key("k")]).await
}

async fn p5_empty_and_null_keys_differ(fixture: &Fixture) -> Checked {
    survives(fixture, vec![Record::new("", "null"), Record::new("", "empty").with_key("")]).await
}

async fn p5_duplicate_headers_keep_their_order(fixture: &Fixture) -> Checked {
    let headers = Headers::new().with("a", "1").with("b", "2").with("a", "3").with("a", "1");
    survives(fixture, vec![Record::new("", "v").with_headers(headers)]).await
}

async fn p5_null_and_empty_headers_differ(fixture: &Fixture) -> Checked {
    let headers = [Header::null("n"), Header::new("n", ""), Header::null("n"), Header::new("e", "")];
    survives(fixture, vec![Record::new("", "v").with_headers(headers.into_iter().collect())]).await
}

/// Each combination in one batch, and read one by one as well: a column or a flag per batch is caught.
async fn p5_null_and_empty_differ_side_by_side(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    // In this order null follows empty, and both follow a value.
    let forms = [Some(""), None, Some("x")];
    let mut records = Vec::new();
    for header in forms {
        for value in forms {
            for key in forms {
                let mut record = Record::tombstone(&topic).with_partition(0);
                (record.key, record.value) = (key.map(Into::into), value.map(Into::into));
                record.headers.push(Header::new("", ""));
                record.headers.push(header.map_or_else(|| Header::null("h"), |value| Header::new("h", value)));
                record.headers.push(Header::null(""));
                records.push(record);
            }
        }
    }
    fixture.publish(records.clone()).await?;
    for most in [ConsumerOptions::DEFAULT_MAX_BATCH_RECORDS, 1] {
        let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_max_batch_records(most);
        let mut members = fixture.join(options).await?;
        members.records(0, records.len()).await?;
        same_records("null next to empty", 0, &records, members[0].of(&TopicPartition::new(&topic, 0)))?;
    }
    Ok(())
}

/// Beyond lengths of one and of two bytes.
async fn p5_long_keys_and_headers(fixture: &Fixture) -> Checked {
    let long = |length: usize| -> Vec<u8> { (0..length).map(|n| b'a' + (n % 23) as u8).collect() };
    let keyed = [255, 256, 257, 300, 70_000].map(|length| Record::new("", "v").with_key(long(length)));
    let mut headers = Headers::new();
    for length in [127, 128, 255, 256, 300, 70_000] {
        headers.push(Header::new("value", long(length)));
    }
    headers.push(Header::new(long(300), "name"));
    let mut records = keyed.to_vec();
    records.push(Record::new("", "headers").with_headers(headers));
    survives(fixture, records).await
}

/// With duplicate names, so that a map in between is caught.
async fn p5_a_thousand_headers(fixture: &Fixture) -> Checked {
    let headers = (0..1_000).map(|n| Header::new(format!("header-{}", n % 700), format!("value {n}"))).collect();
    survives(fixture, vec![Record::new("", "v").with_headers(headers), Record::new("", "after")]).await
}

async fn p5_header_names_may_be_empty_or_beyond_ascii(fixture: &Fixture) -> Checked {
    let headers = Headers::new().with("", "no name").with("größe", "1").with("名前", "2").with("a b\n", "3");
    survives(fixture, vec![Record::new("", "v").with_headers(headers)]).await
}

async fn p5_values_and_keys_need_not_be_utf_8(fixture: &Fixture) -> Checked {
    let bad = vec![0xff, 0xfe, 0x00, 0xc3, 0x28];
    let record = Record::new("", bad.clone()).with_key(bad.clone()).with_header("bytes", bad);
    survives(fixture, vec![record]).await
}

/// Above the default limits of several brokers, which the topic's own limit lifts.
async fn p5_a_value_of_three_mebibytes(fixture: &Fixture) -> Checked {
    let value: Vec<u8> = (0..3_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    survives(fixture, vec![Record::new("", "before"), Record::new("", value).with_key("k"), Record::new("", "after")])
        .await
}

async fn p5_timestamps_that_are_given_are_kept(fixture: &Fixture) -> Checked {
    // Recent, as brokers may refuse or retire records of another age.
    let now = Timestamp::now();
    let times = [3_600_000, 1, 60_000, 0];
    let at = |ago: i64| Record::new("", "v").with_timestamp(Timestamp::from_millis(now.millis() - ago));
    survives(fixture, times.into_iter().map(at).collect()).await
}

/// Imported records bear the times of their events, which may lie before 1970. 0 is a time, not a missing one.
async fn p5_timestamps_of_any_age_are_kept(fixture: &Fixture) -> Checked {
    let topic = fixture.fresh("topic");
    // Records of that age must not be deleted.
    fixture.create(Topic::new(&topic).with_retention(Duration::MAX)).await?;
    let times = [-2_208_988_800_000, -86_400_001, -5_000, 0, 1, 999, 1_000_000_000_001];
    let at = |millis: i64| Record::new(&topic, "v").with_timestamp(Timestamp::from_millis(millis)).with_partition(0);
    let mut records: Vec<Record> = times.into_iter().map(at).collect();
    fixture.publish(records.clone()).await?;
    let publisher = fixture.publisher().await?;
    for record in records.clone() {
        granted("a record alone", fixture.within("an answer", publisher.publish_one(record.clone())).await?)?;
        records.push(record);
    }
    let mut members = fixture.read_all(&topic, 1, records.len()).await?;
    let p = TopicPartition::new(&topic, 0);
    same_records("what was published", 0, &records, members[0].of(&p))?;
    for (time, at) in [(times[0], 0), (-86_400_001, 1), (-86_400_000, 2), (-4_999, 3), (0, 3), (1, 4), (2, 5)] {
        let came = members[0].seek(&p, SeekTo::Time(Timestamp::from_millis(time))).await?;
        // A broker without such lookups may go to the oldest record.
        let right = came == at || time < 0 && came == 0;
        holds(right, &format!("{at} as the first record since {time} ms"), came)?;
    }
    Ok(())
}

async fn p5_records_without_a_timestamp_get_one(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let before = Timestamp::now();
    fixture.publish(vec![Record::new(&topic, "v")]).await?;
    let members = fixture.read_all(&topic, 1, 1).await?;
    let times: Vec<i64> = members[0].of(&TopicPartition::new(&topic, 0)).iter().map(|r| r.timestamp.millis()).collect();
    // Hosts' clocks differ; an hour off is no clock's fault.
    let near = times.iter().all(|t| (t - before.millis()).abs() < 3_600_000);
    holds(near, &format!("a time near {before}"), times)
}

/// Each as a value of one byte, and all of them in the key.
async fn p5_every_byte_value_survives(fixture: &Fixture) -> Checked {
    let all: Vec<u8> = (0..=255).collect();
    survives(fixture, (0..=255).map(|b: u8| Record::new("", vec![b]).with_key(all.clone())).collect()).await
}
