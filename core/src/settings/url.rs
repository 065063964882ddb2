//! Connection URLs of transports and stores.
//!
//! The URL is split by hand only where RFC 3986 has no list of hosts; each part is then checked by `iri-string`. A
//! password with an unescaped `/`, `?`, `#` or `@` would move the boundaries of the parts, so a URL in which that may
//! have happened is refused before any part of it is shown.

use std::fmt;

use iri_string::types::UriStr;
use percent_encoding::percent_decode_str;

use super::address::Address;
use super::value::{Setting, SettingError, closest};
use crate::{Result, Secret};

/// The expected form of user, password, path and parameters, in errors.
const ENCODED: &str = "percent-encoded text: %3A for :, %2F for /, %3F for ?, %23 for #, %40 for @ and %25 for %";

/// A connection URL by its parts: `scheme://user:password@host:port,host:port/path?name=value`.
///
/// The grammar is RFC 3986's, with a list of hosts. Other texts are refused, not repaired, and no error repeats any
/// part of the URL. `Debug` also hides the user, the password and the values of parameters.
///
/// ```
/// use tidings_core::settings::ConnectionUrl;
///
/// let url = ConnectionUrl::parse("kafka://ann:s3cr3t@a:9092,b:9092?linger=5ms")?;
/// assert_eq!((url.scheme(), url.hosts().len()), ("kafka", 2));
/// assert_eq!(url.password().map(|password| password.expose()), Some("s3cr3t"));
///
/// // A ? that is not percent-encoded ends the hosts, so that `s3cr3t@a` would be a parameter.
/// let error = ConnectionUrl::parse("kafka://ann:12?s3cr3t@a").unwrap_err();
/// assert!(!format!("{error} {error:?}").contains("s3cr3t"));
/// # Ok::<(), tidings_core::Error>(())
/// ```
#[derive(Clone)]
pub struct ConnectionUrl {
    scheme: String,
    username: Option<Secret>,
    password: Option<Secret>,
    hosts: Vec<Address>,
    path: String,
    parameters: Vec<(String, Secret)>,
}

impl ConnectionUrl {
    /// Parses `url`.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid), with the part and the expected form.
    pub fn parse(url: &str) -> Result<Self> {
        Ok(Self::parts(url)?)
    }

    /// Parses as [`parse`](Self::parse) does, with the part in [`SettingError::field`].
    ///
    /// # Errors
    /// Those of [`parse`](Self::parse).
    pub fn parts(url: &str) -> Result<Self, SettingError> {
        let expected = |expected: &str| SettingError::expected("the URL", expected);
        let (scheme, rest) = url.split_once("://").ok_or_else(|| expected("a scheme and :// at the beginning"))?;
        UriStr::new(&format!("{scheme}:")).map_err(|_| expected("a scheme of letters and digits before ://"))?;
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        // Most likely part of a password; its host would be the user's name.
        if tail.contains('@') {
            let text = format!("no @ after the hosts; user, password and values are {ENCODED}");
            return Err(expected(&text));
        }
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        let (username, password) = user.map_or(Ok((None, None)), credentials)?;
        let hosts = if hosts.is_empty() { Vec::new() } else { addresses(hosts)? };
        let (path, parameters) = path_and_parameters(tail)?;
        Ok(Self { scheme: scheme.to_ascii_lowercase(), username, password, hosts, path, parameters })
    }

    /// Returns the scheme in lower case: `"kafka"`.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Returns the user, decoded. It may be a token without a password.
    pub fn username(&self) -> Option<&Secret> {
        self.username.as_ref()
    }

    /// Returns the password, decoded.
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// Returns the hosts; may be empty.
    pub fn hosts(&self) -> &[Address] {
        &self.hosts
    }

