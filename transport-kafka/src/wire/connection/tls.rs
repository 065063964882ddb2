//! TLS with the settings of the configuration. Files are read for each connection, so that renewed certificates are
//! used.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
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
    let unreadable = |e| Error::caused_by(ErrorKind::Invalid, unreadable(field, pem), e);
    let text = read(field, pem)?;
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(&text).collect::<std::result::Result<_, _>>().map_err(unreadable)?;
    if found.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, format!("{field}: it contains no certificate")));
    }
    Ok(found)
}

fn private_key(field: &str, pem: &Pem) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(&read(field, pem)?)
        .map_err(|e| Error::caused_by(ErrorKind::Invalid, unreadable(field, pem), e))
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
