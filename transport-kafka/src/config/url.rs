//! The same settings as a URL.

use tidings_core::settings::{ConnectionUrl, SettingError};
use tidings_core::{Error, Result};

use super::text::{PARAMETERS, Settings};
use super::{KafkaConfig, Tls};

/// The port of a broker that names none.
pub(super) const DEFAULT_PORT: u16 = 9092;

impl KafkaConfig {
    /// Reads `kafka://a:9092,b:9092?compression=lz4&linger=5ms`; `kafkas://` is TLS.
    ///
    /// Parameters: `client_id`, `compression` (`none`, `gzip`, `snappy`, `lz4`, `zstd`), `compression_level`, `linger`,
    /// `batch_bytes`, `max_record_bytes`, `max_unanswered_records`, `max_unanswered_bytes`, `delivery_timeout`,
    /// `connect_timeout`, `connect_wait`, `request_timeout`, `metadata_max_age`, `fetch_max_bytes`,
    /// `fetch_max_partition_bytes`, `fetch_max_unpacked_bytes`, `fetch_max_wait`, `group_protocol` (`auto`, `consumer`,
    /// `classic`), `instance_id`, `isolation` (`read_committed`, `read_uncommitted`), `rack`, `sasl` (`plain`,
    /// `scram-sha-256`, `scram-sha-512`, `oauthbearer`), and the files `tls_ca`, `tls_cert`, `tls_key`. Durations have
    /// a unit (`5ms`, `30s`, `2m`), sizes may have one (`256KiB`). Name and password stand before the hosts
    /// (`kafkas://user:password@host:9093`), or a token alone; whatever is special in a URL is percent-encoded. No
    /// error ever repeats a part of the URL.
    ///
    /// # Errors
    /// [`Invalid`](tidings_core::ErrorKind::Invalid), naming the part of the URL or the parameter, and the expected form;
    /// unknown parameters too.
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
            return Err(expected("nothing behind the hosts but parameters"));
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

/// The error of a setting that was given in code or by a URL.
pub(crate) fn in_context(error: SettingError) -> Error {
    Error::from(error).in_context("configure the Kafka transport")
}
