//! The program and the test of README.md: they run here, and the page must show them as they are.
#![cfg(all(feature = "memory", feature = "json", feature = "macros", feature = "test"))]

// begin: program
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidings::memory::MemoryStore;
use tidings::{
    BoxError, Event, EventPublisher, Retry, Router, Service, State, Topic, TopicPolicy, reject, unavailable,
};

#[derive(Serialize, Deserialize, Event)]
#[event(topic = "user-events", type = "user.registered", key = "user_id")]
struct UserRegistered {
    user_id: String,
    email: String,
}

#[derive(Clone, Default)]
struct Mailer;

impl Mailer {
    async fn send(&self, to: &str) -> std::io::Result<()> {
        println!("welcome, {to}");
        Ok(())
    }
}

// A handler is an async function: an event first, then what it needs. `?` means: try again, then dead-letter;
// `reject(..)`: dead-letter at once; `unavailable(..)`: wait, for as long as it takes.
async fn welcome(event: UserRegistered, State(mailer): State<Mailer>) -> Result<(), BoxError> {
    if !event.email.contains('@') {
        return Err(reject("not an address").into());
    }
    mailer.send(&event.email).await.map_err(unavailable)?; // its server is down: wait until it is back
    Ok(())
}

fn service() -> Service {
    let topics = TopicPolicy::Create(vec![Topic::new("user-events").with_partitions(3)]);
    Service::new("user-service", Router::new().on(welcome).with_state(Mailer)) // reads its events' topics, in its group
        .with_topics(topics) // created if missing, each with its -dlq; by default `start` fails, except in memory
        .with_idempotency(MemoryStore::new()) // or SledStore, which survives the process
        .with_retry(Retry::exponential(Duration::from_millis(100)).with_max_retries(5)) // by default 3
}

#[tokio::main]
async fn main() -> tidings::Result<()> {
    // Or kafka://broker:9092. Each `memory://` is a broker of its own: share the transport.
    let transport = tidings::connect("memory://").await?;
    let service = service().start(&transport).await?; // or .run(&transport): until Ctrl-C or SIGTERM, then drains

    let events = EventPublisher::new(&transport, "api-gateway");
    events.publish(&UserRegistered { user_id: "u1".into(), email: "a@b.c".into() }).await?;

    service.caught_up().await?; // lag 0, nothing in flight. Keep `service`: dropped, it stops at once
    service.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}
// end: program

// begin: test
use tidings::testing::Harness;

#[tokio::test(start_paused = true)]
async fn a_user_with_an_address_is_welcomed() -> tidings::Result<()> {
    let test = Harness::start(service()).await?;
    let fate = test.send(&UserRegistered { user_id: "u1".into(), email: "a@b.c".into() }).await;
    assert!(fate.is_handled());

    test.send(&UserRegistered { user_id: "u2".into(), email: "nowhere".into() }).await;
    assert!(test.dead_letters()[0].error.contains("not an address"));
    Ok(())
}
// end: test

#[test]
fn the_page_shows_this_program_and_its_test() {
    let (page, source) = (include_str!("../README.md"), include_str!("readme.rs"));
    for (name, fence) in [("program", "rust"), ("test", "rust,ignore")] {
        let (_, part) = source.split_once(&format!("// begin: {name}\n")).expect("it begins");
        let (part, _) = part.split_once(&format!("\n// end: {name}\n")).expect("it ends");
        assert!(page.contains(&format!("```{fence}\n{part}\n```")), "the page does not show the {name} as it is");
    }
}
