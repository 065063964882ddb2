//! Batches that are written, read again.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any};
use proptest::{prop_assert, prop_assert_eq, proptest};
use tidings_core::Record;

use super::super::{BatchBuilder, Codec, Marker, NewRecord, Packing, ProducerState, at, scan};
use super::{Given, LIMIT, built, given, read};

/// The codecs that this build writes.
fn written() -> impl Iterator<Item = Packing> {
    let zstd = cfg!(feature = "zstd");
    let codecs = Codec::ALL.into_iter().filter(move |codec| zstd || *codec != Codec::Zstd);
    codecs.map(|codec| Packing { codec, level: None })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn written_records_are_read_back(
        records in vec(given(), 1..40),
        id in any::<i64>(),
        epoch in any::<i16>(),
        sequence in any::<i32>(),
        transactional in any::<bool>(),
    ) {
        let producer = ProducerState { id, epoch, sequence };
        for packing in written() {
            let mut builder = BatchBuilder::new(0);
            for (position, record) in records.iter().enumerate() {
                let size = builder.size_with(&record.view());
                prop_assert_eq!(builder.append(&record.view()), Ok(position as u32));
                prop_assert_eq!(builder.size(), size);
                prop_assert!(builder.allocated() >= size);
            }
            let sealed = builder.seal(packing, producer, transactional).expect("a codec");
            let batch = scan(sealed.bytes()).next().expect("a batch").expect("a header");
            let header = *batch.header();
            prop_assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (id, epoch, sequence));
            prop_assert_eq!((header.is_transactional(), header.is_control()), (transactional, false));
            prop_assert_eq!((header.count as usize, header.size), (records.len(), sealed.bytes().len()));
            prop_assert_eq!(header.next_offset(), records.len() as u64);
            prop_assert_eq!(Some(header.max_timestamp), records.iter().map(|record| record.timestamp).max());
            let read = batch.records(0, LIMIT).expect("records");
            prop_assert_eq!(read.len(), records.len());
            for (offset, (record, read)) in records.iter().zip(read).enumerate() {
                record.check(&read, offset as u64);
            }
        }
    }
}

#[test]
fn a_batch_is_compressed_if_that_is_smaller() {
    for packing in written().filter(|packing| packing.codec != Codec::None) {
        let seal = |value: Vec<u8>| {
            let sealed = built(&[Given::new(value)]).seal(packing, ProducerState::NONE, false).expect("a codec");
            let batch = scan(sealed.bytes()).next().expect("a batch").expect("a header");
            (batch.header().codec(), sealed.bytes().len())
        };
        let (codec, size) = seal(vec![b'0'; 100_000]);
        assert_eq!(codec, Ok(packing.codec));
        assert!(size < 10_000, "{packing:?}: {size}");
        let mut rng = fastrand::Rng::with_seed(1);
        assert_eq!(seal((0..1_000).map(|_| rng.u8(..)).collect()).0, Ok(Codec::None), "{packing:?}");
    }
}

#[test]
fn levels_are_passed_to_the_codec() {
    let text: Vec<u8> = (0..40_000_u32).flat_map(|n| (n * n % 1_009).to_string().into_bytes()).collect();
    let size = |codec, level| {
        let packing = Packing { codec, level: Some(level) };
        let sealed = built(&[Given::new(text.clone())]).seal(packing, ProducerState::NONE, false).expect("a codec");
        assert_eq!(read(sealed.bytes(), LIMIT).map(|records| records.len()), Ok(1));
        sealed.bytes().len()
    };
    assert!(size(Codec::Gzip, 9) < size(Codec::Gzip, 1));
    if cfg!(feature = "zstd") {
        assert_ne!(size(Codec::Zstd, 19), size(Codec::Zstd, 1));
    }
}

#[test]
fn zstd_without_its_feature_is_an_error() {
    let packing = Packing { codec: Codec::Zstd, level: None };
    let sealed = built(&[Given::new("v")]).seal(packing, ProducerState::NONE, false);
    assert_eq!(sealed.is_ok(), cfg!(feature = "zstd"));
}

