//! Encoding of a dead letter as a record of `<topic>-dlq`: the original, plus headers that state the cause.

use std::str::FromStr;

use super::{DeadLetter, LetterKey, packed};
use crate::{Error, ErrorKind, Header, Headers, Record, Result, StoredRecord, Timestamp, TopicPartition, headers};

/// The names of the headers that a dead letter adds.
pub mod header_names {
    /// The original topic.
    pub const TOPIC: &str = "dlq-original-topic";
    /// The original partition, decimal.
    pub const PARTITION: &str = "dlq-original-partition";
    /// The original offset, decimal.
    pub const OFFSET: &str = "dlq-original-offset";
    /// The original timestamp in milliseconds, decimal.
    pub const TIMESTAMP: &str = "dlq-original-timestamp";
    /// The time of the final failure in milliseconds, decimal.
    pub const FAILED_AT: &str = "dlq-failed-at";
    /// The number of retries after the first attempt, decimal: 0 if the first attempt was the last.
    pub const RETRY_COUNT: &str = "dlq-retry-count";
    /// The number of attempts, decimal. Letters of older versions lack it: their [`RETRY_COUNT`] is the number of
    /// attempts.
    pub const ATTEMPTS: &str = "dlq-attempts";
    /// The service that buried the record.
    pub const SERVICE: &str = "dlq-service";
    /// The handler that failed.
    pub const HANDLER: &str = "dlq-handler";
    /// The kind of the last error.
    pub const ERROR_KIND: &str = "dlq-error-kind";
    /// The last error.
    pub const ERROR: &str = "dlq-error";
    /// All headers of the original, packed into one, where there are more than
    /// [`MAX_PLAIN_HEADERS`](super::MAX_PLAIN_HEADERS). Each header is encoded, in order, as the name's length, the
    /// name, the value's length plus one (zero for null), and the value; lengths are unsigned LEB128.
    pub const ORIGINAL_HEADERS: &str = "dlq-original-headers";
}

/// The limit of original headers that a letter keeps unpacked; more are packed into
/// [one](header_names::ORIGINAL_HEADERS).
///
/// A record may have as many headers as its client sends, or more: with those of the letter added it could not be
/// sent.
pub const MAX_PLAIN_HEADERS: usize = 9_000;

const ALL: [&str; 12] = [
    header_names::TOPIC,
    header_names::PARTITION,
    header_names::OFFSET,
    header_names::TIMESTAMP,
    header_names::FAILED_AT,
    header_names::RETRY_COUNT,
    header_names::ATTEMPTS,
    header_names::SERVICE,
    header_names::HANDLER,
    header_names::ERROR_KIND,
    header_names::ERROR,
    header_names::ORIGINAL_HEADERS,
];

/// The index of this header in [`ALL`].
const RETRY_COUNT_AT: usize = 5;
const ATTEMPTS_AT: usize = 6;

/// Returns whether a header was added by burying.
pub fn is_dead_letter_header(header: &Header) -> bool {
    ALL.iter().any(|name| header.name == name.as_bytes())
}

impl DeadLetter {
    /// Encodes the letter as a record for `topic`: key, value and headers of the original, followed by the cause.
    ///
    /// More headers than [`MAX_PLAIN_HEADERS`] are packed into one.
    pub fn to_record(&self, topic: impl Into<crate::Name>) -> Record {
        let mut record = Record::tombstone(topic);
        record.key = self.record.key.clone();
        record.value = self.record.value.clone();
        record.headers = self.headers();
        let mut add = |name: &'static str, value: String| record.headers.push(Header::new(name, value));
        add(header_names::TOPIC, self.origin.topic.to_string());
        add(header_names::PARTITION, self.origin.partition.to_string());
        add(header_names::OFFSET, self.record.offset.to_string());
        add(header_names::TIMESTAMP, self.record.timestamp.millis().to_string());
        add(header_names::FAILED_AT, self.failed_at.millis().to_string());
        add(header_names::RETRY_COUNT, self.attempts.saturating_sub(1).to_string());
        add(header_names::ATTEMPTS, self.attempts.to_string());
        add(header_names::SERVICE, self.service.to_string());
        add(header_names::HANDLER, self.handler.to_string());
        add(header_names::ERROR_KIND, self.kind.to_string());
        add(header_names::ERROR, self.error.clone());
        record
    }

