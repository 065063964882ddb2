//! Values that codecs refuse while they write, as in release builds, where nothing is read back. Runs in its own process,
//! since reading back is a setting of the process.
#![cfg(all(feature = "json", feature = "postcard"))]

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use tidings_core::codec::{self, Json, Postcard};
use tidings_core::{Envelope, ErrorKind, Event, Result};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Measured {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    place: Option<String>,
    values: Vec<(u8, f64)>,
    last: Option<Option<u8>>,
    inner: Vec<Measured>,
}

impl Event for Measured {
    type Codec = Json;
    const TOPIC: &'static str = "t";
    const TYPE: &'static str = "measured";
    fn key(&self) -> Option<Cow<'_, [u8]>> {
        None
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
struct Packed(Measured);

impl Event for Packed {
    type Codec = Postcard;
    const TOPIC: &'static str = "t";
    const TYPE: &'static str = "packed";
    fn key(&self) -> Option<Cow<'_, [u8]>> {
        None
    }
}

fn write<E: Event>(event: E) -> Result<()> {
    codec::encode(Envelope::new(event).as_ref(), "").map(drop)
}

#[test]
fn codecs_refuse_what_their_readers_could_not_take() {
    codec::set_read_back(false);
    let placed = Measured { place: Some("here".into()), ..Measured::default() };
    let bad = Measured { values: vec![(0, 1.0), (1, f64::NAN)], ..placed.clone() };
    let nested = Measured { last: Some(None), ..placed.clone() };
    let deep = (0..300).fold(placed.clone(), |inner, _| Measured { inner: vec![inner], ..placed.clone() });
    let deep_place = Measured { inner: vec![bad.clone()], ..placed.clone() };
    for (event, says) in [
        (bad.clone(), "values[1][1]: the number is NaN"),
        (nested.clone(), "last: a `Some` of null"),
        (deep.clone(), "nested too deep"),
        (deep_place, "inner[0].values[1][1]"),
    ] {
        let error = write(event).unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.report().contains(says), "{says}: {}", error.report());
    }
    write(Measured::default()).unwrap();
    write(Packed(bad)).unwrap();
    write(Packed(nested)).unwrap();
    for (event, says) in [(Measured::default(), "place: a skipped field"), (deep, "nested too deep")] {
        let error = write(Packed(event)).unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.report().contains(says), "{says}: {}", error.report());
    }
}
