//! Records of an audit trail.

use serde::{Deserialize, Serialize};
use tidings_core::audit::{AuditHash, AuditPage, AuditPosition, StoredAudit};
use tidings_core::{Error, ErrorKind, Result};

use super::Text;

/// A record of an audit trail, linked into its chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AuditRecord {
    /// The chain: one per writer.
    pub chain: String,
    /// The record's number in its chain.
    pub seq: u64,
    /// The hash of the record before it, in hexadecimal.
    pub prev: String,
    /// The record's hash, in hexadecimal.
    pub hash: String,
    /// The record as CloudEvents JSON, in a string: the hash covers these bytes.
    pub event: Text,
}

impl From<&StoredAudit> for AuditRecord {
    fn from(stored: &StoredAudit) -> Self {
        Self {
            chain: stored.chain.to_string(),
            seq: stored.seq,
            prev: stored.prev.to_string(),
            hash: stored.hash.to_string(),
            event: Text(stored.bytes.clone()),
        }
    }
}

impl TryFrom<AuditRecord> for StoredAudit {
    type Error = Error;

    fn try_from(wire: AuditRecord) -> Result<Self> {
        let hash = |name: &str, text: &str| {
            let wrong =
                || Error::new(ErrorKind::Undecodable, format!("{name}: expected a hash of 64 hexadecimal digits"));
            AuditHash::parse(text).ok_or_else(wrong)
        };
        Ok(Self::new(wire.chain, wire.seq, hash("prev", &wire.prev)?, hash("hash", &wire.hash)?, wire.event.0))
    }
}

/// A page of an audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AuditRecords {
    /// The records; none at the end of the trail.
    pub records: Vec<AuditRecord>,
    /// The position after them, where the next page begins.
    pub next: String,
}

impl From<AuditPage> for AuditRecords {
    fn from(page: AuditPage) -> Self {
        Self { records: page.records.iter().map(AuditRecord::from).collect(), next: page.next.as_str().to_owned() }
    }
}

impl TryFrom<AuditRecords> for AuditPage {
    type Error = Error;

    fn try_from(wire: AuditRecords) -> Result<Self> {
        let records = wire.records.into_iter().map(StoredAudit::try_from).collect::<Result<_>>()?;
        Ok(Self::new(records, AuditPosition::new(wire.next)))
    }
}
