//! Groups of several consumers: C2, C3, C5, C7, rebalancing and fencing.

use std::time::Duration;

use tidings_core::{ConsumerOptions, ErrorKind, GroupState, Record, Transport};
use tidings_memory::MemoryTransport;
use tokio::time::{advance, timeout};

use crate::common::{
    admin, assigned, commit, commit_of, join, lost, nothing, offsets, publish, publish_values, records, revoking,
    topic, tp,
};

#[tokio::test(start_paused = true)]
async fn c3_only_what_moves_is_revoked_and_it_is_assigned_when_released() {
    let transport = MemoryTransport::new();
    topic(&transport, "t", 4).await;
    let first = join(&transport, "g", "t").await;
    let mine = assigned(&first).await;
    assert_eq!(mine.len(), 4);
    let second = join(&transport, "g", "t").await;
    let moving = revoking(&first).await.partitions;
    assert_eq!(moving.len(), 2);
    nothing(&second).await;
    let moved = mine.iter().find(|a| moving.contains(&a.partition)).unwrap();
    publish(&transport, vec![Record::new("t", "x").with_partition(moved.partition.partition)]).await;
    nothing(&first).await;
    commit(&first, commit_of(moved, 1)).await.unwrap();
    first.release(&moving).await.unwrap();
    assert_eq!(commit(&first, commit_of(moved, 1)).await.unwrap_err().kind(), ErrorKind::Fenced);
    let theirs = assigned(&second).await;
    assert_eq!(theirs.iter().map(|a| a.partition.clone()).collect::<Vec<_>>(), moving);
    let again = theirs.iter().find(|a| a.partition == moved.partition).unwrap();
    assert!(again.epoch > moved.epoch);
    assert_eq!(again.start_offset, 1);
    nothing(&first).await;
}

