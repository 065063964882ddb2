//! The routing table: which route a record takes.
//!
//! Workers look up each record, so a lookup allocates nothing: topics and types are sorted, and names are borrowed from
//! the record's headers. The table is built once from the entries of a router and shared by all workers; only the
//! routes, which are stateful services, are cloned per worker.
//!
//! A record's route follows from its topic, then from whether it has a value, then from its type and major version. A
//! raw handler gets what no event handler of its topic takes; the fallback gets the rest.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use tidings_core::codec::{self, Routing};
use tidings_core::{Causes, Error, ErrorKind, Name, Result, StoredRecord, headers};

use crate::handler_description::{HandlerDescription, HandlerKind, PayloadJson};
use crate::options::{BatchOptions, HandlerOptions};
use crate::requirement::{Need, Requirement};
use crate::route::Route;
use crate::target::Target;

/// A handler as added to a router.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) target: Target,
    /// The path of the handler's function.
    pub(crate) function: &'static str,
    pub(crate) options: HandlerOptions,
    pub(crate) takes_batches: bool,
    /// Shows the payload of one of its records; `None` for a handler of raw records.
    pub(crate) payload_json: Option<PayloadJson>,
    /// The requirements of its extractors.
    pub(crate) requirements: Vec<Requirement>,
    /// The way in which its returned events name their causes; those of a batch handler must.
    pub(crate) causes: Causes,
}

impl Entry {
    /// Returns the handler's own name, otherwise the default.
    pub(crate) fn name(&self) -> Name {
        self.options.name.clone().unwrap_or_else(|| self.target.default_name())
    }

    /// Describes the handler, with `topic_prefix` before its topic.
    pub(crate) fn describe(&self, topic_prefix: &str) -> HandlerDescription {
        let (kind, event_type, majors) = match &self.target {
            Target::Event { event_type, majors, .. } => (HandlerKind::Event, Some(event_type.clone()), majors.clone()),
            Target::Topic(_) => (HandlerKind::Topic, None, Vec::new()),
            Target::Tombstone(_) => (HandlerKind::Tombstone, None, Vec::new()),
            Target::Fallback => (HandlerKind::Fallback, None, Vec::new()),
        };
        HandlerDescription {
            name: self.name(),
            kind,
            topic: self.target.topic().map(|topic| prefixed(topic_prefix, topic)),
            event_type,
            majors,
            batches: self.takes_batches,
            function: self.function,
            payload_json: self.payload_json,
        }
    }
}

/// The properties of a route that the engine needs.
#[derive(Debug, Clone)]
pub(crate) struct RouteInfo {
    /// The handler's stable name.
    pub(crate) name: Name,
    /// The event's type; `None` for a handler of raw records.
    pub(crate) event_type: Option<Name>,
    /// The options of a batch handler; `None` for a handler of single records.
    pub(crate) batch: Option<BatchOptions>,
}

/// The destination of a record.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// The route of this number.
    Handler(usize),
    /// An event of a type without a handler.
    UnknownType,
    /// A tombstone without a handler.
    Tombstone,
    /// The type is unreadable, or no handler of the type takes the major version.
    Undecodable(Error),
}

/// The routes of one worker, with the shared routing table.
#[derive(Debug, Clone)]
pub(crate) struct Routes {
    table: Arc<RouteTable>,
    routes: Vec<Route>,
    /// The requirements of each route that its layers do not meet.
    unmet: Arc<[Vec<Requirement>]>,
}

impl Routes {
    /// Creates the routes, by their numbers in `table`, each with the requirements that its layers do not meet.
    pub(crate) fn new(table: RouteTable, routes: Vec<Route>, unmet: Vec<Vec<Requirement>>) -> Self {
        Self { table: Arc::new(table), routes, unmet: unmet.into() }
    }

    /// Checks the requirements of extractors and layers, in a service that has an idempotency store or not.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], naming every handler with a requirement that is not met.
    pub(crate) fn check(&self, has_store: bool) -> Result<()> {
        let is_unmet = |requirement: &&Requirement| requirement.need != Need::IdempotencyStore || !has_store;
        let of_handler = |(number, unmet): (usize, &Vec<Requirement>)| {
            let name = &self.table.info(number).name;
            let text = |requirement: &Requirement| format!("the handler {name:?}: {}", requirement.text);
            unmet.iter().filter(is_unmet).map(text).collect::<Vec<_>>()
        };
        let problems: Vec<_> = self.unmet.iter().enumerate().flat_map(of_handler).collect();
        if problems.is_empty() { Ok(()) } else { Err(Error::new(ErrorKind::Invalid, problems.join("; "))) }
    }

