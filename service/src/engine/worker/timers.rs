//! A worker's timers, driven by one sleep.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// A queue of values with due times.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    heap: BinaryHeap<Entry<T>>,
    /// Values with equal times become due in the order they were added.
    serial: u64,
    sleep: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
struct Entry<T> {
    at: Instant,
    serial: u64,
    value: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    // Reversed: the heap's greatest entry is the one due first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.serial).cmp(&(self.at, self.serial))
    }
}

impl<T> Timers<T> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), serial: 0, sleep: None }
    }

    pub(crate) fn set(&mut self, at: Instant, value: T) {
        self.serial += 1;
        self.heap.push(Entry { at, serial: self.serial, value });
    }

    /// Returns the next value that is due; registers the waker for the one after it.
    pub(crate) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        loop {
            let Some(at) = self.heap.peek().map(|entry| entry.at) else {
                self.sleep = None;
                return Poll::Pending;
            };
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if sleep.deadline() != at {
                sleep.as_mut().reset(at);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // Elapsed: a sleep must not be polled again before it is reset.
            self.sleep = None;
            if let Some(entry) = self.heap.pop() {
                return Poll::Ready(entry.value);
            }
        }
    }

    /// Removes all values that match, due or not.
    pub(crate) fn take_where(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Vec<T> {
        let (mut taken, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.heap).into_vec().into_iter().partition(|entry| wanted(&entry.value));
        self.heap = kept.into();
        taken.sort_by_key(|entry| (entry.at, entry.serial));
        taken.into_iter().map(|entry| entry.value).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn values_become_due_in_the_order_of_time_then_of_setting() {
        let mut timers = Timers::new();
        let now = Instant::now();
        timers.set(now + Duration::from_secs(2), "c");
        timers.set(now + Duration::from_secs(1), "a");
        timers.set(now + Duration::from_secs(1), "b");
        let mut due = Vec::new();
        for _ in 0..3 {
            due.push((poll_fn(|cx| timers.poll_due(cx)).await, now.elapsed().as_secs()));
        }
        assert_eq!(due, [("a", 1), ("b", 1), ("c", 2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_value_set_later_is_due_first() {
        let mut timers = Timers::new();
        timers.set(Instant::now() + Duration::from_secs(9), 9);
        assert!(poll_fn(|cx| Poll::Ready(timers.poll_due(cx))).await.is_pending());
        timers.set(Instant::now() + Duration::from_secs(1), 1);
        assert_eq!(poll_fn(|cx| timers.poll_due(cx)).await, 1);
        assert_eq!(timers.take_where(|v| *v == 9), [9]);
    }
}
