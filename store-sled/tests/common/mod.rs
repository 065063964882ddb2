//! Shared by several tests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_core::{Claim, EventRef, History, IdempotencyStore, Lease, Name, Timestamp};
use tidings_sled::{Clock, SledStore};
use uuid::Uuid;

/// Clocks that a test sets.
#[derive(Debug, Clone)]
pub(crate) struct Hands(Arc<Mutex<(Timestamp, Duration)>>);

impl Hands {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new((Timestamp::from_millis(1_700_000_000_000), Duration::ZERO))))
    }

    /// Time goes by.
    pub(crate) fn pass(&self, time: Duration) {
        let mut hands = self.0.lock().unwrap();
        *hands = (hands.0.saturating_add(time), hands.1 + time);
    }

    /// The wall clock is set back.
    pub(crate) fn set_back(&self, by: Duration) {
        let mut hands = self.0.lock().unwrap();
        hands.0 = hands.0.saturating_sub(by);
    }
}

impl Clock for Hands {
    fn wall(&self) -> Timestamp {
        self.0.lock().unwrap().0
    }

    fn monotonic(&self) -> Duration {
        self.0.lock().unwrap().1
    }
}

/// Far longer than anything that a test does, on however busy a machine.
pub(crate) const TTL: Duration = Duration::from_secs(900);

pub(crate) fn scope() -> Name {
    Name::from_static("svc")
}

pub(crate) fn event(id: Uuid) -> EventRef {
    EventRef::new(id, "user.registered")
}

pub(crate) fn fresh() -> EventRef {
    event(Uuid::now_v7())
}

pub(crate) fn granted(crashes: u32, attempts: u32) -> Claim {
    Claim::Granted(History::new(crashes, attempts))
}

pub(crate) async fn lease(store: &SledStore) -> Lease {
    store.acquire_lease(&scope(), TTL).await.unwrap()
}

pub(crate) async fn claim(store: &SledStore, lease: &Lease, event: &EventRef) -> Claim {
    store.claim(lease, std::slice::from_ref(event)).await.unwrap()[0]
}

pub(crate) async fn complete(store: &SledStore, lease: &Lease, event: &EventRef) -> tidings_core::Result<()> {
    store.complete(lease, std::slice::from_ref(event)).await.unwrap().remove(0)
}
