//! Versions of events in a service: one handler takes old and new events, and publishers write old ones.

mod common;

use common::{Log, caught_up, letters, publish, records, start, topics};
use serde::{Deserialize, Serialize};
use tidings_core::{
    Batch, DeadLetter, Delivery, Envelope, EnvelopeRef, ErrorKind, Event, Name, Record, StoredRecord, Timestamp,
    Version, codec,
};
use tidings_macros::Event;
use tidings_memory::{MemoryStore, MemoryTransport};
use tidings_service::{EventPublisher, HandlerExt, Router, Service, State};
use uuid::Uuid;

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(topic = "users", type = "registered", key = "id", crate = "tidings_core")]
struct RegisteredV1 {
    id: u32,
    name: String,
}

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(topic = "users", type = "registered", version = 2, key = "id", crate = "tidings_core")]
#[event(upcast_from = RegisteredV1, downcast_to = RegisteredV1)]
struct RegisteredV2 {
    id: u32,
    first: String,
    last: String,
}

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(topic = "users", type = "registered", version = 3, key = "id", crate = "tidings_core")]
#[event(upcast_from = RegisteredV2, downcast_to = RegisteredV2)]
struct RegisteredV3 {
    id: u32,
    names: Vec<String>,
}

impl TryFrom<RegisteredV1> for RegisteredV2 {
    type Error = String;
    fn try_from(old: RegisteredV1) -> Result<Self, String> {
        let names = old.name.split_once(' ').ok_or_else(|| format!("{:?} is one word", old.name))?;
        Ok(Self { id: old.id, first: names.0.into(), last: names.1.into() })
    }
}

impl From<RegisteredV2> for RegisteredV3 {
    fn from(old: RegisteredV2) -> Self {
        Self { id: old.id, names: vec![old.first, old.last] }
    }
}

impl TryFrom<&RegisteredV3> for RegisteredV2 {
    type Error = &'static str;
    fn try_from(new: &RegisteredV3) -> Result<Self, &'static str> {
        match &*new.names {
            [first, last] => Ok(Self { id: new.id, first: first.clone(), last: last.clone() }),
            _ => Err("there are not two names"),
        }
    }
}

impl From<&RegisteredV2> for RegisteredV1 {
    fn from(new: &RegisteredV2) -> Self {
        Self { id: new.id, name: format!("{} {}", new.first, new.last) }
    }
}

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(topic = "asked", type = "asked", key = "id", crate = "tidings_core")]
struct Asked {
    id: u32,
}

fn written<E: Event>(id: u128, event: &E) -> Record {
    let source = Name::from_static("test");
    let envelope = EnvelopeRef::new(Uuid::from_u128(id), Timestamp::from_millis(1), &source, event);
    codec::encode(envelope, "").expect("it encodes")
}

fn v1(id: u128) -> Record {
    written(id, &RegisteredV1 { id: 1, name: "Ada Lovelace".into() })
}

fn v2(id: u128) -> Record {
    written(id, &RegisteredV2 { id: 1, first: "Grace".into(), last: "Hopper".into() })
}

fn v3(id: u128) -> Record {
    written(id, &RegisteredV3 { id: 1, names: vec!["Alan".into(), "Mathison".into(), "Turing".into()] })
}

async fn one(event: Envelope<RegisteredV3>, State(log): State<Log>) {
    log.add(event.payload.names.join(" "));
}

async fn together(events: Batch<RegisteredV3>, State(log): State<Log>) {
    events.iter().for_each(|event| log.add(event.payload.names.join(" ")));
}

/// Handles three versions, and one record that no conversion accepts, by `router`; returns what the handler logged and
/// the service's dead letters.
async fn handled(router: Router, log: &Log) -> (Vec<String>, Vec<DeadLetter>) {
    let transport = MemoryTransport::new();
    topics(&transport, &["users"]).await;
    let odd = written(4, &RegisteredV1 { id: 1, name: "Plato".into() });
    publish(&transport, vec![v1(1), v2(2), odd, v3(3)]).await;
    let service = start(Service::new("s", router), &transport).await;
    caught_up(&service).await;
    (log.lines(), letters(&transport, "users-dlq").await)
}

