//! The contract of a dead-letter store, kept by dead-letter topics: on the memory transport.

use std::process::ExitCode;

use tidings_conformance::{Setup, dead_letters};
use tidings_core::Result;
use tidings_memory::MemoryTransport;
use tidings_service::TopicDeadLetters;

async fn open() -> Result<TopicDeadLetters> {
    TopicDeadLetters::open(&MemoryTransport::new(), dead_letters::TOPICS).await
}

fn main() -> ExitCode {
    dead_letters::run(Setup::new("memory-topics", open).with_paused_clock())
}
