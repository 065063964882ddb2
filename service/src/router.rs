//! The router: maps records to handlers.
//!
//! A `Router<S>` holds handlers that still need a state `S`; [`Router::with_state`] turns it into a `Router<S2>` for
//! any `S2`, and a service takes a `Router<()>`. Until a service starts, a handler is a closure from the state to its
//! [`Route`]. So layers can be added before the state is known, and no layer wraps anything for a router that turns out to
//! be invalid.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;

use tidings_core::directory::DirectoryHandler;
use tidings_core::{BoxError, Delivery, EventInput, Input, IntoOutcome, Name, Outcome, RawInput, Result, codec};
use tower_layer::Layer;
use tower_service::Service;

use crate::handler::{Arguments, Handler};
use crate::handler_description::{HandlerDescription, PayloadJson};
use crate::limit::Limits;
use crate::requirement;
use crate::route::Route;
use crate::table::{Entry, RouteTable, Routes, prefixed};
use crate::target::Target;

/// Creates the route of a handler once its state is known.
type Make<S> = Box<dyn FnOnce(S) -> Route + Send>;

/// Routes each event type to its handler.
///
/// A service's `start` reports all configuration errors at once: two handlers for one type and major version, two
/// handlers of one name, or a batch handler whose returned events do not name their causes.
///
/// ```
/// use tidings_core::{Delivery, ErrorKind, PublisherExt, Record, Transport};
/// use tidings_memory::MemoryTransport;
/// use tidings_service::{HandlerExt, Router, Service, State};
///
/// async fn audit(delivery: Delivery, State(log): State<&'static str>) {
///     println!("{log}: {} bytes", delivery.record().size());
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let router = || Router::new().on_topic("payments", audit.named("audit")).with_state("audit log");
/// let transport = MemoryTransport::new();
/// let service = Service::new("audit", router()).start(&transport).await?;
/// transport.publisher().await?.publish_one(Record::new("payments", "7 EUR")).await?;
/// service.caught_up().await?;
/// assert_eq!(service.status().await.totals.handled, 1);
///
/// let twice = Service::new("audit", router().merge(router())).start(&transport).await;
/// assert_eq!(twice.map(drop).map_err(|error| error.kind()), Err(ErrorKind::Invalid));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct Router<S = ()> {
    handlers: Vec<(Entry, Make<S>)>,
}

impl<S> fmt::Debug for Router<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.handlers.iter().map(|(entry, _)| entry)).finish()
    }
}

impl<S: Clone + Send + Sync + 'static> Default for Router<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Clone + Send + Sync + 'static> Router<S> {
    /// Creates a router without handlers.
    pub fn new() -> Self {
        Self { handlers: Vec::new() }
    }

    /// Adds the handler of an event type.
    ///
    /// It takes events of the type's major version, and of those that are [upcast](codec::Upcast) to it, from the event's
    /// topic. The default [name](crate::HandlerExt::named) is the event's type; if the oldest of these versions is 2 or
    /// more, `<type>:v<major>` of the oldest. See [`Service`](crate::Service) for an
    /// example.
    pub fn on<H, Args>(self, handler: H) -> Self
    where
        H: Handler<Args>,
        Args: Arguments<S, Input: EventInput> + Send + 'static,
        H::Future: Future<Output: IntoOutcome> + Send + 'static,
    {
        let target = Target::of_event::<<Args::Input as EventInput>::Event>();
        self.add(target, Some(codec::payload_json::<<Args::Input as EventInput>::Event>), handler)
    }