    /// Returns the path, decoded, without its leading slash.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Calls `set` with each parameter, in order.
    ///
    /// # Errors
    /// Those of `set`; a name that is not among `known`, and a duplicate. The name of an unknown parameter is
    /// repeated only if it is close to a known one: it may be part of a password that contains a `?`.
    ///
    /// ```
    /// use tidings_core::settings::ConnectionUrl;
    ///
    /// let url = ConnectionUrl::parse("kafka://a:9092?acks=all&linger=5ms")?;
    /// let mut names = Vec::new();
    /// url.for_each_parameter(&["acks", "linger"], |setting| {
    ///     names.push(setting.name());
    ///     Ok(())
    /// })?;
    /// assert_eq!(names, ["acks", "linger"]);
    /// # Ok::<(), tidings_core::Error>(())
    /// ```
    pub fn for_each_parameter<'a>(
        &'a self,
        known: &[&str],
        mut set: impl FnMut(Setting<'a>) -> Result<(), SettingError>,
    ) -> Result<(), SettingError> {
        for (place, (name, value)) in (1..).zip(&self.parameters) {
            if !known.contains(&name.as_str()) {
                let shown = closest(name, known).map_or_else(|| format!("parameter {place}"), |_| name.clone());
                let error = SettingError::unknown(name, known);
                return Err(SettingError::new(shown, error.problem()));
            }
            if self.parameters.iter().take(place - 1).any(|(earlier, _)| earlier == name) {
                return Err(SettingError::new(name, "duplicate parameter"));
            }
            set(Setting::new(name, value.expose()))?;
        }
        Ok(())
    }

    /// Iterates over the names of the parameters, in order.
    pub fn parameter_names(&self) -> impl Iterator<Item = &str> {
        self.parameters.iter().map(|(name, _)| name.as_str())
    }

    /// Returns whether there is a parameter of this name.
    pub fn has_parameter(&self, name: &str) -> bool {
        self.parameters.iter().any(|(known, _)| known == name)
    }
}

impl fmt::Debug for ConnectionUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionUrl")
            .field("scheme", &self.scheme)
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

/// Splits `user:password` at its first colon. An empty user is no user; an empty password stays one.
fn credentials(user: &str) -> Result<(Option<Secret>, Option<Secret>), SettingError> {
    if UriStr::new(&format!("x://{user}@h")).is_err() {
        return Err(SettingError::expected("the user and the password", ENCODED));
    }
    let (name, password) = user.split_once(':').map_or((user, None), |(name, password)| (name, Some(password)));
    let name = Some(decoded("the user", name)?).filter(|name| !name.is_empty()).map(Secret::from);
    let password = password.map(|password| decoded("the password", password).map(Secret::from)).transpose()?;
    Ok((name, password))
}

/// Parses the comma-separated hosts; an error names the host by its number, never by its text.
fn addresses(hosts: &str) -> Result<Vec<Address>, SettingError> {
    let all: Vec<_> = hosts.split(',').collect();
    let named = |place: usize| if all.len() == 1 { "the host".to_owned() } else { format!("host {place}") };
    (1..).zip(&all).map(|(place, host)| Address::parse_or_socket(&named(place), host)).collect()
}

/// Names and values of the parameters, decoded, in the order of the URL.
type Parameters = Vec<(String, Secret)>;

/// Parses what follows the hosts. A fragment is refused: it is most likely the rest of a password.
fn path_and_parameters(tail: &str) -> Result<(String, Parameters), SettingError> {
    // Many users write the brackets of `options[x]` without encoding.
    let uri = format!("x://h{}", tail.replace('[', "%5B").replace(']', "%5D"));
    let part = if tail.contains('?') { "the path or the parameters" } else { "the path" };
    let uri = UriStr::new(&uri).map_err(|_| SettingError::expected(part, ENCODED))?;
    if uri.fragment().is_some() {
        return Err(SettingError::expected("the URL", "%23 for a #"));
    }
    let path = decoded("the path", uri.path_str().strip_prefix('/').unwrap_or_default())?;
    let mut parameters = Vec::new();
    for (place, pair) in (1..).zip(uri.query_str().unwrap_or_default().split('&').filter(|pair| !pair.is_empty())) {
        let field = format!("parameter {place}");
        let (name, value) = pair.split_once('=').ok_or_else(|| SettingError::expected(&field, "name=value"))?;
        parameters.push((decoded(&field, name)?, decoded(&field, value)?.into()));
    }
    Ok((path, parameters))
}

