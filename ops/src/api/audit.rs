//! The audit of what the wrappers of `tidings-audit` do not see: commands to services, published records, buried
//! letters, and requests that were refused.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidings_core::audit::{AuditOutcome, AuditRecord};
use tidings_core::{Name, Result};
use tidings_ops_api::Route;

use super::Api;
use crate::access::Caller;

/// The nouns of paths, as records have them.
const NOUNS: [(&str, &str); 8] = [
    ("topics", "topic"),
    ("groups", "group"),
    ("services", "service"),
    ("records", "event"),
    ("dead-letters", "dead-letter"),
    ("configs", "config"),
    ("acls", "acl"),
    ("stores", "store"),
];

/// Returns the verb of a route in records: `topic.create`.
fn verb(route: Route) -> Name {
    let path = route.path().strip_prefix("/api/v1/").unwrap_or_default();
    let (noun, verb) = path.split_once(':').unwrap_or((path, "read"));
    let noun = NOUNS.iter().find(|(plural, _)| *plural == noun).map_or(noun, |(_, singular)| singular);
    format!("{noun}.{verb}").into()
}

/// Returns the intent of a request.
pub(super) fn intent(route: Route, caller: &Caller) -> AuditRecord {
    let mut intent = AuditRecord::intent(caller.principal(), verb(route));
    intent.correlation_id = Some(caller.request.clone());
    intent
}

/// Refused changes that are recorded at once, by caller.
const DENIALS: f64 = 64.0;
/// The time after which one more is recorded: a client in a loop must not fill the trail, whose limit refuses changes.
const DENIAL_EVERY: Duration = Duration::from_secs(10);

/// Limits the records of refused changes, by the name of the caller: one of each configured token.
#[derive(Debug, Default)]
pub(super) struct Denials(Mutex<HashMap<String, Denied>>);

#[derive(Debug)]
struct Denied {
    /// The records that are left, at this time.
    left: f64,
    at: Instant,
    held_back: u64,
}

impl Denials {
    /// Returns the number of refusals that were not recorded before this one; `None` if this one is not, either.
    fn take(&self, caller: &str, now: Instant) -> Option<u64> {
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Denied { left: DENIALS, at: now, held_back: 0 };
        let denied = callers.entry(caller.to_owned()).or_insert_with(new);
        let gained = now.saturating_duration_since(denied.at).as_secs_f64() / DENIAL_EVERY.as_secs_f64();
        (denied.left, denied.at) = ((denied.left + gained).min(DENIALS), now);
        if denied.left < 1.0 {
            denied.held_back += 1;
            return None;
        }
        denied.left -= 1.0;
        Some(std::mem::take(&mut denied.held_back))
    }
}

impl Api {
    /// Makes a change between the record of its intent and that of its result. Without the first it is not made.
    pub(super) async fn recorded<T>(&self, intent: AuditRecord, change: impl Future<Output = Result<T>>) -> Result<T> {
        self.recorded_as(intent, change, |intent, _| intent.result(AuditOutcome::Ok)).await
    }

    /// As [`recorded`](Self::recorded), for a change with an answer per part: the result counts them.
    pub(super) async fn recorded_each<T>(
        &self,
        intent: AuditRecord,
        change: impl Future<Output = Vec<Result<T>>>,
    ) -> Result<Vec<Result<T>>> {
        let counted = |intent: &AuditRecord, answers: &Vec<Result<T>>| {
            let mut result = intent.result(AuditOutcome::of_each(answers));
            let failed = answers.iter().filter(|answer| answer.is_err()).count();
            result.counts.insert("ok".to_owned(), (answers.len() - failed) as u64);
            result.counts.insert("failed".to_owned(), failed as u64);
            result
        };
        self.recorded_as(intent, async { Ok(change.await) }, counted).await
    }

    async fn recorded_as<T>(
        &self,
        intent: AuditRecord,
        change: impl Future<Output = Result<T>>,
        result: impl FnOnce(&AuditRecord, &T) -> AuditRecord,
    ) -> Result<T> {
        let Some(auditor) = &self.backends.auditor else { return change.await };
        let attempt = auditor.begin(intent.clone()).await?;
        let done = change.await;
        let record = match &done {
            Ok(answer) => result(&intent, answer),
            Err(error) => intent.result(AuditOutcome::of(error)),
        };
        attempt.finish(record).await;
        done
    }

    /// Records that a change was refused, within the bounds of [`Denials`]. It is refused in any case: a sink that takes
    /// no record is logged by it.
    pub(super) async fn record_denied(&self, route: Route, caller: &Caller, why: &str) {
        let Some(auditor) = self.backends.auditor.as_ref().filter(|_| route.changes()) else { return };
        let Some(held_back) = self.denials.take(&caller.name, Instant::now()) else { return };
        let mut intent = intent(route, caller);
        if held_back > 0 {
            intent.counts.insert("denied".to_owned(), held_back);
        }
        let _logged = auditor.denied(intent, why).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_in_a_loop_leaves_a_bounded_number_of_records() {
        let (denials, now) = (Denials::default(), Instant::now());
        let recorded = (0..1_000).filter(|_| denials.take("vera", now).is_some()).count();
        assert_eq!(recorded, 64);
        assert_eq!(denials.take("ann", now), Some(0), "another caller has a limit of its own");
        assert_eq!(denials.take("vera", now + DENIAL_EVERY), Some(936), "the next one has the number of the others");
        assert_eq!(denials.take("vera", now + DENIAL_EVERY), None);
    }

    #[test]
    fn verbs_are_those_of_the_audit() {
        assert_eq!(verb(Route::TopicsCreate), "topic.create");
        assert_eq!(verb(Route::RecordsPublish), "event.publish");
        assert_eq!(verb(Route::LettersResolveLeased), "dead-letter.resolve-leased");
        for route in Route::ALL.iter().filter(|route| route.changes()) {
            let verb = verb(*route);
            let (noun, _) = verb.split_once('.').unwrap();
            assert!(NOUNS.iter().any(|(_, singular)| *singular == noun), "{verb}");
        }
    }
}
