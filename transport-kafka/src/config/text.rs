//! Parses settings from text, for URLs and environment variables alike.
//!
//! A setting is parsed where it is read, but TLS files and SASL credentials come in parts and in
//! any order: they are collected in [`Settings`] and combined by [`Settings::finish`], which
//! refuses combinations that contradict each other.

use tidings_core::Secret;
use tidings_core::settings::{Setting, SettingError};

use super::{
    Compression, GroupProtocol, Isolation, KafkaConfig, Pem, PublisherKind, ReaderKind, Sasl, ScramHash, Tls, Token,
};

/// URL parameters; in capitals, environment variables.
///
/// Unknown names are errors that suggest a near one, so a misspelt parameter is never ignored.
pub(super) const PARAMETERS: [&str; 27] = [
    "client_id",
    "compression",
    "compression_level",
    "linger",
    "batch_bytes",
    "max_record_bytes",
    "max_unanswered_records",
    "max_unanswered_bytes",
    "delivery_timeout",
    "connect_timeout",
    "connect_wait",
    "request_timeout",
    "metadata_max_age",
    "fetch_max_bytes",
    "fetch_max_partition_bytes",
    "fetch_max_unpacked_bytes",
    "fetch_max_wait",
    "group_protocol",
    "instance_id",
    "isolation",
    "rack",
    "reader",
    "publisher",
    "sasl",
    "tls_ca",
    "tls_cert",
    "tls_key",
];
/// Names of codecs, as Kafka's `compression.type` has them.
const COMPRESSIONS: [(&str, Compression); 5] = [
    ("none", Compression::None),
    ("gzip", Compression::Gzip),
    ("snappy", Compression::Snappy),
    ("lz4", Compression::Lz4),
    ("zstd", Compression::Zstd),
];
/// Names of protocols, as Kafka's `group.protocol` has them, and `auto`.
const PROTOCOLS: [(&str, GroupProtocol); 3] =
    [("auto", GroupProtocol::Auto), ("consumer", GroupProtocol::Consumer), ("classic", GroupProtocol::Classic)];
/// Names of isolation levels, as Kafka's `isolation.level` has them.
const ISOLATIONS: [(&str, Isolation); 2] =
    [("read_committed", Isolation::ReadCommitted), ("read_uncommitted", Isolation::ReadUncommitted)];
/// Names of the readers.
const READERS: [(&str, ReaderKind); 2] = [("client", ReaderKind::Client), ("native", ReaderKind::Native)];
/// Names of the publishers.
const PUBLISHERS: [(&str, PublisherKind); 2] = [("client", PublisherKind::Client), ("native", PublisherKind::Native)];

type Result<T, E = SettingError> = std::result::Result<T, E>;

/// Settings that are valid only in combination.
///
/// Values of one source, a URL or the environment. The environment starts with what its URL has
/// set.
#[derive(Default)]
pub(super) struct Settings {
    /// Set by `kafkas://` or `TIDINGS_KAFKA_TLS`.
    tls: Option<Tls>,
    /// Credentials that the URL has already; then no part may be given again.
    sasl: Option<Sasl>,
    /// The SASL mechanism in lower case; without one, it follows from the credentials that are
    /// given.
    mechanism: Option<String>,
    /// The user name, or for OAUTHBEARER in a URL the token.
    pub(super) username: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) token: Option<Secret>,
    /// The client's certificate chain, which needs a key.
    certificates: Option<Pem>,
    /// The key of the chain, which needs certificates.
    key: Option<Pem>,
}

impl Settings {
    /// Creates settings with these initial values.
    pub(super) fn new(tls: Option<Tls>, sasl: Option<Sasl>) -> Self {
        Self { tls, sasl, ..Self::default() }
    }

    /// Sets the field that the setting names, or collects it.
    ///
    /// # Errors
    /// The expected form of the value, or for an unknown name the names that exist.
    pub(super) fn set(&mut self, config: &mut KafkaConfig, setting: Setting<'_>) -> Result<()> {
        match setting.name() {
            "client_id" => config.client_id = setting.text().to_owned(),
            "compression" => config.compression = setting.choice(&COMPRESSIONS)?,
            "compression_level" => config.compression_level = Some(setting.number()?),
            "linger" => config.linger = setting.duration()?,
            "batch_bytes" => config.batch_bytes = setting.bytes()?,
            "max_record_bytes" => config.max_record_bytes = setting.bytes()?,
            "max_unanswered_records" => config.max_unanswered_records = setting.number()?,
            "max_unanswered_bytes" => config.max_unanswered_bytes = setting.bytes()?,
            "delivery_timeout" => config.delivery_timeout = setting.duration()?,
            "connect_timeout" => config.connect_timeout = setting.duration()?,
            "connect_wait" => config.connect_wait = setting.duration()?,
            "request_timeout" => config.request_timeout = setting.duration()?,
            "metadata_max_age" => config.metadata_max_age = setting.duration()?,
            "fetch_max_bytes" => config.fetch_max_bytes = setting.bytes()?,
            "fetch_max_partition_bytes" => config.fetch_max_partition_bytes = setting.bytes()?,
            "fetch_max_unpacked_bytes" => config.fetch_max_unpacked_bytes = setting.bytes()?,
            "fetch_max_wait" => config.fetch_max_wait = setting.duration()?,
            "group_protocol" => config.group_protocol = setting.choice(&PROTOCOLS)?,
            "instance_id" => config.instance_id = Some(setting.text().to_owned()),
            "isolation" => config.isolation = setting.choice(&ISOLATIONS)?,
            "rack" => config.rack = Some(setting.text().to_owned()),
            "reader" => config.reader = setting.choice(&READERS)?,
            "publisher" => config.publisher = setting.choice(&PUBLISHERS)?,
            "sasl" => self.mechanism = Some(setting.text().to_lowercase()),
            "tls_ca" => self.tls_for(setting)?.ca = Some(Pem::File(setting.text().into())),
            "tls_cert" => {
                self.tls_for(setting)?;
                self.certificates = Some(Pem::File(setting.text().into()));
            }
            "tls_key" => {
                self.tls_for(setting)?;
                self.key = Some(Pem::File(setting.text().into()));
            }
            name => return Err(SettingError::unknown(name, &PARAMETERS)),
        }
        Ok(())
    }

