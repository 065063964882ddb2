//! The Postgres store of tidings: done events, claims, dead letters, audit records and an outbox in a database that all instances of
//! a service share.
//!
//! ```no_run
//! # async fn example() -> tidings_core::Result<()> {
//! use tidings_postgres::PostgresStore;
//!
//! let store = PostgresStore::connect("postgres://orders:secret@localhost/orders").await?;
//! # Ok(()) }
//! ```
//!
//! # Inbox
//! [`PostgresStore::inbox`] is a layer that gives a handler a [`Tx`]. It commits the handler's writes and the event's
//! completion atomically.
//!
//! # Size
//! A done event takes about 145 bytes including its indexes, for a service name and an event type of a dozen letters
//! each, or 160 bytes with random ids (UUID v4) instead of time-ordered ids (v7): a million a day, kept for 30 days,
//! are 4.5 GB. A claim takes the same space while its event is in flight. An outbox record takes 80 bytes plus its
//! own size, a letter 370 bytes plus its error. The tables' storage settings make autovacuum run in time; a shared
//! table of done events keeps the settings of its owner: see the design entry 0005.
//!
//! # Bounds
//! The store deletes done events, their remaining claims and closed letters after [`PostgresConfig::retention`], in
//! steps; [`purge`](tidings_core::IdempotencyStore::purge) does so at once. Connections, lock waits and waits for a
//! silent server are bounded: see [`PostgresConfig`].
#![forbid(unsafe_code)]

mod audit;
mod config;
mod dead_letters;
mod directory;
mod error;
mod idempotency;
mod inbox;
mod migrate;
mod outbox;
mod pgpass;
mod retention;
mod shared;
mod sql_names;
mod store;
mod url;
mod wire;

pub use self::config::{DoneTable, PostgresConfig, Retention};
pub use self::dead_letters::{Act, ActFilter, ActKind};
pub use self::inbox::{Inbox, InboxLayer, Tx};
pub use self::outbox::{FailedRecord, Outbox, OutboxLag, Refused, Relay, RelayConfig, RelayState, RelayStatus};
pub use self::store::PostgresStore;
