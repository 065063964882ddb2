//! Maps the client's errors to ours.
//!
//! The kind follows the SQLSTATE, by what a caller can do: wait (`Unavailable`), find out
//! (`Indeterminate`), ask for rights (`Denied`) or change the call (`Invalid`, `TooLarge`,
//! `NotFound`). A second question is asked for handlers' errors: whose fault is it
//! ([`is_databases_fault`])? A record must neither be dead-lettered for an outage nor wait for ever
//! for its own invalid data.

use std::error::Error as StdError;
use std::io;

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;
use tidings_core::{Error, ErrorKind, error_chain, report};

/// Converts `error`, which occurred during `context`: the message names the table, column or setting if the server
/// does.
pub(crate) fn failed(context: &str, error: sqlx::Error) -> Error {
    Error::caused_by(kind_of(&error), context.to_owned() + &named(&error), error)
}

/// Like [`failed`], for a write: if the answer was lost, the write may have been done.
///
/// All writes of the store may be repeated; the caller has to know that one may be a repeat.
pub(crate) fn failed_write(context: &str, error: sqlx::Error) -> Error {
    let kind = if is_lost(&error) { ErrorKind::Indeterminate } else { kind_of(&error) };
    Error::caused_by(kind, context.to_owned() + &named(&error), error)
}

/// Converts `error`, which occurred while connecting to the server at `place`. Its text names the cause.
///
/// The client's prefixes are cut: the message is read by the person who configures the service.
pub(crate) fn not_connected(place: &str, is_socket: bool, error: &sqlx::Error) -> Error {
    let kind = match error {
        // The server makes its socket when it starts.
        sqlx::Error::Io(error) if is_socket && error.kind() == io::ErrorKind::NotFound => ErrorKind::Unavailable,
        _ => kind_of(error),
    };
    let text = report(error);
    let text = text.trim_start_matches("error returned from database: ");
    let text = text.trim_start_matches("error communicating with database: ");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    Error::new(kind, format!("connect to Postgres at {place}: {text}"))
}

/// Returns the kind of `error`.
///
/// An error that is not known is transient: retries are bounded by the caller.
pub(crate) fn kind_of(error: &sqlx::Error) -> ErrorKind {
    match error {
        sqlx::Error::Database(error) => error.code().map_or(ErrorKind::Unavailable, |code| kind_of_state(&code)),
        sqlx::Error::Tls(_) => ErrorKind::Denied,
        // A refused certificate ends the handshake like an I/O error.
        sqlx::Error::Io(error) if is_certificate(error) => ErrorKind::Denied,
        sqlx::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => ErrorKind::Invalid,
        sqlx::Error::PoolClosed => ErrorKind::Closed,
        sqlx::Error::Configuration(_)
        | sqlx::Error::InvalidArgument(_)
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Encode(_)
        | sqlx::Error::Decode(_) => ErrorKind::Invalid,
        sqlx::Error::RowNotFound => ErrorKind::NotFound,
        _ => ErrorKind::Unavailable,
    }
}

/// Returns the kind by SQLSTATE, whose first two characters are the class.
///
/// Single codes come before their classes.
fn kind_of_state(state: &str) -> ErrorKind {
    match state {
        // insufficient_privilege
        "42501" => ErrorKind::Denied,
        // undefined_table, _function, _object; invalid_catalog_name, invalid_schema_name
        "42P01" | "42883" | "42704" | "3D000" | "3F000" => ErrorKind::NotFound,
        // duplicate_table, _schema, _function, _object; unique_violation
        "42P07" | "42P06" | "42723" | "42710" | "23505" => ErrorKind::AlreadyExists,
        // query_canceled is our statement_timeout; read_only_sql_transaction is a standby after a failover;
        // idle_in_transaction_session_timeout; lock_not_available
        "57014" | "25006" | "25P03" | "55P03" => ErrorKind::Unavailable,
        // string_data_right_truncation
        "22001" => ErrorKind::TooLarge,
        // data_corrupted, index_corrupted
        "XX001" | "XX002" => ErrorKind::Corrupt,
        _ => match state.get(..2).unwrap_or_default() {
            // Invalid authorization: password, role, pg_hba.conf.
            "28" => ErrorKind::Denied,
            "0A" => ErrorKind::Unsupported,
            // Program limits: a row or an index entry that is too large.
            "54" => ErrorKind::TooLarge,
            // Data exceptions, constraints, transaction states and invalid statements.
            "21" | "22" | "23" | "25" | "26" | "34" | "42" | "44" | "P0" => ErrorKind::Invalid,
            // Connections (08), rollbacks (40), resources (53), an operator (57), the system (58), internal errors
            // (XX).
            _ => ErrorKind::Unavailable,
        },
    }
}

