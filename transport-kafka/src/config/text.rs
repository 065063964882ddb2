//! The same settings as a URL, and from the environment.

use std::collections::BTreeMap;
use std::time::Duration;

use tidings_core::{Error, ErrorKind, Result, Secret};

use super::check::wrong;
use super::{Compression, GroupProtocol, Isolation, KafkaConfig, Pem, Sasl, ScramHash, Tls, Token};

/// What the names of our environment variables begin with.
const PREFIX: &str = "TIDINGS_KAFKA_";

impl KafkaConfig {
    /// Reads `kafka://a:9092,b:9092?compression=lz4&linger=5ms`; `kafkas://` is TLS.
    ///
    /// Parameters: `client_id`, `compression` (`none`, `gzip`, `snappy`, `lz4`, `zstd`), `compression_level`, `linger`,
    /// `batch_bytes`, `max_record_bytes`, `max_unanswered_records`, `max_unanswered_bytes`, `delivery_timeout`,
    /// `connect_timeout`, `request_timeout`, `metadata_max_age`, `fetch_max_bytes`, `fetch_max_partition_bytes`,
    /// `fetch_max_unpacked_bytes`, `fetch_max_wait`, `group_protocol` (`auto`, `consumer`, `classic`), `instance_id`, `isolation` (`read_committed`,
    /// `read_uncommitted`), `rack`, `sasl` (`plain`, `scram-sha-256`, `scram-sha-512`, `oauthbearer`), and the files
    /// `tls_ca`, `tls_cert`, `tls_key`. Durations have a unit (`5ms`, `30s`, `2m`), sizes may have one (`256KiB`). Name and
    /// password stand before the hosts (`kafkas://user:password@host:9093`), or a token alone; whatever is special in a URL
    /// is percent-encoded. No error ever repeats them.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid), naming the parameter and what was expected; unknown ones too.
    pub fn from_url(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("url", "kafka://host:port"))?;
        let tls = match scheme {
            "kafka" => false,
            "kafkas" => true,
            _ => return Err(wrong("url", "the scheme kafka or kafkas")),
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (user, hosts) = match place.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, place),
        };
        let hosts = hosts.strip_suffix('/').unwrap_or(hosts);
        if hosts.contains('/') {
            return Err(wrong("url", "nothing behind the hosts but parameters"));
        }
        let mut config = Self::new(hosts.split(',').map(with_port));
        // Before any parameter is named: what stands there may be the rest of a password with a `?` in it.
        config.check_brokers()?;
        let shown = |error| match query.contains('@') {
            true => {
                wrong("url", "right parameters, and %3F for a ? in a password: with an @ behind one no more is said")
            }
            false => error,
        };
        config.read(user, query, tls).map_err(shown)?;
        Ok(config)
    }

    /// Takes over what a URL says beside the brokers.
    fn read(&mut self, user: Option<&str>, query: &str, tls: bool) -> Result<()> {
        let mut settings = Settings { tls: tls.then(Tls::new), ..Settings::default() };
        if let Some(user) = user {
            let (name, password) = user.split_once(':').map_or((user, None), |(n, p)| (n, Some(p)));
            settings.username = Some(decode("url", name)?);
            settings.password = password.map(|p| decode("url", p).map(Secret::from)).transpose()?;
        }
        let mut seen = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = split_pair(pair).ok_or_else(|| wrong("url", "parameters as name=value"))?;
            if seen.insert(name, ()).is_some() {
                return Err(wrong(name, "it once, it is there twice"));
            }
            settings.set(self, name, &decode(name, value)?)?;
        }
        settings.finish(self)?;
        self.check()
    }

    /// Reads the environment: `TIDINGS_KAFKA_URL`, or `TIDINGS_KAFKA_BROKERS` (`a:9092,b:9092`), and beside either one
    /// `TIDINGS_KAFKA_USERNAME`, `TIDINGS_KAFKA_PASSWORD`, `TIDINGS_KAFKA_TOKEN`, `TIDINGS_KAFKA_TLS` (`true`, `false`) and
    /// `TIDINGS_KAFKA_<PARAMETER>` for each parameter of [`from_url`](Self::from_url), in capitals.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid), naming the variable and what was expected; unknown ones too.
    pub fn from_env() -> Result<Self> {
        let ours = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?.strip_prefix(PREFIX)?.to_owned();
            Some((name, value.into_string()))
        });
        let mut variables = BTreeMap::new();
        for (name, value) in ours {
            let value = value.map_err(|_| wrong(&format!("{PREFIX}{name}"), "UTF-8"))?;
            variables.insert(name, value);
        }
        Self::from_variables(variables)
    }

    fn from_variables(mut variables: BTreeMap<String, String>) -> Result<Self> {
        if let Some(url) = variables.get("URL") {
            for (parameter, _) in url.split_once('?').map_or("", |(_, query)| query).split('&').filter_map(split_pair) {
                if variables.contains_key(&parameter.to_uppercase()) {
                    let field = format!("{PREFIX}{}", parameter.to_uppercase());
                    return Err(wrong(&field, format_args!("nothing, as {PREFIX}URL has {parameter}")));
                }
            }
        }
        let mut config = match (variables.remove("URL"), variables.remove("BROKERS")) {
            (Some(_), Some(_)) => return Err(wrong("TIDINGS_KAFKA_BROKERS", "nothing beside TIDINGS_KAFKA_URL")),
            (Some(url), None) => Self::from_url(&url).map_err(|e| in_variable("URL", &e))?,
            (None, Some(brokers)) => Self::new(brokers.split(',').map(|b| with_port(b.trim()))),
            (None, None) => return Err(wrong("TIDINGS_KAFKA_BROKERS", "host:port,..., or a TIDINGS_KAFKA_URL")),
        };
        let mut settings = Settings { tls: config.tls.take(), sasl: config.sasl.take(), ..Settings::default() };
        for (name, value) in variables {
            let set = match name.as_str() {
                "USERNAME" => {
                    settings.username = Some(value);
                    Ok(())
                }
                "PASSWORD" => {
                    settings.password = Some(value.into());
                    Ok(())
                }
                "TOKEN" => {
                    settings.token = Some(value.into());
                    Ok(())
                }
                "TLS" => settings.set_tls(&value),
                _ => settings.set(&mut config, &name.to_lowercase(), &value),
            };
            set.map_err(|e| in_variable(&name, &e))?;
        }
        settings.finish(&mut config)?;
        config.check()?;
        Ok(config)
    }
}

