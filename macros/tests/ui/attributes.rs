use serde::{Deserialize, Serialize};
use tidings_macros::Event;

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "", type = "a", kei = "id")]
struct Misspelt {
    id: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", topic = "u", type = "a b")]
struct Twice {
    id: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t")]
struct NoType {
    id: String,
}

#[derive(Serialize, Deserialize, Event)]
struct Nothing {
    id: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = 5, type = "a")]
struct NotText {
    id: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = format!("t"), type = "a" + "b")]
struct NotConstant {
    id: String,
}

fn main() {}
