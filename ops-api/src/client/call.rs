//! Requests and answers, with their limits and errors.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Response, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidings_core::settings::ConnectionUrl;
use tidings_core::{Error, ErrorKind, Result};

use super::OpsConfig;
use super::connection::{Connections, Unanswered};
use super::tls::Tls;
use crate::{Failed, MAX_ANSWER_BYTES, MAX_BODY_BYTES, Route};

/// Asks an endpoint.
#[derive(Debug)]
pub(super) struct Client {
    connections: Connections,
    address: String,
    /// The path below which the endpoint is mounted, without a slash at its end.
    base: String,
    host: HeaderValue,
    token: Token,
    limit: Duration,
}

/// The header of the token.
struct Token(Option<HeaderValue>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Token(..)" } else { "Token(none)" })
    }
}

impl Client {
    pub(super) fn new(config: &OpsConfig) -> Result<Self> {
        let invalid = |text: &str| Error::new(ErrorKind::Invalid, text.to_owned());
        let url = ConnectionUrl::parse(&config.url)?;
        let port = match url.scheme() {
            "http" => 80,
            "https" => 443,
            _ => return Err(invalid("url: expected http:// or https://")),
        };
        if url.username().is_some() || url.password().is_some() {
            return Err(invalid("url: a token is set by OpsConfig::with_token, and never part of the URL"));
        }
        let [address] = url.hosts() else { return Err(invalid("url: expected one host")) };
        let (host, port) = (address.host().to_owned(), address.port().unwrap_or(port));
        let tls = (url.scheme() == "https").then(|| Tls::new(&host, config.roots.as_deref())).transpose()?;
        let shown = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.clone() };
        let header = HeaderValue::from_str(&format!("{shown}:{port}"));
        let token = config.token.as_ref().map(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
            value.iter_mut().for_each(|value| value.set_sensitive(true));
            value.map_err(|_| invalid("token: it has a character that a header cannot carry"))
        });
        let path = url.path().trim_end_matches('/');
        Ok(Self {
            connections: Connections::new(host, port, tls, config.connect_timeout),
            address: format!("{}://{shown}:{port}", url.scheme()),
            base: if path.is_empty() { String::new() } else { format!("/{path}") },
            host: header.map_err(|_| invalid("url: the host has a character that a header cannot carry"))?,
            token: Token(token.transpose()?),
            limit: config.timeout,
        })
    }

    /// Returns the endpoint's address, for errors.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Asks by a route without a name.
    pub(super) async fn get<T: DeserializeOwned>(&self, route: Route) -> Result<T> {
        self.ask(route, route.path().to_owned(), None).await
    }

    /// Asks about the thing of a name.
    pub(super) async fn get_of<T: DeserializeOwned>(&self, route: Route, name: &str) -> Result<T> {
        self.ask(route, route.path_of(name), None).await
    }

    /// Sends a GET request with query parameters.
    pub(super) async fn get_with<T: DeserializeOwned>(&self, route: Route, parameters: &[(&str, &str)]) -> Result<T> {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let parameters = parameters.iter().map(|(name, value)| format!("{name}={}", encode(value)));
        let query = parameters.collect::<Vec<_>>().join("&");
        self.ask(route, format!("{}?{query}", route.path()), None).await
    }

    /// Asks with a body.
    pub(super) async fn post<T: DeserializeOwned>(&self, route: Route, body: &impl Serialize) -> Result<T> {
        let body = serde_json::to_vec(body).map_err(|_| Error::new(ErrorKind::Failed, "encode a request"))?;
        if body.len() > MAX_BODY_BYTES {
            let text = format!("{}: a request of {} bytes; at most {MAX_BODY_BYTES}", route.path(), body.len());
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        self.ask(route, route.path().to_owned(), Some(body)).await
    }

    async fn ask<T: DeserializeOwned>(&self, route: Route, path: String, body: Option<Vec<u8>>) -> Result<T> {
        let request = self.request(route, &path, body)?;
        match tokio::time::timeout(self.limit, self.answer(route, request)).await {
            Ok(answer) => answer,
            Err(_) => Err(undecided(route, &format!("no answer within {:?}", self.limit))),
        }
    }

    fn request(&self, route: Route, path: &str, body: Option<Vec<u8>>) -> Result<Request<Full<Bytes>>> {
        let mut request = Request::builder().method(route.method().as_str()).uri(format!("{}{path}", self.base));
        request = request.header(HOST, self.host.clone()).header(ACCEPT, "application/json");
        if let Some(token) = &self.token.0 {
            request = request.header(AUTHORIZATION, token.clone());
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body.unwrap_or_default().into()));
        request.map_err(|error| Error::explained(ErrorKind::Invalid, "make a request", &error))
    }

    async fn answer<T: DeserializeOwned>(&self, route: Route, request: Request<Full<Bytes>>) -> Result<T> {
        let (response, sender) = match self.connections.send(request).await {
            Ok(sent) => sent,
            Err(Unanswered::NotSent(error)) => return Err(error),
            Err(Unanswered::Lost(error)) => return Err(undecided(route, &error.report())),
        };
        let (status, body) = read(route, response).await?;
        self.connections.keep(sender);
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| {
                let text = format!("{}: the answer is not as expected at column {}", route.path(), error.column());
                Error::new(ErrorKind::Unsupported, text)
            });
        }
        Err(refused(route, status, &body))
    }
}

async fn read(route: Route, response: Response<Incoming>) -> Result<(StatusCode, Bytes)> {
    let status = response.status();
    match Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await {
        Ok(body) => Ok((status, body.to_bytes())),
        Err(error) => Err(undecided(route, &format!("the answer was cut off: {error}"))),
    }
}

/// Returns the error of an answer that did not come: a change may have been made.
fn undecided(route: Route, why: &str) -> Error {
    let kind = if route.changes() { ErrorKind::Indeterminate } else { ErrorKind::Unavailable };
    Error::new(kind, format!("{}: {why}", route.path()))
}

/// Returns the error of an answer that is one. That of a proxy on the way has another form.
fn refused(route: Route, status: StatusCode, body: &[u8]) -> Error {
    if let Ok(failed) = serde_json::from_slice::<Failed>(body) {
        return failed.into();
    }
    let kind = match status.as_u16() {
        401 | 403 | 407 => ErrorKind::Denied,
        404 | 405 => ErrorKind::Unsupported,
        413 => ErrorKind::TooLarge,
        429 | 502 | 503 => ErrorKind::Unavailable,
        _ if route.changes() && status.is_server_error() => ErrorKind::Indeterminate,
        _ => ErrorKind::Failed,
    };
    let hint = if kind == ErrorKind::Unsupported { "; is it an endpoint with Ops::with_admin?" } else { "" };
    Error::new(kind, format!("{}: the answer was {status}{hint}", route.path()))
}
