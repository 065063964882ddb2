//! Transactions: what readers see of them, how they end, and how faults reach them.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{ConsumerOptions, ErrorKind, ReadLimits, Record, SeekTo, Transactor, TransactorOptions, Transport};
use tidings_memory::{Faults, MemoryConfig, MemoryTransport, PublishFault, TransactionFault};
use tokio::time::{Instant, advance, timeout};

use crate::common::{
    admin, assigned, commit_of, join, lost, nothing, offsets, publish_values, records, revoking, topic, tp,
};

const SECOND: Duration = Duration::from_secs(1);

async fn transactor(transport: &MemoryTransport, id: &str) -> Arc<dyn Transactor> {
    transport.transactor(TransactorOptions::new(id).with_timeout(10 * SECOND)).await.unwrap()
}

async fn put(transactor: &Arc<dyn Transactor>, topic: &str, values: std::ops::Range<u32>) {
    for answer in transactor.publish(values.map(|n| Record::new(topic, n.to_string())).collect()).await {
        answer.unwrap();
    }
}

fn kind<T>(result: tidings_core::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// Returns the values that a new group reads, and where it then stands.
async fn seen(transport: &MemoryTransport, topic: &str) -> (Vec<String>, u64) {
    let reader = transport.log_reader().await.unwrap();
    let (mut values, mut next) = (Vec::new(), 0);
    loop {
        let read = reader.read(&tp(topic, 0), next, ReadLimits::default()).await.unwrap();
        let text = |bytes: &bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        values.extend(read.batch.records().iter().map(|record| record.value.as_ref().map(text).unwrap()));
        next = read.next_offset;
        if read.is_at_end() {
            return (values, next);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn readers_wait_for_the_end_and_then_see_all_in_the_order_of_the_log() {
    let transport = MemoryTransport::new();
    let consumer = join(&transport, "g", "t").await;
    assigned(&consumer).await;
    let publisher = transport.publisher().await.unwrap();
    publish_values(&publisher, "t", 0..1).await;
    let transactor = transactor(&transport, "a").await;
    put(&transactor, "t", 1..3).await;
    publish_values(&publisher, "t", 3..4).await;
    assert_eq!(offsets(&records(&consumer).await), [0]);
    nothing(&consumer).await;
    transactor.commit(None).await.unwrap();
    let fetched = records(&consumer).await;
    assert_eq!((offsets(&fetched), fetched.next_offset), (vec![1, 2, 3], 5), "the marker is read as well");
    nothing(&consumer).await;
    assert_eq!(consumer.progress().await.unwrap()[0].end, 5);
}

#[tokio::test(start_paused = true)]
async fn an_aborted_transaction_leaves_a_gap() {
    let transport = MemoryTransport::new();
    let consumer = join(&transport, "g", "t").await;
    assigned(&consumer).await;
    let transactor = transactor(&transport, "a").await;
    put(&transactor, "t", 0..2).await;
    transactor.abort().await.unwrap();
    let fetched = records(&consumer).await;
    assert_eq!((fetched.batch.len(), fetched.next_offset), (0, 3));
    put(&transactor, "t", 2..3).await;
    transactor.commit(None).await.unwrap();
    assert_eq!(offsets(&records(&consumer).await), [3]);
    assert_eq!(seen(&transport, "t").await, (vec!["2".to_owned()], 5));
}

#[tokio::test(start_paused = true)]
async fn interleaved_transactions_end_on_their_own() {
    let transport = MemoryTransport::new();
    let (a, b) = (transactor(&transport, "a").await, transactor(&transport, "b").await);
    for n in 0..3 {
        put(&a, "t", 2 * n..2 * n + 1).await;
        put(&b, "t", 2 * n + 1..2 * n + 2).await;
    }
    b.commit(None).await.unwrap();
    assert_eq!(seen(&transport, "t").await.1, 0, "behind the open one");
    a.abort().await.unwrap();
    assert_eq!(seen(&transport, "t").await, (vec!["1".into(), "3".into(), "5".into()], 8));
}

#[tokio::test(start_paused = true)]
async fn offsets_are_committed_with_the_records_or_not() {
    let transport = MemoryTransport::new();
    publish_values(&transport.publisher().await.unwrap(), "in", 0..3).await;
    let consumer = join(&transport, "g", "in").await;
    let mine = assigned(&consumer).await.remove(0);
    records(&consumer).await;
    let transactor = transactor(&transport, "a").await;
    let committed = || async { consumer.progress().await.unwrap()[0].committed };

    put(&transactor, "out", 0..1).await;
    let next = consumer.transaction_offsets(vec![commit_of(&mine, 2)]).await.unwrap();
    assert_eq!(committed().await, None);
    transactor.commit(Some(next)).await.unwrap();
    assert_eq!((committed().await, seen(&transport, "out").await.0), (Some(2), vec!["0".to_owned()]));

    put(&transactor, "out", 1..2).await;
    let next = consumer.transaction_offsets(vec![commit_of(&mine, 3)]).await.unwrap();
    assert!(transport.faults().lose("g", &tp("in", 0)));
    assert_eq!(kind(transactor.commit(Some(next)).await), Some(ErrorKind::Conflict));
    lost(&consumer).await;
    let again = assigned(&consumer).await.remove(0);
    assert_eq!((again.committed, seen(&transport, "out").await.0), (Some(2), vec!["0".to_owned()]));

    let old = consumer.transaction_offsets(vec![commit_of(&mine, 3)]).await;
    assert_eq!(kind(old), Some(ErrorKind::Fenced));
    let next = consumer.transaction_offsets(vec![commit_of(&again, 3)]).await.unwrap();
    transactor.commit(Some(next)).await.unwrap();
    assert_eq!(committed().await, Some(3), "without records, too");
}

#[tokio::test(start_paused = true)]
async fn offsets_of_an_earlier_assignment_are_refused_to_the_same_member() {
    let transport = MemoryTransport::new();
    let consumer = join(&transport, "g", "in").await;
    let mine = assigned(&consumer).await.remove(0);
    let old = consumer.transaction_offsets(vec![commit_of(&mine, 0)]).await.unwrap();
    transport.faults().rebalance("g");
    consumer.release(&revoking(&consumer).await.partitions).await.unwrap();
    assigned(&consumer).await;
    let transactor = transactor(&transport, "a").await;
    assert_eq!(kind(transactor.commit(Some(old)).await), Some(ErrorKind::Conflict));
}

#[tokio::test(start_paused = true)]
async fn a_newer_transactor_ends_the_earlier_one() {
    let transport = MemoryTransport::new();
    let old = transactor(&transport, "a").await;
    put(&old, "t", 0..1).await;
    let new = transactor(&transport, "a").await;
    assert_eq!(seen(&transport, "t").await, (vec![], 2));
    assert_eq!(kind(old.publish(vec![Record::new("t", "x")]).await.remove(0)), Some(ErrorKind::Fenced));
    assert_eq!(kind(old.commit(None).await), Some(ErrorKind::Fenced));
    assert_eq!(kind(old.abort().await), Some(ErrorKind::Fenced));
    put(&new, "t", 1..2).await;
    new.commit(None).await.unwrap();
    assert_eq!(seen(&transport, "t").await.0, ["1"]);
}

#[tokio::test(start_paused = true)]
async fn the_timeout_aborts_and_wakes_readers_that_wait() {
    let transport = MemoryTransport::new();
    let consumer = join(&transport, "g", "t").await;
    assigned(&consumer).await;
    let reader = transport.log_reader().await.unwrap();
    let begin = Instant::now();
    let gone = transactor(&transport, "a").await;
    put(&gone, "t", 0..1).await;
    publish_values(&transport.publisher().await.unwrap(), "t", 1..2).await;
    drop(gone);
    let (at, limits) = (tp("t", 0), ReadLimits::default().with_wait(60 * SECOND));
    let (read, step) = tokio::join!(reader.read(&at, 0, limits), timeout(60 * SECOND, consumer.next()));
    assert_eq!(begin.elapsed(), 10 * SECOND);
    assert_eq!(read.unwrap().batch.records()[0].offset, 1);
    let tidings_core::Step::Records(fetched) = step.unwrap().unwrap() else { panic!() };
    assert_eq!(offsets(&fetched), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_beyond_its_timeout_does_not_commit() {
    let transport = MemoryTransport::new();
    let transactor = transactor(&transport, "a").await;
    put(&transactor, "t", 0..1).await;
    advance(10 * SECOND).await;
    assert_eq!(kind(transactor.publish(vec![Record::new("t", "x")]).await.remove(0)), Some(ErrorKind::Unavailable));
    assert_eq!(kind(transactor.commit(None).await), Some(ErrorKind::Unavailable));
    put(&transactor, "t", 1..2).await;
    transactor.commit(None).await.unwrap();
    assert_eq!(seen(&transport, "t").await.0, ["1"]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_not_stored_fails_its_transaction() {
    let transport = MemoryTransport::new();
    let transactor = transactor(&transport, "a").await;
    for fault in [PublishFault::new(ErrorKind::Denied), PublishFault::unknown(true)] {
        transport.faults().publish(fault);
        let answers = transactor.publish((0..2).map(|_| Record::new("t", "x")).collect()).await;
        assert!(answers[0].is_err() && answers[1].is_ok());
        let error = transactor.commit(None).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Denied | ErrorKind::Unavailable), "{error:?}");
        assert_eq!(seen(&transport, "t").await.0, Vec::<String>::new());
    }
    put(&transactor, "t", 0..1).await;
    transactor.commit(None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_asked_for_again() {
    let transport = MemoryTransport::new();
    publish_values(&transport.publisher().await.unwrap(), "in", 0..3).await;
    let consumer = join(&transport, "g", "in").await;
    let mine = assigned(&consumer).await.remove(0);
    let transactor = transactor(&transport, "a").await;
    for (n, committed) in (0..).zip([true, false]) {
        transport.faults().commit_transactions(TransactionFault::unknown(committed).with_times(4));
        put(&transactor, "t", n..n + 1).await;
        let next = consumer.transaction_offsets(vec![commit_of(&mine, u64::from(n) + 1)]).await.unwrap();
        transactor.commit(Some(next)).await.unwrap();
    }
    assert_eq!(seen(&transport, "t").await.0, ["0", "1"]);
    assert_eq!(consumer.progress().await.unwrap()[0].committed, Some(2));
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_the_end_is_unknown_and_another_transactor_learns_it() {
    for committed in [true, false] {
        let transport = MemoryTransport::new();
        let old = transactor(&transport, "a").await;
        put(&old, "t", 0..1).await;
        let fault = TransactionFault::unknown(committed).with_times(Faults::UNTIL_HEALED);
        transport.faults().commit_transactions(fault);
        assert_eq!(kind(old.commit(None).await), Some(ErrorKind::Indeterminate));
        assert_eq!(kind(old.commit(None).await), Some(ErrorKind::Closed));
        transport.faults().heal();
        transactor(&transport, "a").await;
        let wanted: &[&str] = if committed { &["0"] } else { &[] };
        assert_eq!(seen(&transport, "t").await, (wanted.iter().map(|v| (*v).to_owned()).collect(), 2));
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_fails_calls_and_the_transaction_ends_after_it() {
    let transport = MemoryTransport::new();
    topic(&transport, "t", 1).await;
    let transactor = transactor(&transport, "a").await;
    put(&transactor, "t", 0..1).await;
    transport.faults().down();
    assert_eq!(kind(transport.transactor(TransactorOptions::new("b")).await), Some(ErrorKind::Unavailable));
    assert_eq!(kind(transactor.commit(None).await), Some(ErrorKind::Unavailable));
    assert_eq!(kind(transactor.publish(vec![Record::new("t", "x")]).await.remove(0)), Some(ErrorKind::Unavailable));
    assert_eq!(kind(transactor.commit(None).await), Some(ErrorKind::Unavailable));
    transport.faults().up();
    put(&transactor, "t", 1..2).await;
    transactor.commit(None).await.unwrap();
    assert_eq!(seen(&transport, "t").await.0, ["1"]);
    put(&transactor, "t", 2..3).await;
    transport.faults().down();
    assert_eq!(kind(transactor.abort().await), Some(ErrorKind::Unavailable));
    transport.faults().up();
    advance(10 * SECOND).await;
    assert_eq!(seen(&transport, "t").await, (vec!["1".to_owned()], 6));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_commit_is_ended_by_the_next_call() {
    let transport = MemoryTransport::new();
    let transactor = transactor(&transport, "a").await;
    put(&transactor, "t", 0..1).await;
    transport.faults().commit_transactions(TransactionFault::unknown(true));
    assert!(timeout(Duration::from_millis(1), transactor.commit(None)).await.is_err());
    put(&transactor, "t", 1..2).await;
    assert_eq!(seen(&transport, "t").await.0, ["0"], "the second record is in the next transaction");
    transactor.abort().await.unwrap();
    transport.faults().commit_transactions(TransactionFault::unknown(false));
    put(&transactor, "t", 2..3).await;
    assert!(timeout(Duration::from_millis(1), transactor.commit(None)).await.is_err());
    transactor.commit(None).await.unwrap();
    assert_eq!(seen(&transport, "t").await.0, ["0", "2"]);
}

#[tokio::test(start_paused = true)]
async fn an_abort_after_a_dropped_commit_tells_that_it_is_committed() {
    let transport = MemoryTransport::new();
    let transactor = transactor(&transport, "a").await;
    put(&transactor, "t", 0..1).await;
    transport.faults().delay_commits(SECOND);
    assert!(timeout(SECOND / 10, transactor.commit(None)).await.is_err());
    assert_eq!(kind(transactor.abort().await), Some(ErrorKind::Conflict));
    put(&transactor, "t", 1..2).await;
    transactor.abort().await.unwrap();
    assert_eq!(seen(&transport, "t").await.0, ["0"]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_commit_that_fails_fails_the_next_transaction() {
    let transport = MemoryTransport::new();
    let transactor = transactor(&transport, "a").await;
    put(&transactor, "t", 0..1).await;
    transport.faults().delay_commits(SECOND);
    transport.faults().commit_transactions(TransactionFault::new(ErrorKind::Unavailable));
    assert!(timeout(SECOND / 10, transactor.commit(None)).await.is_err());
    put(&transactor, "t", 1..2).await;
    assert_eq!(kind(transactor.commit(None).await), Some(ErrorKind::Unavailable), "the first one is gone");
    put(&transactor, "t", 2..3).await;
    transactor.commit(None).await.unwrap();
    assert_eq!(seen(&transport, "t").await.0, ["2"]);
}

#[tokio::test(start_paused = true)]
async fn a_close_during_a_commit_tears_nothing() {
    let transport = MemoryTransport::new();
    publish_values(&transport.publisher().await.unwrap(), "in", 0..1).await;
    let consumer = join(&transport, "g", "in").await;
    let mine = assigned(&consumer).await.remove(0);
    records(&consumer).await;
    let transactor = transactor(&transport, "a").await;
    put(&transactor, "out", 0..1).await;
    let next = consumer.transaction_offsets(vec![commit_of(&mine, 1)]).await.unwrap();
    transport.faults().delay_commits(SECOND);
    let (committed, closed) = tokio::join!(transactor.commit(Some(next)), transactor.close(SECOND / 10));
    assert_eq!((kind(committed), kind(closed)), (Some(ErrorKind::Closed), Some(ErrorKind::Unavailable)));
    assert_eq!(consumer.progress().await.unwrap()[0].committed, None);
    assert!(seen(&transport, "out").await.0.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_commit_waits_for_answers_that_are_delayed() {
    let transport = MemoryTransport::new();
    let transactor = transactor(&transport, "a").await;
    transport.faults().delay_publishes(SECOND);
    transport.faults().delay_commits(2 * SECOND);
    let begin = Instant::now();
    let (answers, committed) =
        tokio::join!(transactor.publish(vec![Record::new("t", "x")]), async { transactor.commit(None).await });
    assert!(answers.iter().all(Result::is_ok));
    committed.unwrap();
    assert_eq!(begin.elapsed(), 3 * SECOND);
    assert_eq!(seen(&transport, "t").await.0, ["x"]);
}

#[tokio::test(start_paused = true)]
async fn a_closed_transactor_has_aborted() {
    let transport = MemoryTransport::new();
    let transactor = transactor(&transport, "a").await;
    transactor.commit(None).await.unwrap();
    transactor.abort().await.unwrap();
    put(&transactor, "t", 0..1).await;
    transactor.close(SECOND).await.unwrap();
    transactor.close(SECOND).await.unwrap();
    assert_eq!(kind(transactor.commit(None).await), Some(ErrorKind::Closed));
    assert_eq!(kind(transactor.publish(vec![Record::new("t", "x")]).await.remove(0)), Some(ErrorKind::Closed));
    assert_eq!(seen(&transport, "t").await, (vec![], 2));
    let wrong = transport.transactor(TransactorOptions::new("").with_timeout(SECOND)).await;
    assert_eq!(kind(wrong), Some(ErrorKind::Invalid));
}

#[tokio::test(start_paused = true)]
async fn admin_and_seeks_count_to_what_may_be_read() {
    let transport = MemoryTransport::new();
    publish_values(&transport.publisher().await.unwrap(), "t", 0..2).await;
    let transactor = transactor(&transport, "a").await;
    put(&transactor, "t", 2..4).await;
    let described = || async {
        let topic = admin(&transport).await.describe_topics(&["t".into()]).await.unwrap().remove(0).unwrap();
        topic.partitions[0].end
    };
    let reader = transport.log_reader().await.unwrap();
    let latest = || async { reader.offsets(&[tp("t", 0)], SeekTo::Latest).await.unwrap().remove(0).unwrap() };
    assert_eq!((described().await, latest().await), (2, 2));
    transactor.commit(None).await.unwrap();
    assert_eq!((described().await, latest().await), (5, 5));
    let later = transport.consumer(ConsumerOptions::new("g", ["t"])).await.unwrap();
    let mine = assigned(&later).await.remove(0);
    later.commit(vec![commit_of(&mine, 4)]).await.remove(0).unwrap();
    assert_eq!(admin(&transport).await.group_lag(&"g".into()).await.unwrap()[0].lag(), Some(1));
    let since = SeekTo::Time(transport.now().saturating_add(SECOND));
    assert_eq!(reader.offsets(&[tp("t", 0)], since).await.unwrap().remove(0).unwrap(), 5);
}

#[tokio::test(start_paused = true)]
async fn retention_keeps_records_and_not_markers() {
    let transport = MemoryTransport::open(MemoryConfig::new().with_retention_records(2)).unwrap();
    let transactor = transactor(&transport, "a").await;
    for n in 0..3 {
        put(&transactor, "t", n..n + 1).await;
        transactor.commit(None).await.unwrap();
    }
    assert_eq!(seen(&transport, "t").await, (vec!["1".to_owned(), "2".to_owned()], 6));
    put(&transactor, "t", 3..8).await;
    assert_eq!(seen(&transport, "t").await.0, Vec::<String>::new(), "an open one is bounded, too");
    transactor.commit(None).await.unwrap();
    assert_eq!(seen(&transport, "t").await.0, ["6", "7"]);
}
