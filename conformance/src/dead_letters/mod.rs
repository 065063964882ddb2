//! Suite of a dead-letter store (D): a sink whose letters can be listed and closed.
//!
//! The sink that goes with a transport is checked by the [transport's suite](crate::transport).

mod cases;
mod edges;
mod fixture;
mod forms;
mod full;
mod leases;
mod lists;
mod names;
mod retention;
mod states;

use std::process::ExitCode;
use std::sync::Arc;

use tidings_core::DeadLetterStore;

use crate::case::Case;
use crate::runner::{Suite, Suites, Verdict};
use crate::setup::Setup;

/// The topics of the letters that the cases bury. A store that keeps letters in topics needs their dead-letter topics.
pub const TOPICS: [&str; 6] = ["conformance", "one", "two", "another", "one-eu", "ONE"];

const ALL: &[&[Case<dyn DeadLetterStore>]] = &[
    cases::CASES,
    forms::CASES,
    names::CASES,
    lists::CASES,
    leases::CASES,
    edges::CASES,
    states::CASES,
    full::CASES,
    retention::CASES,
];

fn all() -> impl Iterator<Item = &'static Case<dyn DeadLetterStore>> {
    ALL.iter().copied().flatten()
}

fn suite<T: DeadLetterStore>(setup: Setup<T>) -> Suite<T, dyn DeadLetterStore> {
    Suite {
        setup: Arc::new(setup),
        erase: |store| store,
        guarantees: |store| store.guarantees(),
        cases: all().collect(),
    }
}

/// Runs the suite as a test program: the `main` of a `tests/conformance.rs`.
pub fn run<T: DeadLetterStore>(setup: Setup<T>) -> ExitCode {
    Suites::new().with_dead_letters(setup).run()
}

/// Runs a single case by name, to show that a broken store is caught.
///
/// ```
/// use tidings_conformance::{Setup, Verdict, dead_letters};
/// use tidings_memory::MemoryDeadLetters;
///
/// let setup = Setup::new("memory", || async { Ok(MemoryDeadLetters::new()) }).with_paused_clock();
/// assert_eq!(dead_letters::check(setup, "d1_what_is_buried_is_listed"), Verdict::Passed);
/// ```
pub fn check<T: DeadLetterStore>(setup: Setup<T>, case: &str) -> Verdict {
    suite(setup).check(case)
}

/// Returns the names of all cases.
pub fn names() -> Vec<&'static str> {
    all().map(|case| case.name).collect()
}

impl Suites {
    /// Adds the suite of a dead-letter store.
    #[must_use]
    pub fn with_dead_letters<T: DeadLetterStore>(self, setup: Setup<T>) -> Self {
        self.add(suite(setup).trials())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tidings_core::Clause;

    use super::*;

    #[test]
    fn every_clause_of_a_dead_letter_store_has_a_case() {
        let covered: BTreeSet<Clause> = all().filter_map(Case::clause).collect();
        let wanted = |clause: &&Clause| clause.id().starts_with('d') || **clause == Clause::Restart;
        let missing: Vec<_> = Clause::ALL.iter().filter(wanted).filter(|c| !covered.contains(c)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn every_case_begins_with_its_clause_and_is_there_once() {
        assert!(all().all(|case| case.clause().is_some()));
        assert_eq!(names().into_iter().collect::<BTreeSet<_>>().len(), all().count());
    }
}
