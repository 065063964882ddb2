//! Records in retry topics: a record that failed, and waits there for its next attempt.
//!
//! A record of a retry topic contains the complete original: key, value and headers, and in added headers the topic,
//! partition, offset and timestamp. So each attempt gets the original, and so does a dead letter: event id, derived ids
//! and the letter's identity do not depend on where the record waited.

use std::str::FromStr;

use crate::dead_letter::packed;
use crate::headers::{
    RETRY_ATTEMPT, RETRY_DUE, RETRY_ERROR, RETRY_ERROR_KIND, RETRY_FIRST_FAILED_AT, RETRY_HANDLER,
    RETRY_ORIGINAL_HEADERS, RETRY_ORIGINAL_OFFSET, RETRY_ORIGINAL_PARTITION, RETRY_ORIGINAL_TIMESTAMP,
    RETRY_ORIGINAL_TOPIC, RETRY_SERVICE,
};
use crate::{
    DeadLetter, Error, ErrorKind, Header, Headers, MAX_PLAIN_HEADERS, Name, Record, Result, StoredRecord, Timestamp,
    TopicPartition,
};

/// The headers that forwarding adds.
const ALL: [&str; 12] = [
    RETRY_DUE,
    RETRY_ATTEMPT,
    RETRY_FIRST_FAILED_AT,
    RETRY_SERVICE,
    RETRY_HANDLER,
    RETRY_ERROR_KIND,
    RETRY_ERROR,
    RETRY_ORIGINAL_TOPIC,
    RETRY_ORIGINAL_PARTITION,
    RETRY_ORIGINAL_OFFSET,
    RETRY_ORIGINAL_TIMESTAMP,
    RETRY_ORIGINAL_HEADERS,
];

/// A record that failed, as it waits in a retry topic.
///
/// ```
/// use tidings_core::{ErrorKind, RetryRecord, StoredRecord, Timestamp, TopicPartition};
///
/// let original = StoredRecord::new(17, Timestamp::now()).with_key("o1").with_value("order");
/// let mut waiting = RetryRecord::new("billing", TopicPartition::new("orders", 2), original.clone(), Timestamp::now());
/// (waiting.attempts, waiting.kind) = (4, ErrorKind::Failed);
///
/// let sent = waiting.to_record("orders-retry-billing-30s");
/// let read = RetryRecord::from_record(&StoredRecord::from_record(sent, 0, Timestamp::now()))?;
/// assert_eq!((read.record, read.attempts), (original, 4));
/// # Ok::<(), tidings_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryRecord {
    /// The service that forwarded it.
    pub service: Name,
    /// The handler that failed.
    pub handler: Name,
    /// The topic and partition of the original.
    pub origin: TopicPartition,
    /// The original, byte for byte.
    pub record: StoredRecord,
    /// The earliest time of the next attempt.
    pub due: Timestamp,
    /// The number of attempts that have failed.
    pub attempts: u32,
    /// The time at which the record was forwarded for the first time.
    pub first_failed_at: Timestamp,
    /// The kind of the last error.
    pub kind: ErrorKind,
    /// The last error with its sources, truncated to [`DeadLetter::MAX_ERROR_TEXT`] when it is encoded.
    pub error: String,
}

impl RetryRecord {
    /// Creates the retry record of `service` for a record of `origin`, due at `due`, with no attempts and no error.
    pub fn new(service: impl Into<Name>, origin: TopicPartition, record: StoredRecord, due: Timestamp) -> Self {
        Self {
            service: service.into(),
            handler: Name::default(),
            origin,
            record,
            due,
            attempts: 0,
            first_failed_at: Timestamp::now(),
            kind: ErrorKind::Failed,
            error: String::new(),
        }
    }

    /// Encodes it as a record for the retry topic `topic`: the original's key, value and headers, then the added ones.
    ///
    /// More headers than [`MAX_PLAIN_HEADERS`] are packed into one.
    pub fn to_record(&self, topic: impl Into<Name>) -> Record {
        let mut record = Record::tombstone(topic);
        record.key = self.record.key.clone();
        record.value = self.record.value.clone();
        record.headers = self.headers();
        let mut add = |name: &'static str, value: String| record.headers.push(Header::new(name, value));
        let error = &self.error[..self.error.floor_char_boundary(DeadLetter::MAX_ERROR_TEXT)];
        add(RETRY_DUE, self.due.millis().to_string());
        add(RETRY_ATTEMPT, self.attempts.to_string());
        add(RETRY_FIRST_FAILED_AT, self.first_failed_at.millis().to_string());
        add(RETRY_SERVICE, self.service.to_string());
        add(RETRY_HANDLER, self.handler.to_string());
        add(RETRY_ERROR_KIND, self.kind.to_string());
        add(RETRY_ERROR, error.to_owned());
        add(RETRY_ORIGINAL_TOPIC, self.origin.topic.to_string());
        add(RETRY_ORIGINAL_PARTITION, self.origin.partition.to_string());
        add(RETRY_ORIGINAL_OFFSET, self.record.offset.to_string());
        add(RETRY_ORIGINAL_TIMESTAMP, self.record.timestamp.millis().to_string());
        record
    }

