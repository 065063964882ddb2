//! Access control entries.

use serde::{Deserialize, Serialize};
use tidings_core::{AclFilter, AclResource, Error, Result};

/// An access control entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acl {
    /// The type of the resource, such as `topic`.
    pub resource_type: String,
    /// The name of the resource, or its beginning.
    pub name: String,
    /// `literal` or `prefixed`.
    pub pattern: String,
    /// The principal with its type, such as `User:alice`.
    pub principal: String,
    /// The address of the client; `*` is every address.
    pub host: String,
    /// The operation, such as `read`.
    pub operation: String,
    /// `allow` or `deny`.
    pub permission: String,
}

impl From<&tidings_core::Acl> for Acl {
    fn from(acl: &tidings_core::Acl) -> Self {
        Self {
            resource_type: acl.resource.kind.to_string(),
            name: acl.resource.name.clone(),
            pattern: acl.resource.pattern.to_string(),
            principal: acl.principal.clone(),
            host: acl.host.clone(),
            operation: acl.operation.to_string(),
            permission: acl.permission.to_string(),
        }
    }
}

impl TryFrom<Acl> for tidings_core::Acl {
    type Error = Error;

    fn try_from(wire: Acl) -> Result<Self> {
        let mut resource = AclResource::literal(named(&wire.resource_type)?, wire.name);
        resource.pattern = named(&wire.pattern)?;
        let mut acl = Self::allow(wire.principal, named(&wire.operation)?, resource).with_host(wire.host);
        acl.permission = named(&wire.permission)?;
        Ok(acl)
    }
}

/// Parses a name of an enumeration. `unknown` is a value that the broker has and this version has not: it is listed, and
/// never created or deleted.
fn named<T: std::str::FromStr<Err = Error> + Listed>(text: &str) -> Result<T> {
    if text == "unknown" { Ok(T::UNLISTED) } else { text.parse() }
}

/// An enumeration with a value for those that it does not list.
trait Listed {
    const UNLISTED: Self;
}

macro_rules! listed { ($($name:ident)*) => { $(
    impl Listed for tidings_core::$name {
        const UNLISTED: Self = Self::Unknown;
    }
)* } }

listed! { AclResourceType AclPattern AclOperation AclPermission }

/// Access control entries, as an answer or a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acls {
    /// The entries.
    pub acls: Vec<Acl>,
}

impl Acls {
    /// Creates the list of these entries.
    pub fn of(acls: &[tidings_core::Acl]) -> Self {
        Self { acls: acls.iter().map(Acl::from).collect() }
    }

    /// Returns the entries.
    ///
    /// # Errors
    /// [`Invalid`](tidings_core::ErrorKind::Invalid): a name is unknown.
    pub fn into_acls(self) -> Result<Vec<tidings_core::Acl>> {
        self.acls.into_iter().map(TryInto::try_into).collect()
    }
}

/// Selects access control entries. A field that is left out selects all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AclQuery {
    /// Those of this type of resource.
    pub resource_type: Option<String>,
    /// Those of resources of this name.
    pub name: Option<String>,
    /// Those of this pattern.
    pub pattern: Option<String>,
    /// Whether those that apply to the name are selected, by prefixes and by `*`, too.
    pub applies: bool,
    /// Those of this principal.
    pub principal: Option<String>,
    /// Those with this host.
    pub host: Option<String>,
    /// Those of this operation.
    pub operation: Option<String>,
    /// Those that allow, or those that deny.
    pub permission: Option<String>,
}

impl From<&AclFilter> for AclQuery {
    fn from(filter: &AclFilter) -> Self {
        Self {
            resource_type: filter.kind.map(|kind| kind.to_string()),
            name: filter.name.clone(),
            pattern: filter.pattern.map(|pattern| pattern.to_string()),
            applies: filter.applies,
            principal: filter.principal.clone(),
            host: filter.host.clone(),
            operation: filter.operation.map(|operation| operation.to_string()),
            permission: filter.permission.map(|permission| permission.to_string()),
        }
    }
}

impl TryFrom<AclQuery> for AclFilter {
    type Error = Error;

    fn try_from(wire: AclQuery) -> Result<Self> {
        let mut filter = Self::default();
        filter.kind = wire.resource_type.as_deref().map(named).transpose()?;
        filter.name = wire.name;
        filter.pattern = wire.pattern.as_deref().map(named).transpose()?;
        filter.applies = wire.applies;
        filter.principal = wire.principal;
        filter.host = wire.host;
        filter.operation = wire.operation.as_deref().map(named).transpose()?;
        filter.permission = wire.permission.as_deref().map(named).transpose()?;
        Ok(filter)
    }
}
