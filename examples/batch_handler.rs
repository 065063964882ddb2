//! Handles events in batches, and reports which of a batch failed: only these are retried, then dead-lettered.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidings::handler::{BatchOptions, HandlerExt};
use tidings::{Batch, BoxError, Event, EventPublisher, Retry, Router, Service, failed};
use tracing_subscriber::EnvFilter;

#[derive(Serialize, Deserialize, Event)]
#[event(topic = "measurements", type = "temperature.measured", key = "sensor")]
struct Measured {
    sensor: u32,
    celsius: f64,
}

async fn store(batch: Batch<Measured>) -> Result<(), BoxError> {
    let cold = |(_, e): &(usize, &tidings::Envelope<Measured>)| e.payload.celsius < -273.15;
    let bad: Vec<usize> = batch.iter().enumerate().filter(cold).map(|(place, _)| place).collect();
    println!("{} rows in one write, {} refused", batch.len() - bad.len(), bad.len());
    if bad.is_empty() { Ok(()) } else { Err(failed(bad, "below absolute zero").into()) }
}

#[tokio::main]
async fn main() -> tidings::Result<()> {
    log();
    let transport = tidings::connect("memory://").await?;
    let events = EventPublisher::new(&transport, "weather-station");
    let all: Vec<_> = (0..1_000).map(|sensor| Measured { sensor, celsius: f64::from(sensor % 400) - 274.0 }).collect();
    for answer in events.publish_all(&all).await {
        answer?;
    }
    let router = Router::new().on(store.batch(BatchOptions::new(250).with_wait(Duration::from_millis(5))));
    let service = Service::new("archive", router).with_retry(Retry::never()).start(&transport).await?;
    service.caught_up().await?;
    println!("{:?}", service.status().await.totals);
    service.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}

/// Logs to stderr, by RUST_LOG if that is set. Of the Kafka client, only the warnings are needed.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,krafka=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
