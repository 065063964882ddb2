use serde::{Deserialize, Serialize};
use tidings_macros::Event;

const NUMBER: u32 = 5;

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = NUMBER, type = "a")]
struct Number;

fn main() {}
