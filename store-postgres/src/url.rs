//! The server that a URL names, with libpq's parameters.
//!
//! The client's own parser ignores unknown parameters and logs what it can't parse, so URLs are
//! parsed here: an unknown parameter is an error, and no error contains a secret. Parameters have
//! libpq's names and, as aliases, the client's.

use std::env::var;
use std::path::Path;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tidings_core::Result;
use tidings_core::settings::{Address, ConnectionUrl, Setting, SettingError};

use crate::pgpass;

/// All parameters; `options[name]` may be given as well.
const PARAMETERS: [&str; 24] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    "connect_timeout",
    "connect_wait",
    "channel_binding",
    "gssencmode",
    "sslnegotiation",
    "target_session_attrs",
];
/// libpq's modes, from none to a verified host name.
const SSL_MODES: [(&str, PgSslMode); 6] = [
    ("disable", PgSslMode::Disable),
    ("allow", PgSslMode::Allow),
    ("prefer", PgSslMode::Prefer),
    ("require", PgSslMode::Require),
    ("verify-ca", PgSslMode::VerifyCa),
    ("verify-full", PgSslMode::VerifyFull),
];
const PGPASSWORD: &str = "PGPASSWORD";

/// A server, and how to connect to it.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) options: PgConnectOptions,
    /// `connect_timeout` of the URL.
    pub(crate) timeout: Option<Duration>,
    /// `connect_wait` of the URL.
    pub(crate) wait: Option<Duration>,
    /// Whether the URL or the environment has one; then the password file is not read.
    has_password: bool,
}

impl Server {
    /// Parses `url`, and reads missing parts from libpq's variables (`PGHOST`, `PGUSER` and so on) and password file.
    ///
    /// # Errors
    /// [`Invalid`](tidings_core::ErrorKind::Invalid), naming the part of the URL, the parameter or the variable.
    pub(crate) fn read(url: &str) -> Result<Self> {
        check_variables()?;
        let server = Self::parse(url)?;
        if server.has_password {
            return Ok(server);
        }
        let (options, socket) = (&server.options, server.socket());
        let host = if socket.is_some() { "localhost" } else { options.get_host() };
        let database = options.get_database().unwrap_or_default();
        let password = pgpass::password(host, options.get_port(), database, options.get_username());
        Ok(match password {
            Some(password) => Self { options: server.options.password(password.expose()), ..server },
            None => server,
        })
    }

    /// Parses the URL alone.
    fn parse(url: &str) -> Result<Self, SettingError> {
        let url = ConnectionUrl::parts(url)?;
        if url.scheme() != "postgres" && url.scheme() != "postgresql" {
            return Err(SettingError::expected("the URL", "the scheme postgres://"));
        }
        // Not `new`: it logs lines of the password file that it can't parse.
        let options = PgConnectOptions::new_without_pgpass().disable_statement_logging();
        let mut server = Self { options, timeout: None, wait: None, has_password: var(PGPASSWORD).is_ok() };
        match url.hosts() {
            [] => {}
            [host] => server.set_address(host),
            _ => return Err(SettingError::expected("the URL", "one host")),
        }
        if let Some(name) = url.username() {
            server.change(|options| options.username(name.expose()));
        }
        if let Some(password) = url.password() {
            server.set_password(password.expose());
        }
        if url.path().contains('/') {
            return Err(SettingError::expected("the path", "the name of a database, with %2F for a slash in it"));
        }
        if !url.path().is_empty() {
            server.change(|options| options.database(url.path()));
        }
        let known: Vec<_> =
            PARAMETERS.into_iter().chain(url.parameter_names().filter(|name| is_option(name))).collect();
        url.for_each_parameter(&known, |setting| server.set(setting))?;
        Ok(server)
    }

    /// Applies a change to the client's options, which are consumed by each.
    fn change(&mut self, change: impl FnOnce(PgConnectOptions) -> PgConnectOptions) {
        self.options = change(self.options.clone());
    }