    /// Enables TLS; can't disable what `kafkas://` has enabled.
    pub(super) fn set_tls(&mut self, value: &str) -> Result<()> {
        match value {
            "true" => {
                self.tls.get_or_insert_with(Tls::new);
            }
            "false" if self.tls.is_none() => {}
            _ => return Err(SettingError::expected("tls", "true, or false where the URL is not kafkas://")),
        }
        Ok(())
    }

    /// Returns the TLS settings for a file, which has no meaning without TLS.
    fn tls_for(&mut self, setting: Setting<'_>) -> Result<&mut Tls> {
        self.tls.as_mut().ok_or_else(|| setting.expected("none without TLS (kafkas://)"))
    }

    /// Combines what was collected.
    ///
    /// A name and password without a mechanism mean PLAIN, a token alone means OAUTHBEARER.
    ///
    /// # Errors
    /// The missing part, or the part that contradicts another.
    pub(super) fn finish(self, config: &mut KafkaConfig) -> Result<()> {
        config.tls = self.tls;
        match (self.certificates, self.key) {
            (None, None) => {}
            (Some(certificates), Some(key)) => {
                if let Some(tls) = &mut config.tls {
                    tls.identity = Some((certificates, key));
                }
            }
            (Some(_), None) => return Err(SettingError::expected("tls_key", "a file, as there is a tls_cert")),
            (None, Some(_)) => return Err(SettingError::expected("tls_cert", "a file, as there is a tls_key")),
        }
        let given = [
            ("username", self.username.is_some()),
            ("password", self.password.is_some()),
            ("token", self.token.is_some()),
            ("sasl", self.mechanism.is_some()),
        ];
        if let Some((field, _)) = given.into_iter().find(|(_, given)| *given && self.sasl.is_some()) {
            return Err(SettingError::expected(field, "nothing, as the URL has credentials"));
        }
        if self.token.is_some() && self.username.is_some() {
            return Err(SettingError::expected("token", "none, as there is a username"));
        }
        let mechanism = match (&self.mechanism, &self.username, &self.token) {
            (Some(mechanism), _, _) => mechanism.as_str(),
            (None, Some(_), _) => "plain",
            (None, None, Some(_)) => "oauthbearer",
            (None, None, None) if self.password.is_some() => {
                return Err(SettingError::expected("username", "one, as there is a password"));
            }
            (None, None, None) => {
                config.sasl = self.sasl;
                return Ok(());
            }
        };
        config.sasl = Some(match mechanism {
            "plain" | "scram-sha-256" | "scram-sha-512" if self.token.is_some() => {
                return Err(SettingError::expected("token", format_args!("none, as sasl is {mechanism}")));
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
            _ => return Err(SettingError::expected("sasl", "plain, scram-sha-256, scram-sha-512 or oauthbearer")),
        });
        Ok(())
    }
}

/// Returns the name and password; both are required.
fn credentials(name: Option<String>, password: Option<Secret>) -> Result<(String, Secret)> {
    let name = name.ok_or_else(|| SettingError::expected("username", "one, as there is a sasl mechanism"))?;
    Ok((name, password.ok_or_else(|| SettingError::expected("password", "one, as there is a username"))?))
}

/// Returns credentials with a fixed token, which a URL has in the place of the user name. It is
/// never renewed, so it suits tests and tokens that outlive the process.
fn bearer(token: Option<Secret>, name: Option<String>, password: Option<Secret>) -> Result<Sasl> {
    if password.is_some() {
        return Err(SettingError::expected("password", "none, as sasl is oauthbearer"));
    }
    let token = token.or_else(|| name.map(Secret::from));
    let token = Token::new(token.ok_or_else(|| SettingError::expected("token", "one, as sasl is oauthbearer"))?);
    Ok(Sasl::oauth_bearer(move || std::future::ready(Ok(token.clone()))))
}
