//! The bounds of records in flight (rule E4): bytes of the service, and the span of offsets of each partition.

/// Decides at which bounds fetching pauses, and when it resumes.
#[derive(Debug)]
pub(super) struct Bounds {
    max_bytes: usize,
    max_span: u64,
    bytes: usize,
    is_full: bool,
}

impl Bounds {
    pub(super) fn new(max_bytes: usize, max_span: u64) -> Self {
        Self { max_bytes, max_span, bytes: 0, is_full: false }
    }

    /// Counts bytes that were dispatched. Partitions are paused before the maximum, so that the prefetched bytes, a
    /// quarter of it, fit in as well.
    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.is_full |= self.bytes >= self.max_bytes - self.max_bytes / 4;
    }

    /// Counts bytes that were settled, or dropped with their assignment. The pause ends at half of the maximum.
    pub(super) fn remove(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.is_full &= self.bytes > self.max_bytes / 2;
    }

    /// Returns the bytes in flight.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns whether all partitions are paused because of the bytes in flight.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Returns whether a partition with this span is paused because of it. A pause ends at half of the maximum.
    pub(super) fn is_span_full(&self, span: u64, is_paused: bool) -> bool {
        if is_paused { span > self.max_span / 2 } else { span >= self.max_span }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_for_bytes_ends_at_half() {
        let mut bounds = Bounds::new(100, 10);
        bounds.add(74);
        assert!(!bounds.is_full());
        bounds.add(1);
        assert!(bounds.is_full());
        bounds.remove(24);
        assert!(bounds.is_full());
        bounds.remove(1);
        assert_eq!((bounds.is_full(), bounds.bytes()), (false, 50));
    }

    #[test]
    fn a_pause_for_the_span_ends_at_half() {
        let bounds = Bounds::new(100, 10);
        let paused = [(9, false), (10, false), (6, true), (5, true)].map(|(span, was)| bounds.is_span_full(span, was));
        assert_eq!(paused, [false, true, true, false]);
    }
}