    /// Applies one parameter.
    ///
    /// # Errors
    /// The expected form, or for an unknown name the names that exist.
    fn set(&mut self, setting: Setting<'_>) -> Result<(), SettingError> {
        let text = setting.text();
        match setting.name() {
            "sslmode" | "ssl-mode" => {
                let mode = setting.choice(&SSL_MODES)?;
                self.change(|options| options.ssl_mode(mode));
            }
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" => {
                let file = file(setting)?;
                self.change(|options| options.ssl_root_cert(file));
            }
            "sslcert" | "ssl-cert" => {
                let file = file(setting)?;
                self.change(|options| options.ssl_client_cert(file));
            }
            "sslkey" | "ssl-key" => {
                let file = file(setting)?;
                self.change(|options| options.ssl_client_key(file));
            }
            "statement-cache-capacity" => {
                let capacity = setting.number()?;
                self.change(|options| options.statement_cache_capacity(capacity));
            }
            "host" | "hostaddr" => self.set_host(setting)?,
            "port" => {
                let port = port(setting.name(), text)?;
                self.change(|options| options.port(port));
            }
            "dbname" => self.change(|options| options.database(text)),
            "user" => self.change(|options| options.username(text)),
            "password" => self.set_password(text),
            "application_name" => self.change(|options| options.application_name(text)),
            "connect_timeout" => self.timeout = Some(Duration::from_secs(setting.number()?)).filter(|t| !t.is_zero()),
            "connect_wait" => self.wait = Some(setting.duration()?),
            "options" => {
                let pairs = options(setting)?;
                self.change(|options| options.options(pairs));
            }
            name if is_option(name) => {
                let name = name.trim_start_matches("options[").trim_end_matches(']');
                self.change(|options| options.options([(name, text)]));
            }
            // Accepts only values that match the fixed behaviour.
            "channel_binding" | "gssencmode" => setting.choice(&[("disable", ()), ("prefer", ())])?,
            "sslnegotiation" => setting.choice(&[("postgres", ())])?,
            "target_session_attrs" => setting.choice(&[("any", ())])?,
            name => return Err(SettingError::unknown(name, &PARAMETERS)),
        }
        Ok(())
    }

    /// Sets host and port; a path is the directory of a Unix socket.
    fn set_address(&mut self, address: &Address) {
        self.change(|options| match address.host().starts_with('/') {
            true => options.socket(address.host()),
            false => options.host(address.host()),
        });
        if let Some(port) = address.port() {
            self.change(|options| options.port(port));
        }
    }

    /// A host, or the directory of a Unix socket.
    fn set_host(&mut self, setting: Setting<'_>) -> Result<(), SettingError> {
        if setting.text().starts_with('/') {
            self.change(|options| options.socket(setting.text()));
            return Ok(());
        }
        let address = Address::parse(setting.name(), setting.text())?;
        self.set_address(&address);
        Ok(())
    }

    fn set_password(&mut self, password: &str) {
        self.has_password = true;
        self.change(|options| options.password(password));
    }

    /// The directory of the Unix socket, if it is one.
    pub(crate) fn socket(&self) -> Option<&str> {
        let host = Some(self.options.get_host()).filter(|host| host.starts_with('/'));
        self.options.get_socket().and_then(|path| path.to_str()).or(host)
    }

    /// The server's address for errors and logs.
    ///
    /// It has neither the user nor the password.
    pub(crate) fn shown(&self) -> String {
        format!("{}:{}", self.socket().unwrap_or(self.options.get_host()), self.options.get_port())
    }
}

/// Checks libpq's variables that the client would ignore silently.
///
/// # Errors
/// [`Invalid`](tidings_core::ErrorKind::Invalid), naming the variable.
fn check_variables() -> Result<()> {
    let set = |name: &'static str| var(name).ok().map(|value| (name, value));
    if let Some((name, value)) = set("PGPORT") {
        port("port", &value).map_err(|e| e.in_variable(name))?;
    }
    if let Some((name, value)) = set("PGSSLMODE") {
        Setting::new("sslmode", &value).choice(&SSL_MODES).map_err(|e| e.in_variable(name))?;
    }
    for (name, value) in [set("PGHOST"), set("PGHOSTADDR")].into_iter().flatten() {
        if !value.starts_with('/') && !value.is_empty() {
            Address::parse("host", &value).map_err(|e| e.in_variable(name))?;
        }
    }
    Ok(())
}

/// Parses a port; zero, signs and blanks are refused.
fn port(field: &str, text: &str) -> Result<u16, SettingError> {
    let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let port = digits.and_then(|digits| digits.parse().ok()).filter(|port| *port > 0);
    port.ok_or_else(|| SettingError::expected(field, "a port from 1 to 65535"))
}

/// The path of a file, or its text in PEM.
///
/// A missing file is found here, where the parameter can be named, rather than when connecting.
fn file<'a>(setting: Setting<'a>) -> Result<&'a str, SettingError> {
    let text = setting.text();
    let is_there = text.contains("-----BEGIN") || Path::new(text).is_file();
    if is_there { Ok(text) } else { Err(setting.expected("the path of a file that exists")) }
}

