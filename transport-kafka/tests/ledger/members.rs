//! Services that join and leave, and share one idempotency store.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidings_core::{BoxError, Delivery, Name};
use tidings_kafka::KafkaTransport;
use tidings_memory::MemoryStore;
use tidings_service::{Router, Service, ServiceHandle, State};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::book::Book;
use crate::common::TestResult;

/// Interval between joins and leaves of members.
const EVERY: Duration = Duration::from_secs(2);
/// Maximum number of members at a time.
const MOST: usize = 4;
/// How long a leaving member may drain.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a member may try to join while brokers are killed.
const JOIN_WITHIN: Duration = Duration::from_secs(60);

pub(crate) struct Members {
    transport: KafkaTransport,
    topic: Name,
    book: Arc<Book>,
    store: MemoryStore,
    running: Mutex<Vec<ServiceHandle>>,
    leaving: tokio::sync::Mutex<JoinSet<tidings_core::Result<()>>>,
    joins: AtomicUsize,
    leaves: AtomicUsize,
}

impl Members {
    pub(crate) fn new(transport: KafkaTransport, topic: Name, book: Arc<Book>) -> Self {
        Self {
            transport,
            topic,
            book,
            store: MemoryStore::new(),
            running: Mutex::default(),
            leaving: tokio::sync::Mutex::default(),
            joins: AtomicUsize::new(0),
            leaves: AtomicUsize::new(0),
        }
    }

    fn service(&self) -> Service {
        let handler = async |delivery: Delivery, State(book): State<Arc<Book>>| -> Result<(), BoxError> {
            let value = delivery.record().value.as_deref().unwrap_or_default();
            let value = String::from_utf8_lossy(value).into_owned();
            sleep(Duration::from_millis(value.len() as u64 % 4)).await;
            // The handler's last action: it cannot be interrupted between this and its end.
            book.effect(&value)
        };
        let router = Router::new().on_topic(self.topic.clone(), handler).with_state(Arc::clone(&self.book));
        Service::new(self.topic.clone(), router)
            .with_idempotency(self.store.clone())
            .with_revocation_deadline(Duration::from_secs(5))
            .with_session_timeout(Duration::from_secs(10))
    }

    pub(crate) fn group(&self) -> Name {
        self.service().group().clone()
    }

    pub(crate) fn joins(&self) -> usize {
        self.joins.load(Ordering::Relaxed)
    }

    pub(crate) fn leaves(&self) -> usize {
        self.leaves.load(Ordering::Relaxed)
    }

    fn count(&self) -> usize {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) async fn join(&self) -> TestResult {
        let ends = Instant::now() + JOIN_WITHIN;
        let joined = loop {
            match self.service().start(&self.transport).await {
                Err(error) if error.is_retryable() && Instant::now() < ends => sleep(Duration::from_millis(300)).await,
                other => break other?,
            }
        };
        self.joins.fetch_add(1, Ordering::Relaxed);
        self.running.lock().unwrap_or_else(PoisonError::into_inner).push(joined);
        Ok(())
    }

    async fn leave(&self, index: usize) {
        let service = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(index);
        self.leaves.fetch_add(1, Ordering::Relaxed);
        self.leaving.lock().await.spawn(async move { service.shutdown(DRAIN).await.map(drop) });
    }

    /// Joins and leaves members for `time`, and until `over` returns true.
    pub(crate) async fn churn(&self, time: Duration, over: impl Fn() -> bool) -> TestResult {
        let ends = Instant::now() + time;
        while Instant::now() < ends || !over() {
            sleep(EVERY).await;
            match self.count() {
                count if count < 2 || count < MOST && fastrand::bool() => self.join().await?,
                count => self.leave(fastrand::usize(..count)).await,
            }
        }
        if self.count() < 2 { self.join().await } else { Ok(()) }
    }

    /// Ends all members; a failed member is an error.
    pub(crate) async fn leave_all(&self) -> TestResult {
        while self.count() > 0 {
            self.leave(0).await;
        }
        let mut leaving = self.leaving.lock().await;
        while let Some(left) = leaving.join_next().await {
            left??;
        }
        Ok(())
    }
}
