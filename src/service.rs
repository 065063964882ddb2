//! Policies of a service, its status, and observers of its records.
//!
//! ```
//! use std::sync::{Arc, Mutex};
//!
//! use tidings::publisher::PublisherExt;
//! use tidings::service::{Observer, RecordEvent, RecordOutcome};
//! use tidings::{Delivery, Record, Router, Service, reject};
//!
//! /// Keeps the outcome of each record.
//! #[derive(Debug, Default)]
//! struct Ledger(Mutex<Vec<RecordOutcome>>);
//!
//! impl Observer for Ledger {
//!     fn observe(&self, event: &RecordEvent<'_>) {
//!         self.0.lock().unwrap().push(event.outcome);
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> tidings::Result<()> {
//! let (transport, ledger) = (tidings::connect("memory://").await?, Arc::new(Ledger::default()));
//! let router = Router::new().on_topic("clicks", async |_: Delivery| Err::<(), _>(reject("no such page")));
//! let service = Service::new("meter", router).with_observer(Arc::clone(&ledger)).start(&transport).await?;
//! transport.publisher().await?.publish_one(Record::new("clicks", "nowhere")).await?;
//! service.caught_up().await?;
//! assert_eq!(*ledger.0.lock().unwrap(), [RecordOutcome::DeadLettered]);
//! # Ok(())
//! # }
//! ```

pub use tidings_service::{
    Breaker, DeliveryOrder, HandlerDescription, HandlerKind, HandlerTotals, Hold, Observer, PartitionStatus,
    PauseReason, RecordEvent, RecordOutcome, ReturnedPartition, ServiceControl, ServiceDescription, ServiceState,
    ShutdownReport, Skipped, Sought, Status, Totals, UnknownTypes,
};
