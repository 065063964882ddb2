//! The steps of a request, from its token to its answer.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, ORIGIN, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidings_core::{Error, ErrorKind, Result};
use tidings_ops_api::{MAX_ANSWER_BYTES, MAX_BODY_BYTES, Method, Route, status_of};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::audit::Limited;
use super::{Backends, refusal};
use crate::access::{Caller, ClientAddress, Guard};
use crate::refusals::Refused;
use crate::routes::json;
use crate::sources::Sources;

/// Requests that are worked on at once; another one is refused as unavailable.
const MAX_REQUESTS: usize = 8;
/// Commands to services at once. They have places of their own: an operator can pause and drain whatever others ask.
const MAX_COMMANDS: usize = 8;
/// Redrives and discards at once. They have places of their own, since each may take the full time of a request.
const MAX_LONG: usize = 4;
/// Reads of records at once. They have places of their own, since each may wait for new records.
const MAX_READS: usize = 8;
/// The time that a client has to send a body.
const BODY_TIME: Duration = Duration::from_secs(10);
/// The time limit of a request. A connection lasts for a minute.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(45);

/// All that the API needs.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) sources: Arc<Sources>,
    pub(crate) guard: Guard,
    pub(crate) read_only: bool,
    pub(crate) backends: Backends,
    pub(super) denials: Limited,
    pub(super) reads: Limited,
    places: Places,
}

/// The places of requests that are worked on.
#[derive(Debug)]
struct Places {
    commands: Arc<Semaphore>,
    long: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    others: Arc<Semaphore>,
}

impl Places {
    fn new() -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self {
            commands: places(MAX_COMMANDS),
            long: places(MAX_LONG),
            reads: places(MAX_READS),
            others: places(MAX_REQUESTS),
        }
    }

    /// Takes a place for a request of this route.
    fn take(&self, route: Route) -> Result<OwnedSemaphorePermit> {
        let places = match route {
            Route::ServicesPause
            | Route::ServicesResume
            | Route::ServicesDrain
            | Route::ServicesSeek
            | Route::ServicesSkip => &self.commands,
            Route::LettersRedrive | Route::LettersDiscard => &self.long,
            Route::RecordsRead => &self.reads,
            _ => &self.others,
        };
        let busy = |_| Error::new(ErrorKind::Unavailable, "the endpoint works on other requests: try again");
        places.clone().try_acquire_owned().map_err(busy)
    }
}

/// Refusal of a request.
#[derive(Debug)]
struct Denied {
    why: Refused,
    code: StatusCode,
    text: &'static str,
}

impl Denied {
    fn answer(&self) -> Response {
        let mut answer = refusal(self.code, &Error::new(ErrorKind::Denied, self.text));
        if self.why == Refused::Unauthenticated {
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        answer
    }
}

/// A request that may be worked on.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) caller: Caller,
    uri: Uri,
    body: Bytes,
}

impl Api {
    pub(crate) fn new(sources: Arc<Sources>, guard: Guard, read_only: bool, backends: Backends) -> Self {
        let (denials, reads) = (Limited::denials(), Limited::reads());
        Self { sources, guard, read_only, backends, denials, reads, places: Places::new() }
    }

