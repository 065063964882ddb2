//! Shared by the benches: the work, and a window of unanswered records.

pub mod figures;
pub mod kafka;
pub mod laps;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::task::Poll;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use serde::{Deserialize, Serialize};
use tidings::Event;

/// How many records may be unanswered at once.
pub const IN_FLIGHT: u64 = 512;
/// Bytes of a raw record's value.
pub const VALUE_BYTES: usize = 256;

/// An event of an ordinary size: some 250 bytes as JSON.
#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(topic = "bench", type = "user.registered", key = "user_id")]
#[serde(rename_all = "camelCase")]
pub struct Registered {
    /// The key.
    pub user_id: String,
    /// Text.
    pub email: String,
    /// More text.
    pub name: String,
    /// A number.
    pub plan: u32,
}

/// The `n`th event, of 1,024 users.
pub fn registered(n: u64) -> Registered {
    Registered {
        user_id: format!("user-{}", n & 1023),
        email: "a@b.c".into(),
        name: "n".repeat(60),
        plan: u32::try_from(n & 0xffff).unwrap_or_default(),
    }
}

/// The value of a raw record, copied anew as a publisher would.
pub fn raw_value() -> Bytes {
    Bytes::copy_from_slice(&[b'x'; VALUE_BYTES])
}

/// The key of the `n`th raw record, of 1,024.
pub fn raw_key(n: u64) -> Bytes {
    Bytes::copy_from_slice(&(n & 1023).to_le_bytes())
}

/// Counts what is published and what is acknowledged, and makes the publisher wait at [`IN_FLIGHT`].
#[derive(Debug, Clone, Default)]
pub struct Window(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    acknowledged: AtomicU64,
    waits: AtomicBool,
    publisher: AtomicWaker,
}

impl Window {
    /// Acknowledges `count` records.
    pub fn acknowledge(&self, count: u64) {
        self.0.acknowledged.fetch_add(count, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.0.waits.load(Ordering::Relaxed) && self.0.waits.swap(false, Ordering::AcqRel) {
            self.0.publisher.wake();
        }
    }

    /// Waits until no more than `most` of `published` records are unacknowledged.
    pub async fn room(&self, published: u64, most: u64) {
        let full = || published > self.0.acknowledged.load(Ordering::Acquire) + most;
        if !full() {
            return;
        }
        poll_fn(|cx| {
            self.0.publisher.register(cx.waker());
            self.0.waits.store(true, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            if full() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }
}
