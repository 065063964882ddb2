//! The store of handled events, for those who write one.
//!
//! A service only needs [`Service::with_idempotency`](crate::Service::with_idempotency); these are the calls that it makes.
//!
//! ```
//! use std::time::Duration;
//!
//! use tidings::idempotency::{Claim, EventRef, IdempotencyStore};
//! use tidings::memory::MemoryStore;
//! use uuid::Uuid;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> tidings::Result<()> {
//! let (store, event) = (MemoryStore::new(), [EventRef::new(Uuid::now_v7(), "order.placed")]);
//! let lease = store.acquire_lease(&"billing".into(), Duration::from_secs(15)).await?;
//! assert!(matches!(store.claim(&lease, &event).await?[0], Claim::Granted(_)));
//!
//! // Another instance waits while the event is handled, and skips it afterwards.
//! let other = store.acquire_lease(&"billing".into(), Duration::from_secs(15)).await?;
//! assert!(matches!(store.claim(&other, &event).await?[0], Claim::Held { .. }));
//! assert!(store.complete(&lease, &event).await?[0].is_ok());
//! assert_eq!(store.claim(&other, &event).await?, [Claim::Done]);
//! # Ok(())
//! # }
//! ```

pub use tidings_core::{Claim, EventRef, History, IdempotencyStore, Lease, MIN_LEASE_TTL, ReleasedClaim};
