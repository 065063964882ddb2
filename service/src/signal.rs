//! Shutdown signals of the operating system.

use tidings_core::{Error, ErrorKind, Result};

/// Resolves on Ctrl-C, and on Unix on SIGTERM.
pub(crate) async fn stop_requested() -> Result<()> {
    let failed = |e: std::io::Error| Error::caused_by(ErrorKind::Invalid, "listen for signals to stop", e);
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted.map_err(failed),
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.map_err(failed)
}
