//! The harness: what it waits for, what it sees, and what it makes fail.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidings_core::{BoxError, Delivery, ErrorKind, PublisherExt, Record, Timestamp, Topic, Transport, reject};
use tidings_macros::Event;
use tidings_memory::{MemoryDeadLetters, MemoryStore, MemoryTransport};
use tidings_service::{EventPublisher, Retry, Router, Service, TopicPolicy};
use tidings_testkit::Harness;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "users", type = "user.registered", key = "id")]
struct Registered {
    id: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "welcomes", type = "user.welcomed", key = "id")]
struct Welcomed {
    id: String,
    round: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "mails", type = "mail.sent", key = "to")]
struct MailSent {
    to: String,
}

fn registered(id: &str) -> Registered {
    Registered { id: id.into() }
}

async fn welcome(event: Registered) -> Result<Welcomed, BoxError> {
    if event.id.is_empty() {
        return Err(reject("no id").into());
    }
    Ok(Welcomed { id: event.id, round: 0 })
}

async fn mail(event: Welcomed) -> MailSent {
    MailSent { to: event.id }
}

fn service() -> Service {
    let retry = Retry::exponential(Duration::from_secs(1)).without_jitter().with_max_retries(2);
    Service::new("users", Router::new().on(welcome).on(mail)).with_retry(retry)
}