    /// Answers a request.
    pub(super) async fn answer(self: Arc<Self>, route: Route, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let client = parts.extensions.get::<ClientAddress>().copied();
        let caller = match self.identify(&parts.headers, &parts.uri) {
            Ok(caller) => Caller { client, ..caller },
            Err(denied) => {
                self.sources.refusals.count(denied.why);
                self.record_unknown(route, client, denied.text);
                return denied.answer();
            }
        };
        if let Some((refused, why)) = self.forbids(route, &caller) {
            self.sources.refusals.count(refused);
            self.record_denied(route, &caller, why.clone()).await;
            return refusal(StatusCode::FORBIDDEN, &Error::new(ErrorKind::Denied, why));
        }
        if route.method() == Method::Post && !is_json(&parts.headers) {
            let error = Error::new(ErrorKind::Invalid, "expected content-type: application/json");
            return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, &error);
        }
        let place = match self.places.take(route) {
            Ok(place) => place,
            Err(error) => return failed(&error),
        };
        let body = match tokio::time::timeout(BODY_TIME, to_bytes(body, MAX_BODY_BYTES)).await {
            Ok(Ok(body)) => body,
            Ok(Err(_)) => {
                let text = format!("read the body of a request: it is longer than {MAX_BODY_BYTES} bytes, or broken");
                return failed(&Error::new(ErrorKind::TooLarge, text));
            }
            Err(_) => return failed(&Error::new(ErrorKind::Invalid, "read the body of a request: it took too long")),
        };
        let call = Call { caller, uri: parts.uri, body };
        let api = self.clone();
        let work = async move {
            let _place = place;
            api.work(route, call).await
        };
        // What the client has asked for goes on when it leaves: a change is never cut in half.
        let mut task = self.backends.spawn(work);
        match tokio::time::timeout(TIME_LIMIT, &mut task).await {
            Ok(Ok(Ok(body))) => json(StatusCode::OK, body),
            Ok(Ok(Err(error))) => failed(&error),
            Ok(Err(_)) => failed(&Error::new(ErrorKind::Failed, format!("{}: it panicked", verb(route)))),
            Err(_) => {
                if !route.changes() {
                    task.abort();
                }
                failed(&late(route))
            }
        }
    }

    /// Returns who asks, or the refusal of a request that does not say so.
    fn identify(&self, headers: &HeaderMap, uri: &Uri) -> Result<Caller, Denied> {
        // A browser sends it along with what a foreign page makes it send.
        if headers.contains_key(ORIGIN) {
            let (code, text) = (StatusCode::FORBIDDEN, "requests of web pages are refused");
            return Err(Denied { why: Refused::WebPage, code, text });
        }
        self.guard.identify(headers, uri).map_err(|access| {
            let why = Refused::of(access).unwrap_or(Refused::Role);
            Denied { why, code: access.code(), text: access.text().trim_end() }
        })
    }

    /// Returns why a caller may not use a route, by the one table of roles, if so.
    fn forbids(&self, route: Route, caller: &Caller) -> Option<(Refused, String)> {
        let (role, needed) = (caller.role, route.role());
        if !role.includes(needed) {
            let text = format!("{}: the role {role} does not suffice, {needed} is needed", verb(route));
            return Some((Refused::Role, text));
        }
        let is_refused = self.read_only && route.changes();
        is_refused.then(|| (Refused::ReadOnly, format!("{}: the endpoint is read-only", verb(route))))
    }

    /// Does what a route does.
    async fn work(&self, route: Route, call: Call) -> Result<String> {
        match route {
            Route::About => self.about(&call),
            Route::Topics => self.topics(&call).await,
            Route::Topic => self.topic(&call).await,
            Route::TopicsDescribe => self.describe_topics(&call).await,
            Route::TopicsCreate => self.create_topics(&call).await,
            Route::TopicsGrow => self.grow_topic(&call).await,
            Route::TopicsAlter => self.alter_topic(&call).await,
            Route::TopicsDelete => self.delete_topics(&call).await,
            Route::Groups => self.groups(&call).await,
            Route::Group => self.group(&call).await,
            Route::GroupLag => self.group_lag(&call).await,
            Route::GroupsDescribe => self.describe_groups(&call).await,
            Route::GroupsLag => self.group_lags(&call).await,
            Route::GroupsPlanReset => self.reset(&call, true).await,
            Route::GroupsReset => self.reset(&call, false).await,
            Route::GroupsAlterOffsets => self.alter_offsets(&call).await,
            Route::GroupsDelete => self.delete_group(&call).await,
            Route::Health => self.health(&call).await,
            Route::Services => self.services(),
            Route::Service => self.service(&call).await,
            Route::Audit => self.audit(&call).await,
            Route::ServicesPause => self.pause(&call, route).await,
            Route::ServicesResume => self.pause(&call, route).await,
            Route::ServicesDrain => self.drain(&call).await,
            Route::ServicesSeek => self.seek(&call).await,
            Route::ServicesSkip => self.skip(&call).await,
            Route::RecordsOffsets => self.offsets(&call).await,
            Route::RecordsRead => self.read(&call).await,
            Route::RecordsPublish => self.publish(&call).await,
            Route::StoresDone => self.done(&call).await,
            Route::Cluster => self.cluster(&call).await,
            Route::ConfigsDescribe => self.configs(&call).await,
            Route::ConfigsAlter => self.alter_configs(&call).await,
            Route::AclsList => self.list_acls(&call).await,
            Route::AclsCreate => self.create_acls(&call).await,
            Route::AclsDelete => self.delete_acls(&call).await,
            Route::Letters => self.letter_stores(),
            Route::LettersList => self.list_letters(&call, false).await,
            Route::LettersRead => self.list_letters(&call, true).await,
            Route::LettersCount => self.count_letters(&call).await,
            Route::LettersCheck => self.check_letters(&call).await,
            Route::LettersBury => self.bury_letters(&call).await,
            Route::LettersResolve | Route::LettersResolveLeased => self.resolve_letters(&call, route).await,
            Route::LettersLease => self.lease_letters(&call).await,
            Route::LettersEndLease => self.end_lease(&call).await,
            Route::LettersNoteRefused => self.note_refused(&call).await,
            Route::LettersRedrive => self.redrive_letters(&call).await,
            Route::LettersDiscard => self.discard_letters(&call).await,
            route => Err(Error::new(ErrorKind::Unsupported, format!("{}: not by this version", verb(route)))),
        }
    }
}

