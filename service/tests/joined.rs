//! When a service counts as having joined its group, and so as ready.

#[expect(dead_code, reason = "only a part of it is needed here")]
#[path = "common/bent.rs"]
mod bent;
#[expect(dead_code, reason = "only a part of it is needed here")]
mod common;

use std::time::Duration;

use bent::Bent;
use common::topics;
use tidings_core::Delivery;
use tidings_memory::MemoryTransport;
use tidings_service::telemetry::{Health, HealthOptions};
use tidings_service::{Router, Service, ServiceHandle};
use tokio::time::sleep;

/// A service that waits for a partition on a transport that gives this answer to whether it is a member.
async fn surplus(is_member: Option<bool>) -> (ServiceHandle, Bent) {
    let transport = Bent::new(MemoryTransport::new());
    topics(&transport.inner, &["t"]).await;
    transport.give_nothing();
    transport.set_member(is_member);
    let router = Router::new().on_topic("t", async |_: Delivery| {});
    (Service::new("s", router).start(&transport).await.expect("it starts"), transport)
}

/// Returns whether the service is ready, and whether it waits for a share.
fn ready(service: &ServiceHandle) -> (bool, bool) {
    let health = Health::of(&service.snapshot(), &HealthOptions::default());
    (health.ready, health.standby)
}

#[tokio::test(start_paused = true)]
async fn it_is_not_ready_before_the_group_has_accepted_it() {
    let (service, transport) = surplus(Some(false)).await;
    // Its positions can be queried all the time.
    sleep(Duration::from_secs(60)).await;
    assert_eq!(ready(&service), (false, false));
    transport.set_member(Some(true));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(ready(&service), (true, true));
    transport.set_member(Some(false));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(ready(&service), (true, true), "it has joined once; that it is cut off is another reason");
}

#[tokio::test(start_paused = true)]
async fn a_member_without_a_partition_is_ready_within_two_seconds() {
    let (service, _transport) = surplus(Some(true)).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(ready(&service), (true, true));
}

#[tokio::test(start_paused = true)]
async fn where_the_transport_cannot_know_it_queries_of_positions_decide() {
    let (service, _transport) = surplus(None).await;
    sleep(Duration::from_secs(4)).await;
    assert_eq!(ready(&service), (false, false));
    sleep(Duration::from_secs(8)).await;
    assert_eq!(ready(&service), (true, true));
}
