//! Audit trails: what the audited wrappers record, what becomes of it while the sink fails, and that it shows no secret.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod audited;
mod checkpoints;
mod common;
mod failures;
mod secrets;
