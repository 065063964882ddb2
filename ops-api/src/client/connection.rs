//! Connections to an endpoint: a few are kept open, and one that the endpoint closed meanwhile is replaced.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tidings_core::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::tls::Tls;

/// Idle connections that are kept.
const KEPT: usize = 4;
/// The age of an idle connection that is used no more. The endpoint closes it after its timeout of clients, 10 s by
/// default, and a request that meets the end may be lost.
const MAX_IDLE: Duration = Duration::from_secs(5);

type Sender = SendRequest<Full<Bytes>>;

/// The address of an endpoint, and the connections to it.
#[derive(Debug)]
pub(super) struct Connections {
    host: String,
    port: u16,
    tls: Option<Tls>,
    limit: Duration,
    /// With the time of its last answer.
    idle: Mutex<Vec<(Sender, Instant)>>,
}

/// The failure of a request.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// The endpoint has not seen it.
    NotSent(Error),
    /// The endpoint may have seen it.
    Lost(Error),
}

impl Connections {
    pub(super) fn new(host: String, port: u16, tls: Option<Tls>, limit: Duration) -> Self {
        Self { host, port, tls, limit, idle: Mutex::default() }
    }

    /// Sends a request, on an idle connection if there is one.
    pub(super) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Sender), Unanswered> {
        while let Some(mut sender) = self.take() {
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, sender)),
                Err(mut error) => match error.take_message() {
                    // It was closed before the request was written.
                    Some(unsent) => request = unsent,
                    None => return Err(Unanswered::Lost(lost(&error.into_error()))),
                },
            }
        }
        let mut sender = self.connect().await.map_err(Unanswered::NotSent)?;
        match sender.send_request(request).await {
            Ok(response) => Ok((response, sender)),
            Err(error) => Err(Unanswered::Lost(lost(&error))),
        }
    }

    fn take(&self) -> Option<Sender> {
        let (sender, since) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        // The last one is the youngest.
        (since.elapsed() < MAX_IDLE).then_some(sender)
    }

    /// Keeps a connection whose answer was read.
    pub(super) fn keep(&self, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(sender, since)| !sender.is_closed() && since.elapsed() < MAX_IDLE);
        if idle.len() < KEPT && !sender.is_closed() {
            idle.push((sender, Instant::now()));
        }
    }

    async fn connect(&self) -> Result<Sender> {
        let (host, port) = (self.host.trim_start_matches('[').trim_end_matches(']'), self.port);
        let context = format!("connect to {}:{port}", self.host);
        let late = || Error::new(ErrorKind::Unavailable, format!("{context}: no answer within {:?}", self.limit));
        let failed = |error: std::io::Error| Error::explained(ErrorKind::Unavailable, &context, &error);
        let stream =
            timeout(self.limit, TcpStream::connect((host, port))).await.map_err(|_| late())?.map_err(failed)?;
        // Requests are small, and their answers are waited for.
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => self.handshake(stream).await,
            Some(tls) => {
                let stream = timeout(self.limit, tls.connect(stream)).await.map_err(|_| late())?.map_err(failed)?;
                self.handshake(stream).await
            }
        }
    }

    async fn handshake<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S) -> Result<Sender> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| lost(&error))?;
        // It ends with its sender, or with the endpoint.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

fn lost(error: &hyper::Error) -> Error {
    Error::explained(ErrorKind::Unavailable, "ask the operations endpoint: the connection was lost", error)
}
