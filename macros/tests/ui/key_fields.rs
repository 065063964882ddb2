use serde::{Deserialize, Serialize};
use tidings_macros::Event;

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a", key = "idd")]
struct Misspelt {
    id: String,
    name: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a", key = 1)]
struct TooFew(String);

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a", key = id)]
enum Choice {
    A { id: String },
}

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a", key = "id +")]
struct NoExpression {
    id: String,
}

fn main() {}
