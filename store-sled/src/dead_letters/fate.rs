//! State of letters.

use serde::{Deserialize, Serialize};
use tidings_core::{ErrorKind, Resolution};

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
/// offset of a recreated topic. Earlier versions stored no time, and ignore it.
#[derive(Debug)]
pub(super) struct Dated {
    pub(super) fate: Fate,
    pub(super) time: Option<i64>,
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
    Ok(Dated { fate, time: postcard::from_bytes(rest).ok() })
}

pub(super) fn fate_bytes(table: &Table, dated: &Dated) -> error::Result<Vec<u8>> {
    let bytes = postcard::to_stdvec(&dated.fate).and_then(|bytes| match dated.time {
        Some(time) => postcard::to_extend(&time, bytes),
        None => Ok(bytes),
    });
    bytes.map_err(|e| Broken::new(ErrorKind::Unavailable, format!("{}: {e}", table.path().display())))
}

pub(super) fn closing(resolution: &Resolution) -> Closing {
    let cut = |text: &str| text[..text.floor_char_boundary(MAX_REASON)].to_owned();
    match resolution {
        Resolution::Redriven { by } => Closing { redriven: true, by: cut(by), reason: String::new() },
        Resolution::Discarded { by, reason } => Closing { redriven: false, by: cut(by), reason: cut(reason) },
        // A resolution added by a later version closes the letter too.
        _ => Closing { redriven: false, by: String::new(), reason: String::new() },
    }
}
