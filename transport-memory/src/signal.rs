//! How a sleeping consumer is woken, at no cost while it is awake.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Wakes one consumer, only when it sleeps.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    sleeping: AtomicBool,
    notify: Notify,
}

impl Signal {
    /// Says that the consumer is about to sleep: it must look once more before it does.
    pub(crate) fn sleep(&self) {
        // SeqCst, here and in `wake`: either the consumer sees what was changed, or the one who changed it sees it sleep.
        self.sleeping.store(true, Ordering::SeqCst);
    }

    pub(crate) fn awake(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }

    /// Waits for `wake`. A wake that nobody waited for ends the next wait: who is woken looks, and sleeps again.
    pub(crate) async fn woken(&self) {
        self.notify.notified().await;
    }

    pub(crate) fn wake(&self) {
        if self.sleeping.load(Ordering::SeqCst) && self.sleeping.swap(false, Ordering::SeqCst) {
            self.notify.notify_one();
        }
    }
}
