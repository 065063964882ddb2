use serde::{Deserialize, Serialize};
use tidings_core::Envelope;
use tidings_macros::Event;
use tidings_service::Router;

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a", key = "id")]
struct A {
    id: String,
}

async fn handle(_: Envelope<A>) -> u32 {
    1
}

fn main() {
    let _: Router = Router::new().on(handle);
}
