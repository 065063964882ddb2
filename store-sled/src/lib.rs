//! An embedded store for tidings: which events were handled, who is handling which, and dead letters, in a directory.
//!
//! ```no_run
//! # async fn example() -> tidings_core::Result<()> {
//! use tidings_sled::SledStore;
//!
//! let store = SledStore::open("user-service.sled").await?;
//! # Ok(()) }
//! ```
//!
//! It is for services that run as one process: the directory belongs to one process at a time, and opening it ends the
//! claims of whoever had it before.
//!
//! # Durability
//! An answer is given when what it says is on the disk: sled's log is flushed by sled and then synced by us, once for all
//! calls that wait at that time. Callers of single events therefore share syncs; a batch costs one. With each batch a
//! seal is written that says how much there is and how it adds up, and opening reads everything to see that it still
//! does: sled itself opens a damaged log by cutting it off at the damage, which would make done events undone without a
//! word.
//!
//! When sled fails or panics, the store closes the directory, answers every call as
//! [`Unavailable`](tidings_core::ErrorKind::Unavailable), and opens it again, later and later up to
//! [`SledConfig::max_reopen_wait`]. Leases and their claims outlive that.
//!
//! # Bounds
//! Done events are remembered for [`SledConfig::retention`]. They lie in directories by time, each dropped whole, so that
//! no compaction is needed. The store's time is that of the wall clock, but never goes back: a clock that is set back
//! extends nothing. A clock that is set far ahead ends the retention of what is there.
//!
//! An event takes about [`BYTES_PER_EVENT`] bytes on the disk when events come in batches, and up to seven times as
//! much when they come one by one. All ids within the retention are kept in memory, below [`MEMORY_PER_EVENT`] bytes
//! per event with what is cached of the disk ([`SledConfig::cache_bytes`]).
#![forbid(unsafe_code)]

mod clock;
mod codec;
mod config;
mod disk;
mod error;
mod leases;
mod ledger;
mod letters;
mod memory;
mod store;
mod writer;

pub use self::clock::{Clock, SystemClock};
pub use self::config::{
    DEFAULT_ANSWER_WITHIN, DEFAULT_CACHE_BYTES, DEFAULT_MAX_CLAIMS, DEFAULT_MAX_LETTERS, DEFAULT_MAX_REOPEN_WAIT,
    DEFAULT_MAX_WAITING, DEFAULT_RETENTION, MIN_REOPEN_WAIT, OnDamage, RETENTION_PARTS, SledConfig,
};
pub use self::store::{Damage, Size, SledStore};

/// What a done event takes on the disk, by measurement (`cargo bench -p tidings-sled`), rounded up.
pub const BYTES_PER_EVENT: u64 = 80;
/// What a done event takes in memory at most, by the same measurement, its part of the cache included.
pub const MEMORY_PER_EVENT: u64 = 120;
