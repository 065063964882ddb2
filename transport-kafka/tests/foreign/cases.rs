//! The hostile inputs, with the fate of each on a Kafka 4.1 broker.

use crate::batch::{Batch, Codec, MAGIC_AT, Raw, pack, seal};
use crate::common::TestResult;
use tidings_kafka::KafkaConfig;

/// Fate of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The broker refuses it.
    Refused,
    /// Each of its records reaches the handler.
    Handled,
    /// Each of its records is a dead letter.
    Buried,
    /// Its partition is held, and continues when an operator skips it.
    Held,
}

/// One input, for one partition.
#[derive(Debug)]
pub(crate) struct Hostile {
    pub(crate) bytes: Vec<u8>,
    /// Number of its records.
    pub(crate) records: usize,
    /// The largest batch that its topic accepts; by default the broker's own limit.
    pub(crate) topic_limit: Option<u64>,
    /// The reader's limit on the decompressed size of a batch.
    pub(crate) unpacked: usize,
    /// Whether the dead-letter topic has the same limit as the topic.
    pub(crate) narrow_letters: bool,
}

pub(crate) type Make = fn() -> TestResult<Hostile>;

const MIB: usize = 1 << 20;
/// The reader's limit where a case does not choose the default: less data to compress and decompress.
pub(crate) const UNPACKED: usize = 16 * MIB;

fn hostile(batch: Batch) -> TestResult<Hostile> {
    let records = usize::try_from(batch.count).unwrap_or(0);
    Ok(Hostile { bytes: batch.encode()?, records, topic_limit: None, unpacked: UNPACKED, narrow_letters: false })
}

fn three() -> Batch {
    Batch::of_many(3, |n| Raw::new(n, format!("h-{n}")))
}

fn one(record: Raw) -> TestResult<Hostile> {
    hostile(Batch::new(&[record]))
}

fn deltas(deltas: [i32; 3]) -> TestResult<Hostile> {
    let records: Vec<_> = deltas.iter().enumerate().map(|(n, delta)| Raw::new(*delta, format!("h-{n}"))).collect();
    hostile(Batch::new(&records))
}

/// Creates a batch of `codec` whose records decompress to this many bytes.
fn unpacks(codec: Codec, records: i32, size: usize) -> TestResult<Hostile> {
    hostile(Batch::of_many(records, |n| Raw::new(n, vec![b'0'; size])).with_codec(codec))
}

fn headers(count: usize, record: Raw) -> Raw {
    (0..count).fold(record, |record, _| record.with_header("n", ""))
}

/// Changes sealed bytes, and seals them again.
fn resealed(change: impl FnOnce(&mut Vec<u8>)) -> TestResult<Hostile> {
    let mut hostile = hostile(three())?;
    change(&mut hostile.bytes);
    seal(&mut hostile.bytes);
    Ok(hostile)
}

fn unsealed(change: impl FnOnce(&mut Vec<u8>)) -> TestResult<Hostile> {
    let mut hostile = hostile(three())?;
    change(&mut hostile.bytes);
    Ok(hostile)
}

