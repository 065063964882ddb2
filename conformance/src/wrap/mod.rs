//! Wrappers around any backend, for tests of its users: one records calls, one injects faults.
//!
//! Both wrap transports, idempotency stores and dead-letter stores, and pass every clause that the wrapped backend
//! passes.
//!
//! ```
//! use tidings_conformance::wrap::{Call, Faulty, Recording};
//! use tidings_core::{ErrorKind, PublisherExt, Record, Transport};
//! # use tidings_memory::MemoryTransport;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> tidings_core::Result<()> {
//! let transport = Recording::new(Faulty::new(MemoryTransport::new()));
//! transport.inner().faults().lose_answers(Call::Publish, 1);
//!
//! let publisher = transport.publisher().await?;
//! let lost = publisher.publish_one(Record::new("orders", "1")).await;
//! assert_eq!(lost.unwrap_err().kind(), ErrorKind::Indeterminate); // yet it is stored
//! assert!(transport.history().iter().any(|recorded| recorded.call == Call::Publish));
//! # Ok(())
//! # }
//! ```

mod capabilities;
mod consumer;
mod faulty;
mod operate;
mod publisher;
mod recording;
mod store;
mod tap;
mod transactor;
mod transport;

pub use self::faulty::{Faults, Faulty};
pub use self::recording::{HISTORY_LIMIT, Recorded, Recording};
pub use self::tap::Call;
