//! Damaged batches: each is an error, and none of its records is returned.

use super::super::cursor::put;
use super::super::{BatchError, Codec, at};
use super::{LIMIT, packed, read, resealed, resized, three, with_body};
use tidings_core::{ErrorKind, TopicPartition};

/// Encodes a record with these numbers: its offset delta, the lengths of key and value, and the number of headers.
fn record(offset: i64, key: i64, value: i64, headers: i64, rest: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0];
    for number in [offset, key, value, headers] {
        put(&mut body, number);
    }
    body.extend(rest);
    let mut out = Vec::new();
    put(&mut out, body.len() as i64);
    out.extend(body);
    out
}

/// Returns a batch that declares three records, of these bytes.
fn of(records: &[u8]) -> Vec<u8> {
    with_body(&three(), Codec::None, records)
}

fn with_offsets(offsets: [i64; 3]) -> Vec<u8> {
    of(&offsets.map(|offset| record(offset, -1, -1, 0, &[])).concat())
}

#[test]
fn offsets_have_to_grow_within_their_batch() {
    assert_eq!(read(&with_offsets([0, 1, 2]), LIMIT).map(|records| records.len()), Ok(3));
    for offsets in
        [[0, 0, 0], [2, 1, 0], [-5, -4, -3], [0, 1, 1_000], [0, 1, i64::from(i32::MAX)], [0, i64::from(i32::MIN), 2]]
    {
        let error = read(&with_offsets(offsets), LIMIT).expect_err("damaged");
        assert_eq!(error, BatchError::Damaged("the offset of a record is out of order or outside its batch"));
    }
}

#[test]
fn numbers_of_records_and_lengths_have_to_agree() {
    let good = |n| record(n, -1, -1, 0, &[]);
    let two = [good(0), good(1)].concat();
    for (last, bytes) in [
        ("no record", vec![]),
        ("a byte behind", [&two[..], &good(2), &[0]].concat()),
        ("a fourth record", [&two[..], &good(2), &good(3)].concat()),
        ("a value beyond the record", [&two[..], &record(2, -1, 1, 0, &[])].concat()),
        ("a value beyond all bytes", [&two[..], &record(2, -1, i64::from(i32::MAX), 0, &[])].concat()),
        ("a byte behind the headers", [&two[..], &record(2, -1, -1, 0, &[0])].concat()),
        ("a header that is missing", [&two[..], &record(2, -1, -1, 1, &[])].concat()),
        ("a header without a name", [&two[..], &record(2, -1, -1, 1, &[1, 1])].concat()),
        ("a negative number of headers", [&two[..], &record(2, -1, -1, -1, &[])].concat()),
        ("the largest number of headers", [&two[..], &record(2, -1, -1, i64::from(i32::MAX), &[0, 0])].concat()),
        ("a negative length", [&two[..], &[1, 0, 0, 0, 0, 0, 0]].concat()),
        ("a length of six bytes", [&two[..], &[0x80, 0x80, 0x80, 0x80, 0x80, 0, 0]].concat()),
    ] {
        for codec in Codec::ALL {
            let error = read(&with_body(&three(), codec, &packed(codec, &bytes)), LIMIT).expect_err(last);
            let too_many = error == BatchError::TooManyHeaders;
            let kind = if too_many { ErrorKind::TooLarge } else { ErrorKind::Undecodable };
            assert_eq!(error.kind(), kind, "{last}, {codec:?}: {error}");
        }
    }
}

#[test]
fn a_declared_number_of_records_reserves_nothing() {
    let mut bytes = three();
    bytes[at::COUNT..at::RECORDS].copy_from_slice(&i32::MAX.to_be_bytes());
    resealed(&mut bytes);
    assert_eq!(read(&bytes, LIMIT), Err(BatchError::Damaged("it has fewer records than it declares")));
}

#[test]
fn a_record_has_at_most_100_000_headers() {
    let headers = |count: usize| {
        of(&[
            record(0, -1, -1, 0, &[]),
            record(1, -1, -1, 0, &[]),
            record(2, -1, -1, count as i64, &[0, 0].repeat(count)),
        ]
        .concat())
    };
    assert_eq!(read(&headers(100_000), LIMIT).map(|records| records[2].headers.len()), Ok(100_000));
    assert_eq!(read(&headers(100_001), LIMIT), Err(BatchError::TooManyHeaders));
}

#[test]
fn a_damaged_byte_is_noticed() {
    let mut bytes = three();
    *bytes.last_mut().expect("a batch") ^= 1;
    assert!(matches!(read(&bytes, LIMIT), Err(BatchError::Checksum { .. })));
}

#[test]
fn an_unknown_codec_is_named() {
    for codec in 5..8 {
        let mut bytes = three();
        bytes[at::ATTRIBUTES + 1] |= codec;
        resealed(&mut bytes);
        assert_eq!(read(&bytes, LIMIT), Err(BatchError::Codec(codec.into())));
    }
}

#[test]
fn bytes_that_no_codec_wrote_are_an_error() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        for body in [vec![], vec![0; 20], vec![0xff; 20], b"no codec".to_vec()] {
            let error = read(&with_body(&three(), codec, &body), LIMIT).expect_err("damaged");
            assert_eq!(error.kind(), ErrorKind::Undecodable, "{codec:?} {body:?}: {error}");
        }
        let whole = packed(codec, &three()[at::RECORDS..]);
        for length in 0..whole.len() {
            let read = read(&with_body(&three(), codec, &whole[..length]), LIMIT);
            // The end mark of lz4 and the sums behind the data may be missing: nothing of the records is.
            let complete = read.as_ref().is_ok_and(|records| records.len() == 3 && codec == Codec::Lz4);
            assert!(read.is_err() || complete, "{codec:?} {length}");
        }
    }
}

#[test]
fn a_snappy_block_that_declares_more_than_it_has_allocates_nothing() {
    let mut block = vec![0xff, 0xff, 0xff, 0x0f];
    block.extend([0; 20]);
    let error = read(&with_body(&three(), Codec::Snappy, &block), LIMIT).expect_err("damaged");
    assert_eq!(error, BatchError::Packed("a snappy block declares more than it can contain".to_owned()));
}

#[test]
fn an_error_names_partition_and_offset() {
    let partition = TopicPartition::new("orders", 3);
    let error = BatchError::Format(1).into_error(&partition, 42);
    assert_eq!(error.kind(), ErrorKind::Undecodable);
    assert_eq!(
        error.to_string(),
        "cannot read the batch of orders[3] at offset 42: its format version is 1, of brokers before 0.11; only version \
         2 is read"
    );
    assert_eq!(BatchError::TooLarge { limit: 1 }.into_error(&partition, 42).kind(), ErrorKind::TooLarge);
    let mut bytes = three();
    bytes.truncate(at::RECORDS - 1);
    resized(&mut bytes);
    assert_eq!(read(&bytes, LIMIT), Err(BatchError::Damaged("its length is less than that of its header")));
}
