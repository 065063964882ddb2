//! Conformance suites for implementations of tidings' backend traits.
//!
//! A backend runs a suite from its `tests/conformance.rs` (with `harness = false` in its manifest):
//!
//! ```no_run
//! # use std::process::ExitCode;
//! # use std::sync::Arc;
//! # use tidings_core::{Error, ErrorKind, Transport};
//! # async fn open() -> tidings_core::Result<Arc<dyn Transport>> { Err(Error::new(ErrorKind::Unavailable, "open")) }
//! use tidings_conformance::{Setup, transport};
//!
//! fn main() -> ExitCode {
//!     transport::run(Setup::new("mine", || async { open().await }))
//! }
//! ```
//!
//! Each case is a separate test, named after the clause that it checks: `c3_commits_are_taken_until_revocation_ends`.
//! `--list` lists the cases, and any other argument filters them: `cargo test --test conformance -- c3_`.
//!
//! - A clause that the backend disclaims by its `guarantees()` is reported ignored, with the backend's reason.
//! - A case that the setup declares as not kept ([`Setup::without_case`]) is ignored with the reason given.
//! - A case that injects a fault needs a hook of the [`Setup`]; without the hook it is reported ignored with that
//!   reason.
//! - A backend that does not answer ([`Unavailable`](tidings_core::ErrorKind::Unavailable) from the factory) has all
//!   its cases ignored; with [`REQUIRE_BROKERS`]`=1` in the environment they fail.
//! - [`FAIL_FAST`]`=1` in the environment ends a program at its first failed case; later ones are reported ignored.
//! - `--include-ignored` runs the disclaimed clauses and the cases declared as not kept as well.
//!
//! A failure reports the clause, the expected and the actual result, and the history of the case's steps.

pub mod audit;
mod case;
mod context;
pub mod dead_letters;
mod hooks;
pub mod idempotency;
mod runner;
mod setup;
mod setup_stores;
pub mod transport;
pub mod wrap;

pub use self::hooks::Hook;
pub use self::runner::{FAIL_FAST, REQUIRE_BROKERS, Suites, Verdict};
pub use self::setup::{
    Clock, DEFAULT_CASE_LIMIT, DEFAULT_LIFETIME, DEFAULT_PATIENCE, DEFAULT_QUIET, PAUSED_CASE_LIMIT, Setup,
};

/// The guide's code is tested with the crate; its program, by tests/guide.rs.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guides/write-a-transport.md")]
#[derive(Debug)]
pub struct Guide;
