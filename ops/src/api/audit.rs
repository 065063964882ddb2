//! The audit of what the wrappers of `tidings-audit` do not see: commands to services, published records, buried
//! letters, and requests that were refused.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidings_audit::{Auditor, decode};
use tidings_core::audit::{AuditOutcome, AuditPosition, AuditRecord, Principal, StoredAudit};
use tidings_core::{Error, ErrorKind, Name, Result};
use tidings_ops_api::wire::AuditRecords;
use tidings_ops_api::{MAX_NAMES, MAX_RECORD_BYTES, Role, Route};

use super::Api;
use super::call::{Call, encode};
use crate::access::{Caller, ClientAddress, at_address};

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
    let noun = noun.split('/').next().filter(|noun| !noun.is_empty()).unwrap_or("endpoint");
    let noun = NOUNS.iter().find(|(plural, _)| *plural == noun).map_or(noun, |(_, singular)| singular);
    format!("{noun}.{verb}").into()
}

/// Returns the intent of a request.
pub(super) fn intent(route: Route, caller: &Caller) -> AuditRecord {
    let mut intent = AuditRecord::intent(caller.principal(), verb(route));
    intent.correlation_id = Some(caller.request.clone());
    intent
}

/// Default number of records in a page.
const DEFAULT_PAGE: usize = 100;
/// Name of callers without a valid token. No bearer has it.
const UNKNOWN: &str = "(unknown)";
/// Refused requests that are recorded at once, by caller.
const DENIALS: f64 = 64.0;
/// The time after which one more is recorded: a client in a loop must not fill the trail, whose limit refuses changes.
const DENIAL_EVERY: Duration = Duration::from_secs(10);
/// Reads of the trail that are recorded at once, by caller.
const READS: f64 = 1.0;
/// The time after which one more read is recorded: reading a long trail takes many requests.
const READ_EVERY: Duration = Duration::from_secs(60);

/// Limits records by the name of the caller, of which there is one for each configured token.
#[derive(Debug)]
pub(super) struct Limited {
    callers: Mutex<HashMap<String, Left>>,
    at_once: f64,
    every: Duration,
}

#[derive(Debug)]
struct Left {
    /// The records that are left, at this time.
    left: f64,
    at: Instant,
    held_back: u64,
}

impl Limited {
    fn new(at_once: f64, every: Duration) -> Self {
        Self { callers: Mutex::default(), at_once, every }
    }

    /// The limit of records about refused requests.
    pub(super) fn denials() -> Self {
        Self::new(DENIALS, DENIAL_EVERY)
    }

    /// The limit of records about reads of the trail.
    pub(super) fn reads() -> Self {
        Self::new(READS, READ_EVERY)
    }

    /// Returns the number of requests that were not recorded since the last record; `None` if this one is not recorded
    /// either.
    fn take(&self, caller: &str, now: Instant) -> Option<u64> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Left { left: self.at_once, at: now, held_back: 0 };
        let of = callers.entry(caller.to_owned()).or_insert_with(new);
        let gained = now.saturating_duration_since(of.at).as_secs_f64() / self.every.as_secs_f64();
        (of.left, of.at) = ((of.left + gained).min(self.at_once), now);
        if of.left < 1.0 {
            of.held_back += 1;
            return None;
        }
        of.left -= 1.0;
        Some(std::mem::take(&mut of.held_back))
    }
}

/// Number of records read from a sink at once, which bounds the memory of a request.
const AT_ONCE: usize = 16;