    /// Decodes a letter from a record of a dead-letter topic.
    ///
    /// Its headers are found by name, the last of each: a header that an agent adds, anywhere, becomes one of the
    /// original's headers.
    ///
    /// # Errors
    /// [`ErrorKind::Undecodable`], with the header that is missing or wrong: the record is not a letter.
    pub fn from_record(record: &StoredRecord) -> Result<Self> {
        // A letter about a record that was itself a letter has each header twice: the last of each belongs to this
        // letter.
        let why = Why::find(&record.headers);
        let offset = why.number(header_names::OFFSET)?;
        let mut stored = StoredRecord::new(offset, Timestamp::from_millis(why.number(header_names::TIMESTAMP)?));
        stored.key = record.key.clone();
        stored.value = record.value.clone();
        stored.headers = why.original()?;
        let origin = TopicPartition::new(why.text(header_names::TOPIC)?, why.number(header_names::PARTITION)?);
        let kind = ErrorKind::from_name(why.text(header_names::ERROR_KIND)?);
        Ok(Self::new(why.text(header_names::SERVICE)?, origin, stored, kind)
            .with_handler(why.text(header_names::HANDLER)?)
            .with_error(why.text(header_names::ERROR)?)
            .with_attempts(why.attempts()?)
            .with_failed_at(Timestamp::from_millis(why.number(header_names::FAILED_AT)?)))
    }

    /// Returns the original's headers, packed if there are too many, or if a packed one is among them, which would be
    /// mistaken for this letter's.
    fn headers(&self) -> Headers {
        let original = &self.record.headers;
        if original.len() <= MAX_PLAIN_HEADERS && !original.contains(header_names::ORIGINAL_HEADERS) {
            return original.clone();
        }
        Headers::from_iter([Header::new(header_names::ORIGINAL_HEADERS, packed::pack(original))])
    }

    /// Returns the record that redrives the letter: the original with `redrive-for`, `redrive-topic` and
    /// `redrive-letter`, and an incremented `redrive-count`.
    pub fn to_redrive(&self) -> Record {
        let topic = &self.origin.topic;
        let count = self.redrives();
        let mut record = Record::tombstone(topic.clone());
        record.key = self.record.key.clone();
        record.value = self.record.value.clone();
        record.headers = self.record.headers.clone();
        record.headers.set(headers::REDRIVE_FOR, self.service.as_bytes().to_vec());
        record.headers.set(headers::REDRIVE_COUNT, count.saturating_add(1).to_string());
        record.headers.set(headers::REDRIVE_TOPIC, topic.as_bytes().to_vec());
        record.headers.set(headers::REDRIVE_LETTER, LetterKey::of(self).redrive_letter());
        record
    }

    /// Returns how often the record was redriven to its topic for its service, before this letter.
    ///
    /// The count is a header, which any producer can write.
    pub fn redrives(&self) -> u32 {
        // An older version wrote no topic; its count goes on.
        let before = Redriven::read(&self.record.headers).filter(|before| before.is_of(&self.origin.topic, true));
        before.filter(|before| before.is_for(&self.service)).map_or(0, |before| before.count)
    }
}

/// The redrive headers of a record that was redriven to its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Redriven<'a> {
    service: &'a [u8],
    topic: Option<&'a [u8]>,
    /// The number of times the record was redriven.
    pub count: u32,
}

impl<'a> Redriven<'a> {
    /// Reads the redrive headers of a record of `topic`; `None` if it was not redriven to that topic.
    ///
    /// A redrive names the topic in a header of its own: a record that was passed on to another topic with these
    /// headers is not redriven there. Headers without a topic, as older versions and other programs write them, steer
    /// nothing: every service handles the record, and only [`DeadLetter::to_redrive`] continues their count.
    pub fn of(topic: &str, headers: &'a Headers) -> Option<Self> {
        Self::read(headers).filter(|redriven| redriven.is_of(topic, false))
    }

