//! Who may read what: roles and bearer tokens.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use subtle::{Choice, ConstantTimeEq};
use tidings_core::audit::Principal;
use tidings_core::{Error, ErrorKind, Result, Secret};
pub use tidings_ops_api::Role;
use uuid::Uuid;

/// Returns the environment variable of the role's token.
const fn variable(role: Role) -> &'static str {
    match role {
        Role::Operator => "TIDINGS_OPS_OPERATOR_TOKEN",
        Role::Admin => "TIDINGS_OPS_ADMIN_TOKEN",
        _ => "TIDINGS_OPS_VIEWER_TOKEN",
    }
}

/// Bearer tokens with their roles. They are never printed, and compared in constant time.
///
/// ```
/// use tidings_ops::{Role, Tokens};
///
/// # fn main() -> tidings_core::Result<()> {
/// let tokens = Tokens::new().with_token(Role::Viewer, "a long random text")?;
/// assert_eq!(format!("{tokens:?}"), "Tokens([Viewer])");
/// assert!(Tokens::new().with_token(Role::Viewer, "short").is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Tokens(Vec<Token>);

/// A token, with the name of its bearer.
#[derive(Clone)]
struct Token {
    role: Role,
    name: String,
    secret: Secret,
}

impl Tokens {
    /// The minimum length of a token, in bytes.
    pub const MIN_LENGTH: usize = 16;
    /// The maximum number of tokens.
    pub const MAX: usize = 64;
    /// The maximum length of a bearer's name, in bytes.
    pub const MAX_NAME: usize = 64;
    /// The environment variable that names a file of tokens.
    pub const FILE_VARIABLE: &str = "TIDINGS_OPS_TOKENS_FILE";

    /// Creates an empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a token, whose bearer has the name of its role.
    ///
    /// # Errors
    /// Those of [`with_named_token`](Self::with_named_token).
    pub fn with_token(self, role: Role, token: impl Into<Secret>) -> Result<Self> {
        self.with_named_token(role, role.as_str(), token)
    }

    /// Adds the token of a person or a program, whose name the audit and the records of decisions have.
    ///
    /// ```
    /// use tidings_ops::{Role, Tokens};
    ///
    /// # fn main() -> tidings_core::Result<()> {
    /// let tokens = Tokens::new().with_named_token(Role::Operator, "ann@example.org", "a long random text")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid): the name is empty, longer than [`MAX_NAME`](Self::MAX_NAME), or has other
    /// characters than letters, digits, `.`, `_`, `-` and `@`; the token is shorter than [`MIN_LENGTH`](Self::MIN_LENGTH), has a character
    /// that a header cannot carry, or there are more than [`MAX`](Self::MAX). The error does not repeat it.
    pub fn with_named_token(mut self, role: Role, name: &str, token: impl Into<Secret>) -> Result<Self> {
        let is_legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-' | b'@');
        if name.is_empty() || name.len() > Self::MAX_NAME || !name.bytes().all(is_legal) {
            return Err(invalid(format!(
                "the name of a token of the role {role} is not 1 to 64 of a-z, 0-9, ., _, - and @"
            )));
        }
        let token = token.into();
        let text = token.expose();
        if text.len() < Self::MIN_LENGTH {
            let least = Self::MIN_LENGTH;
            return Err(invalid(format!("a token of the role {role} is shorter than {least} characters")));
        }
        if text.trim() != text || !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(invalid(format!("a token of the role {role} has a character that is not printable ASCII")));
        }
        if self.0.len() == Self::MAX {
            return Err(invalid(format!("more than {} tokens", Self::MAX)));
        }
        self.0.push(Token { role, name: name.to_owned(), secret: token });
        Ok(self)
    }

    /// Reads a file of lines `ROLE TOKEN`, or `ROLE:NAME TOKEN` with the bearer's name. Empty lines and those that begin with `#` are skipped.
    ///
    /// The file is read once: restart the process after a change.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid): the file cannot be read, or has another form; the error names the file and the
    /// line.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let context = format!("read the tokens in {}", path.display());
        let text = fs::read_to_string(path).map_err(|e| Error::explained(ErrorKind::Invalid, &context, &e))?;
        Self::parse(&text).map_err(|error| error.in_context(context))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut tokens = Self::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let parts = line.split_once(char::is_whitespace);
            let parts = parts.and_then(|(bearer, token)| {
                let (role, name) = bearer.split_once(':').unwrap_or((bearer, bearer));
                Some((Role::from_name(role)?, name, token.trim_start()))
            });
            let added = match parts {
                Some((role, name, token)) => tokens.with_named_token(role, name, token),
                None => Err(invalid("expected viewer, operator or admin, a space, and a token")),
            };
            tokens = added.map_err(|error| error.in_context(format_args!("line {}", number + 1)))?;
        }
        Ok(tokens)
    }

    /// Reads the environment variables `TIDINGS_OPS_VIEWER_TOKEN`, `TIDINGS_OPS_OPERATOR_TOKEN` and
    /// `TIDINGS_OPS_ADMIN_TOKEN`, and the file that [`FILE_VARIABLE`](Self::FILE_VARIABLE) names. Each may be absent.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid): a value is wrong; the error names the variable, and does not repeat the token.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(|name| std::env::var_os(name).map(|value| value.into_string().map_err(drop)))
    }

    fn from_variables(read: impl Fn(&str) -> Option<Result<String, ()>>) -> Result<Self> {
        let text = |name: &str| match read(name) {
            Some(Err(())) => Err(invalid(format!("{name} is not valid UTF-8"))),
            value => Ok(value.and_then(Result::ok)),
        };
        let mut tokens = match text(Self::FILE_VARIABLE)? {
            Some(path) => Self::from_file(path).map_err(|error| error.in_context(Self::FILE_VARIABLE))?,
            None => Self::new(),
        };
        for role in Role::ALL {
            if let Some(token) = text(variable(role))? {
                tokens = tokens.with_token(role, token).map_err(|error| error.in_context(variable(role)))?;
            }
        }
        Ok(tokens)
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the bearer of a token, of several the one with the highest role. All are compared, and each in constant
    /// time: only its length can be measured.
    fn bearer_of(&self, token: &[u8]) -> Option<&Token> {
        let equal = |known: &Token| known.secret.expose().as_bytes().ct_eq(token);
        let found: Vec<(&Token, Choice)> = self.0.iter().map(|known| (known, equal(known))).collect();
        let equal = found.into_iter().filter(|(_, is_equal)| bool::from(*is_equal));
        equal.map(|(known, _)| known).max_by_key(|known| known.role)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roles: Vec<Role> = self.0.iter().map(|token| token.role).collect();
        f.debug_tuple("Tokens").field(&roles).finish()
    }
}