    /// Adds a handler of raw records of `topic` that no event handler takes.
    ///
    /// If the topic has no event handler, this one gets all records unparsed, including tombstones. The default name
    /// is `topic:<topic>`.
    ///
    /// ```
    /// use tidings_core::{Delivery, PublisherExt, Record, Transport};
    /// use tidings_memory::MemoryTransport;
    /// use tidings_service::{EventPublisher, Router, Service};
    /// # #[derive(serde::Serialize, serde::Deserialize, tidings_macros::Event)]
    /// # #[event(crate = "tidings_core", topic = "user-events", type = "user.registered", key = "user_id")]
    /// # struct UserRegistered { user_id: String }
    ///
    /// async fn raw(delivery: Delivery) {
    ///     assert_eq!(delivery.record().value.as_deref(), Some(&b"not an event"[..]));
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> tidings_core::Result<()> {
    /// let transport = MemoryTransport::new();
    /// let router = Router::new().on(async |_: UserRegistered| {}).on_topic("user-events", raw);
    /// let service = Service::new("user-service", router).start(&transport).await?;
    ///
    /// EventPublisher::new(&transport, "api").publish(&UserRegistered { user_id: "u1".into() }).await?;
    /// transport.publisher().await?.publish_one(Record::new("user-events", "not an event")).await?;
    /// service.caught_up().await?;
    /// assert_eq!(service.status().await.totals.handled, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_topic<H, Args>(self, topic: impl Into<Name>, handler: H) -> Self
    where
        H: Handler<Args>,
        Args: Arguments<S, Input: RawInput> + Send + 'static,
        H::Future: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.add(Target::Topic(topic.into()), None, handler)
    }

    /// Adds the handler of `topic`'s tombstones, the records without a value. The default name is `tombstone:<topic>`.
    ///
    /// ```
    /// use tidings_core::{Delivery, PublisherExt, Record, Transport};
    /// use tidings_memory::MemoryTransport;
    /// use tidings_service::{Router, Service};
    ///
    /// async fn forget(delivery: Delivery) {
    ///     assert_eq!(delivery.record().key.as_deref(), Some(&b"u1"[..]));
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> tidings_core::Result<()> {
    /// let transport = MemoryTransport::new();
    /// let service = Service::new("search", Router::new().on_tombstone("users", forget)).start(&transport).await?;
    ///
    /// let publisher = transport.publisher().await?;
    /// publisher.publish_one(Record::tombstone("users").with_key("u1")).await?;
    /// service.caught_up().await?;
    /// assert_eq!(service.status().await.totals.handled, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_tombstone<H, Args>(self, topic: impl Into<Name>, handler: H) -> Self
    where
        H: Handler<Args>,
        Args: Arguments<S, Input: RawInput> + Send + 'static,
        H::Future: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.add(Target::Tombstone(Some(topic.into())), None, handler)
    }

