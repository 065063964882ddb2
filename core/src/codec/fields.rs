//! The names of the fields and variants of a Rust type, collected while a value of it is read.
//!
//! A path in JSON has names of fields and keys of maps alike. The names are the program's, and the keys are data: only
//! the names may be shown in logs. Reading once more, with this in between, tells them apart; that costs something only
//! for a record that cannot be read.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor};

/// The names that were asked for.
#[derive(Debug, Default)]
pub(super) struct Names(RefCell<BTreeSet<&'static str>>);

impl Names {
    /// Returns whether this is the name of a field or variant. A key of a map that is equal to one tells nothing.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.borrow().contains(name)
    }

    fn add(&self, names: &[&'static str]) {
        self.0.borrow_mut().extend(names);
    }
}

/// A deserializer, or a part of one, that collects names.
pub(super) struct Collecting<'n, T> {
    inner: T,
    names: &'n Names,
}

impl<'n, T> Collecting<'n, T> {
    pub(super) fn new(inner: T, names: &'n Names) -> Self {
        Self { inner, names }
    }

    fn with<U>(&self, inner: U) -> Collecting<'n, U> {
        Collecting { inner, names: self.names }
    }
}

macro_rules! deserialize { ($($method:ident($($argument:ident: $t:ty),*) $(adds $names:ident)?,)*) => { $(
    fn $method<V: Visitor<'de>>(self, $($argument: $t,)* visitor: V) -> Result<V::Value, D::Error> {
        $(self.names.add($names);)?
        let visitor = self.with(visitor);
        self.inner.$method($($argument,)* visitor)
    }
)* } }

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Collecting<'_, D> {
    type Error = D::Error;

    deserialize! {
        deserialize_any(), deserialize_bool(), deserialize_i8(), deserialize_i16(), deserialize_i32(),
        deserialize_i64(), deserialize_i128(), deserialize_u8(), deserialize_u16(), deserialize_u32(),
        deserialize_u64(), deserialize_u128(), deserialize_f32(), deserialize_f64(), deserialize_char(),
        deserialize_str(), deserialize_string(), deserialize_bytes(), deserialize_byte_buf(), deserialize_option(),
        deserialize_unit(), deserialize_unit_struct(name: &'static str), deserialize_newtype_struct(name: &'static str),
        deserialize_seq(), deserialize_tuple(len: usize), deserialize_tuple_struct(name: &'static str, len: usize),
        deserialize_map(), deserialize_struct(name: &'static str, fields: &'static [&'static str]) adds fields,
        deserialize_enum(name: &'static str, variants: &'static [&'static str]) adds variants,
        deserialize_identifier(), deserialize_ignored_any(),
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visit { ($($method:ident: $t:ty,)*) => { $(
    fn $method<E: Error>(self, value: $t) -> Result<V::Value, E> {
        self.inner.$method(value)
    }
)* } }

impl<'de, V: Visitor<'de>> Visitor<'de> for Collecting<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit! {
        visit_bool: bool, visit_i8: i8, visit_i16: i16, visit_i32: i32, visit_i64: i64, visit_i128: i128, visit_u8: u8,
        visit_u16: u16, visit_u32: u32, visit_u64: u64, visit_u128: u128, visit_f32: f32, visit_f64: f64,
        visit_char: char, visit_str: &str, visit_borrowed_str: &'de str, visit_string: String, visit_bytes: &[u8],
        visit_borrowed_bytes: &'de [u8], visit_byte_buf: Vec<u8>,
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.inner.visit_some(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.inner.visit_newtype_struct(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<V::Value, A::Error> {
        let list = self.with(list);
        self.inner.visit_seq(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        let map = self.with(map);
        self.inner.visit_map(map)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, choice: A) -> Result<V::Value, A::Error> {
        let choice = self.with(choice);
        self.inner.visit_enum(choice)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Collecting<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.inner.deserialize(deserializer)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Collecting<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let seed = self.with(seed);
        self.inner.next_element_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Collecting<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.with(seed);
        self.inner.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, 'n, A: EnumAccess<'de>> EnumAccess<'de> for Collecting<'n, A> {
    type Error = A::Error;
    type Variant = Collecting<'n, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let names = self.names;
        let (value, variant) = self.inner.variant_seed(seed)?;
        Ok((value, Collecting { inner: variant, names }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Collecting<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
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
        self.names.add(fields);
        let visitor = self.with(visitor);
        self.inner.struct_variant(fields, visitor)
    }
}