impl Api {
    /// Returns a page of the trail, bounded by the requested number and by the size of an answer.
    pub(super) async fn audit(&self, call: &Call) -> Result<String> {
        let missing = "this endpoint has no audit trail: pass one to Ops::with_audit";
        let auditor = self.backends.auditor.as_ref();
        let auditor = auditor.ok_or_else(|| Error::new(ErrorKind::Unsupported, missing))?;
        let sink = auditor.sink();
        let [limit, after] = call.parameters(["limit", "after"])?;
        let limit = limit.map_or(Ok(DEFAULT_PAGE), |limit| limit.parse());
        let limit =
            limit.map_err(|_| Error::new(ErrorKind::Invalid, "the parameter limit is not a number"))?.min(MAX_NAMES);
        let after = after.map(AuditPosition::new);
        let mut page = sink.read(after.as_ref(), AT_ONCE.min(limit)).await?;
        loop {
            let bytes: usize = page.records.iter().map(|record| record.bytes.len()).sum();
            let left = limit - page.records.len().min(limit);
            if page.records.is_empty() || left == 0 || bytes >= MAX_RECORD_BYTES {
                break;
            }
            let read = sink.read(Some(&page.next), AT_ONCE.min(left)).await?;
            if read.records.is_empty() {
                break;
            }
            page.records.extend(read.records);
            page.next = read.next;
        }
        self.record_trail_read(auditor, call, &page.records).await;
        encode(&AuditRecords::from(page))
    }

    /// Records that a caller has read the trail, at most once a minute, with the number of further reads. The read of a
    /// page that contains only such records is not recorded: a caller that follows the trail would never reach its end.
    ///
    /// The page is returned even if the read cannot be recorded: the caller may be looking for the cause of that.
    async fn record_trail_read(&self, auditor: &Auditor, call: &Call, page: &[StoredAudit]) {
        let is_read = |record: &StoredAudit| decode(record).is_ok_and(|record| record.verb == verb(Route::Audit));
        if page.iter().all(is_read) {
            return;
        }
        let Some(held_back) = self.reads.take(&call.caller.name, Instant::now()) else { return };
        let mut done = intent(Route::Audit, &call.caller);
        done.counts.insert("records".to_owned(), page.len() as u64);
        if held_back > 0 {
            done.counts.insert("further-reads".to_owned(), held_back);
        }
        // The sink's queue logs failures.
        let _logged = auditor.record(&done, AuditOutcome::Ok).await;
    }

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

    /// Records that a caller without a valid token was refused. All such callers share one limit of [`Limited`], and
    /// none waits for the sink.
    pub(super) fn record_unknown(&self, route: Route, client: Option<ClientAddress>, why: &'static str) {
        let principal = at_address(Principal::new(UNKNOWN), client);
        let done = AuditRecord::intent(principal, verb(route)).with_after("path", route.path());
        let Some((auditor, done)) = self.bounded(UNKNOWN, done) else { return };
        let outcome = AuditOutcome::Denied { error: why.to_owned() };
        drop(self.backends.spawn(async move {
            // Logged by the sink's queue.
            let _logged = auditor.record(&done, outcome).await;
        }));
    }

    /// Records that a request which needs more than a viewer was refused, within the limit of [`Limited`]. The request
    /// is refused in any case; a record that the sink does not accept is logged.
    pub(super) async fn record_denied(&self, route: Route, caller: &Caller, why: String) {
        if route.role() <= Role::Viewer {
            return;
        }
        let Some((auditor, intent)) = self.bounded(&caller.name, intent(route, caller)) else { return };
        let _logged = self.backends.spawn(async move { auditor.denied(intent, why).await }).await;
    }

    /// Returns a record of a refusal with the number of those that were not recorded; `None` if this one is not, either.
    fn bounded(&self, caller: &str, mut record: AuditRecord) -> Option<(Auditor, AuditRecord)> {
        let auditor = self.backends.auditor.clone()?;
        let held_back = self.denials.take(caller, Instant::now())?;
        if held_back > 0 {
            record.counts.insert("denied".to_owned(), held_back);
        }
        Some((auditor, record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_in_a_loop_leaves_a_bounded_number_of_records() {
        let (denials, now) = (Limited::denials(), Instant::now());
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
        assert_eq!(
            [verb(Route::About), verb(Route::GroupLag), verb(Route::Audit)],
            ["endpoint.read", "group.read", "audit.read"]
        );
        for route in Route::ALL.iter().filter(|route| route.changes()) {
            let verb = verb(*route);
            let (noun, _) = verb.split_once('.').unwrap();
            assert!(NOUNS.iter().any(|(_, singular)| *singular == noun), "{verb}");
        }
    }
}
