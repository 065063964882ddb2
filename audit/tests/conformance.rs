//! The suite of an audit sink, on the sinks in memory and in a topic of the memory transport, and on the log.

use std::process::ExitCode;
use std::sync::Arc;

use tidings_audit::{MemoryAudit, TopicAudit, TracingAudit};
use tidings_conformance::{Setup, Suites};
use tidings_core::audit::{AuditPage, AuditPosition, AuditSink, StoredAudit};
use tidings_core::{Clause, ErrorKind, Guarantees, Result, Transport, async_trait};
use tidings_memory::MemoryTransport;

/// A sink with the transport that it is on.
#[derive(Debug)]
struct OnTopic {
    sink: TopicAudit,
    transport: MemoryTransport,
}

async fn open(partitions: u32) -> Result<OnTopic> {
    let transport = MemoryTransport::new();
    let topic = TopicAudit::topic("trail").with_partitions(partitions);
    transport.admin().await?.create_topics(&[topic]).await?.remove(0)?;
    Ok(OnTopic { sink: TopicAudit::open(&transport, "trail").await?, transport })
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl AuditSink for OnTopic {
    async fn append(&self, records: Vec<StoredAudit>) -> Vec<Result<()>> {
        self.sink.append(records).await
    }

    async fn read(&self, after: Option<&AuditPosition>, limit: usize) -> Result<AuditPage> {
        self.sink.read(after, limit).await
    }

    fn guarantees(&self) -> Guarantees {
        self.sink.guarantees().without(Clause::Restart, "the memory transport keeps nothing")
    }
}

fn on_topic(name: &'static str, partitions: u32) -> Setup<OnTopic> {
    Setup::new(name, move || open(partitions)).with_paused_clock().with_outage(|on: Arc<OnTopic>, down| async move {
        if down {
            on.transport.faults().down()
        } else {
            on.transport.faults().up()
        }
        Ok(())
    })
}

fn main() -> ExitCode {
    let memory = Setup::new("memory", || async { Ok(MemoryAudit::new()) }).with_paused_clock().with_outage(
        |sink: Arc<MemoryAudit>, down| async move {
            sink.fail_with(down.then_some(ErrorKind::Unavailable));
            Ok(())
        },
    );
    Suites::new()
        .with_audit(memory)
        .with_audit(on_topic("topic", 1))
        .with_audit(on_topic("topic-of-three-partitions", 3))
        .with_audit(Setup::new("tracing", || async { Ok(TracingAudit::new()) }).with_paused_clock())
        .run()
}
