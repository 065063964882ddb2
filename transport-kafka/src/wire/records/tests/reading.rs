//! Fetches and encodings that other programs produce.

use bytes::Bytes;
use tidings_core::Header;

use super::super::{BatchError, Codec, UndecodableBatch, at, scan};
use super::{Given, LIMIT, packed, plain, read, resealed, three, values, with_body};

/// Returns `batch` at an offset; the checksum does not cover it.
fn at_offset(mut batch: Vec<u8>, offset: i64) -> Vec<u8> {
    batch[at::BASE_OFFSET..at::LENGTH].copy_from_slice(&offset.to_be_bytes());
    batch
}

#[test]
fn a_fetch_is_walked_by_headers() {
    let fetch: Bytes = [at_offset(three(), 10), at_offset(three(), 20)].concat().into();
    let found: Vec<_> = scan(&fetch).map(|batch| *batch.expect("a header").header()).collect();
    let offsets: Vec<_> = found.iter().map(|header| (header.base_offset, header.last_offset)).collect();
    assert_eq!(offsets, [(10, 12), (20, 22)]);
    assert_eq!((found[1].next_offset(), found[1].leader_epoch, found[1].size), (23, -1, three().len()));
    assert_eq!(scan(&Bytes::new()).count(), 0);
}

#[test]
fn a_batch_that_is_cut_off_ends_a_fetch() {
    let whole = at_offset(three(), 10);
    for length in 0..whole.len() {
        let fetch: Bytes = [&whole[..], &at_offset(three(), 13)[..length]].concat().into();
        assert_eq!(scan(&fetch).filter(Result::is_ok).count(), 1, "{length}");
        assert_eq!(scan(&fetch).count(), 1, "{length}");
        let alone: Vec<_> = scan(&Bytes::copy_from_slice(&whole[..length])).collect();
        assert_eq!((alone.len(), alone.iter().any(Result::is_ok)), (usize::from(length > 0), false), "{length}");
    }
}

#[test]
fn batches_after_an_unreadable_header_are_found() {
    let mut old = at_offset(three(), 10);
    old[at::MAGIC] = 1;
    let mut unknown = at_offset(three(), 11);
    unknown[at::MAGIC] = 9;
    let mut negative = at_offset(three(), 12);
    negative[at::LAST_DELTA] = 0x80;
    let fetch: Bytes = [old, unknown, negative, at_offset(three(), 20)].concat().into();
    let found: Vec<_> = scan(&fetch).collect();
    let bad = |first, next, cause| Some(UndecodableBatch { first: Some(first), next, cause });
    assert_eq!(found[0].clone().err(), bad(10, Some(11), BatchError::Format(1)));
    assert_eq!(found[1].clone().err(), bad(11, None, BatchError::Format(9)));
    assert_eq!(found[2].clone().err(), bad(12, None, BatchError::Damaged("its last offset is before its first")));
    assert_eq!(found[3].as_ref().map(|batch| batch.header().base_offset), Ok(20));
}

#[test]
fn an_impossible_length_ends_a_fetch() {
    for length in [-1, 0, 13, i32::MIN] {
        let mut bytes = at_offset(three(), 10);
        bytes[at::LENGTH..at::LEADER_EPOCH].copy_from_slice(&length.to_be_bytes());
        let found: Vec<_> = scan(&[bytes, three()].concat().into()).collect();
        assert_eq!((found.len(), found[0].is_err()), (1, true), "{length}");
    }
}

#[test]
fn records_below_the_position_are_left_out() {
    let fetch = at_offset(three(), 10).into();
    let batch = scan(&fetch).next().expect("a batch").expect("a header");
    for (from, left) in [(0, 3), (10, 3), (11, 2), (12, 1), (13, 0), (u64::MAX, 0)] {
        let records = batch.records(from, LIMIT).expect("records");
        assert_eq!((records.len(), records.size()), (left, fetch.len() - at::RECORDS), "{from}");
        let offsets: Vec<_> = records.map(|record| record.offset).collect();
        assert_eq!(offsets, (10..13).filter(|offset| *offset >= from).collect::<Vec<_>>());
    }
}

#[test]
fn headers_count_by_the_memory_that_they_take() {
    let header = || Header { name: Bytes::new(), value: None };
    let with_headers = |count| Given { headers: (0..count).map(|_| header()).collect(), ..Given::default() };
    let fetch: Bytes = plain(&[with_headers(1_000), with_headers(0), with_headers(10)]).into();
    let batch = scan(&fetch).next().expect("a batch").expect("a header");
    let records = batch.records(0, LIMIT).expect("records");
    assert_eq!(records.memory(), fetch.len() - at::RECORDS + 1_010 * size_of::<Header>());
}

