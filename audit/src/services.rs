//! The start and the end of services.

use std::sync::{Arc, Mutex, PoisonError};

use tidings_core::audit::{AuditOutcome, AuditPhase, AuditRecord, Principal};
use tidings_core::{ErrorKind, Name, Result};
use tidings_service::{ServiceState, ServiceStats};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::auditor::Auditor;

/// Services whose end is still to be recorded.
#[derive(Debug, Default)]
pub(crate) struct Watched(Mutex<Vec<ServiceStats>>);

impl Watched {
    pub(crate) fn add(&self, service: ServiceStats) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(service);
    }

    /// Takes the records of services that have ended since.
    pub(crate) fn take_ended(&self, source: &Name) -> Vec<AuditRecord> {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut records = Vec::new();
        watched.retain(|service| match service.snapshot().state {
            state @ (ServiceState::Stopped | ServiceState::Failed) => {
                records.push(stopped(source, service, state));
                false
            }
            _ => true,
        });
        records
    }
}

impl Auditor {
    /// Records that a service has started, and at its end, that it has stopped or failed. Takes a `&ServiceHandle`, or
    /// its `stats()`.
    ///
    /// The end is recorded soon after it, or by [`close`](Self::close): call that after the service was shut down.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use tidings_audit::{Auditor, MemoryAudit, decode};
    /// use tidings_core::Delivery;
    /// use tidings_memory::MemoryTransport;
    /// use tidings_service::{Router, Service};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> tidings_core::Result<()> {
    /// let (sink, transport) = (MemoryAudit::new(), MemoryTransport::new());
    /// let auditor = Auditor::new(sink.clone());
    /// let router = Router::new().on_topic("clicks", async |_: Delivery| {});
    /// let service = Service::new("meter", router).start(&transport).await?;
    /// auditor.watch(&service).await?;
    /// service.shutdown(Duration::from_secs(10)).await?;
    /// auditor.close().await?;
    /// let verbs: Vec<_> = sink.records().iter().map(|record| decode(record).unwrap().verb).collect();
    /// assert_eq!(verbs, ["service.start", "service.stop", "chain.checkpoint"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`record`](Self::record): the service runs on.
    pub async fn watch(&self, service: impl Into<ServiceStats>) -> Result<()> {
        let service = service.into();
        self.record(&started(self.source(), &service), AuditOutcome::Ok).await?;
        self.watched().add(service.clone());
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(wait(service, self.waker()));
        }
        Ok(())
    }
}

fn record(source: &Name, service: &ServiceStats, verb: &'static str) -> AuditRecord {
    AuditRecord::intent(Principal::new(source.as_str()), Name::from_static(verb))
        .with_resource(format!("service:{}", service.name()))
}

/// Returns the record of a service that has started.
fn started(source: &Name, service: &ServiceStats) -> AuditRecord {
    let snapshot = service.snapshot();
    let handlers: Vec<&str> = snapshot.handlers.iter().map(|handler| handler.handler.as_str()).collect();
    record(source, service, "service.start")
        .with_after("group", snapshot.group.as_str())
        .with_after("handlers", handlers.join(","))
        .with_after("system", snapshot.system)
}

fn stopped(source: &Name, service: &ServiceStats, state: ServiceState) -> AuditRecord {
    let mut record = record(source, service, "service.stop").with_after("state", state.to_string());
    let outcome = match state {
        ServiceState::Failed => {
            AuditOutcome::Failed { kind: ErrorKind::Failed, error: "the service has failed".into() }
        }
        _ => AuditOutcome::Ok,
    };
    record.phase = AuditPhase::Result { intent: None, outcome };
    record
}

/// Waits until a service has ended, and wakes the background task, whose next flush records the end.
async fn wait(service: ServiceStats, wake: Arc<Notify>) {
    service.ended().await;
    wake.notify_one();
}
