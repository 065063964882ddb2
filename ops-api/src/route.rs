//! The one table of routes: what each does, and the role that it needs. The server enforces it below its router, and
//! the client finds its paths here.

use std::fmt;

/// The role of a bearer token. Each role includes those before it.
///
/// ```
/// use tidings_ops_api::Role;
///
/// assert!(Role::Admin.includes(Role::Viewer) && !Role::Viewer.includes(Role::Operator));
/// assert_eq!(Role::from_name("operator"), Some(Role::Operator));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Role {
    /// Reads metrics, the status, topics, groups, and letters without their payloads: it selects
    /// none by error or key, whose counts would reveal them.
    Viewer,
    /// Also reads payloads and publishes; pauses, resumes, drains, seeks and skips in services; moves offsets;
    /// redrives, parks and discards letters.
    Operator,
    /// Also creates, alters and deletes topics, creates and deletes ACLs, deletes groups, alters configurations, buries
    /// letters, and reads the audit trail.
    Admin,
}

impl Role {
    /// All roles, the lowest first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// Returns the name in token files, such as `"viewer"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// Returns the role of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }

    /// Returns whether a token of this role may do what `needed` may.
    pub fn includes(self, needed: Self) -> bool {
        self >= needed
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The method of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// Reads; names are in the path.
    Get,
    /// Has a JSON body.
    Post,
}

impl Method {
    /// Returns the name in requests, such as `"GET"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

macro_rules! routes { ($($name:ident: $method:ident $path:literal $role:ident $effect:ident $does:literal;)*) => {
    /// A route of the API. The table in the crate's docs lists them.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum Route { $( #[doc = concat!("`", $path, "`: ", $does, ".")] $name, )* }

    impl Route {
        /// All routes.
        pub const ALL: &[Self] = &[$(Self::$name),*];

        /// Returns the method.
        pub const fn method(self) -> Method {
            match self { $(Self::$name => Method::$method),* }
        }

        /// Returns the path, in which `{name}` stands for a percent-encoded name.
        pub const fn path(self) -> &'static str {
            match self { $(Self::$name => $path),* }
        }

        /// Returns the lowest role that may use it.
        pub const fn role(self) -> Role {
            match self { $(Self::$name => Role::$role),* }
        }

        /// Returns whether it changes something: such routes are refused in read-only mode.
        pub const fn changes(self) -> bool {
            match self { $(Self::$name => matches!(stringify!($effect).as_bytes(), b"changes")),* }
        }

        /// Returns the effect, such as `"creates topics"`.
        pub const fn does(self) -> &'static str {
            match self { $(Self::$name => $does),* }
        }
    }
} }