    /// Adds the handler of tombstones of the topics that have no [`on_tombstone`](Self::on_tombstone) handler.
    ///
    /// The default name is `tombstone`.
    pub fn on_any_tombstone<H, Args>(self, handler: H) -> Self
    where
        H: Handler<Args>,
        Args: Arguments<S, Input: RawInput> + Send + 'static,
        H::Future: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.add(Target::Tombstone(None), None, handler)
    }

    /// Adds the handler of events whose type no handler takes, for topics without an [`on_topic`](Self::on_topic)
    /// handler.
    ///
    /// The default name is `fallback`.
    ///
    /// ```
    /// use tidings_core::{Delivery, PublisherExt, Record, Transport};
    /// use tidings_memory::MemoryTransport;
    /// use tidings_service::{Router, Service};
    /// # #[derive(serde::Serialize, serde::Deserialize, tidings_macros::Event)]
    /// # #[event(crate = "tidings_core", topic = "user-events", type = "user.registered", key = "user_id")]
    /// # struct UserRegistered { user_id: String }
    ///
    /// async fn other(delivery: Delivery) {
    ///     assert_eq!(delivery.record().headers.get_str("eventType"), Some("user.deleted"));
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> tidings_core::Result<()> {
    /// let transport = MemoryTransport::new();
    /// let router = Router::new().on(async |_: UserRegistered| {}).fallback(other);
    /// let service = Service::new("user-service", router).start(&transport).await?;
    ///
    /// let deleted = Record::new("user-events", "{}").with_header("eventType", "user.deleted");
    /// transport.publisher().await?.publish_one(deleted).await?;
    /// service.caught_up().await?;
    /// let totals = service.status().await.totals;
    /// assert_eq!((totals.handled, totals.skipped), (1, 0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn fallback<H, Args>(self, handler: H) -> Self
    where
        H: Handler<Args>,
        Args: Arguments<S, Input: RawInput> + Send + 'static,
        H::Future: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.add(Target::Fallback, None, handler)
    }

    /// Adds a handler with the properties that are known from its type alone, for the checks of `start`.
    fn add<H, Args>(mut self, target: Target, payload_json: Option<PayloadJson>, handler: H) -> Self
    where
        H: Handler<Args>,
        Args: Arguments<S> + Send + 'static,
        H::Future: Future<Output: IntoOutcome> + Send + 'static,
    {
        let entry = Entry {
            target,
            function: function::<H>(),
            options: handler.options(),
            takes_batches: Args::Input::BATCH,
            payload_json,
            requirements: Args::requirements(),
            causes: <<H::Future as Future>::Output as IntoOutcome>::CAUSES,
        };
        let make = move |state| {
            let limits = Limits::of(&handler.options());
            let route = Route::handler::<H, Args, S>(handler, state);
            match limits {
                Some(limits) => Route::service(limits.limit(route)),
                None => route,
            }
        };
        self.handlers.push((entry, Box::new(make)));
        self
    }

    /// Adds all handlers of `other`, with their layers.
    ///
    /// Modules of an application may each return a router, with layers and a state of their own.
    ///
    /// ```
    /// use tidings_core::Delivery;
    /// use tidings_service::{Router, Service, State};
    ///
    /// fn orders() -> Router {
    ///     Router::new().on_topic("orders", async |_: Delivery, _: State<u32>| {}).with_state(7)
    /// }
    ///
    /// fn clicks() -> Router {
    ///     Router::new().on_topic("clicks", async |_: Delivery, _: State<&str>| {}).with_state("eu")
    /// }
    ///
    /// let service = Service::new("shop", orders().merge(clicks()));
    /// assert_eq!(service.topics(), ["clicks", "orders"]);
    /// ```
    pub fn merge(mut self, other: Self) -> Self {
        self.handlers.extend(other.handlers);
        self
    }

    /// Wraps the handlers added before this call, and no later ones.
    ///
    /// The layer that is added last is the outermost: it sees a delivery first and its outcome last.
    ///
    /// ```
    /// use tidings_core::{BoxError, Delivery, Outcome, PublisherExt, Record, Transport, reject};
    /// use tidings_memory::MemoryTransport;
    /// use tidings_service::{Next, Router, Service, from_fn};
    ///
    /// async fn closed(_: Delivery, _: Next) -> Result<Outcome, BoxError> {
    ///     Err(reject("closed on Sundays").into())
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> tidings_core::Result<()> {
    /// let transport = MemoryTransport::new();
    /// let router = Router::new()
    ///     .on_topic("orders", async |_: Delivery| {})
    ///     .layer(from_fn(closed)) // wraps orders, not clicks
    ///     .on_topic("clicks", async |_: Delivery| {});
    /// let service = Service::new("shop", router).start(&transport).await?;
    ///
    /// let publisher = transport.publisher().await?;
    /// for topic in ["orders", "clicks"] {
    ///     publisher.publish_one(Record::new(topic, "7")).await?;
    /// }
    /// service.caught_up().await?;
    /// let totals = service.status().await.totals;
    /// assert_eq!((totals.handled, totals.dead_lettered), (1, 1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn layer<L>(self, layer: L) -> Self
    where
        L: Layer<Route> + Clone + Send + 'static,
        L::Service: Service<Delivery, Response = Outcome> + Clone + Send + 'static,
        <L::Service as Service<Delivery>>::Error: Into<BoxError> + 'static,
        <L::Service as Service<Delivery>>::Future: Send + 'static,
    {
        self.map(|make| {
            let layer = layer.clone();
            Box::new(move |state| Route::service(layer.layer(make(state))))
        })
    }

    /// Provides the state of the handlers added before; handlers added afterwards have another state.
    ///
    /// A part of the state is extracted by [`FromRef`](crate::FromRef). A router without its state is not accepted by a
    /// service. See [`State`](crate::State) for an example.
    pub fn with_state<S2>(self, state: S) -> Router<S2> {
        self.map(|make| {
            let state = state.clone();
            Box::new(move |_| make(state))
        })
    }

    /// Wraps the creation of each route, by a layer or with a state.
    fn map<S2>(self, mut wrap: impl FnMut(Make<S>) -> Make<S2>) -> Router<S2> {
        Router { handlers: self.handlers.into_iter().map(|(entry, make)| (entry, wrap(make))).collect() }
    }
}

