//! The in-memory transport and its stores.
//!
//! ```
//! use tidings::ErrorKind;
//! use tidings::memory::{MemoryConfig, MemoryTransport};
//! use tidings::publisher::PublisherExt;
//! use tidings::{Record, Transport};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> tidings::Result<()> {
//! let transport = MemoryTransport::open(MemoryConfig::new().with_partitions(3))?;
//! let publisher = transport.publisher().await?;
//!
//! // The next record fails, and is not stored.
//! transport.faults().fail_publishes(1, ErrorKind::Unavailable);
//! let answer = publisher.publish_one(Record::new("clicks", "home")).await;
//! assert_eq!(answer.map_err(|error| error.kind()), Err(ErrorKind::Unavailable));
//! publisher.publish_one(Record::new("clicks", "home")).await?;
//! # Ok(())
//! # }
//! ```

pub use tidings_memory::{
    Faults, MemoryConfig, MemoryDeadLetters, MemoryStore, MemoryTransport, PublishFault, StoreFaults, TransactionFault,
};
