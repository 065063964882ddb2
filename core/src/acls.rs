//! Access control lists of a broker: the [`Acls`] trait and its entries.
//!
//! The model is Kafka's: an entry allows or denies a principal one operation on one resource, from one host. Entries are
//! exact values without an id, so a caller deletes the very entries that it was shown.

use std::fmt::{self, Debug};
use std::str::FromStr;

use async_trait::async_trait;

use crate::{Error, ErrorKind, Result};

/// Lists, creates and deletes access control entries.
///
/// Reached by [`Transport::acls`](crate::Transport::acls).
///
/// ```
/// use tidings_core::{Acl, AclFilter, AclOperation, AclResource, AclResourceType, Acls, Result};
///
/// /// Lets a principal read a topic, unless an entry for that exists, and returns the entries of the topic.
/// async fn allow(acls: &dyn Acls, principal: &str, topic: &str) -> Result<Vec<Acl>> {
///     let read = Acl::allow(principal, AclOperation::Read, AclResource::literal(AclResourceType::Topic, topic));
///     acls.create(&[read]).await?.remove(0)?;
///     acls.list(&AclFilter::matching(AclResourceType::Topic, topic)).await
/// }
/// ```
#[async_trait]
pub trait Acls: Debug + Send + Sync + 'static {
    /// Returns the entries that match, sorted.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if the broker has no authorizer,
    /// [`Denied`](crate::ErrorKind::Denied), [`Unavailable`](crate::ErrorKind::Unavailable).
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    async fn list(&self, filter: &AclFilter) -> Result<Vec<Acl>>;

    /// Creates entries; answer `i` is entry `i`'s. An entry that exists already is `Ok`.
    ///
    /// When the call returns, [`list`](Self::list) shows the entries; other brokers may apply them a moment later.
    ///
    /// # Errors
    /// As [`list`](Self::list), and per entry [`Invalid`](crate::ErrorKind::Invalid), for example for a principal
    /// without a type or a resource named `*` with the pattern [`Prefixed`](AclPattern::Prefixed).
    ///
    /// # Cancel safety
    /// Dropping the future leaves open which entries were created. Create them again.
    async fn create(&self, acls: &[Acl]) -> Result<Vec<Result<()>>>;

    /// Deletes exactly these entries; answer `i` is whether entry `i` existed.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    ///
    /// # Cancel safety
    /// Dropping the future leaves open which entries were deleted. Delete them again.
    async fn delete(&self, acls: &[Acl]) -> Result<Vec<Result<bool>>>;
}

/// An access control entry.
///
/// ```
/// use tidings_core::{Acl, AclOperation, AclResource, AclResourceType};
///
/// let orders = AclResource::prefixed(AclResourceType::Topic, "orders");
/// let acl = Acl::deny("User:mallory", AclOperation::Write, orders).with_host("10.0.0.7");
/// assert_eq!(acl.to_string(), "deny User:mallory write on topic orders* from 10.0.0.7");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Acl {
    /// The resource.
    pub resource: AclResource,
    /// The principal with its type, such as `User:alice`; `User:*` is every user.
    pub principal: String,
    /// The address of the client; `*` is every address.
    pub host: String,
    /// The operation.
    pub operation: AclOperation,
    /// Whether the operation is allowed or denied; a denial has precedence.
    pub permission: AclPermission,
}

impl Acl {
    /// Creates an entry that allows `principal` an operation, from any host.
    pub fn allow(principal: impl Into<String>, operation: AclOperation, resource: AclResource) -> Self {
        let permission = AclPermission::Allow;
        Self { resource, principal: principal.into(), host: ANY_HOST.into(), operation, permission }
    }

    /// Creates an entry that denies `principal` an operation, from any host.
    pub fn deny(principal: impl Into<String>, operation: AclOperation, resource: AclResource) -> Self {
        Self { permission: AclPermission::Deny, ..Self::allow(principal, operation, resource) }
    }

    /// Limits the entry to clients at this address.
    #[must_use]
    pub fn with_host(mut self, host: impl Into<String>) -> Self {
        self.host = host.into();
        self
    }
}

/// The host of an entry that applies to every address.
const ANY_HOST: &str = "*";

impl fmt::Display for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, principal, host, operation, permission } = self;
        write!(f, "{permission} {principal} {operation} on {resource} from {host}")
    }
}

/// The resource of an access control entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct AclResource {
    /// The type of the resource.
    pub kind: AclResourceType,
    /// The name, or its beginning. `*` with the pattern [`Literal`](AclPattern::Literal) is every name.
    pub name: String,
    /// Whether `name` is the whole name or its beginning.
    pub pattern: AclPattern,
}

impl AclResource {
    /// The name of the cluster as a resource.
    pub const CLUSTER: &str = "kafka-cluster";