impl<S> Router<S> {
    /// Describes the handlers, in the order in which they were added, with `topic_prefix` before each topic.
    pub(crate) fn describe(&self, topic_prefix: &str) -> Vec<HandlerDescription> {
        self.handlers.iter().map(|(entry, _)| entry.describe(topic_prefix)).collect()
    }
}

/// A router that has its state: a `Router<()>`. Accepted by [`Service::new`](crate::Service::new).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `Router<()>`: call `.with_state(..)` to give the handlers their state",
    label = "call `.with_state(..)` on this router"
)]
pub trait IntoRouter: sealed::Sealed {
    /// Returns the router.
    fn into_router(self) -> Router;
}

impl IntoRouter for Router {
    fn into_router(self) -> Router {
        self
    }
}

mod sealed {
    pub trait Sealed {}

    impl<S> Sealed for super::Router<S> {}
}

/// Returns the path of a handler's function, for messages.
fn function<H>() -> &'static str {
    let path = std::any::type_name::<H>();
    let configured = std::any::type_name::<crate::Configured<()>>().trim_end_matches("()>");
    path.strip_prefix(configured).map_or(path, |inner| inner.trim_end_matches('>'))
}

impl Router<()> {
    /// Returns the topics of all handlers, prefixed with `topic_prefix` and sorted.
    pub(crate) fn topics(&self, topic_prefix: &str) -> Vec<Name> {
        let topics: BTreeSet<_> = self.handlers.iter().filter_map(|(entry, _)| entry.target.topic()).collect();
        let mut topics: Vec<_> = topics.into_iter().map(|topic| prefixed(topic_prefix, topic)).collect();
        topics.sort();
        topics
    }

    /// Returns the handlers for a directory, with `topic_prefix` before each topic.
    pub(crate) fn directory_handlers(&self, topic_prefix: &str) -> Vec<DirectoryHandler> {
        let handler = |entry: &Entry| {
            let topic = entry.target.topic().map(|topic| prefixed(topic_prefix, topic)).unwrap_or_default();
            DirectoryHandler::new(topic, entry.name())
        };
        self.handlers.iter().map(|(entry, _)| handler(entry)).collect()
    }

    /// Returns the routes, with `topic_prefix` before each topic.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](tidings_core::ErrorKind::Invalid), naming everything that is wrong with the handlers.
    pub(crate) fn into_routes(self, topic_prefix: &Name) -> Result<Routes> {
        let (entries, makes): (Vec<_>, Vec<_>) = self.handlers.into_iter().unzip();
        // Only valid routes are created: a layer may start something.
        let requirements: Vec<_> = entries.iter().map(|entry| entry.requirements.clone()).collect();
        let table = RouteTable::new(entries, topic_prefix)?;
        let (routes, declared): (Vec<_>, Vec<_>) =
            makes.into_iter().map(|make| requirement::declared_by(|| make(()))).unzip();
        let unmet = declared.iter().zip(&requirements).map(|(declared, more)| declared.unmet(more)).collect();
        Ok(Routes::new(table, routes, unmet))
    }
}