/// Settings that make sense only together.
#[derive(Default)]
struct Settings {
    tls: Option<Tls>,
    sasl: Option<Sasl>,
    mechanism: Option<String>,
    username: Option<String>,
    password: Option<Secret>,
    token: Option<Secret>,
    certificates: Option<Pem>,
    key: Option<Pem>,
}

impl Settings {
    fn set(&mut self, config: &mut KafkaConfig, name: &str, value: &str) -> Result<()> {
        match name {
            "client_id" => config.client_id = value.to_owned(),
            "compression" => config.compression = compression(value)?,
            "compression_level" => config.compression_level = Some(number(name, value)?),
            "linger" => config.linger = duration(name, value)?,
            "batch_bytes" => config.batch_bytes = size(name, value)?,
            "max_record_bytes" => config.max_record_bytes = size(name, value)?,
            "max_unanswered_records" => config.max_unanswered_records = number(name, value)?,
            "max_unanswered_bytes" => config.max_unanswered_bytes = size(name, value)?,
            "delivery_timeout" => config.delivery_timeout = duration(name, value)?,
            "connect_timeout" => config.connect_timeout = duration(name, value)?,
            "request_timeout" => config.request_timeout = duration(name, value)?,
            "metadata_max_age" => config.metadata_max_age = duration(name, value)?,
            "fetch_max_bytes" => config.fetch_max_bytes = size(name, value)?,
            "fetch_max_partition_bytes" => config.fetch_max_partition_bytes = size(name, value)?,
            "fetch_max_unpacked_bytes" => config.fetch_max_unpacked_bytes = size(name, value)?,
            "fetch_max_wait" => config.fetch_max_wait = duration(name, value)?,
            "group_protocol" => config.group_protocol = group_protocol(value)?,
            "instance_id" => config.instance_id = Some(value.to_owned()),
            "isolation" => config.isolation = isolation(value)?,
            "rack" => config.rack = Some(value.to_owned()),
            "sasl" => self.mechanism = Some(value.to_lowercase()),
            "tls_ca" => self.tls_for(name)?.ca = Some(Pem::File(value.into())),
            "tls_cert" => {
                self.tls_for(name)?;
                self.certificates = Some(Pem::File(value.into()));
            }
            "tls_key" => {
                self.tls_for(name)?;
                self.key = Some(Pem::File(value.into()));
            }
            _ => return Err(Error::new(ErrorKind::Invalid, format!("{name}: there is no such setting"))),
        }
        Ok(())
    }

