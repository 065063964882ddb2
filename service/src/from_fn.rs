//! Middleware as an `async fn(Delivery, Next)`, without implementing `Service`.

use std::fmt;
use std::future::{Future, poll_fn};
use std::task::{Context, Poll};

use tidings_core::{BoxError, Delivery, Outcome};
use tower_layer::Layer;
use tower_service::Service;

use crate::{BoxFuture, Route};

/// The rest of the stack: the handler with the layers that were added before.
#[derive(Debug)]
pub struct Next(Route);

impl Next {
    /// Calls the wrapped handler with `delivery` once the wrapped layers are ready.
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
/// ```
/// use tidings_core::{BoxError, Delivery, Outcome};
/// use tidings_service::{Next, Router, from_fn};
///
/// async fn log(delivery: Delivery, next: Next) -> Result<Outcome, BoxError> {
///     let offset = delivery.offset();
///     let outcome = next.run(delivery).await;
///     println!("{offset}: {outcome:?}");
///     outcome
/// }
///
/// let router: Router = Router::new().fallback(async |_: Delivery| {}).layer(from_fn(log));
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

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // `Next` awaits readiness of the wrapped route inside the delivery's own future.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> BoxFuture {
        Box::pin((self.f)(delivery, Next(self.route.clone())))
    }
}
