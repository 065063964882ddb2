//! Times as RFC 3339 writes them.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::undecodable;
use crate::{Error, ErrorKind, Result, Timestamp};

const NANOS_PER_MILLI: i128 = 1_000_000;

/// Reads a time with any offset, rounded down to milliseconds.
pub(super) fn read(text: &str) -> Result<Timestamp> {
    let time = OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|e| undecodable("read the attribute time: not a time of RFC 3339").with_source(e))?;
    let millis = time.unix_timestamp_nanos().div_euclid(NANOS_PER_MILLI);
    // A year has four digits, so the milliseconds fit.
    Ok(Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX)))
}

/// Writes a time in UTC.
pub(super) fn write(timestamp: Timestamp) -> Result<String> {
    let refuse = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(ErrorKind::Invalid, format!("write the time {timestamp} of an event")).with_source(error)
    };
    let nanos = i128::from(timestamp.millis()) * NANOS_PER_MILLI;
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|e| refuse(e.into()))?;
    time.format(&Rfc3339).map_err(|e| refuse(e.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_in_utc() {
        let millis = |text| read(text).map(Timestamp::millis);
        assert_eq!(millis("1969-12-31T23:59:59.9999Z").unwrap(), -1);
        assert_eq!(millis("2025-11-26T10:20:00.5+01:00").unwrap(), 1_764_148_800_500);
        assert_eq!(write(Timestamp::from_millis(1_764_148_800_500)).unwrap(), "2025-11-26T09:20:00.5Z");
        assert_eq!(write(Timestamp::from_millis(1_764_148_800_000)).unwrap(), "2025-11-26T09:20:00Z");
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "yesterday", "1764148800", "2025-11-26", "2025-13-26T09:20:00Z"] {
            assert_eq!(read(text).unwrap_err().kind(), ErrorKind::Undecodable, "{text:?}");
        }
        assert_eq!(write(Timestamp::from_millis(i64::MAX)).unwrap_err().kind(), ErrorKind::Invalid);
    }
}
