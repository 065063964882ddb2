//! Handlers, their options, extractors, middleware, and what handlers return.
//!
//! ```
//! use tidings::handler::{HandlerExt, Next, Outcome, from_fn};
//! use tidings::publisher::PublisherExt;
//! use tidings::{BoxError, Delivery, Record, Router, Service};
//!
//! /// Prints the attempt and the partition of each delivery.
//! async fn log(delivery: Delivery, next: Next) -> Result<Outcome, BoxError> {
//!     println!("attempt {} at {}", delivery.attempt(), delivery.origin());
//!     next.run(delivery).await
//! }
//!
//! async fn count(delivery: Delivery) {
//!     assert_eq!(delivery.context().handler, "count");
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> tidings::Result<()> {
//! let transport = tidings::connect("memory://").await?;
//! let router = Router::new().on_topic("clicks", count.named("count")).layer(from_fn(log));
//! let service = Service::new("meter", router).start(&transport).await?;
//! transport.publisher().await?.publish_one(Record::new("clicks", "home")).await?;
//! service.caught_up().await?;
//! assert_eq!(service.status().await.totals.handled, 1);
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "macros")]
pub use tidings_macros::FromRef;

pub use tidings_core::{
    Caused, Causes, DecodeErrors, DeliveryContext, DeliveryPublisher, EventInput, Extensions, Failure, HandlerError,
    Input, IntoEvents, IntoOutcome, Outcome, RawBatch, RawInput, event_id_of, failed, held, reject, rolled_back,
    stopped_at, unavailable,
};
pub use tidings_service::{
    Arguments, BatchOptions, BoxFuture, Configured, FromDelivery, FromFn, FromFnService, FromRef, Handler, HandlerExt,
    HandlerOptions, IntoRouter, Next, RateLimit, Requirement, Route, from_fn,
};
