//! Checks an answer's lengths before it is decoded.
//!
//! The decoder of `kafka-protocol` reserves memory for as many array elements as an answer declares. A damaged or
//! hostile answer could declare billions, and so abort the process. The lengths in an answer are therefore compared
//! with its bytes first, without allocating.
//!
//! The decoder ignores the declared length of a tagged field that it knows, so each of them has a layout here, and
//! must use exactly its length: the check and the decoder would otherwise read different bytes.

/// A field, or the elements of an array.
#[derive(Debug, Clone, Copy)]
enum Field {
    /// Numbers of this size altogether, in bytes.
    Fixed(usize),
    Text,
    Bytes,
    /// Elements of these fields.
    Array(&'static [Versioned]),
    /// Elements of these fields, and of these tagged fields.
    TaggedArray(&'static [Versioned], Tags),
    /// Elements of a single field.
    Plain(&'static Field),
    /// Numbers of this size altogether, and tagged fields.
    Struct(usize),
}

/// A field, and the versions that have it.
type Versioned = (i16, i16, Field);

/// All tagged fields that the decoder knows.
type Tags = &'static [(u32, Field)];

/// The layout of an answer.
struct Layout {
    key: i16,
    /// The first version with compact lengths and tagged fields (KIP-482).
    compact_from: i16,
    fields: &'static [Versioned],
    tags: Tags,
}

const ALL: i16 = i16::MAX;

const fn always(field: Field) -> Versioned {
    (0, ALL, field)
}

const fn since(version: i16, field: Field) -> Versioned {
    (version, ALL, field)
}

use Field::{Array, Bytes, Fixed, Plain, Struct, TaggedArray, Text};

const INT: Field = Fixed(4);

static LAYOUTS: [Layout; 9] = [
    Layout {
        key: 0,
        compact_from: 9,
        fields: &[
            always(Array(&[
                always(Text),
                always(Array(&[always(Fixed(30)), since(8, Array(&[always(INT), always(Text)])), since(8, Text)])),
            ])),
            always(INT),
        ],
        tags: &[],
    },
    Layout {
        key: 1,
        compact_from: 12,
        fields: &[
            always(Fixed(10)),
            always(Array(&[
                always(Text),
                always(TaggedArray(
                    &[always(Fixed(30)), always(Array(&[always(Fixed(16))])), always(INT), always(Bytes)],
                    // The diverging epoch, the current leader, and the snapshot.
                    &[(0, Struct(12)), (1, Struct(8)), (2, Struct(12))],
                )),
            ])),
        ],
        tags: &[],
    },
    Layout {
        key: 2,
        compact_from: 6,
        fields: &[always(INT), always(Array(&[always(Text), always(Array(&[always(Fixed(26))]))]))],
        tags: &[],
    },
    Layout {
        key: 3,
        compact_from: 9,
        fields: &[
            always(INT),
            always(Array(&[always(INT), always(Text), always(INT), always(Text)])),
            always(Text),
            always(INT),
            always(Array(&[
                always(Fixed(2)),
                always(Text),
                since(10, Fixed(16)),
                always(Fixed(1)),
                always(Array(&[always(Fixed(14)), always(Plain(&INT)), always(Plain(&INT)), always(Plain(&INT))])),
                always(INT),
            ])),
            (8, 10, INT),
        ],
        tags: &[],
    },
    Layout { key: 17, compact_from: ALL, fields: &[always(Fixed(2)), always(Plain(&Text))], tags: &[] },
    Layout {
        key: 18,
        compact_from: 3,
        fields: &[always(Fixed(2)), always(Array(&[always(Fixed(6))])), since(1, INT)],
        tags: &[
            (0, Array(&[always(Text), always(INT)])),
            (1, Fixed(8)),
            (2, Array(&[always(Text), always(INT)])),
            (3, Fixed(1)),
        ],
    },
    Layout { key: 22, compact_from: 2, fields: &[always(Fixed(16))], tags: &[] },
    Layout {
        key: 23,
        compact_from: 4,
        fields: &[always(INT), always(Array(&[always(Text), always(Array(&[always(Fixed(18))]))]))],
        tags: &[],
    },
    Layout {
        key: 36,
        compact_from: 2,
        fields: &[always(Fixed(2)), always(Text), always(Bytes), always(Fixed(8))],
        tags: &[],
    },
];

/// Returns whether the lengths in an answer fit its bytes; `answer` begins after the header.
///
/// Returns `false` for a request without a layout.
pub(super) fn fits(key: i16, version: i16, answer: &[u8]) -> bool {
    let Some(layout) = LAYOUTS.iter().find(|layout| layout.key == key) else { return false };
    let mut walk = Walk { rest: answer, version, is_compact: version >= layout.compact_from };
    walk.fields(layout.fields, layout.tags).is_some()
}

/// A position in an answer. Methods return `None` beyond its end.
struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    is_compact: bool,
}

impl Walk<'_> {
    fn skip(&mut self, len: usize) -> Option<()> {
        self.rest = self.rest.get(len..)?;
        Some(())
    }

    fn varint(&mut self) -> Option<u32> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return u32::try_from(value).ok();
            }
        }
        None
    }

    /// Reads a length: compact, or of `width` bytes. Null is zero.
    fn length(&mut self, width: usize) -> Option<usize> {
        if self.is_compact {
            return usize::try_from(self.varint()?.saturating_sub(1)).ok();
        }
        let length = if width == 2 {
            i32::from(i16::from_be_bytes(*self.rest.first_chunk()?))
        } else {
            i32::from_be_bytes(*self.rest.first_chunk()?)
        };
        self.skip(width)?;
        if length == -1 { Some(0) } else { usize::try_from(length).ok() }
    }

    fn field(&mut self, field: &Field) -> Option<()> {
        match field {
            Fixed(len) => self.skip(*len),
            Text => self.length(2).and_then(|len| self.skip(len)),
            Bytes => self.length(4).and_then(|len| self.skip(len)),
            Array(fields) => {
                let count = self.length(4)?;
                // Each element has at least one byte, so this ends with the answer.
                (0..count).try_for_each(|_| self.fields(fields, &[]))
            }
            TaggedArray(fields, tags) => {
                let count = self.length(4)?;
                (0..count).try_for_each(|_| self.fields(fields, tags))
            }
            Struct(len) => {
                self.skip(*len)?;
                self.fields(&[], &[])
            }
            Plain(field) => {
                let count = self.length(4)?;
                (0..count).try_for_each(|_| self.field(field))
            }
        }
    }

    fn fields(&mut self, fields: &[Versioned], known: Tags) -> Option<()> {
        for (first, last, field) in fields {
            if (*first..=*last).contains(&self.version) {
                self.field(field)?;
            }
        }
        if !self.is_compact {
            return Some(());
        }
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let len = usize::try_from(self.varint()?).ok()?;
            let content = self.rest.get(..len)?;
            if let Some((_, field)) = known.iter().find(|(known, _)| *known == tag) {
                let mut walk = Walk { rest: content, ..*self };
                walk.field(field)?;
                if !walk.rest.is_empty() {
                    return None;
                }
            }
            self.skip(len)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The decoder would find the second array inside of the first field, and reserve what it declares.
    #[test]
    fn a_tagged_field_that_is_longer_than_its_content_is_refused() {
        let versions = [0, 0, 1, 0, 0, 0, 0];
        let epoch = [1, 1, 8, 0, 0, 0, 0, 0, 0, 0, 9, 0];
        assert!(fits(18, 3, &[&versions[..], &epoch].concat()));
        let hidden = [2, 1, 20, 0, 0, 0, 0, 0, 0, 0, 9, 2, 5, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0, 0, 9, 0];
        assert!(!fits(18, 3, &[&versions[..], &hidden].concat()));
        let twice = [1, 0, 2, 1, 1];
        assert!(!fits(18, 3, &[&versions[..], &twice].concat()));
    }

    #[test]
    fn a_tagged_field_that_is_shorter_than_its_content_is_refused() {
        let versions = [0, 0, 1, 0, 0, 0, 0];
        assert!(!fits(18, 3, &[&versions[..], &[1, 1, 7, 0, 0, 0, 0, 0, 0, 0]].concat()));
    }
}
