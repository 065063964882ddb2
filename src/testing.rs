//! The harness for unit tests of services.
//!
//! ```
//! use tidings::testing::Harness;
//! use tidings::{BoxError, Router, Service, reject};
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Serialize, Deserialize, tidings::Event)]
//! # #[event(topic = "user-events", type = "user.registered", key = "user_id")]
//! # struct UserRegistered { user_id: String }
//!
//! async fn welcome(event: UserRegistered) -> Result<(), BoxError> {
//!     if event.user_id.is_empty() { Err(reject("no user").into()) } else { Ok(()) }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> tidings::Result<()> {
//! let test = Harness::start(Service::new("user-service", Router::new().on(welcome))).await?;
//! assert!(test.send(&UserRegistered { user_id: "u1".into() }).await.is_handled());
//! assert!(test.send(&UserRegistered { user_id: "".into() }).await.is_dead_lettered());
//! # Ok(())
//! # }
//! ```

pub use tidings_testkit::{Fate, Harness, Retried, Sent, Settled};
