//! The impl that `derive(Event)` writes for a type.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidings_core::codec::{self, Codec, EventFormat, EventVersions, Json, Postcard};
use tidings_core::{Envelope, Event as _, StoredRecord, Timestamp, Version};
use tidings_macros::Event;

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "user-events", type = "user.registered", key = "user_id")]
struct Registered {
    user_id: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core")]
#[event(topic = "t", type = "two", version = "2.1", key = self.both(), codec = "postcard")]
struct Two {
    a: u32,
    b: u32,
}

impl Two {
    fn both(&self) -> String {
        format!("{}-{}", self.a, self.b)
    }
}

#[derive(Serialize, Deserialize, Event)]
#[event(crate = tidings_core, topic = "t", type = "unit", version = 3, codec = Json)]
struct Unit;

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "tuple", key = 1)]
struct Tuple(u8, Option<u64>);

#[derive(Serialize, Deserialize, Event)]
#[event(
    crate = "tidings_core",
    topic = "t",
    type = "choice",
    key = "match self { Choice::A(id) => id, Choice::B { id } => id }"
)]
enum Choice {
    A(String),
    B { id: String },
}

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "generic", key = id)]
struct Generic<T, const N: usize = 1>
where
    T: Ord,
{
    id: u64,
    values: BTreeMap<T, u8>,
}

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "user-events", type = "user.registered", version = 2, key = "id")]
#[event(upcast_from = Registered, downcast_to = "Registered")]
struct RegisteredV2 {
    id: u64,
}

impl TryFrom<Registered> for RegisteredV2 {
    type Error = std::num::ParseIntError;
    fn try_from(old: Registered) -> Result<Self, Self::Error> {
        old.user_id.parse().map(|id| Self { id })
    }
}

impl From<&RegisteredV2> for Registered {
    fn from(new: &RegisteredV2) -> Self {
        Self { user_id: new.id.to_string() }
    }
}

const TOPIC: &str = "constant";

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = TOPIC, type = concat!("a", ".", 1))]
struct Constant;

macro_rules! event {
    ($name:ident, $topic:literal, $event_type:expr) => {
        #[derive(Serialize, Deserialize, Event)]
        #[event(crate = "tidings_core", topic = $topic, type = $event_type, version = 2)]
        struct $name;
    };
}
event!(ByMacro, "by-macro", env!("CARGO_PKG_NAME"));

fn key(event: &impl tidings_core::Event) -> Option<String> {
    event.key().map(|key| String::from_utf8_lossy(&key).into_owned())
}

fn content_type<E: tidings_core::Event>() -> &'static str {
    E::Codec::CONTENT_TYPE
}

#[test]
fn the_attributes_become_the_events_constants() {
    assert_eq!((Registered::TOPIC, Registered::TYPE), ("user-events", "user.registered"));
    assert_eq!(Registered::VERSION, Version::new(1, 0));
    assert_eq!(Two::VERSION, Version::new(2, 1));
    assert_eq!(Unit::VERSION, Version::new(3, 0));
}

#[test]
fn a_topic_and_a_type_are_literals_constants_or_macros() {
    assert_eq!((Constant::TOPIC, Constant::TYPE), ("constant", "a.1"));
    assert_eq!((ByMacro::TOPIC, ByMacro::TYPE), ("by-macro", "tidings-macros"));
}

/// The derive calls it in a constant, where a panic is an error of the compiler.
#[test]
fn a_constant_is_checked_like_a_literal() {
    let refused =
        |name: &'static str| std::panic::catch_unwind(|| tidings_core::__private::checked_name(name)).is_err();
    assert_eq!(["", "a b", "a\n", "a.b", "\u{e9}"].map(refused), [true, true, true, false, false]);
}

#[test]
fn a_codec_is_named_or_a_path() {
    assert_eq!(content_type::<Registered>(), Json::CONTENT_TYPE);
    assert_eq!(content_type::<Two>(), Postcard::CONTENT_TYPE);
    assert_eq!(content_type::<Unit>(), Json::CONTENT_TYPE);
}

#[test]
fn a_key_is_a_field_or_an_expression() {
    assert_eq!(key(&Registered { user_id: "u1".into() }).as_deref(), Some("u1"));
    assert_eq!(key(&Two { a: 1, b: 2 }).as_deref(), Some("1-2"));
    assert_eq!(key(&Unit), None);
    assert_eq!(key(&Tuple(0, Some(7))).as_deref(), Some("7"));
    assert_eq!(key(&Tuple(0, None)), None);
    assert_eq!(key(&Choice::A("a".into())).as_deref(), Some("a"));
    assert_eq!(key(&Choice::B { id: "b".into() }).as_deref(), Some("b"));
}

#[test]
fn a_generic_type_is_an_event_where_its_arguments_allow() {
    let event = Generic::<String> { id: 9, values: BTreeMap::new() };
    assert_eq!(key(&event).as_deref(), Some("9"));
    assert!(event.values.is_empty());
}

#[test]
fn older_versions_are_read_and_written_by_conversions() {
    let stored = |record| StoredRecord::from_record(record, 0, Timestamp::now());
    let old = codec::encode(Envelope::new(Registered { user_id: "7".into() }).as_ref(), "").expect("it is written");
    assert_eq!(codec::decode::<RegisteredV2>(&stored(old)).expect("it is upcast").payload.id, 7);

    let versions = EventVersions::default().with::<Registered>();
    let new = versions.encode(EventFormat::OfEvent, Envelope::new(RegisteredV2 { id: 8 }).as_ref(), "");
    let new = stored(new.expect("it is downcast"));
    assert_eq!(codec::decode::<Registered>(&new).expect("it is of version 1").payload.user_id, "8");
    assert!(Registered::UPCAST.is_none() && Registered::DOWNCAST.is_none());
}
