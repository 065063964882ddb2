//! `derive(Event)` and `derive(FromRef)`. Use them through the crate `tidings`, which re-exports them.
//!
//! `derive(Event)` writes one `impl Event` and nothing else: it needs `Serialize` and `Deserialize` next to it, and reports
//! all wrong or missing attributes in one compilation.

mod attributes;
mod event;
mod from_ref;

use proc_macro::TokenStream;

/// Derives `Event` for a struct or an enum: its topic, its type on the wire, its version and its key.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// use tidings_core::{Event as _, Version};
/// # use tidings_macros::Event;
///
/// #[derive(Serialize, Deserialize, Event)]
/// # #[event(crate = "tidings_core")]
/// #[event(topic = "user-events", type = "user.registered", version = "2.1", key = "user_id")]
/// struct UserRegistered {
///     user_id: String,
///     email: String,
/// }
///
/// assert_eq!((UserRegistered::TOPIC, UserRegistered::TYPE), ("user-events", "user.registered"));
/// assert_eq!(UserRegistered::VERSION, Version::new(2, 1));
///
/// let event = UserRegistered { user_id: "u1".into(), email: "a@b.c".into() };
/// assert_eq!(event.key().as_deref(), Some(&b"u1"[..]));
/// ```
///
/// | Attribute | Meaning | Default |
/// |---|---|---|
/// | `topic = "user-events"`, `topic = TOPIC`, `topic = concat!(..)` | the topic that the event is published to | required |
/// | `type = "user.registered"`, also a constant or macro | the event's stable name on the wire | required |
/// | `version = 2`, `version = "2.1"` | the version of the payload | `1` |
/// | `key = "user_id"`, `key = 0`, `key = self.tenant()` | the partition key: a field, or an expression over `self` | no key, no order |
/// | `upcast_from = UserRegisteredV1` | the event of an older version that is read as this one, by `From` or `TryFrom` | none |
/// | `downcast_to = UserRegisteredV1` | the event of an older version that this one can be written as, by its `From` or `TryFrom` of a reference | none |
/// | `codec = "json"`, `"postcard"`, `"cloudevents"`, `"cloudevents-structured"` or the path of a `Codec` | the codec that writes the event | `"json"` |
/// | `crate = "path"` | the path of tidings | `::tidings` |
///
/// The older version has the same `topic` and `type` and a lower major version; anything else does not compile. It may
/// name an older version itself.
///
/// `topic` and `type` contain no white space. An enum has one type for all its variants, and an
/// expression as its key.
#[proc_macro_derive(Event, attributes(event))]
pub fn event(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    event::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Derives `FromRef` of a struct, the state of a router, for the type of each of its fields, as a clone: a handler
/// then extracts the part that it needs by `State<Part>`.
///
/// ```
/// use std::sync::Arc;
///
/// use tidings_macros::FromRef;
///
/// # mod tidings {
/// #     pub mod handler {
/// #         pub use tidings_service::FromRef;
/// #     }
/// # }
/// # fn main() {
/// # use crate::tidings::handler::FromRef;
/// struct Pool; // connections of a database
///
/// #[derive(Clone, FromRef)]
/// # #[from_ref(crate = "crate::tidings")]
/// struct App {
///     pool: Arc<Pool>,
///     rate: f64,
///     #[from_ref(skip)]
///     name: String,
/// }
///
/// let app = App { pool: Arc::new(Pool), rate: 0.2, name: "billing".into() };
/// assert_eq!(f64::from_ref(&app), 0.2);
/// assert!(Arc::ptr_eq(&Arc::<Pool>::from_ref(&app), &app.pool));
/// assert_eq!(app.name, "billing");
/// # }
/// ```
///
/// | Attribute | Meaning |
/// |---|---|
/// | `#[from_ref(skip)]` on a field | no impl for it: two fields of one type cannot both have one |
/// | `#[from_ref(crate = "path")]` on the struct | the path of tidings; `::tidings` by default |
///
/// The struct has no generic parameters.
#[proc_macro_derive(FromRef, attributes(from_ref))]
pub fn from_ref(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    from_ref::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