/// Returns whether the body of a request is said to be JSON.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

impl Call {
    /// Parses the body.
    pub(super) fn body<T: DeserializeOwned>(&self) -> Result<T> {
        // The position and the field: never the text of the body.
        serde_json::from_slice(&self.body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let text = format!("read the body of a request: {} at line {line}, column {column}", reason(&error));
            Error::new(ErrorKind::Invalid, text)
        })
    }

    /// Returns the query parameters of these names, decoded.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for any other name, so that a misspelt one is not ignored.
    pub(super) fn parameters<const N: usize>(&self, names: [&str; N]) -> Result<[Option<String>; N]> {
        let mut found = [const { None }; N];
        for part in self.uri.query().unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let at = names.iter().position(|known| *known == name).ok_or_else(|| {
                Error::new(ErrorKind::Invalid, format!("the query of a request: expected only {}", names.join(", ")))
            })?;
            let decoded = percent_encoding::percent_decode_str(value).decode_utf8();
            let invalid = |_| Error::new(ErrorKind::Invalid, format!("the parameter {name} is not UTF-8"));
            found[at] = Some(decoded.map_err(invalid)?.into_owned());
        }
        Ok(found)
    }

    /// Returns the name in the path: its segment after the noun, decoded.
    pub(super) fn name(&self) -> Result<String> {
        let path = self.uri.path();
        let path = path.rsplit_once(super::PREFIX).map_or(path, |(_, path)| path);
        let segment = path.split('/').nth(2).unwrap_or_default();
        let decoded = percent_encoding::percent_decode_str(segment).decode_utf8();
        decoded.map(Into::into).map_err(|_| Error::new(ErrorKind::Invalid, "the name in the path is not UTF-8"))
    }
}

/// Returns why a body cannot be read. An unknown field is named, and a value never: it may be a payload.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let field = ["unknown field `", "missing field `", "unknown variant `"].iter().find_map(|form| {
        let rest = text.strip_prefix(form)?;
        let (name, _) = rest.split_once('`')?;
        Some(format!("{form}{}`", name.chars().take(40).collect::<String>()))
    });
    match (field, error.classify()) {
        (Some(field), _) => field,
        (None, serde_json::error::Category::Data) => "a value of another type than expected".to_owned(),
        (None, serde_json::error::Category::Eof) => "it ends too soon".to_owned(),
        (None, _) => "it is no JSON".to_owned(),
    }
}

/// Encodes an answer.
pub(super) fn encode(answer: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string(answer).map_err(|_| Error::new(ErrorKind::Failed, "encode an answer"))?;
    if text.len() > MAX_ANSWER_BYTES {
        let text = format!("the answer is longer than {MAX_ANSWER_BYTES} bytes: ask for less at once");
        return Err(Error::new(ErrorKind::TooLarge, text));
    }
    Ok(text + "\n")
}

