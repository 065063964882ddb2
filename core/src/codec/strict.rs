//! Strict encoding: a serializer that checks each value, and writes none that its reader would refuse or misread.
//!
//! It wraps the format's serializer and forwards every call, so that the bytes are those of the format. The checks are
//! made on the way, without building a value in between: nesting, options in options, floats that the format lacks,
//! skipped fields.

use serde::Serialize;
use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
    SerializeTupleVariant, Serializer,
};

use super::rules::{Level, Rules, Step};

/// A value or a serializer, checked by rules.
pub(super) struct Strict<'r, T> {
    inner: T,
    rules: &'r Rules,
    /// Whether the value is directly within a `Some`.
    in_some: bool,
}

impl<'r, T> Strict<'r, T> {
    /// Wraps `inner` with `rules`.
    pub(super) fn new(inner: T, rules: &'r Rules) -> Self {
        Self { inner, rules, in_some: false }
    }
}

/// A list, map or struct being written.
pub(super) struct Compound<'r, C> {
    inner: C,
    rules: &'r Rules,
    level: Level,
    /// The number of elements written, which is the index of the next one in the path of an error.
    at: usize,
    /// Whether an element of a tuple has a size in memory, or a variant's number was written. The elements of one that
    /// has none are counted: there may be any number of them without a byte.
    is_sized: bool,
}

impl<T: Serialize + ?Sized> Serialize for Strict<'_, &T> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.inner.serialize(Strict { inner: serializer, rules: self.rules, in_some: self.in_some })
    }
}

impl<'r, S: Serializer> Strict<'r, S> {
    /// Starts a list, map or struct, one level deeper until its [`end`](Compound::end).
    #[inline]
    fn compound<C>(
        self,
        level: Level,
        begin: impl FnOnce(S) -> Result<C, S::Error>,
    ) -> Result<Compound<'r, C>, S::Error> {
        self.rules.enter(level)?;
        Ok(Compound { inner: begin(self.inner)?, rules: self.rules, level, at: 0, is_sized: level == Level::Variant })
    }

    /// Writes a value that the format writes as null, unless it is within a `Some`: JSON reads `Some(None)` as `None`.
    #[inline]
    fn null(self, write: impl FnOnce(S) -> Result<S::Ok, S::Error>) -> Result<S::Ok, S::Error> {
        if self.in_some && !self.rules.nested_options {
            return self.rules.refuse("a `Some` of null would be read as `None`");
        }
        write(self.inner)
    }

    /// Refuses a float that the format cannot write.
    #[inline]
    fn float(&self, is_finite: bool) -> Result<(), S::Error> {
        if is_finite || self.rules.all_floats {
            return Ok(());
        }
        self.rules.refuse("the number is NaN or infinite, which would be read as null")
    }
}

macro_rules! forward { ($($method:ident: $t:ty,)*) => { $(
    #[inline]
    fn $method(self, value: $t) -> Result<S::Ok, S::Error> {
        self.inner.$method(value)
    }
)* } }

impl<'r, S: Serializer> Serializer for Strict<'r, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Compound<'r, S::SerializeSeq>;
    type SerializeTuple = Compound<'r, S::SerializeTuple>;
    type SerializeTupleStruct = Compound<'r, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Compound<'r, S::SerializeTupleVariant>;
    type SerializeMap = Compound<'r, S::SerializeMap>;
    type SerializeStruct = Compound<'r, S::SerializeStruct>;
    type SerializeStructVariant = Compound<'r, S::SerializeStructVariant>;

    forward! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_i128: i128, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_u128: u128, serialize_char: char, serialize_str: &str, serialize_bytes: &[u8],
    }

    #[inline]
    fn serialize_f32(self, value: f32) -> Result<S::Ok, S::Error> {
        self.float(value.is_finite())?;
        self.inner.serialize_f32(value)
    }

    #[inline]
    fn serialize_f64(self, value: f64) -> Result<S::Ok, S::Error> {
        self.float(value.is_finite())?;
        self.inner.serialize_f64(value)
    }

    #[inline]
    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.null(S::serialize_none)
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        let value = Strict { inner: value, rules: self.rules, in_some: true };
        self.rules.within(Level::Thin, || self.inner.serialize_some(&value))
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.null(S::serialize_unit)
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<S::Ok, S::Error> {
        self.null(|inner| inner.serialize_unit_struct(name))
    }

    fn serialize_unit_variant(self, name: &'static str, index: u32, variant: &'static str) -> Result<S::Ok, S::Error> {
        self.rules.within(Level::Thin, || self.inner.serialize_unit_variant(name, index, variant))
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<S::Ok, S::Error> {
        let value = Strict { inner: value, rules: self.rules, in_some: self.in_some };
        self.rules.within(Level::Thin, || self.inner.serialize_newtype_struct(name, &value))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let (rules, value) = (self.rules, Strict::new(value, self.rules));
        let write = || self.inner.serialize_newtype_variant(name, index, variant, &value);
        rules.at(|| Step::Field(variant), rules.within(Level::NewtypeVariant, write))
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.compound(Level::Compound, |inner| inner.serialize_seq(len))
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        self.compound(Level::Compound, |inner| inner.serialize_tuple(len))
    }

    fn serialize_tuple_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.compound(Level::Compound, |inner| inner.serialize_tuple_struct(name, len))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.compound(Level::Variant, |inner| inner.serialize_tuple_variant(name, index, variant, len))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.compound(Level::Compound, |inner| inner.serialize_map(len))
    }

    #[inline]
    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeStruct, S::Error> {
        self.compound(Level::Compound, |inner| inner.serialize_struct(name, len))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.compound(Level::Variant, |inner| inner.serialize_struct_variant(name, index, variant, len))
    }

    fn collect_str<T: std::fmt::Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.collect_str(value)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

