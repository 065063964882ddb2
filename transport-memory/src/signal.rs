//! Wake-up of a sleeping consumer, at no cost while it is awake.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Wakes one consumer, only when it sleeps.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    /// Set by the consumer before its last look, cleared by the first waker: further ones cost one
    /// load.
    sleeping: AtomicBool,
    notify: Notify,
}

impl Signal {
    /// Signals that the consumer is about to sleep: it must look once more before it does.
    pub(crate) fn sleep(&self) {
        // SeqCst, here and in `wake`: either the consumer sees the change, or the writer sees it sleep.
        self.sleeping.store(true, Ordering::SeqCst);
    }

    /// Signals that the consumer is awake: it needs no wake-up.
    pub(crate) fn awake(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }

    /// Waits for `wake`. A wake-up without a waiter ends the next wait: the woken consumer looks and sleeps again.
    pub(crate) async fn woken(&self) {
        self.notify.notified().await;
    }

    /// Wakes the consumer if it sleeps. To be called after the change that it should see.
    pub(crate) fn wake(&self) {
        if self.sleeping.load(Ordering::SeqCst) && self.sleeping.swap(false, Ordering::SeqCst) {
            self.notify.notify_one();
        }
    }
}
