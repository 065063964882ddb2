//! A handler with its layers, as a worker drives it.
//!
//! Each handler and each stack of layers has a type of its own, so a worker sees them erased, behind [`Route`]. Erasure
//! costs one virtual call per delivery. The box of a delivery's future is kept and used again while futures are ready
//! at their first poll, so that a handler that waits for nothing allocates nothing.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tidings_core::{BoxError, Delivery, IntoOutcome, Outcome};
use tower_service::Service;

use crate::begun::Begun;
use crate::handler::{self, Arguments, Handler};

/// The future of one delivery.
///
/// Dropping it cancels the delivery at its current `await`.
pub type BoxFuture = Pin<Box<dyn Future<Output = Result<Outcome, BoxError>> + Send>>;

/// The result of a delivery's first poll.
pub(crate) enum Started {
    /// The delivery is complete; nothing was allocated for it.
    Done(Result<Outcome, BoxError>),
    /// The delivery is pending. Behind layers its handler may begin later, as it tells.
    Pending(BoxFuture, Option<Begun>),
    /// A layer is not ready, as it is with a limit reached. The instance that was polled keeps its place in a queue.
    NotReady,
}

/// A type-erased handler with its layers. Each worker owns a clone, so that no delivery needs one.
trait Erased: Send {
    /// Returns an instance for another worker: the same handler and layers, without a kept box and without readiness.
    fn clone_box(&self) -> Box<dyn Erased>;
    /// Asks the layers whether they accept a delivery. A handler alone always does.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>>;
    /// Returns the future of a delivery, for a layer that wraps this one.
    fn call(&mut self, delivery: Delivery) -> BoxFuture;
    /// Passes a delivery on and polls it once, for a worker.
    fn start(&mut self, delivery: Delivery, cx: &mut Context<'_>) -> Started;
}

/// A handler with the layers added before: the service that a `tower::Layer` given to
/// [`Router::layer`](crate::Router::layer) wraps.
///
/// Any layer of tower fits whose service takes a [`Delivery`] and returns an [`Outcome`]:
///
/// ```
/// use tidings_core::{Delivery, PublisherExt, Record, Transport};
/// use tidings_memory::MemoryTransport;
/// use tidings_service::{Router, Service};
/// use tower::limit::GlobalConcurrencyLimitLayer;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let transport = MemoryTransport::new();
/// let router = Router::new()
///     .on_topic("clicks", async |_: Delivery| {})
///     .on_topic("orders", async |_: Delivery| {})
///     .layer(GlobalConcurrencyLimitLayer::new(4)); // of both together
/// let service = Service::new("shop", router).start(&transport).await?;
///
/// for topic in ["clicks", "orders"] {
///     transport.publisher().await?.publish_one(Record::new(topic, "7")).await?;
/// }
/// service.caught_up().await?;
/// assert_eq!(service.status().await.totals.handled, 2);
/// # Ok(())
/// # }
/// ```
// Locked only to be cloned: the mutex makes the type `Sync`, which its parts need not be.
pub struct Route(Mutex<Box<dyn Erased>>);

impl Route {
    /// Creates the route of a handler.
    pub(crate) fn handler<H, Args, S>(handler: H, state: S) -> Self
    where
        H: Handler<Args, Future: Future<Output: IntoOutcome> + Send + 'static>,
        Args: Arguments<S> + Send + 'static,
        S: Clone + Send + Sync + 'static,
    {
        let make = move |delivery| handler::run::<H, Args, S>(handler.clone(), delivery, state.clone());
        Self::erase(MadeBy { make, kept: None })
    }

    /// Creates the route of a service, such as another route behind a layer.
    pub(crate) fn service<V>(service: V) -> Self
    where
        V: Service<Delivery, Response = Outcome> + Clone + Send + 'static,
        V::Error: Into<BoxError> + 'static,
        V::Future: Send + 'static,
    {
        Self::erase(Layered { service, kept: None })
    }

    fn erase(erased: impl Erased + 'static) -> Self {
        Self(Mutex::new(Box::new(erased)))
    }

    fn erased(&mut self) -> &mut dyn Erased {
        // Poisoned only if a service's `clone` panicked, which leaves the original unchanged.
        &mut **self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes `delivery` to the handler and polls once; a future that is ready at once costs no allocation.
    ///
    /// Never waits for readiness: see [`is_ready`](Self::is_ready). A panic of the handler propagates and leaves the route
    /// usable.
    pub(crate) fn start(&mut self, delivery: Delivery, cx: &mut Context<'_>) -> Started {
        self.erased().start(delivery, cx)
    }

    /// Returns whether the route accepts a delivery, be it only to fail it; otherwise it wakes the task when to ask again.
    ///
    /// A ready route may hold a permit, and one that is not ready a place in a queue, until it is called or dropped.
    pub(crate) fn is_ready(&mut self, cx: &mut Context<'_>) -> bool {
        self.erased().poll_ready(cx).is_ready()
    }
}

impl Clone for Route {
    fn clone(&self) -> Self {
        Self(Mutex::new(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone_box()))
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Route")
    }
}

impl Service<Delivery> for Route {
    type Response = Outcome;
    type Error = BoxError;
    type Future = BoxFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.erased().poll_ready(cx)
    }

