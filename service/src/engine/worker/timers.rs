//! Values with due times, and the one sleep that a worker has for all of them.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// A queue of values by due times; those with equal times become due in the order in which they were added.
#[derive(Debug)]
pub(super) struct Timers<T> {
    heap: BinaryHeap<Entry<T>>,
    serial: u64,
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
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), serial: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    pub(super) fn set(&mut self, at: Instant, value: T) {
        self.serial += 1;
        self.heap.push(Entry { at, serial: self.serial, value });
    }

    /// Returns when the next value is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// Returns the next value that is due at `now`.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<T> {
        if self.due()? > now {
            return None;
        }
        self.heap.pop().map(|entry| entry.value)
    }

    /// Returns all values with their due times, in no order.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Instant, &T)> {
        self.heap.iter().map(|entry| (entry.at, &entry.value))
    }

    /// Returns all values, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.heap.iter().map(|entry| &entry.value)
    }

    /// Removes the values for which `keep` returns false; `keep` may change the others.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut T) -> bool) {
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        entries.retain_mut(|entry| keep(&mut entry.value));
        self.heap = entries.into();
    }

    /// Removes all values that match, due or not, by their due times.
    pub(super) fn take_where(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Vec<T> {
        let (mut taken, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.heap).into_vec().into_iter().partition(|entry| wanted(&entry.value));
        self.heap = kept.into();
        taken.sort_by_key(|entry| (entry.at, entry.serial));
        taken.into_iter().map(|entry| entry.value).collect()
    }
}

/// The one sleep of a worker.
#[derive(Debug, Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Waits until `at`, or for ever.
    pub(super) fn poll(&mut self, at: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = at else {
            self.0 = None;
            return Poll::Pending;
        };
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        let polled = sleep.as_mut().poll(cx);
        if polled.is_ready() {
            // An elapsed sleep must not be polled again before it is reset.
            self.0 = None;
        }
        polled
    }
}

/// Returns the earliest of these times.
pub(super) fn earliest(times: impl IntoIterator<Item = Option<Instant>>) -> Option<Instant> {
    times.into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn values_become_due_in_the_order_of_time_then_of_setting() {
        let (mut timers, mut alarm) = (Timers::new(), Alarm::default());
        let start = Instant::now();
        timers.set(start + Duration::from_secs(2), "c");
        timers.set(start + Duration::from_secs(1), "a");
        timers.set(start + Duration::from_secs(1), "b");
        let mut due = Vec::new();
        while !timers.is_empty() {
            poll_fn(|cx| alarm.poll(timers.due(), cx)).await;
            while let Some(value) = timers.pop_due(Instant::now()) {
                due.push((value, start.elapsed().as_secs()));
            }
        }
        assert_eq!(due, [("a", 1), ("b", 1), ("c", 2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_value_set_later_is_due_first() {
        let (mut timers, mut alarm) = (Timers::new(), Alarm::default());
        timers.set(Instant::now() + Duration::from_secs(9), 9);
        assert!(poll_fn(|cx| Poll::Ready(alarm.poll(timers.due(), cx))).await.is_pending());
        timers.set(Instant::now() + Duration::from_secs(1), 1);
        poll_fn(|cx| alarm.poll(timers.due(), cx)).await;
        assert_eq!(timers.pop_due(Instant::now()), Some(1));
        assert_eq!(timers.take_where(|v| *v == 9), [9]);
    }
}
