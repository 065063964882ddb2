//! Reading records by position, without a consumer group: for tails, exports and audits.
//!
//! ```
//! use tidings::Transport;
//! use tidings::consumer::SeekTo;
//! use tidings::log_reader::{ReadLimits, TopicPartition};
//!
//! /// Prints the records of a partition from the oldest to the current end.
//! async fn export(transport: &dyn Transport, partition: TopicPartition) -> tidings::Result<()> {
//!     let reader = transport.log_reader().await?;
//!     let mut next = reader.offsets(&[partition.clone()], SeekTo::Earliest).await?.remove(0)?;
//!     loop {
//!         let read = reader.read(&partition, next, ReadLimits::default()).await?;
//!         for record in read.batch.records() {
//!             println!("{}: {} bytes", record.offset, record.value.as_ref().map_or(0, |value| value.len()));
//!         }
//!         match &read.unreadable {
//!             Some(bad) => next = bad.next_offset.unwrap_or(bad.offset + 1),
//!             None if read.is_at_end() => return Ok(()),
//!             None => next = read.next_offset,
//!         }
//!     }
//! }
//! ```

pub use tidings_core::{LogReader, Read, ReadLimits, TopicPartition};
