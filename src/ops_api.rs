//! Admin over HTTP: the routes of an operations endpoint, and its client, which is a transport.

pub use tidings_ops_api::client::{OpsConfig, OpsTransport, RemoteServices};
pub use tidings_ops_api::{Role, Route, routes_table, wire};