    fn set_tls(&mut self, value: &str) -> Result<()> {
        match value {
            "true" => {
                self.tls.get_or_insert_with(Tls::new);
            }
            "false" if self.tls.is_none() => {}
            _ => return Err(wrong("tls", "true, or false where the URL is not kafkas://")),
        }
        Ok(())
    }

    fn tls_for(&mut self, name: &str) -> Result<&mut Tls> {
        self.tls.as_mut().ok_or_else(|| wrong(name, "TLS (kafkas://) around it"))
    }

    fn finish(self, config: &mut KafkaConfig) -> Result<()> {
        config.tls = self.tls;
        match (self.certificates, self.key) {
            (None, None) => {}
            (Some(certificates), Some(key)) => {
                if let Some(tls) = &mut config.tls {
                    tls.identity = Some((certificates, key));
                }
            }
            (Some(_), None) => return Err(wrong("tls_key", "a file, as there is a tls_cert")),
            (None, Some(_)) => return Err(wrong("tls_cert", "a file, as there is a tls_key")),
        }
        let given = [self.mechanism.is_some(), self.username.is_some(), self.password.is_some()];
        if self.sasl.is_some() && (given.contains(&true) || self.token.is_some()) {
            return Err(wrong("sasl", "credentials once, and the URL has some"));
        }
        if self.token.is_some() && self.username.is_some() {
            return Err(wrong("token", "none, as there is a username"));
        }
        let mechanism = match (&self.mechanism, &self.username, &self.token) {
            (Some(mechanism), _, _) => mechanism.as_str(),
            (None, Some(_), _) => "plain",
            (None, None, Some(_)) => "oauthbearer",
            (None, None, None) if self.password.is_some() => {
                return Err(wrong("username", "one, as there is a password"));
            }
            (None, None, None) => {
                config.sasl = self.sasl;
                return Ok(());
            }
        };
        config.sasl = Some(match mechanism {
            "plain" | "scram-sha-256" | "scram-sha-512" if self.token.is_some() => {
                return Err(wrong("token", format_args!("none, as sasl is {mechanism}")));
            }
            "plain" => {
                let (name, password) = credentials(self.username, self.password)?;
                Sasl::plain(name, password)
            }
            "scram-sha-256" | "scram-sha-512" => {
                let hash = if mechanism.ends_with("256") { ScramHash::Sha256 } else { ScramHash::Sha512 };
                let (name, password) = credentials(self.username, self.password)?;
                Sasl::scram(hash, name, password)
            }
            "oauthbearer" => bearer(self.token, self.username, self.password)?,
            _ => return Err(wrong("sasl", "plain, scram-sha-256, scram-sha-512 or oauthbearer")),
        });
        Ok(())
    }
}

fn credentials(name: Option<String>, password: Option<Secret>) -> Result<(String, Secret)> {
    let name = name.ok_or_else(|| wrong("username", "one, as there is a sasl mechanism"))?;
    Ok((name, password.ok_or_else(|| wrong("password", "one, as there is a username"))?))
}

fn bearer(token: Option<Secret>, name: Option<String>, password: Option<Secret>) -> Result<Sasl> {
    if password.is_some() {
        return Err(wrong("password", "none, as sasl is oauthbearer"));
    }
    let token = token.or_else(|| name.map(Secret::from));
    let token = Token::new(token.ok_or_else(|| wrong("token", "one, as sasl is oauthbearer"))?);
    Ok(Sasl::oauth_bearer(move || std::future::ready(Ok(token.clone()))))
}

fn split_pair(pair: &str) -> Option<(&str, &str)> {
    pair.split_once('=')
}

/// The message of `error`, which is about a parameter, as one about a variable.
fn in_variable(name: &str, error: &Error) -> Error {
    Error::new(error.kind(), format!("{PREFIX}{name}: {error}"))
}

fn with_port(host: &str) -> String {
    // An IPv6 address has colons within its brackets.
    let named = host.rsplit_once(']').map_or(host, |(_, rest)| rest).contains(':');
    if named || host.is_empty() { host.to_owned() } else { format!("{host}:9092") }
}

fn compression(value: &str) -> Result<Compression> {
    Ok(match value {
        "none" => Compression::None,
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        _ => return Err(wrong("compression", format_args!("none, gzip, snappy, lz4 or zstd, got {value:?}"))),
    })
}

