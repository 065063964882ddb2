//! Suite of a transport: its publishers (P), consumers (C), admin (A), log readers (L), transactors (X) and dead-letter
//! sink (D).
//!
//! One file per clause, named after it. A case begins with the clause's id and is listed in its
//! file's `CASES`; a backend never lists cases, so a new one runs everywhere.

mod a1;
mod a1_cluster;
mod a1_groups;
mod a1_lists;
mod a1_many;
mod a1_parts;
mod a1_retention;
mod a1_settings;
mod a1_states;
mod c1;
mod c1_cut;
mod c1_later;
mod c1_names;
mod c2;
mod c3;
mod c4;
mod c4_lost;
mod c4_owner;
mod c4_seek;
mod c5;
mod c5_pause;
mod c6;
mod c7;
mod c8;
mod c9;
mod d;
mod fixture;
mod l;
mod member;
mod members;
mod p1;
mod p2;
mod p3;
mod p4;
mod p4_bound;
mod p5;
mod restart;
mod x;
mod x1;
mod x2;
mod x3;
mod x4;
mod x5;

use std::process::ExitCode;
use std::sync::Arc;

use tidings_core::Transport;

use crate::case::Case;
use crate::runner::{Suite, Suites, Verdict};
use crate::setup::Setup;

type Cases = &'static [Case<dyn Transport>];

/// All cases, in the order of the clauses.
const ALL: &[Cases] = &[
    p1::CASES,
    p2::CASES,
    p3::CASES,
    p4::CASES,
    p4_bound::CASES,
    p5::CASES,
    c1::CASES,
    c1_cut::CASES,
    c1_later::CASES,
    c1_names::CASES,
    c2::CASES,
    c3::CASES,
    c4::CASES,
    c4_lost::CASES,
    c4_owner::CASES,
    c4_seek::CASES,
    c5::CASES,
    c5_pause::CASES,
    c6::CASES,
    c7::CASES,
    c8::CASES,
    c9::CASES,
    a1::CASES,
    a1_cluster::CASES,
    a1_groups::CASES,
    a1_lists::CASES,
    a1_many::CASES,
    a1_parts::CASES,
    a1_retention::CASES,
    a1_settings::CASES,
    a1_states::CASES,
    l::CASES,
    x1::CASES,
    x2::CASES,
    x3::CASES,
    x4::CASES,
    x5::CASES,
    d::CASES,
    restart::CASES,
];

fn cases() -> Vec<&'static Case<dyn Transport>> {
    ALL.iter().copied().flatten().collect()
}

fn suite<T: Transport>(setup: Setup<T>) -> Suite<T, dyn Transport> {
    Suite {
        setup: Arc::new(setup),
        erase: |transport| transport,
        guarantees: |transport| transport.guarantees(),
        cases: cases(),
    }
}

/// Runs the suite as a test program: the `main` of a `tests/conformance.rs`.
///
/// Replace the memory transport with your own:
///
/// ```no_run
/// use tidings_conformance::{Setup, transport};
/// use tidings_memory::MemoryTransport;
///
/// fn main() -> std::process::ExitCode {
///     transport::run(Setup::new("memory", || async { Ok(MemoryTransport::new()) }).with_paused_clock())
/// }
/// ```
pub fn run<T: Transport>(setup: Setup<T>) -> ExitCode {
    Suites::new().with_transport(setup).run()
}

/// Runs a single case by name, to show that a broken transport is caught.
///
/// ```
/// use tidings_conformance::{Setup, Verdict, transport};
/// use tidings_memory::MemoryTransport;
///
/// let setup = Setup::new("memory", || async { Ok(MemoryTransport::new()) }).with_paused_clock();
/// assert_eq!(transport::check(setup, "p1_each_record_has_its_own_answer"), Verdict::Passed);
/// ```
pub fn check<T: Transport>(setup: Setup<T>, case: &str) -> Verdict {
    suite(setup).check(case)
}

/// Returns the names of all cases.
///
/// ```
/// assert!(tidings_conformance::transport::names().iter().any(|name| name.starts_with("c3_")));
/// ```
pub fn names() -> Vec<&'static str> {
    cases().into_iter().map(|case| case.name).collect()
}

impl Suites {
    /// Adds the suite of a transport.
    #[must_use]
    pub fn with_transport<T: Transport>(self, setup: Setup<T>) -> Self {
        self.add(suite(setup).trials())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tidings_core::Clause;

    use super::*;

    #[test]
    fn every_clause_of_a_transport_has_a_case() {
        // Claims are a store's, and T1 to T4 those of an audit trail. A plain sink cannot list letters: D3 to D6 are checked by the suite of stores of letters.
        let elsewhere = |clause: Clause| {
            let of_letters = matches!(clause, Clause::D3 | Clause::D4 | Clause::D5 | Clause::D6);
            clause.id().starts_with(['i', 't']) || of_letters
        };
        let covered: BTreeSet<Clause> = cases().into_iter().filter_map(Case::clause).collect();
        let missing: Vec<_> = Clause::ALL.iter().filter(|c| !covered.contains(c) && !elsewhere(**c)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn every_case_begins_with_its_clause_and_is_there_once() {
        let all = cases();
        assert!(all.iter().all(|case| case.clause().is_some()));
        assert_eq!(names().into_iter().collect::<BTreeSet<_>>().len(), all.len());
    }
}
