//! The next step of each record of a failed delivery. Knows no queues.

use std::collections::HashSet;
use std::time::Duration;

use tidings_core::Failure;

use super::delivery_error::{DeliveryError, FailureCause};
use crate::engine::keys::KeyHash;
use crate::engine::tiers::Level;
use crate::retry::Retry;

/// A record that was delivered, as far as the next step depends on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivered {
    pub(super) key: Option<KeyHash>,
    /// The number of failed attempts before this one.
    pub(super) failures: u32,
    /// Whether it needs a claim.
    pub(super) needs_claim: bool,
    /// Whether it waited in a retry topic: there it has one attempt.
    pub(super) waited: bool,
    /// The retry topic that it can wait in next, and for how long.
    pub(super) next_tier: Option<(Level, Duration)>,
}

/// The next step of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It was handled.
    Handled,
    /// It is delivered again after this wait.
    Retry(Duration),
    /// It is forwarded to its retry topic of this level, where it waits.
    Forward(Level, Duration),
    /// It is dead-lettered.
    Bury,
    /// A dependency is down: it is delivered again when that may be up.
    Outage,
    /// It is delivered again at once, in the batch of this number.
    Again(usize),
    /// It is delivered again at once, without the others.
    Alone,
    /// It waits behind a record of its key that goes before it.
    Behind,
    /// Its claim belongs, or may belong, to another lease: it is claimed again.
    LeaseLost,
}

impl Next {
    /// Returns the name in the log, and the time until the next attempt if it is known.
    pub(super) fn text(self) -> (&'static str, Option<Duration>) {
        match self {
            Self::Handled => ("handled", None),
            Self::Retry(wait) => ("retry", Some(wait)),
            Self::Forward(_, wait) => ("retry-topic", Some(wait)),
            Self::Bury => ("dead-letter", None),
            Self::Outage => ("wait", None),
            Self::Again(_) | Self::Alone | Self::Behind => ("retry", Some(Duration::ZERO)),
            Self::LeaseLost => ("claim", None),
        }
    }
}

/// The effect of a delivery's failure on a record's attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// None: it is not to blame.
    Unchanged,
    /// It may be to blame: the error is kept, and no attempt is counted.
    Noted,
    Failed,
}

/// The next step of a record, and what it has from the delivery that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) next: Next,
    pub(super) attempt: Attempt,
    /// From now on it is delivered without others.
    pub(super) single: bool,
}

impl Step {
    fn new(next: Next) -> Self {
        Self { next, attempt: Attempt::Unchanged, single: false }
    }

    fn with_attempt(self, attempt: Attempt) -> Self {
        Self { attempt, ..self }
    }

    fn single_if(self, single: bool) -> Self {
        Self { single, ..self }
    }
}

