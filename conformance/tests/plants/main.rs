//! Broken backends, each caught by a named case: a plant that nothing catches means that a case is missing.
//!
//! Each is the reference backend with one bug planted; the same case passes without the bug.

/// Defines a test for each bug of a module, by the module's `setup`: the named case of the suite catches it.
macro_rules! plants {
    ($suite:ident: $($test:ident: $bug:ident => $case:ident,)*) => { $(
        #[test]
        fn $test() {
            let case = stringify!($case);
            let (without, with) = ($suite::check(setup(Bug::None), case), $suite::check(setup(Bug::$bug), case));
            $crate::caught(stringify!($bug), case, without, with);
        }
    )* };
}

mod audit;
mod claims;
mod consumer;
mod dead_letters;
mod forgetful;
mod forgetful_letters;
mod kinds;
mod letters;
mod logs;
mod publisher;
mod sink;
mod store;
mod transactions;
mod transport;

#[path = "../shared/gappy.rs"]
mod gappy;

use tidings_conformance::Verdict;

/// The case fails with the bug, by finding it, and passes without.
fn caught(bug: &str, case: &str, without: Verdict, with: Verdict) {
    assert_eq!(without, Verdict::Passed, "{case} must pass where there is no bug");
    match with {
        Verdict::Failed(why) => {
            assert!(why.contains("expected:") && why.contains("history:"), "{why}");
            assert!(!why.contains("of real time") && !why.contains("no panic"), "caught by accident: {why}");
        }
        other => panic!("{bug} is not caught by {case}: {other}"),
    }
}
