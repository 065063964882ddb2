//! Description of a service as declared by the code.

use tidings_core::{Name, Topic};

use crate::handler_description::HandlerDescription;
use crate::router::Router;
use crate::service::Service;
use crate::settings::TopicPolicy;
use crate::table::prefixed;

/// A service as declared by its code: group, topics, handlers and the types of their events. Calls no broker.
///
/// ```
/// use tidings_core::{Delivery, Topic};
/// use tidings_service::{Router, Service, ServiceDescription, TopicPolicy};
/// # #[derive(serde::Serialize, serde::Deserialize, tidings_macros::Event)]
/// # #[event(crate = "tidings_core", topic = "user-events", type = "user.registered", key = "user_id")]
/// # struct UserRegistered { user_id: String }
///
/// let router = Router::new().on(async |_: UserRegistered| {}).on_topic("clicks", async |_: Delivery| {});
/// let service = Service::new("meter", router).with_topics(TopicPolicy::Create(vec![Topic::new("clicks")]));
/// let described = service.describe();
/// assert_eq!((described.group.as_str(), described.topics()), ("meter-group", service.topics()));
/// assert_eq!(described.handlers[0].event_type.as_deref(), Some("user.registered"));
/// assert_eq!(described.creates[0].name, "clicks");
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServiceDescription {
    /// The service's name.
    pub name: Name,
    /// The consumer group.
    pub group: Name,
    /// The topics that the service creates when it starts, with its prefix.
    pub creates: Vec<Topic>,
    /// The handlers, in the order in which they were added.
    pub handlers: Vec<HandlerDescription>,
}

impl ServiceDescription {
    /// Describes the service `name` of a router that may lack its state, for programs whose state needs a connection.
    ///
    /// The group is `<name>-group`.
    pub fn of_router<S>(name: impl Into<Name>, router: &Router<S>) -> Self {
        let name = name.into();
        Self { group: format!("{name}-group").into(), name, creates: Vec::new(), handlers: router.describe("") }
    }

    /// Returns the topics that the handlers take, sorted.
    pub fn topics(&self) -> Vec<Name> {
        let mut topics: Vec<Name> = self.handlers.iter().filter_map(|handler| handler.topic.clone()).collect();
        topics.sort();
        topics.dedup();
        topics
    }
}

impl Service {
    /// Describes the service: its group, its topics and its handlers.
    pub fn describe(&self) -> ServiceDescription {
        let prefix = &self.options.topics.prefix;
        let mut creates = match &self.options.topics.policy {
            TopicPolicy::Create(topics) => topics.clone(),
            TopicPolicy::Expect => Vec::new(),
        };
        creates.iter_mut().for_each(|topic| topic.name = prefixed(prefix, &topic.name));
        ServiceDescription {
            name: self.name.clone(),
            group: self.group().clone(),
            creates,
            handlers: self.router.describe(prefix),
        }
    }
}

impl From<&Service> for ServiceDescription {
    fn from(service: &Service) -> Self {
        service.describe()
    }
}

impl From<Service> for ServiceDescription {
    fn from(service: Service) -> Self {
        service.describe()
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};
    use tidings_core::{Batch, Delivery, Envelope, ErrorKind, StoredRecord, Timestamp, codec};
    use tidings_macros::Event;

    use super::*;
    use crate::handler_description::HandlerKind;

    #[derive(Serialize, Deserialize, Event)]
    #[event(crate = "tidings_core", topic = "orders", type = "order.placed", version = 2)]
    struct Placed {
        cents: u32,
        #[serde(default)]
        currency: String,
    }

    #[test]
    fn handlers_are_described_as_they_were_added() {
        let router: Router<u8> = Router::new()
            .on(async |_: Batch<Placed>| {})
            .on_tombstone("orders", async |_: Delivery| {})
            .fallback(async |_: Delivery| {});
        let described = ServiceDescription::of_router("shop", &router);
        let kinds: Vec<_> = described.handlers.iter().map(|handler| handler.kind).collect();
        assert_eq!(kinds, [HandlerKind::Event, HandlerKind::Tombstone, HandlerKind::Fallback]);
        let placed = &described.handlers[0];
        assert_eq!((placed.name.as_str(), &*placed.majors, placed.batches), ("order.placed:v2", &[2][..], true));
        assert_eq!((described.topics(), described.handlers[2].topic.as_ref()), (vec!["orders".into()], None));
    }

    #[test]
    fn topics_have_the_prefix_of_the_service() {
        let service = Service::new("shop", Router::new().on(async |_: Placed| {})).with_topic_prefix("test.");
        let described = service.with_topics(TopicPolicy::Create(vec![Topic::new("orders")])).describe();
        assert_eq!(
            (described.topics(), described.creates[0].name.as_str()),
            (vec!["test.orders".into()], "test.orders")
        );
    }

    #[test]
    fn a_payload_is_shown_by_the_type_of_its_handler() {
        let described = Service::new("shop", Router::new().on(async |_: Placed| {})).describe();
        let written = codec::encode(Envelope::new(Placed { cents: 7, currency: "EUR".into() }).as_ref(), "").unwrap();
        let record = StoredRecord::from_record(written, 0, Timestamp::now());
        let shown = |record: &StoredRecord| described.handlers[0].payload_json(record).unwrap();
        assert_eq!(shown(&record).unwrap(), r#"{"cents":7,"currency":"EUR"}"#);
        let damaged = record.with_value("{}");
        assert_eq!(shown(&damaged).unwrap_err().kind(), ErrorKind::Undecodable);
    }
}
