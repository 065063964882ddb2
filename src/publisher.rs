//! Publishing records as they are, without an event type.
//!
//! ```
//! use tidings::Record;
//! use tidings::publisher::{Publisher, PublisherExt};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> tidings::Result<()> {
//! let publisher = tidings::connect("memory://?partitions=4").await?.publisher().await?;
//! let first = publisher.publish_one(Record::new("clicks", "home").with_key("u1")).await?;
//!
//! let more = ["cart", "checkout"].map(|page| Record::new("clicks", page).with_key("u1"));
//! for (answer, offset) in publisher.publish(more.into()).await.into_iter().zip(1..) {
//!     let position = answer?;
//!     assert_eq!((position.partition, position.offset), (first.partition, offset), "one key, one partition");
//! }
//! # Ok(())
//! # }
//! ```

pub use tidings_core::{DelayedRecord, Due, Publisher, PublisherExt};
