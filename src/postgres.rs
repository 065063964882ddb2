//! The store on Postgres.

pub use tidings_postgres::{
    Act, ActFilter, ActKind, DoneTable, FailedRecord, Inbox, InboxLayer, Outbox, OutboxLag, PostgresConfig,
    PostgresStore, Refused, Relay, RelayConfig, RelayState, RelayStatus, Tx,
};
