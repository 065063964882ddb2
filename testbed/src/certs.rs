//! A certificate authority for one test run, and certificates for servers and clients.

use crate::error::{Error, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

/// A certificate chain and its private key (PKCS#8), both PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    cert_pem: String,
    key_pem: String,
}

impl Identity {
    /// Returns the certificate, followed by its authority's.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// Returns the private key. It protects nothing: it lives as long as the test.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Returns key and chain in one text, as Kafka and others read them.
    pub fn key_and_cert_pem(&self) -> String {
        format!("{}{}", self.key_pem, self.cert_pem)
    }
}

/// Validity of a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// Valid now, for 127.0.0.1 and localhost.
    Good,
    /// Valid for the right names, but expired long ago.
    Expired,
    /// Valid for `elsewhere.example` only.
    WrongName,
}

/// A certificate authority for a test.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// Creates an authority with a new key.
    ///
    /// # Errors
    /// If the system provides no random numbers.
    pub fn generate(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, key()?).map_err(failed)?;
        Ok(Self { issuer })
    }

    /// Returns the authority's certificate, which clients trust.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Creates a client certificate with the subject `CN=name`.
    ///
    /// # Errors
    /// If the system provides no random numbers.
    pub fn client(&self, name: &str) -> Result<Identity> {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    pub(crate) fn server(&self, certificate: Certificate) -> Result<Identity> {
        let names = match certificate {
            Certificate::WrongName => vec!["elsewhere.example".to_owned()],
            Certificate::Good | Certificate::Expired => vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
        };
        let mut params = CertificateParams::new(names).map_err(failed)?;
        params.distinguished_name = named("tidings testbed server");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if certificate == Certificate::Expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Identity> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = key()?;
        let cert = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Identity { cert_pem: format!("{}{}", cert.pem(), self.pem()), key_pem: key.serialize_pem() })
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

fn key() -> Result<KeyPair> {
    KeyPair::generate().map_err(failed)
}

fn failed(error: rcgen::Error) -> Error {
    Error::failed(format!("make a certificate: {error}"))
}
