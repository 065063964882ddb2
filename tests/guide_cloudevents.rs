//! The code of docs/guides/cloudevents.md: it runs here, and the page must show it as it is.
#![cfg(feature = "full")]

mod page;

// begin: events
use serde::{Deserialize, Serialize};
use tidings::codec::EventFormat;
use tidings::testing::Harness;
use tidings::{Envelope, Event, Record, Router, Service};

#[derive(Serialize, Deserialize, Event)]
#[event(topic = "orders", type = "com.acme.order.placed", key = "order")]
struct OrderPlaced {
    order: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event(topic = "invoices", type = "com.acme.invoice.made", key = "order", codec = "cloudevents")]
struct InvoiceMade {
    order: String,
}

async fn bill(event: Envelope<OrderPlaced>) -> InvoiceMade {
    if let Some(subject) = event.attributes.get("subject") {
        println!("about {subject}, from {}", event.source);
    }
    InvoiceMade { order: event.payload.order }
}
// end: events

// begin: service
fn service() -> Service {
    Service::new("billing", Router::new().on(bill)).with_event_format(EventFormat::StructuredCloudEvents)
}
// end: service

// begin: attributes
fn about(order: &str) -> tidings::Result<Envelope<InvoiceMade>> {
    Envelope::new(InvoiceMade { order: order.to_owned() }).with_attribute("subject", order)
}
// end: attributes

// begin: test
#[tokio::test]
async fn orders_arrive_in_each_format() -> tidings::Result<()> {
    let test = Harness::start(service()).await?;
    assert!(test.send(&OrderPlaced { order: "o1".into() }).await.is_handled());

    let binary = Record::new("orders", r#"{"order":"o2"}"#)
        .with_header("ce_specversion", "1.0")
        .with_header("ce_id", "A-2")
        .with_header("ce_source", "/shop")
        .with_header("ce_type", "com.acme.order.placed");
    assert!(test.send_raw(binary).await.is_handled());

    let structured = r#"{"specversion":"1.0","id":"A-3","source":"/shop","type":"com.acme.order.placed",
        "subject":"o3","data":{"order":"o3"}}"#;
    let structured = Record::new("orders", structured).with_header("content-type", "application/cloudevents+json");
    assert!(test.send_raw(structured).await.is_handled());

    let invoices = test.published::<InvoiceMade>();
    assert_eq!(invoices.iter().map(|event| event.payload.order.as_str()).collect::<Vec<_>>(), ["o1", "o2", "o3"]);
    assert!(about("o4")?.attributes.get("subject").is_some());
    Ok(())
}
// end: test

#[test]
fn the_page_shows_this_code() {
    assert_eq!(page::shows(include_str!("../docs/guides/cloudevents.md"), include_str!("guide_cloudevents.rs")), 4);
}
