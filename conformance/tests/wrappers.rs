//! The suites, run against wrappers around the reference backends: they must keep what they wrap.

#[path = "shared/gappy.rs"]
mod gappy;

use std::process::ExitCode;
use std::sync::Arc;

use gappy::{CASE_LIMIT, Gappy};
use tidings_conformance::wrap::{Call, Faults, Faulty, Recording};
use tidings_conformance::{Setup, Suites};
use tidings_core::{Result, Transport};
use tidings_memory::{MemoryConfig, MemoryDeadLetters, MemoryStore, MemoryTransport};

fn memory() -> Result<MemoryTransport> {
    MemoryTransport::open(MemoryConfig::new().with_auto_create(false))
}

fn erased() -> Setup<Arc<dyn Transport>> {
    Setup::new("arc-dyn", || async { Ok(Arc::new(memory()?) as Arc<dyn Transport>) }).with_paused_clock()
}

/// On the machine's clock and on two threads, as a broker's client would be.
fn real_clock() -> Setup<MemoryTransport> {
    Setup::new("real-clock", || async { memory() })
        .with_lifetime(std::time::Duration::from_secs(2))
        .with_quiet(std::time::Duration::from_millis(50))
}

/// Both wrappers at once; the faults of the inner one are the hooks.
fn wrapped() -> Setup<Recording<Faulty<MemoryTransport>>> {
    Setup::new("recording-faulty", || async { Ok(Recording::new(Faulty::new(memory()?))) })
        .with_paused_clock()
        .with_lost_answers(|wrapped, lost| async move {
            let times = if lost { Faults::UNTIL_HEALED } else { 0 };
            wrapped.inner().faults().lose_answers(Call::Publish, times);
            Ok(())
        })
        .with_session_loss(|wrapped, group| async move {
            wrapped.inner().inner().faults().lose_all(&group);
            Ok(())
        })
}

fn gappy() -> Setup<Gappy> {
    Setup::new("gappy", || async { Ok(Gappy::new(memory()?)) })
        .with_paused_clock()
        .with_case_limit(CASE_LIMIT)
        .with_deleted_records(|gappy, partition, range| async move {
            if range.start == 0 {
                gappy.inner().faults().drop_records(&partition, range.end);
            } else {
                gappy.compact(partition, range);
            }
            Ok(())
        })
}

fn store() -> Setup<Recording<Faulty<MemoryStore>>> {
    Setup::new("wrapped-store", || async { Ok(Recording::new(Faulty::new(MemoryStore::new()))) })
        .with_paused_clock()
        .with_outage(|store, down| async move {
            store.inner().faults().set_down(down);
            Ok(())
        })
}

fn dead_letters() -> Setup<Faulty<Recording<MemoryDeadLetters>>> {
    Setup::new("wrapped-dead-letters", || async { Ok(Faulty::new(Recording::new(MemoryDeadLetters::new()))) })
        .with_paused_clock()
        .with_outage(|letters, down| async move {
            letters.faults().set_down(down);
            Ok(())
        })
}

fn main() -> ExitCode {
    Suites::new()
        .with_transport(erased())
        .with_transport(real_clock())
        .with_transport(wrapped())
        .with_transport(gappy())
        .with_idempotency(store())
        .with_dead_letters(dead_letters())
        .run()
}
