//! Reading and committing: C1, C2, C4, C5, C6 with one consumer of a group.

use std::time::Duration;

use crate::common::{
    admin, assigned, commit, commit_of, join, lost, nothing, offsets, publish, publish_values, records, step, topic, tp,
};
use tidings_core::{
    Commit, ConsumerOptions, CreatePartitionsOptions, ErrorKind, Record, SeekTo, Start, Step, Timestamp, Transport,
};
use tidings_memory::{MemoryConfig, MemoryTransport};

#[tokio::test(start_paused = true)]
async fn c1_records_come_in_order_from_the_committed_offset() {
    let transport = MemoryTransport::new();
    let publisher = transport.publisher().await.unwrap();
    publish_values(&publisher, "t", 0..5).await;
    let first = join(&transport, "g", "t").await;
    let assignment = assigned(&first).await.remove(0);
    assert_eq!((assignment.start_offset, assignment.committed), (0, None));
    assert_eq!(offsets(&records(&first).await), [0, 1, 2, 3, 4]);
    commit(&first, commit_of(&assignment, 3).with_metadata("half")).await.unwrap();
    first.close().await.unwrap();

    let second = join(&transport, "g", "t").await;
    let again = assigned(&second).await.remove(0);
    assert_eq!((again.start_offset, again.committed, again.metadata.as_deref()), (3, Some(3), Some("half")));
    assert!(again.epoch > assignment.epoch);
    let fetched = records(&second).await;
    assert_eq!((offsets(&fetched), fetched.next_offset, fetched.epoch), (vec![3, 4], 5, again.epoch));
    nothing(&second).await;
}

#[tokio::test(start_paused = true)]
async fn c1_the_start_policy_is_for_partitions_that_were_there_when_the_group_started() {
    let transport = MemoryTransport::new();
    let publisher = transport.publisher().await.unwrap();
    publish_values(&publisher, "t", 0..5).await;
    let options = ConsumerOptions::new("g", ["t"]).with_start(Start::Latest);
    let consumer = transport.consumer(options).await.unwrap();
    assert_eq!(assigned(&consumer).await[0].start_offset, 5);
    admin(&transport).await.create_partitions(&"t".into(), 2, CreatePartitionsOptions::default()).await.unwrap();
    publish(&transport, vec![Record::new("t", "x").with_partition(1)]).await.remove(0).unwrap();
    let new = assigned(&consumer).await.remove(0);
    assert_eq!((new.partition.clone(), new.start_offset), (tp("t", 1), 0));
    assert_eq!(offsets(&records(&consumer).await), [0]);
}

#[tokio::test(start_paused = true)]
async fn c1_a_group_that_starts_at_a_time_begins_with_the_first_record_since() {
    let transport = MemoryTransport::new();
    let at = |n: i64| Record::new("t", n.to_string()).with_timestamp(Timestamp::from_millis(n));
    publish(&transport, vec![at(10), at(20), at(30)]).await;
    let start = Start::Time(Timestamp::from_millis(15));
    let consumer = transport.consumer(ConsumerOptions::new("g", ["t"]).with_start(start)).await.unwrap();
    assert_eq!(assigned(&consumer).await[0].start_offset, 1);
}

#[tokio::test(start_paused = true)]
async fn c1_the_next_owner_does_not_start_behind_what_the_first_was_given() {
    let transport = MemoryTransport::new();
    let publisher = transport.publisher().await.unwrap();
    publish_values(&publisher, "t", 0..3).await;
    let latest = || ConsumerOptions::new("g", ["t"]).with_start(Start::Latest);
    let first = transport.consumer(latest()).await.unwrap();
    let second = transport.consumer(latest()).await.unwrap();
    assert_eq!(assigned(&first).await[0].start_offset, 3);
    publish_values(&publisher, "t", 3..5).await;
    drop(first);
    assert_eq!(assigned(&second).await[0].start_offset, 3);
}

#[tokio::test(start_paused = true)]
async fn c1_a_committed_offset_that_retention_dropped_goes_to_the_oldest_record_and_is_reported() {
    let transport = MemoryTransport::open(MemoryConfig::new().with_retention_records(3)).unwrap();
    let publisher = transport.publisher().await.unwrap();
    publish_values(&publisher, "t", 0..2).await;
    let first = join(&transport, "g", "t").await;
    let assignment = assigned(&first).await.remove(0);
    commit(&first, commit_of(&assignment, 2)).await.unwrap();
    drop(first);
    publish_values(&publisher, "t", 2..10).await;
    let second = join(&transport, "g", "t").await;
    let again = assigned(&second).await.remove(0);
    assert_eq!((again.start_offset, again.committed, again.missing), (7, Some(2), Some(2..7)));
    assert_eq!(offsets(&records(&second).await), [7, 8, 9]);
}