    /// Returns the table, for callers that look up but run nothing.
    pub(crate) fn table(&self) -> &Arc<RouteTable> {
        &self.table
    }

    /// Returns the route of this number.
    pub(crate) fn route(&mut self, number: usize) -> &mut Route {
        &mut self.routes[number]
    }

    /// Replaces the route of this number by a clone, which has no permit and no place in a queue.
    pub(crate) fn renew(&mut self, number: usize) {
        self.routes[number] = self.routes[number].clone();
    }
}

impl Deref for Routes {
    type Target = RouteTable;
    fn deref(&self) -> &RouteTable {
        &self.table
    }
}

/// Maps records to route numbers.
#[derive(Debug)]
pub(crate) struct RouteTable {
    infos: Vec<RouteInfo>,
    names: Vec<Name>,
    /// Parallel to `names`.
    topics: Vec<TopicRoutes>,
    any_tombstone: Option<usize>,
    fallback: Option<usize>,
    has_batches: bool,
}

/// The routes of a topic.
#[derive(Debug, Default)]
struct TopicRoutes {
    /// Sorted by type and major version.
    events: Vec<(Name, u32, usize)>,
    raw: Option<usize>,
    tombstone: Option<usize>,
}

impl TopicRoutes {
    /// Returns the routes of a type, one per major version.
    fn of_type(&self, event_type: &str) -> &[(Name, u32, usize)] {
        let from = self.events.partition_point(|(name, ..)| name.as_str() < event_type);
        let count = self.events[from..].iter().take_while(|(name, ..)| name == event_type).count();
        &self.events[from..from + count]
    }
}

impl RouteTable {
    /// Builds the table. Entry `i` becomes route `i`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], naming everything that is wrong with the entries.
    pub(crate) fn new(entries: Vec<Entry>, topic_prefix: &str) -> Result<Self> {
        check(&entries)?;
        let mut topics: BTreeMap<Name, TopicRoutes> = BTreeMap::new();
        let (mut any_tombstone, mut fallback) = (None, None);
        for (number, entry) in entries.iter().enumerate() {
            let routes = entry.target.topic().map(|topic| topics.entry(prefixed(topic_prefix, topic)).or_default());
            match (&entry.target, routes) {
                (Target::Event { event_type, majors, .. }, Some(routes)) => {
                    routes.events.extend(majors.iter().map(|major| (event_type.clone(), *major, number)));
                }
                (Target::Topic(_), Some(routes)) => routes.raw = Some(number),
                (Target::Tombstone(_), Some(routes)) => routes.tombstone = Some(number),
                (Target::Tombstone(_), None) => any_tombstone = Some(number),
                // Only the fallback is left without a topic.
                (_, None) | (Target::Fallback, _) => fallback = Some(number),
            }
        }
        topics.values_mut().for_each(|routes| routes.events.sort());
        let (names, topics) = topics.into_iter().unzip();
        let infos: Vec<_> = entries.into_iter().map(info).collect();
        let has_batches = infos.iter().any(|info| info.batch.is_some());
        Ok(Self { infos, names, topics, any_tombstone, fallback, has_batches })
    }

    /// Returns whether any route takes batches.
    pub(crate) fn has_batches(&self) -> bool {
        self.has_batches
    }

    /// Returns the topics of all handlers, with their prefix, sorted.
    pub(crate) fn topics(&self) -> &[Name] {
        &self.names
    }

    /// Returns the number of routes.
    pub(crate) fn len(&self) -> usize {
        self.infos.len()
    }

    /// Returns the properties of the route of this number.
    pub(crate) fn info(&self, number: usize) -> &RouteInfo {
        &self.infos[number]
    }

