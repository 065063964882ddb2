//! For those who write a transport: see the guide "Writing a transport".
//!
//! ```
//! use tidings::transport::Clause;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> tidings::Result<()> {
//! let guarantees = tidings::connect("memory://").await?.guarantees();
//! assert!(guarantees.keeps(Clause::P1));
//! assert!(guarantees.why_not(Clause::Restart).is_some(), "it is gone with the process");
//! # Ok(())
//! # }
//! ```

pub use tidings_core::{Clause, Guarantees, Secret, async_trait};
