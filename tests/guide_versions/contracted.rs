//! The mailer once no record of version 1 is left.

use serde::{Deserialize, Serialize};
use tidings::handler::HandlerExt;
use tidings::{Event, Router, Service, State};

use super::{Log, add};

// begin: contract
#[derive(Debug, Serialize, Deserialize, Event)]
#[event(topic = "user-events", type = "user.registered", version = 2, key = "user_id")]
struct UserRegistered {
    user_id: String,
    first_name: String,
    last_name: String,
}

async fn greet(user: UserRegistered, State(log): State<Log>) {
    add(&log, format!("contracted: {} {}", user.first_name, user.last_name));
}

pub(crate) fn mailer(log: &Log) -> Service {
    let greet = greet.named("user.registered"); // its name until now: the default would become user.registered:v2
    Service::new("mailer", Router::new().on(greet).with_state(log.clone()))
}
// end: contract
