//! Publishes an event and handles it, in one process and with no broker.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidings::{Event, EventPublisher, Router, Service};
use tracing_subscriber::EnvFilter;

#[derive(Serialize, Deserialize, Event)]
#[event(topic = "user-events", type = "user.registered", key = "user_id")]
struct UserRegistered {
    user_id: String,
    email: String,
}

async fn welcome(event: UserRegistered) {
    println!("welcome, {} <{}>", event.user_id, event.email);
}

#[tokio::main]
async fn main() -> tidings::Result<()> {
    log();
    let transport = tidings::connect("memory://").await?;
    let service = Service::new("user-service", Router::new().on(welcome)).start(&transport).await?;

    let events = EventPublisher::new(&transport, "api-gateway");
    for user_id in ["ada", "grace", "edsger"] {
        let email = format!("{user_id}@example.com");
        events.publish(&UserRegistered { user_id: user_id.into(), email }).await?;
    }
    service.caught_up().await?;
    service.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}

/// Logs to stderr, by RUST_LOG if that is set. Of the Kafka client, only the warnings are needed.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,krafka=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
