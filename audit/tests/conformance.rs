//! The suite of an audit sink, on the sink in memory and on the log.

use std::process::ExitCode;
use std::sync::Arc;

use tidings_audit::{MemoryAudit, TracingAudit};
use tidings_conformance::{Setup, Suites};
use tidings_core::ErrorKind;

fn main() -> ExitCode {
    let memory = Setup::new("memory", || async { Ok(MemoryAudit::new()) }).with_paused_clock().with_outage(
        |sink: Arc<MemoryAudit>, down| async move {
            sink.fail_with(down.then_some(ErrorKind::Unavailable));
            Ok(())
        },
    );
    Suites::new()
        .with_audit(memory)
        .with_audit(Setup::new("tracing", || async { Ok(TracingAudit::new()) }).with_paused_clock())
        .run()
}
