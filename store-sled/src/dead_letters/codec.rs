//! Letters as bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidings_core::{DeadLetter, Error, ErrorKind, Header, Result, StoredRecord, Timestamp, TopicPartition};

/// The largest letter.
const MAX_LETTER: usize = 64 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct StoredLetter<'a> {
    service: &'a str,
    handler: &'a str,
    topic: &'a str,
    partition: u32,
    offset: u64,
    timestamp: i64,
    #[serde(borrow)]
    key: Option<&'a [u8]>,
    #[serde(borrow)]
    value: Option<&'a [u8]>,
    #[serde(borrow)]
    headers: Vec<(&'a [u8], Option<&'a [u8]>)>,
    kind: &'a str,
    error: &'a str,
    attempts: u32,
    failed_at: i64,
}

pub(super) fn to_bytes(letter: &DeadLetter) -> Result<Vec<u8>> {
    let stored = StoredLetter {
        service: &letter.service,
        handler: &letter.handler,
        topic: &letter.origin.topic,
        partition: letter.origin.partition,
        offset: letter.record.offset,
        timestamp: letter.record.timestamp.millis(),
        key: letter.record.key.as_deref(),
        value: letter.record.value.as_deref(),
        headers: letter.record.headers.iter().map(|h| (&*h.name, h.value.as_deref())).collect(),
        kind: letter.kind.as_str(),
        error: &letter.error,
        attempts: letter.attempts,
        failed_at: letter.failed_at.millis(),
    };
    let bytes = postcard::to_stdvec(&stored);
    fits(bytes.map_err(|e| Error::caused_by(ErrorKind::Invalid, "bury a letter: write it", e))?)
}

/// # Errors
/// [`TooLarge`](ErrorKind::TooLarge) for a letter above the limit.
fn fits(bytes: Vec<u8>) -> Result<Vec<u8>> {
    if bytes.len() > MAX_LETTER {
        return Err(Error::new(ErrorKind::TooLarge, format!("bury a letter: it is larger than {MAX_LETTER} bytes")));
    }
    Ok(bytes)
}

pub(super) fn from_bytes(bytes: &[u8]) -> Option<DeadLetter> {
    let stored: StoredLetter<'_> = postcard::from_bytes(bytes).ok()?;
    let copy = Bytes::copy_from_slice;
    let mut record = StoredRecord::new(stored.offset, Timestamp::from_millis(stored.timestamp));
    record.key = stored.key.map(copy);
    record.value = stored.value.map(copy);
    record.headers =
        stored.headers.into_iter().map(|(name, value)| Header { name: copy(name), value: value.map(copy) }).collect();
    let origin = TopicPartition::new(stored.topic, stored.partition);
    let letter = DeadLetter::new(stored.service, origin, record, ErrorKind::from_name(stored.kind));
    Some(
        letter
            .with_handler(stored.handler)
            .with_error(stored.error)
            .with_attempts(stored.attempts)
            .with_failed_at(Timestamp::from_millis(stored.failed_at)),
    )
}

#[cfg(test)]
mod tests {
    use tidings_core::Headers;

    use super::*;

    #[test]
    fn a_letter_of_the_limit_fits_and_a_larger_one_does_not() {
        assert_eq!(fits(vec![0; 67_108_864]).unwrap().len(), 67_108_864);
        assert_eq!(fits(vec![0; 67_108_865]).unwrap_err().kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn a_letter_survives_its_bytes() {
        let mut record = StoredRecord::new(u64::MAX, Timestamp::from_millis(-1)).with_value(vec![0, 159, 146]);
        record.headers = Headers::new().with("a", "1").with("a", "");
        record.headers.push(Header::null("n"));
        let letter = DeadLetter::new("svc", TopicPartition::new("t", 2), record, ErrorKind::Undecodable)
            .with_handler("h")
            .with_error("bad")
            .with_attempts(3);
        assert_eq!(from_bytes(&to_bytes(&letter).unwrap()), Some(letter));
    }
}
