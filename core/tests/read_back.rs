//! Values that cannot be read back are refused when they are written.
#![cfg(feature = "json")]

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use tidings_core::codec::{self, Json};
use tidings_core::{Envelope, Error, ErrorKind, Event, StoredRecord, Timestamp};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct InJson<T>(T);

impl<T: Serialize + serde::de::DeserializeOwned + Send + Sync + 'static> Event for InJson<T> {
    type Codec = Json;
    const TOPIC: &'static str = "t";
    const TYPE: &'static str = "in.json";
    fn key(&self) -> Option<Cow<'_, [u8]>> {
        None
    }
}

fn write<E: Event>(event: E) -> Result<StoredRecord, Error> {
    let record = codec::encode(Envelope::new(event).as_ref(), "")?;
    Ok(StoredRecord::from_record(record, 0, Timestamp::default()))
}

/// Writes it as JSON, and reads it back.
#[track_caller]
fn passes<T: Serialize + serde::de::DeserializeOwned + Send + Sync + 'static>(value: T) {
    let record = write(InJson(value)).unwrap_or_else(|error| panic!("{}", error.report()));
    codec::decode::<InJson<T>>(&record).expect("it is read");
}

/// The error of writing it as JSON, with and without the read-back of debug builds.
#[track_caller]
fn refused<T: Serialize + serde::de::DeserializeOwned + Send + Sync + 'static>(value: T) -> String {
    let error = write(InJson(value)).expect_err("it must be refused");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    error.report()
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Measured {
    Unit,
    New(f64),
    Pair(f32, u8),
    Named { value: f64 },
}

#[test]
fn floats_that_json_has_no_text_for_are_refused_wherever_they_are() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        refused(bad);
        refused(Some(bad));
        refused(vec![1.0, bad]);
        refused((1, bad));
        refused(BTreeMap::from([("k", bad)]).into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<BTreeMap<_, _>>());
        refused(Measured::New(bad));
        refused(Measured::Named { value: bad });
        refused(Measured::Pair(f32::NAN, 1));
    }
    passes(vec![0.0, -0.0, f64::MAX, f64::MIN_POSITIVE, 0.1 + 0.2]);
    for good in [Measured::Unit, Measured::New(1.5), Measured::Pair(2.5, 1), Measured::Named { value: 1e-300 }] {
        passes(good);
    }
}

#[test]
fn a_float_is_read_as_the_one_that_was_written() {
    let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..20_000 {
        // Any bits, and such as prices and coordinates have.
        bits = bits.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        for float in [f64::from_bits(bits), (bits >> 11) as f64 / 1e12] {
            if float.is_finite() {
                let read = codec::decode::<InJson<f64>>(&write(InJson(float)).unwrap()).unwrap().payload.0;
                assert_eq!(read.to_bits(), float.to_bits(), "{float}");
            }
        }
        let float = f32::from_bits((bits >> 32) as u32);
        if float.is_finite() {
            let read = codec::decode::<InJson<f32>>(&write(InJson(float)).unwrap()).unwrap().payload.0;
            assert_eq!(read.to_bits(), float.to_bits(), "{float}");
        }
    }
}

#[test]
fn an_option_that_would_be_read_as_another_is_refused() {
    refused(Some(()));
    refused(Some(None::<u8>));
    passes(None::<Option<u8>>);
    passes(Some(Some(7)));
    passes(());
}

#[test]
fn nothing_deeper_than_a_reader_takes_is_written() {
    #[derive(Debug, Default, Serialize, Deserialize)]
    struct Nested(Vec<Nested>);
    let nested = |depth| (1..depth).fold(Nested::default(), |inner, _| Nested(vec![inner]));
    passes(nested(100));
    for depth in 120..140 {
        // Either it is refused, or it is read.
        if let Ok(record) = write(InJson(nested(depth))) {
            assert!(codec::decode::<InJson<Nested>>(&record).is_ok(), "{depth} levels");
        }
    }
    refused(nested(140));
}

#[test]
fn unordered_and_large_things_are_read_back() {
    passes((0..500).map(|n| (n.to_string(), n)).collect::<HashMap<_, _>>());
    passes((0..500).collect::<HashSet<u32>>());
    passes(HashMap::from([(1_u8, "a".to_owned())]));
    passes((u64::MAX, i64::MIN, u128::MAX, 'é', true, "text".to_owned()));
}

#[test]
fn a_field_that_is_written_and_never_read_is_refused() {
    #[derive(Debug, Serialize, Deserialize)]
    struct OneWay {
        #[serde(skip_serializing)]
        #[expect(dead_code, reason = "read, and never looked at")]
        name: String,
    }
    assert!(refused(OneWay { name: "n".into() }).contains("name"));
}

#[test]
fn what_a_reader_normalises_is_no_error() {
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(from = "String", into = "String")]
    struct Lower(String);
    impl From<String> for Lower {
        fn from(text: String) -> Self {
            Self(text.to_lowercase())
        }
    }
    impl From<Lower> for String {
        fn from(text: Lower) -> Self {
            text.0
        }
    }
    impl Clone for Lower {
        fn clone(&self) -> Self {
            Self(self.0.clone())
        }
    }
    passes(Lower("A@B".into()));
}
