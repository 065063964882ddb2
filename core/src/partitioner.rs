//! Assignment of keys to partitions, equal to the default partitioners of Java and KafkaJS 2.
//!
//! Equality matters where services in several languages publish to one topic: a key that two of them map to different
//! partitions loses its order.

/// Computes Java Kafka's murmur2 of `data` (seed `0x9747b28c`), as in `org.apache.kafka.common.utils.Utils.murmur2`.
///
/// ```
/// assert_eq!(tidings_core::murmur2(b"21"), (-973_932_308_i32) as u32); // from Kafka's own UtilsTest
/// ```
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    // Java's lengths are ints: a key of 4 GiB cannot exist there.
    let mut hash = SEED ^ (data.len() as u32);
    let (chunks, rest) = data.as_chunks::<4>();
    for chunk in chunks {
        let mut k = u32::from_le_bytes(*chunk).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    for (place, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * place);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// Returns the partition of `key` among `partitions`: murmur2 with the sign bit cleared, modulo their number.
///
/// An empty key counts as a key. With no partitions the result is 0.
///
/// ```
/// use tidings_core::partition_for;
///
/// assert_eq!(partition_for(b"user-1", 12), partition_for(b"user-1", 12));
/// assert!(partition_for(b"user-1", 12) < 12);
/// assert_eq!(partition_for(b"user-1", 0), 0);
/// ```
pub fn partition_for(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff).checked_rem(partitions).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Apache Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn hashes_as_java_does() {
        let vectors: [(&str, i32); 7] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
            ("", 275_646_681),
        ];
        for (text, hash) in vectors {
            assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text:?}");
        }
    }

    #[test]
    fn no_partitions_is_no_division_by_zero() {
        assert_eq!(partition_for(b"key", 0), 0);
    }

    #[test]
    fn the_sign_is_cleared_and_not_negated() {
        // The hash of "21" is negative: Java takes the lower 31 bits.
        assert_eq!(partition_for(b"21", 10), (-973_932_308_i32 & 0x7fff_ffff) as u32 % 10);
    }
}
