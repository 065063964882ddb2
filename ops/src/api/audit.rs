//! The audit of what the wrappers of `tidings-audit` do not see: commands to services, published records, buried
//! letters, and requests that were refused.

use std::future::Future;

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

    /// Records that a change was refused. It is refused in any case: a sink that takes no record is logged by it.
    pub(super) async fn record_denied(&self, route: Route, caller: &Caller, why: &str) {
        if let Some(auditor) = self.backends.auditor.as_ref().filter(|_| route.changes()) {
            let _logged = auditor.denied(intent(route, caller), why).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
