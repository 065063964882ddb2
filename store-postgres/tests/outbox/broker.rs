//! A broker that notes what it holds, and refuses, fails and holds up what it is told to.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use tidings_core::{Error, ErrorKind, Guarantees, Position, Publisher, Record, Result};
use tokio::sync::Notify;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

type Refuses = Box<dyn Fn(&Record) -> Option<ErrorKind> + Send + Sync>;

pub(crate) struct Broker {
    records: Mutex<Vec<Record>>,
    refuses: Mutex<Refuses>,
    pub(crate) down: AtomicBool,
    /// It holds what it is given, and gives no answer.
    pub(crate) mute: AtomicBool,
    opened: Notify,
    waiting: AtomicUsize,
    pub(crate) most_waiting: AtomicUsize,
    keys: Mutex<HashSet<Bytes>>,
    /// Two records of one key were unanswered at once.
    pub(crate) crossed: AtomicBool,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Broker")
    }
}

impl Broker {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            records: Mutex::default(),
            refuses: Mutex::new(Box::new(|_| None)),
            down: AtomicBool::new(false),
            mute: AtomicBool::new(false),
            opened: Notify::new(),
            waiting: AtomicUsize::new(0),
            most_waiting: AtomicUsize::new(0),
            keys: Mutex::default(),
            crossed: AtomicBool::new(false),
        })
    }

    pub(crate) fn refuse(&self, refuses: impl Fn(&Record) -> Option<ErrorKind> + Send + Sync + 'static) {
        *self.refuses.lock().unwrap() = Box::new(refuses);
    }

    pub(crate) fn speak(&self) {
        self.mute.store(false, Ordering::SeqCst);
        self.opened.notify_waiters();
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.records.lock().unwrap().clone()
    }

    pub(crate) fn values(&self) -> Vec<String> {
        self.records.lock().unwrap().iter().map(text).collect()
    }

    /// Waits until it holds this number of different values.
    pub(crate) async fn holds(&self, count: usize) {
        until("records at the broker", async || self.values().into_iter().collect::<HashSet<_>>().len() >= count).await;
    }

    /// The values of each key as a reader sees them that leaves out repeats.
    pub(crate) fn by_key(&self) -> BTreeMap<String, Vec<String>> {
        let mut seen = HashSet::new();
        let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for record in self.records.lock().unwrap().iter() {
            if seen.insert(text(record)) {
                let key = String::from_utf8(record.key.clone().unwrap_or_default().to_vec()).unwrap();
                keys.entry(key).or_default().push(text(record));
            }
        }
        keys
    }
}

pub(crate) fn text(record: &Record) -> String {
    String::from_utf8(record.value.clone().unwrap_or_default().to_vec()).unwrap()
}

/// Polls a condition up to a deadline.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[async_trait]
impl Publisher for Broker {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let waiting = self.waiting.fetch_add(records.len(), Ordering::SeqCst) + records.len();
        self.most_waiting.fetch_max(waiting, Ordering::SeqCst);
        let keys: Vec<Bytes> = records.iter().filter_map(|record| record.key.clone()).collect();
        for key in &keys {
            if !self.keys.lock().unwrap().insert(key.clone()) {
                self.crossed.store(true, Ordering::SeqCst);
            }
        }
        tokio::task::yield_now().await;
        let answer = |record: Record| {
            if self.down.load(Ordering::SeqCst) {
                return Err(Error::new(ErrorKind::Unavailable, "publish: the broker is down"));
            }
            if let Some(kind) = (self.refuses.lock().unwrap())(&record) {
                return Err(Error::new(kind, "publish: the broker does not want it"));
            }
            let mut held = self.records.lock().unwrap();
            held.push(record);
            Ok(Position::new(0, held.len() as u64))
        };
        let answers: Vec<_> = records.into_iter().map(answer).collect();
        while self.mute.load(Ordering::SeqCst) {
            let opened = self.opened.notified();
            if self.mute.load(Ordering::SeqCst) {
                opened.await;
            }
        }
        self.keys.lock().unwrap().retain(|key| !keys.contains(key));
        self.waiting.fetch_sub(answers.len(), Ordering::SeqCst);
        answers
    }
    async fn close(&self, _: Duration) -> Result<()> {
        Ok(())
    }
    fn guarantees(&self) -> Guarantees {
        Guarantees::all()
    }
}
