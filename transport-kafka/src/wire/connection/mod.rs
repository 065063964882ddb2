//! A connection to one broker: requests are pipelined, each has a deadline, and answers are matched by their
//! correlation ids.
//!
//! A task owns the socket. It writes requests in the order in which they were sent, and passes answers on; a broker
//! answers the requests of a connection in order. If a request's deadline passes, the connection ends, because all
//! later answers are behind that one. All pending requests of a connection that ends fail.

mod exchange;
mod oauth;
mod queue;
mod sasl;
mod scram;
mod stream;
mod task;
mod tls;

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::protocol::{Request, StrBytes};
use tidings_core::{Error, ErrorKind, Result};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use self::exchange::Handshake;
use self::queue::{Outgoing, Queue};
use self::stream::Stream;
use super::messages::{self, BrokerVersions, name_of};
use crate::config::KafkaConfig;

/// Maximum number of requests without an answer; later ones wait.
const MAX_IN_FLIGHT: usize = 64;
/// Maximum number of requests that wait to be written.
const QUEUED: usize = 16;
/// Largest answer, in addition to the sizes of the configuration. A fetch contains at least one batch, whatever its
/// size; brokers accept batches up to `socket.request.max.bytes`, 100 MiB by default.
const ANSWER_BYTES: usize = 128 << 20;
/// Time without a byte from a broker after which a long answer is given up.
const SILENCE: Duration = Duration::from_secs(3);

/// Address of a broker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Endpoint {
    /// Name or IP address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Why a request has no answer.
#[derive(Debug, Clone)]
pub(crate) enum RequestError {
    /// It was not sent: it has no effect.
    Unsent(Arc<Error>),
    /// It may have been sent, and its effect is unknown.
    Unanswered(Arc<Error>),
}

impl RequestError {
    /// Returns the cause.
    pub(crate) fn error(&self) -> &Arc<Error> {
        match self {
            Self::Unsent(error) | Self::Unanswered(error) => error,
        }
    }
}

impl From<RequestError> for Error {
    fn from(error: RequestError) -> Self {
        let error = error.error();
        Self::new(error.kind(), error.report())
    }
}

/// A connection to a broker. Clones share it, and it is closed with the last of them.
#[derive(Clone)]
pub(crate) struct Connection(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    versions: BrokerVersions,
    client_id: StrBytes,
    correlation: AtomicI32,
    outgoing: mpsc::Sender<Outgoing>,
    room: Arc<Semaphore>,
    queue: Arc<Queue>,
    /// When its credentials expire, if they cannot be renewed on it.
    expires: Option<Instant>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The task may be writing to a broker that does not read; it would not notice that no handle is left.
        self.queue.fail(Arc::new(Error::new(ErrorKind::Unavailable, format!("{}: connection closed", self.endpoint))));
    }
}

impl Connection {
    /// Connects, authenticates, and requests the broker's versions, within `limit`.
    ///
    /// Certificates are read from their files each time, and a token is requested.
    ///
    /// # Errors
    /// [`Denied`](ErrorKind::Denied) if certificates or credentials are refused; [`Unavailable`](ErrorKind::Unavailable)
    /// if the broker does not answer. The text names the broker, and contains no secret.
    ///
    /// # Cancel safety
    /// Safe: the connection is closed.
    pub(crate) async fn open(endpoint: &Endpoint, config: &Arc<KafkaConfig>, limit: Duration) -> Result<Self> {
        let late = |_| Error::new(ErrorKind::Unavailable, format!("no answer within {limit:?}"));
        let opened = timeout(limit, Self::handshake(endpoint, config)).await.map_err(late).flatten();
        opened.map_err(|error| error.in_context(format!("connect to the broker at {endpoint}")))
    }

    async fn handshake(endpoint: &Endpoint, config: &Arc<KafkaConfig>) -> Result<Self> {
        let client_id = StrBytes::from_string(config.client_id.clone());
        let limit = config.fetch_max_unpacked_bytes.saturating_add(config.fetch_max_bytes);
        let stream = Stream::connect(endpoint, config.tls.as_ref()).await?;
        let mut handshake = Handshake::new(stream, client_id.clone(), limit.saturating_add(ANSWER_BYTES));
        let versions = handshake.versions().await?;
        let session = match &config.sasl {
            Some(sasl) => sasl::authenticate(&mut handshake, sasl, &versions).await?,
            None => sasl::Session::default(),
        };
        let (stream, max_answer) = handshake.into_stream();
        let (outgoing, incoming) = mpsc::channel(QUEUED);
        let queue = Arc::new(Queue::default());
        let socket = task::Socket {
            queue: Arc::clone(&queue),
            incoming,
            max_answer,
            config: Arc::clone(config),
            versions: versions.clone(),
            client_id: client_id.clone(),
        };
        tokio::spawn(socket.run(stream, session.renew_after.map(|after| Instant::now() + after)));
        Ok(Self(Arc::new(Inner {
            endpoint: endpoint.clone(),
            versions,
            client_id,
            correlation: AtomicI32::new(1),
            outgoing,
            room: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            queue,
            expires: session.expires_after.map(|after| Instant::now() + after),
        })))
    }

