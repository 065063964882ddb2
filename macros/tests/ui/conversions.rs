use serde::{Deserialize, Serialize};
use tidings_macros::Event;

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a")]
struct One;

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a", version = 2, upcast_from = One)]
struct WithoutUpcast;

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a", version = 2, downcast_to = One)]
struct WithoutDowncast;

#[derive(Serialize, Deserialize)]
struct NoEvent;

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a", version = 2, upcast_from = NoEvent)]
struct OfNoEvent;

impl From<NoEvent> for OfNoEvent {
    fn from(_: NoEvent) -> Self {
        Self
    }
}

fn main() {}