/// Creates three records, whose compressed bytes are changed by `change`.
fn packed(codec: Codec, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> TestResult<Hostile> {
    let batch = three().with_codec(codec);
    let bytes = pack(codec, &batch.records)?;
    hostile(batch.with(|batch| batch.packed = Some(change(bytes))))
}

/// Creates records in two parts, each compressed separately.
fn in_two_parts(codec: Codec) -> TestResult<Hostile> {
    let batch = three().with_codec(codec);
    let (first, second) = batch.records.split_at(batch.records.len() / 3);
    let both = [pack(codec, first)?, pack(codec, second)?].concat();
    hostile(batch.with(|batch| batch.packed = Some(both)))
}

fn by_default(hostile: TestResult<Hostile>) -> TestResult<Hostile> {
    hostile.map(|hostile| Hostile { unpacked: KafkaConfig::DEFAULT_FETCH_MAX_UNPACKED_BYTES, ..hostile })
}

fn wide_topic(hostile: TestResult<Hostile>) -> TestResult<Hostile> {
    hostile.map(|hostile| Hostile { topic_limit: Some(64 << 20), ..hostile })
}

/// Returns the fate of an input with the native reader. It reads some that the client cannot decode, as Java's client
/// does.
pub(crate) fn natively(name: &str, fate: Fate) -> Fate {
    let is_read = ["gzip_in_two_parts", "zstd_behind_a_frame_to_skip"].iter().any(|read| name.starts_with(read));
    if is_read { Fate::Handled } else { fate }
}

/// Returns all inputs: a name, a fate, and a constructor.
pub(crate) fn all() -> Vec<(&'static str, Fate, Make)> {
    [sizes(), headers_and_names(), offsets(), numbers(), codecs(), fields()].concat()
}

fn sizes() -> Vec<(&'static str, Fate, Make)> {
    vec![
        ("a_plain_batch", Fate::Handled, || hostile(three())),
        ("a_gzip_batch_that_unpacks_to_40_mib", Fate::Handled, || by_default(unpacks(Codec::Gzip, 40, MIB))),
        ("a_gzip_batch_that_unpacks_to_140_mib", Fate::Held, || by_default(unpacks(Codec::Gzip, 140, MIB))),
        ("150_000_records_in_a_gzip_batch", Fate::Handled, || by_default(unpacks(Codec::Gzip, 150_000, 250))),
        ("a_gzip_batch_over_the_readers_limit", Fate::Held, || unpacks(Codec::Gzip, 20, MIB)),
        ("a_gzip_record_over_the_readers_limit", Fate::Held, || unpacks(Codec::Gzip, 1, 20 * MIB)),
        ("a_snappy_batch_over_the_readers_limit", Fate::Held, || unpacks(Codec::Snappy, 20, MIB)),
        ("an_lz4_batch_over_the_readers_limit", Fate::Held, || unpacks(Codec::Lz4, 20, MIB)),
        ("a_zstd_batch_over_the_readers_limit", Fate::Held, || unpacks(Codec::Zstd, 20, MIB)),
        ("a_gzip_batch_at_the_readers_limit", Fate::Handled, || unpacks(Codec::Gzip, 1, UNPACKED - 13)),
        ("a_snappy_batch_below_the_readers_limit", Fate::Handled, || unpacks(Codec::Snappy, 15, MIB)),
        ("a_zstd_batch_below_the_readers_limit", Fate::Handled, || unpacks(Codec::Zstd, 15, MIB)),
        ("500_000_empty_records_in_a_gzip_batch", Fate::Handled, || unpacks(Codec::Gzip, 500_000, 0)),
        ("an_uncompressed_batch_of_45_mib", Fate::Handled, || wide_topic(unpacks(Codec::None, 45, MIB))),
        ("a_record_of_20_mib", Fate::Handled, || wide_topic(unpacks(Codec::None, 1, 20 * MIB))),
        ("a_record_of_10_mib_for_the_dead_letters", Fate::Buried, || {
            wide_topic(one(Raw::new(0, vec![b'0'; 10 * MIB]).with_key("bury")))
        }),
        ("a_record_at_the_topics_limit_for_the_dead_letters", Fate::Buried, || {
            one(Raw::new(0, vec![b'0'; MIB - 100]).with_key("bury"))
        }),
        ("a_record_for_dead_letters_without_room", Fate::Held, || {
            let record = one(Raw::new(0, vec![b'0'; MIB - 100]).with_key("bury"));
            record.map(|hostile| Hostile { narrow_letters: true, ..hostile })
        }),
    ]
}

fn headers_and_names() -> Vec<(&'static str, Fate, Make)> {
    vec![
        ("a_record_with_20_000_headers", Fate::Handled, || one(headers(20_000, Raw::new(0, "h")))),
        ("a_record_with_100_001_headers", Fate::Held, || one(headers(100_001, Raw::new(0, "h")))),
        ("a_record_with_300_000_headers", Fate::Held, || one(headers(300_000, Raw::new(0, "h")))),
        ("9_991_headers_for_the_dead_letters", Fate::Buried, || one(headers(9_991, Raw::new(0, "h").with_key("bury")))),
        ("20_000_headers_for_the_dead_letters", Fate::Buried, || {
            one(headers(20_000, Raw::new(0, "h").with_key("bury")))
        }),
        ("a_key_of_900_kib", Fate::Handled, || one(Raw::new(0, "h").with_key(vec![b'k'; 900 << 10]))),
        ("an_empty_key", Fate::Handled, || one(Raw::new(0, "h").with_key(""))),
        ("a_header_name_of_900_kib", Fate::Handled, || one(Raw::new(0, "h").with_header(vec![b'n'; 900 << 10], "v"))),
        ("a_header_name_of_900_kib_for_the_dead_letters", Fate::Buried, || {
            one(Raw::new(0, "h").with_key("bury").with_header(vec![b'n'; 900 << 10], "v"))
        }),
        ("a_header_value_of_900_kib", Fate::Handled, || one(Raw::new(0, "h").with_header("n", vec![b'v'; 900 << 10]))),
        ("a_header_without_a_name", Fate::Handled, || one(Raw::new(0, "h").with_header("", "v"))),
        ("a_header_name_that_is_no_text", Fate::Handled, || one(Raw::new(0, "h").with_header([0xff, 0xfe], "v"))),
        ("a_header_name_that_is_no_text_for_the_dead_letters", Fate::Buried, || {
            one(Raw::new(0, "h").with_key("bury").with_header([0xff, 0xfe, 0], [0xff, 0]))
        }),
        ("fewer_headers_than_it_says", Fate::Refused, || {
            one(Raw { headers_off: 1, ..Raw::new(0, "h").with_header("a", "b") })
        }),
        ("more_headers_than_it_says", Fate::Refused, || {
            one(Raw { headers_off: -1, ..Raw::new(0, "h").with_header("a", "b") })
        }),
        ("a_negative_number_of_headers", Fate::Refused, || {
            one(Raw { headers_off: -2, ..Raw::new(0, "h").with_header("a", "b") })
        }),
    ]
}

pub(crate) fn offsets() -> Vec<(&'static str, Fate, Make)> {
    vec![
        ("records_of_one_offset", Fate::Held, || deltas([0, 0, 0])),
        ("offsets_in_reverse", Fate::Held, || deltas([2, 1, 0])),
        ("offsets_below_the_batch", Fate::Held, || deltas([-5, -4, -3])),
        ("offsets_beyond_the_batch", Fate::Held, || deltas([0, 1, 1_000])),
        ("the_largest_offset", Fate::Held, || deltas([0, 1, i32::MAX])),
        ("the_smallest_offset", Fate::Held, || deltas([0, i32::MIN, 2])),
        ("offsets_in_reverse_and_packed", Fate::Refused, || {
            let records: Vec<_> = (0..3).map(|n| Raw::new(2 - n, "h")).collect();
            hostile(Batch::new(&records).with_codec(Codec::Gzip))
        }),
        ("a_last_offset_beyond_the_records", Fate::Refused, || hostile(three().with(|b| b.last_delta = 9))),
        ("a_last_offset_below_the_records", Fate::Refused, || hostile(three().with(|b| b.last_delta = 1))),
        ("a_negative_last_offset", Fate::Refused, || hostile(three().with(|b| b.last_delta = -3))),
        ("a_first_offset_of_its_own", Fate::Refused, || hostile(three().with(|b| b.base_offset = 77))),
        ("a_negative_first_offset", Fate::Refused, || hostile(three().with(|b| b.base_offset = -77))),
    ]
}

fn numbers() -> Vec<(&'static str, Fate, Make)> {
    vec![
        ("no_records", Fate::Refused, || hostile(Batch::new(&[]))),
        ("fewer_records_than_it_says", Fate::Refused, || hostile(three().with(|b| (b.count, b.last_delta) = (4, 3)))),
        ("more_records_than_it_says", Fate::Refused, || hostile(three().with(|b| (b.count, b.last_delta) = (2, 1)))),
        ("more_packed_records_than_it_says", Fate::Refused, || {
            hostile(three().with_codec(Codec::Gzip).with(|b| (b.count, b.last_delta) = (2, 1)))
        }),
        ("a_negative_number_of_records", Fate::Refused, || hostile(three().with(|b| b.count = -3))),
        ("the_largest_number_of_records", Fate::Refused, || {
            hostile(three().with(|b| (b.count, b.last_delta) = (i32::MAX, i32::MAX - 1)))
        }),
        ("numbers_of_five_bytes_each", Fate::Handled, || {
            one(Raw { wide: true, ..Raw::new(0, "h").with_key("k").with_header("a", "b") })
        }),
        ("a_record_longer_than_it_says", Fate::Refused, || one(Raw { length_off: -1, ..Raw::new(0, "h") })),
        ("a_record_shorter_than_it_says", Fate::Refused, || one(Raw { length_off: 1, ..Raw::new(0, "h") })),
        ("a_byte_behind_the_records", Fate::Refused, || hostile(three().with(|b| b.records.push(0)))),
        ("a_time_before_all_times", Fate::Refused, || {
            hostile(three().with(|b| (b.base_time, b.max_time) = (i64::MIN, i64::MIN)))
        }),
        ("a_time_of_minus_one", Fate::Handled, || hostile(three().with(|b| (b.base_time, b.max_time) = (-1, -1)))),
        ("a_time_far_ahead", Fate::Refused, || {
            hostile(three().with(|b| (b.base_time, b.max_time) = (1 << 60, 1 << 60)))
        }),
        ("a_time_that_overflows", Fate::Refused, || {
            hostile(Batch::new(&[Raw { time_delta: i64::MIN, ..Raw::new(0, "h") }]).with(|b| b.base_time = -2))
        }),
        ("a_last_time_before_the_first", Fate::Handled, || hostile(three().with(|b| b.max_time = 0))),
        ("a_last_time_far_ahead", Fate::Handled, || hostile(three().with(|b| b.max_time = i64::MAX))),
    ]
}

fn codecs() -> Vec<(&'static str, Fate, Make)> {
    vec![
        ("gzip", Fate::Handled, || hostile(three().with_codec(Codec::Gzip))),
        ("snappy", Fate::Handled, || hostile(three().with_codec(Codec::Snappy))),
        ("lz4", Fate::Handled, || hostile(three().with_codec(Codec::Lz4))),
        ("zstd", Fate::Handled, || hostile(three().with_codec(Codec::Zstd))),
        ("a_codec_of_tomorrow", Fate::Refused, || hostile(three().with(|b| b.attributes = 5))),
        ("bytes_that_are_no_gzip", Fate::Refused, || packed(Codec::Gzip, |_| b"no gzip".to_vec())),
        ("bytes_that_are_no_snappy", Fate::Refused, || packed(Codec::Snappy, |_| vec![0xff; 20])),
        ("bytes_that_are_no_lz4", Fate::Refused, || packed(Codec::Lz4, |_| vec![0; 20])),
        ("bytes_that_are_no_zstd", Fate::Refused, || packed(Codec::Zstd, |_| vec![0; 20])),
        ("gzip_without_its_end", Fate::Refused, || packed(Codec::Gzip, |bytes| bytes[..bytes.len() - 8].to_vec())),
        ("gzip_with_a_wrong_sum", Fate::Refused, || {
            packed(Codec::Gzip, |mut bytes| {
                let at = bytes.len() - 8;
                bytes[at] ^= 1;
                bytes
            })
        }),
        ("gzip_with_bytes_behind", Fate::Handled, || packed(Codec::Gzip, |bytes| [&bytes[..], b"behind"].concat())),
        ("lz4_with_bytes_behind", Fate::Handled, || packed(Codec::Lz4, |bytes| [&bytes[..], b"behind"].concat())),
        ("zstd_with_bytes_behind", Fate::Refused, || packed(Codec::Zstd, |bytes| [&bytes[..], b"behind"].concat())),
        ("gzip_in_two_parts", Fate::Held, || in_two_parts(Codec::Gzip)),
        ("lz4_in_two_parts", Fate::Refused, || in_two_parts(Codec::Lz4)),
        ("zstd_in_two_parts", Fate::Handled, || in_two_parts(Codec::Zstd)),
        ("zstd_behind_a_frame_to_skip", Fate::Held, || {
            packed(Codec::Zstd, |bytes| [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 2][..], &bytes].concat())
        }),
    ]
}

