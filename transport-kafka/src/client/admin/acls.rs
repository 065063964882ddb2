//! Access control requests.

use bytes::{Bytes, BytesMut};
use krafka::__private::kafka_metadata;
use krafka::__private::protocol::ApiKey;
use krafka::KrafkaError;
use krafka::error::ErrorCode;
use tidings_core::{Acl, AclFilter, Error, ErrorKind, Result};
use tokio::time::timeout;

use super::{ClusterClient, acl_wire};
use crate::error::failed;

impl ClusterClient {
    /// Returns whether all values of an entry can be sent.
    pub(crate) fn knows(acl: &Acl) -> bool {
        acl_wire::is_known(acl)
    }

    /// Returns the entries that `filter` selects.
    pub(crate) async fn acls(&self, filter: &AclFilter) -> Result<Vec<Acl>> {
        let what = "list access control entries";
        let answer = self.ask(what, ApiKey::DescribeAcls, |buffer| acl_wire::describe(filter, buffer)).await?;
        acl_wire::described(answer).map_err(|e| refused(what, e))
    }

    /// Creates entries; answer `i` is entry `i`'s.
    pub(crate) async fn create_acls(&self, acls: &[&Acl]) -> Result<Vec<Result<()>>> {
        let what = "create access control entries";
        let answer = self.ask(what, ApiKey::CreateAcls, |buffer| acl_wire::change(acls, buffer)).await?;
        let created = acl_wire::created(answer).map_err(|e| refused(what, e))?;
        each(acls, created, |acl| format!("create {acl}"))
    }

    /// Deletes exactly these entries; answer `i` is whether entry `i` existed.
    pub(crate) async fn delete_acls(&self, acls: &[&Acl]) -> Result<Vec<Result<bool>>> {
        let what = "delete access control entries";
        let answer = self.ask(what, ApiKey::DeleteAcls, |buffer| acl_wire::change(acls, buffer)).await?;
        let deleted = acl_wire::deleted(answer).map_err(|e| refused(what, e))?;
        each(acls, deleted, |acl| format!("delete {acl}"))
    }

    /// Sends a request to the first broker that answers: brokers hand changes on to the controller, and repeating one
    /// changes nothing more.
    async fn ask(&self, what: &str, key: ApiKey, encode: impl Fn(&mut BytesMut)) -> Result<Bytes> {
        let brokers = kafka_metadata(&self.connection().0).brokers();
        let mut last = Error::new(ErrorKind::Unavailable, format!("{what}: no broker is known"));
        let asking = async {
            for broker in brokers {
                match self.ask_broker(broker.id(), key, &encode).await {
                    Err(error @ (KrafkaError::Network(_) | KrafkaError::Timeout { .. })) => last = failed(what, error),
                    answered => return answered.map_err(|e| failed(what, e)),
                }
            }
            Err(last)
        };
        let limit = self.limit();
        let late = |_| Error::new(ErrorKind::Unavailable, format!("{what}: no answer within {limit:?}"));
        timeout(limit, asking).await.map_err(late)?
    }

    async fn ask_broker(&self, broker: i32, key: ApiKey, encode: impl Fn(&mut BytesMut)) -> krafka::Result<Bytes> {
        let connection = kafka_metadata(&self.connection().0).get_broker_connection(broker).await?;
        let (newest, oldest) = acl_wire::VERSIONS;
        let unsupported = || KrafkaError::broker(ErrorCode::UnsupportedVersion, "the broker is older than Kafka 2.4");
        let version = connection.negotiate_api_version(key, newest, oldest).ok_or_else(unsupported)?;
        let request = |buffer: &mut BytesMut| {
            encode(buffer);
            Ok(())
        };
        connection.send_request(key, version, request).await
    }
}

/// Pairs answers with the entries.
fn each<T>(acls: &[&Acl], answers: Vec<krafka::Result<T>>, what: impl Fn(&Acl) -> String) -> Result<Vec<Result<T>>> {
    if answers.len() != acls.len() {
        let text = format!("{} access control entries have {} answers", acls.len(), answers.len());
        return Err(Error::new(ErrorKind::Indeterminate, text));
    }
    Ok(acls.iter().zip(answers).map(|(acl, answer)| answer.map_err(|e| refused(what(acl), e))).collect())
}

/// A cluster without an authorizer refuses every request about entries.
fn refused(what: impl Into<String>, error: KrafkaError) -> Error {
    let what = what.into();
    match &error {
        KrafkaError::Broker { code: ErrorCode::SecurityDisabled, .. } => {
            Error::caused_by(ErrorKind::Unsupported, format!("{what}: the cluster has no authorizer"), error)
        }
        _ => failed(what, error),
    }
}