fn group_protocol(value: &str) -> Result<GroupProtocol> {
    Ok(match value {
        "auto" => GroupProtocol::Auto,
        "consumer" => GroupProtocol::Consumer,
        "classic" => GroupProtocol::Classic,
        _ => return Err(wrong("group_protocol", format_args!("auto, consumer or classic, got {value:?}"))),
    })
}

fn isolation(value: &str) -> Result<Isolation> {
    Ok(match value {
        "read_committed" => Isolation::ReadCommitted,
        "read_uncommitted" => Isolation::ReadUncommitted,
        _ => return Err(wrong("isolation", format_args!("read_committed or read_uncommitted, got {value:?}"))),
    })
}

fn number<N: std::str::FromStr>(name: &str, value: &str) -> Result<N> {
    value.parse().map_err(|_| wrong(name, format_args!("a number, got {value:?}")))
}

fn duration(name: &str, value: &str) -> Result<Duration> {
    let expected = || wrong(name, format_args!("a duration such as 5ms, 30s or 2m, got {value:?}"));
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let count: u64 = value[..digits].parse().map_err(|_| expected())?;
    let millis = match &value[digits..] {
        "ms" => Some(count),
        "s" => count.checked_mul(1_000),
        "m" => count.checked_mul(60_000),
        "h" => count.checked_mul(3_600_000),
        _ => None,
    };
    millis.map(Duration::from_millis).ok_or_else(expected)
}

fn size(name: &str, value: &str) -> Result<usize> {
    let expected = || wrong(name, format_args!("bytes such as 65536, 64KiB or 1MiB, got {value:?}"));
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let count: usize = value[..digits].parse().map_err(|_| expected())?;
    let bytes = match &value[digits..] {
        "" => Some(count),
        "KiB" => count.checked_mul(1 << 10),
        "MiB" => count.checked_mul(1 << 20),
        "GiB" => count.checked_mul(1 << 30),
        _ => None,
    };
    bytes.ok_or_else(expected)
}

