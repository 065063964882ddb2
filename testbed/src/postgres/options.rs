//! What a server is made of.

use crate::certs::Certificate;
use std::{collections::BTreeMap, time::Duration};

/// How long a server may take to answer after its start, crash recovery included.
pub const POSTGRES_START_TIMEOUT: Duration = Duration::from_secs(60);

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// SIGINT: sessions are ended, transactions rolled back, all is written.
    Fast,
    /// SIGQUIT: as a crash; the next start recovers from the log.
    Immediate,
}

/// What a Postgres server is made of: SCRAM passwords, no TLS and `fsync = on`, unless something else is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PostgresOptions {
    /// What the server shows to clients that ask for TLS; without it, it has none.
    pub tls: Option<Certificate>,
    /// Whether clients without TLS are refused.
    pub tls_only: bool,
    /// The size of a disk that gets full, in MiB; without it, there is none.
    pub small_disk: Option<u32>,
    /// More lines for `postgresql.conf`; they win.
    pub settings: BTreeMap<String, String>,
}

impl PostgresOptions {
    /// SCRAM passwords, no TLS.
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

    /// Has a disk of so many MiB beside its own, for a [tablespace](super::Postgres::small_disk). It is lost when the
    /// server stops. Linux only, and not on every machine.
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
