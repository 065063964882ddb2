//! What the API works on: a transport, stores, and the services that it may control.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidings_core::{Admin, Error, ErrorKind, IdempotencyStore, LogReader, Publisher, Result, Transport};
use tidings_service::{DeadLetters, ServiceControl};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

/// The backends of the API.
#[derive(Debug, Default)]
pub(crate) struct Backends {
    pub(crate) transport: Option<Arc<dyn Transport>>,
    pub(crate) letters: BTreeMap<String, DeadLetters>,
    pub(crate) stores: BTreeMap<String, Arc<dyn IdempotencyStore>>,
    pub(crate) controls: Vec<ServiceControl>,
    /// The runtime on which the program called the builder: connections that are opened belong to it.
    pub(crate) runtime: Option<Handle>,
    pub(crate) opened: Opened,
}

/// Parts of the transport that were opened: once, at their first use.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    admin: OnceCell<Arc<dyn Admin>>,
    publisher: OnceCell<Arc<dyn Publisher>>,
    log_reader: OnceCell<Arc<dyn LogReader>>,
}

impl Backends {
    /// Returns the transport.
    pub(super) fn transport(&self) -> Result<&Arc<dyn Transport>> {
        let missing = "this endpoint has no transport: pass one to Ops::with_admin";
        self.transport.as_ref().ok_or_else(|| Error::new(ErrorKind::Unsupported, missing))
    }

    pub(super) async fn admin(&self) -> Result<&Arc<dyn Admin>> {
        let transport = self.transport()?;
        self.opened.admin.get_or_try_init(|| transport.admin()).await
    }

    pub(super) async fn publisher(&self) -> Result<&Arc<dyn Publisher>> {
        let transport = self.transport()?;
        self.opened.publisher.get_or_try_init(|| transport.publisher()).await
    }

    pub(super) async fn log_reader(&self) -> Result<&Arc<dyn LogReader>> {
        let transport = self.transport()?;
        self.opened.log_reader.get_or_try_init(|| transport.log_reader()).await
    }

    /// Returns the dead letters of this name.
    pub(super) fn letters(&self, name: &str) -> Result<&DeadLetters> {
        self.letters.get(name).ok_or_else(|| missing("dead letters", name, self.letters.keys()))
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
