//! Events that a handler returns: written with its effects, or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};
use tidings_core::{BoxError, Envelope, Event, Record, StoredRecord, Timestamp, codec, headers};
use tidings_macros::Event;
use tidings_memory::MemoryTransport;
use tidings_postgres::{PostgresStore, Tx};
use tidings_service::{EventPublisher, Router, Service, State};

use crate::broker::Broker;
use crate::{DEADLINE, OrderPlaced, is_empty, outbox, relay, store};

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(topic = "payments", type = "order.paid", key = "order", crate = "tidings_core")]
struct OrderPaid {
    order: u32,
}

/// Fails the first time after it has written its effect.
async fn pay(event: OrderPlaced, State(calls): State<Arc<AtomicUsize>>, mut tx: Tx) -> Result<OrderPaid, BoxError> {
    let insert = sqlx::query("INSERT INTO paid VALUES ($1)").bind(i32::try_from(event.id)?);
    insert.execute(&mut **tx).await?;
    if calls.fetch_add(1, Ordering::SeqCst) == 0 {
        return Err("the first attempt fails".into());
    }
    Ok(OrderPaid { order: event.id })
}

fn service(store: &PostgresStore, calls: &Arc<AtomicUsize>) -> Service {
    let inbox = store.inbox().with_outbox(outbox(store));
    let router = Router::new().on(pay).layer(inbox).with_state(Arc::clone(calls));
    Service::new("payments", router).with_idempotency(store.clone())
}

pub(crate) async fn all_or_nothing() -> Result<(), tidings_testbed::BoxError> {
    let (store, transport, broker) = (store().await?, MemoryTransport::new(), Broker::new());
    sqlx::query("CREATE TABLE paid (id int PRIMARY KEY)").execute(store.pool()).await?;
    let calls = Arc::new(AtomicUsize::new(0));
    let events = EventPublisher::new(&transport, "shop");
    let mut causes = Vec::new();
    for id in 0..10 {
        let envelope = Envelope::new(OrderPlaced { id, amount: 1 });
        // Each comes twice.
        events.publish_envelope(&envelope).await?;
        events.publish_envelope(&envelope).await?;
        causes.push(envelope.id.to_string());
    }
    let running = service(&store, &calls).start(&transport).await?;
    running.caught_up().await?;
    running.shutdown(DEADLINE).await?;
    assert_eq!(calls.load(Ordering::SeqCst), 11, "ten events and a failed attempt");
    let waiting = outbox(&store).lag().await?.waiting;
    assert_eq!(waiting, 10, "one event for each effect, and none of the attempt that failed");
    let _relay = relay(&store, &broker);
    is_empty(&store).await;
    let records = broker.records();
    let caused: Vec<String> =
        records.iter().map(|r| r.headers.get_str(headers::CAUSATION_ID).unwrap().to_owned()).collect();
    assert!(records.len() == 10 && causes.iter().all(|cause| caused.contains(cause)));
    assert!(records.iter().all(|record| record.topic == OrderPaid::TOPIC && id_of(record).get_version_num() == 5));
    Ok(())
}

fn id_of(record: &Record) -> uuid::Uuid {
    codec::decode::<OrderPaid>(&StoredRecord::from_record(record.clone(), 0, Timestamp::now())).unwrap().id
}
