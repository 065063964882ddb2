//! The code of docs/guides/versions.md: it runs here, and the page must show it as it is.
#![cfg(feature = "full")]

mod page;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings::handler::HandlerExt;
use tidings::memory::MemoryTransport;
use tidings::testing::Harness;
use tidings::{Delivery, EventPublisher, Router, Service, State};

/// The names that a mailer greeted.
type Log = Arc<Mutex<Vec<String>>>;

fn add(log: &Log, line: String) {
    log.lock().expect("no test panics with the log").push(line);
}

fn lines(log: &Log) -> Vec<String> {
    log.lock().expect("no test panics with the log").clone()
}

// begin: events
use serde::{Deserialize, Serialize};
use tidings::Event;

/// Version 1, under a new Rust name.
#[derive(Serialize, Deserialize, Event)]
#[event(topic = "user-events", type = "user.registered", key = "user_id")]
struct UserRegisteredV1 {
    user_id: String,
    name: String,
}

/// Version 2.
#[derive(Debug, Serialize, Deserialize, Event)]
#[event(topic = "user-events", type = "user.registered", version = 2, key = "user_id")]
#[event(upcast_from = UserRegisteredV1, downcast_to = UserRegisteredV1)]
struct UserRegistered {
    user_id: String,
    first_name: String,
    last_name: String,
}

/// Converts old events, for readers. A conversion that cannot fail is a `From`.
impl TryFrom<UserRegisteredV1> for UserRegistered {
    type Error = String;

    fn try_from(old: UserRegisteredV1) -> Result<Self, String> {
        let (first, last) = old.name.split_once(' ').ok_or("the name is one word")?;
        Ok(Self { user_id: old.user_id, first_name: first.to_owned(), last_name: last.to_owned() })
    }
}

/// Converts new events by reference, for writers of version 1.
impl From<&UserRegistered> for UserRegisteredV1 {
    fn from(new: &UserRegistered) -> Self {
        Self { user_id: new.user_id.clone(), name: format!("{} {}", new.first_name, new.last_name) }
    }
}
// end: events

/// The mailer before the change.
fn old_mailer(log: &Log) -> Service {
    let greet = async |user: UserRegisteredV1, State(log): State<Log>| add(&log, format!("old: {}", user.name));
    Service::new("mailer", Router::new().on(greet).with_state(log.clone()))
}

// begin: reader
async fn greet(user: UserRegistered, State(log): State<Log>) {
    add(&log, format!("new: {} {}", user.first_name, user.last_name));
}

fn mailer(log: &Log) -> Service {
    Service::new("mailer", Router::new().on(greet).with_state(log.clone()))
}
// end: reader

// begin: expand
fn expanding(transport: &MemoryTransport) -> EventPublisher {
    EventPublisher::new(transport, "accounts").with_event_version::<UserRegisteredV1>()
}
// end: expand

// begin: migrate
fn migrated(transport: &MemoryTransport) -> EventPublisher {
    EventPublisher::new(transport, "accounts")
}
// end: migrate

#[path = "guide_versions/contracted.rs"]
mod contracted;

fn user(first: &str) -> UserRegistered {
    UserRegistered { user_id: first.to_lowercase(), first_name: first.to_owned(), last_name: "Smith".to_owned() }
}

/// Returns the versions of the records of the topic, in their order.
async fn versions(transport: &MemoryTransport) -> tidings::Result<Vec<String>> {
    let log = Log::default();
    let note = async |delivery: Delivery, State(log): State<Log>| {
        add(&log, delivery.record().headers.get_str("version").unwrap_or_default().to_owned());
    };
    let router = Router::new().on_topic("user-events", note.named("note")).with_state(log.clone());
    let reader = Service::new("versions", router).start(transport).await?;
    reader.caught_up().await?;
    reader.shutdown(Duration::from_secs(10)).await?;
    Ok(lines(&log))
}

#[tokio::test(start_paused = true)]
async fn three_releases_of_two_services_share_a_topic() -> tidings::Result<()> {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    let wait = Duration::from_secs(10);
    let old = old_mailer(&log).start(&transport).await?;
    // Both services at version 1.
    let name = "Ada Smith".to_owned();
    let before = EventPublisher::new(&transport, "accounts");
    before.publish(&UserRegisteredV1 { user_id: "ada".into(), name }).await?;
    // Release 1 of accounts, while the old mailer is alive.
    expanding(&transport).publish(&user("Bob")).await?;
    old.caught_up().await?;
    assert_eq!(lines(&log), ["old: Ada Smith", "old: Bob Smith"]);
    // Release 1 of the mailer replaces the old one.
    old.shutdown(wait).await?;
    let new = mailer(&log).start(&transport).await?;
    expanding(&transport).publish(&user("Cy")).await?;
    // Release 2 of accounts.
    migrated(&transport).publish(&user("Di")).await?;
    new.caught_up().await?;
    assert_eq!(lines(&log)[2..], ["new: Cy Smith", "new: Di Smith"]);
    assert_eq!(versions(&transport).await?, ["1.0", "1.0", "1.0", "2.0"]);
    // A new reader of release 1 reads the topic from its beginning.
    let all = Log::default();
    let replay = Service::new("crm", Router::new().on(greet).with_state(all.clone())).start(&transport).await?;
    replay.caught_up().await?;
    assert_eq!(lines(&all), ["new: Ada Smith", "new: Bob Smith", "new: Cy Smith", "new: Di Smith"]);
    // Release 3 of both.
    new.shutdown(wait).await?;
    let last = contracted::mailer(&log).start(&transport).await?;
    migrated(&transport).publish(&user("Eve")).await?;
    last.caught_up().await?;
    assert_eq!(lines(&log)[4..], ["contracted: Eve Smith"]);
    for status in [last.status().await, replay.status().await] {
        assert_eq!(status.totals.dead_lettered, 0);
    }
    Ok(())
}

#[test]
fn the_handlers_name_stays_over_the_releases() {
    let log = Log::default();
    let name = |service: Service| service.describe().handlers[0].name.to_string();
    let names = [old_mailer(&log), mailer(&log), contracted::mailer(&log)].map(name);
    assert_eq!(names, ["user.registered"; 3]);
}

// begin: test
#[tokio::test(start_paused = true)]
async fn old_and_new_events_are_greeted() -> tidings::Result<()> {
    let log = Log::default();
    let test = Harness::start(mailer(&log)).await?;
    let old = |name: &str| UserRegisteredV1 { user_id: "u1".into(), name: name.into() };
    assert!(test.send(&old("Ada Lovelace")).await.is_handled());
    let new = UserRegistered { user_id: "u2".into(), first_name: "Grace".into(), last_name: "Hopper".into() };
    assert!(test.send(&new).await.is_handled());
    assert_eq!(lines(&log), ["new: Ada Lovelace", "new: Grace Hopper"]);
    assert_eq!(test.handled::<UserRegistered>().len(), 2);

    assert!(test.send(&old("Plato")).await.is_dead_lettered());
    let letter = &test.dead_letters()[0];
    assert_eq!(letter.error, "upcast user.registered from version 1.0 to 2.0: the name is one word");
    assert_eq!(letter.record.headers.get_str("version"), Some("1.0"));
    Ok(())
}
// end: test

#[test]
fn the_page_shows_this_code() {
    let page = include_str!("../docs/guides/versions.md");
    assert_eq!(page::shows(page, include_str!("guide_versions.rs")), 5);
    assert_eq!(page::shows(page, include_str!("guide_versions/contracted.rs")), 1);
}
