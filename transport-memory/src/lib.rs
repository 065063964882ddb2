//! The reference transport of tidings, in the memory of one process.
//!
//! [`MemoryTransport`] is a broker for unit tests and for services that share a process, and a reference
//! implementation: it keeps every clause of core's traits except survival of a restart.
//!
//! ```
//! use tidings_core::{Commit, ConsumerOptions, PublisherExt, Record, Step, Transport};
//! use tidings_memory::MemoryTransport;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> tidings_core::Result<()> {
//! let transport = MemoryTransport::new();
//! let publisher = transport.publisher().await?;
//! publisher.publish_one(Record::new("orders", "one").with_key("k")).await?;
//!
//! let consumer = transport.consumer(ConsumerOptions::new("billing", ["orders"])).await?;
//! let Step::Assigned(_) = consumer.next().await? else { panic!("first comes the assignment") };
//! let Step::Records(fetched) = consumer.next().await? else { panic!("then the records") };
//! assert_eq!(fetched.batch.len(), 1);
//! let commit = Commit::new(fetched.batch.origin().as_ref().clone(), fetched.epoch, fetched.next_offset);
//! consumer.commit(vec![commit]).await.remove(0)?;
//! # Ok(())
//! # }
//! ```
//!
//! # Behaviour and limits
//!
//! - Topics are created by their first publish or subscription ([`MemoryConfig::auto_create`]).
//! - A partition keeps [`MemoryConfig::DEFAULT_RETENTION_RECORDS`] records or
//!   [`MemoryConfig::DEFAULT_RETENTION_BYTES`] bytes, whichever is reached first, and drops the oldest then, read or
//!   not. A group that had not read them learns it from [`Assignment::missing`](tidings_core::Assignment::missing)
//!   when it is assigned the partition; while it reads, it loses the partition and is assigned it again.
//! - Records are shared between all readers and never copied.
//! - Time is tokio's: with a paused clock and a single thread, a program is deterministic.
//! - [Delayed events](MemoryConfig::max_delayed_records) wait in memory: the end of the process loses them.
//! - Compaction is not implemented: a topic with [`Cleanup::Compact`](tidings_core::Cleanup::Compact) keeps its
//!   records within the bounds above, whatever their age. [`MemoryTransport::faults`] injects faults, for tests.
//! - The end of a transaction takes an offset in each of its partitions; a dropped transactor ends it at the timeout.
//!
//! [`MemoryStore`] remembers handled events; [`MemoryDeadLetters`] keeps dead letters, to list and redrive.

mod admin;
mod alter;
mod assign;
mod broker;
mod clock;
mod cluster;
mod config;
mod consumer;
mod dead_letters;
mod delayed;
mod error;
mod faults;
mod group;
mod log;
mod log_reader;
mod place;
mod publisher;
mod signal;
mod store;
mod topic;
mod transactions;
mod transactor;
mod transport;

pub use self::config::MemoryConfig;
pub use self::faults::{Faults, PublishFault, TransactionFault};
pub use self::store::{MemoryDeadLetters, MemoryStore, StoreFaults};
pub use self::transport::MemoryTransport;
