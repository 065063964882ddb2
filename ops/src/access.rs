//! Who may read what: roles and bearer tokens.

use std::fmt;
use std::fs;
use std::path::Path;

use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Uri};
use subtle::{Choice, ConstantTimeEq};
use tidings_core::{Error, ErrorKind, Result, Secret};

/// The role of a bearer token. Each role includes those before it.
///
/// [`Viewer`](Self::Viewer) suffices for everything that the endpoint serves today. Operations that change something
/// will need one of the others.
///
/// ```
/// use tidings_ops::Role;
///
/// assert!(Role::Admin.includes(Role::Viewer) && !Role::Viewer.includes(Role::Operator));
/// assert_eq!(Role::from_name("operator"), Some(Role::Operator));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Role {
    /// Reads metrics and the status.
    Viewer,
    /// Also pauses, resumes and drains.
    Operator,
    /// Also changes settings and deletes.
    Admin,
}

impl Role {
    const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

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

    /// Returns the environment variable of the role's token.
    const fn variable(self) -> &'static str {
        match self {
            Self::Viewer => "TIDINGS_OPS_VIEWER_TOKEN",
            Self::Operator => "TIDINGS_OPS_OPERATOR_TOKEN",
            Self::Admin => "TIDINGS_OPS_ADMIN_TOKEN",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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
pub struct Tokens(Vec<(Role, Secret)>);

impl Tokens {
    /// The minimum length of a token, in bytes.
    pub const MIN_LENGTH: usize = 16;
    /// The maximum number of tokens.
    pub const MAX: usize = 64;
    /// The environment variable that names a file of tokens.
    pub const FILE_VARIABLE: &str = "TIDINGS_OPS_TOKENS_FILE";

    /// Creates an empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a token.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid): the token is shorter than [`MIN_LENGTH`](Self::MIN_LENGTH), has a character
    /// that a header cannot carry, or there are more than [`MAX`](Self::MAX). The error does not repeat it.
    pub fn with_token(mut self, role: Role, token: impl Into<Secret>) -> Result<Self> {
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
        self.0.push((role, token));
        Ok(self)
    }

    /// Reads a file of lines `ROLE TOKEN`. Empty lines and those that begin with `#` are skipped.
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
            let parts = parts.and_then(|(role, token)| Some((Role::from_name(role)?, token.trim_start())));
            let added = match parts {
                Some((role, token)) => tokens.with_token(role, token),
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
            if let Some(token) = text(role.variable())? {
                tokens = tokens.with_token(role, token).map_err(|error| error.in_context(role.variable()))?;
            }
        }
        Ok(tokens)
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the highest role of a token. All are compared, and each in constant time: only its length can be
    /// measured.
    fn role_of(&self, token: &[u8]) -> Option<Role> {
        let equal = |known: &Secret| known.expose().as_bytes().ct_eq(token);
        let found: Vec<(Role, Choice)> = self.0.iter().map(|(role, known)| (*role, equal(known))).collect();
        found.into_iter().filter(|(_, is_equal)| bool::from(*is_equal)).map(|(role, _)| role).max()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roles: Vec<Role> = self.0.iter().map(|(role, _)| *role).collect();
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

/// Decides about requests.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    pub(crate) tokens: Tokens,
    pub(crate) reach: Reach,
}

impl Guard {
    pub(crate) fn check(&self, needed: Role, headers: &HeaderMap, uri: &Uri) -> Access {
        if self.tokens.is_empty() {
            let is_local = self.reach == Reach::Loopback && is_local(headers, uri);
            return if is_local { Access::Granted } else { Access::NoTokens };
        }
        match bearer(headers).and_then(|token| self.tokens.role_of(token)) {
            Some(role) if role.includes(needed) => Access::Granted,
            Some(_) => Access::Forbidden,
            None => Access::Unauthenticated,
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
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
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
        assert_eq!(of_file.role_of(ADMIN.as_bytes()), Some(Role::Admin));
        let set = |name: &str| (name == Role::Operator.variable()).then(|| Ok(VIEWER.into()));
        assert_eq!(Tokens::from_variables(set).unwrap().role_of(VIEWER.as_bytes()), Some(Role::Operator));

        let short = |name: &str| (name == Role::Admin.variable()).then(|| Ok("s3cr3t".into()));
        let error = Tokens::from_variables(short).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("TIDINGS_OPS_ADMIN_TOKEN") && !error.to_string().contains("s3cr3t"));
        fs::write(file.path(), "viewer viewer-token-0123456789\nroot s3cr3t-s3cr3t-s3cr3t\n").unwrap();
        let error = Tokens::from_file(file.path()).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains(&path) && !error.contains("s3cr3t"), "{error}");
        assert!(Tokens::from_file("/nowhere/tokens").unwrap_err().to_string().contains("/nowhere/tokens"));
    }
}
