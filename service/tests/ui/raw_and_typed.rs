use serde::{Deserialize, Serialize};
use tidings_core::Envelope;
use tidings_macros::Event;
use tidings_service::Router;

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a", key = "id")]
struct A {
    id: String,
}

async fn raw(_: tidings_core::Delivery) {}

async fn typed(_: Envelope<A>) {}

fn main() {
    let _: Router = Router::new().on(raw);
    let _: Router = Router::new().on_topic("t", typed);
}
