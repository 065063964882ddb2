//! Tests for services: a [`Harness`] runs a service on an in-memory broker, publishes events to it, waits until all
//! that follow have settled, and returns which were handled, published, retried and dead-lettered. No ports, no
//! sleeps.
//!
//! The same test runs with a paused clock (`#[tokio::test(start_paused = true)]`), where waits between attempts take
//! no time, with a running clock, and against a live transport ([`Harness::on`]).
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use tidings_macros::Event;
//! use tidings_service::{Router, Service};
//! use tidings_testkit::Harness;
//!
//! #[derive(Serialize, Deserialize, Event)]
//! #[event(crate = "tidings_core", topic = "users", type = "user.registered", key = "id")]
//! struct Registered { id: String }
//!
//! #[derive(Serialize, Deserialize, Event)]
//! #[event(crate = "tidings_core", topic = "mails", type = "mail.sent", key = "to")]
//! struct MailSent { to: String }
//!
//! async fn welcome(event: Registered) -> MailSent {
//!     MailSent { to: event.id }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> tidings_core::Result<()> {
//! let test = Harness::start(Service::new("mailer", Router::new().on(welcome))).await?;
//! assert!(test.send(&Registered { id: "u1".into() }).await.is_handled());
//! assert_eq!(test.published::<MailSent>()[0].payload.to, "u1");
//! # Ok(())
//! # }
//! ```
//!
//! A test that panics prints the [trace](Harness::trace).

mod fate;
mod harness;
mod journal;
mod layer;
mod recorder;
mod topics;
mod trace;
mod transactor;

pub use self::fate::{Fate, Settled};
pub use self::harness::{Harness, Sent};
pub use self::journal::Retried;