    fn read(headers: &'a Headers) -> Option<Self> {
        let service = headers.get(headers::REDRIVE_FOR)?;
        let count = headers.get_str(headers::REDRIVE_COUNT)?.parse().ok().filter(|count| *count > 0)?;
        // A null topic is one that no record has.
        let topic = headers.contains(headers::REDRIVE_TOPIC);
        let topic = topic.then(|| headers.get(headers::REDRIVE_TOPIC).map_or(&[][..], |topic| topic));
        Some(Self { service, topic, count })
    }

    fn is_of(&self, topic: &str, where_missing: bool) -> bool {
        self.topic.map_or(where_missing, |named| named == topic.as_bytes())
    }

    /// Returns whether the record was redriven for this service. Others skip it.
    pub fn is_for(&self, service: &str) -> bool {
        self.service == service.as_bytes()
    }
}

/// The headers that burying added, among all headers of a record.
struct Why<'a> {
    headers: &'a Headers,
    /// The index of the last header of each name.
    places: [Option<usize>; ALL.len()],
}

impl<'a> Why<'a> {
    fn find(headers: &'a Headers) -> Self {
        let (mut places, mut retry_counts) = ([None; ALL.len()], 0);
        for (place, header) in headers.iter().enumerate() {
            if let Some(name) = ALL.iter().position(|name| header.name == name.as_bytes()) {
                places[name] = Some(place);
                retry_counts += usize::from(name == RETRY_COUNT_AT);
            }
        }
        // An older version writes no attempts: in its letter about a newer letter, those found belong to the inner
        // letter.
        let is_inner = retry_counts > 1 && places[ATTEMPTS_AT] < places[RETRY_COUNT_AT];
        places[ATTEMPTS_AT] = places[ATTEMPTS_AT].filter(|_| !is_inner);
        Self { headers, places }
    }

    /// Returns the number of attempts. A letter of an older version stores it as its retry count.
    fn attempts(&self) -> Result<u32> {
        let has_attempts = self.places[ATTEMPTS_AT].is_some();
        self.number(if has_attempts { header_names::ATTEMPTS } else { header_names::RETRY_COUNT })
    }

    /// Returns all other headers, which are the original's.
    fn others(&self) -> Headers {
        let other = |(place, header): (usize, &Header)| (!self.places.contains(&Some(place))).then(|| header.clone());
        self.headers.iter().enumerate().filter_map(other).collect()
    }

    /// Returns the original's headers, followed by those that were added to the letter.
    fn original(&self) -> Result<Headers> {
        let Some(packed) = self.headers.get(header_names::ORIGINAL_HEADERS) else { return Ok(self.others()) };
        let wrong = || {
            let what = format!("read a dead letter: the header {} is damaged", header_names::ORIGINAL_HEADERS);
            Error::new(ErrorKind::Undecodable, what)
        };
        let original = packed::unpack(packed.clone()).ok_or_else(wrong)?;
        Ok(original.into_iter().chain(self.others()).collect())
    }

    fn text(&self, name: &str) -> Result<&'a str> {
        self.headers.get_str(name).ok_or_else(|| missing(name))
    }

    fn number<N: FromStr>(&self, name: &str) -> Result<N> {
        let wrong =
            || Error::new(ErrorKind::Undecodable, format!("read a dead letter: the header {name} is no number"));
        self.text(name)?.parse().map_err(|_| wrong())
    }
}

