//! Suite of an audit sink (T): records that are only ever added, and read back byte for byte.

mod cases;
mod fixture;

use std::process::ExitCode;
use std::sync::Arc;

use tidings_core::audit::AuditSink;

use crate::case::Case;
use crate::runner::{Suite, Suites, Verdict};
use crate::setup::Setup;

fn all() -> impl Iterator<Item = &'static Case<dyn AuditSink>> {
    cases::CASES.iter()
}

fn suite<T: AuditSink>(setup: Setup<T>) -> Suite<T, dyn AuditSink> {
    Suite { setup: Arc::new(setup), erase: |sink| sink, guarantees: |sink| sink.guarantees(), cases: all().collect() }
}

/// Runs the suite as a test program: the `main` of a `tests/conformance.rs`.
pub fn run<T: AuditSink>(setup: Setup<T>) -> ExitCode {
    Suites::new().with_audit(setup).run()
}

/// Runs a single case by name, to show that a broken sink is caught.
pub fn check<T: AuditSink>(setup: Setup<T>, case: &str) -> Verdict {
    suite(setup).check(case)
}

/// Returns the names of all cases.
pub fn names() -> Vec<&'static str> {
    all().map(|case| case.name).collect()
}

impl Suites {
    /// Adds the suite of an audit sink.
    #[must_use]
    pub fn with_audit<T: AuditSink>(self, setup: Setup<T>) -> Self {
        self.add(suite(setup).trials())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tidings_core::Clause;

    use super::*;

    #[test]
    fn every_clause_of_an_audit_sink_has_a_case() {
        let covered: BTreeSet<Clause> = all().filter_map(Case::clause).collect();
        let wanted = |clause: &&Clause| clause.id().starts_with('t') || **clause == Clause::Restart;
        let missing: Vec<_> = Clause::ALL.iter().filter(wanted).filter(|c| !covered.contains(c)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn every_case_begins_with_its_clause_and_is_there_once() {
        assert!(all().all(|case| case.clause().is_some()));
        assert_eq!(names().into_iter().collect::<BTreeSet<_>>().len(), all().count());
    }
}
