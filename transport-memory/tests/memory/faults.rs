//! Injected faults do what they say, and end.

use std::time::Duration;

use tidings_core::{DeadLetter, ErrorKind, Record, Start, StoredRecord, Timestamp, Transport};
use tidings_memory::{Faults, MemoryTransport, PublishFault};
use tokio::time::{Instant, advance};

use crate::common::{
    admin, assigned, commit, commit_of, join, lost, nothing, offsets, publish, publish_values, records, revoking,
    topic, tp,
};

async fn kinds(transport: &MemoryTransport, topics: &[&str]) -> Vec<Result<u64, ErrorKind>> {
    let records = topics.iter().map(|t| Record::new(*t, "x")).collect();
    let answers = publish(transport, records).await;
    answers.into_iter().map(|a| a.map(|p| p.offset).map_err(|e| e.kind())).collect()
}

#[tokio::test(start_paused = true)]
async fn the_next_publishes_fail_and_those_after_them_do_not() {
    let transport = MemoryTransport::new();
    transport.faults().fail_publishes(2, ErrorKind::Unavailable);
    let lost = Err(ErrorKind::Unavailable);
    assert_eq!(kinds(&transport, &["t", "t", "t"]).await, [lost, lost, Ok(0)]);
}

#[tokio::test(start_paused = true)]
async fn a_fault_hits_only_what_it_names() {
    let transport = MemoryTransport::new();
    let fault = PublishFault::new(ErrorKind::Denied).with_topic("a").with_times(Faults::UNTIL_HEALED);
    transport.faults().publish(fault.with_matching(|record| record.key.is_none()));
    let denied = Err(ErrorKind::Denied);
    assert_eq!(kinds(&transport, &["a", "b", "a"]).await, [denied, Ok(0), denied]);
    let keyed = publish(&transport, vec![Record::new("a", "x").with_key("k")]).await;
    assert_eq!(keyed[0].as_ref().unwrap().offset, 0);
    transport.faults().heal();
    assert_eq!(kinds(&transport, &["a"]).await, [Ok(1)]);
}