    /// Creates the resource with exactly this name.
    pub fn literal(kind: AclResourceType, name: impl Into<String>) -> Self {
        Self { kind, name: name.into(), pattern: AclPattern::Literal }
    }

    /// Creates all resources whose names begin so.
    pub fn prefixed(kind: AclResourceType, name: impl Into<String>) -> Self {
        Self { kind, name: name.into(), pattern: AclPattern::Prefixed }
    }

    /// Creates the cluster as a resource.
    pub fn cluster() -> Self {
        Self::literal(AclResourceType::Cluster, Self::CLUSTER)
    }

    /// Returns whether an entry of this resource applies to the resource `name` of this type.
    pub fn covers(&self, kind: AclResourceType, name: &str) -> bool {
        let covers = match self.pattern {
            AclPattern::Literal => self.name == "*" || self.name == name,
            AclPattern::Prefixed => name.starts_with(&self.name),
            AclPattern::Unknown => false,
        };
        self.kind == kind && covers
    }
}

impl fmt::Display for AclResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.pattern == AclPattern::Prefixed { "*" } else { "" };
        write!(f, "{} {}{end}", self.kind, self.name)
    }
}

/// Selects access control entries; a field that is `None` matches any value. Default: all entries.
///
/// ```
/// use tidings_core::{Acl, AclFilter, AclOperation, AclResource, AclResourceType};
///
/// let acl = Acl::allow("User:alice", AclOperation::Read, AclResource::prefixed(AclResourceType::Topic, "orders"));
/// assert!(AclFilter::default().with_principal("User:alice").matches(&acl));
/// assert!(AclFilter::matching(AclResourceType::Topic, "orders-eu").matches(&acl), "it applies to that topic");
/// assert!(!AclFilter::of(AclResource::literal(AclResourceType::Topic, "orders")).matches(&acl));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AclFilter {
    /// The type of the resource.
    pub kind: Option<AclResourceType>,
    /// The name of the resource, as in the entry; with [`applies`](Self::applies), the name to which it applies.
    pub name: Option<String>,
    /// The pattern of the resource.
    pub pattern: Option<AclPattern>,
    /// Matches every entry that applies to `name`, including prefixes of it and `*`, instead of only those with this very
    /// name. Default: `false`.
    pub applies: bool,
    /// The principal.
    pub principal: Option<String>,
    /// The host, as in the entry.
    pub host: Option<String>,
    /// The operation, as in the entry.
    pub operation: Option<AclOperation>,
    /// The permission.
    pub permission: Option<AclPermission>,
}

impl AclFilter {
    /// Creates a filter for the entries of exactly this resource.
    pub fn of(resource: AclResource) -> Self {
        let AclResource { kind, name, pattern } = resource;
        Self { kind: Some(kind), name: Some(name), pattern: Some(pattern), ..Self::default() }
    }

    /// Creates a filter for the entries that apply to the resource of this name, by prefixes and by `*`, too.
    pub fn matching(kind: AclResourceType, name: impl Into<String>) -> Self {
        Self { kind: Some(kind), name: Some(name.into()), applies: true, ..Self::default() }
    }

    /// Selects the entries of a type of resource.
    #[must_use]
    pub fn with_kind(mut self, kind: AclResourceType) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Selects the entries of a principal.
    #[must_use]
    pub fn with_principal(mut self, principal: impl Into<String>) -> Self {
        self.principal = Some(principal.into());
        self
    }

    /// Selects the entries with this host.
    #[must_use]
    pub fn with_host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Selects the entries of an operation.
    #[must_use]
    pub fn with_operation(mut self, operation: AclOperation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Selects the entries that allow, or those that deny.
    #[must_use]
    pub fn with_permission(mut self, permission: AclPermission) -> Self {
        self.permission = Some(permission);
        self
    }

    /// Returns whether the filter selects `acl`.
    pub fn matches(&self, acl: &Acl) -> bool {
        fn is<T: PartialEq>(asked: Option<&T>, found: &T) -> bool {
            asked.is_none_or(|asked| asked == found)
        }
        let resource = &acl.resource;
        let name = match &self.name {
            Some(name) if self.applies => resource.covers(resource.kind, name),
            name => is(name.as_ref(), &resource.name),
        };
        name && is(self.kind.as_ref(), &resource.kind)
            && is(self.pattern.as_ref(), &resource.pattern)
            && is(self.principal.as_ref(), &acl.principal)
            && is(self.host.as_ref(), &acl.host)
            && is(self.operation.as_ref(), &acl.operation)
            && is(self.permission.as_ref(), &acl.permission)
    }
}

macro_rules! named {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$each:meta])* $variant:ident $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$each])* $variant,)*
            /// The broker reports a value that is not listed here; it can be listed, not created or deleted.
            Unknown,
        }

        impl $name {
            /// All values except [`Unknown`](Self::Unknown).
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Returns the stable name, in lower case with hyphens.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* Self::Unknown => "unknown" }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        /// Accepts the stable name, and the forms of Kafka's tools: other case, `_` or nothing for the hyphens.
        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                let found = Self::ALL.iter().copied().find(|value| plain(value.as_str()).eq(plain(text)));
                found.ok_or_else(|| unknown_name($what, text, Self::ALL.iter().map(|value| value.as_str())))
            }
        }
    };
}

