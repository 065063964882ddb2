//! Publishing records in transactions: readers see all of them or none.
//!
//! For importers and mirrors. The memory transport has transactions; another one that has none answers
//! [`Unsupported`](crate::ErrorKind::Unsupported), and its [`guarantees`](crate::Transport::guarantees) disclaim the
//! clauses X1 to X5.
//!
//! ```
//! use tidings::transactor::TransactorOptions;
//! use tidings::{Record, Transport};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> tidings::Result<()> {
//! let transport = tidings::connect("memory://").await?;
//! let transactor = transport.transactor(TransactorOptions::new("order-import-1")).await?;
//! for answer in transactor.publish(vec![Record::new("orders", "1"), Record::new("lines", "1a")]).await {
//!     answer?;
//! }
//! transactor.commit(None).await?;
//! # Ok(())
//! # }
//! ```

pub use tidings_core::{TransactionOffset, TransactionOffsets, Transactor, TransactorOptions};