    /// Returns the broker's address.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// Returns whether requests may be sent: the connection has not ended, and its credentials are valid.
    pub(crate) fn is_usable(&self) -> bool {
        self.0.queue.failure().is_none() && self.0.expires.is_none_or(|expires| Instant::now() < expires)
    }

    /// Sends a request and waits for its answer, in `limit` altogether.
    ///
    /// # Errors
    /// See [`send`](Self::send) and [`Pending::answer`].
    ///
    /// # Cancel safety
    /// The request may be sent or not.
    pub(crate) async fn request<R: Request>(&self, request: &R, limit: Duration) -> Result<R::Response, RequestError> {
        self.send(request, limit).await?.answer().await
    }

    /// Sends a request, and returns its pending answer. Requests that one task sends are written in that order.
    ///
    /// Waits while too many requests have no answer.
    ///
    /// # Errors
    /// [`RequestError::Unsent`]: the connection has ended, the broker does not support the request, or `limit` has
    /// passed.
    ///
    /// # Cancel safety
    /// The request may be sent or not.
    pub(crate) async fn send<R: Request>(&self, request: &R, limit: Duration) -> Result<Pending<R>, RequestError> {
        let unsent = |error| RequestError::Unsent(Arc::new(error));
        let deadline = Instant::now() + limit;
        let version = self.0.versions.of_request::<R>().map_err(unsent)?;
        let correlation = self.0.correlation.fetch_add(1, Ordering::Relaxed);
        let frame = messages::encode(request, version, correlation, &self.0.client_id).map_err(unsent)?;
        let room = timeout_at(deadline, Arc::clone(&self.0.room).acquire_owned()).await;
        let permit = room.ok().and_then(Result::ok).ok_or_else(|| unsent(self.late::<R>(limit)))?;
        let (answer, pending) = oneshot::channel();
        let outgoing = Outgoing { correlation, frame, answer, permit: Some(permit) };
        match timeout_at(deadline, self.0.outgoing.send(outgoing)).await {
            Ok(Ok(())) => {
                let (arrived, delayed) = (self.0.queue.arrived(), self.0.queue.delayed());
                let (connection, latest) = (self.clone(), deadline);
                Ok(Pending {
                    connection,
                    version,
                    answer: pending,
                    deadline,
                    limit,
                    latest,
                    arrived,
                    delayed,
                    is_of: PhantomData,
                })
            }
            Ok(Err(_)) => Err(RequestError::Unsent(self.failure())),
            Err(_) => Err(unsent(self.late::<R>(limit))),
        }
    }

    /// Moves the deadlines of all pending requests on: the broker announced that it answers none for this time.
    pub(crate) fn delay(&self, by: Duration) {
        self.0.queue.delay(by);
    }

    fn late<R: Request>(&self, limit: Duration) -> Error {
        let text = format!("{}: {} has no answer within {limit:?}", self.0.endpoint, name_of(R::KEY));
        Error::new(ErrorKind::Unavailable, text)
    }

    /// Returns why the connection ended.
    fn failure(&self) -> Arc<Error> {
        let closed = || Arc::new(Error::new(ErrorKind::Unavailable, format!("{}: connection closed", self.0.endpoint)));
        self.0.queue.failure().unwrap_or_else(closed)
    }
}

#[cfg(test)]
impl Connection {
    /// Creates a connection without a socket.
    pub(crate) fn unconnected() -> (Self, impl Sized) {
        tests::connection()
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("endpoint", &self.0.endpoint).finish_non_exhaustive()
    }
}

/// A request without an answer. If it is dropped, the answer is ignored.
pub(crate) struct Pending<R> {
    connection: Connection,
    version: i16,
    answer: oneshot::Receiver<Result<Bytes, RequestError>>,
    deadline: Instant,
    limit: Duration,
    /// The deadline moves on while answers arrive, up to this time.
    latest: Instant,
    /// Bytes that had arrived when the deadline was set.
    arrived: u64,
    /// The delay of the connection's requests that the deadline includes.
    delayed: Duration,
    is_of: PhantomData<fn() -> R>,
}

impl<R: Request> Pending<R> {
    /// Moves the deadline on while bytes arrive from the broker, up to `most` from now. Afterwards, only silence for
    /// [`SILENCE`] ends the connection.
    pub(crate) fn while_it_arrives(self, most: Duration) -> Self {
        Self { latest: self.deadline.max(Instant::now() + most), ..self }
    }

    /// Moves the deadline on, if the connection was delayed, or bytes have arrived, since it was set.
    fn extend(&mut self) -> bool {
        let delayed = self.connection.0.queue.delayed();
        let by = delayed.saturating_sub(self.delayed);
        if !by.is_zero() {
            self.delayed = delayed;
            (self.deadline, self.latest) = (self.deadline + by, self.latest + by);
            return true;
        }
        let arrived = self.connection.0.queue.arrived();
        let extends = arrived != self.arrived && self.deadline < self.latest;
        if extends {
            self.arrived = arrived;
            self.deadline = (Instant::now() + SILENCE).min(self.latest);
        }
        extends
    }

