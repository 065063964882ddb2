//! Shutdown signals of the operating system.
//!
//! Signals are listened to before a shutdown can begin and until it has ended: a second one must be seen while the
//! first is being served.

use tidings_core::{Error, ErrorKind, Result};

/// Receives Ctrl-C, and on Unix SIGTERM. No signal is lost between two calls of [`next`](Self::next).
#[derive(Debug)]
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

/// Returns the error of a process that cannot listen to signals.
fn failed(error: std::io::Error) -> Error {
    Error::caused_by(ErrorKind::Invalid, "listen for shutdown signals", error)
}

#[cfg(unix)]
impl Signals {
    /// Starts to listen: from now on the signals do not end the process by themselves.
    pub(crate) fn listen() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate()).map_err(failed)? })
    }

    /// Waits for the next signal. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<()> {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        Ok(())
    }
}

#[cfg(not(unix))]
impl Signals {
    /// Starts to listen. Outside Unix nothing has to be registered.
    pub(crate) fn listen() -> Result<Self> {
        Ok(Self {})
    }

    /// Waits for the next Ctrl-C. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<()> {
        tokio::signal::ctrl_c().await.map_err(failed)
    }
}
