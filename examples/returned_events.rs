//! A handler that returns events: they are published before its own event is settled, under ids that follow from it, so
//! that a repeat is recognised downstream.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidings::{Envelope, Event, EventPublisher, Router, Service};
use tracing_subscriber::EnvFilter;

#[derive(Serialize, Deserialize, Event)]
#[event(topic = "orders", type = "order.placed", key = "order_id")]
struct OrderPlaced {
    order_id: u64,
    items: Vec<String>,
}

#[derive(Serialize, Deserialize, Event)]
#[event(topic = "picks", type = "item.to_pick", key = "order_id")]
struct ItemToPick {
    order_id: u64,
    item: String,
}

async fn plan(order: OrderPlaced) -> Vec<ItemToPick> {
    order.items.into_iter().map(|item| ItemToPick { order_id: order.order_id, item }).collect()
}

async fn pick(event: Envelope<ItemToPick>) {
    println!("{} for order {} (event {})", event.payload.item, event.payload.order_id, event.id);
}

#[tokio::main]
async fn main() -> tidings::Result<()> {
    log();
    let transport = tidings::connect("memory://").await?;
    let planner = Service::new("planner", Router::new().on(plan)).start(&transport).await?;
    let picker = Service::new("picker", Router::new().on(pick)).start(&transport).await?;
    let events = EventPublisher::new(&transport, "shop");
    events.publish(&OrderPlaced { order_id: 7, items: vec!["bolt".into(), "nut".into(), "bolt".into()] }).await?;
    // Wait for the planner first: the events that it returns are then published, and count in the picker's lag.
    planner.caught_up().await?;
    picker.caught_up().await?;
    planner.shutdown(Duration::from_secs(10)).await?;
    picker.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}

/// Logs to stderr, by RUST_LOG if that is set. Of the Kafka client, only the warnings are needed.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,krafka=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
