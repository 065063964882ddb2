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
/// | Attribute | Meaning | If it is missing |
/// |---|---|---|
/// | `topic = "user-events"` | the topic it is published to | an error |
/// | `type = "user.registered"` | its stable name on the wire | an error |
/// | `version = 2`, `version = "2.1"` | the version of its payload | `1` |
/// | `key = "user_id"`, `key = 0`, `key = self.tenant()` | the partition key: a field, or an expression over `self` | no key: ordered with nothing |
/// | `codec = "json"`, `"postcard"` or the path of a `Codec` | how it is written | `"json"` |
/// | `crate = "path"` | where to find tidings | `::tidings` |
#[proc_macro_derive(Event, attributes(event))]
pub fn event(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    event::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