/// Maps the failure of a delivery to the next step of each of its records, in their order; `random` is a number
/// between 0 and 1 for each retry. Within a key, no record goes before one that failed before it.
pub(super) fn classify(
    records: &[Delivered],
    error: &DeliveryError,
    retry: &Retry,
    random: &mut dyn FnMut() -> f64,
) -> Vec<Step> {
    let failed = |record: &Delivered, random: &mut dyn FnMut() -> f64| {
        let failures = record.failures.saturating_add(1);
        let next = match record.next_tier {
            _ if failures <= retry.max_retries && !record.waited => Next::Retry(retry.wait(failures, random())),
            Some((level, wait)) => Next::Forward(level, wait),
            None => Next::Bury,
        };
        Step::new(next).with_attempt(Attempt::Failed)
    };
    let len = records.len();
    let failure = match &error.cause {
        FailureCause::Undecodable(bad) => return undecodable(records, bad),
        FailureCause::Handler(failure) => failure,
    };
    match failure {
        Failure::Unavailable => first_of_keys(records, Step::new(Next::Outage), Step::new(Next::Behind)),
        // A place outside the batch names no record: then no record is known to be handled.
        Failure::Failed(places) if len > 1 && are_places(places, len) => {
            partly(records, |at| if places.contains(&at) { Part::Failed } else { Part::Handled }, failed, random)
        }
        Failure::StoppedAt(stop) if len > 1 && *stop < len => {
            let part = |at: usize| match at.cmp(stop) {
                std::cmp::Ordering::Less => Part::Handled,
                std::cmp::Ordering::Equal => Part::Failed,
                std::cmp::Ordering::Greater => Part::Untouched,
            };
            partly(records, part, failed, random)
        }
        Failure::RolledBack(places) if len > 1 && places.is_empty() => bisect(records),
        Failure::RolledBack(places) if len > 1 => rolled_back(records, places, failed, random),
        // Without a store there are no claims.
        Failure::Held if records.iter().any(|record| !record.needs_claim) => {
            first_of_keys(records, Step::new(Next::Outage), Step::new(Next::Behind))
        }
        Failure::Held => first_of_keys(records, Step::new(Next::LeaseLost), Step::new(Next::Behind)),
        // The failing record is unknown: each is delivered alone, in order.
        _ if len > 1 => {
            let step = |next| Step { next, attempt: Attempt::Noted, single: true };
            first_of_keys(records, step(Next::Alone), step(Next::Behind))
        }
        Failure::Reject => records.iter().map(|_| Step::new(Next::Bury).with_attempt(Attempt::Failed)).collect(),
        _ => records.iter().map(|record| failed(record, random)).collect(),
    }
}

/// Returns how many failures the circuit breaker counts.
pub(super) fn breaker_failures(error: &DeliveryError, records: usize) -> usize {
    match &error.cause {
        FailureCause::Undecodable(bad) => bad.len(),
        FailureCause::Handler(Failure::Unavailable | Failure::Held) => 0,
        FailureCause::Handler(Failure::RolledBack(places)) if records > 1 && places.is_empty() => 0,
        FailureCause::Handler(_) => 1,
    }
}

/// Returns whether `places` is not empty and all of them are within a batch of `len` records.
fn are_places(places: &[usize], len: usize) -> bool {
    !places.is_empty() && places.iter().all(|place| *place < len)
}

/// The first record of each key takes one step, the others the other.
fn first_of_keys(records: &[Delivered], first: Step, behind: Step) -> Vec<Step> {
    let mut keys = HashSet::new();
    let step = |record: &Delivered| if record.key.is_none_or(|key| keys.insert(key)) { first } else { behind };
    records.iter().map(step).collect()
}

/// A batch handler's result for one record.
enum Part {
    Handled,
    Failed,
    Untouched,
}

/// Records that a batch handler left untouched go on as a batch; those of a failed record's key leave it with that
/// record.
fn partly(
    records: &[Delivered],
    part: impl Fn(usize) -> Part,
    failed: impl Fn(&Delivered, &mut dyn FnMut() -> f64) -> Step,
    random: &mut dyn FnMut() -> f64,
) -> Vec<Step> {
    let mut failing = HashSet::new();
    let step = |(at, record): (usize, &Delivered)| match part(at) {
        Part::Handled => Step::new(Next::Handled),
        // Whether it is dead-lettered is decided when its turn has come.
        Part::Failed if record.key.is_some_and(|key| !failing.insert(key)) => {
            Step::new(Next::Behind).with_attempt(Attempt::Failed)
        }
        Part::Failed => failed(record, random),
        Part::Untouched if record.key.is_some_and(|key| failing.contains(&key)) => Step::new(Next::Behind),
        Part::Untouched => Step::new(Next::Again(0)),
    };
    records.iter().enumerate().map(step).collect()
}

/// Dead-letters the records that cannot be decoded, and starts the others again.
fn undecodable(records: &[Delivered], bad: &[(usize, String)]) -> Vec<Step> {
    let is_bad = |at: usize| bad.iter().any(|(index, _)| *index == at);
    let keys: HashSet<KeyHash> =
        records.iter().enumerate().filter(|(at, _)| is_bad(*at)).filter_map(|(_, record)| record.key).collect();
    let step = |(at, record): (usize, &Delivered)| match record.key {
        _ if is_bad(at) => Step::new(Next::Bury),
        Some(key) if keys.contains(&key) => Step::new(Next::Behind),
        _ => Step::new(Next::Again(0)),
    };
    records.iter().enumerate().map(step).collect()
}

