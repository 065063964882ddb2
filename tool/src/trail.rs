//! The audit trail of the changes that a run makes.

use std::sync::Arc;

use tidings_audit::{Audited, AuditedLetters, Auditor, AuditorOptions};
use tidings_core::audit::{AuditPage, AuditPosition, AuditSink, Principal, StoredAudit};
use tidings_core::{DeadLetterStore, Error, ErrorKind, Guarantees, Result, Transport, async_trait};

use crate::console::Console;

/// Records the changes of one plan.
#[derive(Debug)]
pub(crate) struct Trail {
    auditor: Auditor,
    principal: Principal,
    plan: String,
}

impl Trail {
    /// Begins the trail of a plan, in the name of the operating system's user.
    pub(crate) fn new(sink: Arc<dyn AuditSink>, user: &str, plan: &str) -> Self {
        let options = AuditorOptions::default().with_source("tidings");
        let principal = Principal::new(user).with_authentication("os-user");
        Self { auditor: Auditor::with_options(sink, options), principal, plan: plan.to_owned() }
    }

    /// Wraps a transport, so that changes through it are recorded.
    pub(crate) fn of_transport(&self, transport: &Arc<dyn Transport>) -> Arc<dyn Transport> {
        let audited = Audited::new(Arc::clone(transport), self.auditor.clone());
        Arc::new(audited.as_principal(self.principal.clone()).with_plan(&*self.plan))
    }

    /// Wraps dead letters, so that what becomes of them is recorded.
    pub(crate) fn of_letters(&self, letters: impl DeadLetterStore) -> impl DeadLetterStore {
        let audited = AuditedLetters::new(letters, self.auditor.clone());
        audited.as_principal(self.principal.clone()).with_plan(&*self.plan)
    }

    /// Ends the trail; returns the line that proves its end, or why a part of it is not stored.
    pub(crate) async fn end(&self) -> String {
        match self.auditor.close().await {
            Ok(Some(checkpoint)) => format!("Audit checkpoint: {checkpoint}"),
            Ok(None) => "Nothing was recorded.".to_owned(),
            Err(error) => format!("Warning: the audit trail is incomplete: {}", error.report()),
        }
    }
}

/// Writes records to standard error, where no sink is configured.
#[derive(Debug)]
pub(crate) struct ConsoleAudit(pub(crate) Arc<Console>);

#[async_trait]
impl AuditSink for ConsoleAudit {
    async fn append(&self, records: Vec<StoredAudit>) -> Vec<Result<()>> {
        let line = |record: &StoredAudit| {
            self.0.audit(&String::from_utf8_lossy(&record.bytes));
            Ok(())
        };
        records.iter().map(line).collect()
    }

    async fn read(&self, _after: Option<&AuditPosition>, _limit: usize) -> Result<AuditPage> {
        Err(Error::new(ErrorKind::Unsupported, "read the audit trail: standard error is only written"))
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees::all()
    }
}
