//! Checks a configuration before anything is opened.
//!
//! Ranges are those of the protocol (sizes and times are signed 32-bit numbers on the wire) and of
//! common sense; relations between fields are those that the client or the brokers rely on.

use std::time::Duration;

use tidings_core::settings::{Address, SettingError};
use tidings_core::{ErrorKind, check_topic_name};

use super::{Compression, KafkaConfig, Pem, Sasl, Tls};

/// Upper bound of [`KafkaConfig::linger`]; a larger value is a mistake.
const MAX_LINGER: Duration = Duration::from_secs(60);
/// Upper bound of [`KafkaConfig::connect_wait`].
const MAX_CONNECT_WAIT: Duration = Duration::from_secs(24 * 3_600);

/// Brokers hold static members to the rule for topics.
///
/// The text of the rule, for errors.
const INSTANCE_ID_RULE: &str = "1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-', and neither \".\" nor \"..\"";

type Result<T, E = SettingError> = std::result::Result<T, E>;

/// Returns the error of a field; the expected value is named, the given one only if it is no
/// secret.
fn wrong(field: &str, expected: impl std::fmt::Display) -> SettingError {
    SettingError::expected(field, expected)
}

impl KafkaConfig {
    /// Checks that the settings are consistent; the error names the field and the expected value.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid), and [`Unsupported`](ErrorKind::Unsupported) for a codec
    /// that is not built in.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_brokers()?;
        self.check_sizes()?;
        self.check_times()?;
        self.check_compression()?;
        if self.client_id.is_empty() || self.client_id.len() > 249 {
            return Err(wrong("client_id", "1 to 249 bytes"));
        }
        if self.instance_id.as_deref().is_some_and(|id| check_topic_name(id).is_err()) {
            return Err(wrong("instance_id", INSTANCE_ID_RULE));
        }
        if self.rack.as_ref().is_some_and(String::is_empty) {
            return Err(wrong("rack", "non-empty text, or None"));
        }
        self.tls.as_ref().map_or(Ok(()), check_tls)?;
        self.sasl.as_ref().map_or(Ok(()), check_sasl)
    }

    /// A port is required here, while URLs and variables supply the default one: a list in code is
    /// more often wrong than short.
    fn check_brokers(&self) -> Result<()> {
        if self.brokers.is_empty() {
            return Err(wrong("brokers", "one or more host:port"));
        }
        for (place, broker) in (1..).zip(&self.brokers) {
            let field = format!("brokers, number {place}");
            if Address::parse(&field, broker)?.port().is_none() {
                return Err(wrong(&field, "host:port, and the port is missing"));
            }
        }
        Ok(())
    }

    /// A partition's share of a fetch, and a batch, may not exceed the whole that they are part of.
    fn check_sizes(&self) -> Result<()> {
        let most = i32::MAX as usize;
        for (field, bytes) in [
            ("batch_bytes", self.batch_bytes),
            ("max_record_bytes", self.max_record_bytes),
            ("max_unanswered_records", self.max_unanswered_records),
            ("max_unanswered_bytes", self.max_unanswered_bytes),
            ("fetch_max_bytes", self.fetch_max_bytes),
            ("fetch_max_partition_bytes", self.fetch_max_partition_bytes),
            ("fetch_max_unpacked_bytes", self.fetch_max_unpacked_bytes),
        ] {
            if bytes == 0 || bytes > most {
                return Err(wrong(field, format_args!("1 to {most}, got {bytes}")));
            }
        }
        for (field, bytes, whole, most) in [
            ("fetch_max_partition_bytes", self.fetch_max_partition_bytes, "fetch_max_bytes", self.fetch_max_bytes),
            ("batch_bytes", self.batch_bytes, "max_unanswered_bytes", self.max_unanswered_bytes),
        ] {
            if bytes > most {
                return Err(wrong(field, format_args!("at most {whole} ({most}), got {bytes}")));
            }
        }
        Ok(())
    }

    /// A broker must answer a fetch before the request times out, and a record needs time for at
    /// least one request after its linger.
    fn check_times(&self) -> Result<()> {
        for (field, time) in [
            ("delivery_timeout", self.delivery_timeout),
            ("connect_timeout", self.connect_timeout),
            ("request_timeout", self.request_timeout),
            ("metadata_max_age", self.metadata_max_age),
        ] {
            if time < Duration::from_millis(1) || time.as_millis() > i32::MAX as u128 {
                return Err(wrong(field, format_args!("1 ms to 24 days, got {time:?}")));
            }
        }
        if self.connect_wait > MAX_CONNECT_WAIT {
            return Err(wrong("connect_wait", format_args!("at most 24 hours, got {:?}", self.connect_wait)));
        }
        if self.linger > MAX_LINGER {
            return Err(wrong("linger", format_args!("at most {MAX_LINGER:?}, got {:?}", self.linger)));
        }
        if self.fetch_max_wait >= self.request_timeout {
            let most = self.request_timeout;
            return Err(wrong("fetch_max_wait", format_args!("less than request_timeout ({most:?})")));
        }
        if self.delivery_timeout < self.linger.saturating_add(self.request_timeout) {
            return Err(wrong("delivery_timeout", "at least linger and request_timeout together"));
        }
        Ok(())
    }

    /// A level is refused with a codec that has none: it would be ignored silently.
    fn check_compression(&self) -> Result<()> {
        if self.compression == Compression::Zstd && !cfg!(feature = "zstd") {
            let why = "another codec or the cargo feature kafka-zstd of tidings, as zstd is not built in";
            return Err(wrong("compression", why).with_kind(ErrorKind::Unsupported));
        }
        let Some(level) = self.compression_level else { return Ok(()) };
        let range = match self.compression {
            Compression::Gzip => 0..=9,
            Compression::Zstd => 1..=22,
            _ => return Err(wrong("compression_level", "none, as only gzip and zstd have levels")),
        };
        if range.contains(&level) {
            return Ok(());
        }
        Err(wrong("compression_level", format_args!("{} to {}, got {level}", range.start(), range.end())))
    }
}

/// Files must exist, and texts must look like PEM; their content is judged when connecting.
fn check_tls(tls: &Tls) -> Result<()> {
    let (certificates, key) = tls.identity.as_ref().map_or((None, None), |(c, k)| (Some(c), Some(k)));
    for (field, pem) in [("tls.ca", tls.ca.as_ref()), ("tls.identity", certificates), ("tls.identity key", key)] {
        match pem {
            Some(Pem::Text(text)) if !text.expose().contains("-----BEGIN") => return Err(wrong(field, "PEM")),
            Some(Pem::File(path)) if !path.is_file() => {
                return Err(wrong(field, "the path of a file that exists"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Zero bytes separate the fields of PLAIN (RFC 4616), so none may be in a name or password.
fn check_sasl(sasl: &Sasl) -> Result<()> {
    match sasl {
        Sasl::Plain { username, password } | Sasl::Scram { username, password, .. } => {
            if username.is_empty() || username.contains('\0') {
                return Err(wrong("sasl.username", "some text without zero bytes"));
            }
            if password.is_empty() || password.expose().contains('\0') {
                return Err(wrong("sasl.password", "some text without zero bytes"));
            }
            Ok(())
        }
        Sasl::OAuthBearer(_) => Ok(()),
    }
}
