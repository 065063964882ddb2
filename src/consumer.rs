//! Reading a group's partitions record by record, without a service.
//!
//! A reader of this kind commits by itself, and has no retries, no dead letters and no order beyond its partition's.
//!
//! ```
//! use tidings::consumer::{Commit, ConsumerOptions, Step};
//! use tidings::publisher::PublisherExt;
//! use tidings::Record;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> tidings::Result<()> {
//! let transport = tidings::connect("memory://").await?;
//! transport.publisher().await?.publish_one(Record::new("clicks", "home")).await?;
//!
//! let consumer = transport.consumer(ConsumerOptions::new("audit", ["clicks"])).await?;
//! let fetched = loop {
//!     if let Step::Records(fetched) = consumer.next().await? {
//!         break fetched;
//!     }
//! };
//! assert_eq!(fetched.batch.records()[0].value.as_deref(), Some(&b"home"[..]));
//!
//! let commit = Commit::new(fetched.batch.origin().as_ref().clone(), fetched.epoch, fetched.next_offset);
//! assert!(consumer.commit(vec![commit]).await[0].is_ok());
//! consumer.close().await?;
//! # Ok(())
//! # }
//! ```

pub use tidings_core::{
    Assignment, Commit, Consumer, ConsumerOptions, Fetched, Progress, Revocation, SeekTo, Start, Step, Unreadable,
};
