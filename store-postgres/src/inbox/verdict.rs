//! Classification of failures of a rolled-back transaction for the engine.
//!
//! The engine repeats a failed batch record by record to find the bad one. After a rollback it must
//! be told so: records that had succeeded are not done either.

use tidings_core::{BoxError, ErrorKind, Failure, find_error, rolled_back, unavailable};

use crate::error::is_databases_fault;

/// Converts the error of a handler of `records` records, all of whose work was rolled back.
///
/// An error of the database makes the delivery wait, whatever the handler called it. Otherwise the
/// handler's own classification stays.
pub(super) fn of_handler(error: BoxError, records: usize) -> BoxError {
    let unreadable = find_error(error.as_ref()).is_some_and(|error| error.kind() == ErrorKind::Undecodable);
    match Failure::of(error.as_ref()) {
        Failure::Retry if is_databases_fault(error.as_ref()) => unavailable(error).into(),
        // The error names its records itself.
        Failure::Retry if unreadable => error,
        Failure::Retry | Failure::Reject if records > 1 => rolled_back([], error).into(),
        // The other records were rolled back too.
        Failure::Failed(places) if records > 1 => rolled_back(places, error).into(),
        Failure::StoppedAt(place) if records > 1 => rolled_back([place], error).into(),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use tidings_core::{failed, reject, stopped_at};

    use super::*;

    fn taken(error: impl Into<BoxError>, records: usize) -> Failure {
        Failure::of(of_handler(error.into(), records).as_ref())
    }

    #[test]
    fn a_batch_is_taken_apart_and_a_single_record_is_as_its_handler_says() {
        assert_eq!(taken("oops", 2), Failure::RolledBack(vec![]));
        assert_eq!(taken("oops", 1), Failure::Retry);
        assert_eq!(taken(reject("oops"), 2), Failure::RolledBack(vec![]));
        assert_eq!(taken(reject("oops"), 1), Failure::Reject);
        assert_eq!(taken(failed([1, 2], "oops"), 3), Failure::RolledBack(vec![1, 2]));
        assert_eq!(taken(stopped_at(1, "oops"), 3), Failure::RolledBack(vec![1]));
    }

    #[test]
    fn the_databases_fault_is_nobody_elses() {
        assert_eq!(taken(sqlx::Error::PoolTimedOut, 2), Failure::Unavailable);
        assert_eq!(taken(reject(sqlx::Error::PoolTimedOut), 1), Failure::Reject, "unless the handler says so");
    }
}