    fn call(&mut self, delivery: Delivery) -> BoxFuture {
        self.erased().call(delivery)
    }
}

pin_project! {
    /// A reusable allocation for one future at a time.
    struct Slot<F> {
        #[pin]
        future: Option<F>,
    }
}

impl<F: Future<Output = Result<Outcome, E>>, E: Into<BoxError>> Future for Slot<F> {
    type Output = Result<Outcome, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.project().future.as_pin_mut();
        future.expect("a slot is polled only while it holds a future").poll(cx).map_err(Into::into)
    }
}

/// The box of the last future that was ready at its first poll, for the next delivery.
type Kept<F> = Option<Pin<Box<Slot<F>>>>;

/// Polls `future` once in the kept box, which is put back if the future was ready.
///
/// The box is out of `kept` during the poll: a panic drops it together with the future.
fn start<F, E>(kept: &mut Kept<F>, future: F, cx: &mut Context<'_>) -> Started
where
    F: Future<Output = Result<Outcome, E>> + Send + 'static,
    E: Into<BoxError> + 'static,
{
    let mut slot = match kept.take() {
        Some(mut slot) => {
            slot.as_mut().project().future.set(Some(future));
            slot
        }
        None => Box::pin(Slot { future: Some(future) }),
    };
    match slot.as_mut().poll(cx) {
        Poll::Ready(result) => {
            slot.as_mut().project().future.set(None);
            *kept = Some(slot);
            Started::Done(result)
        }
        Poll::Pending => Started::Pending(slot, None),
    }
}

/// A handler: a closure that creates its future, whose type has no name.
struct MadeBy<M, F> {
    make: M,
    kept: Kept<F>,
}

impl<M, F> Erased for MadeBy<M, F>
where
    M: FnMut(Delivery) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Outcome, BoxError>> + Send + 'static,
{
    fn clone_box(&self) -> Box<dyn Erased> {
        Box::new(Self { make: self.make.clone(), kept: None })
    }

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    /// A worker calls a handler itself only without layers; behind layers it is told here that the handler begins.
    fn call(&mut self, delivery: Delivery) -> BoxFuture {
        let begun = delivery.extensions().get::<Begun>().cloned();
        let handled = (self.make)(delivery);
        Box::pin(async move {
            if let Some(begun) = begun {
                begun.mark();
            }
            handled.await
        })
    }

    fn start(&mut self, delivery: Delivery, cx: &mut Context<'_>) -> Started {
        start(&mut self.kept, (self.make)(delivery), cx)
    }
}

/// A service, which must be ready before it is called.
struct Layered<V: Service<Delivery>> {
    service: V,
    kept: Kept<V::Future>,
}

impl<V> Erased for Layered<V>
where
    V: Service<Delivery, Response = Outcome> + Clone + Send + 'static,
    V::Error: Into<BoxError> + 'static,
    V::Future: Send + 'static,
{
    fn clone_box(&self) -> Box<dyn Erased> {
        Box::new(Self { service: self.service.clone(), kept: None })
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.service.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, delivery: Delivery) -> BoxFuture {
        Box::pin(Slot { future: Some(self.service.call(delivery)) })
    }

    fn start(&mut self, mut delivery: Delivery, cx: &mut Context<'_>) -> Started {
        match self.service.poll_ready(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Started::Done(Err(error.into())),
            Poll::Pending => return Started::NotReady,
        }
        let begun = Begun::default();
        delivery.extensions_mut().insert(begun.clone());
        match start(&mut self.kept, self.service.call(delivery), cx) {
            Started::Pending(future, _) => Started::Pending(future, Some(begun)),
            started => started,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::task::Waker;

    use tidings_core::{DeliveryContext, Name, RecordBatch, StoredRecord, Timestamp, TopicPartition};

    use super::*;
    use crate::Router;
    use crate::table::Routes;

    fn delivery(offset: u64) -> Delivery {
        let records = vec![StoredRecord::new(offset, Timestamp::default()).with_value("x")];
        Delivery::new(RecordBatch::new(TopicPartition::new("t", 0), records), DeliveryContext::new("s", "h"))
    }

    fn routes(router: Router) -> Routes {
        router.into_routes(&Name::default()).unwrap()
    }

    fn start(routes: &mut Routes, offset: u64) -> Started {
        routes.route(0).start(delivery(offset), &mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_ready_handler_is_done_at_its_first_poll() {
        let mut routes = routes(Router::new().on_topic("t", async |_: Delivery| {}));
        assert!(matches!(start(&mut routes, 0), Started::Done(Ok(_))));
        assert!(matches!(start(&mut routes, 1), Started::Done(Ok(_))));
    }

    #[test]
    fn an_outcome_of_ones_own_is_given_the_delivery_that_a_raw_handler_has() {
        struct Mine;
        impl IntoOutcome for Mine {
            const CAUSES: tidings_core::Causes = tidings_core::Causes::Nothing;
            fn into_outcome(self, delivery: &Delivery) -> Result<Outcome, BoxError> {
                Err(delivery.offset().to_string().into())
            }
        }
        let mut routes = routes(Router::new().on_topic("t", async |delivery: Delivery| {
            drop(delivery);
            Mine
        }));
        let Started::Done(Err(error)) = start(&mut routes, 7) else { panic!("an error was due") };
        assert_eq!(error.to_string(), "7");
    }

    #[test]
    fn a_panic_leaves_the_route_usable() {
        async fn odd(delivery: Delivery) {
            assert!(delivery.offset() != 1, "as the test wants it");
        }
        let mut routes = routes(Router::new().on_topic("t", odd));
        assert!(matches!(start(&mut routes, 0), Started::Done(Ok(_))));
        assert!(catch_unwind(AssertUnwindSafe(|| start(&mut routes, 1))).is_err());
        assert!(matches!(start(&mut routes, 2), Started::Done(Ok(_))));
    }

    #[test]
    fn a_handler_that_waits_goes_on_where_it_was() {
        async fn waits(_: Delivery) {
            let mut polls = 0;
            poll_fn(|_| {
                polls += 1;
                if polls == 1 { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
        }
        let mut routes = routes(Router::new().on_topic("t", waits));
        let Started::Pending(mut future, _) = start(&mut routes, 0) else { panic!("ready at its first poll") };
        assert!(matches!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(_))));
    }

    #[tokio::test]
    async fn a_reached_limit_is_waited_for_by_the_instance_that_was_asked() {
        let (go, gate) = tokio::sync::watch::channel(false);
        let slow = move |_: Delivery| {
            let mut gate = gate.clone();
            async move {
                let _ = gate.wait_for(|open| *open).await;
            }
        };
        let limit = tower::limit::GlobalConcurrencyLimitLayer::new(1);
        let mut routes = routes(Router::new().on_topic("t", slow).layer(limit));
        let Started::Pending(first, begun) = start(&mut routes, 0) else { panic!("the gate is shut") };
        assert!(begun.is_some_and(|begun| begun.at().is_some()), "its handler was polled");
        assert!(matches!(start(&mut routes, 1), Started::NotReady));
        let mut other = routes.clone();
        assert!(matches!(start(&mut other, 2), Started::NotReady));
        // An abandoned place in the queue would keep the permit.
        routes.renew(0);
        go.send_replace(true);
        first.await.unwrap();
        let ready = poll_fn(|cx| if other.route(0).is_ready(cx) { Poll::Ready(()) } else { Poll::Pending });
        tokio::time::timeout(std::time::Duration::from_secs(10), ready).await.unwrap();
        assert!(matches!(start(&mut other, 2), Started::Done(Ok(_))));
    }

    #[tokio::test]
    async fn unreadable_records_are_told_from_failures_even_behind_a_timeout() {
        async fn never(_: crate::undecodable::tests::Registered) {}
        let timeout = tower::timeout::TimeoutLayer::new(std::time::Duration::from_secs(3));
        let mut routes = routes(Router::new().on(never).layer(timeout));
        let Started::Done(Err(error)) = start(&mut routes, 0) else { panic!("an error was due") };
        let found = crate::undecodable::Undecodable::find(error.as_ref()).unwrap().as_slice();
        assert_eq!(
            found.iter().map(|(place, error)| (*place, error.kind())).collect::<Vec<_>>(),
            [(0, tidings_core::ErrorKind::Undecodable)]
        );
    }

    #[tokio::test]
    async fn layers_wrap_what_was_added_before_them() {
        async fn count(mut delivery: Delivery, next: crate::Next) -> Result<Outcome, BoxError> {
            let before = delivery.extensions().get::<u32>().copied().unwrap_or_default();
            delivery.extensions_mut().insert(before + 1);
            next.run(delivery).await
        }
        async fn seen(delivery: Delivery) -> Result<(), BoxError> {
            Err(delivery.extensions().get::<u32>().copied().unwrap_or_default().to_string().into())
        }
        let layer = || crate::from_fn(count);
        let router = Router::new().on_topic("t", seen).layer(layer()).layer(layer());
        let mut routes = routes(router.on_topic("u", seen));
        let mut answer = async |number: usize| {
            let route = routes.route(number);
            poll_fn(|cx| route.poll_ready(cx)).await.unwrap();
            route.call(delivery(0)).await.unwrap_err().to_string()
        };
        assert_eq!(answer(0).await, "2");
        assert_eq!(answer(1).await, "0");
    }
}