fn missing(name: &str) -> Error {
    Error::new(ErrorKind::Undecodable, format!("read a dead letter: the header {name} is missing or no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> DeadLetter {
        let mut record = StoredRecord::new(7, Timestamp::from_millis(99)).with_key("k").with_value(vec![0, 159, 146]);
        record.headers = Headers::new().with("a", "1").with("a", "2");
        record.headers.push(Header::null("n"));
        DeadLetter::new("svc", TopicPartition::new("t", 2), record, ErrorKind::Undecodable)
            .with_handler("h")
            .with_error("it is bad")
            .with_attempts(3)
            .with_failed_at(Timestamp::from_millis(1_700_000_000_123))
    }

    fn stored(record: Record) -> StoredRecord {
        StoredRecord::from_record(record, 0, Timestamp::now())
    }

    #[test]
    fn a_letter_survives_the_wire_byte_for_byte() {
        let letter = letter();
        assert_eq!(DeadLetter::from_record(&stored(letter.to_record("t-dlq"))).unwrap(), letter);
    }

    /// Builds a letter as older versions did: with the attempts as its retry count.
    fn old(letter: &DeadLetter) -> StoredRecord {
        let mut record = letter.to_record("t-dlq");
        let mut headers: Vec<_> = record.headers.into_iter().collect();
        headers.remove(headers.iter().rposition(|header| header.name == header_names::ATTEMPTS).unwrap());
        let retries = headers.iter().rposition(|header| header.name == header_names::RETRY_COUNT).unwrap();
        headers[retries] = Header::new(header_names::RETRY_COUNT, letter.attempts.to_string());
        record.headers = headers.into_iter().collect();
        stored(record)
    }

    #[test]
    fn the_retry_count_is_the_retries_and_the_attempts_are_read_back() {
        for (attempts, retries) in [(0, "0"), (1, "0"), (2, "1"), (u32::MAX, "4294967294")] {
            let letter = letter().with_attempts(attempts);
            let record = stored(letter.to_record("t-dlq"));
            assert_eq!(record.headers.get_str(header_names::RETRY_COUNT), Some(retries));
            assert_eq!(record.headers.get_str(header_names::ATTEMPTS), Some(attempts.to_string().as_str()));
            assert_eq!(DeadLetter::from_record(&record).unwrap(), letter);
            assert_eq!(DeadLetter::from_record(&old(&letter)).unwrap(), letter, "of an older version");
        }
    }

    #[test]
    fn attempts_are_read_of_the_right_letter_whichever_version_wrote_which() {
        let outer = |inner| {
            DeadLetter::new("other", TopicPartition::new("t-dlq", 0), inner, ErrorKind::Failed).with_attempts(9)
        };
        let new = |letter: &DeadLetter| stored(letter.to_record("t-dlq-dlq"));
        for inner in [old(&letter()), stored(letter().to_record("t-dlq"))] {
            let outer = outer(inner);
            for record in [old(&outer), new(&outer)] {
                let read = DeadLetter::from_record(&record).unwrap();
                assert_eq!(read, outer);
                assert_eq!(DeadLetter::from_record(&read.record).unwrap(), letter());
            }
        }
    }

    #[test]
    fn a_letter_about_a_letter_keeps_the_inner_one() {
        let inner = stored(letter().to_record("t-dlq"));
        let outer = DeadLetter::new("other", TopicPartition::new("t-dlq", 0), inner.clone(), ErrorKind::Failed);
        let read = DeadLetter::from_record(&stored(outer.to_record("t-dlq-dlq"))).unwrap();
        assert_eq!(read, outer);
        assert_eq!(DeadLetter::from_record(&read.record).unwrap(), letter());
    }

    #[test]
    fn a_letter_of_very_many_headers_has_few_and_loses_none() {
        let mut letter = letter();
        for count in [MAX_PLAIN_HEADERS, MAX_PLAIN_HEADERS + 1, 100_000] {
            letter.record.headers = (0..count).map(|n| Header::new(format!("h{n}"), n.to_string())).collect();
            let record = letter.to_record("t-dlq");
            assert!(record.headers.len() < 10_000, "{}", record.headers.len());
            assert!(record.size() <= letter.record.size() + 4 * count + 1_000);
            assert_eq!(DeadLetter::from_record(&stored(record)).unwrap(), letter);
        }
        // A letter about such a letter, with a header that an agent added.
        let inner = stored(letter.to_record("t-dlq"));
        let outer = DeadLetter::new("other", TopicPartition::new("t-dlq", 0), inner, ErrorKind::Failed);
        let record = outer.to_record("t-dlq-dlq").with_header("traceparent", "00-1-2-01");
        let mut read = DeadLetter::from_record(&stored(record)).unwrap();
        assert_eq!(read.record.headers.get_str("traceparent"), Some("00-1-2-01"));
        read.record.headers.remove_where(|header| header.name == "traceparent");
        assert_eq!(read, outer);
        assert_eq!(DeadLetter::from_record(&read.record).unwrap(), letter);
    }

    #[test]
    fn damaged_headers_of_an_original_are_refused_by_name() {
        let mut letter = letter();
        letter.record.headers = (0..=MAX_PLAIN_HEADERS).map(|_| Header::new("h", "v")).collect();
        let mut record = stored(letter.to_record("t-dlq"));
        record.headers.set(header_names::ORIGINAL_HEADERS, "other bytes");
        let error = DeadLetter::from_record(&record).unwrap_err();
        assert!(error.to_string().contains(header_names::ORIGINAL_HEADERS), "{error}");
    }

    #[test]
    fn a_foreign_record_is_refused_by_the_headers_name() {
        let mut record = stored(letter().to_record("t-dlq"));
        record.headers.set(header_names::OFFSET, "seven");
        let error = DeadLetter::from_record(&record).unwrap_err();
        assert!(error.to_string().contains(header_names::OFFSET), "{error}");
    }

    #[test]
    fn a_redrive_is_the_original_with_four_headers_and_counts_up() {
        let mut letter = letter();
        let redrive = letter.to_redrive();
        assert_eq!((redrive.key, redrive.value), (letter.record.key.clone(), letter.record.value.clone()));
        assert_eq!(redrive.headers.get_str(headers::REDRIVE_FOR), Some("svc"));
        assert_eq!(redrive.headers.get_str(headers::REDRIVE_COUNT), Some("1"));
        assert_eq!(redrive.headers.get_str(headers::REDRIVE_TOPIC), Some("t"));
        assert_eq!(redrive.headers.get_str(headers::REDRIVE_LETTER), Some("2@7@99"));
        assert_eq!(redrive.headers.len(), letter.record.headers.len() + 4);
        letter.record.headers = redrive.headers;
        assert_eq!(letter.to_redrive().headers.get_str(headers::REDRIVE_COUNT), Some("2"));
        assert_eq!(letter.to_redrive().headers.len(), letter.record.headers.len());
    }

    #[test]
    fn a_long_error_is_cut_at_a_character() {
        let letter = letter().with_error("é".repeat(DeadLetter::MAX_ERROR_TEXT));
        assert_eq!(letter.error.len(), DeadLetter::MAX_ERROR_TEXT);
    }

    #[test]
    fn a_redrive_counts_only_in_its_topic_and_for_its_service() {
        let redriven = letter().to_redrive().headers;
        let read = Redriven::of("t", &redriven).unwrap();
        assert!(read.is_for("svc") && !read.is_for("other") && read.count == 1);
        assert_eq!(Redriven::of("elsewhere", &redriven), None);
        let none = Headers::new().with(headers::REDRIVE_FOR, "svc").with(headers::REDRIVE_TOPIC, "t");
        assert_eq!(Redriven::of("t", &none), None);
        assert_eq!(Redriven::of("t", &none.with(headers::REDRIVE_COUNT, "many")), None);
    }

    #[test]
    fn headers_without_a_topic_steer_nothing_and_are_counted_on() {
        // As older versions wrote it, and as any publisher may write it.
        let old = Headers::new().with(headers::REDRIVE_FOR, "svc").with(headers::REDRIVE_COUNT, "2");
        assert_eq!(Redriven::of("t", &old), None);
        let mut letter = letter();
        letter.record.headers = old;
        assert_eq!(letter.to_redrive().headers.get_str(headers::REDRIVE_COUNT), Some("3"));
    }

    #[test]
    fn a_count_of_another_topic_or_service_is_not_counted_on() {
        let mut letter = letter();
        letter.record.headers = letter.to_redrive().headers;
        letter.service = "other".into();
        assert_eq!(letter.to_redrive().headers.get_str(headers::REDRIVE_COUNT), Some("1"));
    }
}
