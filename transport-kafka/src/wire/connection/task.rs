//! The task that owns a connection's socket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::protocol::{Request, StrBytes};
use tidings_core::{Error, ErrorKind, Result};
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::RequestError;
use super::exchange::Exchange;
use super::queue::{Outgoing, Queue};
use super::sasl;
use super::stream::{Reader, Stream, Writer, failed, read_message};
use crate::config::KafkaConfig;
use crate::wire::messages::{self, BrokerVersions};

/// First correlation id of requests that renew credentials; others are positive.
const RENEWAL: i32 = i32::MIN;

/// Time limit of closing the socket.
const CLOSING: Duration = Duration::from_secs(1);

/// Resources of the task that serves a socket.
pub(super) struct Socket {
    pub(super) queue: Arc<Queue>,
    pub(super) incoming: mpsc::Receiver<Outgoing>,
    /// Largest answer that is accepted, in bytes.
    pub(super) max_answer: usize,
    pub(super) config: Arc<KafkaConfig>,
    pub(super) versions: BrokerVersions,
    pub(super) client_id: StrBytes,
}

impl Socket {
    /// Writes requests and reads answers until the connection ends, or all its handles are dropped.
    pub(super) async fn run(mut self, stream: Stream, renew_at: Option<Instant>) {
        let Stream { mut reader, mut writer } = stream;
        let queue = Arc::clone(&self.queue);
        let error = tokio::select! {
            error = read(&mut reader, &queue, self.max_answer) => error,
            error = self.write(&mut writer, renew_at) => error,
            () = queue.ended() => None,
        };
        let closed = || Error::new(ErrorKind::Unavailable, "connection closed");
        queue.fail(Arc::new(error.unwrap_or_else(closed)));
        let failure = queue.failure();
        self.incoming.close();
        while let Some(request) = self.incoming.recv().await {
            if let Some(failure) = &failure {
                let _gone = request.answer.send(Err(RequestError::Unsent(Arc::clone(failure))));
            }
        }
        // With TLS it writes, and a broker that does not read would keep it waiting.
        let _closed = timeout(CLOSING, writer.shutdown()).await;
    }

    /// Writes requests in order, and renews the credentials in time. Returns why it ended; `None` without handles.
    async fn write(&mut self, writer: &mut Writer, mut renew_at: Option<Instant>) -> Option<Error> {
        loop {
            let due = async {
                match renew_at {
                    Some(time) => sleep_until(time).await,
                    None => std::future::pending().await,
                }
            };
            let request = tokio::select! {
                biased;
                () = due => None,
                request = self.incoming.recv() => Some(request?),
            };
            let written = match request {
                Some(request) => self.write_all(writer, request).await,
                None => self.renew(writer).await.map(|time| renew_at = time),
            };
            if let Err(error) = written {
                return Some(error);
            }
        }
    }

    /// Writes a request, and those that wait behind it.
    async fn write_all(&mut self, writer: &mut Writer, request: Outgoing) -> Result<()> {
        let mut next = Some(request);
        while let Some(request) = next {
            if let Some(frame) = self.queue.add(request) {
                writer.write_all(&frame).await.map_err(failed)?;
            }
            next = self.incoming.try_recv().ok();
        }
        writer.flush().await.map_err(failed)
    }

    /// Authenticates again; no request is written meanwhile. Returns when to do so next.
    async fn renew(&self, writer: &mut Writer) -> Result<Option<Instant>> {
        let Some(sasl) = &self.config.sasl else { return Ok(None) };
        let limit = self.config.request_timeout;
        let late = |_| Error::new(ErrorKind::Unavailable, format!("no answer within {limit:?}"));
        let mut renewal = Renewal { socket: self, writer, correlation: RENEWAL };
        let renewed =
            timeout(limit, sasl::authenticate(&mut renewal, sasl, &self.versions)).await.map_err(late).flatten();
        let session = renewed.map_err(|error| error.in_context("renew the credentials of a connection"))?;
        Ok(session.renew_after.map(|after| Instant::now() + after))
    }
}

/// Passes answers on; returns why it ended.
async fn read(reader: &mut Reader, queue: &Queue, max_answer: usize) -> Option<Error> {
    loop {
        let answer = match read_message(reader, max_answer, |bytes| queue.add_arrived(bytes)).await {
            Ok(answer) => answer,
            Err(error) => return Some(error),
        };
        let Some(correlation) = messages::correlation_of(&answer) else {
            return Some(Error::new(ErrorKind::Undecodable, "the broker sent an answer without a header"));
        };
        if let Err(error) = queue.answer(correlation, answer) {
            return Some(error);
        }
    }
}

/// Renewal of the credentials of a connection in use: its answers come after those of earlier requests.
struct Renewal<'a> {
    socket: &'a Socket,
    writer: &'a mut Writer,
    correlation: i32,
}

impl Exchange for Renewal<'_> {
    async fn call<R: Request + Sync>(&mut self, request: &R, version: i16) -> Result<R::Response> {
        self.correlation += 1;
        let frame = messages::encode(request, version, self.correlation, &self.socket.client_id)?;
        let (answer, pending) = oneshot::channel::<Result<Bytes, RequestError>>();
        let outgoing = Outgoing { correlation: self.correlation, frame, answer, permit: None };
        if let Some(frame) = self.socket.queue.add(outgoing) {
            self.writer.write_all(&frame).await.map_err(failed)?;
            self.writer.flush().await.map_err(failed)?;
        }
        let closed = |_| Error::new(ErrorKind::Unavailable, "connection closed");
        messages::decode::<R>(pending.await.map_err(closed)??, version)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{AsyncWrite, BufReader};

    use super::*;

    /// A socket to a broker that reads nothing.
    struct Stuck;

    impl AsyncWrite for Stuck {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_reads_nothing_does_not_keep_the_task() {
        let (_outgoing, incoming) = mpsc::channel(1);
        let socket = Socket {
            queue: Arc::default(),
            incoming,
            max_answer: 1,
            config: Arc::new(KafkaConfig::new(["localhost:9092"])),
            versions: BrokerVersions::default(),
            client_id: StrBytes::default(),
        };
        let stream = Stream { reader: BufReader::new(Box::new(tokio::io::empty())), writer: Box::new(Stuck) };
        timeout(Duration::from_secs(60), socket.run(stream, None)).await.unwrap();
    }
}
