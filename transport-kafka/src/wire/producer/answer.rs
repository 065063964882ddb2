//! Meaning of a broker's answer to a batch.

/// Result of one attempt to send a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Stored, by this attempt or an earlier one; the offset is unknown if the broker has forgotten it.
    Stored(Option<u64>),
    /// Not stored by this attempt, which may be repeated.
    NotStored {
        /// Whether the broker may not lead the partition any longer.
        moved: bool,
    },
    /// Unknown whether it is stored: it may be repeated.
    Open {
        /// Whether the broker may not lead the partition any longer.
        moved: bool,
    },
    /// Not stored: its sequence does not follow the last one that the broker has.
    OutOfOrder,
    /// Not stored: the broker has seen a later epoch.
    Fenced,
    /// Not stored, with a permanent error code.
    Refused(i16),
}

impl Answer {
    /// Interprets an error code of a produce response, and the offset that is returned with code zero.
    pub(crate) fn of(code: i16, base_offset: i64) -> Self {
        match code {
            0 => Self::Stored(u64::try_from(base_offset).ok()),
            // A duplicate that is older than those whose offsets the broker keeps.
            46 => Self::Stored(None),
            45 | 59 => Self::OutOfOrder,
            47 | 90 => Self::Fenced,
            // Corrupt in transit, too few replicas before appending, over the quota.
            2 | 19 | 89 => Self::NotStored { moved: false },
            // An unknown topic or partition, no or another leader, another leader epoch, an unknown topic id.
            3 | 5 | 6 | 9 | 74 | 75 | 100 | 103 => Self::NotStored { moved: true },
            // The broker's own errors, its time-outs, and too few replicas after appending.
            -1 | 7 | 13 | 20 => Self::Open { moved: false },
            // Its disk failed, so it no longer leads.
            56 => Self::Open { moved: true },
            refused => Self::Refused(refused),
        }
    }
}
