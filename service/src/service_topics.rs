//! The topics of a service, and the format of what it publishes to them.

use tidings_core::codec::EventFormat;
use tidings_core::{Event, Name};

use crate::engine::retry_topic_names;
use crate::service::Service;

impl Service {
    /// Returns the topic prefix.
    pub fn topic_prefix(&self) -> &Name {
        &self.options.topics.prefix
    }

    /// Returns the topics that the handlers take, with their prefix, sorted.
    pub fn topics(&self) -> Vec<Name> {
        self.router.topics(&self.options.topics.prefix)
    }

    /// Returns the [retry topics](crate::Retry::then_topics) of all topics, with their prefix, in the order of the delays,
    /// then those that are [only read](crate::Retry::with_former_topics); empty if the policy has none. `start` checks
    /// the names.
    pub fn retry_topics(&self) -> Vec<Name> {
        retry_topic_names(&self.name, &self.topics(), &self.options.failures.retry)
    }

    /// Puts `prefix` before all topics, so that one broker can serve several environments.
    ///
    /// These are the topics of all events, handled and published, and the topics that are created.
    ///
    /// ```
    /// # use tidings_core::Delivery;
    /// # use tidings_service::{Router, Service};
    /// let router = Router::new().on_topic("clicks", async |_: Delivery| {});
    /// assert_eq!(Service::new("meter", router).with_topic_prefix("staging.").topics(), ["staging.clicks"]);
    /// ```
    pub fn with_topic_prefix(mut self, prefix: impl Into<Name>) -> Self {
        self.options.topics.prefix = prefix.into();
        self
    }

    /// Sets the format in which events that handlers return or publish are written. Default: that of the codec of their
    /// type. Reading does not depend on it: a service reads records of every format.
    ///
    /// ```
    /// # use tidings_core::{Delivery, codec::EventFormat};
    /// # use tidings_service::{Router, Service};
    /// # let router = Router::new().on_topic("clicks", async |_: Delivery| {});
    /// // The feature `cloudevents` adds other formats.
    /// let service = Service::new("meter", router).with_event_format(EventFormat::OfEvent);
    /// ```
    pub fn with_event_format(mut self, format: EventFormat) -> Self {
        self.options.topics.event_format = format;
        self
    }

    /// Writes newer events of `Old`'s type, which handlers return or publish, as `Old`, while readers of that version
    /// still run.
    ///
    /// Can be repeated for other types. Default: each event in its own version.
    ///
    /// Newer versions need `downcast_to` in their `#[event(..)]`; an event that no chain of downcasts converts to `Old`
    /// is refused as [`Invalid`](tidings_core::ErrorKind::Invalid) when it is published. The ids of returned events do
    /// not depend on the version.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use tidings_core::{Delivery, Event as _};
    /// # use tidings_macros::Event;
    /// # use tidings_service::{Router, Service};
    /// #[derive(Serialize, Deserialize, Event)]
    /// # #[event(crate = "tidings_core")]
    /// #[event(topic = "payments", type = "paid")]
    /// struct PaidV1 { euros: u32 }
    ///
    /// #[derive(Serialize, Deserialize, Event)]
    /// # #[event(crate = "tidings_core")]
    /// #[event(topic = "payments", type = "paid", version = 2, downcast_to = PaidV1)]
    /// struct Paid { cents: u32 }
    ///
    /// impl From<&Paid> for PaidV1 {
    ///     fn from(new: &Paid) -> Self { Self { euros: new.cents / 100 } }
    /// }
    ///
    /// let router = Router::new().on_topic("orders", async |_: Delivery| Paid { cents: 700 });
    /// let service = Service::new("billing", router).with_event_version::<PaidV1>();
    /// ```
    pub fn with_event_version<Old: Event>(mut self) -> Self {
        self.options.topics.event_versions = self.options.topics.event_versions.with::<Old>();
        self
    }
}
