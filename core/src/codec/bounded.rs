//! Bounded decoding of untrusted input: a deserializer that limits depth and counts elements.
//!
//! Postcard states the length of a list before its elements, and does not state how deep values are nested: a few
//! bytes could overflow the stack, or produce a list of empty elements for hours.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::rules::TOO_DEEP;

/// The limit of nesting: lists, structs, enums, options and newtypes are each a level.
pub(super) const MAX_DEPTH: usize = 256;
/// The limit of list and map elements beyond one per byte. Only elements that take no bytes need them.
pub(super) const MAX_EMPTY_ELEMENTS: usize = 64 << 10;

/// The error of a list with more empty elements than the limit, both when written and when read.
pub(super) const TOO_MANY: &str = "it has more elements than bytes";

/// The remaining bounds while a value is read.
#[derive(Debug)]
pub(super) struct Bounds {
    depth: Cell<usize>,
    elements: Cell<usize>,
    /// The bound that was exceeded: formats without error texts lose that of the error.
    broken: Cell<Option<&'static str>>,
}

impl Bounds {
    /// Creates the bounds of a value of `bytes`.
    pub(super) fn of(bytes: usize) -> Self {
        let elements = bytes.saturating_add(MAX_EMPTY_ELEMENTS);
        Self { depth: Cell::new(MAX_DEPTH), elements: Cell::new(elements), broken: Cell::new(None) }
    }

    /// Returns the bound that was exceeded, if that is why reading failed.
    pub(super) fn broken(&self) -> Option<&'static str> {
        self.broken.get()
    }

    /// Wraps `inner` so that its reads are bounded.
    pub(super) fn bound<T>(&self, inner: T) -> Bounded<'_, T> {
        Bounded { inner, bounds: self, counted: false }
    }

    /// Fails, and records why: postcard's error has no text of its own.
    #[cold]
    fn refuse<T, E: Error>(&self, why: &'static str) -> Result<T, E> {
        self.broken.set(Some(why));
        Err(E::custom(why))
    }

    /// Reads a nested value, one level deeper. The level is returned also if reading fails, since serde may go on (an
    /// untagged enum tries its variants one after the other).
    #[inline]
    fn deeper<T, E: Error>(&self, read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let Some(left) = self.depth.get().checked_sub(1) else { return self.refuse(TOO_DEEP) };
        self.depth.set(left);
        let read = read();
        self.depth.set(left + 1);
        read
    }

    /// Counts an element of a list or map.
    #[inline]
    fn element<E: Error>(&self) -> Result<(), E> {
        match self.elements.get().checked_sub(1) {
            Some(left) => self.elements.set(left),
            None => return self.refuse(TOO_MANY),
        }
        Ok(())
    }
}

/// A deserializer, visitor or accessor of serde's with bounds.
pub(super) struct Bounded<'b, T> {
    inner: T,
    bounds: &'b Bounds,
    /// Whether its elements are counted: those of lists and maps are, and those of tuples and arrays that have no size
    /// in memory, of which a type may have any number without a byte. The fields of a struct are not.
    counted: bool,
}

impl<'b, T> Bounded<'b, T> {
    /// Wraps a part whose elements are not counted.
    fn with<U>(&self, inner: U) -> Bounded<'b, U> {
        Bounded { inner, bounds: self.bounds, counted: false }
    }

    /// Wraps a visitor of a list or map, whose elements are counted.
    fn counting<U>(&self, inner: U) -> Bounded<'b, U> {
        Bounded { counted: true, ..self.with(inner) }
    }

    fn tuple<'de, V: Visitor<'de>>(&self, visitor: V) -> Bounded<'b, V> {
        Bounded { counted: size_of::<V::Value>() == 0, ..self.with(visitor) }
    }
}

/// Forwards the methods of values without parts, which cannot exceed a bound by themselves.
macro_rules! forward { ($($method:ident)*) => { $(
    #[inline]
    fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.$method(visitor)
    }
)* } }

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Bounded<'_, D> {
    type Error = D::Error;

    forward! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char
        deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf deserialize_unit deserialize_identifier
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = self.counting(visitor);
        self.bounds.deeper(|| self.inner.deserialize_any(visitor))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = self.counting(visitor);
        self.bounds.deeper(|| self.inner.deserialize_ignored_any(visitor))
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = self.with(visitor);
        self.inner.deserialize_option(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = self.with(visitor);
        self.bounds.deeper(|| self.inner.deserialize_newtype_struct(name, visitor))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = self.counting(visitor);
        self.bounds.deeper(|| self.inner.deserialize_seq(visitor))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = self.tuple(visitor);
        self.bounds.deeper(|| self.inner.deserialize_tuple(len, visitor))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.tuple(visitor);
        self.bounds.deeper(|| self.inner.deserialize_tuple_struct(name, len, visitor))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = self.counting(visitor);
        self.bounds.deeper(|| self.inner.deserialize_map(visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.with(visitor);
        self.bounds.deeper(|| self.inner.deserialize_struct(name, fields, visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.with(visitor);
        self.bounds.deeper(|| self.inner.deserialize_enum(name, variants, visitor))
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Bounded<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.bounds.deeper(|| self.inner.visit_some(deserializer))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.inner.visit_newtype_struct(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = Bounded { inner: access, bounds: self.bounds, counted: self.counted };
        self.inner.visit_seq(access)
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = Bounded { inner: access, bounds: self.bounds, counted: self.counted };
        self.inner.visit_map(access)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.with(access);
        self.inner.visit_enum(access)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        let seed = self.with(seed);
        let element = self.inner.next_element_seed(seed)?;
        if self.counted && element.is_some() {
            self.bounds.element()?;
        }
        Ok(element)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let seed = self.with(seed);
        let key = self.inner.next_key_seed(seed)?;
        if self.counted && key.is_some() {
            self.bounds.element()?;
        }
        Ok(key)
    }

    #[inline]
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        let seed = self.with(seed);
        self.inner.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'b, 'de, A: EnumAccess<'de>> EnumAccess<'de> for Bounded<'b, A> {
    type Error = A::Error;
    type Variant = Bounded<'b, A::Variant>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self::Variant), A::Error> {
        let (bounds, seed) = (self.bounds, self.with(seed));
        let (value, variant) = self.inner.variant_seed(seed)?;
        Ok((value, bounds.bound(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        let seed = self.with(seed);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = self.with(visitor);
        self.inner.tuple_variant(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.with(visitor);
        self.inner.struct_variant(fields, visitor)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Bounded<'_, S> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.inner.deserialize(deserializer)
    }
}