#[tokio::test(start_paused = true)]
async fn c3_a_revocation_that_is_not_released_is_lost_at_its_deadline() {
    let transport = MemoryTransport::new();
    let options = || ConsumerOptions::new("g", ["t"]).with_revocation_deadline(Duration::from_secs(20));
    topic(&transport, "t", 2).await;
    let first = transport.consumer(options()).await.unwrap();
    let mine = assigned(&first).await;
    let second = transport.consumer(options()).await.unwrap();
    let revocation = revoking(&first).await;
    assert_eq!(revocation.deadline, Duration::from_secs(20));
    let moved = mine.iter().find(|a| a.partition == revocation.partitions[0]).unwrap();
    advance(Duration::from_secs(19)).await;
    commit(&first, commit_of(moved, 0)).await.unwrap();
    let waiting = tokio::spawn(async move { second.next().await.map(|step| (step, second)) });
    let (step, _second) = timeout(Duration::from_secs(2), waiting).await.unwrap().unwrap().unwrap();
    assert!(matches!(step, tidings_core::Step::Assigned(all) if all[0].partition == moved.partition));
    assert_eq!(commit(&first, commit_of(moved, 0)).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(lost(&first).await, revocation.partitions);
}

#[tokio::test(start_paused = true)]
async fn c3_a_revocations_time_runs_from_when_it_is_handed_out() {
    let transport = MemoryTransport::new();
    topic(&transport, "t", 2).await;
    let first = join(&transport, "g", "t").await;
    let mine = assigned(&first).await;
    let _second = join(&transport, "g", "t").await;
    advance(Duration::from_secs(100)).await;
    let moved = revoking(&first).await.partitions;
    let moved = mine.iter().find(|a| moved.contains(&a.partition)).unwrap();
    commit(&first, commit_of(moved, 0)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn releasing_what_is_not_being_revoked_does_nothing() {
    let transport = MemoryTransport::new();
    let consumer = join(&transport, "g", "t").await;
    let mine = assigned(&consumer).await.remove(0);
    consumer.release(&[tp("t", 0)]).await.unwrap();
    commit(&consumer, commit_of(&mine, 0)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn c7_close_hands_its_partitions_on_at_once() {
    let transport = MemoryTransport::new();
    let first = join(&transport, "g", "t").await;
    assigned(&first).await;
    let second = join(&transport, "g", "t").await;
    nothing(&second).await;
    first.close().await.unwrap();
    assert_eq!(assigned(&second).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn c5_a_dropped_consumer_leaves() {
    let transport = MemoryTransport::new();
    let first = join(&transport, "g", "t").await;
    let second = join(&transport, "g", "t").await;
    drop(first);
    assert_eq!(assigned(&second).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn c5_a_member_that_is_idle_for_too_long_loses_all_and_may_come_back() {
    let transport = MemoryTransport::new();
    let options = || ConsumerOptions::new("g", ["t"]).with_max_idle(Duration::from_secs(60));
    let first = transport.consumer(options()).await.unwrap();
    let mine = assigned(&first).await.remove(0);
    let second = transport.consumer(options()).await.unwrap();
    let waiting = tokio::spawn(async move { (second.next().await.unwrap(), second) });
    let (step, second) = timeout(Duration::from_secs(61), waiting).await.unwrap().unwrap();
    assert!(matches!(step, tidings_core::Step::Assigned(_)));
    assert_eq!(commit(&first, commit_of(&mine, 0)).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(lost(&first).await, [tp("t", 0)]);
    nothing(&first).await;
    drop(second);
    assert_eq!(assigned(&first).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn c5_a_pending_next_is_alive() {
    let transport = MemoryTransport::new();
    let consumer = join(&transport, "g", "t").await;
    let mine = assigned(&consumer).await.remove(0);
    assert!(timeout(Duration::from_secs(3_600), consumer.next()).await.is_err());
    commit(&consumer, commit_of(&mine, 0)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn c5_a_lone_member_that_is_idle_for_too_long_is_fenced_too() {
    let transport = MemoryTransport::new();
    let consumer = join(&transport, "g", "t").await;
    let mine = assigned(&consumer).await.remove(0);
    advance(Duration::from_secs(301)).await;
    assert_eq!(commit(&consumer, commit_of(&mine, 0)).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(lost(&consumer).await, [tp("t", 0)]);
    assert!(assigned(&consumer).await[0].epoch > mine.epoch);
}

#[tokio::test(start_paused = true)]
async fn options_that_no_group_can_have_are_refused() {
    let transport = MemoryTransport::new();
    topic(&transport, "t", 1).await;
    let options = || ConsumerOptions::new("g", ["t"]);
    for (wrong, field) in [
        (options().with_instance_id(""), "instance_id"),
        (options().with_instance_id("a b"), "instance_id"),
        (options().with_max_batch_records(0), "max_batch_records"),
        (options().with_session_timeout(Duration::ZERO), "session_timeout"),
    ] {
        let error = transport.consumer(wrong).await.expect_err(field);
        assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains(field), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn groups_read_apart_and_share_the_records() {
    let transport = MemoryTransport::new();
    let publisher = transport.publisher().await.unwrap();
    publish_values(&publisher, "t", 0..3).await;
    let (a, b) = (join(&transport, "a", "t").await, join(&transport, "b", "t").await);
    assigned(&a).await;
    assigned(&b).await;
    let (a, b) = (records(&a).await, records(&b).await);
    assert_eq!(offsets(&a), [0, 1, 2]);
    assert!(std::ptr::eq(a.batch.records(), b.batch.records()));
}

#[tokio::test(start_paused = true)]
async fn members_with_different_topics_get_only_theirs() {
    let transport = MemoryTransport::new();
    topic(&transport, "x", 2).await;
    topic(&transport, "y", 2).await;
    let x = join(&transport, "g", "x").await;
    let y = join(&transport, "g", "y").await;
    assert!(assigned(&x).await.iter().all(|a| a.partition.topic == *"x"));
    assert!(assigned(&y).await.iter().all(|a| a.partition.topic == *"y"));
}

#[tokio::test(start_paused = true)]
async fn c7_a_static_member_that_comes_back_in_time_moves_nothing() {
    let transport = MemoryTransport::new();
    topic(&transport, "t", 2).await;
    let named = |name: &str| ConsumerOptions::new("g", ["t"]).with_instance_id(name);
    let first = transport.consumer(named("one")).await.unwrap();
    let all = assigned(&first).await;
    let second = transport.consumer(named("two")).await.unwrap();
    let moved = revoking(&first).await.partitions;
    first.release(&moved).await.unwrap();
    assigned(&second).await;
    first.close().await.unwrap();
    nothing(&second).await;
    let again = transport.consumer(named("one")).await.unwrap();
    let kept = assigned(&again).await;
    assert_eq!(kept.len(), 1);
    assert!(all.iter().any(|a| a.partition == kept[0].partition && a.epoch < kept[0].epoch));
    nothing(&second).await;
}

#[tokio::test(start_paused = true)]
async fn a_static_member_that_stays_away_is_given_up_after_its_session() {
    let transport = MemoryTransport::new();
    topic(&transport, "t", 2).await;
    let named = |name: &str| ConsumerOptions::new("g", ["t"]).with_instance_id(name);
    let first = transport.consumer(named("one")).await.unwrap();
    assigned(&first).await;
    let second = transport.consumer(named("two")).await.unwrap();
    first.close().await.unwrap();
    // The half that was due to the second is free at once: it has no member to ask.
    let waiting = tokio::spawn(async move {
        let mut got = 0;
        while got < 2 {
            if let tidings_core::Step::Assigned(all) = second.next().await.unwrap() {
                got += all.len();
            }
        }
    });
    timeout(Duration::from_secs(46), waiting).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_static_members_place_that_is_taken_fences_the_one_before() {
    let transport = MemoryTransport::new();
    let named = || ConsumerOptions::new("g", ["t"]).with_instance_id("one");
    let first = transport.consumer(named()).await.unwrap();
    let mine = assigned(&first).await.remove(0);
    let second = transport.consumer(named()).await.unwrap();
    assert_eq!(assigned(&second).await.len(), 1);
    assert_eq!(commit(&first, commit_of(&mine, 0)).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(first.next().await.unwrap_err().kind(), ErrorKind::Fenced);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_topic_is_lost_and_comes_back_from_its_beginning() {
    let transport = MemoryTransport::new();
    let publisher = transport.publisher().await.unwrap();
    publish_values(&publisher, "t", 0..3).await;
    let consumer = join(&transport, "g", "t").await;
    let mine = assigned(&consumer).await.remove(0);
    records(&consumer).await;
    commit(&consumer, commit_of(&mine, 3)).await.unwrap();
    admin(&transport).await.delete_topics(&["t".into()]).await.unwrap().remove(0).unwrap();
    assert_eq!(lost(&consumer).await, [tp("t", 0)]);
    publish_values(&publisher, "t", 0..1).await;
    let again = assigned(&consumer).await.remove(0);
    assert_eq!((again.start_offset, again.committed), (0, None));
    assert_eq!(offsets(&records(&consumer).await), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_groups_state_tells_whether_partitions_are_moving() {
    let transport = MemoryTransport::new();
    topic(&transport, "t", 2).await;
    let admin = admin(&transport).await;
    let state = || async { admin.describe_group(&"g".into()).await.unwrap().state };
    let first = join(&transport, "g", "t").await;
    let mine = assigned(&first).await;
    assert_eq!(state().await, GroupState::Stable);
    let second = join(&transport, "g", "t").await;
    assert_eq!(state().await, GroupState::Rebalancing);
    let moved = revoking(&first).await.partitions;
    first.release(&moved).await.unwrap();
    assert_eq!(state().await, GroupState::Stable);
    let kept = mine.iter().find(|a| !moved.contains(&a.partition)).unwrap();
    commit(&first, commit_of(kept, 0)).await.unwrap();
    drop((first, second));
    assert_eq!(state().await, GroupState::Empty);
}