/// Returns the letters of a name in lower case.
fn plain(name: &str) -> impl Iterator<Item = char> + '_ {
    name.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| c.to_ascii_lowercase())
}

/// Returns the error of an unknown name, which lists those that exist.
fn unknown_name(what: &str, text: &str, all: impl Iterator<Item = &'static str>) -> Error {
    let shown = &text[..text.floor_char_boundary(80)];
    let all = all.collect::<Vec<_>>().join(", ");
    Error::new(ErrorKind::Invalid, format!("{what} {shown:?}: expected one of {all}"))
}

named! {
    /// The type of a resource of an access control entry.
    ///
    /// ```
    /// use tidings_core::AclResourceType;
    ///
    /// assert_eq!("TRANSACTIONAL_ID".parse::<AclResourceType>()?, AclResourceType::TransactionalId);
    /// assert_eq!(AclResourceType::TransactionalId.to_string(), "transactional-id");
    /// # Ok::<(), tidings_core::Error>(())
    /// ```
    AclResourceType, "resource type" {
        /// A topic.
        Topic "topic",
        /// A consumer group.
        Group "group",
        /// The cluster, see [`AclResource::cluster`].
        Cluster "cluster",
        /// The transactional id of a producer.
        TransactionalId "transactional-id",
        /// A delegation token.
        DelegationToken "delegation-token",
        /// A user whose delegation tokens another one creates.
        User "user",
    }
}

named! {
    /// Whether the name of a resource is whole or a prefix.
    AclPattern, "pattern" {
        /// The name is the whole name; `*` is every name.
        Literal "literal",
        /// The name is the beginning of names.
        Prefixed "prefixed",
    }
}

named! {
    /// An operation that an access control entry allows or denies. Kafka's documentation lists which request needs which.
    ///
    /// ```
    /// use tidings_core::AclOperation;
    ///
    /// assert_eq!("DescribeConfigs".parse::<AclOperation>()?, AclOperation::DescribeConfigs);
    /// assert!("reed".parse::<AclOperation>().unwrap_err().to_string().contains("read"));
    /// # Ok::<(), tidings_core::Error>(())
    /// ```
    AclOperation, "operation" {
        /// All operations.
        All "all",
        /// To consume a topic, to join a group.
        Read "read",
        /// To publish.
        Write "write",
        /// To create topics.
        Create "create",
        /// To delete topics, records or groups.
        Delete "delete",
        /// To change partitions, entries of access control, credentials.
        Alter "alter",
        /// To see that a resource exists; implied by reading, writing, deleting and altering.
        Describe "describe",
        /// What brokers do among themselves.
        ClusterAction "cluster-action",
        /// To see configurations.
        DescribeConfigs "describe-configs",
        /// To change configurations.
        AlterConfigs "alter-configs",
        /// To publish idempotently, for brokers before version 3.0.
        IdempotentWrite "idempotent-write",
        /// To create delegation tokens for others.
        CreateTokens "create-tokens",
        /// To see the delegation tokens of others.
        DescribeTokens "describe-tokens",
        /// To take part in two-phase commits.
        TwoPhaseCommit "two-phase-commit",
    }
}

named! {
    /// Whether an access control entry allows or denies.
    AclPermission, "permission" {
        /// The operation is allowed.
        Allow "allow",
        /// The operation is denied, whatever other entries allow.
        Deny "deny",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for operation in AclOperation::ALL {
            assert_eq!(operation.as_str().parse::<AclOperation>().unwrap(), *operation);
        }
        assert_eq!("unknown".parse::<AclOperation>().unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn an_entry_covers_names_by_its_pattern() {
        let topic = AclResourceType::Topic;
        assert!(AclResource::literal(topic, "*").covers(topic, "orders"));
        assert!(AclResource::literal(topic, "orders").covers(topic, "orders"));
        assert!(!AclResource::literal(topic, "orders").covers(topic, "orders-eu"));
        assert!(AclResource::prefixed(topic, "orders").covers(topic, "orders-eu"));
        assert!(!AclResource::prefixed(topic, "*").covers(topic, "orders"), "a prefix is no wildcard");
        assert!(!AclResource::literal(topic, "*").covers(AclResourceType::Group, "orders"));
    }
}
