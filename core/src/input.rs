//! First arguments of handlers.
//!
//! A handler's first argument decides which records it gets. Types of events implement [`EventInput`], by which
//! `Router::on` finds the topic and the type; raw records implement [`RawInput`], and their topic is named where the
//! handler is added. Both are decoded before any extractor runs, so that a record that cannot be read costs nothing
//! else.

use crate::{Batch, Delivery, Envelope, Error, Event, Result, codec};

/// A handler's first argument: an event, its [`Envelope`], a [`Batch`] of events, or a raw [`Delivery`].
///
/// ```
/// use tidings_core::{Batch, Delivery, Envelope, Event, Input};
///
/// fn kinds<E: Event>() -> [bool; 4] {
///     [E::BATCH, Envelope::<E>::BATCH, Batch::<E>::BATCH, Delivery::BATCH]
/// }
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Paid(u32);
/// # impl Event for Paid {
/// #     type Codec = tidings_core::codec::Json;
/// #     const TOPIC: &'static str = "payments";
/// #     const TYPE: &'static str = "paid";
/// #     fn key(&self) -> Option<std::borrow::Cow<'_, [u8]>> { None }
/// # }
///
/// assert_eq!(kinds::<Paid>(), [false, false, true, false]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a handler's first argument",
    label = "must be an event, `Envelope<Event>`, `Batch<Event>` or `Delivery`",
    note = "an event has `#[derive(Serialize, Deserialize, Event)]` and is taken by value; extractors such as `State` come after it"
)]
pub trait Input: Sized + Send + 'static {
    /// Whether the argument takes several records at once.
    const BATCH: bool;

    /// Decodes the argument from a delivery.
    ///
    /// # Errors
    /// [`ErrorKind::Undecodable`](crate::ErrorKind::Undecodable); for a batch, a [`DecodeErrors`] with each bad
    /// record.
    fn decode(delivery: &Delivery) -> Result<Self, DecodeErrors>;

    /// Whether the argument is the delivery itself: it is then moved, after the extractors have run, and nothing is
    /// decoded.
    #[doc(hidden)]
    const RAW: bool = false;

    /// Decodes as [`decode`](Self::decode) does, from a delivery that is not needed afterwards.
    ///
    /// # Errors
    /// Those of `decode`.
    #[doc(hidden)]
    fn take(delivery: Delivery) -> Result<Self, DecodeErrors> {
        Self::decode(&delivery)
    }
}

/// A first argument that names an event, by which `Router::on` routes.
///
/// Implemented for every event `E`, for `Envelope<E>` and for `Batch<E>`; do not implement it by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the first argument of an event's handler",
    label = "must be an event, `Envelope<Event>` or `Batch<Event>`",
    note = "an event has `#[derive(Serialize, Deserialize, Event)] #[event(topic = \"...\", type = \"...\")]`",
    note = "raw deliveries are for `Router::on_topic`, `on_tombstone` and `fallback`"
)]
pub trait EventInput: Input {
    /// The event that is routed to the handler.
    type Event: Event;
}

/// The decoding errors of a delivery, by the index of the record in it.
///
/// The engine dead-letters exactly these records and delivers the others of the batch again.
///
/// ```
/// use tidings_core::{DecodeErrors, Error, ErrorKind};
///
/// let errors = DecodeErrors::from(Error::new(ErrorKind::Undecodable, "read order.placed from JSON"));
/// assert_eq!(errors.as_slice()[0].0, 0, "a single delivery has only the record 0");
/// assert_eq!(errors.into_inner().len(), 1);
/// ```
#[derive(Debug)]
pub struct DecodeErrors(Vec<(usize, Error)>);

impl DecodeErrors {
    /// Returns the errors, each with its record's index in the delivery, from 0.
    pub fn into_inner(self) -> Vec<(usize, Error)> {
        self.0
    }

    /// Returns the errors as [`into_inner`](Self::into_inner) does, borrowed, for errors wrapped in another error.
    pub fn as_slice(&self) -> &[(usize, Error)] {
        &self.0
    }
}

impl From<Error> for DecodeErrors {
    fn from(error: Error) -> Self {
        Self(vec![(0, error)])
    }
}

#[diagnostic::do_not_recommend]
impl<E: Event> Input for E {
    const BATCH: bool = false;
    fn decode(delivery: &Delivery) -> Result<Self, DecodeErrors> {
        Ok(codec::decode(delivery.record())?.payload)
    }
}

#[diagnostic::do_not_recommend]
impl<E: Event> EventInput for E {
    type Event = E;
}

impl<E: Event> Input for Envelope<E> {
    const BATCH: bool = false;
    fn decode(delivery: &Delivery) -> Result<Self, DecodeErrors> {
        Ok(codec::decode(delivery.record())?)
    }
}

impl<E: Event> EventInput for Envelope<E> {
    type Event = E;
}

impl<E: Event> Input for Batch<E> {
    const BATCH: bool = true;
    fn decode(delivery: &Delivery) -> Result<Self, DecodeErrors> {
        let mut events = Vec::with_capacity(delivery.len());
        let mut errors = Vec::new();
        for (place, record) in delivery.records().enumerate() {
            match codec::decode(record) {
                Ok(event) => events.push(event),
                Err(error) => errors.push((place, error)),
            }
        }
        if errors.is_empty() { Ok(Self(events)) } else { Err(DecodeErrors(errors)) }
    }
}

impl<E: Event> EventInput for Batch<E> {
    type Event = E;
}

impl Input for Delivery {
    const BATCH: bool = false;
    fn decode(delivery: &Delivery) -> Result<Self, DecodeErrors> {
        Ok(delivery.clone())
    }

    const RAW: bool = true;
    fn take(delivery: Delivery) -> Result<Self, DecodeErrors> {
        Ok(delivery)
    }
}

/// Several raw records at once, for `Router::on_topic`. `start` refuses batch options on a handler that takes a
/// [`Delivery`].
///
/// ```
/// use tidings_core::{Delivery, DeliveryContext, Input, RawBatch, RecordBatch};
/// use tidings_core::{StoredRecord, Timestamp, TopicPartition};
///
/// let records = (0..3).map(|offset| StoredRecord::new(offset, Timestamp::now())).collect();
/// let batch = RecordBatch::new(TopicPartition::new("clicks", 0), records);
/// let delivery = Delivery::new(batch, DeliveryContext::new("meter", "count"));
/// assert_eq!(RawBatch::decode(&delivery).unwrap().0.len(), 3);
/// ```
#[derive(Debug, Clone)]
pub struct RawBatch(pub Delivery);

impl Input for RawBatch {
    const BATCH: bool = true;
    fn decode(delivery: &Delivery) -> Result<Self, DecodeErrors> {
        Ok(Self(delivery.clone()))
    }

    const RAW: bool = true;
    fn take(delivery: Delivery) -> Result<Self, DecodeErrors> {
        Ok(Self(delivery))
    }
}

/// A first argument that takes raw records, for `Router::on_topic`, `on_tombstone` and `fallback`.
///
/// Implemented for [`Delivery`] and [`RawBatch`]; do not implement it by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a raw delivery",
    label = "must be `Delivery` or `RawBatch`",
    note = "handlers of typed events are added by `Router::on`"
)]
pub trait RawInput: Input {}

impl RawInput for Delivery {}
impl RawInput for RawBatch {}
