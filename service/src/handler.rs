//! Handlers: plain `async fn`s of an event and extractors.
//!
//! A handler's arguments are a tuple `Args`, for which two traits are implemented by a macro, up to nine arguments:
//! [`Handler<Args>`](Handler) calls the function, and [`Arguments`] extracts the tuple from a delivery. They are apart
//! so that the compiler can say which argument does not fit, instead of saying that the function is no handler.

use std::future::Future;
use std::sync::LazyLock;
use std::time::Duration;

use tidings_core::{
    BoxError, Delivery, DeliveryContext, Input, IntoOutcome, Name, Outcome, RecordBatch, TopicPartition,
};

use crate::extract::FromDelivery;
use crate::options::{BatchOptions, HandlerOptions, RateLimit};
use crate::requirement::Requirement;
use crate::undecodable::Undecodable;

/// The arguments of a handler, as a tuple: an [`Input`], then up to eight extractors.
///
/// The bounds on arguments live here and at [`Router::on`](crate::Router::on), not on the impl of [`Handler`], so that
/// the compiler names the argument that is wrong.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a handler's arguments",
    note = "the first is an event, `Envelope<_>`, `Batch<_>` or `Delivery`; up to eight extractors follow"
)]
pub trait Arguments<S>: Sized {
    /// The first argument.
    type Input: Input;

    /// Extracts all arguments from `delivery` and the router's `state`. Returns the delivery too, unless it is itself
    /// an argument and `keep` is false: then the handler owns the only one.
    ///
    /// # Errors
    /// The error of the first argument that cannot be extracted.
    fn extract(
        delivery: Delivery,
        state: &S,
        keep: bool,
    ) -> impl Future<Output = Result<(Self, Option<Delivery>), BoxError>> + Send;

    /// Returns what the extractors require.
    fn requirements() -> Vec<Requirement>;
}

/// An `async fn` of an event and up to eight extractors.
///
/// Implemented for functions and closures; do not implement it by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "not a handler",
    note = "a handler is an `async fn` of an event and up to eight extractors"
)]
pub trait Handler<Args>: Clone + Send + Sync + 'static {
    /// The return value of the call; [`Router::on`](crate::Router::on) requires it to be a future.
    type Future;

    /// Calls the handler.
    fn call(&self, args: Args) -> Self::Future;

    /// Returns the handler's settings.
    fn options(&self) -> HandlerOptions {
        HandlerOptions::default()
    }
}

macro_rules! handlers { ($(($($t:ident $v:ident),*))*) => { $(
    impl<I: Input, S: Sync, $($t: FromDelivery<S> + Send,)*> Arguments<S> for (I, $($t,)*) {
        type Input = I;

        fn requirements() -> Vec<Requirement> {
            let all: &[Option<Requirement>] = &[$($t::requirement(),)*];
            all.iter().copied().flatten().collect()
        }

        async fn extract(delivery: Delivery, state: &S, keep: bool) -> Result<(Self, Option<Delivery>), BoxError> {
            // Without extractors nothing else reads the delivery.
            let _ = state;
            let taken = I::RAW && !keep;
            // A record that cannot be read fails before any extractor runs.
            let input = if taken { None } else { Some(I::decode(&delivery).map_err(Undecodable::new)?) };
            $(let $v = $t::from_delivery(&delivery, state).await?;)*
            Ok(match input {
                Some(input) => ((input, $($v,)*), Some(delivery)),
                None => ((I::take(delivery).map_err(Undecodable::new)?, $($v,)*), None),
            })
        }
    }

    impl<Func, Fut, I, $($t,)*> Handler<(I, $($t,)*)> for Func
    where
        Func: Fn(I, $($t,)*) -> Fut + Clone + Send + Sync + 'static,
    {
        type Future = Fut;
        fn call(&self, (input, $($v,)*): (I, $($t,)*)) -> Fut {
            self(input, $($v,)*)
        }
    }
)* } }
handlers! {
    ()
    (A a)
    (A a, B b)
    (A a, B b, C c)
    (A a, B b, C c, D d)
    (A a, B b, C c, D d, E e)
    (A a, B b, C c, D d, E e, F f)
    (A a, B b, C c, D d, E e, F f, G g)
    (A a, B b, C c, D d, E e, F f, G g, H h)
}

/// Settings of one handler.
///
/// ```
/// use std::time::Duration;
///
/// use tidings_core::{Batch, BoxError, failed};
/// use tidings_memory::MemoryTransport;
/// use tidings_service::{BatchOptions, EventPublisher, HandlerExt, Retry, Router, Service};
/// # #[derive(serde::Serialize, serde::Deserialize, tidings_macros::Event)]
/// # #[event(crate = "tidings_core", topic = "user-events", type = "user.registered", key = "user_id")]
/// # struct UserRegistered { user_id: String }
///
/// /// Stores a batch in one call; an event without a user fails alone.
/// async fn store(batch: Batch<UserRegistered>) -> Result<(), BoxError> {
///     let bad = batch.iter().enumerate().filter(|(_, event)| event.payload.user_id.is_empty());
///     let bad: Vec<usize> = bad.map(|(index, _)| index).collect();
///     if bad.is_empty() { Ok(()) } else { Err(failed(bad, "no user").into()) }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let transport = MemoryTransport::new();
/// let store = store.named("store").batch(BatchOptions::new(500).with_wait(Duration::from_millis(50)));
/// let service = Service::new("user-service", Router::new().on(store)).with_retry(Retry::never());
/// let service = service.start(&transport).await?;
///
/// let events = ["u1", "", "u2"].map(|user_id| UserRegistered { user_id: user_id.into() });
/// let answers = EventPublisher::new(&transport, "api-gateway").publish_all(&events).await;
/// assert!(answers.iter().all(|answer| answer.is_ok()));
/// service.caught_up().await?;
/// let totals = service.status().await.totals;
/// assert_eq!((totals.handled, totals.dead_lettered), (2, 1));
/// # Ok(())
/// # }
/// ```
pub trait HandlerExt<Args>: Handler<Args> {
    /// Names the handler; the default is the event's type.
    ///
    /// The name must stay the same over releases: dead letters, metrics and the ids of returned events contain it.
    fn named(self, name: impl Into<Name>) -> Configured<Self> {
        Configured { options: HandlerOptions { name: Some(name.into()), ..self.options() }, inner: self }
    }

