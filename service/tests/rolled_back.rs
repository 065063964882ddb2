//! Batches whose layer rolls a transaction back: the failing record is found by bisection, no other record is blamed,
//! and keys stay in order.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::{Log, caught_up, letters, publish, start, topics};
use tidings_core::{BoxError, ErrorKind, Failure, RawBatch, Record, held, rolled_back};
use tidings_memory::{MemoryStore, MemoryTransport};
use tidings_service::{BatchOptions, HandlerExt, Router, Service, State};

fn record(key: usize, value: usize) -> Record {
    Record::new("t", Bytes::from(value.to_string())).with_key(Bytes::from(key.to_string()))
}

fn values(batch: &RawBatch) -> Vec<usize> {
    let value = |record: &tidings_core::StoredRecord| {
        String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).parse().expect("a number")
    };
    batch.0.records().map(value).collect()
}

/// The records of a batch that was tried, and the attempt's number.
type Tried = (Vec<usize>, u32);

/// The committed writes of a transaction, and each batch that was tried, with its attempt.
#[derive(Debug, Clone, Default)]
struct Table {
    committed: Arc<Mutex<Vec<usize>>>,
    tried: Arc<Mutex<Vec<Tried>>>,
}

impl Table {
    fn committed(&self) -> Vec<usize> {
        self.committed.lock().unwrap().clone()
    }

    fn tried(&self) -> Vec<Tried> {
        self.tried.lock().unwrap().clone()
    }

    /// A handler in a transaction: handles all of the batch, or nothing and returns an error.
    fn write(&self, batch: &RawBatch, fails: impl Fn(usize) -> bool, named: bool) -> Result<(), BoxError> {
        let values = values(batch);
        self.tried.lock().unwrap().push((values.clone(), batch.0.attempt()));
        let bad: Vec<usize> = (0..values.len()).filter(|place| fails(values[*place])).collect();
        match (bad.is_empty(), values.len()) {
            (true, _) => self.committed.lock().unwrap().extend(values),
            (false, 1) => return Err("bad".into()),
            (false, _) => return Err(rolled_back(if named { bad } else { vec![] }, "bad").into()),
        }
        Ok(())
    }
}

/// Handles `count` records over `keys` keys in batches; `fails` decides which fail.
async fn run(count: usize, keys: usize, named: bool, fails: fn(usize) -> bool) -> (Table, Vec<u64>, Vec<String>) {
    let (transport, table, log) = (MemoryTransport::new(), Table::default(), Log::default());
    topics(&transport, &["t"]).await;
    publish(&transport, (0..count).map(|n| record(n % keys, n)).collect()).await;
    type Told = (Table, fn(usize) -> bool, bool);
    let state: Told = (table.clone(), fails, named);
    let handler = async |batch: RawBatch, State((table, fails, named)): State<Told>| table.write(&batch, fails, named);
    let options = BatchOptions::new(count).with_wait(Duration::from_millis(50));
    let router = Router::new().on_topic("t", handler.batch(options)).with_state(state);
    let service = Service::new("s", router).with_workers(1).with_idempotency(MemoryStore::new());
    let service = start(service.with_observer(Arc::new(log.clone())), &transport).await;
    caught_up(&service).await;
    service.shutdown(Duration::from_secs(10)).await.unwrap();
    let buried = letters(&transport, "t-dlq").await.iter().map(|letter| letter.record.offset).collect();
    (table, buried, log.lines())
}

