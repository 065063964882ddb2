use serde::{Deserialize, Serialize};
use tidings_core::Envelope;
use tidings_macros::Event;
use tidings_service::{Router, Service, State};

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a", key = "id")]
struct A {
    id: String,
}

#[derive(Clone)]
struct Mailer;

async fn handle(_: Envelope<A>, _: State<Mailer>) {}

fn main() {
    let _ = Service::new("s", Router::new().on(handle));
}
