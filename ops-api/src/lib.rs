//! Admin of [tidings](https://docs.rs/tidings) over HTTP: the routes, the JSON that they exchange, and a client.
//!
//! The server is `Ops::with_admin` of `tidings-ops`. The client, with the feature `client`, is a
//! [`Transport`](tidings_core::Transport) that any tool can use in place of a broker's own: see `client::OpsTransport`.
//!
//! # Routes
#![doc = include_str!("docs/routes.md")]
//!
//! # Requests
//!
//! A `POST` has a JSON body of at most [`MAX_BODY_BYTES`], with `content-type: application/json`: a web page can then
//! not send one. A `GET` has no body; names in its path are percent-encoded. Both need `Authorization: Bearer TOKEN`,
//! unless the endpoint has no tokens and listens on loopback.
//!
//! Keys, values and headers of records are text, or `{"base64": ".."}` where the bytes are no printable text.
//! Times are milliseconds since 1970, durations are milliseconds; their fields end in `_ms`.
//!
//! # Errors
//!
//! An error is `{"error": {"kind": "..", "message": ".."}}`, with the name of an
//! [`ErrorKind`](tidings_core::ErrorKind). The status code follows from it: see [`status_of`]. Where a request names
//! several things, the answer has an `answers` array with `{"ok": ..}` or `{"error": ..}` for each.

#[cfg(feature = "client")]
pub mod client;
mod error;
mod route;
pub mod wire;

pub use self::error::{ErrorBody, Failed, status_of};
pub use self::route::{Method, Role, Route, routes_table};

/// The longest body of a request, in bytes.
pub const MAX_BODY_BYTES: usize = 8 << 20;
/// The longest answer, in bytes.
pub const MAX_ANSWER_BYTES: usize = 32 << 20;
/// The largest number of topics, groups, letters or events that one request names.
pub const MAX_NAMES: usize = 1_000;
/// The largest size of the records that one answer has, in bytes before their encoding.
pub const MAX_RECORD_BYTES: usize = 4 << 20;
/// The longest time that one request waits for a record.
pub const MAX_WAIT: std::time::Duration = std::time::Duration::from_secs(30);