routes! {
    About: Get "/api/v1" Viewer reads "names what the endpoint offers, and the role of the token";
    Topics: Get "/api/v1/topics" Viewer reads "lists topics";
    Topic: Get "/api/v1/topics/{name}" Viewer reads "describes a topic";
    TopicsDescribe: Post "/api/v1/topics:describe" Viewer reads "describes topics";
    TopicsCreate: Post "/api/v1/topics:create" Admin changes "creates topics";
    TopicsGrow: Post "/api/v1/topics:grow" Admin changes "adds partitions to a topic";
    TopicsAlter: Post "/api/v1/topics:alter" Admin changes "changes settings of a topic";
    TopicsDelete: Post "/api/v1/topics:delete" Admin changes "deletes topics";
    Groups: Get "/api/v1/groups" Viewer reads "lists groups";
    Group: Get "/api/v1/groups/{name}" Viewer reads "describes a group";
    GroupLag: Get "/api/v1/groups/{name}/lag" Viewer reads "returns the lag of a group";
    GroupsDescribe: Post "/api/v1/groups:describe" Viewer reads "describes groups";
    GroupsLag: Post "/api/v1/groups:lag" Viewer reads "returns the lags of groups";
    GroupsPlanReset: Post "/api/v1/groups:plan-reset" Viewer reads "returns what a reset of offsets would change";
    GroupsReset: Post "/api/v1/groups:reset" Operator changes "moves the committed offsets of a group";
    GroupsAlterOffsets: Post "/api/v1/groups:alter-offsets" Operator changes "sets committed offsets of a group, one by one";
    GroupsDelete: Post "/api/v1/groups:delete" Admin changes "deletes a group";
    Health: Get "/api/v1/health" Viewer reads "returns the health of the broker";
    Services: Get "/api/v1/services" Viewer reads "lists the services of the endpoint";
    Service: Get "/api/v1/services/{name}" Viewer reads "describes a service";
    Audit: Get "/api/v1/audit" Admin reads "reads the audit trail, a page at a time: `?after=POSITION&limit=N`";
    ServicesPause: Post "/api/v1/services:pause" Operator changes "pauses this instance of a service, or partitions of it, which another instance reads on after a rebalance";
    ServicesResume: Post "/api/v1/services:resume" Operator changes "resumes a service, or partitions of it";
    ServicesDrain: Post "/api/v1/services:drain" Operator changes "drains a service, which then ends";
    ServicesSeek: Post "/api/v1/services:seek" Operator changes "moves the position of a partition of a service";
    ServicesSkip: Post "/api/v1/services:skip" Operator changes "skips what holds a partition of a service";
    RecordsOffsets: Post "/api/v1/records:offsets" Viewer reads "returns the offsets of a place on partitions";
    RecordsRead: Post "/api/v1/records:read" Operator reads "reads records of a partition";
    RecordsPublish: Post "/api/v1/records:publish" Operator changes "publishes records";
    StoresDone: Post "/api/v1/stores:done" Viewer reads "returns which events an idempotency store has as done";
    Cluster: Get "/api/v1/cluster" Viewer reads "describes the brokers";
    ConfigsDescribe: Post "/api/v1/configs:describe" Viewer reads "describes the configuration of a resource, without secrets";
    ConfigsAlter: Post "/api/v1/configs:alter" Admin changes "changes the configuration of a resource";
    AclsList: Post "/api/v1/acls:list" Viewer reads "lists ACLs";
    AclsCreate: Post "/api/v1/acls:create" Admin changes "creates ACLs";
    AclsDelete: Post "/api/v1/acls:delete" Admin changes "deletes ACLs";
    Letters: Get "/api/v1/dead-letters" Viewer reads "lists the stores of dead letters";
    LettersList: Post "/api/v1/dead-letters:list" Viewer reads "lists letters without their records and the texts of their errors; an operator may select by error or key";
    LettersRead: Post "/api/v1/dead-letters:read" Operator reads "lists whole letters";
    LettersCount: Post "/api/v1/dead-letters:count" Viewer reads "counts letters; an operator may select by error or key";
    LettersCheck: Post "/api/v1/dead-letters:check" Viewer reads "checks that letters of topics can be buried";
    LettersBury: Post "/api/v1/dead-letters:bury" Admin changes "buries letters";
    LettersResolve: Post "/api/v1/dead-letters:resolve" Operator changes "closes or parks letters";
    LettersLease: Post "/api/v1/dead-letters:lease" Operator changes "leases letters to a redrive";
    LettersResolveLeased: Post "/api/v1/dead-letters:resolve-leased" Operator changes "closes letters of a lease";
    LettersEndLease: Post "/api/v1/dead-letters:end-lease" Operator changes "gives leased letters back";
    LettersNoteRefused: Post "/api/v1/dead-letters:note-refused" Operator changes "notes letters that a redrive could not publish";
    LettersRedrive: Post "/api/v1/dead-letters:redrive" Operator changes "publishes letters to their topics again";
    LettersDiscard: Post "/api/v1/dead-letters:discard" Operator changes "closes letters that are not needed any more";
}

impl Route {
    /// Returns the path with this name in place of `{name}`, percent-encoded.
    #[cfg(feature = "client")]
    pub(crate) fn path_of(self, name: &str) -> String {
        let encoded = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
        self.path().replace("{name}", &encoded.to_string())
    }
}

/// Returns the table of routes as Markdown.
///
/// ```
/// assert!(tidings_ops_api::routes_table().contains("| `GET /api/v1/topics` | viewer | lists topics |"));
/// ```
pub fn routes_table() -> String {
    let line = |route: &Route| {
        let (method, path, role) = (route.method().as_str(), route.path(), route.role());
        format!("| `{method} {path}` | {role} | {} |\n", route.does())
    };
    let lines: String = Route::ALL.iter().map(line).collect();
    format!("| route | role | effect |\n|---|---|---|\n{lines}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_documented_table_is_this_one() {
        if std::env::var_os("TIDINGS_BLESS").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/routes.md"), routes_table()).unwrap();
        }
        assert_eq!(include_str!("docs/routes.md"), routes_table(), "run the test with TIDINGS_BLESS=1");
    }

    #[test]
    fn a_route_is_there_once_and_no_viewer_changes_anything() {
        let all: HashSet<_> = Route::ALL.iter().map(|route| (route.method().as_str(), route.path())).collect();
        assert_eq!(all.len(), Route::ALL.len());
        for route in Route::ALL {
            assert!(!route.changes() || route.role() > Role::Viewer, "{route:?}");
            assert!(!route.changes() || route.method() == Method::Post, "{route:?}: a link must change nothing");
        }
    }
}
