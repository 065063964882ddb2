//! Blocking work, away from the runtime's own threads.

use crate::error::{Error, Result};

/// Runs blocking work on a separate thread.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::failed(format!("a task of the testbed ended: {error}"))),
    }
}
