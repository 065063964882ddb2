//! Picking a transport by its URL.

use std::sync::Arc;

use crate::{Error, ErrorKind, Result, Transport};

/// The schemes that there are, and the feature of each.
const SCHEMES: [(&str, &str); 3] = [("memory", "memory"), ("kafka", "kafka"), ("kafkas", "kafka")];

/// Opens the transport that `url` names: `memory://`, `kafka://broker:9092` or `kafkas://broker:9093` (TLS).
///
/// # Errors
/// [`ErrorKind::Invalid`] for a URL that names no transport, or one whose feature is off: then the message says which
/// feature to add. Otherwise those of the transport.
pub async fn connect(url: &str) -> Result<Arc<dyn Transport>> {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
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
    Err(unknown(scheme))
}

/// Why `scheme` names no transport. Only the scheme is shown: the rest may hold a password.
fn unknown(scheme: &str) -> Error {
    let what = match SCHEMES.iter().find(|(known, _)| *known == scheme) {
        Some((_, feature)) => {
            format!("connect to {scheme}://: needs the feature {feature:?}, `cargo add tidings --features {feature}`")
        }
        None if scheme.is_empty() => format!("connect: expected a URL that starts with {}", schemes()),
        None => format!("connect to {scheme:?}: no such scheme, expected {}", schemes()),
    };
    Error::new(ErrorKind::Invalid, what)
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

    #[tokio::test]
    async fn an_unknown_scheme_is_refused_without_showing_the_url() {
        for url in ["amqp://user:secret@host", "user:secret@host", ""] {
            let error = connect(url).await.map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("memory://, kafka://, kafkas://"), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
