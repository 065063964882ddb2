//! Addresses, `host:port`, validated before any connection is made.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use iri_string::types::UriStr;

use super::SettingError;
use super::url::decoded;

/// The limit of a DNS name.
const LONGEST_NAME: usize = 253;
/// The limit of a DNS label, a part of a name between two dots.
const LONGEST_LABEL: usize = 63;
/// The expected form of a host, in errors.
const HOST: &str =
    "a name of letters, digits, - and _, an IPv4 address, or an IPv6 address in brackets ([::1]) as the host";

/// A host and, optionally, a port: `broker-1:9092`, `10.0.0.7`, `[::1]:5432`.
///
/// ```
/// use tidings_core::settings::Address;
///
/// let address = Address::parse("broker", "[::1]:9092")?;
/// assert_eq!((address.host(), address.port()), ("[::1]", Some(9092)));
/// assert!(Address::parse("broker", "a:9092;b:9092").is_err());
/// # Ok::<(), tidings_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: Option<u16>,
}

impl Address {
    /// Parses `text`, the value of the setting or URL part `field`.
    ///
    /// # Errors
    /// If the address is not one that a connection can be made to. `text` is not repeated: it may be a password whose
    /// host was omitted.
    pub fn parse(field: &str, text: &str) -> Result<Self, SettingError> {
        let address = Self::split(field, text)?;
        if !is_host(&address.host) {
            return Err(SettingError::expected(field, HOST));
        }
        Ok(address)
    }

    /// Parses as [`parse`](Self::parse) does, or accepts the percent-encoded directory of a Unix socket in place of
    /// the host.
    pub(super) fn parse_or_socket(field: &str, text: &str) -> Result<Self, SettingError> {
        if !text.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("%2f")) {
            return Self::parse(field, text);
        }
        let address = Self::split(field, text)?;
        Ok(Self { host: decoded(field, &address.host)?, ..address })
    }

    /// Splits by the grammar of RFC 3986.
    fn split(field: &str, text: &str) -> Result<Self, SettingError> {
        let uri = format!("tcp://{text}");
        let uri = UriStr::new(&uri).map_err(|_| SettingError::expected(field, split_hint(text)))?;
        let parts = uri.authority_components().filter(|parts| parts.userinfo().is_none());
        let alone = uri.path_str().is_empty() && uri.query_str().is_none() && uri.fragment().is_none();
        let Some(parts) = parts.filter(|_| alone) else {
            return Err(SettingError::expected(field, "host:port and nothing else"));
        };
        if parts.host().is_empty() {
            return Err(SettingError::expected(field, "a host"));
        }
        let port = parts.port().map(|port| parse_port(field, port)).transpose()?;
        Ok(Self { host: parts.host().to_owned(), port })
    }

    /// Returns the host; an IPv6 address is in brackets. In a [`ConnectionUrl`](super::ConnectionUrl) it may be the
    /// directory of a Unix socket, which begins with a slash.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Sets the port to `port` if there is none.
    ///
    /// ```
    /// use tidings_core::settings::Address;
    ///
    /// let with_port = |text| Address::parse("broker", text).map(|address| address.or_port(9092).to_string());
    /// assert_eq!(with_port("a").as_deref(), Ok("a:9092"));
    /// assert_eq!(with_port("a:1234").as_deref(), Ok("a:1234"));
    /// ```
    #[must_use]
    pub fn or_port(mut self, port: u16) -> Self {
        self.port.get_or_insert(port);
        self
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Returns the likely mistake in a `text` that is not an address by the grammar.
fn split_hint(text: &str) -> &'static str {
    if text.contains("://") {
        "host:port without a scheme"
    } else if text.contains([';', ',']) || text.contains(char::is_whitespace) {
        "host:port without blanks; commas separate several"
    } else if Ipv6Addr::from_str(text).is_ok() || text.matches(':').count() > 1 {
        "host:port; an IPv6 address is in brackets ([::1]:9092)"
    } else if text.contains(':') {
        "host:port with a number from 1 to 65535 as the port"
    } else {
        HOST
    }
}

/// Parses a port; 0 is refused, since nothing can be connected to it.
pub(super) fn parse_port(field: &str, text: &str) -> Result<u16, SettingError> {
    // `parse` alone accepts a plus sign as well.
    let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let port = digits.and_then(|digits| digits.parse().ok()).filter(|port| *port > 0);
    port.ok_or_else(|| SettingError::expected(field, "host:port with a number from 1 to 65535 as the port"))
}

/// Returns whether `host` can be connected to: an IP address, or a valid DNS name.
fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        return address.strip_suffix(']').is_some_and(|address| Ipv6Addr::from_str(address).is_ok());
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=LONGEST_LABEL).contains(&label.len()) && label.bytes().all(known)
    };
    // Some resolvers take a name whose last label is a number as an IPv4 address, so it must be one.
    let ends_in_number = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    let is_address = !ends_in_number || std::net::Ipv4Addr::from_str(name).is_ok();
    name.len() <= LONGEST_NAME && name.split('.').all(is_label) && is_address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (text, host, port) in [
            ("a", "a", None),
            ("a:1", "a", Some(1)),
            ("my_kafka-1.svc.cluster.local.:65535", "my_kafka-1.svc.cluster.local.", Some(65535)),
            ("10.0.0.7:9092", "10.0.0.7", Some(9092)),
            ("[2001:db8::1]:5432", "[2001:db8::1]", Some(5432)),
            ("[::1]", "[::1]", None),
        ] {
            let address = Address::parse("x", text).unwrap();
            assert_eq!((address.host(), address.port()), (host, port), "{text}");
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn an_impossible_address_is_refused_by_its_field_and_not_repeated() {
        let long = format!("{}:1", "a".repeat(64));
        let longer = format!("{}b:1", "a.".repeat(130));
        for text in [
            "",
            ":1",
            "a:",
            "a:0",
            "a:65536",
            "a:99999",
            "a:-1",
            "a:+1",
            "a:x",
            "a:1:2",
            "a b:1",
            "a :1",
            " a:1",
            "a:1 ",
            "a:1;b:1",
            "a:1,b:1",
            "a;b",
            "::1",
            "::1:9092",
            "fe80::1%eth0",
            "[::1",
            "::1]",
            "[]:1",
            "[x]:1",
            "[1.2.3.4]:1",
            "[v1.x]:1",
            "http://a:1",
            "a:1/",
            "a:1/path",
            "a:1?x",
            "a:1#x",
            "u@a:1",
            "u:p@a:1",
            "a..b:1",
            ".a:1",
            "1.2.3:1",
            "256.1.1.1:1",
            "1.2.3.4.5:1",
            "b\u{fc}cher:1",
            "a%20b:1",
            "%2Ftmp:1",
            "a\n:1",
            "a\0:1",
            "a\\b:1",
            "a*:1",
            "*:1",
            "a:9\u{661}",
            &long,
            &longer,
        ] {
            let error = Address::parse("broker 1", text).unwrap_err().to_string();
            assert!(error.starts_with("broker 1: expected"), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_socket_is_a_host_where_one_is_asked_for() {
        let address = Address::parse_or_socket("host", "%2Fvar%2Frun:5432").unwrap();
        assert_eq!((address.host(), address.port()), ("/var/run", Some(5432)));
        assert!(Address::parse_or_socket("host", "%2Fvar%2Frun:x").is_err());
    }
}
