//! Integers of variable length, and a position in bytes that never moves beyond their end.
//!
//! Record fields are zigzag-encoded: 7 bits per byte, lowest first; the highest bit is set if another
//! byte follows.

/// Bytes of the longest encoding of an `i32` and of an `i64`.
const INT_BYTES: u32 = 5;
const LONG_BYTES: u32 = 10;

/// Appends an integer.
#[inline]
pub(super) fn put(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Returns the length of an integer's encoding.
#[inline]
pub(super) fn encoded_len(value: i64) -> usize {
    match zigzag(value) {
        // Nearly all are that short, which is found without a division.
        0..0x80 => 1,
        0x80..0x4000 => 2,
        raw => (u64::BITS - raw.leading_zeros()).div_ceil(7) as usize,
    }
}

const fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

const fn unzigzag(raw: u64) -> i64 {
    (raw >> 1) as i64 ^ -((raw & 1) as i64)
}

/// A position in bytes. Reading returns `None` at their end, and where an integer is too long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// Returns the position.
    pub(super) fn at(self) -> usize {
        self.at
    }

    /// Returns the number of bytes from the position to the end.
    pub(super) fn left(self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// Reads an `i32`. As in Java's client, excess bits of the fifth byte are dropped.
    #[inline]
    pub(super) fn int(&mut self) -> Option<i32> {
        let first = *self.bytes.get(self.at)?;
        let raw = if first < 0x80 {
            self.at += 1;
            u64::from(first)
        } else {
            self.long_form(INT_BYTES)?
        };
        Some(unzigzag(raw & u64::from(u32::MAX)) as i32)
    }

    /// Reads an `i64`.
    #[inline]
    pub(super) fn long(&mut self) -> Option<i64> {
        let first = *self.bytes.get(self.at)?;
        if first < 0x80 {
            self.at += 1;
            return Some(unzigzag(u64::from(first)));
        }
        self.long_form(LONG_BYTES).map(unzigzag)
    }

    fn long_form(&mut self, most: u32) -> Option<u64> {
        let mut value = 0;
        for n in 0..most {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << (7 * n);
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// Moves beyond `len` bytes and returns the position before.
    #[inline]
    pub(super) fn skip(&mut self, len: usize) -> Option<usize> {
        let start = self.at;
        let end = start.checked_add(len).filter(|end| *end <= self.bytes.len())?;
        self.at = end;
        Some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_is_read_as_it_was_written() {
        let edges = (0..64).flat_map(|bit| [1_i64 << bit, (1_i64 << bit).wrapping_sub(1), -(1_i64 << (bit / 2))]);
        for value in edges.chain([0, i64::MIN, i64::MAX, -1, -64, -65, 63, 64]) {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            assert_eq!(bytes.len(), encoded_len(value), "{value}");
            let mut cursor = Cursor::new(&bytes, 0);
            assert_eq!((cursor.long(), cursor.left()), (Some(value), 0));
            let mut cursor = Cursor::new(&bytes, 0);
            if let Ok(value) = i32::try_from(value) {
                assert_eq!((cursor.int(), cursor.left()), (Some(value), 0));
            }
        }
    }

    #[test]
    fn an_integer_that_does_not_end_is_none() {
        for length in 0..12 {
            let bytes = vec![0xff; length];
            assert_eq!((Cursor::new(&bytes, 0).int(), Cursor::new(&bytes, 0).long()), (None, None));
        }
        assert_eq!(Cursor::new(&[0x80, 0x80, 0x80, 0x80, 0x80, 0], 0).int(), None, "six bytes");
        assert_eq!(Cursor::new(&[0x82, 0x80, 0x80, 0x80, 0], 0).int(), Some(1), "five bytes");
    }
}