/// Decodes percent-encoding, which was validated before.
pub(super) fn decoded(part: &str, text: &str) -> Result<String, SettingError> {
    let text = percent_decode_str(text).decode_utf8();
    let text = text.map_err(|_| SettingError::expected(part, "percent-encoded UTF-8"))?;
    if text.contains('\0') {
        return Err(SettingError::expected(part, "text without zero bytes"));
    }
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_split_into_its_parts() {
        let url = ConnectionUrl::parse("KAFKA://u%40x:p%3A1@a:1,b,[::1]:2/db%20x?a=1%262&options[x]=y+z&b=").unwrap();
        assert_eq!((url.scheme(), url.path()), ("kafka", "db x"));
        assert_eq!(url.username().map(Secret::expose), Some("u@x"));
        assert_eq!(url.password().map(Secret::expose), Some("p:1"));
        let hosts: Vec<_> = url.hosts().iter().map(ToString::to_string).collect();
        assert_eq!(hosts, ["a:1", "b", "[::1]:2"]);
        let mut seen = Vec::new();
        let keep = |setting: Setting<'_>| {
            seen.push(format!("{}={}", setting.name(), setting.text()));
            Ok(())
        };
        url.for_each_parameter(&["a", "options[x]", "b"], keep).unwrap();
        assert_eq!(seen, ["a=1&2", "options[x]=y+z", "b="]);
        let bare = ConnectionUrl::parse("memory://").unwrap();
        assert!(bare.hosts().is_empty() && bare.username().is_none() && bare.password().is_none());
    }

    #[test]
    fn an_unknown_parameter_is_named_only_where_it_is_a_slip() {
        let none = |_: Setting<'_>| Ok(());
        let error = |url: &str| {
            let url = ConnectionUrl::parse(url).unwrap();
            url.for_each_parameter(&["linger", "rack"], none).unwrap_err().to_string()
        };
        assert_eq!(error("kafka://a?lingr=1"), "lingr: no such setting, did you mean linger?");
        assert_eq!(error("kafka://a?rack=1&s3cr3t=2"), "parameter 2: no such setting, expected linger, rack");
        assert_eq!(error("kafka://a?rack=1&rack=2"), "rack: duplicate parameter");
    }

    #[test]
    fn what_is_no_url_is_refused_and_not_repeated() {
        for url in [
            "",
            "s3cr3t",
            "user:s3cr3t@host",
            "s3 cr3t://host",
            "9s3cr3t://host",
            "kafka://user:s3cr3t]",
            "kafka://user:s3cr3t",
            "kafka://user:s3cr3t@host:x",
            "kafka://user:s3cr3t@host:99999",
            "kafka://user:12?s3cr3t@host",
            "kafka://user:12/s3cr3t@host",
            "kafka://user:12#s3cr3t@host",
            "kafka://user:12#s3cr3t",
            "kafka://user:12?s3cr3t",
            "kafka://user:s3cr3t%zz@host",
            "kafka://user:s3cr3t%@host",
            "kafka://user:s3cr3t%ff@host",
            "kafka://user:s3cr3t%00@host",
            "kafka://user:s3 cr3t@host",
            "kafka://user:s3cr3t^@host",
            "kafka://user:s3cr3t\n@host",
            "kafka://user@s3cr3t@host",
            "kafka://user:\u{fc}s3cr3t@host",
            "kafka://a:1,user:s3cr3t",
            "kafka://a:1,,b:1",
            "kafka://a:1,",
            "kafka://host/s3cr3t%zz",
            "kafka://host?x=s3cr3t%zz",
            "kafka://host?x=s3cr3t%ff",
            "kafka://host?x=s3 cr3t",
            "kafka://host?s3cr3t%00=",
        ] {
            let error = ConnectionUrl::parse(url).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Invalid);
            let shown = format!("{error} {error:?} {error:#?} {}", error.report());
            assert!(!shown.contains("cr3t"), "{url}: {shown}");
            assert!(error.to_string().contains("expected"), "{url}: {error}");
        }
    }
}
