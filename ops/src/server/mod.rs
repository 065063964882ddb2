//! The listener, on a thread and a runtime of its own: it answers while the handlers of all services block their
//! threads.

mod connection;
#[cfg(feature = "tls")]
pub(crate) mod tls;

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use axum::Router;
use tidings_core::{Error, ErrorKind, Result};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};

use self::connection::{Connections, Limits};
pub(crate) use self::connection::{MAX_CONNECTIONS, MAX_LIFETIME, Security};

/// After a failed accept, as when the process has no file descriptor left, the next one waits for this long.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A running endpoint. Keep it: dropped, it stops at once.
///
/// ```
/// use std::time::Duration;
/// use tidings_ops::Ops;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidings_core::Result<()> {
/// let ops = Ops::new().serve("127.0.0.1:0")?;
/// println!("curl http://{}/readyz", ops.local_addr());
/// ops.shutdown(Duration::from_secs(5)).await
/// # }
/// ```
#[derive(Debug)]
#[must_use = "an endpoint stops when its handle is dropped"]
pub struct OpsHandle {
    address: SocketAddr,
    stop: watch::Sender<Option<Duration>>,
    ended: oneshot::Receiver<()>,
}

impl OpsHandle {
    /// Returns the address that the endpoint listens on: of port 0, the port that was chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening, answers the requests that have arrived, for at most `deadline`, and ends the endpoint's thread.
    ///
    /// Cancel-safe: if dropped, the endpoint stops at once.
    ///
    /// # Errors
    /// [`Failed`](ErrorKind::Failed): the endpoint's thread had panicked.
    pub async fn shutdown(self, deadline: Duration) -> Result<()> {
        self.stop.send_replace(Some(deadline));
        let ended = self.ended.await;
        ended.map_err(|_| Error::new(ErrorKind::Failed, "shut the operations endpoint down: its thread had panicked"))
    }
}

/// Binds a listener, and starts its thread.
pub(crate) fn start(
    listener: std::net::TcpListener,
    router: Router,
    security: Security,
    client_timeout: Duration,
) -> io::Result<OpsHandle> {
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let listener = {
        let _entered = runtime.enter();
        TcpListener::from_std(listener)?
    };
    let (stop, stopped) = watch::channel(None);
    let (end, ended) = oneshot::channel();
    let connections = Connections::new(router, security, Limits { client_timeout });
    thread::Builder::new().name("tidings-ops".into()).spawn(move || {
        run(&runtime, listener, connections, stopped);
        // The handle may be gone.
        let _ = end.send(());
    })?;
    Ok(OpsHandle { address, stop, ended })
}

fn run(
    runtime: &Runtime,
    listener: TcpListener,
    mut connections: Connections,
    mut stopped: watch::Receiver<Option<Duration>>,
) {
    runtime.block_on(async move {
        let deadline = tokio::select! {
            () = accept(&listener, &mut connections) => Duration::ZERO,
            stopped = stopped.wait_for(Option::is_some) => stopped.ok().and_then(|deadline| *deadline).unwrap_or_default(),
        };
        drop(listener);
        let dropped = async { while stopped.changed().await.is_ok() {} };
        tokio::select! {
            () = connections.finish(deadline) => {}
            () = dropped => {}
        }
    });
}

/// Accepts connections, without end.
async fn accept(listener: &TcpListener, connections: &mut Connections) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                connections.add(stream, client.ip());
                // It may be answered before later ones push it out.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                tracing::warn!(target: "tidings_ops", %error, "cannot accept a connection; trying again");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}
