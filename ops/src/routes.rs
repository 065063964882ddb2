//! The routes of probes, metrics and the status: from a request to an answer. None waits: each reads atomics and short
//! locks.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::access::{Access, Guard, Role};
use crate::metrics::{Format, encode};
use crate::probes::{Form, Probe};
use crate::refusals::Refused;
use crate::sources::Sources;
use crate::status;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const OPEN_METRICS: &str = "application/openmetrics-text";

/// All that an answer needs.
#[derive(Debug)]
struct Endpoint {
    sources: Arc<Sources>,
    guard: Guard,
    open_metrics: bool,
}

/// Returns the routes of an endpoint.
pub(crate) fn router(sources: Arc<Sources>, guard: Guard, open_metrics: bool) -> Router {
    let endpoint = Endpoint { sources, guard, open_metrics };
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(Arc::new(endpoint))
}

type Shared = State<Arc<Endpoint>>;

async fn livez(State(endpoint): Shared, uri: Uri, headers: HeaderMap) -> Response {
    endpoint.probe(Probe::Live, &uri, &headers)
}

async fn readyz(State(endpoint): Shared, uri: Uri, headers: HeaderMap) -> Response {
    endpoint.probe(Probe::Ready, &uri, &headers)
}

async fn metrics(State(endpoint): Shared, uri: Uri, headers: HeaderMap) -> Response {
    if !endpoint.open_metrics
        && let Some(refusal) = endpoint.refusal(Role::Viewer, &uri, &headers)
    {
        return refusal;
    }
    let format = if accepts(&headers, OPEN_METRICS) { Format::OpenMetrics } else { Format::Prometheus };
    match encode(endpoint.sources.read(), format) {
        Ok(text) => answer(StatusCode::OK, format.content_type(), text),
        Err(_) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the metrics cannot be encoded\n".into()),
    }
}

async fn status(State(endpoint): Shared, uri: Uri, headers: HeaderMap) -> Response {
    match endpoint.refusal(Role::Viewer, &uri, &headers) {
        Some(refusal) => refusal,
        None => answer(StatusCode::OK, JSON, status::json(&endpoint.sources.read())),
    }
}

impl Endpoint {
    fn probe(&self, probe: Probe, uri: &Uri, headers: &HeaderMap) -> Response {
        let form = match (accepts(headers, JSON), is_verbose(uri)) {
            (true, _) => Form::Json,
            (false, true) => Form::Verbose,
            (false, false) => Form::Text,
        };
        let found = probe.answer(&self.sources.services(), form);
        let code = if found.passed { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        answer(code, if form == Form::Json { JSON } else { TEXT }, found.body)
    }

    /// Returns the answer to a request that may not read this, and `None` to one that may.
    fn refusal(&self, needed: Role, uri: &Uri, headers: &HeaderMap) -> Option<Response> {
        let access = self.guard.check(needed, headers, uri);
        if access == Access::Granted {
            return None;
        }
        if let Some(refused) = Refused::of(access) {
            self.sources.refusals.count(refused);
        }
        let code = access.code();
        let mut refusal = answer(code, TEXT, access.text().to_owned());
        if code == StatusCode::UNAUTHORIZED {
            refusal.headers_mut().insert(WWW_AUTHENTICATE, axum::http::HeaderValue::from_static("Bearer"));
        }
        Some(refusal)
    }
}

/// Returns JSON as an answer.
pub(crate) fn json(code: StatusCode, body: String) -> Response {
    answer(code, JSON, body)
}

/// Returns a plain text as an answer.
pub(crate) fn plain(code: StatusCode, text: &'static str) -> Response {
    answer(code, TEXT, text.to_owned())
}

fn answer(code: StatusCode, content_type: &'static str, body: String) -> Response {
    let headers = [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (code, headers, body).into_response()
}

fn is_verbose(uri: &Uri) -> bool {
    let parameters = uri.query().unwrap_or_default().split('&');
    parameters.map(|parameter| parameter.split('=').next()).any(|name| name == Some("verbose"))
}

/// Returns whether a request names this media type.
fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let values = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    let types = values.flat_map(|value| value.split(',')).filter_map(|range| range.split(';').next());
    types.into_iter().any(|range| range.trim().eq_ignore_ascii_case(media_type))
}
