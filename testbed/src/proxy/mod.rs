//! A TCP proxy that injects network faults.

mod pump;

use crate::error::{Context, Error, Result};
use pump::Shared;
use std::{net::SocketAddr, sync::Arc, thread, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
};

/// How the proxy treats bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Forward,
    BlackHole,
    Refuse,
    RefuseNew,
}

/// The unit that counts as one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// The bytes of one read from the socket: works for any protocol, but is approximate.
    Chunks,
    /// A frame of Kafka's protocol: exact, and [`Cut::to_api`] can distinguish the answers.
    Kafka,
}

/// When to cut a connection: around the n-th answer from now on, over all connections.
///
/// ```
/// use tidings_testbed::Cut;
/// // The broker will have the records, and the producer will never hear of it.
/// let produce = 0;
/// let cut = Cut::before_answer(1).to_api(produce);
/// # assert_eq!(cut, Cut::before_answer(1).to_api(0));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    pub(crate) nth: u64,
    pub(crate) after: bool,
    pub(crate) api: Option<i16>,
    pub(crate) repeated: bool,
}

impl Cut {
    /// Cuts before the answer: the server has done the work, but the client does not learn of it. `nth` counts from
    /// 1.
    pub fn before_answer(nth: u64) -> Self {
        Self { nth, after: false, api: None, repeated: false }
    }

    /// Cuts after the answer: the client gets it, and then loses its connection. `nth` counts from 1.
    pub fn after_answer(nth: u64) -> Self {
        Self { nth, after: true, api: None, repeated: false }
    }

    /// Counts only answers to requests with this API key (0 is produce, 1 fetch, 8 offset commit, 24..28
    /// transactions). It requires [`Framing::Kafka`]; with chunks no answer matches.
    #[must_use]
    pub fn to_api(mut self, key: i16) -> Self {
        self.api = Some(key);
        self
    }

    /// Also cuts at each later answer, until [`Proxy::resume`].
    #[must_use]
    pub fn repeated(mut self) -> Self {
        self.repeated = true;
        self
    }
}

/// Traffic counts of a proxy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Connections accepted from clients since the start.
    pub connections: u64,
    /// Currently open connections.
    pub open: u64,
    /// Forwarded frames or chunks from clients.
    pub requests: u64,
    /// Forwarded frames or chunks from the server.
    pub answers: u64,
    /// Connections cut by [`Proxy::cut_all`] or a [`Cut`].
    pub cuts: u64,
}

/// A proxy on loopback, with a thread of its own: it lives until it is dropped, whatever runtime it was started on.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: oneshot::Sender<()>,
}

impl Proxy {
    /// Starts a proxy for `target` (`host:port`) on a free port. The target need not be up.
    ///
    /// # Errors
    /// If no port or thread is available.
    pub fn start(target: impl Into<String>, framing: Framing) -> Result<Self> {
        Self::start_at("127.0.0.1:0", target.into(), framing)
    }

    pub(crate) fn start_at(address: &str, target: String, framing: Framing) -> Result<Self> {
        let listener = std::net::TcpListener::bind(address).context(format!("bind a proxy to {address}"))?;
        listener.set_nonblocking(true).context("prepare a proxy's socket")?;
        let address = listener.local_addr().context("read a proxy's address")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        let shared = Arc::new(Shared::new(framing));
        let (stop, stopped) = oneshot::channel();
        let of_thread = Arc::clone(&shared);
        let serve = move || {
            runtime.block_on(async move {
                tokio::select! {
                    () = accept(listener, target, of_thread) => {}
                    _ = stopped => {}
                }
            });
        };
        thread::Builder::new().name("testbed-proxy".to_owned()).spawn(serve).context("start a proxy's thread")?;
        Ok(Self { address, shared, _stop: stop })
    }

    /// Returns the address for clients.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Cuts all connections now, with a reset. New ones are accepted as before.
    pub fn cut_all(&self) {
        self.shared.cut_all();
    }

    /// Cuts one connection at a chosen answer, once. It replaces a cut that has not happened yet.
    pub fn cut_at(&self, cut: Cut) {
        self.shared.arm(cut);
    }

    /// Delays each answer by `delay` before it is forwarded, one after the other in each connection.
    pub fn delay(&self, delay: Duration) {
        self.shared.set_delay(delay);
    }

    /// Accepts and keeps connections, but forwards nothing, like a network partition. Bytes read meanwhile (at most a
    /// socket's buffer) are forwarded after [`resume`](Self::resume).
    pub fn black_hole(&self) {
        self.shared.set_mode(Mode::BlackHole);
    }

    /// Cuts all connections and closes new ones at once.
    pub fn refuse(&self) {
        self.shared.set_mode(Mode::Refuse);
        self.shared.cut_all();
    }

    /// Closes new connections at once; open ones stay.
    pub fn refuse_new(&self) {
        self.shared.set_mode(Mode::RefuseNew);
    }

    /// Ends [`black_hole`](Self::black_hole), [`refuse`](Self::refuse), [`refuse_new`](Self::refuse_new) and
    /// [`delay`](Self::delay), and disarms [`cut_at`](Self::cut_at).
    pub fn resume(&self) {
        self.shared.disarm();
        self.shared.set_delay(Duration::ZERO);
        self.shared.set_mode(Mode::Forward);
    }

    /// Returns the traffic counts.
    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// Waits until [`Counts::cuts`] is at least `cuts`. Cancel-safe.
    ///
    /// # Errors
    /// If that did not happen within `timeout`.
    pub async fn wait_for_cuts(&self, cuts: u64, timeout: Duration) -> Result<()> {
        let mut counts: watch::Receiver<Counts> = self.shared.watch_counts();
        let reached = counts.wait_for(|counts| counts.cuts >= cuts);
        match tokio::time::timeout(timeout, reached).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Error::failed(format!("fewer than {cuts} connections were cut within {timeout:?}"))),
        }
    }
}

async fn accept(listener: std::net::TcpListener, target: String, shared: Arc<Shared>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        // An error here is a client that left before its connection was accepted.
        let Ok((client, _)) = listener.accept().await else { continue };
        let (shared, target) = (Arc::clone(&shared), target.clone());
        tokio::spawn(async move { serve(client, &target, &shared).await });
    }
}

async fn serve(client: TcpStream, target: &str, shared: &Arc<Shared>) {
    shared.count(|counts| {
        counts.connections += 1;
        counts.open += 1;
    });
    if !matches!(shared.mode(), Mode::Refuse | Mode::RefuseNew) {
        pump::run(client, target, shared).await;
    }
    shared.count(|counts| counts.open -= 1);
}