#[tokio::test(start_paused = true)]
async fn c1_records_dropped_while_reading_are_reported_by_a_new_assignment() {
    let transport = MemoryTransport::open(MemoryConfig::new().with_retention_records(3)).unwrap();
    let publisher = transport.publisher().await.unwrap();
    let consumer = join(&transport, "g", "t").await;
    let before = assigned(&consumer).await.remove(0);
    publish_values(&publisher, "t", 0..5).await;
    assert_eq!(lost(&consumer).await, [tp("t", 0)]);
    let after = assigned(&consumer).await.remove(0);
    assert_eq!((after.start_offset, after.missing.clone()), (2, Some(0..2)));
    assert_eq!(commit(&consumer, commit_of(&before, 0)).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(offsets(&records(&consumer).await), [2, 3, 4]);
    commit(&consumer, commit_of(&after, 5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn c4_a_commit_does_not_go_back_unless_after_a_seek() {
    let transport = MemoryTransport::new();
    let publisher = transport.publisher().await.unwrap();
    publish_values(&publisher, "t", 0..5).await;
    let consumer = join(&transport, "g", "t").await;
    let assignment = assigned(&consumer).await.remove(0);
    records(&consumer).await;
    commit(&consumer, commit_of(&assignment, 4)).await.unwrap();
    commit(&consumer, commit_of(&assignment, 2)).await.unwrap();
    let committed = || async { consumer.progress().await.unwrap()[0].committed };
    assert_eq!(committed().await, Some(4));
    assert_eq!(consumer.seek(&tp("t", 0), SeekTo::Offset(1)).await.unwrap(), 1);
    commit(&consumer, commit_of(&assignment, 1)).await.unwrap();
    assert_eq!(committed().await, Some(1));
    assert_eq!(offsets(&records(&consumer).await), [1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn c4_each_commit_has_its_own_result() {
    let transport = MemoryTransport::new();
    let consumer = join(&transport, "g", "t").await;
    let mine = assigned(&consumer).await.remove(0);
    let beyond = commit_of(&mine, 9);
    let foreign = Commit::new(tp("other", 0), mine.epoch, 0);
    let old = Commit::new(tp("t", 0), mine.epoch - 1, 0);
    let answers = consumer.commit(vec![foreign, commit_of(&mine, 0), old, beyond]).await;
    let kinds: Vec<_> = answers.into_iter().map(|a| a.map_err(|e| e.kind())).collect();
    assert_eq!(kinds, [Err(ErrorKind::Fenced), Ok(()), Err(ErrorKind::Fenced), Err(ErrorKind::Invalid)]);
}

#[tokio::test(start_paused = true)]
async fn seeking_goes_to_the_nearest_place_in_the_log() {
    let transport = MemoryTransport::new();
    let at = |n: i64| Record::new("t", n.to_string()).with_timestamp(Timestamp::from_millis(n));
    publish(&transport, vec![at(10), at(20), at(30)]).await;
    let consumer = join(&transport, "g", "t").await;
    assigned(&consumer).await;
    for (to, offset) in [
        (SeekTo::Latest, 3),
        (SeekTo::Earliest, 0),
        (SeekTo::Offset(99), 3),
        (SeekTo::Time(Timestamp::from_millis(20)), 1),
        (SeekTo::Time(Timestamp::from_millis(31)), 3),
    ] {
        assert_eq!(consumer.seek(&tp("t", 0), to).await.unwrap(), offset);
    }
    let error = consumer.seek(&tp("t", 1), SeekTo::Latest).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
}

#[tokio::test(start_paused = true)]
async fn c5_a_paused_partition_yields_nothing_even_right_after_assigned() {
    let transport = MemoryTransport::new();
    topic(&transport, "t", 2).await;
    let consumer = join(&transport, "g", "t").await;
    consumer.pause(&[tp("t", 0)]).await.unwrap();
    let both = [0, 1].map(|p| Record::new("t", "x").with_partition(p));
    publish(&transport, both.to_vec()).await;
    assigned(&consumer).await;
    assert_eq!(**records(&consumer).await.batch.origin(), tp("t", 1));
    nothing(&consumer).await;
    publish(&transport, both.to_vec()).await;
    assert_eq!(**records(&consumer).await.batch.origin(), tp("t", 1));
    assert!(consumer.progress().await.unwrap()[0].paused);
    consumer.resume(&[tp("t", 0)]).await.unwrap();
    assert_eq!(offsets(&records(&consumer).await), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn c5_resuming_wakes_a_pending_next() {
    let transport = MemoryTransport::new();
    let consumer = join(&transport, "g", "t").await;
    assigned(&consumer).await;
    consumer.pause(&[tp("t", 0)]).await.unwrap();
    publish(&transport, vec![Record::new("t", "x")]).await;
    let pending = tokio::spawn({
        let consumer = consumer.clone();
        async move { records(&consumer).await }
    });
    tokio::task::yield_now().await;
    consumer.resume(&[tp("t", 0)]).await.unwrap();
    assert_eq!(offsets(&pending.await.unwrap()), [0]);
}

#[tokio::test(start_paused = true)]
async fn c6_dropping_next_loses_no_record() {
    let transport = MemoryTransport::new();
    let publisher = transport.publisher().await.unwrap();
    let consumer = join(&transport, "g", "t").await;
    let mut seen = Vec::new();
    for n in 0..50 {
        publish_values(&publisher, "t", n..n + 1).await;
        tokio::select! {
            biased;
            () = tokio::task::yield_now() => {}
            step = consumer.next() => {
                if let Step::Records(fetched) = step.unwrap() { seen.extend(offsets(&fetched)) }
            }
        }
    }
    while seen.len() < 50 {
        if let Step::Records(fetched) = step(&consumer).await {
            seen.extend(offsets(&fetched));
        }
    }
    assert_eq!(seen, (0..50).collect::<Vec<u64>>());
}

#[tokio::test(start_paused = true)]
async fn a_second_next_at_once_is_an_error_and_does_not_hang() {
    let transport = MemoryTransport::new();
    let consumer = join(&transport, "g", "t").await;
    assigned(&consumer).await;
    let pending = tokio::spawn({
        let consumer = consumer.clone();
        async move { consumer.next().await }
    });
    tokio::task::yield_now().await;
    assert_eq!(consumer.next().await.unwrap_err().kind(), ErrorKind::Invalid);
    publish(&transport, vec![Record::new("t", "x")]).await;
    assert!(matches!(pending.await.unwrap(), Ok(Step::Records(_))));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_keeps_to_the_consumers_bounds_but_one_record_always_fits() {
    let transport = MemoryTransport::new();
    publish(&transport, (0..10).map(|_| Record::new("t", vec![0; 1_000])).collect()).await;
    let by_count = ConsumerOptions::new("a", ["t"]).with_max_batch_records(3);
    let consumer = transport.consumer(by_count).await.unwrap();
    assigned(&consumer).await;
    assert_eq!(offsets(&records(&consumer).await), [0, 1, 2]);
    let by_bytes = ConsumerOptions::new("b", ["t"]).with_max_buffered_bytes(2_500);
    let consumer = transport.consumer(by_bytes).await.unwrap();
    assigned(&consumer).await;
    assert_eq!(offsets(&records(&consumer).await), [0, 1]);
    let tiny = ConsumerOptions::new("c", ["t"]).with_max_buffered_bytes(1);
    let consumer = transport.consumer(tiny).await.unwrap();
    assigned(&consumer).await;
    assert_eq!(offsets(&records(&consumer).await), [0]);
}

#[tokio::test(start_paused = true)]
async fn no_partition_starves_another() {
    let transport = MemoryTransport::new();
    topic(&transport, "t", 3).await;
    let all = (0..3).flat_map(|p| (0..4).map(move |_| Record::new("t", "x").with_partition(p)));
    publish(&transport, all.collect()).await;
    let options = ConsumerOptions::new("g", ["t"]).with_max_batch_records(2);
    let consumer = transport.consumer(options).await.unwrap();
    assigned(&consumer).await;
    let mut order = Vec::new();
    for _ in 0..6 {
        order.push(records(&consumer).await.batch.origin().partition);
    }
    assert_eq!(order, [0, 1, 2, 0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_loop_over_a_full_log_lets_timers_run() {
    let transport = MemoryTransport::new();
    publish(&transport, (0..100_000).map(|_| Record::new("t", "x")).collect()).await;
    let options = ConsumerOptions::new("g", ["t"]).with_max_batch_records(1);
    let consumer = transport.consumer(options).await.unwrap();
    let other = tokio::spawn(async {});
    let mut steps = 0;
    while !other.is_finished() {
        step(&consumer).await;
        steps += 1;
    }
    assert!(steps < 1_000, "{steps}");
}

#[tokio::test(start_paused = true)]
async fn after_close_every_call_is_closed_and_a_pending_next_ends() {
    let transport = MemoryTransport::new();
    let consumer = join(&transport, "g", "t").await;
    let mine = assigned(&consumer).await.remove(0);
    let pending = tokio::spawn({
        let consumer = consumer.clone();
        async move { consumer.next().await }
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    consumer.close().await.unwrap();
    consumer.close().await.unwrap();
    assert_eq!(pending.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(consumer.next().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(commit(&consumer, commit_of(&mine, 0)).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(consumer.pause(&[tp("t", 0)]).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(consumer.progress().await.unwrap_err().kind(), ErrorKind::Closed);
}