/// Whether the answer was lost, so that the server may have executed the request.
pub(crate) fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        // The server ended the session, possibly after the work was done: admin_shutdown, crash_shutdown.
        sqlx::Error::Database(error) => matches!(error.code().as_deref(), Some("57P01" | "57P02")),
        _ => false,
    }
}

/// Whether a lock wait timed out.
///
/// Another transaction works on the same rows: the caller waits rather than report an outage.
pub(crate) fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(DatabaseError::code).as_deref() == Some("55P03")
}

/// Whether the database, its setup or its load is at fault rather than the data: the chain of `error` contains a
/// client error that says so.
pub(crate) fn is_databases_fault(error: &(dyn StdError + 'static)) -> bool {
    for current in error_chain(error) {
        if let Some(error) = current.downcast_ref::<sqlx::Error>() {
            return match error {
                sqlx::Error::Database(error) => error.code().is_some_and(|code| is_state_of_the_database(&code)),
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed
                | sqlx::Error::BeginFailed
                | sqlx::Error::TypeNotFound { .. }
                | sqlx::Error::ColumnIndexOutOfBounds { .. }
                | sqlx::Error::ColumnNotFound(_)
                | sqlx::Error::ColumnDecode { .. } => true,
                _ => false,
            };
        }
    }
    false
}

/// Decides by SQLSTATE, as the documentation of
/// [`PostgresStore::inbox`](crate::PostgresStore::inbox) promises.
fn is_state_of_the_database(state: &str) -> bool {
    // Invalid data (22), a violated constraint (23, 44), an error raised by a function (P0), an unusable transaction
    // (25P02) or too large data (54) is the fault of the handler or its record. Everything else is not, including a
    // missing table or right (42), which is a fault of the deployment.
    state == "25006"
        || state == "25P03"
        || !matches!(state.get(..2), Some("21" | "22" | "23" | "25" | "44" | "54" | "P0"))
}

/// Returns the objects that the server names in the error: `" (table \"done\", column \"event_id\")"`.
fn named(error: &sqlx::Error) -> String {
    let Some(error) =
        error.as_database_error().and_then(|e: &dyn DatabaseError| e.try_downcast_ref::<PgDatabaseError>())
    else {
        return String::new();
    };
    let parts = [("table", error.table()), ("column", error.column()), ("constraint", error.constraint())];
    let parts: Vec<_> = parts.into_iter().filter_map(|(what, name)| Some(format!("{what} {:?}", name?))).collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

/// rustls reports a refused certificate as invalid data of the connection.
fn is_certificate(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_errors_without_an_end_is_not_the_databases_fault() {
        #[derive(Debug)]
        struct Endless;
        impl std::fmt::Display for Endless {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("again")
            }
        }
        impl StdError for Endless {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                Some(self)
            }
        }
        assert!(!is_databases_fault(&Endless));
    }

    #[test]
    fn a_state_is_what_a_caller_can_do_about_it() {
        for (state, kind) in [
            ("28P01", ErrorKind::Denied),
            ("42501", ErrorKind::Denied),
            ("42P01", ErrorKind::NotFound),
            ("42703", ErrorKind::Invalid),
            ("40001", ErrorKind::Unavailable),
            ("40P01", ErrorKind::Unavailable),
            ("53100", ErrorKind::Unavailable),
            ("53300", ErrorKind::Unavailable),
            ("55P03", ErrorKind::Unavailable),
            ("57014", ErrorKind::Unavailable),
            ("57P03", ErrorKind::Unavailable),
            ("22001", ErrorKind::TooLarge),
            ("23505", ErrorKind::AlreadyExists),
            ("23502", ErrorKind::Invalid),
            ("XX001", ErrorKind::Corrupt),
        ] {
            assert_eq!(kind_of_state(state), kind, "{state}");
        }
    }

    #[test]
    fn a_record_is_blamed_for_its_data_only() {
        for state in ["22003", "23505", "23503", "P0001", "25P02", "54000"] {
            assert!(!is_state_of_the_database(state), "{state}");
        }
        for state in ["40001", "53100", "57014", "42P01", "42703", "25006", "25P03", "08006", "58030", "28P01"] {
            assert!(is_state_of_the_database(state), "{state}");
        }
    }

    #[test]
    fn the_databases_fault_is_found_through_the_chain() {
        let down = Error::caused_by(ErrorKind::Failed, "save", sqlx::Error::PoolTimedOut);
        assert!(is_databases_fault(&down));
        assert!(!is_databases_fault(&Error::caused_by(ErrorKind::Failed, "save", sqlx::Error::RowNotFound)));
    }
}
