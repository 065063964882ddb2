//! The contract of a dead-letter store, kept by dead-letter topics: on the memory transport.

use std::process::ExitCode;

use tidings_conformance::{Setup, dead_letters};
use tidings_core::Result;
use tidings_memory::MemoryTransport;
use tidings_service::TopicDeadLetters;

/// The topics whose letters the suite buries.
const TOPICS: [&str; 4] = ["conformance", "one", "two", "another"];

async fn open() -> Result<TopicDeadLetters> {
    TopicDeadLetters::open(&MemoryTransport::new(), TOPICS).await
}

fn main() -> ExitCode {
    dead_letters::run(Setup::new("memory-topics", open).with_paused_clock())
}