/// Starts a batch again as two halves, so that the failing record is isolated in a few steps. A step counts as no
/// attempt of any record. Records behind one of the first half in its key wait for it, so that later records of the
/// failing record's key leave the batch with it.
fn bisect(records: &[Delivered]) -> Vec<Step> {
    let half = records.len().div_ceil(2);
    let keys: HashSet<KeyHash> = records[..half].iter().filter_map(|record| record.key).collect();
    let waits = |record: &Delivered| record.key.is_some_and(|key| keys.contains(&key));
    // Whatever its result: a record that is left alone is not put into another batch, which would be rolled back too.
    let second_is_single = records[half..].iter().filter(|record| !waits(record)).count() == 1;
    let step = |(at, record): (usize, &Delivered)| match at < half {
        true => Step::new(Next::Again(0)).single_if(half == 1),
        false if waits(record) => Step::new(Next::Behind),
        false => Step::new(Next::Again(1)).single_if(second_is_single),
    };
    records.iter().enumerate().map(step).collect()
}

/// The records at `places` failed; the others were rolled back with them and start again. Records of a failing
/// record's key stay before or behind it, as they were.
fn rolled_back(
    records: &[Delivered],
    places: &[usize],
    failed: impl Fn(&Delivered, &mut dyn FnMut() -> f64) -> Step,
    random: &mut dyn FnMut() -> f64,
) -> Vec<Step> {
    let (mut free, mut failing) = (HashSet::new(), HashSet::new());
    let step = |(at, record): (usize, &Delivered)| {
        let has_failed = places.contains(&at);
        let waits = record.key.is_some_and(|key| failing.contains(&key) || has_failed && free.contains(&key));
        if has_failed {
            failing.extend(record.key);
        }
        match (waits, has_failed) {
            (true, true) => Step { next: Next::Behind, attempt: Attempt::Failed, single: true },
            (true, false) => Step::new(Next::Behind),
            (false, true) => failed(record, random).single_if(true),
            (false, false) => {
                free.extend(record.key);
                Step::new(Next::Again(0))
            }
        }
    };
    records.iter().enumerate().map(step).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::{Just, Strategy, prop, proptest};
    use proptest::test_runner::Config;
    use tidings_core::ErrorKind;

    use super::*;

    fn records() -> impl Strategy<Value = Vec<Delivered>> {
        let record = (prop::option::of(0_u64..3), 0_u32..5).prop_map(|(key, failures)| Delivered {
            key,
            failures,
            needs_claim: false,
            waited: false,
            next_tier: None,
        });
        prop::collection::vec(record, 1..9)
    }

    fn cause() -> impl Strategy<Value = FailureCause> {
        let places = || prop::collection::vec(0_usize..10, 0..4);
        let failure = proptest::prop_oneof![
            Just(Failure::Retry),
            Just(Failure::Reject),
            Just(Failure::Unavailable),
            Just(Failure::Held),
            places().prop_map(Failure::Failed),
            (0_usize..10).prop_map(Failure::StoppedAt),
            places().prop_map(Failure::RolledBack),
        ];
        let bad = places().prop_map(|places| places.into_iter().map(|place| (place, String::new())).collect());
        proptest::prop_oneof![failure.prop_map(FailureCause::Handler), bad.prop_map(FailureCause::Undecodable)]
    }

    proptest! {
        #![proptest_config(Config { cases: 2_048, failure_persistence: None, ..Config::default() })]

        /// Each record takes one step, and within a key none passes one before it that is delivered again later.
        #[test]
        fn each_record_takes_one_step_and_none_passes_a_failing_predecessor(
            records in records(),
            cause in cause(),
            claims in prop::bool::ANY,
        ) {
            let records: Vec<_> = records.into_iter().map(|record| Delivered { needs_claim: claims, ..record }).collect();
            let error = DeliveryError { kind: ErrorKind::Failed, text: "failed".into(), cause };
            let steps = classify(&records, &error, &Retry::default(), &mut || 0.5);
            assert_eq!(steps.len(), records.len());
            let undecodable = matches!(error.cause, FailureCause::Undecodable(_));
            let mut before: HashMap<u64, Next> = HashMap::new();
            for (record, step) in records.iter().zip(&steps) {
                let Some(key) = record.key else {
                    assert_ne!(step.next, Next::Behind, "a record without a key waits for nothing");
                    continue;
                };
                match (before.get(&key), step.next) {
                    // Its predecessor is settled, or goes before it in the same batch.
                    (None, _) | (_, Next::Handled) => {}
                    (Some(Next::Again(0)), Next::Again(0)) | (Some(Next::Again(1)), Next::Again(1)) => {}
                    // It never runs again, so it overtakes nothing; and the dead letters of a key have no order.
                    (Some(_), Next::Bury) if undecodable => {}
                    (Some(_), next) => assert_eq!(next, Next::Behind, "{steps:?}"),
                }
                if step.next != Next::Handled && step.next != Next::Behind {
                    before.insert(key, step.next);
                }
            }
        }

        /// A record is handled only if its handler says so, and an attempt counts only against one that failed.
        #[test]
        fn no_record_is_handled_or_blamed_without_a_reason(records in records(), cause in cause()) {
            let error = DeliveryError { kind: ErrorKind::Failed, text: "failed".into(), cause };
            let steps = classify(&records, &error, &Retry::default(), &mut || 0.5);
            for (at, step) in steps.iter().enumerate() {
                let (handled, failed) = match &error.cause {
                    FailureCause::Handler(Failure::Failed(places)) => (!places.contains(&at), places.contains(&at)),
                    FailureCause::Handler(Failure::StoppedAt(stop)) => (at < *stop, at == *stop),
                    FailureCause::Handler(Failure::RolledBack(places)) => (false, places.contains(&at)),
                    FailureCause::Handler(Failure::Retry | Failure::Reject) => (false, true),
                    _ => (false, false),
                };
                assert!(step.next != Next::Handled || handled, "{steps:?}");
                assert!(step.attempt != Attempt::Failed || failed || records.len() == 1, "{steps:?}");
            }
        }
    }

    #[test]
    fn the_last_retry_is_followed_by_a_dead_letter() {
        let next = |failures| last(failures, false, None, Failure::Retry);
        assert_eq!([next(0), next(1), next(2)], [Next::Retry(Duration::ZERO), Next::Retry(Duration::ZERO), Next::Bury]);
    }

    /// Returns the next step of a record that has failed, under a policy of two retries.
    fn last(failures: u32, waited: bool, next_tier: Option<(Level, Duration)>, failure: Failure) -> Next {
        let record = Delivered { key: None, failures, needs_claim: false, waited, next_tier };
        let cause = FailureCause::Handler(failure);
        let error = DeliveryError { kind: ErrorKind::Failed, text: "failed".into(), cause };
        classify(&[record], &error, &Retry::default().with_max_retries(2), &mut || 0.0)[0].next
    }

    #[test]
    fn the_last_retry_is_followed_by_the_retry_topics() {
        let second = Some((1, Duration::from_secs(5)));
        let forwarded = Next::Forward(1, Duration::from_secs(5));
        assert_eq!(last(1, false, second, Failure::Retry), Next::Retry(Duration::ZERO));
        assert_eq!(last(2, false, second, Failure::Retry), forwarded);
        assert_eq!(last(0, true, second, Failure::Retry), forwarded, "one attempt in each retry topic");
        assert_eq!(last(9, true, None, Failure::Retry), Next::Bury);
        assert_eq!(last(2, false, second, Failure::Reject), Next::Bury);
        assert_eq!(last(2, true, second, Failure::Unavailable), Next::Outage);
    }
}
