//! Fetch size per partition. The client decompresses a fetch completely before it does anything else, so a fetch of
//! small batches that decompress to much more takes far more memory than its bytes.

/// Initial number of consecutive small batches that ends reading one by one.
const CALM: u32 = 4;
/// Factor by which that number grows each time.
const LONGER: u32 = 8;
/// Maximum of that number.
const MAX_CALM: u32 = 1 << 15;
/// Divisor of a large size that gives a small one.
const SMALL_SHARE: usize = 8;

/// Whether a partition is read batch by batch, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FetchMode {
    /// Each fetch has one batch, whatever its decompressed size.
    pub(super) single: bool,
    /// Consecutive small batches since a large one.
    calm: u32,
    /// Number of them that ends reading one by one; it grows each time a large batch comes again.
    needed: u32,
}

impl Default for FetchMode {
    fn default() -> Self {
        Self { single: false, calm: 0, needed: CALM }
    }
}

impl FetchMode {
    /// Reads batch by batch, until several of them were small.
    pub(super) fn single() -> Self {
        Self { single: true, ..Self::default() }
    }

    /// Records the decompressed size of a fetch, where `large` bytes count as large. Returns whether the pace
    /// changes.
    pub(super) fn record_fetch(&mut self, bytes: usize, large: usize) -> bool {
        let before = self.single;
        if !self.single && bytes > large {
            *self = Self { single: true, calm: 0, needed: (self.needed * LONGER).min(MAX_CALM) };
        } else if bytes > large / SMALL_SHARE {
            self.calm = 0;
        } else if self.single && bytes > 0 {
            self.calm += 1;
            self.single = self.calm < self.needed;
        }
        before != self.single
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_batches_are_read_one_by_one() {
        let mut fetch_mode = FetchMode::default();
        assert!(!fetch_mode.record_fetch(1_000, 1_000) && !fetch_mode.single);
        assert!(fetch_mode.record_fetch(1_001, 1_000) && fetch_mode.single);
        let small = (1..).find(|_| fetch_mode.record_fetch(100, 1_000));
        assert_eq!(small, Some(CALM * LONGER), "it takes longer each time");
        assert!(!fetch_mode.single && fetch_mode.record_fetch(5_000, 1_000));
        assert_eq!((1..).find(|_| fetch_mode.record_fetch(100, 1_000)), Some(CALM * LONGER * LONGER));
    }

    #[test]
    fn only_small_batches_in_a_row_end_it() {
        let mut fetch_mode = FetchMode::single();
        for bytes in [100, 100, 100, 900, 100, 100, 0, 100] {
            assert!(!fetch_mode.record_fetch(bytes, 1_000), "{bytes}");
        }
        assert!(fetch_mode.record_fetch(100, 1_000) && !fetch_mode.single);
    }
}
