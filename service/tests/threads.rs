//! Failures that need several threads: a worker that is kept busy while others continue.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Log, caught_up, letters, publish, start, topics};
use tidings_core::{Delivery, Record, TopicPartition};
use tidings_memory::MemoryTransport;
use tidings_service::{Router, Service};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// Long enough for anything on a busy machine.
const LONG: Duration = Duration::from_secs(30);

fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(delivery.record().value.as_deref().unwrap_or_default()).into_owned()
}

/// Counts itself as running until it is dropped.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn new(counter: &Arc<AtomicUsize>, most: &AtomicUsize) -> Self {
        most.fetch_max(counter.fetch_add(1, SeqCst) + 1, SeqCst);
        Self(counter.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// The partition is lost and assigned again at once, while a worker with handlers of it cannot drop them: the other
/// worker must not start the same records concurrently.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_assignment_that_comes_back_waits_for_the_old_ones_handlers() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let counters: Arc<Mutex<BTreeMap<String, Arc<AtomicUsize>>>> = Arc::default();
    let (most, hang, blocked) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)), Arc::new(Notify::new()));
    let router = {
        let (log, most, hang, blocked) = (log.clone(), most.clone(), hang.clone(), blocked.clone());
        Router::new().on_topic("t", move |delivery: Delivery| {
            let counter = counters.lock().expect("no panic").entry(text(&delivery)).or_default().clone();
            let (log, most, hang, blocked) = (log.clone(), most.clone(), hang.clone(), blocked.clone());
            async move {
                let _running = Running::new(&counter, &most);
                if text(&delivery) == "blocks" && hang.load(SeqCst) {
                    tokio::task::yield_now().await;
                    blocked.notify_one();
                    // Handlers must not block.
                    std::thread::sleep(Duration::from_millis(300));
                }
                if hang.load(SeqCst) {
                    std::future::pending::<()>().await;
                }
                log.add(text(&delivery));
            }
        })
    };
    let service = Service::new("s", router).with_workers(2).with_seed(7);
    let service = start(service, &transport).await;
    let hanging = (0..16).map(|n| Record::new("t", format!("hangs {n}")).with_key(format!("k{n}")));
    publish(&transport, hanging.collect()).await;
    publish(&transport, vec![Record::new("t", "blocks").with_key("b")]).await;
    timeout(LONG, blocked.notified()).await.expect("it blocks");
    assert!(transport.faults().lose("s-group", &TopicPartition::new("t", 0)));
    sleep(Duration::from_millis(100)).await;
    hang.store(false, SeqCst);
    caught_up(&service).await;
    assert_eq!(most.load(SeqCst), 1, "a record is handled twice at once");
    let handled: BTreeSet<_> = log.lines().into_iter().collect();
    assert_eq!(handled.len(), 17, "{handled:?}");
    assert!(letters(&transport, "t-dlq").await.is_empty());
}
