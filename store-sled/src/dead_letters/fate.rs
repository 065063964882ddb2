//! State of letters.

use serde::{Deserialize, Serialize};
use tidings_core::{ErrorKind, Resolution, ResolutionKind, Timestamp};

use crate::disk::Table;
use crate::error::{self, Broken};

/// The longest text of a resolution, in bytes.
const MAX_REASON: usize = 1 << 10;

/// State of a letter; closed ones are remembered, so that a letter that is buried again stays closed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Fate {
    pub(super) number: u64,
    pub(super) closed: Option<Closing>,
}

/// The stored form of a fate, with the time of the letter's record, which distinguishes it from a record at the same
/// offset of a recreated topic, and with why it is parked. Earlier versions stored neither, and ignore them.
#[derive(Debug)]
pub(super) struct Dated {
    pub(super) fate: Fate,
    pub(super) time: Option<i64>,
    /// Stored only with a time.
    pub(super) parked: Option<Parking>,
}

/// Why a letter is parked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Parking {
    by: String,
    reason: String,
    at: i64,
}

impl Parking {
    pub(super) fn new(resolution: &Resolution, now: Timestamp) -> Self {
        Self { by: cut(&resolution.by), reason: cut(&resolution.reason), at: now.millis() }
    }

    pub(super) fn resolution(&self) -> Resolution {
        Resolution::parked(self.by.clone(), self.reason.clone()).with_at(Timestamp::from_millis(self.at))
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Closing {
    redriven: bool,
    by: String,
    reason: String,
}

pub(super) fn read_fate(table: &Table, bytes: &[u8]) -> error::Result<Fate> {
    read_dated(table, bytes).map(|dated| dated.fate)
}

pub(super) fn read_dated(table: &Table, bytes: &[u8]) -> error::Result<Dated> {
    let read = postcard::take_from_bytes(bytes);
    let (fate, rest) = read.map_err(|_| Broken::corrupt(table.path(), "a letter's fate is none"))?;
    let (time, rest) = postcard::take_from_bytes(rest).map_or((None, &[][..]), |(time, rest)| (Some(time), rest));
    Ok(Dated { fate, time, parked: postcard::from_bytes(rest).ok() })
}

pub(super) fn fate_bytes(table: &Table, dated: &Dated) -> error::Result<Vec<u8>> {
    let bytes = postcard::to_stdvec(&dated.fate).and_then(|bytes| match (dated.time, &dated.parked) {
        (Some(time), Some(parked)) => postcard::to_extend(&time, bytes).and_then(|b| postcard::to_extend(parked, b)),
        (Some(time), None) => postcard::to_extend(&time, bytes),
        (None, _) => Ok(bytes),
    });
    bytes.map_err(|e| Broken::new(ErrorKind::Unavailable, format!("{}: {e}", table.path().display())))
}

pub(super) fn closing(resolution: &Resolution) -> Closing {
    let redriven = resolution.kind == ResolutionKind::Redriven;
    Closing { redriven, by: cut(&resolution.by), reason: cut(&resolution.reason) }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_REASON)].to_owned()
}
