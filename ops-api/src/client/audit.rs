//! The audit trail of an endpoint.

use std::sync::Arc;

use tidings_core::audit::{AuditPage, AuditPosition, AuditSink, StoredAudit};
use tidings_core::{Clause, Error, ErrorKind, Guarantees, Result, async_trait};

use super::call::Client;
use crate::wire::AuditRecords;
use crate::{MAX_NAMES, Route};

/// An [`AuditSink`] that reads the trail of an endpoint. It is read-only: an endpoint records its own changes.
#[derive(Debug)]
pub(super) struct RemoteAudit {
    client: Arc<Client>,
}

impl RemoteAudit {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self { client }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl AuditSink for RemoteAudit {
    async fn append(&self, records: Vec<StoredAudit>) -> Vec<Result<()>> {
        let refuse =
            |_| Err(Error::new(ErrorKind::Unsupported, "append an audit record: the trail is read-only over HTTP"));
        records.into_iter().map(refuse).collect()
    }

    async fn read(&self, after: Option<&AuditPosition>, limit: usize) -> Result<AuditPage> {
        let limit = limit.min(MAX_NAMES).to_string();
        let mut query = vec![("limit", limit.as_str())];
        query.extend(after.map(|after| ("after", after.as_str())));
        self.client.get_with::<AuditRecords>(Route::Audit, &query).await?.try_into()
    }

    fn guarantees(&self) -> Guarantees {
        let of_appends = [Clause::T1, Clause::T2, Clause::T3];
        of_appends.into_iter().fold(Guarantees::all(), |kept, clause| kept.without(clause, "it is read-only over HTTP"))
    }
}
