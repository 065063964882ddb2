//! The Postgres store of tidings: which events were handled and who is handling which, in a database that all instances of
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
//! [`PostgresStore::inbox`] is a layer behind which a handler takes a [`Tx`]: what it writes through that commits together
//! with the fact that its event is done.
//!
//! # Size
//! With its indexes, for a service and an event type of a dozen letters each, a done event takes about 145 bytes, or 160
//! where ids are random (UUID v4) and not in order of time (v7): a million a day, kept for 30 days, are 4.5 GB. A claim takes
//! as much, for as long as its event is being handled. A record of the outbox takes 80 bytes beside its own, a letter 370 and
//! its error. Settings of the tables make autovacuum run in time; a shared table of done events has the settings that its
//! owner gives it: see the design entry 0005.
//!
//! # Bounds
//! The store deletes done events, what is left of their claims, and closed letters after [`PostgresConfig::retention`], in
//! steps; [`purge`](tidings_core::IdempotencyStore::purge) does so at once. Connections, waits for locks and silent servers are bounded: see [`PostgresConfig`].
#![forbid(unsafe_code)]

mod config;
mod error;
mod idempotency;
mod inbox;
mod letters;
mod migrate;
mod names;
mod outbox;
mod pgpass;
mod retention;
mod shared;
mod store;
mod url;
mod wire;

pub use self::config::{
    DEFAULT_ACQUIRE_TIMEOUT, DEFAULT_ANSWER_WITHIN, DEFAULT_CONNECT_WAIT, DEFAULT_IDLE_IN_TRANSACTION_TIMEOUT,
    DEFAULT_LOCK_TIMEOUT, DEFAULT_MAX_CONNECTIONS, DEFAULT_MIGRATION_TIMEOUT, DEFAULT_PURGE_BATCH, DEFAULT_RETENTION,
    DEFAULT_SCHEMA, DEFAULT_STATEMENT_TIMEOUT, DEFAULT_STORE_CONNECTIONS, DoneTable, PostgresConfig, Retention,
};
pub use self::inbox::{Inbox, InboxLayer, Tx};
pub use self::letters::{
    Act, ActFilter, ActKind, Closed, DEFAULT_REDRIVE_BATCH, Letter, LetterFilter, LetterState, Letters,
    MAX_REPORTED_REFUSALS, REDRIVE_IDLE_LIMIT, RedriveOptions, RedriveReport,
};
pub use self::outbox::{
    DEFAULT_BATCH_BYTES, DEFAULT_BATCH_RECORDS, DEFAULT_FAILED_PAGE, DEFAULT_LAG_INTERVAL, DEFAULT_POLL_INTERVAL,
    DEFAULT_RECORDS_PER_KEY, DEFAULT_RELAY_RETRY_BASE, DEFAULT_RELAY_RETRY_CAP, FailedRecord, MAX_COUNTED_LAG,
    MAX_RELAY_INTERVAL, Outbox, OutboxLag, RELAY_LEASE, Refused, Relay, RelayConfig, RelayState, RelayStatus,
};
pub use self::store::PostgresStore;
