//! Events with the metadata of their wire format, and batches of them.

use uuid::Uuid;

#[cfg(feature = "cloudevents")]
use crate::Result;
#[cfg(feature = "cloudevents")]
use crate::codec::{AttributeValue, Attributes};
use crate::{Event, Name, Timestamp, Version};

/// An event with the metadata that surrounds it on the wire.
///
/// ```
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Paid(u32);
/// # impl tidings_core::Event for Paid {
/// #     type Codec = tidings_core::codec::Json;
/// #     const TOPIC: &'static str = "payments"; const TYPE: &'static str = "paid";
/// #     fn key(&self) -> Option<std::borrow::Cow<'_, [u8]>> { None }
/// # }
/// let envelope = tidings_core::Envelope::new(Paid(7)).with_source("billing");
/// assert_eq!((envelope.source.as_str(), envelope.payload.0), ("billing", 7));
/// assert!(!envelope.id.is_nil());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Envelope<E> {
    /// The event's id, the same wherever the event appears: a UUID, v7 if created here.
    pub id: Uuid,
    /// The time when the event was created, in milliseconds.
    pub timestamp: Timestamp,
    /// The service that created the event.
    pub source: Name,
    /// The version of the payload: that in which it was written, or that of its type after an
    /// [upcast](crate::codec::Upcast).
    pub version: Version,
    /// The event itself.
    pub payload: E,
    /// The attributes of a CloudEvent that have no field here. Codecs of other formats do not write them.
    #[cfg(feature = "cloudevents")]
    pub attributes: Attributes,
}

impl<E: Event> Envelope<E> {
    /// Creates an envelope of `payload` as a new event without a named source, for unit tests of handlers and for
    /// publishers.
    pub fn new(payload: E) -> Self {
        Self {
            id: Uuid::now_v7(),
            timestamp: Timestamp::now(),
            source: Name::default(),
            version: E::VERSION,
            payload,
            #[cfg(feature = "cloudevents")]
            attributes: Attributes::default(),
        }
    }
}

impl<E> Envelope<E> {
    /// Replaces the id.
    #[must_use]
    pub fn with_id(mut self, id: Uuid) -> Self {
        self.id = id;
        self
    }

    /// Replaces the timestamp.
    #[must_use]
    pub fn with_timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = timestamp;
        self
    }

    /// Sets the service that created the event.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Name>) -> Self {
        self.source = source.into();
        self
    }

    /// Sets an attribute of the CloudEvent: `subject`, `dataschema`, or an extension.
    ///
    /// # Errors
    /// As [`Attributes::set`].
    #[cfg(feature = "cloudevents")]
    pub fn with_attribute(mut self, name: &str, value: impl Into<AttributeValue>) -> Result<Self> {
        self.attributes.set(name, value)?;
        Ok(self)
    }

    /// Marks `event`, returned by a batch handler, as caused by this one.
    pub fn causes<T>(&self, event: T) -> Caused<T> {
        Caused { cause: self.id, event }
    }

    /// Returns an envelope that borrows the payload.
    pub fn as_ref(&self) -> EnvelopeRef<'_, E> {
        EnvelopeRef {
            id: self.id,
            timestamp: self.timestamp,
            source: &self.source,
            version: self.version,
            payload: &self.payload,
            #[cfg(feature = "cloudevents")]
            attributes: &self.attributes,
        }
    }
}

/// An envelope that borrows its payload, as a [`Codec`](crate::codec::Codec) writes it.
#[derive(Debug)]
#[non_exhaustive]
pub struct EnvelopeRef<'a, E> {
    /// See [`Envelope::id`].
    pub id: Uuid,
    /// See [`Envelope::timestamp`].
    pub timestamp: Timestamp,
    /// See [`Envelope::source`].
    pub source: &'a Name,
    /// See [`Envelope::version`].
    pub version: Version,
    /// See [`Envelope::payload`].
    pub payload: &'a E,
    /// See [`Envelope::attributes`].
    #[cfg(feature = "cloudevents")]
    pub attributes: &'a Attributes,
}

// Implemented by hand: a derive would require a `Copy` payload.
impl<E> Clone for EnvelopeRef<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for EnvelopeRef<'_, E> {}

impl<'a, E: Event> EnvelopeRef<'a, E> {
    /// Creates an envelope of `payload` with this id, timestamp and source.
    pub fn new(id: Uuid, timestamp: Timestamp, source: &'a Name, payload: &'a E) -> Self {
        Self {
            id,
            timestamp,
            source,
            version: E::VERSION,
            payload,
            #[cfg(feature = "cloudevents")]
            attributes: Attributes::NONE,
        }
    }
}

/// An event returned by a batch handler, with the id of the event of the batch that caused it.
///
/// Created by [`Envelope::causes`]. Its own id is derived from the cause's, so that a repeat is recognised
/// downstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caused<E> {
    pub(crate) cause: Uuid,
    pub(crate) event: E,
}

/// Several events of one type, for a handler that processes them together. Index `i` is the batch's record `i`.
///
/// ```
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Paid(u32);
/// # impl tidings_core::Event for Paid {
/// #     type Codec = tidings_core::codec::Json;
/// #     const TOPIC: &'static str = "payments"; const TYPE: &'static str = "paid";
/// #     fn key(&self) -> Option<std::borrow::Cow<'_, [u8]>> { None }
/// # }
/// let batch = tidings_core::Batch([7, 8].map(|cents| tidings_core::Envelope::new(Paid(cents))).into());
/// assert_eq!((batch.len(), batch.iter().map(|event| event.payload.0).sum::<u32>()), (2, 15));
/// ```
#[derive(Debug, Clone)]
pub struct Batch<E>(pub Vec<Envelope<E>>);

impl<E> Batch<E> {
    /// Iterates over the events in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Envelope<E>> {
        self.0.iter()
    }

    /// Returns the number of events.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether the batch is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<E> IntoIterator for Batch<E> {
    type Item = Envelope<E>;
    type IntoIter = std::vec::IntoIter<Envelope<E>>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, E> IntoIterator for &'a Batch<E> {
    type Item = &'a Envelope<E>;
    type IntoIter = std::slice::Iter<'a, Envelope<E>>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
