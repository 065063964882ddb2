//! Errors of unreadable batches.

use std::fmt;

use tidings_core::{Error, ErrorKind, TopicPartition};

use super::batch::MAX_HEADERS;

/// Why a batch cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BatchError {
    /// It decompresses to more than this many bytes.
    TooLarge {
        /// The bound that it exceeds.
        limit: usize,
    },
    /// A record has more headers than any reader takes.
    TooManyHeaders,
    /// Its format version is not 2.
    Format(i8),
    /// Its codec is unknown.
    Codec(i16),
    /// Its checksum differs from that of its bytes.
    Checksum {
        /// The checksum in the header.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// Its codec cannot decompress it.
    Packed(String),
    /// A field contradicts the format.
    Damaged(&'static str),
}

impl BatchError {
    /// Returns the kind of error that callers see.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::TooLarge { .. } | Self::TooManyHeaders => ErrorKind::TooLarge,
            _ => ErrorKind::Undecodable,
        }
    }

    /// Converts it to an error that names the partition, and the offset at which the batch was to be read.
    pub(crate) fn into_error(self, partition: &TopicPartition, offset: u64) -> Error {
        Error::new(self.kind(), format!("cannot read the batch of {partition} at offset {offset}: {self}"))
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { limit } => write!(f, "decompressed, it exceeds {limit} bytes"),
            Self::TooManyHeaders => write!(f, "a record has more than {MAX_HEADERS} headers"),
            Self::Format(magic @ (0 | 1)) => {
                write!(f, "its format version is {magic}, of brokers before 0.11; only version 2 is read")
            }
            Self::Format(magic) => write!(f, "its format version is {magic}; only version 2 is read"),
            Self::Codec(codec) => write!(f, "its codec, number {codec}, is unknown"),
            Self::Checksum { stored, computed } => {
                write!(f, "its checksum is {stored:#010x}, but that of its bytes is {computed:#010x}")
            }
            Self::Packed(reason) => write!(f, "it cannot be decompressed: {reason}"),
            Self::Damaged(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for BatchError {}

/// A batch of a fetch that cannot be read, found by its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UndecodableBatch {
    /// Offset of its first record, if its header contains it.
    pub(crate) first: Option<u64>,
    /// Offset after its last record, if its header contains it.
    pub(crate) next: Option<u64>,
    /// Why it cannot be read.
    pub(crate) cause: BatchError,
}
