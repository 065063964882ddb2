use serde::{Deserialize, Serialize};
use tidings_macros::Event;

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a", codec = "yaml")]
struct Unknown {
    id: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a", codec = "a b")]
struct NoPath {
    id: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a", codec = 1 + 2)]
struct Sum {
    id: String,
}

fn main() {}
