//! The format in which a service or publisher writes events: that of their codecs, or CloudEvents.

/// The format in which a service, publisher or outbox writes events.
///
#[cfg_attr(feature = "cloudevents", doc = "```")]
#[cfg_attr(not(feature = "cloudevents"), doc = "```ignore (needs the feature cloudevents)")]
/// use tidings_core::codec::{self, EventFormat};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Paid { cents: u32 }
/// # impl tidings_core::Event for Paid {
/// #     type Codec = tidings_core::codec::Json;
/// #     const TOPIC: &'static str = "payments";
/// #     const TYPE: &'static str = "paid";
/// #     fn key(&self) -> Option<std::borrow::Cow<'_, [u8]>> { None }
/// # }
///
/// let event = tidings_core::Envelope::new(Paid { cents: 7 }).with_source("billing");
/// let record = codec::encode_as(EventFormat::CloudEvents, event.as_ref(), "")?;
/// assert_eq!(record.headers.get_str("ce_type"), Some("paid"));
/// # Ok::<(), tidings_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum EventFormat {
    /// The format of the codec of the event's type. The default.
    #[default]
    OfEvent,
    /// CloudEvents in binary mode. Requires the feature `cloudevents`.
    #[cfg(feature = "cloudevents")]
    CloudEvents,
    /// CloudEvents in structured mode. Requires the feature `cloudevents`.
    #[cfg(feature = "cloudevents")]
    StructuredCloudEvents,
}
