//! A publisher's thread that panics because the program's log subscriber does.

#[path = "common/traces.rs"]
mod traces;

use std::error::Error as StdError;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use krafka::error::ErrorCode;
use krafka::testing::{ApiKey, Control, FakeBroker};
use tidings_core::{Error, ErrorKind, Publisher, PublisherExt, Record, Transport};
use tidings_kafka::{KafkaConfig, KafkaTransport};
use tokio::time::{Instant, timeout};

type TestResult<T = ()> = Result<T, Box<dyn StdError + Send + Sync>>;

const LIMIT: Duration = Duration::from_secs(30);
const THREAD: &str = "kafka-publisher";

/// The log line at which the publisher's thread panics next.
static PANIC_AT: Mutex<Option<&str>> = Mutex::new(None);
/// Whether the panic was reported.
static TOLD: Mutex<bool> = Mutex::new(false);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn panic_at(text: &'static str) {
    *locked(&PANIC_AT) = Some(text);
    *locked(&TOLD) = false;
}

fn line(line: &str) {
    if std::thread::current().name() != Some(THREAD) {
        return;
    }
    if line.contains("panicked") || line.contains("producer ended") {
        *locked(&TOLD) = true;
    }
    let hit = locked(&PANIC_AT).take_if(|text| line.contains(*text));
    assert!(hit.is_none(), "the subscriber's own fault");
}

#[tokio::test]
async fn calls_end_and_the_publisher_goes_on() -> TestResult {
    traces::Traces::install(line)?;
    let broker = FakeBroker::start().await?;
    broker.create_topic("t", 2);
    let transport = KafkaTransport::connect(KafkaConfig::new([broker.bootstrap_servers()])).await?;
    let publisher = transport.publisher().await?;
    publish(&*publisher).await?;
    // When a record is passed to the client; and when the client resends one, which ends the client's own task.
    for text in ["messaging.destination.partition.id", "retrying produce"] {
        panic_at(text);
        broker.on_once(ApiKey::Produce, |_| Control::Error(ErrorCode::NotLeaderForPartition));
        let answer = publish(&*publisher).await;
        assert_eq!(answer.map_err(|e| e.kind()), Err(ErrorKind::Indeterminate), "{text}");
        assert!(locked(&PANIC_AT).is_none(), "{text}");
        broker.clear_hooks();
        let ends = Instant::now() + LIMIT;
        while let Err(error) = publish(&*publisher).await {
            assert!(Instant::now() < ends && error.kind() == ErrorKind::Unavailable, "{text}: {}", error.report());
        }
        assert!(*locked(&TOLD), "{text}: it is not told");
    }
    publisher.close(LIMIT).await?;
    Ok(())
}

/// Publishes one record within the time limit.
async fn publish(publisher: &dyn Publisher) -> Result<(), Error> {
    let publishing = publisher.publish_one(Record::new("t", "v").with_partition(0));
    let late = |_| Error::new(ErrorKind::Corrupt, "the call waits for ever");
    timeout(LIMIT, publishing).await.unwrap_or_else(|e| Err(late(e))).map(drop)
}
