//! The embedded store: done events, claims and dead letters in a directory.

pub use tidings_sled::{Clock, Damage, OnDamage, Size, SledConfig, SledStore, SystemClock};
