//! Sinks that need no store.

mod memory;
mod topic;
mod tracing;

pub use self::memory::MemoryAudit;
pub use self::topic::TopicAudit;
pub use self::tracing::TracingAudit;
