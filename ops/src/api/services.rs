//! Running services: their state, and the commands of operators.

use std::time::Duration;

use tidings_core::{Error, ErrorKind, Result, TopicPartition};
use tidings_ops_api::wire::{Accepted, At, Drain, Held, Nothing, Pause, ServiceSummary, Services, Skip, Skipped};
use tidings_service::{ServiceControl, ServiceState};

use super::Api;
use super::call::{Call, encode, within};
use crate::sources::ServiceReading;
use crate::status;

/// The time limit of asking a service for its holds.
const STATUS_TIME: Duration = Duration::from_secs(2);

impl Api {
    pub(super) fn services(&self) -> Result<String> {
        let mut services = Services::default();
        services.services = self.sources.services().iter().map(|reading| self.summary(reading)).collect();
        encode(&services)
    }

    fn summary(&self, reading: &ServiceReading) -> ServiceSummary {
        let ServiceReading { label, snapshot, health } = reading;
        ServiceSummary {
            service: label.clone(),
            group: snapshot.group.to_string(),
            system: snapshot.system.to_owned(),
            state: snapshot.state.to_string(),
            live: health.live,
            ready: health.ready,
            reasons: health.findings.iter().map(|finding| finding.reason.as_str().to_owned()).collect(),
            partitions: snapshot.partitions.len(),
            lag: snapshot.lag(),
            controlled: self.sources.control(label, &self.backends.controls).is_some(),
        }
    }

    pub(super) async fn service(&self, call: &Call) -> Result<String> {
        let name = call.name()?;
        let reading = self.sources.services().into_iter().find(|reading| reading.label == name);
        let reading = reading.ok_or_else(|| self.no_service(&name))?;
        let control = self.sources.control(&name, &self.backends.controls);
        let held = match control {
            // A service whose threads are blocked does not answer, and is described without them.
            Some(control) => within(STATUS_TIME, "ask for holds", holds(control)).await.unwrap_or_default(),
            None => Vec::new(),
        };
        encode(&status::described(&reading, control.is_some(), held))
    }

    fn no_service(&self, name: &str) -> Error {
        let known = self.sources.labels().join(", ");
        let known = if known.is_empty() { "it has none".to_owned() } else { format!("it has {known}") };
        Error::new(ErrorKind::NotFound, format!("this endpoint has no service named {name:?}; {known}"))
    }

    fn control(&self, name: &str) -> Result<&ServiceControl> {
        if !self.sources.labels().iter().any(|label| label == name) {
            return Err(self.no_service(name));
        }
        let text = || format!("this endpoint may not control {name}: pass the service to Ops::with_control");
        let control = self.sources.control(name, &self.backends.controls);
        control.ok_or_else(|| Error::new(ErrorKind::Unsupported, text()))
    }

    pub(super) fn pause(&self, call: &Call, paused: bool) -> Result<String> {
        let Pause { service, partitions } = call.body()?;
        let control = self.control(&service)?;
        let partitions = partitions.map(|all| all.into_iter().map(TopicPartition::from));
        match (partitions, paused) {
            (None, true) => control.pause()?,
            (None, false) => control.resume()?,
            (Some(partitions), true) => control.pause_partitions(partitions)?,
            (Some(partitions), false) => control.resume_partitions(partitions)?,
        }
        encode(&Nothing::default())
    }

    pub(super) fn drain(&self, call: &Call) -> Result<String> {
        let Drain { service, deadline_ms } = call.body()?;
        self.control(&service)?.drain(Duration::from_millis(deadline_ms))?;
        encode(&Accepted::new(service, ServiceState::Stopping.to_string()))
    }

    pub(super) async fn skip(&self, call: &Call) -> Result<String> {
        let Skip { service, topic, partition, from, to } = call.body()?;
        let skipped = self.control(&service)?.skip(&TopicPartition::new(topic, partition), from..to).await?;
        encode(&Skipped { from: skipped.offsets.start, to: skipped.offsets.end, cause: skipped.cause })
    }
}

async fn holds(control: &ServiceControl) -> Vec<Held> {
    let partitions = control.status().await.partitions.into_iter();
    let held = partitions.flat_map(|partition| {
        let at = At::from(&partition.partition);
        partition
            .held
            .into_iter()
            .map(move |hold| Held::new(at.clone(), hold.reason.as_str(), hold.offset, hold.next_offset))
    });
    held.collect()
}
