use serde::{Deserialize, Serialize};
use tidings_macros::Event;

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a")]
struct One;

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "b")]
struct OtherType;

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "u", type = "a")]
struct OtherTopic;

// No version is 1.
#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a", upcast_from = One)]
struct NotHigher;

// A minor version.
#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a", version = "1.1", downcast_to = One)]
struct Minor;

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a", version = 2, upcast_from = OtherType)]
struct OfOtherType;

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a", version = 2, downcast_to = OtherTopic)]
struct OfOtherTopic;

// A loop of two.
#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a", version = 2, upcast_from = Three)]
struct Two;

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a", version = 3, upcast_from = Two)]
struct Three;

// A loop of one.
#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a", version = 2, upcast_from = Itself)]
struct Itself;

macro_rules! from { ($($old:ident => $new:ident),*) => { $(
    impl From<$old> for $new {
        fn from(_: $old) -> Self {
            Self
        }
    }
)* } }
from!(One => NotHigher, OtherType => OfOtherType, Three => Two, Two => Three);

impl From<&Minor> for One {
    fn from(_: &Minor) -> Self {
        Self
    }
}

impl From<&OfOtherTopic> for OtherTopic {
    fn from(_: &OfOtherTopic) -> Self {
        Self
    }
}

fn main() {}
