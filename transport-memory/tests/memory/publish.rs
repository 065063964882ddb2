//! Publishing: P1 to P5, and what a partition keeps.

use std::time::Duration;

use bytes::Bytes;
use tidings_core::{
    CreatePartitionsOptions, ErrorKind, Header, Headers, Record, Timestamp, Topic, Transport, partition_for,
};
use tidings_memory::{MemoryConfig, MemoryTransport};
use tokio::time::{Instant, advance, timeout};

use crate::common::{admin, assigned, join, offsets, publish, publish_values, records, topic};

#[tokio::test(start_paused = true)]
async fn p1_one_records_failure_is_not_its_neighbours() {
    let transport = MemoryTransport::new();
    let limited = Topic::new("small").with_max_record_bytes(100);
    admin(&transport).await.create_topics(&[limited]).await.unwrap().remove(0).unwrap();
    let batch = vec![
        Record::new("small", "fits"),
        Record::new("small", vec![0; 100]),
        Record::new("no/name", "x"),
        Record::new("small", "x").with_partition(7),
        Record::new("small", "fits"),
    ];
    let answers = publish(&transport, batch).await;
    let kinds: Vec<_> = answers.into_iter().map(|a| a.map(|p| p.offset).map_err(|e| e.kind())).collect();
    let wanted = [Ok(0), Err(ErrorKind::TooLarge), Err(ErrorKind::Invalid), Err(ErrorKind::NotFound), Ok(1)];
    assert_eq!(kinds, wanted);
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_made_by_its_first_record_unless_that_is_off() {
    let made = MemoryTransport::open(MemoryConfig::new().with_partitions(3)).unwrap();
    publish(&made, vec![Record::new("t", "x")]).await.remove(0).unwrap();
    let found = admin(&made).await.describe_topics(&["t".into()]).await.unwrap().remove(0).unwrap();
    assert_eq!(found.partitions.len(), 3);
    let strict = MemoryTransport::open(MemoryConfig::new().with_auto_create(false)).unwrap();
    let error = publish(&strict, vec![Record::new("t", "x")]).await.remove(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("\"t\""), "{error}");
    let options = tidings_core::ConsumerOptions::new("g", ["t"]);
    assert_eq!(strict.consumer(options).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn p3_a_key_has_one_partition_and_keyless_records_stick_together() {
    let transport = MemoryTransport::new();
    topic(&transport, "t", 5).await;
    let keys = ["a", "b", "", "a-long-key"];
    let keyed = keys.iter().map(|k| Record::new("t", "x").with_key(*k)).collect();
    for (key, answer) in keys.iter().zip(publish(&transport, keyed).await) {
        assert_eq!(answer.unwrap().partition, partition_for(key.as_bytes(), 5));
    }
    let keyless = publish(&transport, (0..10).map(|_| Record::new("t", "x")).collect()).await;
    let partitions: std::collections::BTreeSet<_> = keyless.into_iter().map(|a| a.unwrap().partition).collect();
    assert_eq!(partitions.len(), 1);
    let many = publish(&transport, (0..10_000).map(|_| Record::new("t", "x")).collect()).await;
    let partitions: std::collections::BTreeSet<_> = many.into_iter().map(|a| a.unwrap().partition).collect();
    assert_eq!(partitions.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn p3_calls_at_the_bound_are_stored_in_the_order_of_their_first_polls() {
    let transport = MemoryTransport::open(MemoryConfig::new().with_max_unanswered_records(2)).unwrap();
    transport.faults().delay_publishes(Duration::from_secs(1));
    let publisher = transport.publisher().await.unwrap();
    let mut calls = Vec::new();
    for n in 0..10_u64 {
        let publisher = publisher.clone();
        calls.push(tokio::spawn(async move { publisher.publish(vec![Record::new("t", n.to_string())]).await }));
    }
    tokio::task::yield_now().await;
    transport.faults().heal();
    publish_values(&publisher, "t", 10..11).await;
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().remove(0).unwrap().offset, n as u64);
    }
    let consumer = join(&transport, "g", "t").await;
    assigned(&consumer).await;
    let last = records(&consumer).await.batch.records()[10].value.clone();
    assert_eq!(last, Some(Bytes::from("10")));
}

#[tokio::test(start_paused = true)]
async fn p4_publish_waits_at_the_bound() {
    let transport = MemoryTransport::open(MemoryConfig::new().with_max_unanswered_records(2)).unwrap();
    transport.faults().delay_publishes(Duration::from_secs(1));
    let publisher = transport.publisher().await.unwrap();
    let begin = Instant::now();
    let answers = publisher.publish((0..5).map(|n| Record::new("t", n.to_string())).collect()).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(begin.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn p4_a_record_larger_than_the_bound_goes_alone() {
    let transport = MemoryTransport::open(MemoryConfig::new().with_max_unanswered_bytes(100)).unwrap();
    transport.faults().delay_publishes(Duration::from_secs(1));
    let publisher = transport.publisher().await.unwrap();
    let large = || Record::new("t", vec![0; 1_000]);
    let answers = timeout(Duration::from_secs(3), publisher.publish(vec![large(), large()])).await.unwrap();
    assert!(answers.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn p4_after_close_every_publish_is_closed() {
    let transport = MemoryTransport::new();
    let publisher = transport.publisher().await.unwrap();
    publisher.close(Duration::ZERO).await.unwrap();
    publisher.close(Duration::ZERO).await.unwrap();
    let answers = publisher.publish(vec![Record::new("t", "x"), Record::new("t", "y")]).await;
    assert!(answers.iter().all(|a| a.as_ref().is_err_and(|e| e.kind() == ErrorKind::Closed)));
    assert_eq!(answers.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn p4_closing_waits_for_answers_until_its_deadline() {
    let transport = MemoryTransport::new();
    transport.faults().delay_publishes(Duration::from_secs(10));
    let publisher = transport.publisher().await.unwrap();
    let call = tokio::spawn({
        let publisher = publisher.clone();
        async move { publisher.publish(vec![Record::new("t", "x")]).await }
    });
    tokio::task::yield_now().await;
    let error = publisher.close(Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Indeterminate);
    publisher.close(Duration::from_secs(10)).await.unwrap();
    assert!(call.await.unwrap()[0].is_ok());
}

#[tokio::test(start_paused = true)]
async fn p5_bytes_survive() {
    let transport = MemoryTransport::new();
    let mut headers = Headers::new().with("a", "1").with("a", Bytes::from_static(&[0xff, 0])).with("", "");
    headers.push(Header::null("n"));
    let tombstone = Record::tombstone("t").with_key("").with_headers(headers.clone());
    let keyless = Record::new("t", "").with_timestamp(Timestamp::from_millis(-5));
    publish(&transport, vec![tombstone, keyless]).await;
    let consumer = join(&transport, "g", "t").await;
    assigned(&consumer).await;
    let fetched = records(&consumer).await;
    let [first, second] = fetched.batch.records() else { panic!("two records") };
    assert_eq!((&first.key, &first.value, &first.headers), (&Some(Bytes::new()), &None, &headers));
    assert_eq!((&second.key, &second.value), (&None, &Some(Bytes::new())));
    assert_eq!(second.timestamp.millis(), -5);
}

#[tokio::test(start_paused = true)]
async fn a_partition_keeps_its_newest_records_and_bytes() {
    let by_count = MemoryTransport::open(MemoryConfig::new().with_retention_records(10)).unwrap();
    let publisher = by_count.publisher().await.unwrap();
    publish_values(&publisher, "t", 0..10_000).await;
    let found = admin(&by_count).await.describe_topics(&["t".into()]).await.unwrap().remove(0).unwrap();
    assert_eq!((found.partitions[0].start, found.partitions[0].end), (9_990, 10_000));

    let by_bytes = MemoryTransport::new();
    let topic = Topic::new("t").with_retention_bytes(5_000);
    admin(&by_bytes).await.create_topics(&[topic]).await.unwrap().remove(0).unwrap();
    publish(&by_bytes, (0..100).map(|_| Record::new("t", vec![0; 1_000])).collect()).await;
    let found = admin(&by_bytes).await.describe_topics(&["t".into()]).await.unwrap().remove(0).unwrap();
    assert_eq!((found.partitions[0].start, found.partitions[0].end), (96, 100));
    publish(&by_bytes, vec![Record::new("t", vec![0; 9_000])]).await;
    let found = admin(&by_bytes).await.describe_topics(&["t".into()]).await.unwrap().remove(0).unwrap();
    assert_eq!((found.partitions[0].start, found.partitions[0].end), (100, 101));
}

#[tokio::test(start_paused = true)]
async fn a_topic_keeps_records_for_its_retention_by_tokios_clock() {
    let start = Timestamp::from_millis(1_000);
    let transport = MemoryTransport::open(MemoryConfig::new().with_start_time(start)).unwrap();
    let topic = Topic::new("t").with_retention(Duration::from_secs(60));
    admin(&transport).await.create_topics(&[topic]).await.unwrap().remove(0).unwrap();
    publish(&transport, vec![Record::new("t", "old")]).await;
    advance(Duration::from_secs(50)).await;
    publish(&transport, vec![Record::new("t", "new")]).await;
    advance(Duration::from_secs(20)).await;
    let consumer = join(&transport, "g", "t").await;
    assert_eq!(assigned(&consumer).await[0].start_offset, 1);
    let fetched = records(&consumer).await;
    assert_eq!(offsets(&fetched), [1]);
    assert_eq!(fetched.batch.records()[0].timestamp.millis(), 51_000);
}

#[tokio::test(start_paused = true)]
async fn a_publisher_uses_the_partitions_that_its_topic_has_grown() {
    let transport = MemoryTransport::new();
    topic(&transport, "t", 1).await;
    let publisher = transport.publisher().await.unwrap();
    let beyond = || vec![Record::new("t", "x").with_partition(2)];
    assert_eq!(publisher.publish(beyond()).await.remove(0).unwrap_err().kind(), ErrorKind::NotFound);
    admin(&transport).await.create_partitions(&"t".into(), 3, CreatePartitionsOptions::default()).await.unwrap();
    assert_eq!(publisher.publish(beyond()).await.remove(0).unwrap().partition, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_whose_records_cross_do_not_wait_for_each_other() {
    let transport = MemoryTransport::new();
    topic(&transport, "t", 9).await;
    let publish_all = |partitions: Vec<u32>| {
        let transport = transport.clone();
        tokio::spawn(async move {
            let publisher = transport.publisher().await.unwrap();
            for _ in 0..5_000 {
                let records = partitions.iter().map(|p| Record::new("t", "x").with_partition(*p)).collect();
                for answer in publisher.publish(records).await {
                    answer.unwrap();
                }
            }
        })
    };
    let (up, down) = (publish_all((0..9).collect()), publish_all((0..9).rev().collect()));
    timeout(Duration::from_secs(60), async { tokio::try_join!(up, down).unwrap() }).await.expect("both end");
    let found = admin(&transport).await.describe_topics(&["t".into()]).await.unwrap().remove(0).unwrap();
    assert!(found.partitions.iter().all(|partition| partition.end == 10_000), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_one_publisher_do_not_mix() {
    let transport = MemoryTransport::new();
    topic(&transport, "t", 1).await;
    let publisher = transport.publisher().await.unwrap();
    let publish_all = || {
        let publisher = publisher.clone();
        tokio::spawn(async move {
            for _ in 0..100 {
                let answers = publisher.publish((0..3_000).map(|_| Record::new("t", "x")).collect()).await;
                let offsets: Vec<u64> = answers.into_iter().map(|answer| answer.unwrap().offset).collect();
                assert!(offsets.windows(2).all(|two| two[1] == two[0] + 1), "another call came between");
            }
        })
    };
    let (one, other) = (publish_all(), publish_all());
    timeout(Duration::from_secs(60), async { tokio::try_join!(one, other).unwrap() }).await.expect("both end");
}