fn invalid(text: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Invalid, text)
}

/// Where requests come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// A listener on a loopback address.
    Loopback,
    /// Any other listener, or the user's own server.
    Anywhere,
}

/// The decision about a request for something that is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Granted,
    /// There is no token, or a wrong one.
    Unauthenticated,
    /// The token's role does not suffice.
    Forbidden,
    /// No token could ever be right, and the request is not local.
    NoTokens,
}

impl Access {
    /// Returns the status code of a refusal.
    pub(crate) const fn code(self) -> StatusCode {
        match self {
            Self::Granted => StatusCode::OK,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::NoTokens => StatusCode::FORBIDDEN,
        }
    }

    /// Returns the text of a refusal.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Granted => "",
            Self::Unauthenticated => "a bearer token is needed\n",
            Self::Forbidden => "the role of the token does not suffice\n",
            Self::NoTokens => {
                "only local requests to a loopback address may read this without a token; no token is configured\n"
            }
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The name of the token's bearer; `local` without tokens.
    pub(crate) name: String,
    pub(crate) role: Role,
    /// Whether a token says so.
    pub(crate) is_known: bool,
    /// The id of the request, which all records of it have.
    pub(crate) request: String,
    /// The address of the client.
    pub(crate) client: Option<ClientAddress>,
}

/// The peer address of a connection: that of a client, or of a proxy. Requests to a server of the user's own have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

/// Returns a principal with the address of its client, if that is known.
pub(crate) fn at_address(principal: Principal, client: Option<ClientAddress>) -> Principal {
    match client {
        // A listener on all addresses reports IPv4 clients as IPv4-mapped IPv6 addresses.
        Some(ClientAddress(address)) => principal.with_address(address.to_canonical().to_string()),
        None => principal,
    }
}

impl Caller {
    fn new(name: &str, role: Role, is_known: bool) -> Self {
        Self { name: name.to_owned(), role, is_known, request: Uuid::now_v7().to_string(), client: None }
    }

    /// Returns the caller as the audit has it.
    pub(crate) fn principal(&self) -> Principal {
        let how = if self.is_known { "token" } else { "loopback" };
        at_address(Principal::new(&self.name).with_authentication(how), self.client)
    }

    /// Returns who decides, for the records of it: the bearer of the token, with the name that a client gives.
    pub(crate) fn decides(&self, by: &str) -> String {
        match (by, self.is_known) {
            ("", _) => self.name.clone(),
            (by, false) => by.to_owned(),
            (by, true) if by == self.name => by.to_owned(),
            (by, true) => format!("{} for {by}", self.name),
        }
    }
}

/// Decides about requests.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    pub(crate) tokens: Tokens,
    pub(crate) reach: Reach,
}

impl Guard {
    /// Returns who asks, or why that is not known.
    pub(crate) fn identify(&self, headers: &HeaderMap, uri: &Uri) -> Result<Caller, Access> {
        if self.tokens.is_empty() {
            let is_local = self.reach == Reach::Loopback && is_local(headers, uri);
            return if is_local { Ok(Caller::new("local", Role::Admin, false)) } else { Err(Access::NoTokens) };
        }
        let found = bearer(headers).and_then(|token| self.tokens.bearer_of(token));
        found.map(|token| Caller::new(&token.name, token.role, true)).ok_or(Access::Unauthenticated)
    }

