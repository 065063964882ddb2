//! The code of docs/guides/handlers.md: it runs here, and the page must show it as it is.
#![cfg(feature = "full")]

mod page;

// begin: events
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidings::handler::{BatchOptions, Caused, FromDelivery, HandlerExt, Next, Outcome, from_fn, stopped_at};
use tidings::testing::Harness;
use tidings::{
    Batch, BoxError, Delivery, Envelope, Event, Record, Retry, Router, Service, State, failed, reject, unavailable,
};

#[derive(Serialize, Deserialize, Event)]
#[event(topic = "measurements", type = "temperature.measured", key = "sensor")]
struct Measured {
    sensor: u32,
    celsius: f64,
}

#[derive(Serialize, Deserialize, Event)]
#[event(topic = "alarms", type = "alarm.raised", key = "sensor")]
struct AlarmRaised {
    sensor: u32,
}
// end: events

// begin: single
/// Raises an alarm when it is too hot.
async fn watch(event: Envelope<Measured>, State(limit): State<f64>) -> Result<Option<AlarmRaised>, BoxError> {
    let Measured { sensor, celsius } = event.payload;
    if celsius < -273.15 {
        return Err(reject(format!("{celsius} degrees are below absolute zero")).into());
    }
    Ok((celsius > limit).then_some(AlarmRaised { sensor }))
}

#[tokio::test(start_paused = true)]
async fn heat_raises_an_alarm() -> tidings::Result<()> {
    let service = Service::new("watch", Router::new().on(watch).with_state(90.0));
    let test = Harness::start(service).await?;

    assert!(test.send(&Measured { sensor: 1, celsius: 20.0 }).await.is_handled());
    assert!(test.published::<AlarmRaised>().is_empty());
    assert!(test.send(&Measured { sensor: 1, celsius: 95.0 }).await.is_handled());
    assert_eq!(test.published::<AlarmRaised>()[0].payload.sensor, 1);
    assert!(test.send(&Measured { sensor: 2, celsius: -300.0 }).await.is_dead_lettered());
    Ok(())
}
// end: single

// begin: batch
/// Writes a batch in one call, and returns an alarm for each measurement that is too hot.
async fn archive(batch: Batch<Measured>) -> Result<Vec<Caused<AlarmRaised>>, BoxError> {
    let impossible = |(_, event): &(usize, &Envelope<Measured>)| event.payload.celsius < -273.15;
    let bad: Vec<usize> = batch.iter().enumerate().filter(impossible).map(|(index, _)| index).collect();
    // .. write the others in one call ..
    if !bad.is_empty() {
        return Err(failed(bad, "below absolute zero").into()); // these failed, all others are handled
    }
    let hot = batch.iter().filter(|event| event.payload.celsius > 90.0);
    Ok(hot.map(|event| event.causes(AlarmRaised { sensor: event.payload.sensor })).collect())
}

#[tokio::test(start_paused = true)]
async fn one_bad_measurement_fails_alone() -> tidings::Result<()> {
    let archive = archive.batch(BatchOptions::new(500).with_wait(Duration::from_millis(50)));
    let service = Service::new("archive", Router::new().on(archive)).with_retry(Retry::never());
    let test = Harness::start(service).await?;

    let all = [20.0, -300.0, 95.0].map(|celsius| Measured { sensor: 1, celsius });
    let fates = test.send_all(&all).await;
    assert!(fates[0].is_handled() && fates[1].is_dead_lettered() && fates[2].is_handled());
    assert_eq!(test.dead_letters().len(), 1);
    Ok(())
}
// end: batch

// begin: ordered
/// Applies measurements one by one, and stops at the first that fails.
async fn apply(batch: Batch<Measured>, State(sum): State<Arc<AtomicU64>>) -> Result<(), BoxError> {
    for (index, event) in batch.iter().enumerate() {
        if event.payload.celsius < 0.0 {
            return Err(stopped_at(index, "frost").into()); // those before it are handled, those after it come again
        }
        sum.fetch_add(event.payload.celsius as u64, Ordering::Relaxed);
    }
    Ok(())
}
// end: ordered

// begin: outage
/// Waits for its dependency, for as long as it takes.
async fn forward(event: Measured, State(client): State<Client>) -> Result<(), BoxError> {
    client.post(event.sensor).await.map_err(unavailable)?;
    Ok(())
}
// end: outage

#[derive(Clone, Default)]
struct Client(Arc<AtomicU64>);

impl Client {
    /// Fails three times.
    async fn post(&self, _: u32) -> Result<(), BoxError> {
        if self.0.fetch_add(1, Ordering::Relaxed) < 3 { Err("the server is down".into()) } else { Ok(()) }
    }
}

// begin: extractor
/// The tenant that a record belongs to, from its header.
struct Tenant(String);

impl<S: Sync> FromDelivery<S> for Tenant {
    async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, BoxError> {
        let tenant = delivery.record().headers.get_str("tenant").ok_or_else(|| reject("no header tenant"))?;
        Ok(Self(tenant.to_owned()))
    }
}

async fn per_tenant(event: Measured, Tenant(tenant): Tenant) {
    println!("{tenant}: sensor {} has {} degrees", event.sensor, event.celsius);
}
// end: extractor

// begin: raw
/// Counts the bytes of a topic whose records are not events.
async fn count(delivery: Delivery, State(bytes): State<Arc<AtomicU64>>) {
    bytes.fetch_add(delivery.record().size() as u64, Ordering::Relaxed);
}

