//! The reasons why a service is not well.

use std::fmt;

/// A reason why a service is not live, not ready, or degraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum HealthReason {
    /// The service has ended by an error. Not live.
    EngineFailed,
    /// The coordinator's task does not run, by its own fault. Not live.
    EngineBlocked,
    /// The service has not joined its group yet. Not ready.
    Starting,
    /// The service is shutting down. Not ready.
    Draining,
    /// The service has been shut down. Not ready.
    Stopped,
    /// Reading from the group has failed for too long. Not ready.
    BrokerUnreachable,
    /// The idempotency store has failed for too long. Not ready.
    StoreUnavailable,
    /// A partition is stalled. Degraded.
    PartitionStalled,
    /// The lag of a partition does not fall. Degraded.
    PartitionSlow,
    /// Records of a partition cannot be read. Degraded.
    PartitionUnreadable,
    /// The circuit breaker is open. Degraded.
    CircuitOpen,
    /// A dead letter cannot be written. Degraded.
    DeadLettersUnwritable,
    /// Returned events cannot be published. Degraded.
    PublisherUnavailable,
    /// A handler reported that a dependency is unavailable. Degraded.
    DependencyUnavailable,
    /// A handler blocks its thread, or the service waits for a thread that others block. Degraded.
    HandlerBlocked,
    /// The lag or the time lag is above its limit. Degraded.
    LagHigh,
    /// An operator paused the service, or a partition. Degraded.
    Paused,
}

/// The effect of a [`HealthReason`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The service works, but an operator should look at it.
    Degraded,
    /// The service is not ready: it does not take its share of the work.
    NotReady,
    /// The service is not live: only a restart helps.
    NotLive,
}

impl HealthReason {
    /// All reasons, the most severe first.
    pub const ALL: [Self; 17] = [
        Self::EngineFailed,
        Self::EngineBlocked,
        Self::Starting,
        Self::Draining,
        Self::Stopped,
        Self::BrokerUnreachable,
        Self::StoreUnavailable,
        Self::PartitionStalled,
        Self::PartitionSlow,
        Self::PartitionUnreadable,
        Self::CircuitOpen,
        Self::DeadLettersUnwritable,
        Self::PublisherUnavailable,
        Self::DependencyUnavailable,
        Self::HandlerBlocked,
        Self::LagHigh,
        Self::Paused,
    ];

    /// Returns the stable code in answers, metrics and logs, such as `"partition_stalled"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EngineFailed => "engine_failed",
            Self::EngineBlocked => "engine_blocked",
            Self::Starting => "starting",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::BrokerUnreachable => "broker_unreachable",
            Self::StoreUnavailable => "store_unavailable",
            Self::PartitionStalled => "partition_stalled",
            Self::PartitionSlow => "partition_slow",
            Self::PartitionUnreadable => "partition_unreadable",
            Self::CircuitOpen => "circuit_open",
            Self::DeadLettersUnwritable => "dead_letters_unwritable",
            Self::PublisherUnavailable => "publisher_unavailable",
            Self::DependencyUnavailable => "dependency_unavailable",
            Self::HandlerBlocked => "handler_blocked",
            Self::LagHigh => "lag_high",
            Self::Paused => "paused",
        }
    }

    /// Returns the reason with this code.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == code)
    }

    /// Returns the effect of the reason.
    pub const fn severity(self) -> Severity {
        match self {
            Self::EngineFailed | Self::EngineBlocked => Severity::NotLive,
            Self::Starting | Self::Draining | Self::Stopped | Self::BrokerUnreachable | Self::StoreUnavailable => {
                Severity::NotReady
            }
            _ => Severity::Degraded,
        }
    }
}

impl fmt::Display for HealthReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
