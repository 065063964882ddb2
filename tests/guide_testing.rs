//! The tests of docs/guides/testing.md: they run here, and the page must show them as they are.
#![cfg(feature = "full")]

mod page;

// begin: service
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidings::{BoxError, Event, Retry, Router, Service, reject};

#[derive(Serialize, Deserialize, Event)]
#[event(topic = "orders", type = "order.placed", key = "order")]
struct OrderPlaced {
    order: String,
    cents: u64,
}

#[derive(Serialize, Deserialize, Event)]
#[event(topic = "payments", type = "payment.taken", key = "order")]
struct PaymentTaken {
    order: String,
    cents: u64,
}

#[derive(Serialize, Deserialize, Event)]
#[event(topic = "receipts", type = "receipt.sent", key = "order")]
struct ReceiptSent {
    order: String,
}

async fn take_payment(event: OrderPlaced) -> Result<PaymentTaken, BoxError> {
    if event.cents == 0 {
        return Err(reject("an order over nothing").into());
    }
    Ok(PaymentTaken { order: event.order, cents: event.cents })
}

async fn send_receipt(event: PaymentTaken) -> ReceiptSent {
    ReceiptSent { order: event.order }
}

fn service() -> Service {
    let retry = Retry::exponential(Duration::from_secs(1)).without_jitter();
    Service::new("billing", Router::new().on(take_payment).on(send_receipt)).with_retry(retry)
}
// end: service

// begin: follows
use tidings::testing::Harness;

#[tokio::test(start_paused = true)]
async fn an_order_ends_with_a_receipt() -> tidings::Result<()> {
    let test = Harness::start(service()).await?;
    let fate = test.send(&OrderPlaced { order: "o1".into(), cents: 500 }).await;

    assert!(fate.is_wholly_handled()); // the order, and the payment that followed from it
    assert_eq!(test.published::<PaymentTaken>()[0].payload.cents, 500);
    assert_eq!(test.published::<ReceiptSent>().len(), 1);
    Ok(())
}
// end: follows

// begin: retries
#[tokio::test(start_paused = true)]
async fn a_payment_that_fails_once_is_tried_again() -> tidings::Result<()> {
    let test = Harness::start(service()).await?;
    test.fail_attempt("order.placed", 1, "no connection to the bank");
    let fate = test.send(&OrderPlaced { order: "o1".into(), cents: 500 }).await;

    assert!(fate.is_handled());
    assert_eq!((fate.attempts(), fate.errors.len()), (2, 1));

    let fate = test.send(&OrderPlaced { order: "o2".into(), cents: 0 }).await;
    assert!(fate.is_dead_lettered()); // rejected: there is no second attempt
    assert!(test.dead_letters()[0].error.contains("an order over nothing"));
    Ok(())
}
// end: retries

// begin: outage
use tidings::memory::MemoryStore;

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_store_delays_orders_and_loses_none() -> tidings::Result<()> {
    let store = MemoryStore::new();
    let test = Harness::start(service().with_idempotency(store.clone())).await?;
    store.faults().down();
    let order = test.publish(&OrderPlaced { order: "o1".into(), cents: 500 }).await?;
    test.advance(Duration::from_secs(3_600)).await; // an hour of tokio's time, instantly

    assert!(test.fate(&order).is_none()); // not handled, not dead-lettered
    store.faults().up();
    assert!(test.wait_for(&order).await?.is_wholly_handled());
    Ok(())
}
// end: outage

// begin: duplicate
use tidings::Envelope;
use tidings::codec::encode;

#[tokio::test(start_paused = true)]
async fn an_order_sent_twice_is_paid_once() -> tidings::Result<()> {
    let test = Harness::start(service().with_idempotency(MemoryStore::new())).await?;
    let order = Envelope::new(OrderPlaced { order: "o1".into(), cents: 500 });
    let record = encode(order.as_ref(), "")?.with_header("tenant", "acme");

    assert!(test.send_raw(record.clone()).await.is_handled());
    assert!(test.send_raw(record).await.is_duplicate());
    assert_eq!(test.published::<PaymentTaken>().len(), 1);
    Ok(())
}
// end: duplicate

// begin: redrive
use tidings::dead_letter::{DeadLetters, LetterQuery, RedriveOptions};

#[tokio::test(start_paused = true)]
async fn a_redriven_order_is_paid() -> tidings::Result<()> {
    let test = Harness::start(service()).await?;
    test.fail_attempt("order.placed", 1, reject("a bug"));
    assert!(test.send(&OrderPlaced { order: "o1".into(), cents: 500 }).await.is_dead_lettered());

    let letters = DeadLetters::open(test.transport(), ["orders"]).await?;
    let report = letters.redrive(&LetterQuery::default(), &RedriveOptions::default()).await?;
    assert_eq!(report.redriven, 1);
    test.settle().await?; // waits for events that the test did not send itself, too
    assert_eq!(test.published::<PaymentTaken>().len(), 1);
    Ok(())
}
// end: redrive

#[test]
fn the_page_shows_these_tests() {
    assert_eq!(page::shows(include_str!("../docs/guides/testing.md"), include_str!("guide_testing.rs")), 6);
}
