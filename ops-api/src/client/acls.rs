//! The ACLs of a remote broker.

use std::sync::Arc;

use tidings_core::{Acl, AclFilter, Acls, Result, async_trait};

use super::admin::each;
use super::call::Client;
use crate::Route;
use crate::wire::{self, AclQuery, Nothing};

/// [`Acls`] that ask an endpoint.
#[derive(Debug)]
pub(super) struct RemoteAcls {
    client: Arc<Client>,
}

impl RemoteAcls {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self { client }
    }
}

fn body(acls: &[Acl]) -> serde_json::Value {
    serde_json::to_value(wire::Acls::of(acls)).unwrap_or_default()
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Acls for RemoteAcls {
    async fn list(&self, filter: &AclFilter) -> Result<Vec<Acl>> {
        self.client.post::<wire::Acls>(Route::AclsList, &AclQuery::from(filter)).await?.into_acls()
    }

    async fn create(&self, acls: &[Acl]) -> Result<Vec<Result<()>>> {
        each(&self.client, Route::AclsCreate, acls, body, |_: Nothing| Ok(())).await
    }

    async fn delete(&self, acls: &[Acl]) -> Result<Vec<Result<bool>>> {
        each(&self.client, Route::AclsDelete, acls, body, Ok).await
    }
}
