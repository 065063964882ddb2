//! Middleware as an `async fn(Delivery, Next)`, without implementing `Service`.
//!
//! Such a layer is ready when the layers that it wraps are. It hands the instance that was polled to [`Next`], since
//! that one may hold a permit; the clone that replaces it asks anew. A layer with a limit of its own has to implement
//! tower's `Service`.

use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::task::{Context, Poll};

use tidings_core::{BoxError, Delivery, Outcome};
use tower_layer::Layer;
use tower_service::Service;

use crate::route::{BoxFuture, Route};

/// The rest of the stack: the handler with the layers that were added before.
#[derive(Debug)]
pub struct Next(Route);

impl Next {
    /// Calls the wrapped handler with `delivery`. The wrapped layers are ready.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the handler at its current `await`.
    ///
    /// # Errors
    /// Those of the handler and its layers.
    pub async fn run(mut self, delivery: Delivery) -> Result<Outcome, BoxError> {
        poll_fn(|cx| self.0.poll_ready(cx)).await?;
        self.0.call(delivery).await
    }
}

/// Creates a layer from an `async fn(Delivery, Next) -> Result<Outcome, BoxError>`.
///
/// The function may refuse a delivery, change it, or look at the [`Outcome`]; calling [`Next::run`] hands the delivery
/// on.
///
/// ```
/// use tidings_core::{BoxError, Delivery, Outcome, PublisherExt, Record, Transport, reject};
/// use tidings_memory::MemoryTransport;
/// use tidings_service::{Next, Router, Service, from_fn};
///
/// async fn only_acme(delivery: Delivery, next: Next) -> Result<Outcome, BoxError> {
///     match delivery.record().headers.get_str("tenant") {
///         Some("acme") => next.run(delivery).await,
///         _ => Err(reject("a foreign tenant").into()),
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let transport = MemoryTransport::new();
/// let router = Router::new().on_topic("clicks", async |_: Delivery| {}).layer(from_fn(only_acme));
/// let service = Service::new("meter", router).start(&transport).await?;
///
/// let publisher = transport.publisher().await?;
/// publisher.publish_one(Record::new("clicks", "home").with_header("tenant", "acme")).await?;
/// publisher.publish_one(Record::new("clicks", "home").with_header("tenant", "globex")).await?;
/// service.caught_up().await?;
/// let totals = service.status().await.totals;
/// assert_eq!((totals.handled, totals.dead_lettered), (1, 1));
/// # Ok(())
/// # }
/// ```
pub fn from_fn<F, Fut>(f: F) -> FromFn<F>
where
    F: Fn(Delivery, Next) -> Fut + Clone,
    Fut: Future<Output = Result<Outcome, BoxError>> + Send + 'static,
{
    FromFn(f)
}

/// Layer returned by [`from_fn`].
#[derive(Clone)]
pub struct FromFn<F>(F);

impl<F> fmt::Debug for FromFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FromFn")
    }
}

impl<F: Clone> Layer<Route> for FromFn<F> {
    type Service = FromFnService<F>;

    fn layer(&self, route: Route) -> FromFnService<F> {
        FromFnService { f: self.0.clone(), route }
    }
}

/// Route wrapped by a [`FromFn`].
#[derive(Clone)]
pub struct FromFnService<F> {
    f: F,
    route: Route,
}

impl<F> fmt::Debug for FromFnService<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFnService").field("route", &self.route).finish_non_exhaustive()
    }
}

impl<F, Fut> Service<Delivery> for FromFnService<F>
where
    F: Fn(Delivery, Next) -> Fut,
    Fut: Future<Output = Result<Outcome, BoxError>> + Send + 'static,
{
    type Response = Outcome;
    type Error = BoxError;
    type Future = BoxFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.route.poll_ready(cx)
    }

    fn call(&mut self, delivery: Delivery) -> BoxFuture {
        // The very instance that is ready is called: a clone has no permit.
        let next = self.route.clone();
        Box::pin((self.f)(delivery, Next(mem::replace(&mut self.route, next))))
    }
}
