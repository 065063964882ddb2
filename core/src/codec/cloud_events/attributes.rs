//! The attributes of a CloudEvent that the envelope has no field for.

use std::fmt;

use crate::{Error, ErrorKind, Name, Result, Timestamp};

/// Attributes that the codec writes itself, from the fields of the envelope.
pub(super) const OWN: [&str; 9] =
    ["specversion", "id", "source", "type", "time", "datacontenttype", "dataversion", "data", "data_base64"];

/// The value of a CloudEvents attribute. It is always text in binary mode, and for URIs, times and bytes in both modes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttributeValue {
    /// Text.
    Text(Box<str>),
    /// A boolean, which only the structured mode distinguishes from text.
    Boolean(bool),
    /// A whole number, which only the structured mode distinguishes from text.
    Integer(i64),
}

impl From<&str> for AttributeValue {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for AttributeValue {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<bool> for AttributeValue {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<i32> for AttributeValue {
    fn from(value: i32) -> Self {
        Self::Integer(value.into())
    }
}

impl fmt::Display for AttributeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Boolean(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
        }
    }
}

/// The CloudEvents attributes for which an [`Envelope`](crate::Envelope) has no field: `subject`, `dataschema`, and
/// extensions.
///
/// An event that was read also keeps the texts of its id, time, version and content type. They are written back byte
/// for byte, unless the envelope's field has been changed since.
///
/// ```
/// # #[derive(Debug, serde::Serialize, serde::Deserialize)] struct Paid { cents: u32 }
/// # impl tidings_core::Event for Paid {
/// #     type Codec = tidings_core::codec::CloudEvents;
/// #     const TOPIC: &'static str = "payments";
/// #     const TYPE: &'static str = "com.acme.paid";
/// #     fn key(&self) -> Option<std::borrow::Cow<'_, [u8]>> { None }
/// # }
/// use tidings_core::{Envelope, ErrorKind};
///
/// let event = Envelope::new(Paid { cents: 700 }).with_attribute("subject", "invoice-7")?;
/// assert_eq!(event.attributes.get("subject").map(ToString::to_string).as_deref(), Some("invoice-7"));
///
/// let refused = Envelope::new(Paid { cents: 700 }).with_attribute("Sub-Ject", "invoice-7").unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::Invalid);
/// # Ok::<(), tidings_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes(Option<Box<Inner>>);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Inner {
    texts: Option<Texts>,
    others: Vec<(Box<str>, AttributeValue)>,
}

/// The texts that an event was read from, with the values that they were parsed into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Texts {
    pub(super) id: Box<str>,
    pub(super) source: Name,
    pub(super) time: (Option<Box<str>>, Timestamp),
    pub(super) version: Option<Box<str>>,
    pub(super) content_type: Option<Box<str>>,
}

impl Attributes {
    /// No attributes, for envelopes that borrow theirs.
    pub(crate) const NONE: &'static Self = &Self(None);

    /// Returns the attributes of an event that was read.
    pub(super) fn read(texts: Texts, others: Vec<(Box<str>, AttributeValue)>) -> Self {
        Self(Some(Box::new(Inner { texts: Some(texts), others })))
    }

    /// Returns the value of `subject`, `dataschema` or an extension.
    pub fn get(&self, name: &str) -> Option<&AttributeValue> {
        self.iter().find_map(|(known, value)| (known == name).then_some(value))
    }

    /// Iterates over names and values, in the order in which they were set or read.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &AttributeValue)> {
        self.0.iter().flat_map(|inner| &inner.others).map(|(name, value)| (&**name, value))
    }

    /// Returns whether there are no attributes.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Sets an attribute, or replaces it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a name with other characters than `a` to `z` and `0` to `9`, or the name of an
    /// attribute for which the envelope has a field.
    pub fn set(&mut self, name: &str, value: impl Into<AttributeValue>) -> Result<()> {
        let refuse = |why: &str| Err(Error::new(ErrorKind::Invalid, format!("set the attribute {name:?}: {why}")));
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            return refuse("a name consists of the letters a to z and digits");
        }
        if OWN.contains(&name) {
            return refuse("it is written from the envelope's fields");
        }
        let others = &mut self.0.get_or_insert_default().others;
        match others.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, old)) => *old = value.into(),
            None => others.push((name.into(), value.into())),
        }
        Ok(())
    }

    /// Returns the attributes for another version of the payload, which the schema does not describe.
    pub(crate) fn without_schema(mut self) -> Self {
        if let Some(inner) = &mut self.0 {
            inner.others.retain(|(name, _)| **name != *"dataschema");
        }
        self
    }

    pub(super) fn texts(&self) -> Option<&Texts> {
        self.0.as_ref()?.texts.as_ref()
    }
}