    /// Sets the batch options of a handler of a `Batch` or `RawBatch`.
    ///
    /// For any other handler `start` returns an error.
    fn batch(self, batch: BatchOptions) -> Configured<Self> {
        Configured { options: HandlerOptions { batch: Some(batch), ..self.options() }, inner: self }
    }

    /// Limits the deliveries of this handler that are in flight, over all workers of the service.
    ///
    /// Further records wait, each before the next one of its key; other handlers go on. Waiting does not count against
    /// the handler's timeout. By default only [`Service::with_concurrency`](crate::Service::with_concurrency) limits
    /// it. For zero `start` returns an error.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU32, Ordering};
    /// use std::time::Duration;
    ///
    /// use tidings_core::{Delivery, Publisher, Record, Transport};
    /// use tidings_memory::MemoryTransport;
    /// use tidings_service::{HandlerExt, Router, Service};
    ///
    /// static CALLS: AtomicU32 = AtomicU32::new(0);
    ///
    /// async fn call_partner(_: Delivery) {
    ///     assert!(CALLS.fetch_add(1, Ordering::Relaxed) < 4, "at most four at once");
    ///     tokio::time::sleep(Duration::from_secs(1)).await;
    ///     CALLS.fetch_sub(1, Ordering::Relaxed);
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> tidings_core::Result<()> {
    /// let transport = MemoryTransport::new();
    /// let router = Router::new().on_topic("orders", call_partner.with_concurrency(4));
    /// let service = Service::new("billing", router).start(&transport).await?;
    /// let orders = (0..10).map(|_| Record::new("orders", "7")).collect();
    /// transport.publisher().await?.publish(orders).await;
    /// service.caught_up().await?;
    /// assert_eq!(service.status().await.totals.handled, 10);
    /// # Ok(())
    /// # }
    /// ```
    fn with_concurrency(self, deliveries: usize) -> Configured<Self> {
        Configured { options: HandlerOptions { concurrency: Some(deliveries), ..self.options() }, inner: self }
    }

    /// Limits the rate of this handler: at most `deliveries` in any period of `per`, over all workers of the service.
    ///
    /// Each attempt counts, and a batch counts as one. Further records wait, as for
    /// [`with_concurrency`](Self::with_concurrency). The limit is of this process: with several instances of a service,
    /// each has its own. By default there is no limit. For zero `start` returns an error.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use tidings_core::{Delivery, Publisher, Record, Transport};
    /// use tidings_memory::MemoryTransport;
    /// use tidings_service::{HandlerExt, Router, Service};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> tidings_core::Result<()> {
    /// let transport = MemoryTransport::new();
    /// let handler = (async |_: Delivery| {}).with_rate(4, Duration::from_secs(1));
    /// let service = Service::new("billing", Router::new().on_topic("orders", handler)).start(&transport).await?;
    ///
    /// let begun = tokio::time::Instant::now();
    /// let orders = (0..10).map(|_| Record::new("orders", "7")).collect();
    /// transport.publisher().await?.publish(orders).await;
    /// service.caught_up().await?;
    /// assert!(begun.elapsed() >= Duration::from_secs(2), "four in each second");
    /// # Ok(())
    /// # }
    /// ```
    fn with_rate(self, deliveries: usize, per: Duration) -> Configured<Self> {
        let rate = Some(RateLimit::new(deliveries, per));
        Configured { options: HandlerOptions { rate, ..self.options() }, inner: self }
    }
}

impl<H: Handler<Args>, Args> HandlerExt<Args> for H {}

/// A handler with settings, created by [`HandlerExt`].
#[derive(Debug, Clone)]
pub struct Configured<H> {
    inner: H,
    options: HandlerOptions,
}

#[diagnostic::do_not_recommend]
impl<H: Handler<Args>, Args> Handler<Args> for Configured<H> {
    type Future = H::Future;

    fn call(&self, args: Args) -> H::Future {
        self.inner.call(args)
    }

    fn options(&self) -> HandlerOptions {
        self.options.clone()
    }
}

/// Runs one delivery through `handler`: extracts its arguments, calls it, and converts its return value.
pub(crate) async fn run<H, Args, S>(handler: H, delivery: Delivery, state: S) -> Result<Outcome, BoxError>
where
    H: Handler<Args, Future: Future<Output: IntoOutcome>>,
    Args: Arguments<S>,
{
    let looks = <H::Future as Future>::Output::LOOKS;
    let (args, delivery) = Args::extract(delivery, &state, looks).await?;
    let output = handler.call(args).await;
    output.into_outcome(delivery.as_ref().unwrap_or_else(|| &NOBODYS))
}

/// Placeholder for a delivery that was moved into the handler and is not read again.
static NOBODYS: LazyLock<Delivery> = LazyLock::new(|| {
    let records = RecordBatch::new(TopicPartition::new(Name::default(), 0), Vec::new());
    Delivery::new(records, DeliveryContext::new(Name::default(), Name::default()))
});