#[test]
fn a_new_producer_changes_nothing_else() {
    let first = ProducerState { id: 7, epoch: 1, sequence: 100 };
    let second = ProducerState { id: 7, epoch: 2, sequence: 0 };
    let mut sealed = built(&[Given::new("v-0"), Given::new("v-1")]).seal(Packing::NONE, first, true).expect("a batch");
    let in_flight = sealed.bytes().clone();
    sealed.restamp(second);
    assert_eq!((sealed.count(), sealed.producer()), (2, second));
    let header = |bytes: &Bytes| *scan(bytes).next().expect("a batch").expect("a header").header();
    assert_eq!((header(&in_flight).producer_epoch, header(&in_flight).base_sequence), (1, 100), "it may still be sent");
    assert_eq!((header(sealed.bytes()).producer_epoch, header(sealed.bytes()).base_sequence), (2, 0));
    assert_eq!(in_flight[at::RECORDS..], sealed.bytes()[at::RECORDS..]);
    assert_eq!(read(&in_flight, LIMIT), read(sealed.bytes(), LIMIT));
    drop(in_flight);
    let place = sealed.bytes().as_ptr();
    sealed.restamp(first);
    assert_eq!(sealed.bytes().as_ptr(), place, "bytes that are not shared are not copied");
}

#[test]
fn a_record_without_a_timestamp_has_that_of_its_appending() {
    let mut builder = BatchBuilder::new(1_000);
    let timed = Record::new("topic", "v-0").with_key("k").with_timestamp(tidings_core::Timestamp::from_millis(5));
    assert!(builder.is_empty());
    builder.append(&NewRecord::of(&timed, 9)).expect("it fits");
    builder.append(&NewRecord::of(&Record::tombstone("topic").with_header("h", "x"), 9)).expect("it fits");
    assert_eq!((builder.count(), builder.is_empty()), (2, false));
    let sealed = builder.seal(Packing::NONE, ProducerState::NONE, false).expect("a batch");
    let read = read(sealed.bytes(), LIMIT).expect("records");
    assert_eq!(read.iter().map(|record| record.timestamp.millis()).collect::<Vec<_>>(), [5, 9]);
    assert_eq!((read[0].key.as_deref(), read[1].value.as_deref()), (Some(&b"k"[..]), None));
    assert_eq!(read[1].headers.get_str("h"), Some("x"));
}

/// The bytes were written by Java's client: two records, of which the second has headers, by a producer.
const BY_JAVA: &str = "000000000000000000000051ffffffff02de5a2dbd0000000000010000018bcfe568000000018bcfe568\
    00000000000000126700030000004d000000021c000000066b65790a76616c7565002000cf0f02010106026102310261010000";

#[test]
fn the_bytes_are_those_of_javas_client() {
    let headers = [("a", Some("1")), ("a", None), ("", Some(""))];
    let headers =
        headers.map(|(name, value)| tidings_core::Header { name: name.into(), value: value.map(Bytes::from) });
    let first = Given { key: Some(b"key".to_vec()), timestamp: 1_700_000_000_000, ..Given::new("value") };
    let second = Given { headers: headers.into_iter().collect(), timestamp: 1_699_999_999_000, ..Given::default() };
    let producer = ProducerState { id: 4_711, epoch: 3, sequence: 77 };
    let sealed = built(&[first, second]).seal(Packing::NONE, producer, false).expect("a batch");
    let hex: String = sealed.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, BY_JAVA);
}

#[test]
fn a_marker_is_read() {
    for (kind, marker) in [(0, Marker::Abort), (1, Marker::Commit), (5, Marker::Other(5))] {
        let record = Given { key: Some(vec![0, 0, 0, kind]), ..Given::new([0, 0, 0, 0, 0, 1]) };
        let mut bytes = super::plain(&[record]);
        bytes[at::ATTRIBUTES + 1] |= 0x30;
        super::resealed(&mut bytes);
        let batch = scan(&bytes.into()).next().expect("a batch").expect("a header");
        assert!(batch.header().is_control() && batch.header().is_transactional());
        assert_eq!(batch.marker(LIMIT), Ok(Some(marker)));
    }
    let batch = scan(&super::three().into()).next().expect("a batch").expect("a header");
    assert!(batch.marker(LIMIT).is_err());
}
