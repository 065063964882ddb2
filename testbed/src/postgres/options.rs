//! Options of a server.

use crate::certs::Certificate;
use std::{collections::BTreeMap, time::Duration};

/// How long a server may take to answer after its start, crash recovery included.
pub const POSTGRES_START_TIMEOUT: Duration = Duration::from_secs(60);

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// SIGINT: sessions are ended, transactions rolled back, and all data is written.
    Fast,
    /// SIGQUIT: like a crash; the next start recovers from the log.
    Immediate,
}

/// Options of a Postgres server: by default SCRAM passwords, no TLS and `fsync = on`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PostgresOptions {
    /// The server certificate; without one, the server has no TLS.
    pub tls: Option<Certificate>,
    /// Whether clients without TLS are refused.
    pub tls_only: bool,
    /// Size in MiB of a disk that fills up; without it, there is none.
    pub small_disk: Option<u32>,
    /// Additional lines for `postgresql.conf`; they take precedence.
    pub settings: BTreeMap<String, String>,
}

impl PostgresOptions {
    /// Creates options with SCRAM passwords and no TLS.
    pub fn new() -> Self {
        Self::default()
    }

    /// Offers TLS with this certificate.
    #[must_use]
    pub fn with_tls(mut self, certificate: Certificate) -> Self {
        self.tls = Some(certificate);
        self
    }

    /// Refuses clients without TLS.
    #[must_use]
    pub fn with_tls_only(mut self) -> Self {
        self.tls_only = true;
        self
    }

    /// Adds a disk of this many MiB next to the main one, for a [tablespace](super::Postgres::small_disk). Its
    /// contents are lost when the server stops. Linux only, and not on every machine.
    #[must_use]
    pub fn with_small_disk(mut self, mebibytes: u32) -> Self {
        self.small_disk = Some(mebibytes);
        self
    }

    /// Sets a line of `postgresql.conf`: `with_setting("max_connections", "20")`.
    #[must_use]
    pub fn with_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.insert(name.into(), value.into());
        self
    }
}
