//! Reads the settings from a URL.

use tidings_core::settings::{ConnectionUrl, SettingError};
use tidings_core::{Error, Result};

use super::text::{PARAMETERS, Settings};
use super::{KafkaConfig, Tls};

/// Port of a broker given without one.
pub(super) const DEFAULT_PORT: u16 = 9092;

impl KafkaConfig {
    /// Parses a URL such as `kafka://a:9092,b:9092?compression=lz4&linger=5ms`; `kafkas://` enables TLS.
    ///
    /// Parameters: `client_id`, `compression` (`none`, `gzip`, `snappy`, `lz4`, `zstd`), `compression_level`,
    /// `linger`, `batch_bytes`, `max_record_bytes`, `max_unanswered_records`, `max_unanswered_bytes`,
    /// `delivery_timeout`, `connect_timeout`, `connect_wait`, `request_timeout`, `metadata_max_age`,
    /// `fetch_max_bytes`, `fetch_max_partition_bytes`, `fetch_max_unpacked_bytes`, `fetch_max_wait`, `group_protocol`
    /// (`auto`, `consumer`, `classic`), `instance_id`, `isolation` (`read_committed`, `read_uncommitted`), `rack`,
    /// `reader` and `publisher` (`client`, `native`), `sasl` (`plain`, `scram-sha-256`, `scram-sha-512`,
    /// `oauthbearer`), and the files `tls_ca`, `tls_cert`, `tls_key`.
    ///
    /// Durations need a unit (`5ms`, `30s`, `2m`); for sizes it is optional (`256KiB`). The name and password, or a
    /// token alone, precede the hosts (`kafkas://user:password@host:9093`); special characters must be
    /// percent-encoded.
    ///
    /// # Errors
    /// [`Invalid`](tidings_core::ErrorKind::Invalid), naming the part of the URL or the parameter, and the expected
    /// form; unknown parameters are errors too. Errors never contain a part of the URL.
    ///
    /// ```
    /// use tidings_kafka::KafkaConfig;
    ///
    /// let config = KafkaConfig::from_url("kafkas://user:password@a,b:9093?linger=5ms&batch_bytes=64KiB")?;
    /// assert_eq!(config.brokers, ["a:9092", "b:9093"]);
    /// assert!(config.tls.is_some() && config.sasl.is_some());
    ///
    /// let error = KafkaConfig::from_url("kafka://a?lingr=5ms").unwrap_err();
    /// assert_eq!(error.kind(), tidings_core::ErrorKind::Invalid);
    /// # Ok::<(), tidings_core::Error>(())
    /// ```
    pub fn from_url(url: &str) -> Result<Self> {
        let url = ConnectionUrl::parts(url).map_err(in_context)?;
        Self::from_parts(&url).map_err(in_context)
    }

    pub(super) fn from_parts(url: &ConnectionUrl) -> Result<Self, SettingError> {
        let expected = |expected: &str| SettingError::expected("the URL", expected);
        let tls = match url.scheme() {
            "kafka" => None,
            "kafkas" => Some(Tls::new()),
            _ => return Err(expected("the scheme kafka:// or kafkas://")),
        };
        if !url.path().is_empty() {
            return Err(expected("only parameters after the hosts"));
        }
        let mut config = Self::new(url.hosts().iter().map(|host| host.clone().or_port(DEFAULT_PORT).to_string()));
        let mut settings = Settings::new(tls, None);
        settings.username = url.username().map(|name| name.expose().to_owned());
        settings.password = url.password().cloned();
        url.for_each_parameter(&PARAMETERS, |setting| settings.set(&mut config, setting))?;
        settings.finish(&mut config)?;
        config.check()?;
        Ok(config)
    }
}

/// Converts the error of a setting given in code or by a URL.
pub(crate) fn in_context(error: SettingError) -> Error {
    Error::from(error).in_context("configure the Kafka transport")
}