    /// Returns whether no other route takes records of `topic`.
    pub(crate) fn is_only(&self, topic: &Name, number: usize) -> bool {
        let Ok(place) = self.names.binary_search(topic) else { return false };
        let topic = &self.topics[place];
        let events = topic.events.iter().map(|(.., number)| Some(*number));
        let others = [topic.raw, topic.tombstone, self.any_tombstone, self.fallback];
        events.chain(others).flatten().all(|other| other == number)
    }

    /// Returns the route of `record`, a record of `topic`. Allocates nothing, unless the type must be read from the
    /// value.
    pub(crate) fn lookup(&self, topic: &Name, record: &StoredRecord) -> Lookup {
        let topic = self.names.binary_search(topic).ok().map(|place| &self.topics[place]);
        let raw = topic.and_then(|t| t.raw);
        if record.value.is_none() {
            let tombstone = topic.and_then(|t| t.tombstone).or(self.any_tombstone).or(raw);
            return tombstone.map_or(Lookup::Tombstone, Lookup::Handler);
        }
        if let Some(raw) = raw
            && topic.is_some_and(|t| t.events.is_empty())
        {
            return Lookup::Handler(raw);
        }
        match (codec::routing(record), raw) {
            (Ok(routing), _) => self.by_type(topic, routing),
            // No header marks the record as an event.
            (Err(_), Some(raw)) if record.headers.get(headers::EVENT_TYPE).is_none() => Lookup::Handler(raw),
            (Err(error), _) => Lookup::Undecodable(error),
        }
    }

    /// Looks up the type first: the version of an event without a handler is not read.
    fn by_type(&self, topic: Option<&TopicRoutes>, routing: Routing<'_>) -> Lookup {
        let handled = topic.map_or(&[][..], |topic| topic.of_type(routing.event_type()));
        if handled.is_empty() {
            let other = topic.and_then(|topic| topic.raw).or(self.fallback);
            return other.map_or(Lookup::UnknownType, Lookup::Handler);
        }
        let event_type = &handled[0].0;
        let version = match routing.version() {
            Ok(version) => version,
            Err(error) => return Lookup::Undecodable(error),
        };
        if let Some((.., number)) = handled.iter().find(|(_, major, _)| *major == version.major) {
            return Lookup::Handler(*number);
        }
        let handled: Vec<_> = handled.iter().map(|(_, major, _)| format!("{major}.x")).collect();
        Lookup::Undecodable(Error::new(
            ErrorKind::Undecodable,
            format!("route {event_type} in version {version}: handled here is {}", handled.join(", ")),
        ))
    }
}

/// Puts a service's prefix before a topic.
pub(crate) fn prefixed(prefix: &str, topic: &Name) -> Name {
    if prefix.is_empty() { topic.clone() } else { format!("{prefix}{topic}").into() }
}

/// Reduces an entry to the properties that the engine needs.
fn info(entry: Entry) -> RouteInfo {
    let name = entry.name();
    let event_type = match entry.target {
        Target::Event { event_type, .. } => Some(event_type),
        Target::Topic(_) | Target::Tombstone(_) | Target::Fallback => None,
    };
    RouteInfo { name, event_type, batch: entry.takes_batches.then(|| entry.options.batch.unwrap_or_default()) }
}