/// Undoes percent-encoding.
fn decode(name: &str, text: &str) -> Result<String> {
    let wrong = || wrong(name, "percent-encoded UTF-8");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit().ok_or_else(wrong)?, digit().ok_or_else(wrong)?);
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| wrong())?);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "c4n4ry-p4ssw0rd";

    fn refused(url: &str) -> String {
        let error = KafkaConfig::from_url(url).unwrap_err();
        assert_eq!(error.kind(), if url.contains("zstd") { ErrorKind::Unsupported } else { ErrorKind::Invalid });
        error.report()
    }

    #[test]
    fn a_url_sets_every_kind_of_field() {
        let url = "kafkas://u%40x:p%3A1@a:1,b,[::1]:2?compression=gzip&compression_level=9&linger=7ms&batch_bytes=64KiB\
                   &delivery_timeout=2m&group_protocol=classic&isolation=read_uncommitted&sasl=scram-sha-512&rack=r";
        let config = KafkaConfig::from_url(url).unwrap();
        assert_eq!(config.brokers, ["a:1", "b:9092", "[::1]:2"]);
        assert_eq!((config.compression, config.compression_level), (Compression::Gzip, Some(9)));
        assert_eq!((config.linger, config.batch_bytes), (Duration::from_millis(7), 64 << 10));
        assert_eq!((config.group_protocol, config.isolation), (GroupProtocol::Classic, Isolation::ReadUncommitted));
        assert_eq!(config.delivery_timeout, Duration::from_secs(120));
        assert!(config.tls.is_some());
        let Some(Sasl::Scram { hash, username, password }) = config.sasl else { panic!("no scram") };
        assert_eq!((hash, username.as_str(), password.expose()), (ScramHash::Sha512, "u@x", "p:1"));
    }

    #[test]
    fn a_wrong_setting_is_named() {
        for (query, name) in [
            ("linger=5", "linger"),
            ("linger=61s", "linger"),
            ("compression=brotli", "compression"),
            ("compression=lz4&compression_level=3", "compression_level"),
            ("batch_bytes=1KB", "batch_bytes"),
            ("lingerr=5ms", "lingerr"),
            ("linger=1ms&linger=2ms", "linger"),
            ("tls_ca=/x", "tls_ca"),
            ("delivery_timeout=1s", "delivery_timeout"),
            ("fetch_max_wait=20s", "fetch_max_wait"),
            ("metadata_max_age=0s", "metadata_max_age"),
            ("sasl=plain", "username"),
            ("isolation=dirty", "isolation"),
            ("fetch_max_bytes=1KiB", "fetch_max_partition_bytes"),
            ("batch_bytes=1MiB&max_unanswered_bytes=1KiB", "batch_bytes"),
        ] {
            let report = refused(&format!("kafka://a:1?{query}"));
            assert!(report.contains(name), "{query}: {report}");
        }
        assert!(refused("http://a:1").contains("kafka"));
        assert!(refused("kafka://").contains("brokers"));
        assert!(refused("kafka://a:x").contains("brokers"));
    }

    #[cfg(not(feature = "zstd"))]
    #[test]
    fn zstd_that_is_not_built_in_says_which_feature_is() {
        assert!(refused("kafka://a:1?compression=zstd").contains("feature kafka-zstd"));
    }

    #[test]
    fn secrets_show_nowhere() {
        let config = KafkaConfig::from_url(&format!("kafka://user:{CANARY}@a:1?sasl=plain")).unwrap();
        assert!(!format!("{config:?}").contains(CANARY));
        for url in [
            format!("kafka://user:{CANARY}@a:x"),
            format!("kafka://user:{CANARY}@a:1?sasl=oauthbearer"),
            format!("kafka://user:{CANARY}@a:1?sasl=nonsense"),
            format!("kafka://user:{CANARY}%zz@a:1"),
            // The host is forgotten, or what is special in the password is not percent-encoded.
            format!("kafka://user:{CANARY}"),
            format!("kafka://user:{CANARY}?linger=1ms"),
            format!("kafka://a:1,user:{CANARY}"),
            format!("kafka://user:pass?{CANARY}=@a:1"),
            format!("kafka://user:1?{CANARY}=@a:1"),
            format!("kafka://user:1?linger={CANARY}@a:1"),
            format!("kafka://user:1?x={CANARY}&{CANARY}=1@a:1"),
            format!("kafka://user:pass?{CANARY}=1"),
        ] {
            let error = KafkaConfig::from_url(&url).unwrap_err();
            assert!(!error.report().contains(CANARY) && !format!("{error:?}").contains(CANARY), "{error:?}");
        }
        let token = KafkaConfig::from_url(&format!("kafka://{CANARY}@a:1?sasl=oauthbearer")).unwrap();
        assert!(!format!("{token:?}").contains(CANARY));
    }

    #[test]
    fn the_environment_says_the_same_and_names_the_variable() {
        let env = |pairs: &[(&str, &str)]| {
            KafkaConfig::from_variables(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
        };
        let config = env(&[("BROKERS", "a:1, b"), ("LINGER", "9ms"), ("USERNAME", "u"), ("PASSWORD", CANARY)]).unwrap();
        assert_eq!((config.brokers.len(), config.linger), (2, Duration::from_millis(9)));
        assert!(matches!(config.sasl, Some(Sasl::Plain { .. })));
        assert!(!format!("{config:?}").contains(CANARY));
        let guarded = format!("user:{CANARY}@a:1");
        let error = env(&[("BROKERS", &guarded)]).unwrap_err();
        assert!(error.to_string().contains("brokers") && !error.report().contains(CANARY), "{error}");
        for (pairs, name) in [
            (&[("BROKERS", "a:1"), ("URL", "kafka://a:1")][..], "TIDINGS_KAFKA_BROKERS"),
            (&[("BROKERS", "a:1"), ("LINGR", "1ms")][..], "TIDINGS_KAFKA_LINGR"),
            (&[("BROKERS", "a:1"), ("LINGER", "1")][..], "TIDINGS_KAFKA_LINGER"),
            (&[("URL", "kafkas://a:1"), ("TLS", "false")][..], "TIDINGS_KAFKA_TLS"),
            (&[("URL", "kafka://a:1?linger=1ms"), ("LINGER", "2ms")][..], "TIDINGS_KAFKA_LINGER"),
            (&[("URL", "kafka://u:p@a:1"), ("USERNAME", "v"), ("PASSWORD", "q")][..], "sasl"),
            (&[("BROKERS", "a:1"), ("USERNAME", "u"), ("PASSWORD", "p"), ("TOKEN", "t")][..], "token"),
            (&[("BROKERS", "a:1"), ("SASL", "plain"), ("TOKEN", "t")][..], "token"),
            (&[][..], "TIDINGS_KAFKA_BROKERS"),
        ] {
            let error = env(pairs).unwrap_err();
            assert!(error.report().contains(name), "{error}");
        }
    }
}