#[test]
fn values_are_slices_of_the_fetch() {
    let fetch: Bytes = three().into();
    let batch = scan(&fetch).next().expect("a batch").expect("a header");
    let within = fetch.as_ptr_range();
    for record in batch.records(0, LIMIT).expect("records") {
        assert!(within.contains(&record.value.expect("a value").as_ptr()));
    }
}

#[test]
fn append_time_is_that_of_all_records() {
    let mut bytes = plain(&[1, 2, 3].map(|timestamp| Given { timestamp, ..Given::new("v") }));
    bytes[at::ATTRIBUTES + 1] |= 0x08;
    bytes[at::MAX_TIMESTAMP..at::PRODUCER_ID].copy_from_slice(&99_i64.to_be_bytes());
    resealed(&mut bytes);
    let read = read(&bytes, LIMIT).expect("records");
    assert!(read.iter().all(|record| record.timestamp.millis() == 99));
}

#[test]
fn an_empty_batch_that_compaction_left_has_no_records() {
    let mut bytes = three();
    bytes.truncate(at::RECORDS);
    bytes[at::COUNT..].fill(0);
    super::resized(&mut bytes);
    let batch = scan(&bytes.into()).next().expect("a batch").expect("a header");
    assert_eq!((batch.header().next_offset(), batch.records(0, LIMIT).map(|records| records.len())), (3, Ok(0)));
    assert_eq!(batch.marker(LIMIT), Ok(None), "nor the marker of a transaction");
}

#[test]
fn every_codec_is_read_as_foreign_clients_write_it() {
    let batch = three();
    let records = &batch[at::RECORDS..];
    let (first, second) = records.split_at(7);
    let skipped = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 2];
    let xerial = |blocks: &[&[u8]]| {
        let head: &[u8] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
        let block = |block: &&[u8]| {
            let packed = packed(Codec::Snappy, block);
            [&(packed.len() as i32).to_be_bytes()[..], &packed].concat()
        };
        [head, &blocks.iter().map(block).collect::<Vec<_>>().concat()].concat()
    };
    let cases: Vec<(Codec, Vec<u8>)> = vec![
        (Codec::Gzip, packed(Codec::Gzip, records)),
        (Codec::Gzip, [packed(Codec::Gzip, first), packed(Codec::Gzip, second)].concat()),
        (Codec::Gzip, [&packed(Codec::Gzip, records)[..], b"behind"].concat()),
        (Codec::Snappy, packed(Codec::Snappy, records)),
        (Codec::Snappy, xerial(&[records])),
        (Codec::Snappy, xerial(&[first, second])),
        (Codec::Snappy, [xerial(&[first]), xerial(&[second])].concat()),
        (Codec::Lz4, packed(Codec::Lz4, records)),
        (Codec::Lz4, [&packed(Codec::Lz4, records)[..], b"behind"].concat()),
        (Codec::Zstd, packed(Codec::Zstd, records)),
        (Codec::Zstd, [packed(Codec::Zstd, first), packed(Codec::Zstd, second)].concat()),
        (Codec::Zstd, [&skipped[..], &packed(Codec::Zstd, records)].concat()),
    ];
    for (case, (codec, body)) in cases.into_iter().enumerate() {
        let read = read(&with_body(&batch, codec, &body), LIMIT).unwrap_or_else(|error| panic!("case {case}: {error}"));
        assert_eq!(values(&read), [b"v-0", b"v-1", b"v-2"], "case {case}");
    }
}

#[test]
fn nothing_is_decompressed_beyond_the_bound() {
    let batch = plain(&[Given::new(vec![b'0'; 3 << 20])]);
    let size = batch.len() - at::RECORDS;
    for codec in Codec::ALL.into_iter().filter(|codec| *codec != Codec::None) {
        let bytes = with_body(&batch, codec, &packed(codec, &batch[at::RECORDS..]));
        assert_eq!(read(&bytes, size).map(|records| records.len()), Ok(1), "{codec:?}");
        for limit in [0, 1, 1 << 20, size - 1] {
            assert_eq!(read(&bytes, limit), Err(BatchError::TooLarge { limit }), "{codec:?}");
        }
    }
    assert_eq!(read(&batch, 0).map(|records| records.len()), Ok(1), "an uncompressed batch has no bound");
}
