//! Extractors: the arguments of a handler after the first.
//!
//! An extractor reads the delivery or the router's state, as in axum. Extractors run after the event was decoded, in
//! the order of the arguments; the first that fails ends the attempt with its error, and the handler is not called.

use std::future::Future;

use tidings_core::{BoxError, Delivery};

use crate::requirement::Requirement;

/// A handler argument after the first, extracted from the delivery or from the router's state.
///
/// ```
/// use tidings_core::{BoxError, Delivery, PublisherExt, Record, Transport, reject};
/// use tidings_memory::MemoryTransport;
/// use tidings_service::{FromDelivery, Router, Service};
///
/// struct Tenant(String);
///
/// impl<S: Sync> FromDelivery<S> for Tenant {
///     async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, BoxError> {
///         let tenant = delivery.record().headers.get_str("tenant").ok_or_else(|| reject("no header tenant"))?;
///         Ok(Self(tenant.to_owned()))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let transport = MemoryTransport::new();
/// let router = Router::new().on_topic("clicks", async |_: Delivery, tenant: Tenant| assert_eq!(tenant.0, "acme"));
/// let service = Service::new("meter", router).start(&transport).await?;
///
/// let publisher = transport.publisher().await?;
/// publisher.publish_one(Record::new("clicks", "home").with_header("tenant", "acme")).await?;
/// publisher.publish_one(Record::new("clicks", "home")).await?;
/// service.caught_up().await?;
/// let totals = service.status().await.totals;
/// assert_eq!((totals.handled, totals.dead_lettered), (1, 1));
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an extractor",
    label = "not an extractor",
    note = "arguments after the event are extractors: `State<T>`, `Delivery`, a store's `Tx`, or your own `impl FromDelivery`; plain values go in `State`"
)]
pub trait FromDelivery<S>: Sized {
    /// Extracts the argument from `delivery` and the router's `state`. On an error the handler is not called, and the
    /// error counts as the handler's.
    ///
    /// # Errors
    /// Any reason why the argument cannot be extracted.
    fn from_delivery(delivery: &Delivery, state: &S) -> impl Future<Output = Result<Self, BoxError>> + Send;

    /// Returns what the extractor requires of the handler's layers or of the service; the service does not start
    /// without it. Defaults to nothing.
    fn requirement() -> Option<Requirement> {
        None
    }
}

/// A part of the router's state, for [`State`]. Every cloneable value is a part of itself.
///
/// ```
/// use tidings_service::FromRef;
///
/// #[derive(Clone)]
/// struct App {
///     limit: u32,
///     region: &'static str,
/// }
///
/// impl FromRef<App> for u32 {
///     fn from_ref(app: &App) -> Self {
///         app.limit
///     }
/// }
///
/// // A handler of a `Router<App>` may take `State<App>` or `State<u32>`.
/// let app = App { limit: 90, region: "eu" };
/// assert_eq!(u32::from_ref(&app), 90);
/// assert_eq!(App::from_ref(&app).region, "eu");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not part of the router's state `{T}`",
    label = "the router's state is `{T}`: that of `with_state`, or of its first handler with a `State`",
    note = "if handlers need several values, give `with_state` a struct of them, here `App`, and `#[derive(FromRef)]` on it"
)]
pub trait FromRef<T> {
    /// Returns this part of `state`.
    fn from_ref(state: &T) -> Self;
}

impl<T: Clone> FromRef<T> for T {
    fn from_ref(state: &T) -> T {
        state.clone()
    }
}

/// The router's state, given to [`Router::with_state`](crate::Router::with_state), or a part of it.
///
/// It is cloned for each delivery: keep it behind an `Arc` if cloning is expensive.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU32, Ordering};
///
/// use tidings_core::{Delivery, PublisherExt, Record, Transport};
/// use tidings_memory::MemoryTransport;
/// use tidings_service::{Router, Service, State};
///
/// async fn count(_: Delivery, State(clicks): State<Arc<AtomicU32>>) {
///     clicks.fetch_add(1, Ordering::Relaxed);
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let (transport, clicks) = (MemoryTransport::new(), Arc::new(AtomicU32::new(0)));
/// let router = Router::new().on_topic("clicks", count).with_state(Arc::clone(&clicks));
/// let service = Service::new("meter", router).start(&transport).await?;
///
/// transport.publisher().await?.publish_one(Record::new("clicks", "home")).await?;
/// service.caught_up().await?;
/// assert_eq!(clicks.load(Ordering::Relaxed), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct State<T>(pub T);

impl<S: Sync, T: FromRef<S>> FromDelivery<S> for State<T> {
    async fn from_delivery(_: &Delivery, state: &S) -> Result<Self, BoxError> {
        Ok(Self(T::from_ref(state)))
    }
}

/// Extracts the delivery itself: its record, topic, partition, offset and attempt, and a publisher.
impl<S: Sync> FromDelivery<S> for Delivery {
    async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, BoxError> {
        Ok(delivery.clone())
    }
}
