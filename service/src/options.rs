//! Settings of one handler.

use std::time::Duration;

use tidings_core::Name;

/// How many records a batch handler is given at most, unless it says otherwise.
pub const DEFAULT_BATCH_SIZE: usize = 128;

/// How long a batch that is not full waits for more records, unless its handler says otherwise.
pub const DEFAULT_BATCH_WAIT: Duration = Duration::from_millis(20);

/// How many records a batch handler is given, and how long they are waited for.
///
/// ```
/// use std::time::Duration;
/// use tidings_service::BatchOptions;
///
/// let options = BatchOptions::new(500).with_wait(Duration::from_millis(100));
/// assert_eq!(options.size, 500);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchOptions {
    /// How many records at most: [`DEFAULT_BATCH_SIZE`] if not said, at least 1.
    pub size: usize,
    /// How long a batch that is not full waits for more: [`DEFAULT_BATCH_WAIT`] if not said; zero takes what is there.
    pub wait: Duration,
}

impl BatchOptions {
    /// At most `size` records (0 counts as 1).
    pub fn new(size: usize) -> Self {
        Self { size: size.max(1), wait: DEFAULT_BATCH_WAIT }
    }

    /// Waiting so long for more.
    #[must_use]
    pub fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self::new(DEFAULT_BATCH_SIZE)
    }
}

/// What a handler is called and how it is fed: set by [`HandlerExt`](crate::HandlerExt).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandlerOptions {
    /// Its stable name; the event's type if not said.
    pub name: Option<Name>,
    /// How a batch handler is fed.
    pub batch: Option<BatchOptions>,
}
