//! Connections, within limits: slow or silent clients cost a bounded number of tasks, and never the thread.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tower_service::Service;

use crate::access::ClientAddress;
use crate::api;
use crate::routes::plain;

/// Concurrent connections. At the limit the oldest one is closed: clients that hold connections open keep no probe out.
pub(crate) const MAX_CONNECTIONS: usize = 64;
/// The bytes of a request's head.
pub(crate) const MAX_HEAD_BYTES: usize = 16 << 10;
/// The headers of a request.
pub(crate) const MAX_HEADERS: usize = 64;
/// A connection takes no request after this time, however often it is used. One in flight has the time limit of the API
/// to be answered, whether or not the client reads the answer.
pub(crate) const MAX_LIFETIME: Duration = Duration::from_secs(60);

/// The time limits of a client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) client_timeout: Duration,
}

/// How bytes are protected.
#[derive(Debug, Clone)]
pub(crate) enum Security {
    Plain,
    #[cfg(feature = "tls")]
    Tls(super::tls::Acceptor),
}

/// The connections of a listener.
#[derive(Debug)]
pub(super) struct Connections {
    template: Template,
    /// Set when the endpoint stops.
    stopping: watch::Sender<bool>,
    tasks: JoinSet<()>,
    /// The oldest first.
    open: VecDeque<AbortHandle>,
}

/// The parts that each connection shares.
#[derive(Debug, Clone)]
struct Template {
    router: Router,
    security: Security,
    limits: Limits,
}

impl Connections {
    pub(super) fn new(router: Router, security: Security, limits: Limits) -> Self {
        let template = Template { router, security, limits };
        Self { template, stopping: watch::Sender::new(false), tasks: JoinSet::new(), open: VecDeque::new() }
    }

    pub(super) fn add(&mut self, stream: TcpStream, client: IpAddr) {
        // Those that have ended, so that the set does not grow.
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|task| !task.is_finished());
        if self.open.len() >= MAX_CONNECTIONS
            && let Some(oldest) = self.open.pop_front()
        {
            oldest.abort();
        }
        let task = self.template.clone().serve(stream, client, self.stopping.subscribe());
        self.open.push_back(self.tasks.spawn(task));
    }

    /// Waits until the requests that have arrived are answered, for at most `deadline`.
    pub(super) async fn finish(mut self, deadline: Duration) {
        self.stopping.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        // The others are dropped with the set.
        let _ = tokio::time::timeout(deadline, ended).await;
    }
}

impl Template {
    async fn serve(self, stream: TcpStream, client: IpAddr, stopping: watch::Receiver<bool>) {
        let client = Some(ClientAddress(client));
        match &self.security {
            Security::Plain => self.answer(stream, client, stopping).await,
            #[cfg(feature = "tls")]
            Security::Tls(acceptor) => {
                let handshake = acceptor.accept(stream);
                if let Ok(Ok(stream)) = tokio::time::timeout(self.limits.client_timeout, handshake).await {
                    self.answer(stream, client, stopping).await;
                }
            }
        }
    }

    async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        client: Option<ClientAddress>,
        mut stopping: watch::Receiver<bool>,
    ) {
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(self.limits.client_timeout);
        server.max_buf_size(MAX_HEAD_BYTES).max_headers(MAX_HEADERS);
        let service = service_fn(|request| respond(self.router.clone(), client, request));
        let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
        let stop = async { drop(stopping.wait_for(|stopping| *stopping).await) };
        tokio::select! {
            // Most errors are clients that left.
            _ = connection.as_mut() => return,
            _ = tokio::time::timeout(MAX_LIFETIME, stop) => {}
        }
        connection.as_mut().graceful_shutdown();
        // Only a request in flight takes that long: an idle connection ends at once.
        let rest = self.limits.client_timeout.max(api::TIME_LIMIT);
        let _ = tokio::time::timeout(rest, connection).await;
    }
}

async fn respond(
    mut router: Router,
    client: Option<ClientAddress>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    if let Some(client) = client {
        request.extensions_mut().insert(client);
    }
    if !request.body().is_end_stream() && !request.uri().path().starts_with(api::PREFIX) {
        // No other route reads a body, and none is read for being thrown away.
        let mut refusal = plain(StatusCode::PAYLOAD_TOO_LARGE, "this path takes no request body\n");
        refusal.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return Ok(refusal);
    }
    Service::call(&mut router, request).await
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::net::UnixStream;

    use super::*;

    /// The figures of the section "Limits" of the crate's documentation are those of the code.
    #[test]
    fn the_documented_limits_are_those_of_the_code() {
        let text = include_str!("../lib.rs");
        let limits = text.split("//! # Limits").nth(1).and_then(|rest| rest.split("#![doc").next()).unwrap();
        let limits = limits.replace("\n//! ", " ");
        let (head, body) = (MAX_HEAD_BYTES >> 10, tidings_ops_api::MAX_BODY_BYTES >> 20);
        for documented in [
            "[`Ops::MAX_CONNECTIONS`] connections, of HTTP/1.1".to_owned(),
            format!("{head} KiB and {MAX_HEADERS} headers of a request"),
            format!("a body below `{}` only, of at most {body} MiB", api::PREFIX),
        ] {
            assert!(limits.contains(&documented), "{documented:?}: {limits}");
        }
        assert_eq!((head << 10, body << 20), (MAX_HEAD_BYTES, tidings_ops_api::MAX_BODY_BYTES), "whole units");
    }

    /// Reads what is there, or waits for it; nothing at the end.
    async fn read(client: &UnixStream) -> String {
        let mut part = [0; 1_024];
        loop {
            client.readable().await.unwrap();
            match client.try_read(&mut part) {
                Ok(length) => return std::str::from_utf8(&part[..length]).unwrap().to_owned(),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_before_the_end_of_a_connection_has_its_whole_time() {
        let slow = async || {
            tokio::time::sleep(Duration::from_secs(40)).await;
            "done"
        };
        let limits = Limits { client_timeout: Duration::from_secs(1) };
        let template = Template { router: Router::new().route("/slow", get(slow)), security: Security::Plain, limits };
        let (client, server) = UnixStream::pair().unwrap();
        let stopping = watch::Sender::new(false);
        let stopped = stopping.subscribe();
        let serving = tokio::spawn(async move { template.answer(server, None, stopped).await });
        // The second one begins after 40 s, and ends after 80 s.
        for _ in 0..2 {
            client.writable().await.unwrap();
            client.try_write(b"GET /slow HTTP/1.1\r\nhost: h\r\n\r\n").unwrap();
            let mut text = String::new();
            while !text.ends_with("done") {
                let part = read(&client).await;
                assert!(!part.is_empty(), "the connection ended: {text}");
                text.push_str(&part);
            }
        }
        assert_eq!(read(&client).await, "", "it takes no third one");
        serving.await.unwrap();
    }
}
