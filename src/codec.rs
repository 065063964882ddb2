//! How events become bytes and back: the codecs, keys, versions, and the trait of a codec of your own.
//!
//! ```
//! use tidings::codec::{decode, encode};
//! use tidings::record::{StoredRecord, Timestamp};
//! use tidings::Envelope;
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Serialize, Deserialize, tidings::Event)]
//! # #[event(topic = "user-events", type = "user.registered", key = "user_id")]
//! # struct UserRegistered { user_id: String }
//!
//! # fn main() -> tidings::Result<()> {
//! let sent = Envelope::new(UserRegistered { user_id: "u1".into() }).with_source("api-gateway");
//! let record = encode(sent.as_ref(), "staging.")?;
//! assert_eq!((record.topic.as_str(), record.key.as_deref()), ("staging.user-events", Some(&b"u1"[..])));
//!
//! let read: Envelope<UserRegistered> = decode(&StoredRecord::from_record(record, 0, Timestamp::now()))?;
//! assert_eq!((read.id, read.source.as_str()), (sent.id, "api-gateway"));
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "json")]
pub use tidings_core::codec::Json;
#[cfg(feature = "postcard")]
pub use tidings_core::codec::Postcard;
#[cfg(feature = "cloudevents")]
pub use tidings_core::codec::{AttributeValue, Attributes, CloudEvents, StructuredCloudEvents};
pub use tidings_core::codec::{
    Codec, Downcast, EventFormat, EventVersions, Head, Routing, Upcast, decode, encode, encode_as, majors, peek,
    peek_headers, route_by_headers, routing,
};
pub use tidings_core::{EnvelopeRef, Key, Version};
