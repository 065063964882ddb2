//! The audited access control lists.

use std::sync::Arc;

use tidings_core::{Acl, AclFilter, Acls, Result, async_trait};

use super::call::Actor;

/// Access control lists whose changes are recorded.
#[derive(Debug)]
pub(super) struct AuditedAcls {
    pub(super) inner: Arc<dyn Acls>,
    pub(super) actor: Actor,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Acls for AuditedAcls {
    async fn list(&self, filter: &AclFilter) -> Result<Vec<Acl>> {
        self.inner.list(filter).await
    }

    async fn create(&self, acls: &[Acl]) -> Result<Vec<Result<()>>> {
        let call = self.actor.call("acl.create").on_all(acls.iter().map(resource));
        let call = call.after(acls.iter().map(|acl| (resource(acl), "present".to_owned())));
        call.each(self.inner.create(acls)).await
    }

    async fn delete(&self, acls: &[Acl]) -> Result<Vec<Result<bool>>> {
        let call = self.actor.call("acl.delete").on_all(acls.iter().map(resource));
        let call = call.after(acls.iter().map(|acl| (resource(acl), "absent".to_owned())));
        call.each_with(self.inner.delete(acls), |result, answers| {
            for (acl, existed) in acls.iter().zip(answers) {
                if let Ok(existed) = existed {
                    let was = if *existed { "present" } else { "absent" };
                    result.before.insert(resource(acl), was.to_owned());
                }
            }
        })
        .await
    }
}

fn resource(acl: &Acl) -> String {
    format!("acl:{acl}")
}
