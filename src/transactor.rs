//! Publishing records in transactions: readers see all of them or none.
//!
//! For importers and mirrors. [`codec::encode`](crate::codec::encode) makes a record of an event. To commit the offsets
//! of a consumer with the records, pass
//! [`Consumer::transaction_offsets`](crate::consumer::Consumer::transaction_offsets) to [`Transactor::commit`].
//!
//! The memory transport has transactions. With a transport that has none, such as Kafka's, `transactor` fails as
//! [`Unsupported`](crate::ErrorKind::Unsupported), and its [`guarantees`](crate::Transport::guarantees) disclaim the
//! clauses X1 to X5.
//!
//! ```
//! use std::time::Duration;
//!
//! use tidings::transactor::TransactorOptions;
//! use tidings::{Record, Transport};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> tidings::Result<()> {
//! let transport = tidings::connect("memory://").await?;
//! let transactor = transport.transactor(TransactorOptions::new("order-import-1")).await?;
//! transactor.publish(vec![Record::new("orders", "1"), Record::new("lines", "1a")]).await;
//! transactor.commit(None).await?; // an error if a record was not stored: then the transaction is aborted
//! transactor.close(Duration::from_secs(5)).await?;
//! # Ok(())
//! # }
//! ```

pub use tidings_core::{TransactionOffset, TransactionOffsets, Transactor, TransactorOptions};
