//! Records as a sink stores them, and positions in a sink.

use std::fmt;

use bytes::Bytes;

use crate::{Error, ErrorKind, Header, Name, Record, Result, StoredRecord};

/// The names of the headers of an audit record in a topic.
pub mod header_names {
    /// The chain's name.
    pub const CHAIN: &str = "audit-chain";
    /// The record's number in its chain, in decimal.
    pub const SEQ: &str = "audit-seq";
    /// The hash of the record before it, in hexadecimal.
    pub const PREV: &str = "audit-prev";
    /// The record's hash, in hexadecimal.
    pub const HASH: &str = "audit-hash";
}

/// The media type of an audit record's bytes.
const CONTENT_TYPE: &str = "application/cloudevents+json";

/// A SHA-256 hash of a chain; `Display` is hexadecimal.
///
/// ```
/// use tidings_core::audit::AuditHash;
///
/// let hash = AuditHash::new([0xab; 32]);
/// assert_eq!(AuditHash::parse(&hash.to_string()), Some(hash));
/// assert_eq!(AuditHash::parse("ab"), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AuditHash([u8; 32]);

impl AuditHash {
    /// The hash before the first record of a chain.
    pub const ZERO: Self = Self([0; 32]);

    /// Creates a hash of its bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Parses the hexadecimal form; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != hash.len() || !rest.is_empty() {
            return None;
        }
        for (byte, &[high, low]) in hash.iter_mut().zip(pairs) {
            let digit = |c: u8| (c as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            *byte = digit(high)? << 4 | digit(low)?;
        }
        Some(Self(hash))
    }
}

impl fmt::Display for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An audit record, linked into a chain. `Debug` shows the length of the bytes, not the bytes.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredAudit {
    /// The chain: one per writer.
    pub chain: Name,
    /// The record's number in its chain, from 0.
    pub seq: u64,
    /// The hash of the record before it; [`AuditHash::ZERO`] for the first one.
    pub prev: AuditHash,
    /// The hash of chain, number, `prev` and bytes.
    pub hash: AuditHash,
    /// The record as CloudEvents JSON, as it was hashed.
    pub bytes: Bytes,
}

impl StoredAudit {
    /// Creates a linked record. `hash` is not checked here: verifying finds a wrong one.
    pub fn new(chain: impl Into<Name>, seq: u64, prev: AuditHash, hash: AuditHash, bytes: impl Into<Bytes>) -> Self {
        Self { chain: chain.into(), seq, prev, hash, bytes: bytes.into() }
    }

    /// Returns the record for a topic of audit records: its key is the chain, so that a chain stays in one partition.
    pub fn to_record(&self, topic: impl Into<Name>) -> Record {
        let mut record = Record::new(topic, self.bytes.clone()).with_key(self.chain.as_bytes().to_vec());
        let headers = [
            (header_names::CHAIN, self.chain.to_string()),
            (header_names::SEQ, self.seq.to_string()),
            (header_names::PREV, self.prev.to_string()),
            (header_names::HASH, self.hash.to_string()),
            (crate::headers::CONTENT_TYPE, CONTENT_TYPE.to_owned()),
        ];
        record.headers = headers.into_iter().map(|(name, value)| Header::new(name, value)).collect();
        record
    }

    /// Decodes a record of a topic of audit records.
    ///
    /// # Errors
    /// [`Undecodable`](ErrorKind::Undecodable): it is no audit record; the message names the offset and the header.
    pub fn from_record(record: &StoredRecord) -> Result<Self> {
        let header = |name: &'static str| {
            record.headers.get_str(name).ok_or_else(|| undecodable(record.offset, name, "is missing or no text"))
        };
        let hash = |name: &'static str| {
            AuditHash::parse(header(name)?).ok_or_else(|| undecodable(record.offset, name, "is no hash"))
        };
        let seq = header(header_names::SEQ)?.parse();
        let seq = seq.map_err(|_| undecodable(record.offset, header_names::SEQ, "is no number"))?;
        let chain = header(header_names::CHAIN)?.to_owned();
        let bytes = record.value.clone().unwrap_or_default();
        Ok(Self::new(chain, seq, hash(header_names::PREV)?, hash(header_names::HASH)?, bytes))
    }
}

fn undecodable(offset: u64, header: &str, why: &str) -> Error {
    let text = format!("read the audit record at offset {offset}: its header {header} {why}");
    Error::new(ErrorKind::Undecodable, text)
}

impl fmt::Debug for StoredAudit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredAudit")
            .field("chain", &self.chain)
            .field("seq", &self.seq)
            .field("prev", &self.prev)
            .field("hash", &self.hash)
            .field("bytes", &format_args!("{} bytes", self.bytes.len()))
            .finish()
    }
}

/// A position in a sink, from which reading continues. Its text belongs to the sink that made it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AuditPosition(String);

impl AuditPosition {
    /// Creates a position of its text, as a sink or [`as_str`](Self::as_str) gave it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text, which can be stored or sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AuditPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Records read from a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditPage {
    /// The records; none at the end of the sink.
    pub records: Vec<StoredAudit>,
    /// The position to continue after.
    pub next: AuditPosition,
}

impl AuditPage {
    /// Creates a page.
    pub fn new(records: Vec<StoredAudit>, next: AuditPosition) -> Self {
        Self { records, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;

    fn stored() -> StoredAudit {
        StoredAudit::new("ops-1", u64::MAX, AuditHash::ZERO, AuditHash::new([0x1f; 32]), vec![0xff, 0, b'{'])
    }

    #[test]
    fn a_record_survives_a_topic() {
        let record = StoredRecord::from_record(stored().to_record("trail"), 7, Timestamp::now());
        assert_eq!(record.key.as_deref(), Some(&b"ops-1"[..]));
        assert_eq!(StoredAudit::from_record(&record).unwrap(), stored());
    }

    #[test]
    fn other_records_are_refused_with_their_offset_and_header() {
        for name in [header_names::CHAIN, header_names::SEQ, header_names::PREV, header_names::HASH] {
            let mut record = StoredRecord::from_record(stored().to_record("trail"), 7, Timestamp::now());
            record.headers.set(name, vec![0xff]);
            let error = StoredAudit::from_record(&record).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Undecodable);
            assert!(error.to_string().contains("offset 7") && error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn a_hash_is_64_hexadecimal_digits() {
        for wrong in ["", "1", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"+1".repeat(32)] {
            assert_eq!(AuditHash::parse(wrong), None, "{wrong}");
        }
        assert_eq!(AuditHash::parse(&"Fe".repeat(32)), Some(AuditHash::new([0xfe; 32])));
    }
}