/// Reports all errors of the handlers in one error.
fn check(entries: &[Entry]) -> Result<()> {
    let mut problems = Vec::new();
    let (mut targets, mut names) = (BTreeMap::new(), BTreeMap::new());
    for entry in entries {
        let (name, what, function) = (entry.name(), entry.target.describe(), entry.function);
        let mut is_shared = false;
        for part in entry.target.parts() {
            let what = part.describe();
            if let Some(other) = targets.insert(part, function) {
                problems.push(format!("two handlers for {what}: {other} and {function}"));
                is_shared = true;
            }
        }
        if let Some(other) = names.insert(name.clone(), function).filter(|_| !is_shared) {
            problems.push(format!(
                "two handlers are called {name:?}, {other} and {function}: give one of them another name with `.named`"
            ));
        }
        if name.is_empty() {
            problems.push(format!("the handler of {what} has an empty name"));
        }
        if entry.target.topic().is_some_and(|topic| topic.is_empty()) {
            problems.push(format!("the handler {name:?} has an empty topic"));
        }
        if entry.options.concurrency == Some(0) {
            problems.push(format!("the handler {name:?} has a concurrency of 0"));
        }
        if entry.options.rate.is_some_and(|rate| rate.deliveries == 0 || rate.per.is_zero()) {
            problems.push(format!("the handler {name:?} has a rate of 0 deliveries, or in a period of 0"));
        }
        if entry.takes_batches && entry.causes == Causes::Delivery {
            problems.push(format!(
                "the batch handler {name:?} returns events that do not name their cause: return `envelope.causes(event)`"
            ));
        }
        if !entry.takes_batches && entry.options.batch.is_some() {
            problems.push(format!("the handler {name:?} has batch options, but takes no batch"));
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Invalid, format!("build the routes: {}", problems.join("; "))))
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};
    use tidings_core::{
        Batch, BoxError, Caused, Delivery, Envelope, EnvelopeRef, Event, Headers, RawBatch, Record, Timestamp,
    };
    use tidings_macros::Event;
    use uuid::Uuid;

    use super::*;
    use crate::{HandlerExt, Router};

    #[derive(Serialize, Deserialize, Event)]
    #[event(crate = "tidings_core", topic = "users", type = "registered")]
    struct Registered;

    #[derive(Serialize, Deserialize, Event)]
    #[event(crate = "tidings_core", topic = "users", type = "registered", version = 2)]
    struct RegisteredTwo;

    #[derive(Serialize, Deserialize, Event)]
    #[event(crate = "tidings_core", topic = "orders", type = "placed")]
    struct Placed;

    fn routes(router: Router) -> Routes {
        router.into_routes(&Name::from_static("test.")).unwrap()
    }

    fn record() -> StoredRecord {
        StoredRecord::new(0, Timestamp::default())
    }

    fn event<E: Event>(event: &E) -> StoredRecord {
        let source = Name::default();
        let envelope = EnvelopeRef::new(Uuid::from_u128(1), Timestamp::default(), &source, event);
        stored(codec::encode(envelope, "").unwrap())
    }

    fn stored(written: Record) -> StoredRecord {
        StoredRecord::from_record(written, 0, Timestamp::default())
    }

    /// Returns the name of the route's handler, or the other result of the lookup.
    fn found(routes: &Routes, topic: &'static str, record: &StoredRecord) -> String {
        match routes.lookup(&Name::from_static(topic), record) {
            Lookup::Handler(number) => routes.info(number).name.to_string(),
            other => format!("{other:?}"),
        }
    }

    async fn raw(_: Delivery) {}

    #[test]
    fn an_event_goes_to_the_handler_of_its_type_and_major_version() {
        let router =
            Router::new().on(async |_: Registered| {}).on(async |_: RegisteredTwo| {}).on(async |_: Placed| {});
        let routes = routes(router);
        assert_eq!(routes.topics(), ["test.orders", "test.users"]);
        assert_eq!(routes.len(), 3);
        assert_eq!(found(&routes, "test.users", &event(&Registered)), "registered");
        assert_eq!(found(&routes, "test.users", &event(&RegisteredTwo)), "registered:v2");
        assert_eq!(found(&routes, "test.orders", &event(&Placed)), "placed");
        assert_eq!(found(&routes, "test.orders", &event(&Registered)), "UnknownType");
    }

    #[test]
    fn without_headers_the_body_tells_the_type() {
        let routes = routes(Router::new().on(async |_: Registered| {}).on(async |_: Placed| {}));
        let bare = event(&Registered).with_headers(Headers::new());
        assert_eq!(found(&routes, "test.users", &bare), "registered");
    }

    #[test]
    fn a_minor_version_makes_no_difference_and_a_major_one_that_nobody_takes_is_undecodable() {
        let routes = routes(Router::new().on(async |_: Registered| {}));
        let with_version = |version: &'static str| {
            event(&Registered).with_headers(Headers::new().with("eventType", "registered").with("version", version))
        };
        assert_eq!(found(&routes, "test.users", &with_version("1.7")), "registered");
        let error = found(&routes, "test.users", &with_version("3.1"));
        assert!(error.contains("route registered in version 3.1: handled here is 1.x"), "{error}");
    }

    #[test]
    fn garbage_is_undecodable_unless_the_topic_has_a_raw_handler_and_the_headers_say_nothing() {
        let typed = routes(Router::new().on(async |_: Registered| {}));
        let both = routes(Router::new().on(async |_: Registered| {}).on_topic("users", raw));
        let garbage = record().with_value("{");
        assert!(found(&typed, "test.users", &garbage).starts_with("Undecodable"));
        assert_eq!(found(&both, "test.users", &garbage), "topic:users");
        let bad_header = garbage.with_headers(Headers::new().with("eventType", &b"\xff"[..]));
        assert!(found(&both, "test.users", &bad_header).starts_with("Undecodable"));
    }

    #[test]
    fn a_topic_with_nothing_but_a_raw_handler_is_not_looked_into() {
        let routes = routes(Router::new().on_topic("logs", raw));
        let bad_header = record().with_value("{").with_headers(Headers::new().with("eventType", &b"\xff"[..]));
        assert_eq!(found(&routes, "test.logs", &bad_header), "topic:logs");
        assert_eq!(found(&routes, "test.logs", &record()), "topic:logs");
    }

    #[test]
    fn a_type_that_nobody_takes_goes_to_the_topics_handler_else_to_the_fallback() {
        let router = Router::new().on(async |_: Registered| {}).on(async |_: Placed| {}).on_topic("orders", raw);
        let routes = routes(router.fallback(raw));
        let unknown = record().with_value("{}").with_headers(Headers::new().with("eventType", "unknown"));
        assert_eq!(found(&routes, "test.orders", &unknown), "topic:orders");
        assert_eq!(found(&routes, "test.users", &unknown), "fallback");
    }

    #[test]
    fn a_null_value_goes_to_its_topics_tombstone_handler_then_to_the_general_one() {
        let typed = Router::new().on(async |_: Registered| {}).on(async |_: Placed| {});
        assert_eq!(found(&routes(typed), "test.users", &record()), "Tombstone");
        let typed = Router::new().on(async |_: Registered| {}).on_topic("users", raw);
        assert_eq!(found(&routes(typed), "test.users", &record()), "topic:users");
        let typed = Router::new().on(async |_: Registered| {}).on(async |_: Placed| {}).on_topic("users", raw);
        let routes = routes(typed.on_tombstone("orders", raw).on_any_tombstone(raw));
        assert_eq!(found(&routes, "test.orders", &record()), "tombstone:orders");
        assert_eq!(found(&routes, "test.users", &record()), "tombstone");
    }

    #[test]
    fn all_that_is_wrong_is_told_in_one_error() {
        async fn bare(_: Batch<Placed>) -> Vec<Registered> {
            Vec::new()
        }
        let router: Router = Router::new()
            .on(async |_: Registered| {})
            .on((async |_: Registered| {}).named("again"))
            .on(bare)
            .on_topic("logs", raw.named("placed"))
            .on_topic("logs", raw.named("twice"))
            .on_topic("", raw.named(""))
            .fallback(raw.batch(BatchOptions::new(2)));
        let error = router.into_routes(&Name::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        for part in [
            "two handlers for registered 1.x of topic users",
            "batch handler \"placed\" returns events that do not name their cause",
            "two handlers are called \"placed\"",
            "two handlers for the records of topic logs: tidings_service::table::tests::raw and tidings_service::table::tests::raw",
            "has an empty name",
            "has an empty topic",
            "the handler \"fallback\" has batch options, but takes no batch",
        ] {
            assert!(error.to_string().contains(part), "{part:?} is missing in {error}");
        }
    }

    #[test]
    fn a_batch_handler_has_options_and_may_return_events_that_name_their_cause() {
        async fn caused(batch: Batch<Placed>) -> Result<Vec<Caused<Registered>>, BoxError> {
            Ok(batch.iter().map(|envelope: &Envelope<_>| envelope.causes(Registered)).collect())
        }
        let options = BatchOptions::new(7).with_wait(std::time::Duration::ZERO);
        let router = Router::new().on(caused.batch(options).named("caused")).on_topic("logs", async |_: RawBatch| {});
        let routes = routes(router.on_topic("single", raw));
        assert_eq!(routes.info(0).batch, Some(options));
        assert_eq!((&*routes.info(0).name, routes.info(0).event_type.as_deref()), ("caused", Some("placed")));
        assert_eq!(routes.info(1).batch, Some(BatchOptions::default()));
        assert_eq!(routes.info(2).batch, None);
    }
}
