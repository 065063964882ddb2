//! A service without a partition: queries how many members its group has, for the log and the snapshot.

use std::fmt;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::{Error, ErrorKind, Name, Result, Transport};
use tokio::time::{Instant, timeout};

use crate::engine::shared::Shared;
use crate::logs::{self, millis};

/// How long a service has no partition before the group is queried: a rebalance may be under way.
const STANDBY_AFTER: Duration = Duration::from_secs(5);
/// The interval of the queries.
const INTERVAL: Duration = Duration::from_secs(60);
/// The time limit of a query.
const LIMIT: Duration = Duration::from_secs(10);

/// A query of the number of members.
struct Query(Pin<Box<dyn Future<Output = Result<usize>> + Send>>);

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Query")
    }
}

/// The known facts about the group while this service has no partition.
#[derive(Debug)]
pub(super) struct Standby {
    shared: Arc<Shared>,
    transport: Arc<dyn Transport>,
    session_timeout: Duration,
    /// Since when there is no partition.
    since: Option<Instant>,
    query: Option<Query>,
    asked_at: Option<Instant>,
    members: Option<usize>,
}

impl Standby {
    pub(super) fn new(shared: Arc<Shared>, transport: Arc<dyn Transport>, session_timeout: Duration) -> Self {
        Self { shared, transport, session_timeout, since: None, query: None, asked_at: None, members: None }
    }

    /// Returns the number of members, as of the last query.
    pub(super) fn members(&self) -> Option<usize> {
        self.members
    }

    /// Queries the group if it is time to, and there is no partition.
    pub(super) fn watch(&mut self, has_partitions: bool, now: Instant) {
        if has_partitions {
            (self.since, self.query, self.asked_at, self.members) = (None, None, None, None);
            return;
        }
        let since = *self.since.get_or_insert(now);
        let is_due = self.asked_at.is_none_or(|at| now.saturating_duration_since(at) >= INTERVAL);
        if is_due && self.query.is_none() && now.saturating_duration_since(since) >= STANDBY_AFTER {
            self.asked_at = Some(now);
            let query = members(self.transport.clone(), self.shared.identity.group.clone());
            self.query = Some(Query(Box::pin(query)));
        }
    }

    /// Waits for the answer of a query, if one is in flight. Cancel-safe.
    pub(super) async fn answered(&mut self) -> Result<usize> {
        let Some(query) = &mut self.query else { return pending().await };
        let answer = query.0.as_mut().await;
        self.query = None;
        answer
    }

    /// Takes the answer of a query, and logs it if it has changed.
    pub(super) fn take(&mut self, members: Result<usize>) {
        let members = match members {
            Ok(members) => members,
            Err(error) => return tracing::debug!(error = %error.report(), "the members of the group are not known"),
        };
        if self.members.replace(members) == Some(members) {
            return;
        }
        if members <= 1 {
            let (service, group) = (self.shared.identity.service.as_str(), self.shared.identity.group.as_str());
            logs::Unassigned { service: &service, group: &group }.log();
        } else {
            let line = logs::Standby {
                service: &self.shared.identity.service.as_str(),
                group: &self.shared.identity.group.as_str(),
                members: &members,
                session_timeout_ms: &millis(self.session_timeout),
            };
            line.log();
        }
    }
}

async fn members(transport: Arc<dyn Transport>, group: Name) -> Result<usize> {
    let ask = async { transport.admin().await?.describe_group(&group).await };
    let late = |_| Err(Error::new(ErrorKind::Unavailable, format!("describe the group {group}: no answer")));
    Ok(timeout(LIMIT, ask).await.unwrap_or_else(late)?.members.len())
}
