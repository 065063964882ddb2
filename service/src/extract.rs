//! Extractors: the arguments of a handler after the first.

use std::future::Future;

use tidings_core::{BoxError, Delivery};

use crate::requirement::Requirement;

/// A handler argument after the first, extracted from the delivery or from the router's state.
///
/// ```
/// use tidings_core::{BoxError, Delivery};
/// use tidings_service::FromDelivery;
///
/// struct Attempt(u32);
///
/// impl<S: Sync> FromDelivery<S> for Attempt {
///     async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, BoxError> {
///         Ok(Self(delivery.attempt()))
///     }
/// }
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
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not part of the router's state `{T}`",
    label = "`with_state` was given `{T}`, or nothing",
    note = "give it to `Router::with_state`, or implement `FromRef<{T}>` for `{Self}`"
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
