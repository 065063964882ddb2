//! Lanes of records that are ordered among themselves, and their locks.

use uuid::Uuid;

use crate::sql_names::SqlNames;

/// Number of shards that relays divide among themselves. Persistent: rows store their shard.
pub(crate) const SHARDS: i16 = 64;
/// Number of locks for lanes. Two publishing transactions wait for one another if any of their lanes share a lock.
/// With more locks, a transaction of many keys could exhaust the server's lock table (6,400 by default).
const SLOTS: u64 = 1024;

/// Second halves of advisory locks; the first is the outbox's.
const SHARD_LOCKS: i32 = 0x1_0000;
pub(crate) const PRESENCE_LOCK: i32 = 0x2_0000;

/// Returns the lane of a topic and key: FNV-1a, then murmur3's finalizer, so that all bits depend on all bytes.
/// Persistent, so it never changes. Keys that collide in a lane are ordered too, which is harmless.
pub(super) fn lane(topic: &str, key: &[u8]) -> i64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    // A topic holds no NUL.
    let bytes = topic.as_bytes().iter().chain(&[0]).chain(key);
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325, step);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (hash ^ (hash >> 33)).cast_signed()
}

/// Returns a random lane for a record without ordering.
pub(super) fn lane_of_its_own() -> i64 {
    Uuid::new_v4().as_u64_pair().1.rotate_left(32).cast_signed()
}

/// The shard of a lane: its upper six bits.
pub(super) fn shard(lane: i64) -> i16 {
    (lane.cast_unsigned() >> 58) as i16
}

/// The lock of a lane.
pub(super) fn slot(lane: i64) -> i32 {
    (lane.cast_unsigned() % SLOTS) as i32
}

/// The lock of a shard.
pub(crate) fn shard_lock(shard: i16) -> i32 {
    SHARD_LOCKS + i32::from(shard)
}

/// The first half of the outbox's advisory locks: FNV-1a of its table's name, without the sign.
pub(crate) fn lock_class(names: &SqlNames) -> i32 {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    (names.full("outbox").bytes().fold(0x811c_9dc5, step) & 0x7fff_ffff).cast_signed()
}

/// The channel on which relays are woken.
pub(crate) fn channel(names: &SqlNames) -> String {
    format!("tidings_outbox_{:08x}", lock_class(names))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_lane_stays_what_it_is() {
        // Rows in tables have these numbers: a new version must give the same.
        assert_ne!(lane("orders", b"7"), lane("orders7", b""));
        assert_eq!([lane("orders", b"7"), lane("", b"")], [-3_826_470_045_254_412_682, -5_115_162_479_779_449_349]);
    }

    #[test]
    fn lanes_spread_over_all_shards_and_slots() {
        let lanes: Vec<i64> = (0..20_000).map(|n: u32| lane("t", n.to_string().as_bytes())).collect();
        let shards: HashSet<i16> = lanes.iter().map(|lane| shard(*lane)).collect();
        let slots: HashSet<i32> = lanes.iter().map(|lane| slot(*lane)).collect();
        assert_eq!((shards.len(), slots.len()), (64, 1024));
        assert!((0..1_000).map(|_| shard(lane_of_its_own())).all(|shard| (0..SHARDS).contains(&shard)));
    }
}
