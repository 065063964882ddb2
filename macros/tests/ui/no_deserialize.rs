use serde::Serialize;
use tidings_macros::Event;

#[derive(Serialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a")]
struct WriteOnly {
    id: String,
}

fn main() {}
