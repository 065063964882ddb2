use serde::{Deserialize, Serialize};
use tidings_macros::Event;

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a", version = 2, upcast_from = 1)]
struct Number;

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a", version = 3, upcast_from = Number, upcast_from = Number)]
struct Twice;

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a", version = 3, upcast = Number)]
struct Misspelt;

fn main() {}
