//! Requirements of extractors and layers, checked when a service starts.

use std::cell::RefCell;

/// A requirement of an extractor or a layer on its handler or service. A service that does not meet it does not start.
///
/// Without it, such a mistake shows at the first record, which then waits forever. An extractor states its requirement
/// in [`FromDelivery::requirement`](crate::FromDelivery::requirement); a layer calls [`declare`](Self::declare) and
/// [`provide`](Self::provide) where it wraps a handler, in `Layer::layer`.
///
/// ```
/// use tidings_core::{BoxError, Delivery, ErrorKind};
/// use tidings_memory::MemoryTransport;
/// use tidings_service::{FromDelivery, Requirement, Router, Service};
///
/// struct Tenant(String);
///
/// impl<S: Sync> FromDelivery<S> for Tenant {
///     async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, BoxError> {
///         Ok(delivery.extensions().get::<String>().cloned().map(Self).ok_or("the layer is missing")?)
///     }
///
///     fn requirement() -> Option<Requirement> {
///         Some(Requirement::layer("tenant", "`Tenant` needs the layer `tenants()`: add `.layer(tenants())`"))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let router = Router::new().on_topic("orders", async |_: Delivery, _: Tenant| {});
/// let error = Service::new("billing", router).start(&MemoryTransport::new()).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Invalid);
/// assert!(error.to_string().contains("add `.layer(tenants())`"));
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requirement {
    /// The kind, by which `start` decides whether it is met.
    pub(crate) need: Need,
    /// The sentence that `start` prints: what needs it, and how to provide it.
    pub(crate) text: &'static str,
}

/// The kind of a requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// An idempotency store of the service.
    IdempotencyStore,
    /// A layer that provides this.
    Layer(&'static str),
}

impl Requirement {
    /// Creates the requirement that the service has an [idempotency store](crate::Service::with_idempotency). `text`
    /// says what needs it, and how to provide it.
    pub const fn idempotency_store(text: &'static str) -> Self {
        Self { need: Need::IdempotencyStore, text }
    }

    /// Creates the requirement that a layer of the handler [provides](Self::provide) `name`. `text` says what needs
    /// it, and how to provide it.
    pub const fn layer(name: &'static str, text: &'static str) -> Self {
        Self { need: Need::Layer(name), text }
    }

    /// Declares the requirement of a layer on the handler that it is being wrapped around.
    ///
    /// Has no effect except in `Layer::layer` while a service starts.
    pub fn declare(self) {
        declare(|declared| declared.required.push(self));
    }

    /// Declares that a layer provides `name` to the handler that it is being wrapped around.
    ///
    /// Has no effect except in `Layer::layer` while a service starts.
    ///
    /// ```
    /// use tidings_core::{BoxError, Delivery};
    /// use tidings_memory::MemoryTransport;
    /// use tidings_service::{FromDelivery, Requirement, Route, Router, Service};
    /// use tower_layer::Layer;
    ///
    /// #[derive(Clone)]
    /// struct Tenants;
    ///
    /// impl Layer<Route> for Tenants {
    ///     type Service = Route; // a real one wraps the route and inserts the tenant into the delivery's extensions
    ///
    ///     fn layer(&self, route: Route) -> Route {
    ///         Requirement::provide("tenant");
    ///         route
    ///     }
    /// }
    /// # struct Tenant;
    /// # impl<S: Sync> FromDelivery<S> for Tenant {
    /// #     async fn from_delivery(_: &Delivery, _: &S) -> Result<Self, BoxError> { Ok(Self) }
    /// #     fn requirement() -> Option<Requirement> { Some(Requirement::layer("tenant", "add `.layer(Tenants)`")) }
    /// # }
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> tidings_core::Result<()> {
    /// let router = || Router::new().on_topic("orders", async |_: Delivery, _: Tenant| {});
    /// assert!(Service::new("billing", router()).start(&MemoryTransport::new()).await.is_err());
    /// assert!(Service::new("billing", router().layer(Tenants)).start(&MemoryTransport::new()).await.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub fn provide(name: &'static str) {
        declare(|declared| declared.provided.push(name));
    }
}

/// The declarations of one handler's layers.
#[derive(Debug, Default)]
pub(crate) struct Declared {
    /// Requirements of the layers.
    pub(crate) required: Vec<Requirement>,
    /// Names that the layers provide, to extractors and to each other.
    pub(crate) provided: Vec<&'static str>,
}

impl Declared {
    /// Returns those of its own requirements, and of `more`, that no layer meets. The service's store is not known
    /// here.
    pub(crate) fn unmet(&self, more: &[Requirement]) -> Vec<Requirement> {
        let is_met = |need: Need| matches!(need, Need::Layer(name) if self.provided.contains(&name));
        more.iter().chain(&self.required).copied().filter(|requirement| !is_met(requirement.need)).collect()
    }
}

thread_local! {
    /// The declarations of the handler whose route is being created on this thread. A layer has no other way to reach
    /// them: `Layer::layer` knows only the inner service, and layers are nested in stacks.
    static OPEN: RefCell<Option<Declared>> = const { RefCell::new(None) };
}

/// Adds to the declarations of the route that is being created; does nothing if there is none.
fn declare(add: impl FnOnce(&mut Declared)) {
    OPEN.with_borrow_mut(|open| open.as_mut().map(add));
}

/// Creates a route, and returns what its layers declared.
pub(crate) fn declared_by<R>(create: impl FnOnce() -> R) -> (R, Declared) {
    let before = OPEN.replace(Some(Declared::default()));
    let created = create();
    (created, OPEN.replace(before).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TX: Requirement = Requirement::layer("tx", "needs a layer");
    const STORE: Requirement = Requirement::idempotency_store("needs a store");

    #[test]
    fn a_requirement_is_met_by_a_layer_that_provides_it() {
        let ((), declared) = declared_by(|| {
            Requirement::provide("tx");
            STORE.declare();
        });
        assert_eq!(declared.unmet(&[TX]), [STORE]);
        assert_eq!(declared_by(|| ()).1.unmet(&[TX]), [TX]);
    }

    #[test]
    fn declarations_belong_to_the_innermost_route_being_created() {
        let ((_, inner), outer) = declared_by(|| {
            Requirement::provide("outer");
            declared_by(|| Requirement::provide("inner"))
        });
        assert_eq!((inner.provided, outer.provided), (vec!["inner"], vec!["outer"]));
        Requirement::provide("nothing is being created: no effect");
    }
}
