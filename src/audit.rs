//! Audit trails: who changed what, in a log that shows tampering. See the guide "Audit trails".
//!
//! ```
//! use tidings::audit::{Audited, Auditor, MemoryAudit, Principal, verify};
//! use tidings::{Topic, Transport};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> tidings::Result<()> {
//! let sink = MemoryAudit::new(); // or a topic, Postgres, sled, the log
//! let auditor = Auditor::new(sink.clone());
//! let transport = Audited::new(tidings::connect("memory://").await?, auditor.clone());
//! let transport = transport.as_principal(Principal::new("ann").with_authentication("token"));
//!
//! transport.admin().await?.create_topics(&[Topic::new("orders")]).await?;
//! let checkpoint = auditor.close().await?; // to be kept elsewhere
//! assert!(verify(&sink, &Vec::from_iter(checkpoint)).await?.is_intact());
//! # Ok(())
//! # }
//! ```

pub use tidings_audit::{
    Attempt, AuditObserver, AuditStatus, Audited, AuditedLetters, Auditor, AuditorOptions, ChainReport, Checkpoint,
    EventOperations, EventPolicy, MAX_EVENTS, MAX_RESOURCES, MAX_TEXT, MemoryAudit, OnSinkFailure, Problem,
    ProblemKind, TopicAudit, TracingAudit, Verification, Verifier, decode, verify,
};
pub use tidings_core::audit::{
    AuditHash, AuditOutcome, AuditPage, AuditPhase, AuditPosition, AuditRecord, AuditSink, AuditedEvent, Principal,
    StoredAudit, header_names,
};
