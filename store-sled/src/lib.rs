//! An embedded store for tidings: done events, claims, dead letters and audit records in a directory.
//!
//! ```no_run
//! # async fn example() -> tidings_core::Result<()> {
//! use tidings_sled::SledStore;
//!
//! let store = SledStore::open("user-service.sled").await?;
//! # Ok(()) }
//! ```
//!
//! It is for services that run as one process: the directory belongs to one process at a time, and opening it ends
//! the claims of the previous process.
//!
//! # Durability
//! A call returns once its changes are on disk: sled flushes its log, then the store syncs it once for all waiting
//! calls. Callers of single events therefore share syncs; a batch costs one. Each batch includes a seal with the
//! number of entries and their checksum, and opening reads the whole store to verify it: sled itself truncates a
//! damaged log at the damage, which would silently lose done events.
//!
//! When sled fails or panics, the store closes the directory, fails every call as
//! [`Unavailable`](tidings_core::ErrorKind::Unavailable), and reopens it with a backoff of up to
//! [`SledConfig::max_reopen_wait`]. Leases and their claims survive that.
//!
//! # Bounds
//! Done events are remembered for [`SledConfig::retention`]. They are stored in directories by time, each dropped as
//! a whole, so no compaction is needed. The store's time follows the wall clock but never goes back: setting the
//! clock back extends no retention. Setting it far ahead expires the existing events.
//!
//! An event takes about [`SledConfig::BYTES_PER_EVENT`] bytes on the disk when events come in batches, and up to
//! seven times as much when they come one by one. All ids within the retention are kept in memory, below
//! [`SledConfig::MEMORY_PER_EVENT`] bytes per event including the disk cache ([`SledConfig::cache_bytes`]).
#![forbid(unsafe_code)]

mod audit;
mod claims;
mod clock;
mod codec;
mod config;
mod dead_letters;
mod disk;
mod error;
mod leases;
mod memory;
mod store;
mod writer;

pub use self::clock::{Clock, SystemClock};
pub use self::config::{OnDamage, SledConfig};
pub use self::store::{Damage, Size, SledStore};

impl SledConfig {
    /// Disk space per done event, measured (`cargo bench -p tidings-sled`) and rounded up.
    pub const BYTES_PER_EVENT: u64 = 80;

    /// Maximum memory per done event by the same measurement, including its share of the cache.
    pub const MEMORY_PER_EVENT: u64 = 120;
}
