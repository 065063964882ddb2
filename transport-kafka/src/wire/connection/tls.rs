//! TLS with the settings of the configuration. Files are read for each connection, so that renewed certificates are
//! used.

use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tidings_core::{Error, ErrorKind, Result};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::stream::failed;
use crate::config::{Pem, Tls};

/// Performs the handshake; the broker's certificate must be valid for `host`.
///
/// # Errors
/// [`Denied`](ErrorKind::Denied) if a certificate is refused by either side, [`Invalid`](ErrorKind::Invalid) if a
/// setting cannot be used, [`Unavailable`](ErrorKind::Unavailable) if the connection breaks.
pub(super) async fn connect(host: &str, tls: &Tls, socket: TcpStream) -> Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|e| Error::caused_by(ErrorKind::Invalid, format!("the host {host:?} cannot be verified"), e))?;
    let tls = tls.clone();
    let building = tokio::task::spawn_blocking(move || client_config(&tls));
    let config = building.await.map_err(|e| Error::caused_by(ErrorKind::Unavailable, "read TLS settings", e))??;
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.map_err(failed)
}

fn client_config(tls: &Tls) -> Result<ClientConfig> {
    let invalid = |e: rustls::Error| Error::caused_by(ErrorKind::Invalid, "tls", e);
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(ca) => {
            for certificate in certificates("tls.ca", ca)? {
                roots.add(certificate).map_err(|e| Error::caused_by(ErrorKind::Invalid, "tls.ca", e))?;
            }
        }
    }
    // Set explicitly, because the process may have several providers and no default.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(invalid)?.with_root_certificates(roots);
    match &tls.identity {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => {
            let key = private_key("tls.identity key", key)?;
            builder.with_client_auth_cert(certificates("tls.identity", chain)?, key).map_err(invalid)
        }
    }
}

/// Reads certificates. Fails if there are none, because the handshake's error would not name the setting.
fn certificates(field: &str, pem: &Pem) -> Result<Vec<CertificateDer<'static>>> {
    let text = read(field, pem)?;
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|e| malformed(field, pem, &e))?;
    if found.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, format!("{field}: it contains no certificate")));
    }
    Ok(found)
}

fn private_key(field: &str, pem: &Pem) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(&read(field, pem)?).map_err(|e| malformed(field, pem, &e))
}

/// Describes malformed PEM. The parser's own error may quote the text, which can be a private key.
fn malformed(field: &str, pem: &Pem, error: &pem::Error) -> Error {
    let why = match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no END line; its line breaks may be lost",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is malformed; its line breaks may be lost",
        pem::Error::Base64Decode(_) => "a section is not valid base64",
        pem::Error::NoItemsFound => "it contains no section of the expected type",
        pem::Error::SectionTooLarge => "a section is too large",
        _ => "it is not valid PEM",
    };
    Error::new(ErrorKind::Invalid, format!("{}: {why}", unreadable(field, pem)))
}

fn read(field: &str, pem: &Pem) -> Result<Vec<u8>> {
    match pem {
        Pem::Text(text) => Ok(text.expose().as_bytes().to_vec()),
        Pem::File(path) => {
            std::fs::read(path).map_err(|e| Error::caused_by(ErrorKind::Invalid, unreadable(field, pem), e))
        }
    }
}

/// Names the setting and the file, never the content.
fn unreadable(field: &str, pem: &Pem) -> String {
    match pem {
        Pem::Text(_) => format!("{field}: read PEM"),
        Pem::File(path) => format!("{field}: read {}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use tidings_core::Secret;

    use super::*;

    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nU2VjcmV0\n-----END PRIVATE KEY-----\n";

    /// As happens in environment variables and YAML.
    #[test]
    fn a_key_without_line_breaks_is_not_quoted() {
        let bytes: Vec<String> = b"U2VjcmV0".iter().map(u8::to_string).collect();
        for lost in [" ", "\\n", "", "\t"] {
            for text in
                [KEY.replace('\n', lost), format!("{}-----", KEY.replace('\n', lost)), KEY.replacen('\n', lost, 1)]
            {
                let pem = Pem::Text(Secret::from(text));
                let errors = [private_key("key", &pem).map(drop), certificates("ca", &pem).map(drop)];
                for error in errors.into_iter().filter_map(Result::err) {
                    for shown in [error.report(), format!("{error:?}")] {
                        assert!(!shown.contains("U2Vjc") && !shown.contains(&bytes.join(", ")), "{shown}");
                    }
                }
            }
        }
        assert!(private_key("key", &Pem::Text(Secret::from(KEY.replace('\n', " ")))).is_err());
    }
}