#[tokio::test(start_paused = true)]
async fn records_without_an_envelope_are_counted() -> tidings::Result<()> {
    let bytes = Arc::new(AtomicU64::new(0));
    let router = Router::new().on_topic("clicks", count.named("count")).with_state(bytes.clone());
    let test = Harness::start(Service::new("meter", router)).await?;

    assert!(test.send_raw(Record::new("clicks", "not JSON at all").with_key("page-1")).await.is_handled());
    assert!(bytes.load(Ordering::Relaxed) >= 15);
    Ok(())
}
// end: raw

// begin: raw-batch
use tidings::handler::RawBatch;
use tidings::record::StoredRecord;

/// Sums up many records in one step; those without a value are dead-lettered.
async fn count_all(RawBatch(batch): RawBatch, State(bytes): State<Arc<AtomicU64>>) -> Result<(), BoxError> {
    let empty = |(index, record): (usize, &StoredRecord)| record.value.is_none().then_some(index);
    let empty: Vec<usize> = batch.records().enumerate().filter_map(empty).collect();
    let total: usize = batch.records().map(|record| record.value.as_ref().map_or(0, |value| value.len())).sum();
    bytes.fetch_add(total as u64, Ordering::Relaxed);
    if empty.is_empty() { Ok(()) } else { Err(failed(empty, "it has no value").into()) }
}

#[tokio::test(start_paused = true)]
async fn raw_records_are_handled_many_at_a_time() -> tidings::Result<()> {
    let bytes = Arc::new(AtomicU64::new(0));
    let handler = count_all.named("count-all").batch(BatchOptions::new(100).with_wait(Duration::from_millis(50)));
    let service = Service::new("meter", Router::new().on_topic("clicks", handler).with_state(bytes.clone()));
    let test = Harness::start(service.with_retry(Retry::never())).await?;

    let mut sent = Vec::new();
    for value in ["page one", "page two"] {
        sent.push(test.publish_raw(Record::new("clicks", value)).await?);
    }
    let tombstone = test.publish_raw(Record::tombstone("clicks").with_key("gone")).await?;
    for record in &sent {
        assert!(test.wait_for(record).await?.is_handled());
    }
    assert!(test.wait_for(&tombstone).await?.is_dead_lettered());
    assert_eq!(bytes.load(Ordering::Relaxed), 16);
    Ok(())
}
// end: raw-batch

// begin: parts
use tidings::handler::FromRef;

#[derive(Clone, FromRef)]
struct App {
    limit: f64,
    bytes: Arc<AtomicU64>,
}

fn with_parts(app: App) -> Router {
    Router::new().on(watch).on_topic("clicks", count.named("count")).with_state(app)
}
// end: parts

// begin: layer
/// Logs how long each delivery takes.
async fn log(delivery: Delivery, next: Next) -> Result<Outcome, BoxError> {
    let (begun, offset) = (tokio::time::Instant::now(), delivery.offset());
    let outcome = next.run(delivery).await;
    println!("offset {offset} took {:?}: {}", begun.elapsed(), if outcome.is_ok() { "ok" } else { "failed" });
    outcome
}

fn layered() -> Router {
    Router::new().on(watch).layer(from_fn(log)).with_state(90.0)
}
// end: layer

#[tokio::test(start_paused = true)]
async fn a_batch_that_stops_repeats_the_rest() -> tidings::Result<()> {
    let sum = Arc::new(AtomicU64::new(0));
    let service = Service::new("apply", Router::new().on(apply).with_state(sum.clone())).with_retry(Retry::never());
    let test = Harness::start(service).await?;

    let fates = test.send_all(&[1.0, -1.0, 2.0].map(|celsius| Measured { sensor: 1, celsius })).await;
    assert!(fates[0].is_handled() && fates[1].is_dead_lettered() && fates[2].is_handled());
    assert_eq!(sum.load(Ordering::Relaxed), 3);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_waited_for() -> tidings::Result<()> {
    let service = Service::new("forward", Router::new().on(forward).with_state(Client::default()));
    let test = Harness::start(service.with_retry(Retry::never())).await?;
    assert!(test.send(&Measured { sensor: 1, celsius: 1.0 }).await.is_handled());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_missing_header_is_rejected() -> tidings::Result<()> {
    let test = Harness::start(Service::new("tenants", Router::new().on(per_tenant))).await?;
    assert!(test.send(&Measured { sensor: 1, celsius: 1.0 }).await.is_dead_lettered());
    assert!(test.dead_letters()[0].error.contains("no header tenant"));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn layers_wrap_the_handlers_before_them() -> tidings::Result<()> {
    let test = Harness::start(Service::new("layered", layered())).await?;
    assert!(test.send(&Measured { sensor: 1, celsius: 95.0 }).await.is_wholly_handled());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn handlers_take_parts_of_the_state() -> tidings::Result<()> {
    let app = App { limit: 90.0, bytes: Arc::new(AtomicU64::new(0)) };
    let test = Harness::start(Service::new("parts", with_parts(app.clone()))).await?;
    assert!(test.send(&Measured { sensor: 1, celsius: 95.0 }).await.is_handled());
    assert!(test.send_raw(Record::new("clicks", "home")).await.is_handled());
    assert_eq!((test.published::<AlarmRaised>().len(), app.bytes.load(Ordering::Relaxed) > 0), (1, true));
    Ok(())
}

#[test]
fn the_page_shows_this_code() {
    assert_eq!(page::shows(include_str!("../docs/guides/handlers.md"), include_str!("guide_handlers.rs")), 10);
}