    /// Waits for the answer, until the deadline.
    ///
    /// # Errors
    /// [`RequestError::Unanswered`] if the connection ends, the deadline passes (which ends the connection), or the
    /// answer cannot be decoded; [`RequestError::Unsent`] if the connection ended before.
    pub(crate) async fn answer(mut self) -> Result<R::Response, RequestError> {
        self.wait().await
    }

    /// Waits for the answer as [`answer`](Self::answer) does; it is returned once.
    ///
    /// # Cancel safety
    /// Safe: a later call waits on.
    pub(crate) async fn wait(&mut self) -> Result<R::Response, RequestError> {
        let answer = loop {
            match timeout_at(self.deadline, &mut self.answer).await {
                Err(_) if self.extend() => {}
                answer => break answer,
            }
        };
        let Self { connection, version, limit, .. } = self;
        let (version, limit) = (*version, *limit);
        let answer = match answer {
            Ok(Ok(answer)) => answer?,
            Ok(Err(_)) => return Err(RequestError::Unanswered(connection.failure())),
            Err(_) => {
                let error = Arc::new(connection.late::<R>(limit));
                connection.0.queue.fail(Arc::clone(&error));
                return Err(RequestError::Unanswered(error));
            }
        };
        messages::decode::<R>(answer, version).map_err(|error| {
            // After an answer in an unexpected format, the following bytes cannot be interpreted.
            let error = Arc::new(error.in_context(&connection.0.endpoint));
            connection.0.queue.fail(Arc::clone(&error));
            RequestError::Unanswered(error)
        })
    }
}

impl<R> std::fmt::Debug for Pending<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").field("connection", &self.connection).finish_non_exhaustive()
    }
}

/// Returns a random byte, for delays that must differ between processes.
pub(super) fn random_byte() -> u8 {
    use ring::rand::SecureRandom;
    let mut byte = [0];
    // Without random bytes the delay is the same in all processes, which is acceptable.
    let _filled = ring::rand::SystemRandom::new().fill(&mut byte);
    byte[0]
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::FetchRequest;
    use tokio::time::sleep;

    use super::*;

    pub(super) fn connection() -> (Connection, mpsc::Receiver<Outgoing>) {
        let (outgoing, incoming) = mpsc::channel(1);
        let connection = Connection(Arc::new(Inner {
            endpoint: Endpoint { host: "localhost".into(), port: 9092 },
            versions: BrokerVersions::default(),
            client_id: StrBytes::default(),
            correlation: AtomicI32::new(1),
            outgoing,
            room: Arc::new(Semaphore::new(1)),
            queue: Arc::default(),
            expires: None,
        }));
        (connection, incoming)
    }

    fn pending(
        connection: &Connection,
        answer: oneshot::Receiver<Result<Bytes, RequestError>>,
        limit: Duration,
    ) -> Pending<FetchRequest> {
        let (connection, deadline, delayed) = (connection.clone(), Instant::now() + limit, Duration::ZERO);
        let (arrived, is_of) = (0, PhantomData);
        Pending { connection, version: 12, answer, deadline, limit, latest: deadline, arrived, delayed, is_of }
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_by_the_broker_moves_the_deadline_of_what_was_sent_before() {
        let ((connection, _incoming), start) = (connection(), Instant::now());
        let (_answer, answer) = oneshot::channel();
        let pending = pending(&connection, answer, Duration::from_secs(4));
        connection.delay(Duration::from_secs(7));
        connection.delay(Duration::from_secs(8));
        assert!(pending.answer().await.is_err());
        assert_eq!(start.elapsed().as_secs(), 19);
    }

    /// A request without an answer, of which a byte arrives in each of the next seconds; returns its time until it fails.
    async fn fails_after(seconds: u64) -> u64 {
        let (connection, _incoming) = connection();
        let (queue, start) = (Arc::clone(&connection.0.queue), Instant::now());
        let (_answer, answer) = oneshot::channel();
        let limit = Duration::from_secs(4);
        let pending = pending(&connection, answer, limit).while_it_arrives(Duration::from_secs(20));
        let arrives = async {
            for _ in 0..seconds {
                sleep(Duration::from_secs(1)).await;
                queue.add_arrived(1);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            answer = pending.answer() => assert!(answer.is_err()),
            () = arrives => {}
        }
        start.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_arrives_slowly_is_awaited_up_to_a_limit() {
        assert_eq!(fails_after(0).await, 4);
        assert!((10..=14).contains(&fails_after(8).await));
        assert_eq!(fails_after(60).await, 20);
    }

    #[test]
    fn the_task_ends_with_the_last_handle_even_while_it_writes() {
        let (connection, _incoming) = connection();
        let queue = Arc::clone(&connection.0.queue);
        drop(connection);
        assert!(queue.failure().is_some());
    }
}
