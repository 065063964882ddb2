//! Programs that use the facade alone.
#![cfg(all(feature = "macros", feature = "json"))]

use serde::{Deserialize, Serialize};
use tidings::handler::Caused;
use tidings::{Batch, BoxError, Envelope, Event, Router, State};

#[derive(Serialize, Deserialize, Event)]
#[event(topic = "user-events", type = "user.registered", key = "user_id")]
struct UserRegistered {
    user_id: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event(topic = "user-events", type = "user.wrapped", key = "id")]
struct Wrapped<T> {
    id: String,
    inner: T,
}

#[derive(Clone)]
struct Mailer;

async fn welcome(event: UserRegistered, State(_): State<Mailer>) -> Result<(), BoxError> {
    if event.user_id.is_empty() { Err(tidings::reject("no user").into()) } else { Ok(()) }
}

async fn wrap(batch: Batch<Wrapped<u8>>) -> Vec<Caused<UserRegistered>> {
    let registered =
        |e: &Envelope<Wrapped<u8>>| UserRegistered { user_id: format!("{}{}", e.payload.id, e.payload.inner) };
    batch.iter().map(|envelope| envelope.causes(registered(envelope))).collect()
}

#[test]
fn events_and_handlers_need_no_other_crate_of_ours() {
    let router: Router = Router::new().on(welcome).on(wrap).with_state(Mailer);
    let debug = format!("{router:?}");
    assert!(debug.contains("user.registered") && debug.contains("user.wrapped"), "{debug}");
}
