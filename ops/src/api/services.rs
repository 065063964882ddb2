//! Running services: their state, and the commands of operators.

use std::time::Duration;

use tidings_core::audit::AuditRecord;
use tidings_core::{Error, ErrorKind, Result, TopicPartition};
use tidings_ops_api::Route;
use tidings_ops_api::wire::{
    Accepted, At, Drain, Held, Nothing, Pause, Seek, ServiceSummary, Services, Skip, Skipped, Sought,
};
use tidings_service::{ServiceControl, ServiceState};

use super::Api;
use super::audit::intent;
use super::call::{Call, bounded, encode, within};
use crate::sources::ServiceReading;
use crate::status;

/// The longest time that deliveries of a seek may take: a request ends soon after.
const MAX_SEEK: Duration = Duration::from_secs(30);
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

    pub(super) async fn pause(&self, call: &Call, route: Route) -> Result<String> {
        let Pause { service, partitions } = call.body()?;
        let control = self.control(&service)?;
        let partitions: Option<Vec<TopicPartition>> =
            partitions.map(|all| all.into_iter().map(TopicPartition::from).collect());
        bounded(partitions.as_ref().map_or(0, Vec::len), "partitions")?;
        for partition in partitions.iter().flatten() {
            reads(control, partition)?;
        }
        let mut intent = on_service(route, call, &service);
        intent.resources.extend(partitions.iter().flatten().map(partition_resource));
        let paused = async {
            match (partitions, route) {
                (None, Route::ServicesPause) => control.pause(),
                (None, _) => control.resume(),
                (Some(partitions), Route::ServicesPause) => control.pause_partitions(partitions),
                (Some(partitions), _) => control.resume_partitions(partitions),
            }
        };
        self.recorded(intent, paused).await?;
        encode(&Nothing::default())
    }

    pub(super) async fn drain(&self, call: &Call) -> Result<String> {
        let Drain { service, deadline_ms } = call.body()?;
        let control = self.control(&service)?;
        let intent = on_service(Route::ServicesDrain, call, &service);
        let intent = intent.with_after("deadline_ms", deadline_ms.to_string());
        self.recorded(intent, async { control.drain(Duration::from_millis(deadline_ms)) }).await?;
        encode(&Accepted::new(service, ServiceState::Stopping.to_string()))
    }

    pub(super) async fn seek(&self, call: &Call) -> Result<String> {
        let Seek { service, topic, partition, to, deadline_ms } = call.body()?;
        let deadline = Duration::from_millis(deadline_ms);
        if deadline > MAX_SEEK {
            let text = format!("deadline_ms: at most {} ms over HTTP", MAX_SEEK.as_millis());
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        let at = TopicPartition::new(topic, partition);
        let to = to.try_into()?;
        let control = self.control(&service)?;
        let intent = on_service(Route::ServicesSeek, call, &service).with_resource(partition_resource(&at));
        let intent = intent.with_after("to", format!("{to:?}"));
        let sought = self.recorded(intent, control.seek(&at, to, deadline)).await?;
        let At { topic, partition } = (&sought.partition).into();
        encode(&Sought { topic, partition, from: sought.from, to: sought.to })
    }

    pub(super) async fn skip(&self, call: &Call) -> Result<String> {
        let Skip { service, topic, partition, from, to } = call.body()?;
        let (control, at) = (self.control(&service)?, TopicPartition::new(topic, partition));
        let intent = on_service(Route::ServicesSkip, call, &service).with_resource(partition_resource(&at));
        let intent = intent.with_after("from", from.to_string()).with_after("to", to.to_string());
        let skipped = self.recorded(intent, control.skip(&at, from..to)).await?;
        encode(&Skipped { from: skipped.offsets.start, to: skipped.offsets.end, cause: skipped.cause })
    }
}

/// Refuses a topic that the service does not read: a misspelt one would stay paused for later, and hold nothing.
fn reads(control: &ServiceControl, partition: &TopicPartition) -> Result<()> {
    if control.topics().contains(&partition.topic) {
        return Ok(());
    }
    let known = control.topics().join(", ");
    let text = format!("{} does not read {}; it reads {known}", control.name(), partition.topic);
    Err(Error::new(ErrorKind::NotFound, text))
}

fn on_service(route: Route, call: &Call, service: &str) -> AuditRecord {
    intent(route, &call.caller).with_resource(format!("service:{service}"))
}

fn partition_resource(partition: &TopicPartition) -> String {
    format!("partition:{partition}")
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
