//! Selection of a transport by its URL.
//!
//! A program that takes its broker from its environment needs no code per backend. Only the scheme is read here; the
//! rest of the URL is parsed by the transport's own config, by the rules of
//! [`ConnectionUrl`](tidings_core::settings::ConnectionUrl).

use std::sync::Arc;

use crate::{Error, ErrorKind, Result, Transport};

/// The supported schemes and their features.
static SCHEMES: [(&str, &str); 3] = [("memory", "memory"), ("kafka", "kafka"), ("kafkas", "kafka")];

/// Schemes of stores, which are opened by their own types.
static STORES: [(&str, &str); 2] = [("postgres", "PostgresStore"), ("postgresql", "PostgresStore")];

/// Opens the transport that `url` names: `memory://`, `kafka://broker:9092` or `kafkas://broker:9093` (TLS).
///
/// By default one attempt is made. `kafka://broker:9092?connect_wait=30s` tries again for that long while no broker
/// answers, as when a service and its broker start together. Each `memory://` opens a broker of its own: share the
/// transport.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidings::Result<()> {
/// let transport = tidings::connect("memory://?partitions=3").await?;
/// assert_eq!(transport.system(), "memory");
///
/// let error = tidings::connect("amqp://user:secret@broker").await.unwrap_err();
/// assert_eq!(error.kind(), tidings::ErrorKind::Invalid);
/// assert!(!error.to_string().contains("secret"));
/// # Ok(())
/// # }
/// ```
///
/// Cancel-safe: a dropped future connects nothing.
///
/// # Errors
/// [`ErrorKind::Invalid`] for a URL that names no transport, or one whose feature is off: then the message says which
/// feature to add. Otherwise those of the transport. No error repeats the URL, which may hold a password.
pub async fn connect(url: &str) -> Result<Arc<dyn Transport>> {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme).to_ascii_lowercase();
    #[cfg(feature = "memory")]
    if scheme == "memory" {
        let config = crate::memory::MemoryConfig::from_url(url)?;
        return Ok(Arc::new(crate::memory::MemoryTransport::open(config)?));
    }
    #[cfg(feature = "kafka")]
    if scheme == "kafka" || scheme == "kafkas" {
        let config = crate::kafka::KafkaConfig::from_url(url)?;
        return Ok(Arc::new(crate::kafka::KafkaTransport::connect(config).await?));
    }
    Err(unknown(&scheme))
}

/// Returns the error of a `scheme` that names no transport. It is repeated only if known: even the scheme may be part
/// of a password.
fn unknown(scheme: &str) -> Error {
    let of = |known: &'static [(&str, &str)]| known.iter().find(|(name, _)| *name == scheme);
    let text = match (of(&SCHEMES), of(&STORES)) {
        (Some((_, feature)), _) => {
            format!("connect to {scheme}://: needs the feature {feature:?}, `cargo add tidings --features {feature}`")
        }
        (None, Some((_, store))) => {
            format!("connect to {scheme}://: a store, not a transport: open it with tidings::postgres::{store}")
        }
        (None, None) => format!("connect: expected a URL that starts with {}", schemes()),
    };
    Error::new(ErrorKind::Invalid, text)
}

fn schemes() -> String {
    SCHEMES.map(|(scheme, _)| format!("{scheme}://")).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_whose_feature_is_off_is_told_with_the_feature() {
        let error = unknown("kafkas").to_string();
        assert!(error.contains("cargo add tidings --features kafka"), "{error}");
    }

    #[cfg(feature = "memory")]
    #[tokio::test]
    async fn memory_is_opened_with_the_settings_of_its_url() {
        assert_eq!(connect("memory://?partitions=3").await.unwrap().system(), "memory");
        let error = connect("memory://?partitions=none").await.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("partitions"), "{error}");
    }

    #[cfg(feature = "kafka")]
    #[tokio::test]
    async fn a_setting_of_a_kafka_url_is_checked_before_anybody_is_called() {
        let error = connect("kafka://user:secret@host:9092?lingerr=5ms").await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("lingerr") && !error.report().contains("secret"), "{error}");
    }

    #[cfg(feature = "kafka")]
    #[tokio::test]
    async fn an_error_of_connect_names_the_broker_and_the_cause_in_one_line() {
        let error = connect("KAFKA://127.0.0.1:1").await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let text = error.to_string();
        assert!(text.contains("127.0.0.1:1") && text.contains("refused") && text.lines().count() == 1, "{text}");
        assert_eq!(text, error.report());
        assert!(text.matches("127.0.0.1:1").count() == 1 && text.matches("onnect").count() <= 3, "{text}");
    }

    #[test]
    fn a_store_is_told_from_a_transport() {
        assert!(unknown("postgres").to_string().contains("tidings::postgres::PostgresStore"));
    }

    #[tokio::test]
    async fn an_unknown_scheme_is_refused_without_showing_the_url() {
        for url in ["amqp://user:secret@host", "user:secret@host", "secret://host", "Kafka:secret@host", ""] {
            let error = connect(url).await.map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("memory://, kafka://, kafkas://"), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
