//! Access control lists of a cluster.

use std::time::Duration;

use tidings_core::{Acl, AclFilter, Acls, Error, ErrorKind, Result, async_trait};
use tokio::time::{Instant, sleep};

use crate::client::admin::ClusterClient;

/// How long to wait until a change is visible.
const SEEN_WITHIN: Duration = Duration::from_secs(5);
/// Pause between two checks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Number of entries in one request.
const CHUNK: usize = 500;

/// Access control lists of a Kafka cluster with an authorizer.
///
/// Reach it by [`Transport::acls`](tidings_core::Transport::acls). Each request is bounded by
/// [`request_timeout`](crate::KafkaConfig::request_timeout). Listing needs `Describe` on the cluster, changing `Alter`.
#[derive(Debug, Clone)]
pub struct KafkaAcls {
    cluster: ClusterClient,
}

impl KafkaAcls {
    pub(crate) fn new(cluster: ClusterClient) -> Self {
        Self { cluster }
    }

    /// Waits, up to a limit, until the entries are listed, or no longer are. A client may change entries that it may not
    /// list.
    async fn see(&self, acls: &[&Acl], there: bool) {
        let ends = Instant::now() + SEEN_WITHIN;
        while Instant::now() < ends {
            let Ok(listed) = self.cluster.acls(&AclFilter::default()).await else { return };
            if acls.iter().all(|acl| listed.contains(acl) == there) {
                return;
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}

#[async_trait]
impl Acls for KafkaAcls {
    async fn list(&self, filter: &AclFilter) -> Result<Vec<Acl>> {
        let mut acls = self.cluster.acls(filter).await?;
        acls.retain(|acl| filter.matches(acl));
        acls.sort();
        Ok(acls)
    }

    async fn create(&self, acls: &[Acl]) -> Result<Vec<Result<()>>> {
        let mut answers = refusals(acls);
        for chunk in sendable(acls, &answers).chunks(CHUNK) {
            let entries: Vec<&Acl> = chunk.iter().map(|at| &acls[*at]).collect();
            let created = self.cluster.create_acls(&entries).await?;
            let seen: Vec<&Acl> =
                entries.iter().zip(&created).filter(|(_, made)| made.is_ok()).map(|(a, _)| *a).collect();
            self.see(&seen, true).await;
            for (at, answer) in chunk.iter().zip(created) {
                answers[*at] = Some(answer);
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    async fn delete(&self, acls: &[Acl]) -> Result<Vec<Result<bool>>> {
        let mut answers = refusals(acls);
        for chunk in sendable(acls, &answers).chunks(CHUNK) {
            let entries: Vec<&Acl> = chunk.iter().map(|at| &acls[*at]).collect();
            let deleted = self.cluster.delete_acls(&entries).await?;
            let seen: Vec<&Acl> =
                entries.iter().zip(&deleted).filter(|(_, gone)| gone.is_ok()).map(|(a, _)| *a).collect();
            self.see(&seen, false).await;
            for (at, answer) in chunk.iter().zip(deleted) {
                answers[*at] = Some(answer);
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }
}

/// Returns the answers to the entries that cannot be sent.
fn refusals<T>(acls: &[Acl]) -> Vec<Option<Result<T>>> {
    let refusal = |acl: &Acl| {
        let unknown = || Error::new(ErrorKind::Invalid, format!("{acl}: a value is unknown to this version"));
        (!ClusterClient::knows(acl)).then(|| Err(unknown()))
    };
    acls.iter().map(refusal).collect()
}

/// Returns the places of the entries without an answer.
fn sendable<T>(acls: &[Acl], answers: &[Option<Result<T>>]) -> Vec<usize> {
    (0..acls.len()).filter(|at| answers[*at].is_none()).collect()
}