fn fields() -> Vec<(&'static str, Fate, Make)> {
    vec![
        ("a_tombstone_without_a_key", Fate::Handled, || one(Raw::default())),
        ("attributes_of_a_record", Fate::Handled, || one(Raw { attributes: 0xff, ..Raw::new(0, "h") })),
        ("a_transaction_without_a_producer", Fate::Refused, || hostile(three().with(|b| b.attributes = 0x10))),
        ("a_control_batch", Fate::Refused, || hostile(three().with(|b| b.attributes = 0x20))),
        ("append_time_by_the_producer", Fate::Handled, || hostile(three().with(|b| b.attributes = 0x08))),
        ("a_delete_horizon", Fate::Handled, || hostile(three().with(|b| b.attributes = 0x40))),
        ("attributes_of_tomorrow", Fate::Handled, || hostile(three().with(|b| b.attributes = 0x7f80))),
        ("a_producer_that_is_not_known", Fate::Handled, || hostile(three().with(|b| b.producer = (987_654, 0, 0)))),
        ("a_producer_out_of_sequence", Fate::Handled, || hostile(three().with(|b| b.producer = (987_653, 3, 99)))),
        ("magic_0", Fate::Refused, || unsealed(|bytes| bytes[MAGIC_AT] = 0)),
        ("magic_1", Fate::Refused, || unsealed(|bytes| bytes[MAGIC_AT] = 1)),
        ("magic_9", Fate::Refused, || unsealed(|bytes| bytes[MAGIC_AT] = 9)),
        ("a_wrong_checksum", Fate::Refused, || unsealed(|bytes| *bytes.last_mut().expect("a batch") ^= 1)),
        ("two_batches_at_once", Fate::Refused, || unsealed(|bytes| bytes.extend_from_within(..))),
        ("half_a_batch", Fate::Refused, || unsealed(|bytes| bytes.truncate(40))),
        ("a_batch_longer_than_it_says", Fate::Handled, || unsealed(|bytes| bytes.push(0))),
        ("a_batch_shorter_than_it_says", Fate::Refused, || resealed(|bytes| bytes.truncate(bytes.len() - 1))),
    ]
}
