//! Digests of values as they are written: a hash of their parts that does not depend on the order of a map or set.
//!
//! Events need not implement `PartialEq`, so two payloads are compared by what they write. The digest is a serializer:
//! it walks a value as any format would, and yields 64 bits without allocating. Two different values may have equal
//! digests: the check detects mistakes and proves nothing.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Serialize;
use serde::ser::{
    Error, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
    SerializeTupleVariant, Serializer,
};

/// Hashes a value's fields, options, variants and lengths, and its texts and numbers if `values` is set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Digest {
    /// Whether texts and numbers count. Off for formats whose reader may normalize them (a date, a decimal).
    pub(super) values: bool,
    /// Whether the format counts as text: some types write themselves as text or as bytes by it.
    pub(super) human_readable: bool,
}

impl Digest {
    /// Returns the hash of `value`; `None` if it cannot be written.
    pub(super) fn of<T: Serialize>(self, value: &T) -> Option<u64> {
        value.serialize(self).ok()
    }

    /// Returns the hash of a value without parts.
    fn leaf(self, kind: &str, value: impl Hash) -> Result<u64, NoDigest> {
        Ok(if self.values { hash((kind, value)) } else { hash(kind) })
    }

    /// Starts a value with parts; `kind` tells variants apart.
    fn parts(self, kind: u32) -> Result<Parts, NoDigest> {
        Ok(Parts { digest: self, kind, sum: 0, at: 0, key: 0 })
    }
}

/// Hashes with fixed keys, so that two digests of one process are comparable.
fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The value cannot be written.
#[derive(Debug)]
pub(super) struct NoDigest;

impl fmt::Display for NoDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it can't be written")
    }
}

impl std::error::Error for NoDigest {}

impl Error for NoDigest {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

/// The parts of a list, map or struct. They are summed, since sets are read back in another order.
#[derive(Debug)]
pub(super) struct Parts {
    digest: Digest,
    /// The number of the variant, or [`NO_VARIANT`].
    kind: u32,
    /// The sum of the hashes of the parts.
    sum: u64,
    /// The number of parts that are counted by their place.
    at: usize,
    /// The hash of the key whose value comes next.
    key: u64,
}

impl Parts {
    /// Adds a part. Addition commutes, so the order of parts does not count unless the part contains its index.
    fn add(&mut self, part: impl Hash) {
        self.sum = self.sum.wrapping_add(hash(part));
    }

    /// Returns the hash of the whole.
    fn finish(self) -> Result<u64, NoDigest> {
        Ok(hash((self.kind, self.sum)))
    }
}

/// Replaces the number of a variant for values that are not enums.
const NO_VARIANT: u32 = u32::MAX;

/// Values without parts, each hashed with the name of its type.
macro_rules! leaves { ($($method:ident: $t:ty,)*) => { $(
    fn $method(self, value: $t) -> Result<u64, NoDigest> {
        self.leaf(stringify!($t), value)
    }
)* } }

impl Serializer for Digest {
    type Ok = u64;
    type Error = NoDigest;
    type SerializeSeq = Parts;
    type SerializeTuple = Parts;
    type SerializeTupleStruct = Parts;
    type SerializeTupleVariant = Parts;
    type SerializeMap = Parts;
    type SerializeStruct = Parts;
    type SerializeStructVariant = Parts;

    leaves! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_i128: i128, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_u128: u128, serialize_char: char, serialize_str: &str, serialize_bytes: &[u8],
    }

    fn serialize_f32(self, value: f32) -> Result<u64, NoDigest> {
        self.leaf("f32", value.to_bits())
    }

    fn serialize_f64(self, value: f64) -> Result<u64, NoDigest> {
        self.leaf("f64", value.to_bits())
    }

    fn serialize_none(self) -> Result<u64, NoDigest> {
        Ok(hash("none"))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<u64, NoDigest> {
        Ok(hash(("some", value.serialize(self)?)))
    }

    fn serialize_unit(self) -> Result<u64, NoDigest> {
        Ok(hash("unit"))
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<u64, NoDigest> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Result<u64, NoDigest> {
        Ok(hash(("variant", index)))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<u64, NoDigest> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<u64, NoDigest> {
        Ok(hash(("variant", index, value.serialize(self)?)))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts, NoDigest> {
        self.parts(NO_VARIANT)
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts, NoDigest> {
        self.parts(NO_VARIANT)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Parts, NoDigest> {
        self.parts(NO_VARIANT)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Parts, NoDigest> {
        self.parts(index)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Parts, NoDigest> {
        self.parts(NO_VARIANT)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Parts, NoDigest> {
        self.parts(NO_VARIANT)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Parts, NoDigest> {
        self.parts(index)
    }

    fn is_human_readable(&self) -> bool {
        self.human_readable
    }
}

impl SerializeSeq for Parts {
    type Ok = u64;
    type Error = NoDigest;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoDigest> {
        self.add(value.serialize(self.digest)?);
        Ok(())
    }

    fn end(self) -> Result<u64, NoDigest> {
        self.finish()
    }
}

/// Sequences of fixed length, where the place of an element counts.
macro_rules! placed { ($($of:ident $method:ident,)*) => { $(
    impl $of for Parts {
        type Ok = u64;
        type Error = NoDigest;

        fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoDigest> {
            self.at += 1;
            self.add((self.at, value.serialize(self.digest)?));
            Ok(())
        }

        fn end(self) -> Result<u64, NoDigest> {
            self.finish()
        }
    }
)* } }
placed! { SerializeTuple serialize_element, SerializeTupleStruct serialize_field, SerializeTupleVariant serialize_field, }

impl SerializeMap for Parts {
    type Ok = u64;
    type Error = NoDigest;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), NoDigest> {
        self.key = key.serialize(self.digest)?;
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoDigest> {
        self.add((self.key, value.serialize(self.digest)?));
        Ok(())
    }

    fn end(self) -> Result<u64, NoDigest> {
        self.finish()
    }
}

/// Structs, whose fields count by name: a format that names its fields may write them in any order.
macro_rules! named { ($($of:ident)*) => { $(
    impl $of for Parts {
        type Ok = u64;
        type Error = NoDigest;

        fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), NoDigest> {
            self.add((key, value.serialize(self.digest)?));
            Ok(())
        }

        fn end(self) -> Result<u64, NoDigest> {
            self.finish()
        }
    }
)* } }
named! { SerializeStruct SerializeStructVariant }
