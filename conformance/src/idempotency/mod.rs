//! Suite of an idempotency store (I).
//!
//! Each file has the cases of some clauses; the order of [`ALL`] is that of the report.

mod claims;
mod done;
mod edges;
mod fixture;
mod leases;
mod lists;
mod names;
mod outage;
mod purges;
mod retention;

use std::process::ExitCode;
use std::sync::Arc;

use tidings_core::IdempotencyStore;

use crate::case::Case;
use crate::runner::{Suite, Suites, Verdict};
use crate::setup::Setup;

const ALL: &[&[Case<dyn IdempotencyStore>]] = &[
    claims::CASES,
    lists::CASES,
    names::CASES,
    done::CASES,
    purges::CASES,
    leases::CASES,
    edges::CASES,
    outage::CASES,
    retention::CASES,
];

fn cases() -> Vec<&'static Case<dyn IdempotencyStore>> {
    ALL.iter().copied().flatten().collect()
}

fn suite<T: IdempotencyStore>(setup: Setup<T>) -> Suite<T, dyn IdempotencyStore> {
    Suite { setup: Arc::new(setup), erase: |store| store, guarantees: |store| store.guarantees(), cases: cases() }
}

/// Runs the suite as a test program: the `main` of a `tests/conformance.rs`.
pub fn run<T: IdempotencyStore>(setup: Setup<T>) -> ExitCode {
    Suites::new().with_idempotency(setup).run()
}

/// Runs a single case by name, to show that a broken store is caught.
///
/// ```
/// use tidings_conformance::{Setup, Verdict, idempotency};
/// use tidings_memory::MemoryStore;
///
/// let setup = Setup::new("memory", || async { Ok(MemoryStore::new()) }).with_paused_clock();
/// assert_eq!(idempotency::check(setup, "i2_done_stays_done"), Verdict::Passed);
/// ```
pub fn check<T: IdempotencyStore>(setup: Setup<T>, case: &str) -> Verdict {
    suite(setup).check(case)
}

/// Returns the names of all cases.
pub fn names() -> Vec<&'static str> {
    cases().into_iter().map(|case| case.name).collect()
}

impl Suites {
    /// Adds the suite of an idempotency store.
    #[must_use]
    pub fn with_idempotency<T: IdempotencyStore>(self, setup: Setup<T>) -> Self {
        self.add(suite(setup).trials())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tidings_core::Clause;

    use super::*;

    #[test]
    fn every_clause_of_a_store_has_a_case() {
        let covered: BTreeSet<Clause> = cases().into_iter().filter_map(Case::clause).collect();
        let wanted = |clause: &&Clause| clause.id().starts_with('i') || **clause == Clause::Restart;
        let missing: Vec<_> = Clause::ALL.iter().filter(wanted).filter(|c| !covered.contains(c)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn every_case_begins_with_its_clause_and_is_there_once() {
        let all = cases();
        assert!(all.iter().all(|case| case.clause().is_some()));
        assert_eq!(names().into_iter().collect::<BTreeSet<_>>().len(), all.len());
    }
}
