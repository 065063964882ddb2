//! Admin over HTTP: the routes of `tidings-ops-api`.
//!
//! Each request passes the same steps, whatever its route: who asks and with which role, by the one table of routes;
//! read-only mode; the number of requests at once; its body, within bounds and a deadline; the audit; and then the work,
//! on the runtime of the user's program.

mod audit;
mod backends;
mod call;
mod cluster;
mod groups;
mod letters;
mod once;
mod records;
mod services;
mod topics;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use tidings_ops_api::{Method, Route};

pub(crate) use self::backends::Backends;
pub(crate) use self::call::{Api, TIME_LIMIT};

/// Below this path requests may have a body.
pub(crate) const PREFIX: &str = "/api/v1";

/// Adds the routes of the API.
pub(crate) fn routes(api: Arc<Api>) -> Router {
    let mut router = Router::new();
    for route in Route::ALL.iter().copied() {
        let answer =
            move |State(api): State<Arc<Api>>, request: Request| async move { api.answer(route, request).await };
        let method = if route.method() == Method::Get { get(answer) } else { post(answer) };
        router = router.route(route.path(), method);
    }
    router.with_state(api)
}

/// Returns an error as an answer.
pub(crate) fn refusal(code: StatusCode, error: &tidings_core::Error) -> Response {
    let body = serde_json::to_string(&tidings_ops_api::Failed::from(error)).unwrap_or_default();
    crate::routes::json(code, body + "\n")
}