#[tokio::test(start_paused = true)]
async fn p2_an_unknown_outcome_may_be_stored_or_not() {
    let transport = MemoryTransport::new();
    transport.faults().publish(PublishFault::unknown(true));
    transport.faults().publish(PublishFault::unknown(false));
    let unknown = Err(ErrorKind::Indeterminate);
    assert_eq!(kinds(&transport, &["t", "t", "t"]).await, [unknown, unknown, Ok(1)]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_partition_is_fenced_and_assigned_anew() {
    let transport = MemoryTransport::new();
    let consumer = join(&transport, "g", "t").await;
    let mine = assigned(&consumer).await.remove(0);
    assert!(transport.faults().lose("g", &tp("t", 0)));
    assert!(!transport.faults().lose("g", &tp("t", 9)));
    assert_eq!(commit(&consumer, commit_of(&mine, 0)).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(lost(&consumer).await, [tp("t", 0)]);
    assert!(assigned(&consumer).await[0].epoch > mine.epoch);
    transport.faults().lose_all("g");
    assert_eq!(lost(&consumer).await, [tp("t", 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_forced_rebalance_moves_every_partition_on() {
    let transport = MemoryTransport::new();
    let first = join(&transport, "g", "t").await;
    assigned(&first).await;
    let second = join(&transport, "g", "t").await;
    transport.faults().rebalance("g");
    let moved = revoking(&first).await.partitions;
    first.release(&moved).await.unwrap();
    assert_eq!(assigned(&second).await.len(), 1);
    nothing(&first).await;
}

#[tokio::test(start_paused = true)]
async fn a_forced_rebalance_of_one_member_gives_all_back() {
    let transport = MemoryTransport::new();
    let consumer = join(&transport, "g", "t").await;
    let mine = assigned(&consumer).await.remove(0);
    transport.faults().rebalance("g");
    let moved = revoking(&consumer).await.partitions;
    consumer.release(&moved).await.unwrap();
    assert!(assigned(&consumer).await[0].epoch > mine.epoch);
}

#[tokio::test(start_paused = true)]
async fn failing_fetches_lose_no_step() {
    let transport = MemoryTransport::new();
    let consumer = join(&transport, "g", "t").await;
    transport.faults().fail_fetches(2, ErrorKind::Unavailable);
    for _ in 0..2 {
        assert_eq!(consumer.next().await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    assert_eq!(assigned(&consumer).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn failing_commits_commit_nothing_and_unknown_ones_do() {
    let transport = MemoryTransport::new();
    let publisher = transport.publisher().await.unwrap();
    publish_values(&publisher, "t", 0..5).await;
    let consumer = join(&transport, "g", "t").await;
    let mine = assigned(&consumer).await.remove(0);
    let committed = || async { consumer.progress().await.unwrap()[0].committed };
    transport.faults().fail_commits(1, ErrorKind::Unavailable);
    assert_eq!(commit(&consumer, commit_of(&mine, 1)).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(committed().await, None);
    transport.faults().fail_commits(1, ErrorKind::Indeterminate);
    assert_eq!(commit(&consumer, commit_of(&mine, 2)).await.unwrap_err().kind(), ErrorKind::Indeterminate);
    assert_eq!(committed().await, Some(2));
    commit(&consumer, commit_of(&mine, 3)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn c2_a_broker_that_is_down_for_the_session_timeout_loses_all() {
    let transport = MemoryTransport::new();
    let publisher = transport.publisher().await.unwrap();
    publish_values(&publisher, "t", 0..1).await;
    let consumer = join(&transport, "g", "t").await;
    let mine = assigned(&consumer).await.remove(0);
    transport.faults().down();
    let unavailable = Some(ErrorKind::Unavailable);
    assert_eq!(consumer.next().await.err().map(|e| e.kind()), unavailable);
    assert_eq!(commit(&consumer, commit_of(&mine, 1)).await.err().map(|e| e.kind()), unavailable);
    let refused = publisher.publish(vec![Record::new("new", "x")]).await.remove(0);
    assert_eq!(refused.err().map(|e| e.kind()), unavailable);
    assert_eq!(transport.admin().await.err().map(|e| e.kind()), unavailable);
    advance(Duration::from_secs(45)).await;
    assert_eq!(lost(&consumer).await, [tp("t", 0)]);
    assert_eq!(consumer.next().await.err().map(|e| e.kind()), unavailable);
    transport.faults().up();
    assert_eq!(assigned(&consumer).await[0].start_offset, 0);
    assert_eq!(offsets(&records(&consumer).await), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_pending_next_notices_that_the_broker_went_down() {
    let transport = MemoryTransport::new();
    let consumer = join(&transport, "g", "t").await;
    assigned(&consumer).await;
    let pending = tokio::spawn(async move { consumer.next().await });
    tokio::task::yield_now().await;
    transport.faults().down();
    assert_eq!(pending.await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_sink_that_is_down_buries_nothing() {
    let transport = MemoryTransport::new();
    let sink = transport.dead_letters().await.unwrap();
    let letter = || DeadLetter::new("s", tp("t", 0), StoredRecord::new(0, Timestamp::default()), ErrorKind::Failed);
    transport.faults().set_dead_letters_down(true);
    assert_eq!(sink.check(&["t".into()]).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(sink.bury(vec![letter()]).await.remove(0).unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(admin(&transport).await.list_topics().await.unwrap().is_empty());
    transport.faults().set_dead_letters_down(false);
    sink.bury(vec![letter()]).await.remove(0).unwrap();
}

#[tokio::test(start_paused = true)]
async fn delays_take_their_time_on_the_paused_clock() {
    let transport = MemoryTransport::new();
    topic(&transport, "t", 1).await;
    let consumer = join(&transport, "g", "t").await;
    let mine = assigned(&consumer).await.remove(0);
    let faults = transport.faults();
    let second = Duration::from_secs(1);
    faults.delay_publishes(second);
    faults.delay_commits(2 * second);
    faults.delay_fetches(second / 2);
    let begin = Instant::now();
    publish(&transport, vec![Record::new("t", "x")]).await.remove(0).unwrap();
    assert_eq!(begin.elapsed(), second);
    records(&consumer).await;
    assert_eq!(begin.elapsed(), second + second / 2);
    commit(&consumer, commit_of(&mine, 1)).await.unwrap();
    assert_eq!(begin.elapsed(), 3 * second + second / 2);
}

#[tokio::test(start_paused = true)]
async fn the_same_program_has_the_same_history() {
    let mut histories = Vec::new();
    for _ in 0..3 {
        let transport = MemoryTransport::new();
        topic(&transport, "t", 7).await;
        let mut history = String::new();
        let mut members = Vec::new();
        for n in 0..4 {
            let options = tidings_core::ConsumerOptions::new("g", ["t"]).with_start(Start::Latest);
            members.push(transport.consumer(options).await.unwrap());
            publish(&transport, (0..20).map(|k| Record::new("t", "x").with_key(format!("{n}{k}"))).collect()).await;
            for (id, member) in members.iter().enumerate() {
                while let Ok(Ok(step)) = tokio::time::timeout(Duration::from_millis(1), member.next()).await {
                    if let tidings_core::Step::Revoking(revocation) = &step {
                        member.release(&revocation.partitions).await.unwrap();
                    }
                    match step {
                        tidings_core::Step::Records(f) => {
                            history += &format!("{id} {} {}\n", f.batch.origin(), f.next_offset)
                        }
                        other => history += &format!("{id} {other:?}\n"),
                    }
                }
            }
        }
        histories.push(history);
    }
    assert!(histories[0].contains("Revoking"));
    assert!(histories.windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test(start_paused = true)]
async fn dropped_records_are_gone_and_the_next_reader_starts_behind_them() {
    let transport = MemoryTransport::new();
    topic(&transport, "t", 1).await;
    publish_values(&transport.publisher().await.unwrap(), "t", 0..5).await;
    assert!(transport.faults().drop_records(&tp("t", 0), 3));
    assert!(!transport.faults().drop_records(&tp("t", 7), 3));
    let consumer = join(&transport, "g", "t").await;
    assert_eq!(assigned(&consumer).await[0].start_offset, 3);
    assert_eq!(offsets(&records(&consumer).await), [3, 4]);
}