    pub(crate) fn check(&self, needed: Role, headers: &HeaderMap, uri: &Uri) -> Access {
        match self.identify(headers, uri) {
            Ok(caller) if caller.role.includes(needed) => Access::Granted,
            Ok(_) => Access::Forbidden,
            Err(access) => access,
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// Returns whether a request to a loopback listener comes from this host. A page that rebinds its DNS name to a
/// loopback address sends that name, and a proxy on this host names the client that it forwards for.
fn is_local(headers: &HeaderMap, uri: &Uri) -> bool {
    let forwards = |name: &HeaderName| {
        let name = name.as_str();
        name.starts_with("x-forwarded") || matches!(name, "forwarded" | "via" | "x-real-ip")
    };
    if headers.keys().any(forwards) {
        return false;
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).and_then(|host| host.parse::<Authority>().ok());
    let Some(host) = uri.authority().cloned().or(host) else { return false };
    let host = host.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const VIEWER: &str = "viewer-token-0123456789";
    const ADMIN: &str = "admin-token-0123456789";

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn guard(reach: Reach, tokens: &[(Role, &str)]) -> Guard {
        let add = |tokens: Tokens, (role, token): &(Role, &str)| tokens.with_token(*role, *token).unwrap();
        Guard { tokens: tokens.iter().fold(Tokens::new(), add), reach }
    }

    fn check(guard: &Guard, needed: Role, pairs: &[(&'static str, &'static str)]) -> Access {
        guard.check(needed, &headers(pairs), &Uri::from_static("/status"))
    }

    #[test]
    fn without_tokens_only_loopback_is_open_and_only_to_local_requests() {
        let (local, open) = (guard(Reach::Loopback, &[]), guard(Reach::Anywhere, &[]));
        for host in ["127.0.0.1:9400", "localhost:9400", "[::1]:9400", "127.8.8.8"] {
            assert_eq!(check(&local, Role::Viewer, &[("host", host)]), Access::Granted, "{host}");
            assert_eq!(check(&open, Role::Viewer, &[("host", host)]), Access::NoTokens, "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example:9400", "10.0.0.1"] {
            assert_eq!(check(&local, Role::Viewer, &[("host", host)]), Access::NoTokens, "{host}");
        }
        assert_eq!(check(&local, Role::Viewer, &[]), Access::NoTokens);
        for name in ["x-forwarded-for", "x-forwarded-host", "forwarded", "via", "x-real-ip"] {
            let forwarded = [("host", "localhost"), (name, "10.0.0.1")];
            assert_eq!(check(&local, Role::Viewer, &forwarded), Access::NoTokens, "{name}");
        }
    }

    #[test]
    fn tokens_are_needed_everywhere_once_there_are_any() {
        let guard = guard(Reach::Loopback, &[(Role::Viewer, VIEWER), (Role::Admin, ADMIN)]);
        let viewer = [("host", "localhost"), ("authorization", "Bearer viewer-token-0123456789")];
        let admin = [("authorization", "bearer  admin-token-0123456789")];
        assert_eq!(check(&guard, Role::Viewer, &[("host", "localhost")]), Access::Unauthenticated);
        assert_eq!(check(&guard, Role::Viewer, &viewer), Access::Granted);
        assert_eq!(check(&guard, Role::Operator, &viewer), Access::Forbidden);
        assert_eq!(check(&guard, Role::Admin, &admin), Access::Granted);
        for wrong in ["Bearer", "Bearer ", "Basic viewer-token-0123456789", "viewer-token-0123456789", "Bearer viewer"]
        {
            let wrong = [("authorization", wrong)];
            assert_eq!(check(&guard, Role::Viewer, &wrong), Access::Unauthenticated, "{wrong:?}");
        }
    }

    #[test]
    fn the_environment_and_a_file_give_tokens_and_errors_name_the_place() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "# people\n\nviewer  viewer-token-0123456789\nadmin admin-token-0123456789\n").unwrap();
        let path = file.path().display().to_string();
        let of_file = Tokens::from_variables(|name| (name == Tokens::FILE_VARIABLE).then(|| Ok(path.clone()))).unwrap();
        assert_eq!(of_file.bearer_of(ADMIN.as_bytes()).map(|token| token.role), Some(Role::Admin));
        let set = |name: &str| (name == variable(Role::Operator)).then(|| Ok(VIEWER.into()));
        let tokens = Tokens::from_variables(set).unwrap();
        assert_eq!(tokens.bearer_of(VIEWER.as_bytes()).map(|token| token.role), Some(Role::Operator));

        let short = |name: &str| (name == variable(Role::Admin)).then(|| Ok("s3cr3t".into()));
        let error = Tokens::from_variables(short).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("TIDINGS_OPS_ADMIN_TOKEN") && !error.to_string().contains("s3cr3t"));
        fs::write(file.path(), "viewer viewer-token-0123456789\nroot s3cr3t-s3cr3t-s3cr3t\n").unwrap();
        let error = Tokens::from_file(file.path()).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains(&path) && !error.contains("s3cr3t"), "{error}");
        assert!(Tokens::from_file("/nowhere/tokens").unwrap_err().to_string().contains("/nowhere/tokens"));
    }
}