impl<'r, C> Compound<'r, C> {
    /// Returns the next element and its index.
    #[inline]
    fn next<'a, T: ?Sized>(&mut self, value: &'a T) -> (Strict<'a, &'a T>, usize)
    where
        'r: 'a,
    {
        self.at += 1;
        (Strict::new(value, self.rules), self.at - 1)
    }

    /// Counts an element of a list or map, for the bound that the reader has.
    #[inline]
    fn count(&self) {
        self.rules.count(1);
    }

    /// Ends the value and leaves its level.
    #[inline]
    fn end<Ok, E>(self, end: impl FnOnce(C) -> Result<Ok, E>) -> Result<Ok, E> {
        self.rules.leave(self.level);
        end(self.inner)
    }
}

impl<C: SerializeSeq> SerializeSeq for Compound<'_, C> {
    type Ok = C::Ok;
    type Error = C::Error;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        self.count();
        let (value, place) = self.next(value);
        self.rules.at(|| Step::Element(place), self.inner.serialize_element(&value))
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        self.end(C::end)
    }
}

/// Tuples, tuple structs and tuple variants: elements by index, not counted, since their number is fixed by the type.
macro_rules! elements { ($($of:ident $method:ident,)*) => { $(
    impl<C: $of> $of for Compound<'_, C> {
        type Ok = C::Ok;
        type Error = C::Error;

        #[inline]
        fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
            self.is_sized |= size_of_val(value) > 0;
            let (value, place) = self.next(value);
            self.rules.at(|| Step::Element(place), self.inner.$method(&value))
        }

        fn end(self) -> Result<C::Ok, C::Error> {
            if !self.is_sized {
                self.rules.count(self.at);
            }
            self.end(C::end)
        }
    }
)* } }
elements! { SerializeTuple serialize_element, SerializeTupleStruct serialize_field, SerializeTupleVariant serialize_field, }

impl<C: SerializeMap> SerializeMap for Compound<'_, C> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        self.count();
        let (key, place) = self.next(key);
        self.rules.at(|| Step::Element(place), self.inner.serialize_key(&key))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        let place = self.at.saturating_sub(1);
        self.rules.at(|| Step::Element(place), self.inner.serialize_value(&Strict::new(value, self.rules)))
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        self.end(C::end)
    }
}

/// Structs: fields by name, which may be skipped only where the format tells which fields are present.
macro_rules! fields { ($($of:ident)*) => { $(
    impl<C: $of> $of for Compound<'_, C> {
        type Ok = C::Ok;
        type Error = C::Error;

        #[inline]
        fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), C::Error> {
            let value = Strict::new(value, self.rules);
            self.rules.at(|| Step::Field(key), self.inner.serialize_field(key, &value))
        }

        fn skip_field(&mut self, key: &'static str) -> Result<(), C::Error> {
            if !self.rules.skipped_fields {
                let refused = self.rules.refuse("a skipped field would shift the fields after it");
                return self.rules.at(|| Step::Field(key), refused);
            }
            self.inner.skip_field(key)
        }

        fn end(self) -> Result<C::Ok, C::Error> {
            self.end(C::end)
        }
    }
)* } }
fields! { SerializeStruct SerializeStructVariant }