/// Refuses a request that names too many things.
pub(super) fn bounded(count: usize, of: &str) -> Result<()> {
    let most = tidings_ops_api::MAX_NAMES;
    if count <= most {
        return Ok(());
    }
    Err(Error::new(ErrorKind::TooLarge, format!("{count} {of} in one request: at most {most}")))
}

/// Waits for at most a time for something that only reads.
pub(super) async fn within<T>(limit: Duration, what: &str, read: impl Future<Output = T>) -> Result<T> {
    let late = |_| Error::new(ErrorKind::Unavailable, format!("{what}: no answer within {} s", limit.as_secs()));
    tokio::time::timeout(limit, read).await.map_err(late)
}

fn late(route: Route) -> Error {
    let limit = TIME_LIMIT.as_secs();
    let kind = if route.changes() { ErrorKind::Indeterminate } else { ErrorKind::Unavailable };
    let rest = if route.changes() { "; it goes on" } else { "" };
    Error::new(kind, format!("{}: not done within {limit} s{rest}", verb(route)))
}

/// Returns the path of a route without its prefix, for errors: `topics:create`.
fn verb(route: Route) -> &'static str {
    let path = route.path();
    path.strip_prefix("/api/v1/").unwrap_or(path)
}

fn failed(error: &Error) -> Response {
    let code = StatusCode::from_u16(status_of(error.kind())).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    refusal(code, error)
}

/// Returns the error of a backend that broke its contract.
pub(super) fn no_answer(what: &str) -> Error {
    Error::new(ErrorKind::Failed, format!("{what}: the backend gave no answer"))
}

/// Returns the error of a lease that is missing, or given where there is none.
pub(super) fn wrong_lease() -> Error {
    Error::new(ErrorKind::Invalid, "lease: needed by resolve-leased, and by nothing else")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The figures of the paragraph "Bounds" of the guide are those of the code.
    #[test]
    fn the_documented_bounds_are_those_of_the_code() {
        let guide = include_str!("../../../docs/guides/operations.md");
        let bounds = guide.split("- **Bounds.** ").nth(1).and_then(|rest| rest.split("\n- **").next()).unwrap();
        let bounds = bounds.replace("\n  ", " ");
        let (body, answer, limit) = (MAX_BODY_BYTES >> 20, MAX_ANSWER_BYTES >> 20, TIME_LIMIT.as_secs());
        let names = tidings_ops_api::MAX_NAMES;
        for documented in [
            format!(
                "{MAX_READS} reads of records, {MAX_COMMANDS} commands to services, {MAX_LONG} redrives or discards"
            ),
            format!("and {MAX_REQUESTS} other requests"),
            format!(
                "a body of {body} MiB, an answer of {answer} MiB, {},{:03} names, {limit} s",
                names / 1_000,
                names % 1_000
            ),
            format!("A change that takes longer than {limit} s goes on"),
        ] {
            assert!(bounds.contains(&documented), "{documented:?}: {bounds}");
        }
    }

    #[test]
    fn commands_reads_and_long_work_have_places_of_their_own() {
        let places = Places::new();
        let _others: Vec<_> = (0..MAX_REQUESTS).map(|_| places.take(Route::Topics).unwrap()).collect();
        assert_eq!(places.take(Route::Groups).unwrap_err().kind(), ErrorKind::Unavailable);
        let _long: Vec<_> = (0..MAX_LONG).map(|_| places.take(Route::LettersRedrive).unwrap()).collect();
        assert!(places.take(Route::LettersDiscard).is_err());
        let _reads: Vec<_> = (0..MAX_READS).map(|_| places.take(Route::RecordsRead).unwrap()).collect();
        let _seeks: Vec<_> = (0..MAX_COMMANDS).map(|_| places.take(Route::ServicesSeek).unwrap()).collect();
        assert!(places.take(Route::ServicesPause).is_err(), "seeks are commands");
    }
}
