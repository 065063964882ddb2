//! Links of a chain: numbers and hashes.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tidings_core::audit::{AuditHash, StoredAudit};
use tidings_core::{Error, ErrorKind, Name, Result};

/// Separates these hashes from other uses of SHA-256. It is part of every stored hash and must not change.
const DOMAIN: &[u8] = b"tidings-audit-1";

/// The most records of one append. All of them may come again after an append without an answer.
pub(crate) const BATCH: usize = 64;

/// Returns the hash of a record: SHA-256 over the domain, the chain behind its length, the number, the hash before it
/// and the stored bytes.
pub(crate) fn hash(chain: &str, seq: u64, prev: &AuditHash, bytes: &[u8]) -> AuditHash {
    let mut digest = Sha256::new();
    digest.update(DOMAIN);
    digest.update((chain.len() as u64).to_be_bytes());
    digest.update(chain);
    digest.update(seq.to_be_bytes());
    digest.update(prev.as_bytes());
    digest.update(bytes);
    AuditHash::new(digest.finalize().into())
}

/// The state of a chain at its writer.
#[derive(Debug)]
pub(crate) struct Chain {
    name: Name,
    next: u64,
    prev: AuditHash,
}

impl Chain {
    pub(crate) fn new(name: impl Into<Name>) -> Self {
        Self { name: name.into(), next: 0, prev: AuditHash::ZERO }
    }

    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    /// Returns the last record's number and hash; `None` before the first one.
    pub(crate) fn head(&self) -> Option<Checkpoint> {
        let seq = self.next.checked_sub(1)?;
        Some(Checkpoint { chain: self.name.clone(), seq, hash: self.prev })
    }

    /// Appends a record to the chain.
    pub(crate) fn link(&mut self, bytes: Bytes) -> StoredAudit {
        let (seq, prev) = (self.next, self.prev);
        self.prev = hash(&self.name, seq, &prev, &bytes);
        self.next += 1;
        StoredAudit::new(self.name.clone(), seq, prev, self.prev, bytes)
    }
}

/// The end of a chain at some time: its last record's number and hash.
///
/// Kept outside of the sink, such as in a log of another system, it shows that the chain was truncated or rewritten
/// since. Its text is `<chain>@<seq>:<hash>`.
///
/// ```
/// use tidings_audit::Checkpoint;
///
/// let text = format!("ops-1@41:{}", "ab".repeat(32));
/// let checkpoint: Checkpoint = text.parse()?;
/// assert_eq!((checkpoint.seq, checkpoint.to_string()), (41, text));
/// # Ok::<(), tidings_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checkpoint {
    /// The chain.
    pub chain: Name,
    /// The number of the chain's last record.
    pub seq: u64,
    /// The hash of that record.
    pub hash: AuditHash,
}

impl Checkpoint {
    /// Creates a checkpoint.
    pub fn new(chain: impl Into<Name>, seq: u64, hash: AuditHash) -> Self {
        Self { chain: chain.into(), seq, hash }
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}", self.chain, self.seq, self.hash)
    }
}

impl FromStr for Checkpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = || {
            let (rest, hash) = text.rsplit_once(':')?;
            let (chain, seq) = rest.rsplit_once('@')?;
            Some(Self::new(chain.to_owned(), seq.parse().ok()?, AuditHash::parse(hash)?))
        };
        let wrong = || Error::new(ErrorKind::Invalid, "read a checkpoint: expected <chain>@<seq>:<hash>");
        parsed().ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_stored_and_must_not_change() {
        let hash = hash("ops-1", 7, &AuditHash::new([1; 32]), b"{}");
        assert_eq!(hash.to_string(), "d32301572f1a59a1f8b7e85f542059dbac24478a4b8c9c7a8ab5a94c319184ae");
    }

    #[test]
    fn each_part_of_a_record_is_in_its_hash() {
        let (zero, one) = (AuditHash::ZERO, AuditHash::new([1; 32]));
        let all = [
            hash("a", 1, &zero, b"x"),
            hash("b", 1, &zero, b"x"),
            hash("a", 2, &zero, b"x"),
            hash("a", 1, &one, b"x"),
            hash("a", 1, &zero, b"y"),
            hash("", 1, &zero, b"ax"),
        ];
        for (at, hash) in all.iter().enumerate() {
            assert_eq!(all.iter().position(|other| other == hash), Some(at));
        }
    }
}
