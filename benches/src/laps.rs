//! How long records took to come.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::figures::BenchResult;
use crate::kafka::LIMIT;

/// A time from the first record to the last.
#[derive(Debug, Default)]
pub struct Laps {
    count: AtomicU64,
    /// When the first records came, and how many.
    begun: Mutex<Option<(Instant, u64)>>,
    done: Notify,
}

impl Laps {
    /// `records` more are there.
    pub fn came(&self, records: u64) {
        if self.count.fetch_add(records, Ordering::AcqRel) == 0 {
            *self.begun.lock().expect("no panic") = Some((Instant::now(), records));
        }
        self.done.notify_one();
    }

    /// Waits for `all` records; as long as they would have taken if the first ones had not been there at once.
    ///
    /// # Errors
    /// When they do not come in time.
    pub async fn took(&self, all: u64) -> BenchResult<Duration> {
        let wait = async {
            while self.count.load(Ordering::Acquire) < all {
                self.done.notified().await;
            }
        };
        tokio::time::timeout(LIMIT, wait).await.map_err(|_| "the records did not come in time")?;
        let (begun, first) = self.begun.lock().expect("no panic").ok_or("no record came")?;
        Ok(begun.elapsed().mul_f64(all as f64 / all.saturating_sub(first).max(1) as f64))
    }
}