#[tokio::test(start_paused = true)]
async fn an_event_that_the_service_does_not_read_is_refused_at_once() -> tidings_core::Result<()> {
    let test = Harness::start(Service::new("users", Router::new().on(welcome))).await?;
    let begun = tokio::time::Instant::now();
    let error = test.try_send(&MailSent { to: "a@b.c".into() }).await.expect_err("nothing reads mails");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        error.to_string().contains(r#"topic "mails", which the service does not read; it reads "users""#),
        "{error}"
    );
    assert!(begun.elapsed() < Duration::from_secs(1));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn sending_waits_for_all_that_follows() {
    let test = Harness::start(service()).await.unwrap();
    let fate = test.send(&registered("u1")).await;
    assert!(fate.is_wholly_handled());
    assert_eq!(fate.following.len(), 1);
    assert_eq!(fate.following[0].event_type, "user.welcomed");
    assert_eq!(test.handled::<Welcomed>().len(), 1);
    assert_eq!(test.published::<MailSent>()[0].payload, MailSent { to: "u1".into() });
    assert!(test.published::<Registered>().is_empty(), "the test sent it, no handler did");
}

/// A redrive publishes letters in this way.
#[tokio::test(start_paused = true)]
async fn settling_includes_what_others_published() {
    let test = Harness::start(service()).await.unwrap();
    let publisher = test.transport().publisher().await.unwrap();
    let sent = EventPublisher::new(test.transport(), "elsewhere").publish(&registered("u1")).await.unwrap();
    assert_eq!(sent.offset, 0);
    publisher.publish_one(Record::new("users", "no event")).await.unwrap();
    test.settle().await.unwrap();
    assert_eq!((test.handled::<Registered>().len(), test.published::<MailSent>().len()), (1, 1));
    assert_eq!(test.dead_letters().len(), 1);
}

#[tokio::test]
async fn it_works_with_a_running_clock() {
    let test = Harness::start(service()).await.unwrap();
    let fates = test.send_all(&[registered("u1"), registered("u2")]).await;
    assert!(fates.iter().all(|fate| fate.is_wholly_handled()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_works_on_several_threads() {
    let test = Harness::start(service()).await.unwrap();
    let events: Vec<_> = (0..50).map(|n| registered(&format!("u{n}"))).collect();
    assert!(test.send_all(&events).await.iter().all(|fate| fate.is_wholly_handled()));
    assert_eq!(test.published::<MailSent>().len(), 50);
}

#[tokio::test(start_paused = true)]
async fn an_injected_failure_is_retried_and_seen_in_the_trace() {
    let test = Harness::start(service()).await.unwrap();
    test.fail_attempt("user.registered", 1, "no connection");
    let before = tokio::time::Instant::now();
    let fate = test.send(&registered("u1")).await;
    assert!(fate.is_handled());
    assert_eq!((fate.attempts(), before.elapsed()), (2, Duration::from_secs(1)));
    assert_eq!(fate.errors, ["no connection"]);
    let retried = test.retried();
    assert_eq!((retried.len(), retried[0].attempt, &*retried[0].error), (1, 1, "no connection"));
    let trace = test.trace();
    for part in ["sent", "failed", "attempt 1: no connection", "after a wait of 1.000 s", "published", "handled"] {
        assert!(trace.contains(part), "{part:?} is missing in\n{trace}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_is_in_the_dead_letters() {
    let test = Harness::start(service()).await.unwrap();
    test.fail_attempts(|event_type, _| (event_type == "user.welcomed").then(|| "down".into()));
    let fate = test.send(&registered("u1")).await;
    assert!(fate.is_handled() && !fate.is_wholly_handled());
    assert!(fate.following[0].is_dead_lettered());
    assert_eq!(fate.following[0].attempts(), 3);
    let letters = test.dead_letters();
    assert_eq!((letters.len(), &*letters[0].error, letters[0].attempts), (1, "down", 3));
    assert!(test.send(&registered("")).await.is_dead_lettered());
}

#[tokio::test(start_paused = true)]
async fn a_sink_of_the_services_own_is_watched_too() {
    let service = service().with_dead_letters(MemoryDeadLetters::new());
    let test = Harness::start(service).await.unwrap();
    assert!(test.send_raw(Record::new("users", "garbage")).await.is_dead_lettered());
    assert_eq!(test.dead_letters()[0].kind, ErrorKind::Undecodable);
}

#[tokio::test(start_paused = true)]
async fn tombstones_are_skipped_and_repeats_are_duplicates() {
    let test = Harness::start(service().with_idempotency(MemoryStore::new())).await.unwrap();
    assert!(test.send_raw(Record::tombstone("users").with_key("u1")).await.is_skipped());
    let event = registered("u1");
    let source = tidings_core::Name::default();
    let envelope = tidings_core::EnvelopeRef::new(uuid::Uuid::from_u128(7), Timestamp::default(), &source, &event);
    let record = tidings_core::codec::encode(envelope, "").unwrap();
    assert!(test.send_raw(record.clone()).await.is_handled());
    assert!(test.send_raw(record).await.is_duplicate());
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_the_trace_when_nothing_settles() {
    let store = MemoryStore::new();
    let test = Harness::start(service().with_idempotency(store.clone())).await.unwrap();
    store.faults().down();
    let error = test.try_send(&registered("u1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("has not settled") && error.to_string().contains("sent"), "{error}");
    let sent = test.publish(&registered("u2")).await.unwrap();
    assert!(test.fate(&sent).is_none());
    store.faults().up();
    assert!(test.wait_for(&sent).await.unwrap().is_handled());
    test.settle().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_service_that_answers_itself_for_ever_is_told_so() {
    async fn again(event: Welcomed) -> Welcomed {
        Welcomed { round: event.round + 1, ..event }
    }
    let test = Harness::start(Service::new("endless", Router::new().on(again))).await.unwrap();
    let error = test.try_send(&Welcomed { id: "u1".into(), round: 0 }).await.unwrap_err();
    assert!(error.to_string().contains("events follow"), "{}", error.to_string().lines().next().unwrap());
}

#[tokio::test(start_paused = true)]
async fn time_passes_without_taking_any() {
    let test = Harness::start(service()).await.unwrap();
    test.faults().set_dead_letters_down(true);
    let sent = test.publish_raw(Record::new("users", "garbage")).await.unwrap();
    test.advance(Duration::from_secs(3_600)).await;
    assert!(test.fate(&sent).is_none(), "nothing is settled while its letter can't be written");
    assert!(!test.status().await.problems.is_empty());
    test.faults().heal();
    assert!(test.wait_for(&sent).await.unwrap().is_dead_lettered());
}

#[tokio::test(start_paused = true)]
async fn a_panic_and_a_time_out_are_told_apart() {
    async fn fragile(event: Registered) {
        assert!(event.id != "panic", "as asked");
        std::future::pending::<()>().await;
    }
    let service = Service::new("fragile", Router::new().on(fragile)).with_retry(Retry::never());
    let test = Harness::start(service).await.unwrap();
    assert!(test.send(&registered("panic")).await.errors[0].contains("panicked"));
    assert!(test.send(&registered("hang")).await.errors[0].contains("cancelled before it completed"));
    assert!(test.dead_letters()[0].error.contains("as asked"));
}

#[tokio::test(start_paused = true)]
async fn a_prefix_stands_before_the_topics_of_what_is_sent() {
    let test = Harness::start(service().with_topic_prefix("dev.")).await.unwrap();
    let fate = test.send(&registered("u1")).await;
    assert_eq!((fate.origin.topic.as_str(), fate.is_wholly_handled()), ("dev.users", true));
}

#[tokio::test(start_paused = true)]
async fn the_same_test_runs_on_a_transport_that_is_given() {
    let transport: Arc<dyn Transport> = Arc::new(MemoryTransport::new());
    let raw = Router::new().on_topic("logs", async |_: Delivery| {});
    let test = Harness::on(&transport, Service::new("given", raw)).await.unwrap();
    assert!(test.send_raw(Record::new("logs", "line")).await.is_handled());
    test.into_service().shutdown(Duration::from_secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn topics_of_the_services_policy_have_its_partitions() {
    let policy = TopicPolicy::Create(vec![Topic::new("users").with_partitions(6)]);
    let test = Harness::start(service().with_topic_prefix("test.").with_topics(policy)).await.unwrap();
    let admin = test.transport().admin().await.unwrap();
    let names = ["test.users".into(), "test.welcomes".into(), "test.users-dlq".into(), "test.welcomes-dlq".into()];
    let described = admin.describe_topics(&names).await.unwrap();
    let partitions: Vec<usize> = described.into_iter().map(|topic| topic.unwrap().partitions.len()).collect();
    assert_eq!(partitions[..2], [6, 1], "{partitions:?}");
}

#[tokio::test(start_paused = true)]
async fn deadlines_beyond_all_clocks_are_for_ever() {
    let test = Harness::start(service()).await.unwrap();
    let test = test.with_deadline(Duration::MAX).with_real_deadline(Duration::MAX);
    assert!(test.send(&registered("u1")).await.is_handled());
    test.settle().await.unwrap();
}

/// Retries in place once, then after 30 seconds and after an hour.
fn waiting() -> Service {
    let delays = [Duration::from_secs(30), Duration::from_secs(3_600)];
    service().with_retry(Retry::exponential(Duration::from_secs(1)).with_max_retries(1).then_topics(delays))
}

#[tokio::test(start_paused = true)]
async fn an_event_that_waits_counts_as_settled_until_it_is_due() -> tidings_core::Result<()> {
    let test = Harness::start(waiting()).await?;
    test.fail_attempts(|event, attempt| (event == "user.registered" && attempt < 4).then(|| "locked".into()));
    let sent = test.publish(&registered("u1")).await?;
    let fate = test.wait_for(&sent).await?;
    assert!(fate.is_waiting() && !fate.is_wholly_handled(), "{}", test.trace());
    assert_eq!(fate.attempts(), 2);
    test.advance(Duration::from_secs(30)).await;
    test.settle().await?;
    assert!(test.fate(&sent).is_some_and(|fate| fate.is_waiting() && fate.attempts() == 3), "{}", test.trace());
    test.advance(Duration::from_secs(3_600)).await;
    test.settle().await?;
    let fate = test.fate(&sent).expect("it is settled");
    assert!(fate.is_wholly_handled() && fate.following.len() == 1, "{}", test.trace());
    assert_eq!((fate.attempts(), test.retried().len()), (4, 3));
    assert_eq!(test.published::<Registered>().len(), 0, "a forwarded event is none that the service published");
    assert!(test.trace().contains("user.registered waits in users-retry-users-30s"), "{}", test.trace());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_event_that_has_waited_in_vain_is_dead_lettered() -> tidings_core::Result<()> {
    let test = Harness::start(waiting()).await?;
    test.fail_attempts(|_, _| Some("locked".into()));
    assert!(test.send(&registered("u1")).await.is_waiting());
    test.advance(Duration::from_secs(4_000)).await;
    test.settle().await?;
    let letters = test.dead_letters();
    assert_eq!((letters.len(), letters[0].attempts, &*letters[0].origin.topic), (1, 4, "users"));
    Ok(())
}