#[tokio::test(start_paused = true)]
async fn one_handler_takes_all_versions() {
    let (single, batch) = (Log::default(), Log::default());
    for (router, log) in [
        (Router::new().on(one).with_state(single.clone()), &single),
        (Router::new().on(together).with_state(batch.clone()), &batch),
    ] {
        let (lines, letters) = handled(router, log).await;
        assert_eq!(lines, ["Ada Lovelace", "Grace Hopper", "Alan Mathison Turing"]);
        let [letter] = &*letters else { panic!("{letters:?}") };
        assert_eq!(letter.kind, ErrorKind::Undecodable);
        assert_eq!(letter.error, "upcast registered from version 1.0 to 2.0: \"Plato\" is one word");
        let original = written(4, &RegisteredV1 { id: 1, name: "Plato".into() });
        assert_eq!(letter.record.value, original.value, "the bytes stay those of the old version");
        assert_eq!(letter.record.headers.get_str("version"), Some("1.0"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_newer_version_is_undecodable_and_named() {
    let transport = MemoryTransport::new();
    topics(&transport, &["users"]).await;
    publish(&transport, vec![v3(3)]).await;
    let router = Router::new().on(async |_: RegisteredV2| {});
    let service = start(Service::new("s", router), &transport).await;
    caught_up(&service).await;
    let letters = letters(&transport, "users-dlq").await;
    assert_eq!(letters[0].kind, ErrorKind::Undecodable);
    assert_eq!(letters[0].error, "route registered in version 3.0: handled here is 1.x, 2.x");
    assert_eq!(letters[0].record.value, v3(3).value);
}

#[tokio::test(start_paused = true)]
async fn the_version_is_no_part_of_an_events_identity() {
    let transport = MemoryTransport::new();
    topics(&transport, &["users"]).await;
    let router = Router::new().on(async |_: RegisteredV3| {});
    let service = start(Service::new("s", router).with_idempotency(MemoryStore::new()), &transport).await;
    publish(&transport, vec![v1(7), v2(7), v3(7)]).await;
    caught_up(&service).await;
    let totals = service.status().await.totals;
    assert_eq!((totals.handled, totals.duplicates), (1, 2));
}

/// Handles `cause` by `router`; returns the records that were published to `topic`.
async fn answers(service: Service, cause: Record, topic: &'static str) -> Vec<StoredRecord> {
    let transport = MemoryTransport::new();
    topics(&transport, &["asked", "users"]).await;
    publish(&transport, vec![cause]).await;
    let service = start(service, &transport).await;
    caught_up(&service).await;
    records(&transport, topic).await
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_starts_to_upcast_derives_the_same_ids() {
    let old = Router::new().on(async |e: RegisteredV1| Asked { id: e.id });
    let new = Router::new().on(async |e: RegisteredV3| Asked { id: e.id });
    let old = answers(Service::new("s", old), v1(7), "asked").await;
    let new = answers(Service::new("s", new), v1(7), "asked").await;
    let id = |records: &[StoredRecord]| codec::peek(&records[0]).expect("an event").id;
    assert_eq!(id(&old), id(&new), "the default name of the handler is part of derived ids");
}

fn grace() -> RegisteredV3 {
    RegisteredV3 { id: 1, names: vec!["Grace".into(), "Hopper".into()] }
}

#[tokio::test(start_paused = true)]
async fn a_service_writes_the_selected_version_with_the_same_id() {
    let asked = || written(9, &Asked { id: 1 });
    let router = || {
        Router::new().on(async |_: Asked, delivery: Delivery| {
            delivery.publisher().expect("it has one").publish(&grace()).await.expect("memory is up");
            grace()
        })
    };
    let new = answers(Service::new("s", router()), asked(), "users").await;
    let service = Service::new("s", router()).with_event_version::<RegisteredV1>();
    let old = answers(service, asked(), "users").await;
    let heads = |records: &[StoredRecord]| {
        let heads = records.iter().map(|record| codec::peek(record).expect("an event"));
        heads.map(|head| (head.id, head.version.major)).collect::<Vec<_>>()
    };
    let (new, ids) = (heads(&new), heads(&old));
    assert_eq!(new.iter().map(|(_, major)| *major).collect::<Vec<_>>(), [3, 3]);
    assert_eq!(ids, new.iter().map(|(id, _)| (*id, 1)).collect::<Vec<_>>());
    let event = codec::decode::<RegisteredV1>(&old[0]).expect("it is of version 1");
    assert_eq!((event.payload.name.as_str(), event.version), ("Grace Hopper", Version::new(1, 0)));
}

#[tokio::test(start_paused = true)]
async fn a_publisher_writes_the_selected_version_or_refuses() {
    let transport = MemoryTransport::new();
    topics(&transport, &["users"]).await;
    let events = EventPublisher::new(&transport, "api").with_event_version::<RegisteredV1>();
    events.publish(&grace()).await.expect("it has two names");
    events.publish_envelope(&Envelope::new(grace())).await.expect("it has two names");
    events.publish_all(&[grace()]).await.remove(0).expect("it has two names");
    for record in records(&transport, "users").await {
        assert_eq!(codec::decode::<RegisteredV1>(&record).expect("of version 1").payload.name, "Grace Hopper");
    }
    let refused = events.publish(&RegisteredV3 { id: 1, names: vec!["Plato".into()] }).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert_eq!(refused.report(), "downcast registered from version 3.0 to 2.0: there are not two names");
}

#[tokio::test(start_paused = true)]
async fn a_returned_event_that_cannot_be_downcast_buries_its_cause() {
    let transport = MemoryTransport::new();
    topics(&transport, &["asked", "users"]).await;
    publish(&transport, vec![written(9, &Asked { id: 1 })]).await;
    let router = Router::new().on(async |_: Asked| RegisteredV3 { id: 1, names: Vec::new() });
    let service = start(Service::new("s", router).with_event_version::<RegisteredV1>(), &transport).await;
    caught_up(&service).await;
    let letters = letters(&transport, "asked-dlq").await;
    assert!(letters[0].error.contains("there are not two names"), "{:?}", letters[0]);
}

#[tokio::test(start_paused = true)]
async fn two_handlers_of_one_version_are_refused() {
    let transport = MemoryTransport::new();
    let router = Router::new().on(async |_: RegisteredV3| {}).on((async |_: RegisteredV1| {}).named("old"));
    let error = Service::new("s", router).start(&transport).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("two handlers for registered 1.x of topic users"), "{error}");
}

#[test]
fn a_handler_is_described_with_its_versions() {
    let router = Router::new().on(async |_: RegisteredV3| {}).with_state(());
    let described = Service::new("s", router).describe();
    assert_eq!((described.handlers[0].name.as_str(), &*described.handlers[0].majors), ("registered", &[3, 2, 1][..]));
    let stored = StoredRecord::from_record(v1(1), 0, Timestamp::now());
    let shown = described.handlers[0].payload_json(&stored).expect("of an event").expect("it is upcast");
    assert_eq!(shown, r#"{"id":1,"names":["Ada","Lovelace"]}"#);
}
