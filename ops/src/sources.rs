//! The sources that an endpoint reports on, and their reading for one answer.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use tidings_audit::{AuditStatus, Auditor};
use tidings_service::telemetry::{
    Health, HealthMonitor, HealthOptions, PublisherSnapshot, PublisherStats, RelaySnapshot, RelayStats, Snapshot,
};
use tidings_service::{ServiceControl, ServiceStats};

use crate::refusals::Refusals;

/// The services, publishers and relays of an endpoint.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    services: Vec<Source>,
    publishers: Vec<(String, PublisherStats)>,
    relays: Vec<Arc<dyn RelayStats>>,
    auditor: Option<Auditor>,
    pub(crate) refusals: Refusals,
}

#[derive(Debug)]
struct Source {
    label: String,
    stats: ServiceStats,
    monitor: Mutex<HealthMonitor>,
}

/// The state of everything at one time.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) services: Vec<ServiceReading>,
    pub(crate) publishers: Vec<(String, PublisherSnapshot)>,
    pub(crate) relays: Vec<RelaySnapshot>,
    pub(crate) audit: Option<AuditStatus>,
    /// Requests that were refused, by reason.
    pub(crate) refused: Vec<(&'static str, u64)>,
}

/// The state of a service at one time.
#[derive(Debug)]
pub(crate) struct ServiceReading {
    /// The service's name, made unique.
    pub(crate) label: String,
    pub(crate) snapshot: Snapshot,
    pub(crate) health: Health,
}

impl Sources {
    pub(crate) fn new(
        services: Vec<ServiceStats>,
        publishers: Vec<PublisherStats>,
        relays: Vec<Arc<dyn RelayStats>>,
        health: &HealthOptions,
        auditor: Option<Auditor>,
    ) -> Self {
        let names = services.iter().map(|stats| stats.name().to_string());
        let labels = unique(names.collect());
        let sources = labels.into_iter().zip(services).map(|(label, stats)| {
            let monitor = Mutex::new(HealthMonitor::new(health.clone()));
            Source { label, stats, monitor }
        });
        let names = unique(publishers.iter().map(|stats| stats.snapshot().name.to_string()).collect());
        let publishers = names.into_iter().zip(publishers).collect();
        Self { services: sources.collect(), publishers, relays, auditor, refusals: Refusals::default() }
    }

    /// Returns the unique names of the services.
    pub(crate) fn labels(&self) -> Vec<String> {
        self.services.iter().map(|source| source.label.clone()).collect()
    }

    /// Returns the control of the service of this unique name, if there is one.
    pub(crate) fn control<'a>(&self, label: &str, controls: &'a [ServiceControl]) -> Option<&'a ServiceControl> {
        let source = self.services.iter().find(|source| source.label == label)?;
        controls.iter().find(|control| control.is_of(&source.stats))
    }

    pub(crate) fn services(&self) -> Vec<ServiceReading> {
        self.services.iter().map(Source::read).collect()
    }

    pub(crate) fn read(&self) -> Reading {
        Reading {
            services: self.services(),
            publishers: self.publishers.iter().map(|(name, stats)| (name.clone(), stats.snapshot())).collect(),
            relays: self.relays.iter().map(|relay| relay.snapshot()).collect(),
            audit: self.auditor.as_ref().map(Auditor::status),
            refused: self.refusals.read(),
        }
    }
}

impl Source {
    fn read(&self) -> ServiceReading {
        // The snapshot is taken under the lock: the monitor must see them in order.
        let mut monitor = self.monitor.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = self.stats.snapshot();
        let health = monitor.update(&snapshot);
        ServiceReading { label: self.label.clone(), snapshot, health }
    }
}

/// Returns the names, of which a repeated one gets a number: two series with the same labels would be an error.
fn unique(names: Vec<String>) -> Vec<String> {
    let mut taken: HashSet<String> = names.iter().cloned().collect();
    let mut seen = HashSet::new();
    let free = |name: &str, taken: &HashSet<String>| {
        let numbered = (2_u64..).map(|number| format!("{name}-{number}"));
        numbered.into_iter().find(|name| !taken.contains(name)).unwrap_or_default()
    };
    let each = names.into_iter().map(|name| {
        if seen.insert(name.clone()) {
            return name;
        }
        let name = free(&name, &taken);
        taken.insert(name.clone());
        name
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_names_get_a_number() {
        let names = ["a", "b", "a", "a-2", "a", ""].map(String::from);
        assert_eq!(unique(names.into()), ["a", "b", "a-3", "a-2", "a-4", ""]);
    }
}
