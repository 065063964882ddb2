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
            // No leader, no replica, another leader epoch.
            5 | 9 | 74 | 75 => Self::NotStored { moved: true },
            // The broker's own errors, its time-outs, and too few replicas after appending.
            -1 | 7 | 13 | 20 => Self::Open { moved: false },
            // An unknown topic, partition or topic id, another leader, a failed disk. A broker also returns these for a
            // batch that it has appended, if it loses the partition while the batch waits for replicas.
            3 | 6 | 56 | 100 | 103 => Self::Open { moved: true },
            refused => Self::Refused(refused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_differ_by_whether_the_batch_may_be_stored() {
        assert_eq!(Answer::of(0, 42), Answer::Stored(Some(42)));
        assert_eq!(Answer::of(0, -1), Answer::Stored(None));
        assert_eq!(Answer::of(46, -1), Answer::Stored(None));
        for code in [3, 6, 56, 100, 103] {
            assert_eq!(Answer::of(code, -1), Answer::Open { moved: true }, "{code} may follow the append");
        }
        for code in [5, 9, 74, 75] {
            assert_eq!(Answer::of(code, -1), Answer::NotStored { moved: true });
        }
        assert_eq!(Answer::of(19, -1), Answer::NotStored { moved: false });
        assert_eq!(Answer::of(20, -1), Answer::Open { moved: false });
        assert_eq!(Answer::of(7, -1), Answer::Open { moved: false });
        assert_eq!(Answer::of(10, -1), Answer::Refused(10));
        assert_eq!(Answer::of(29, -1), Answer::Refused(29));
    }
}
