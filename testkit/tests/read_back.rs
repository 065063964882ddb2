//! The harness reads back each event that is written while it is there, whatever was set before. A process of its own.

use serde::{Deserialize, Serialize};
use tidings_core::{ErrorKind, codec};
use tidings_macros::Event;
use tidings_service::{Router, Service};
use tidings_testkit::Harness;

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(topic = "t", type = "one.way", crate = "tidings_core")]
struct OneWay {
    #[serde(skip_serializing)]
    name: String,
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_read_back_is_refused() {
    codec::set_read_back(false);
    let handler = async |event: OneWay| drop(event.name);
    let test = Harness::start(Service::new("s", Router::new().on(handler))).await.expect("it starts");
    let error = test.try_send(&OneWay { name: "n".into() }).await.expect_err("its name is not written");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.report().contains("missing field `name`"), "{}", error.report());
}
