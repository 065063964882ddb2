//! The backends of the API: a transport, stores, the services that it may control, and the audit of its changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidings_audit::{Audited, AuditedLetters, Auditor};
use tidings_core::{Acls, Admin, Cluster, Error, ErrorKind, IdempotencyStore, LogReader, Publisher, Result, Transport};
use tidings_service::{DeadLetters, ServiceControl};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::once::Once;
use crate::access::Caller;

/// The backends of the API.
#[derive(Debug, Default)]
pub(crate) struct Backends {
    transport: Option<Arc<Once>>,
    pub(crate) letters: BTreeMap<String, DeadLetters>,
    pub(crate) stores: BTreeMap<String, Arc<dyn IdempotencyStore>>,
    pub(crate) controls: Vec<ServiceControl>,
    pub(crate) auditor: Option<Auditor>,
    /// The runtime on which the program called the builder: connections that are opened belong to it.
    pub(crate) runtime: Option<Handle>,
}

impl Backends {
    pub(crate) fn set_transport(&mut self, transport: Arc<dyn Transport>) {
        self.transport = Some(Arc::new(Once::new(transport)));
    }

    /// Starts a task on the runtime of the backends: that of the endpoint answers probes, and ends with it.
    pub(super) fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        match &self.runtime {
            Some(runtime) => runtime.spawn(work),
            None => tokio::spawn(work),
        }
    }

    /// Returns the system and the guarantees of the transport, if there is one.
    pub(super) fn system(&self) -> Option<(&'static str, tidings_core::Guarantees)> {
        self.transport.as_ref().map(|transport| (transport.system(), transport.guarantees()))
    }

    /// Returns the transport as a caller uses it: its changes are recorded with the caller's name.
    fn transport(&self, caller: &Caller) -> Result<Arc<dyn Transport>> {
        let missing = "this endpoint has no transport: pass one to Ops::with_admin";
        let transport = self.transport.as_ref().ok_or_else(|| Error::new(ErrorKind::Unsupported, missing))?;
        Ok(match &self.auditor {
            None => transport.clone(),
            Some(auditor) => {
                let audited = Audited::new(transport.clone(), auditor.clone()).as_principal(caller.principal());
                Arc::new(audited.with_correlation_id(&caller.request))
            }
        })
    }

    pub(super) async fn admin(&self, caller: &Caller) -> Result<Arc<dyn Admin>> {
        self.transport(caller)?.admin().await
    }

    pub(super) async fn publisher(&self, caller: &Caller) -> Result<Arc<dyn Publisher>> {
        self.transport(caller)?.publisher().await
    }

    pub(super) async fn log_reader(&self, caller: &Caller) -> Result<Arc<dyn LogReader>> {
        self.transport(caller)?.log_reader().await
    }

    pub(super) async fn acls(&self, caller: &Caller) -> Result<Arc<dyn Acls>> {
        self.transport(caller)?.acls().await
    }

    pub(super) async fn cluster(&self, caller: &Caller) -> Result<Arc<dyn Cluster>> {
        self.transport(caller)?.cluster().await
    }

    /// Returns the dead letters of this name, as a caller uses them.
    pub(super) fn letters(&self, caller: &Caller, name: &str) -> Result<DeadLetters> {
        let letters = self.letters.get(name).ok_or_else(|| missing("dead letters", name, self.letters.keys()))?;
        let Some(auditor) = &self.auditor else { return Ok(letters.clone()) };
        let audited = AuditedLetters::new(letters.store().clone(), auditor.clone()).as_principal(caller.principal());
        Ok(DeadLetters::new(audited.with_correlation_id(&caller.request), letters.publisher().clone()))
    }

    /// Returns the idempotency store of this name.
    pub(super) fn store(&self, name: &str) -> Result<&Arc<dyn IdempotencyStore>> {
        self.stores.get(name).ok_or_else(|| missing("store", name, self.stores.keys()))
    }
}

/// Returns the error of a name that the endpoint does not have, with those that it has.
fn missing<'a>(of: &str, name: &str, known: impl Iterator<Item = &'a String>) -> Error {
    let known: Vec<&str> = known.map(String::as_str).collect();
    let known = if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
    Error::new(ErrorKind::NotFound, format!("this endpoint has no {of} named {name:?}; {known}"))
}
