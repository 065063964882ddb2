//! Faults of the ends of transactions.

use tidings_core::ErrorKind;

use super::Faults;

/// A fault of committing transactions, for [`Faults::commit_transactions`].
///
/// [`PublishFault`](super::PublishFault) applies to records in transactions, and [`Faults::down`] to all calls.
///
/// ```
/// # use tidings_core::{ErrorKind, Record, Transactor, TransactorOptions, Transport};
/// # use tidings_memory::{Faults, MemoryTransport, TransactionFault};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidings_core::Result<()> {
/// let transport = MemoryTransport::new();
/// let transactor = transport.transactor(TransactorOptions::new("importer-1")).await?;
///
/// // One lost answer is asked for again.
/// transport.faults().commit_transactions(TransactionFault::unknown(true));
/// transactor.publish(vec![Record::new("orders", "1")]).await.remove(0)?;
/// transactor.commit(None).await?;
///
/// // Without any answer the end stays unknown.
/// transport.faults().commit_transactions(TransactionFault::unknown(true).with_times(Faults::UNTIL_HEALED));
/// transactor.publish(vec![Record::new("orders", "2")]).await.remove(0)?;
/// let unknown = transactor.commit(None).await.unwrap_err();
/// assert_eq!(unknown.kind(), ErrorKind::Indeterminate);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct TransactionFault {
    pub(crate) kind: ErrorKind,
    /// Whether the broker has committed when the answer is lost.
    pub(crate) committed: bool,
    times: u32,
}

impl TransactionFault {
    /// Creates a fault: the next commit fails as `kind`, and its transaction is aborted.
    pub fn new(kind: ErrorKind) -> Self {
        Self { kind, committed: false, times: 1 }
    }

    /// Creates a fault: the answer to the next commit is lost, after the broker has committed or, if `committed` is
    /// `false`, before.
    ///
    /// The transactor asks again. After five lost answers the commit ends as
    /// [`Indeterminate`](ErrorKind::Indeterminate).
    pub fn unknown(committed: bool) -> Self {
        Self { committed, ..Self::new(ErrorKind::Indeterminate) }
    }

    /// Sets the number of requests that fail; [`Faults::UNTIL_HEALED`] has no end.
    #[must_use]
    pub fn with_times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    /// Returns the fault, unless it never occurs.
    pub(super) fn of_some(self) -> Option<Self> {
        (self.times > 0).then_some(self)
    }

    /// Takes one of its times.
    pub(super) fn take(fault: &mut Option<Self>) -> Option<Self> {
        let taken = (*fault)?;
        let times = if taken.times == Faults::UNTIL_HEALED { taken.times } else { taken.times - 1 };
        *fault = taken.with_times(times).of_some();
        Some(taken)
    }
}
