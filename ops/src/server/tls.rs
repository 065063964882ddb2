//! TLS by rustls, with the provider that the Kafka transport uses.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tidings_core::{Error, ErrorKind, Result};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

/// Makes TLS of connections.
#[derive(Clone)]
pub(crate) struct Acceptor(TlsAcceptor);

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptor")
    }
}

impl Acceptor {
    /// Reads a certificate chain and its private key, both PEM.
    pub(crate) fn read(certificates: &Path, key: &Path) -> Result<Self> {
        let chain = CertificateDer::pem_file_iter(certificates).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let chain = chain.map_err(|error| unusable("certificate", certificates, &error))?;
        if chain.is_empty() {
            let text = format!("read the certificate in {}: it has none", certificates.display());
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable("private key", key, &error))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key_der));
        let mut config = config.map_err(|error| {
            let context =
                format!("use the certificate in {} with the key in {}", certificates.display(), key.display());
            Error::explained(ErrorKind::Invalid, context, &error)
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    pub(super) fn accept(&self, stream: TcpStream) -> tokio_rustls::Accept<TcpStream> {
        self.0.accept(stream)
    }
}

fn unusable(what: &str, path: &Path, cause: &rustls::pki_types::pem::Error) -> Error {
    Error::explained(ErrorKind::Invalid, format!("read the {what} in {}", path.display()), cause)
}