    /// Decodes a record of a retry topic. Of the added headers, the last of each name counts; all others are the
    /// original's.
    ///
    /// # Errors
    /// [`Undecodable`](ErrorKind::Undecodable), naming a header that is missing or malformed: the record was not
    /// forwarded.
    pub fn from_record(record: &StoredRecord) -> Result<Self> {
        let own = Own::find(&record.headers);
        let mut original = StoredRecord::new(
            own.number(RETRY_ORIGINAL_OFFSET)?,
            Timestamp::from_millis(own.number(RETRY_ORIGINAL_TIMESTAMP)?),
        );
        original.key = record.key.clone();
        original.value = record.value.clone();
        original.headers = own.original()?;
        let origin = TopicPartition::new(own.text(RETRY_ORIGINAL_TOPIC)?, own.number(RETRY_ORIGINAL_PARTITION)?);
        Ok(Self {
            service: own.text(RETRY_SERVICE)?.into(),
            handler: own.text(RETRY_HANDLER)?.into(),
            origin,
            record: original,
            due: Timestamp::from_millis(own.number(RETRY_DUE)?),
            attempts: own.number(RETRY_ATTEMPT)?,
            first_failed_at: Timestamp::from_millis(own.number(RETRY_FIRST_FAILED_AT)?),
            kind: ErrorKind::from_name(own.text(RETRY_ERROR_KIND)?),
            error: own.text(RETRY_ERROR)?.to_owned(),
        })
    }

    /// Returns the time at which a record of a retry topic is due; `None` if it has none.
    pub fn due_of(record: &StoredRecord) -> Option<Timestamp> {
        record.headers.get_str(RETRY_DUE)?.parse().ok().map(Timestamp::from_millis)
    }

    /// Returns the original's headers, packed if there are too many, or if a packed one is among them, which would be
    /// mistaken for this record's.
    fn headers(&self) -> Headers {
        let original = &self.record.headers;
        if original.len() <= MAX_PLAIN_HEADERS && !original.contains(RETRY_ORIGINAL_HEADERS) {
            return original.clone();
        }
        Headers::from_iter([Header::new(RETRY_ORIGINAL_HEADERS, packed::pack(original))])
    }
}

/// The headers that forwarding added, among all headers of a record.
struct Own<'a> {
    headers: &'a Headers,
    /// The index of the last header of each name.
    places: [Option<usize>; ALL.len()],
}

impl<'a> Own<'a> {
    fn find(headers: &'a Headers) -> Self {
        let mut places = [None; ALL.len()];
        for (place, header) in headers.iter().enumerate() {
            if let Some(name) = ALL.iter().position(|name| header.name == name.as_bytes()) {
                places[name] = Some(place);
            }
        }
        Self { headers, places }
    }

    /// Returns the original's headers.
    fn original(&self) -> Result<Headers> {
        let other = |(place, header): (usize, &Header)| (!self.places.contains(&Some(place))).then(|| header.clone());
        let others = self.headers.iter().enumerate().filter_map(other);
        let Some(packed) = self.headers.get(RETRY_ORIGINAL_HEADERS) else { return Ok(others.collect()) };
        let original = packed::unpack(packed.clone()).ok_or_else(|| wrong(RETRY_ORIGINAL_HEADERS, "damaged"))?;
        Ok(original.into_iter().chain(others).collect())
    }

    fn text(&self, name: &str) -> Result<&'a str> {
        self.headers.get_str(name).ok_or_else(|| wrong(name, "missing or no text"))
    }

    fn number<N: FromStr>(&self, name: &str) -> Result<N> {
        self.text(name)?.parse().map_err(|_| wrong(name, "no number"))
    }
}

fn wrong(name: &str, what: &str) -> Error {
    Error::new(ErrorKind::Undecodable, format!("read a record of a retry topic: the header {name} is {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_back(record: StoredRecord) -> RetryRecord {
        let mut waiting =
            RetryRecord::new("billing", TopicPartition::new("orders", 3), record, Timestamp::from_millis(40));
        (waiting.attempts, waiting.handler, waiting.error) = (5, "bill".into(), "locked".into());
        let sent = StoredRecord::from_record(waiting.to_record("orders-retry-billing-30s"), 9, Timestamp::now());
        assert_eq!(RetryRecord::due_of(&sent), Some(Timestamp::from_millis(40)));
        let read = RetryRecord::from_record(&sent).unwrap();
        assert_eq!(read, waiting);
        read
    }

    #[test]
    fn the_original_comes_back_byte_for_byte() {
        let mut record = StoredRecord::new(7, Timestamp::from_millis(-3));
        read_back(record.clone());
        record.headers = Headers::new().with("tenant", "a").with("tenant", "b").with("retry-due", "12");
        record.headers.push(Header::null("retry-error"));
        assert_eq!(read_back(record.with_key("").with_value("v")).record.headers.len(), 4);
    }

    #[test]
    fn very_many_headers_are_packed() {
        let mut record = StoredRecord::new(7, Timestamp::from_millis(1));
        record.headers = (0..=MAX_PLAIN_HEADERS).map(|n| Header::new("n", n.to_string())).collect();
        read_back(record.clone());
        record.headers = Headers::new().with(RETRY_ORIGINAL_HEADERS, "foreign");
        read_back(record);
    }

    #[test]
    fn a_record_that_was_not_forwarded_is_refused_by_its_header() {
        let mut record = StoredRecord::new(0, Timestamp::now());
        record.headers = Headers::new().with(RETRY_ORIGINAL_OFFSET, "seven");
        let error = RetryRecord::from_record(&record).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Undecodable);
        assert!(error.to_string().contains("retry-original-offset is no number"), "{error}");
        assert_eq!(RetryRecord::due_of(&record), None);
    }

    #[test]
    fn a_long_error_is_cut() {
        let record = StoredRecord::new(0, Timestamp::now());
        let mut waiting = RetryRecord::new("s", TopicPartition::new("t", 0), record, Timestamp::now());
        waiting.error = "é".repeat(DeadLetter::MAX_ERROR_TEXT);
        let sent = waiting.to_record("t-retry-s-1s");
        assert_eq!(sent.headers.get(RETRY_ERROR).map(|text| text.len()), Some(DeadLetter::MAX_ERROR_TEXT));
    }
}
