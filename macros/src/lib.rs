//! `derive(Event)`. Use it through the crate `tidings`, which re-exports it.

mod attributes;
mod event;

use proc_macro::TokenStream;

/// Derives `Event` for a struct or an enum: its topic, its type on the wire, its version and its key.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use tidings_macros::Event;
/// #[derive(Serialize, Deserialize, Event)]
/// # #[event(crate = "tidings_core")]
/// #[event(topic = "user-events", type = "user.registered", key = "user_id")]
/// struct UserRegistered {
///     user_id: String,
///     email: String,
/// }
/// ```
///
/// | Attribute | Meaning | Default |
/// |---|---|---|
/// | `topic = "user-events"` | the topic that the event is published to | required |
/// | `type = "user.registered"` | the event's stable name on the wire | required |
/// | `version = 2`, `version = "2.1"` | the version of the payload | `1` |
/// | `key = "user_id"`, `key = 0`, `key = self.tenant()` | the partition key: a field, or an expression over `self` | no key, no order |
/// | `codec = "json"`, `"postcard"` or the path of a `Codec` | the codec that writes the event | `"json"` |
/// | `crate = "path"` | the path of tidings | `::tidings` |
#[proc_macro_derive(Event, attributes(event))]
pub fn event(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    event::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