/// Checks for the form `options[name]`.
fn is_option(name: &str) -> bool {
    name.strip_prefix("options[").and_then(|name| name.strip_suffix(']')).is_some_and(|name| !name.is_empty())
}

/// `-c name=value --name=value`, where a backslash takes the next character as it is.
///
/// # Errors
/// A word of another form.
fn options(setting: Setting<'_>) -> Result<Vec<(String, String)>, SettingError> {
    let wrong = || setting.expected("-c name=value or --name=value, separated by blanks");
    let mut words = vec![String::new()];
    let mut rest = setting.text().chars();
    while let Some(sign) = rest.next() {
        match (sign, words.last_mut()) {
            (' ', _) => words.push(String::new()),
            ('\\', Some(word)) => word.extend(rest.next()),
            (sign, Some(word)) => word.push(sign),
            (_, None) => return Err(wrong()),
        }
    }
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    let mut pairs = Vec::new();
    while let Some(word) = words.next() {
        let pair = match (word.strip_prefix("--"), word.strip_prefix("-c")) {
            (Some(pair), _) => pair.to_owned(),
            (None, Some("")) => words.next().ok_or_else(wrong)?,
            (None, Some(pair)) => pair.to_owned(),
            (None, None) => return Err(wrong()),
        };
        let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
        pairs.push((name.to_owned(), value.to_owned()));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        let Err(error) = Server::parse(url) else { panic!("{url} was taken") };
        error.to_string()
    }

    #[test]
    fn a_url_names_the_server_and_its_parameters() {
        let url = "postgresql://ann%40x:p%3A1@db.example:6543/orders?sslmode=require&application_name=shop&connect_wait=30s\
                   &connect_timeout=7&options=-c%20geqo%3Doff%20--search_path%3Da%5C%20b&options[x]=y&channel_binding=prefer";
        let server = Server::parse(url).unwrap();
        let options = &server.options;
        assert_eq!((options.get_host(), options.get_port()), ("db.example", 6543));
        assert_eq!((options.get_username(), options.get_database()), ("ann@x", Some("orders")));
        assert_eq!(options.get_application_name(), Some("shop"));
        assert!(matches!(options.get_ssl_mode(), PgSslMode::Require));
        assert_eq!(options.get_options(), Some(r"-c geqo=off -c search_path=a\ b -c x=y"));
        assert_eq!((server.wait, server.timeout), (Some(Duration::from_secs(30)), Some(Duration::from_secs(7))));
        assert_eq!((server.shown().as_str(), server.has_password), ("db.example:6543", true));
    }

    #[test]
    fn a_socket_is_named_by_its_directory() {
        for url in ["postgres://%2Fvar%2Frun/db", "postgres:///db?host=/var/run", "postgres://u@%2fvar%2Frun:5432/db"] {
            let server = Server::parse(url).unwrap();
            assert_eq!(server.socket(), Some("/var/run"), "{url}");
            assert_eq!(server.options.get_database(), Some("db"));
        }
        assert_eq!(Server::parse("postgres://[::1]:1/db").unwrap().shown(), "[::1]:1");
    }

    #[test]
    fn an_impossible_address_is_invalid_and_its_place_is_named() {
        for (url, place) in [
            ("postgres://a:99999/db", "the host"),
            ("postgres://a:65536/db", "the host"),
            ("postgres://a:0/db", "the host"),
            ("postgres://a:-1/db", "the host"),
            ("postgres://a:+1/db", "the host"),
            ("postgres://a:x/db", "the host"),
            ("postgres://a:/db", "the host"),
            ("postgres://:5432/db", "the host"),
            ("postgres://a:1:2/db", "the host"),
            ("postgres://a;b/db", "the host"),
            ("postgres://a:1;b:1/db", "the host"),
            ("postgres://a:1,b:1/db", "one host"),
            ("postgres://a,b/db", "one host"),
            ("postgres://a,/db", "host 2"),
            ("postgres://a b/db", "the host"),
            ("postgres:// a/db", "the host"),
            ("postgres://a%20b/db", "the host"),
            ("postgres://::1/db", "the host"),
            ("postgres://::1:5432/db", "the host"),
            ("postgres://[::1/db", "the host"),
            ("postgres://[]/db", "the host"),
            ("postgres://[x]:1/db", "the host"),
            ("postgres://http://a/db", "the host"),
            ("postgres://256.1.1.1/db", "the host"),
            ("postgres://1.2.3/db", "the host"),
            ("postgres://a..b/db", "the host"),
            ("postgres://b\u{fc}cher/db", "the host"),
            ("postgres://a\n/db", "the host"),
            ("postgres://a/db/more", "the path"),
            ("postgres://a/d b", "the path"),
            ("postgres://a/db%zz", "the path"),
            ("postgres://a/db%00", "the path"),
            ("postgres://a/db#x", "%23"),
            ("postgres://%2Ftmp:99999/db", "the host"),
            ("postgres:///db?host=a;b", "host"),
            ("postgres:///db?host=a%20b", "host"),
            ("postgres:///db?host=::1", "host"),
            ("postgres:///db?host=http://a", "host"),
            ("postgres:///db?hostaddr=", "hostaddr"),
            ("postgres:///db?port=99999", "port"),
            ("postgres:///db?port=0", "port"),
            ("postgres:///db?port=x", "port"),
            ("postgres:///db?port=", "port"),
            ("postgres:///db?port=%2B1", "port"),
            ("postgres:a/db", "://"),
            ("a:5432/db", "://"),
            ("", "://"),
            ("mysql://a/db", "postgres://"),
            ("postgre sql://a/db", "scheme"),
        ] {
            let error = refused(url);
            assert!(error.contains(place) && error.contains("expected"), "{url}: {error}");
        }
    }

    #[test]
    fn a_slip_in_a_name_is_answered_and_a_value_is_checked() {
        for (query, text) in [
            ("sslmod=require", "did you mean sslmode?"),
            ("aplication_name=x", "did you mean application_name?"),
            ("connect-wait=5s", "did you mean connect_wait?"),
            ("sslmode=on", "sslmode: expected disable, allow"),
            ("sslmode=require&sslmode=require", "sslmode: duplicate parameter"),
            ("sslrootcert=/no/such/file", "sslrootcert: expected the path"),
            ("sslkey=s3cr3t", "sslkey: expected the path"),
            ("statement-cache-capacity=x", "statement-cache-capacity: expected a number"),
            ("connect_timeout=5s", "connect_timeout: expected a number"),
            ("connect_wait=5", "connect_wait: expected a duration"),
            ("channel_binding=require", "channel_binding: expected disable, prefer"),
            ("options=geqo", "options: expected -c name=value"),
            ("options=-c", "options: expected -c name=value"),
            ("options[]=s3cr3t", "no such setting"),
            ("s3cr3t=s3cr3t", "parameter 1: no such setting"),
            ("s3cr3t", "parameter 1: expected name=value"),
        ] {
            let error = refused(&format!("postgres://a/db?{query}"));
            assert!(error.contains(text) && !error.contains("s3cr3t"), "{query}: {error}");
        }
    }

    #[test]
    fn a_secret_at_any_place_shows_nowhere() {
        for template in [
            "postgres://u:S]",
            "postgres://u:S",
            "postgres://u:1?S@h",
            "postgres://u:1/S@h",
            "postgres://u:1#S@h",
            "postgres://u:1?S",
            "postgres://u:1?S=1",
            "postgres://u:1?a=S",
            "postgres://u:1?sslmode=S",
            "S://h",
            "S",
            "postgres://u:1?sslkey=S",
            "postgres://u:1?options=S",
            "postgres://u:1?port=S",
            "postgres://u:1?connect_wait=S",
            "postgres://u:S@h:x",
            "postgres://u:S@h h",
            "postgres://u:S@a;b",
            "postgres://u@S@h",
            "postgres://u:S%zz@h",
            "postgres://u:1?hostaddr=S%20",
            "postgres://u:S@a,b",
            "postgres://u:S@h/a/b",
            "postgres://u:S@h?x=1",
            "postgres://u:1/S/x",
            "postgres://u:S@h#f",
            "postgres:u:S@h",
            "u:S@h",
            "postgres://u:1?password=S&x=y",
        ] {
            for secret in
                ["s3cr3tXYZ", "s3cr3t?XYZ", "s3cr3t#XYZ", "s3cr3t/XYZ", "s3cr3t@XYZ", "s3cr3t%XYZ", "s3cr3t&XYZ=1"]
            {
                // With an @ some of them are whole.
                let Err(error) = Server::parse(&template.replace('S', secret)) else { continue };
                let error = tidings_core::Error::from(error);
                let shown = format!("{error} {error:?} {error:#?}");
                assert!(!shown.contains("3cr3t") && !shown.contains("XYZ"), "{template} {secret}: {shown}");
            }
        }
    }
}
