//! Handlers with state, behind one of tower's layers and a layer made by `from_fn`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tidings::handler::{Next, Outcome, from_fn};
use tidings::{BoxError, Delivery, Event, EventPublisher, Router, Service, State};
use tower::timeout::TimeoutLayer;
use tracing_subscriber::EnvFilter;

#[derive(Serialize, Deserialize, Event)]
#[event(topic = "payments", type = "payment.received", key = "account")]
struct PaymentReceived {
    account: String,
    cents: u64,
}

async fn book(event: PaymentReceived, State(total): State<Arc<AtomicU64>>) {
    total.fetch_add(event.cents, Ordering::Relaxed);
}

async fn time_it(delivery: Delivery, next: Next) -> Result<Outcome, BoxError> {
    let (begun, offset) = (Instant::now(), delivery.offset());
    let outcome = next.run(delivery).await;
    println!("offset {offset}: {:?}, {}", begun.elapsed(), if outcome.is_ok() { "ok" } else { "failed" });
    outcome
}

#[tokio::main]
async fn main() -> tidings::Result<()> {
    log();
    let total = Arc::new(AtomicU64::new(0));
    let router = Router::new().on(book).layer(TimeoutLayer::new(Duration::from_secs(1))).layer(from_fn(time_it));
    let transport = tidings::connect("memory://").await?;
    let service = Service::new("ledger", router.with_state(total.clone())).start(&transport).await?;
    let events = EventPublisher::new(&transport, "bank");
    for cents in [1_000, 250, 99] {
        events.publish(&PaymentReceived { account: "a-1".into(), cents }).await?;
    }
    service.caught_up().await?;
    println!("{} cents in all", total.load(Ordering::Relaxed));
    service.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}

/// Logs to stderr, by RUST_LOG if that is set. Of the Kafka client, only the warnings are needed.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,krafka=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
