//! Postcard from others: no bytes overflow the stack or occupy a worker, and no value is written that cannot be read back.
#![cfg(feature = "postcard")]

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidings_core::codec::{self, Postcard};
use tidings_core::{Envelope, Error, ErrorKind, Event, StoredRecord, Timestamp};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Packed<T>(T);

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Event for Packed<T> {
    type Codec = Postcard;
    const TOPIC: &'static str = "t";
    const TYPE: &'static str = "packed";
    fn key(&self) -> Option<Cow<'_, [u8]>> {
        None
    }
}

fn write<T: Serialize + DeserializeOwned + Send + Sync + 'static>(value: T) -> Result<StoredRecord, Error> {
    let record = codec::encode(Envelope::new(Packed(value)).as_ref(), "")?;
    Ok(StoredRecord::from_record(record, 0, Timestamp::default()))
}

/// The error of reading `bytes` as a `T`, in one line.
#[track_caller]
fn refused<T: Serialize + DeserializeOwned + Send + Sync + std::fmt::Debug + 'static>(bytes: &[u8]) -> String {
    let headers = write(()).expect("nothing can be written").headers;
    let record = StoredRecord::new(0, Timestamp::default()).with_headers(headers).with_value(bytes.to_vec());
    let error = codec::decode::<Packed<T>>(&record).expect_err("it must be refused");
    assert_eq!(error.kind(), ErrorKind::Undecodable);
    error.report()
}

#[track_caller]
fn passes<T: Serialize + DeserializeOwned + Send + Sync + PartialEq + std::fmt::Debug + 'static>(value: T) {
    let record = write(value).unwrap_or_else(|error| panic!("{}", error.report()));
    codec::decode::<Packed<T>>(&record).expect("it is read");
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Chain(Option<Box<Chain>>);

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct List {
    name: String,
    next: Option<Box<List>>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf,
    New(Box<Tree>),
    Pair(Box<Tree>, Box<Tree>),
    Named { inner: Box<Tree> },
    Many(Vec<Tree>),
    ByName(BTreeMap<String, Tree>),
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Lists(Vec<Lists>);

#[test]
fn no_bytes_overflow_the_stack() {
    let many = |byte: u8| vec![byte; 10_000];
    for error in [
        refused::<Chain>(&many(1)),
        refused::<Lists>(&many(1)),
        refused::<Tree>(&many(1)),
        refused::<Tree>(&many(2)),
        refused::<Tree>(&many(3)),
        refused::<Tree>(&[4, 1].repeat(5_000)),
        refused::<Tree>(&[5, 1, 0].repeat(5_000)),
        refused::<List>(&[0, 1].repeat(5_000)),
    ] {
        assert!(error.contains("nested"), "{error}");
    }
}

#[test]
fn no_bytes_occupy_a_worker() {
    let endless = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    #[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
    struct Nothing;
    for error in [
        refused::<Vec<()>>(&endless),
        refused::<Vec<Nothing>>(&endless),
        refused::<Vec<((), [u8; 0])>>(&endless),
        refused::<HashMap<(), ()>>(&endless),
        refused::<BTreeMap<Nothing, ()>>(&endless),
        refused::<(u8, Vec<()>)>(&[&[1], &endless[..]].concat()),
        refused::<Vec<Vec<()>>>(&[&[200, 1], &[0xff, 0xff, 0x7f].repeat(200)[..]].concat()),
    ] {
        assert!(error.contains("elements"), "{error}");
    }
    // Each element of an array without bytes counts, also of an array of arrays.
    type Million = [[[[(); 32]; 32]; 32]; 32];
    assert!(refused::<Million>(&[]).contains("elements"));
    assert!(refused::<Vec<(Million, u8)>>(&[1, 0]).contains("elements"));
    assert!(refused::<Vec<u8>>(&endless).contains("postcard"));
    assert!(refused::<String>(&endless).contains("postcard"));
}

#[test]
fn what_fits_is_read() {
    passes(vec![(); 1_000]);
    passes((0..100_000_u32).collect::<Vec<_>>());
    passes((0..1_000).map(|n: u32| (n, n.to_string())).collect::<HashMap<_, _>>());
    passes((0..100).fold(List::default(), |next, _| List { name: "n".into(), next: Some(Box::new(next)) }));
    passes((0..100).fold(Lists::default(), |inner, _| Lists(vec![inner])));
    passes((0..50).fold(Tree::Leaf, |inner, _| Tree::Named { inner: Box::new(inner) }));
    passes((u128::MAX, i64::MIN, 'é', [1.5_f32, f32::INFINITY], Some(Some(())), None::<Option<u8>>));
}

#[test]
fn what_no_reader_would_take_is_not_written() {
    let deep = |depth| (0..depth).fold(Chain::default(), |inner, _| Chain(Some(Box::new(inner))));
    assert_eq!(write(deep(5_000)).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(write(vec![(); 10_000_000]).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(write([[[[(); 32]; 32]; 32]; 32]).unwrap_err().kind(), ErrorKind::Invalid);
    passes([[[(); 32]; 32]; 32]);
    passes((0..100_000_u32).map(|n| (n, std::marker::PhantomData::<u8>)).collect::<Vec<_>>());
    for depth in 50..300 {
        // Either it is refused, or it is read.
        if let Ok(record) = write(deep(depth)) {
            assert!(codec::decode::<Packed<Chain>>(&record).is_ok(), "{depth}");
        }
    }
}

#[test]
fn a_skipped_field_would_shift_the_others_and_is_refused() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Skips {
        #[serde(default, skip_serializing_if = "is_zero")]
        a: u8,
        b: u32,
        c: bool,
    }
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    fn is_zero(n: &u8) -> bool {
        *n == 0
    }
    passes(Skips { a: 1, b: 300, c: true });
    // Three bytes that are read as another event.
    let error = write(Skips { a: 0, b: 300, c: true }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.report().contains(" a: "), "{}", error.report());
}

#[test]
fn a_field_that_is_read_and_never_written_is_refused() {
    #[derive(Debug, Serialize, Deserialize)]
    struct OneWay {
        #[serde(skip_serializing)]
        #[expect(dead_code, reason = "read, and never looked at")]
        a: u8,
        b: u32,
        c: bool,
    }
    assert_eq!(write(OneWay { a: 0, b: 300, c: true }).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn a_shape_that_postcard_cannot_read_is_refused() {
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u8),
        Text(String),
    }
    assert_eq!(write(Either::Number(1)).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(write(Either::Text("t".into())).unwrap_err().kind(), ErrorKind::Invalid);
}