/// Checks that the committed records of each key are in order.
fn assert_ordered(committed: &[usize], keys: usize) {
    for key in 0..keys {
        let of_key: Vec<_> = committed.iter().filter(|n| *n % keys == key).collect();
        assert!(of_key.is_sorted(), "key {key}: {of_key:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_failing_record_is_found_by_halves() {
    let (table, buried, _) = run(64, 64, false, |n| n == 37).await;
    assert_eq!(buried, [37]);
    let mut committed = table.committed();
    committed.sort_unstable();
    assert_eq!(committed, (0..64).filter(|n| *n != 37).collect::<Vec<_>>());
    // At most two halves for each of six steps, the whole batch, and the three retries of the failing record.
    let tried = table.tried();
    assert!(tried.len() <= 1 + 2 * 6 + 3, "{} batches: {tried:?}", tried.len());
}

#[tokio::test(start_paused = true)]
async fn a_step_is_no_attempt_of_the_innocent() {
    let (table, _, log) = run(64, 64, false, |n| n == 37).await;
    let attempts = |wanted: &dyn Fn(&[usize]) -> bool| -> Vec<u32> {
        table.tried().into_iter().filter(|(values, _)| wanted(values)).map(|(_, attempt)| attempt).collect()
    };
    assert!(attempts(&|values| values != [37]).iter().all(|attempt| *attempt == 1));
    assert_eq!(attempts(&|values| values == [37]), [1, 2, 3, 4], "the one that fails has all of its own");
    assert!(!log.iter().any(|line| line.starts_with("retried") && line != "retried 37"), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn later_records_of_the_failing_ones_key_leave_with_it() {
    for named in [false, true] {
        let (table, mut buried, _) = run(60, 5, named, |n| n == 17 || n == 32).await;
        buried.sort_unstable();
        assert_eq!(buried, [17, 32], "named: {named}");
        let committed = table.committed();
        assert_eq!(committed.len(), 58);
        assert_ordered(&committed, 5);
        // The others continued while it was retried.
        let done = |n: usize| committed.iter().position(|other| *other == n).expect("committed");
        assert!(done(59) < done(22) && done(12) < done(22), "named: {named}: {committed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_earlier_record_of_a_failing_ones_key_is_not_overtaken() {
    // All of one key: the records before the failing one were rolled back with it, and come first again.
    let (table, buried, _) = run(8, 1, true, |n| n == 5).await;
    assert_eq!((table.committed(), buried), (vec![0, 1, 2, 3, 4, 6, 7], vec![5]));
}

#[tokio::test(start_paused = true)]
async fn many_failing_records_are_all_found() {
    let (table, mut buried, _) = run(40, 7, false, |n| n % 4 == 0).await;
    buried.sort_unstable();
    assert_eq!(buried, (0..10).map(|n| n * 4).collect::<Vec<u64>>());
    assert_eq!(table.committed().len(), 30);
    assert_ordered(&table.committed(), 7);
}

#[tokio::test(start_paused = true)]
async fn what_is_held_is_claimed_again_and_handled_once_more() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    publish(&transport, (0..3).map(|n| record(0, n)).collect()).await;
    let handler = async |batch: RawBatch, State(log): State<Log>| -> Result<(), BoxError> {
        log.add(format!("{:?} attempt {}", values(&batch), batch.0.attempt()));
        if log.lines().len() == 1 {
            let error = tidings_core::Error::new(ErrorKind::Fenced, "commit");
            return Err(held(error).into());
        }
        Ok(())
    };
    let options = BatchOptions::new(3).with_wait(Duration::from_millis(50));
    let router = Router::new().on_topic("t", handler.batch(options)).with_state(log.clone());
    let service = start(Service::new("s", router).with_idempotency(MemoryStore::new()), &transport).await;
    caught_up(&service).await;
    let lines = log.lines();
    assert_eq!(lines[0], "[0, 1, 2] attempt 1");
    let again: String = lines[1..].join(" ");
    assert!(["0", "1", "2"].iter().all(|n| again.contains(n)) && !again.contains("attempt 2"), "{lines:?}");
    assert!(letters(&transport, "t-dlq").await.is_empty());
}

#[test]
fn a_layers_word_is_heard_before_the_handlers() {
    let error: BoxError = rolled_back([2], tidings_core::reject("no")).into();
    assert_eq!(Failure::of(error.as_ref()), Failure::RolledBack(vec![2]));
}
