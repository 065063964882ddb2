//! Handlers: plain `async fn`s of an event and extractors.

use std::future::Future;
use std::sync::LazyLock;

use tidings_core::{
    BoxError, Delivery, DeliveryContext, Input, IntoOutcome, Name, Outcome, RecordBatch, TopicPartition,
};

use crate::undecodable::Undecodable;
use crate::{BatchOptions, FromDelivery, HandlerOptions};

/// The arguments of a handler, as a tuple: an [`Input`], then up to eight extractors.
///
/// The bounds on arguments live here and at [`Router::on`](crate::Router::on), not on the impl of [`Handler`], so that
/// the compiler names the argument that is wrong.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a handler's arguments",
    note = "the first is an event, `Envelope<_>`, `Batch<_>` or `Delivery`; up to eight extractors follow"
)]
pub trait Arguments<S>: Sized {
    /// The first one.
    type Input: Input;

    /// Takes all of them from `delivery` and the router's `state`. The delivery is given back, unless it is itself an
    /// argument and nobody wants to `keep` it: then the handler has the only one.
    ///
    /// # Errors
    /// Of the first that can't be taken.
    fn extract(
        delivery: Delivery,
        state: &S,
        keep: bool,
    ) -> impl Future<Output = Result<(Self, Option<Delivery>), BoxError>> + Send;
}

/// An `async fn` of an event and up to eight extractors. Implemented for functions and closures; never by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "not a handler",
    note = "a handler is an `async fn` of an event and up to eight extractors"
)]
pub trait Handler<Args>: Clone + Send + Sync + 'static {
    /// What it returns when called; [`Router::on`](crate::Router::on) asks that it is a future.
    type Future;

    /// Calls it.
    fn call(&self, args: Args) -> Self::Future;

    /// Its settings.
    fn options(&self) -> HandlerOptions {
        HandlerOptions::default()
    }
}

macro_rules! handlers { ($(($($t:ident $v:ident),*))*) => { $(
    impl<I: Input, S: Sync, $($t: FromDelivery<S> + Send,)*> Arguments<S> for (I, $($t,)*) {
        type Input = I;
        async fn extract(delivery: Delivery, state: &S, keep: bool) -> Result<(Self, Option<Delivery>), BoxError> {
            // Where there is no extractor, nobody else looks at it.
            let _ = state;
            let taken = I::RAW && !keep;
            // What can't be read fails before any extractor does.
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

/// Settings of one handler: `router.on(welcome.named("welcome"))`.
pub trait HandlerExt<Args>: Handler<Args> {
    /// With this name in place of the event's type. It must stay the same over releases: dead letters, metrics and the
    /// ids of the events that the handler returns bear it.
    fn named(self, name: impl Into<Name>) -> Configured<Self> {
        Configured { options: HandlerOptions { name: Some(name.into()), ..self.options() }, inner: self }
    }

    /// With batches like this; for handlers of a `Batch` or `RawBatch` only, else it is an error of `start`.
    fn batch(self, batch: BatchOptions) -> Configured<Self> {
        Configured { options: HandlerOptions { batch: Some(batch), ..self.options() }, inner: self }
    }
}

impl<H: Handler<Args>, Args> HandlerExt<Args> for H {}

/// A handler with settings, made by [`HandlerExt`].
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

/// One delivery through `handler`.
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

/// In place of the delivery where the handler has it, and nobody looks at it any more.
static NOBODYS: LazyLock<Delivery> = LazyLock::new(|| {
    let records = RecordBatch::new(TopicPartition::new(Name::default(), 0), Vec::new());
    Delivery::new(records, DeliveryContext::new(Name::default(), Name::default()))
});
