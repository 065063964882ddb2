//! Audit trails of tidings: who changed what, when, and with which result, in a log that shows tampering.
//!
//! Applications use it as `tidings::audit`, by the feature `audit` of the crate `tidings`.
//!
//! - [`Auditor`] writes records to an [`AuditSink`](tidings_core::audit::AuditSink): a record before a change (the intent) and one after it (the
//!   result). Records are linked by SHA-256.
//! - [`Audited`] wraps a transport, [`AuditedLetters`] a dead-letter store, so that every change through them is recorded.
//! - [`verify`] finds records that were altered, deleted, inserted or reordered.
//! - [`TopicAudit`], [`MemoryAudit`] and [`TracingAudit`] are sinks; the stores of sled and Postgres are sinks as well.
//!
//! ```
//! use tidings_audit::{Audited, Auditor, MemoryAudit, verify};
//! use tidings_core::audit::Principal;
//! use tidings_core::{Topic, Transport};
//! use tidings_memory::MemoryTransport;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> tidings_core::Result<()> {
//! let sink = MemoryAudit::new();
//! let auditor = Auditor::new(sink.clone());
//! let transport = Audited::new(MemoryTransport::new(), auditor.clone()).as_principal(Principal::new("ann"));
//! transport.admin().await?.create_topics(&[Topic::new("orders")]).await?;
//!
//! auditor.close().await?;
//! let verified = verify(&sink, &[]).await?;
//! assert!(verified.is_intact());
//! assert_eq!(verified.records, 3, "an intent, its result and the checkpoint of the close");
//! # Ok(())
//! # }
//! ```
//!
//! # Failures of the sink
//! By default a change is refused if its intent cannot be recorded ([`OnSinkFailure::Refuse`]). Records that a sink did
//! not take wait in memory, up to a bound, and are appended first when it takes records again. Event operations never
//! wait for the sink: beyond a bound they are counted and dropped, and the next record states how many.

mod audited;
mod auditor;
mod chain;
mod cloud_event;
mod events;
mod options;
mod places;
mod queue;
mod services;
mod sinks;
mod status;
mod verify;

pub use self::audited::{Audited, AuditedLetters, letter_resources};
pub use self::auditor::{Attempt, Auditor};
pub use self::chain::Checkpoint;
pub use self::cloud_event::{MAX_EVENTS, MAX_RESOURCES, MAX_TEXT, decode, is_checkpoint};
pub use self::events::{AuditObserver, EventOperations, EventPolicy};
pub use self::options::{AuditorOptions, OnSinkFailure};
pub use self::sinks::{MemoryAudit, TopicAudit, TracingAudit};
pub use self::status::AuditStatus;
pub use self::verify::{ChainReport, Problem, ProblemKind, Verification, Verifier, verify};
