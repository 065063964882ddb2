//! Entries of access control, as outputs and plans show them, and the arguments that select them.

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidings_core::{Acl, AclFilter, AclOperation, AclPattern, AclPermission, AclResource, AclResourceType, Result};

use crate::exit::Failure;

/// An entry of access control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct AclView {
    /// The type of the resource: topic, group, cluster, transactional-id, delegation-token, user.
    resource: String,
    /// The name of the resource, or its beginning.
    name: String,
    /// Whether `name` is whole (literal) or a beginning (prefixed).
    pattern: String,
    /// The principal, such as `User:alice`.
    principal: String,
    /// The address of the client; `*` is every address.
    host: String,
    /// The operation.
    operation: String,
    /// Whether it is allowed or denied: allow, deny.
    permission: String,
}

impl From<&Acl> for AclView {
    fn from(acl: &Acl) -> Self {
        Self {
            resource: acl.resource.kind.to_string(),
            name: acl.resource.name.clone(),
            pattern: acl.resource.pattern.to_string(),
            principal: acl.principal.clone(),
            host: acl.host.clone(),
            operation: acl.operation.to_string(),
            permission: acl.permission.to_string(),
        }
    }
}

impl AclView {
    /// Returns the entry as core knows it.
    pub(super) fn acl(&self) -> Result<Acl> {
        let (kind, operation) = (self.resource.parse()?, self.operation.parse()?);
        let resource = match self.pattern.parse()? {
            AclPattern::Prefixed => AclResource::prefixed(kind, &self.name),
            _ => AclResource::literal(kind, &self.name),
        };
        let acl = match self.permission.parse()? {
            AclPermission::Deny => Acl::deny(&self.principal, operation, resource),
            _ => Acl::allow(&self.principal, operation, resource),
        };
        Ok(acl.with_host(&self.host))
    }

    pub(super) fn cells(&self) -> Vec<String> {
        let end = if self.pattern == "prefixed" { "*" } else { "" };
        vec![
            self.permission.clone(),
            self.principal.clone(),
            self.operation.clone(),
            self.resource.clone(),
            format!("{}{end}", self.name),
            self.host.clone(),
        ]
    }
}

/// The columns of entries.
pub(super) const COLUMNS: &[&str] = &["PERMISSION", "PRINCIPAL", "OPERATION", "RESOURCE", "NAME", "HOST"];

/// The resource of an entry.
#[derive(Debug, Clone, Args)]
#[group(multiple = false)]
pub(super) struct ResourceArguments {
    /// Name of a topic; * is every topic
    #[arg(long)]
    topic: Option<String>,
    /// Name of a group; * is every group
    #[arg(long)]
    group: Option<String>,
    /// Transactional id
    #[arg(long, value_name = "ID")]
    transactional_id: Option<String>,
    /// The cluster
    #[arg(long)]
    cluster: bool,
}

impl ResourceArguments {
    pub(super) fn resource(&self) -> Option<(AclResourceType, String)> {
        let named = [
            (AclResourceType::Topic, &self.topic),
            (AclResourceType::Group, &self.group),
            (AclResourceType::TransactionalId, &self.transactional_id),
        ];
        let found = named.into_iter().find_map(|(kind, name)| Some((kind, name.clone()?)));
        found.or_else(|| self.cluster.then(|| (AclResourceType::Cluster, AclResource::CLUSTER.to_owned())))
    }
}

/// Which entries are meant.
#[derive(Debug, Clone, Args)]
pub(super) struct FilterArguments {
    #[command(flatten)]
    resource: ResourceArguments,
    /// All entries that apply to the resource, also by prefixes and *; by default those with its very name
    #[arg(long)]
    applies: bool,
    /// The principal, such as User:alice
    #[arg(long)]
    principal: Option<String>,
    /// The operation, such as read
    #[arg(long)]
    operation: Option<AclOperation>,
    /// Only denials
    #[arg(long)]
    deny: bool,
}

impl FilterArguments {
    pub(super) fn filter(&self) -> Result<AclFilter, Failure> {
        let mut filter = AclFilter::default();
        if let Some((kind, name)) = self.resource.resource() {
            (filter.kind, filter.name, filter.applies) = (Some(kind), Some(name), self.applies);
        } else if self.applies {
            return Err(
                Failure::usage("acl: --applies without a resource").with_hint("use --topic, --group or --cluster")
            );
        }
        filter.principal.clone_from(&self.principal);
        filter.operation = self.operation;
        filter.permission = self.deny.then_some(AclPermission::Deny);
        Ok(filter)
    }

    /// Returns whether nothing is selected by.
    pub(super) fn is_empty(&self) -> bool {
        self.resource.resource().is_none() && self.principal.is_none() && self.operation.is_none() && !self.deny
    }
}
