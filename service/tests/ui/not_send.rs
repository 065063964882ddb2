use serde::{Deserialize, Serialize};
use tidings_core::Envelope;
use tidings_macros::Event;
use tidings_service::Router;

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a", key = "id")]
struct A {
    id: String,
}

async fn other() {}

async fn handle(_: Envelope<A>) {
    let count = std::rc::Rc::new(1);
    other().await;
    drop(count);
}

fn main() {
    let _: Router = Router::new().on(handle);
}
