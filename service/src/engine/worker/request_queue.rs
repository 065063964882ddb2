//! Items that wait for a request to a store, a sink or a publisher: sent in batches, with one request in flight.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tidings_core::{Error, ErrorKind};
use tokio::time::Instant;

use super::backoff::backoff;
use super::timers::Timers;

/// The maximum number of events that one request claims or completes.
pub(super) const MAX_EVENTS: usize = 5_000;

/// A kind of request.
pub(super) trait Request: fmt::Debug + Send + 'static {
    type Item: fmt::Debug + Send + 'static;
    type Answer: Send + 'static;
    /// The name of what answers, for the error of a missing answer.
    const PEER: &'static str;
    /// Whether a failed request is repeated before any later item is sent.
    const ORDERED: bool = false;

    /// Takes the items of the next request from those that wait.
    fn take(&self, waiting: &mut Vec<Entry<Self::Item>>) -> Vec<Entry<Self::Item>> {
        std::mem::take(waiting)
    }

    /// Sends a request. Its answers are in the order of `items`; those that are missing count as failed.
    fn send(&self, items: Vec<Entry<Self::Item>>) -> Sending<Self>;
}

/// A request in flight.
pub(super) type Sending<R> = Pin<Box<dyn Future<Output = Sent<R>> + Send>>;

/// A request's items, and the answers to them.
pub(super) type Sent<R> = (Vec<Entry<<R as Request>::Item>>, Vec<Answer<R>>);

/// The answer to one item. The error of a whole request is shared by its items.
pub(super) type Answer<R> = Result<<R as Request>::Answer, Arc<Error>>;

/// An item, with the number of requests that failed for it in a row.
#[derive(Debug)]
pub(super) struct Entry<I> {
    pub(super) item: I,
    pub(super) failures: u32,
}

/// The items of one kind of request.
pub(super) struct RequestQueue<R: Request> {
    request: R,
    waiting: Vec<Entry<R::Item>>,
    in_flight: Option<Sending<R>>,
    /// The most failures of an item in flight.
    in_flight_failures: u32,
    /// Items of failed requests, until they are sent again.
    failed: Timers<Vec<Entry<R::Item>>>,
    random: fastrand::Rng,
}

impl<R: Request> fmt::Debug for RequestQueue<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestQueue")
            .field("request", &self.request)
            .field("waiting", &self.waiting)
            .field("in_flight", &self.in_flight.is_some())
            .finish_non_exhaustive()
    }
}

impl<R: Request> RequestQueue<R> {
    pub(super) fn new(request: R, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { request, waiting: Vec::new(), in_flight: None, in_flight_failures: 0, failed: Timers::new(), random }
    }

    pub(super) fn push(&mut self, item: R::Item) {
        self.waiting.push(Entry { item, failures: 0 });
    }

    /// Sends items of a failed request again, after a wait that grows with their failures.
    pub(super) fn retry(&mut self, mut entries: Vec<Entry<R::Item>>, now: Instant) {
        if entries.is_empty() {
            return;
        }
        entries.iter_mut().for_each(|entry| entry.failures = entry.failures.saturating_add(1));
        let failures = entries.iter().map(|entry| entry.failures).max().unwrap_or(1);
        self.failed.set(now + backoff(failures, &mut self.random), entries);
    }

    /// Returns the items that are not in flight.
    pub(super) fn items(&self) -> impl Iterator<Item = &R::Item> {
        self.waiting.iter().chain(self.failed.iter().flatten()).map(|entry| &entry.item)
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Returns the number of items that were never sent.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Returns whether no item waits for a request or its answer.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_none() && self.failed.is_empty()
    }

    /// Returns the highest number of requests that failed in a row for one item.
    pub(super) fn failures(&self) -> u32 {
        let failed = self.failed.iter().flatten().chain(&self.waiting).map(|entry| entry.failures);
        failed.max().unwrap_or(0).max(if self.is_in_flight() { self.in_flight_failures } else { 0 })
    }

    /// Returns when the next failed item is sent again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.failed.due()
    }

    /// Sends what waits, and returns the answers of a request. While `held`, no request is sent.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, now: Instant, held: bool) -> Poll<Sent<R>> {
        while let Some(again) = self.failed.pop_due(now) {
            if R::ORDERED {
                self.waiting.splice(0..0, again);
            } else {
                self.waiting.extend(again);
            }
        }
        let waits = held || self.waiting.is_empty() || R::ORDERED && !self.failed.is_empty();
        if self.in_flight.is_none() && !waits {
            let entries = self.request.take(&mut self.waiting);
            if !entries.is_empty() {
                self.in_flight_failures = entries.iter().map(|entry| entry.failures).max().unwrap_or(0);
                self.in_flight = Some(self.request.send(entries));
            }
        }
        let Some(sending) = &mut self.in_flight else { return Poll::Pending };
        let Poll::Ready((entries, mut answers)) = sending.as_mut().poll(cx) else { return Poll::Pending };
        self.in_flight = None;
        while answers.len() < entries.len() {
            let missing = Error::new(ErrorKind::Indeterminate, format!("{} gave no answer", R::PEER));
            answers.push(Err(Arc::new(missing)));
        }
        Poll::Ready((entries, answers))
    }

    /// Removes the items that match and are not in flight.
    pub(super) fn take_where(&mut self, wanted: impl Fn(&Entry<R::Item>) -> bool) -> Vec<R::Item> {
        let mut taken: Vec<_> = self.waiting.extract_if(.., |entry| wanted(entry)).collect();
        self.failed.retain(|again| {
            taken.extend(again.extract_if(.., |entry| wanted(entry)));
            !again.is_empty()
        });
        taken.into_iter().map(|entry| entry.item).collect()
    }
}

/// Returns the answers of a request that failed as a whole.
pub(super) fn all_failed<A>(count: usize, error: Error) -> Vec<Result<A, Arc<Error>>> {
    let error = Arc::new(error);
    (0..count).map(|_| Err(error.clone())).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::time::Duration;

    use proptest::prelude::{prop, proptest};
    use proptest::test_runner::Config;

    use super::*;

    /// Answers as scripted: each request is answered for that many items, and fails for those of odd digits.
    #[derive(Debug)]
    struct Scripted<const ORDERED: bool> {
        max: usize,
        script: Arc<Mutex<Vec<(usize, u8)>>>,
        sent: Arc<Mutex<Vec<Vec<u32>>>>,
    }

    impl<const O: bool> Request for Scripted<O> {
        type Item = u32;
        type Answer = ();
        const PEER: &'static str = "the script";
        const ORDERED: bool = O;

        fn take(&self, waiting: &mut Vec<Entry<u32>>) -> Vec<Entry<u32>> {
            waiting.drain(..waiting.len().min(self.max)).collect()
        }

        fn send(&self, items: Vec<Entry<u32>>) -> Sending<Self> {
            self.sent.lock().unwrap().push(items.iter().map(|entry| entry.item).collect());
            let (answered, fails) = self.script.lock().unwrap().pop().unwrap_or((usize::MAX, 0));
            let fail = |n: usize| {
                let error = || Err(Arc::new(Error::new(ErrorKind::Unavailable, "as scripted")));
                if fails >> (n % 8) & 1 == 1 { error() } else { Ok(()) }
            };
            let answers = (0..items.len().min(answered)).map(fail).collect();
            Box::pin(std::future::ready((items, answers)))
        }
    }

    /// Sends `items` in pushes of `pushes`; returns how often each was answered, and the requests.
    fn run<const O: bool>(script: Vec<(usize, u8)>, max: usize, pushes: &[u32]) -> (BTreeMap<u32, u32>, Vec<Vec<u32>>) {
        let (script, sent) = (Arc::new(Mutex::new(script)), Arc::new(Mutex::new(Vec::new())));
        let request = Scripted::<O> { max, script, sent: sent.clone() };
        let mut queue = RequestQueue::new(request, 7);
        let (mut answered, mut next, mut now) = (BTreeMap::new(), 0, Instant::now());
        let mut pushes = pushes.iter();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        loop {
            let pushed = pushes.next().map(|count| {
                (0..*count).for_each(|_| {
                    queue.push(next);
                    next += 1;
                })
            });
            let mut again = Vec::new();
            if let Poll::Ready((entries, answers)) = queue.poll(&mut cx, now, false) {
                assert_eq!(entries.len(), answers.len());
                for (entry, answer) in entries.into_iter().zip(answers) {
                    match answer {
                        Ok(()) => *answered.entry(entry.item).or_default() += 1,
                        Err(_) => again.push(entry),
                    }
                }
                queue.retry(again, now);
            } else if pushed.is_none() && queue.is_empty() {
                break;
            } else if let Some(due) = queue.due() {
                now = due;
            }
        }
        (answered, sent.lock().unwrap().clone())
    }

    proptest! {
        #![proptest_config(Config { cases: 256, failure_persistence: None, ..Config::default() })]

        #[test]
        fn every_item_is_answered_once_whatever_fails(
            script in prop::collection::vec((0_usize..6, 0_u8..255), 0..12),
            max in 1_usize..5,
            pushes in prop::collection::vec(0_u32..5, 1..8),
        ) {
            let count = pushes.iter().sum();
            for (answered, _) in [run::<false>(script.clone(), max, &pushes), run::<true>(script.clone(), max, &pushes)] {
                assert_eq!(answered, (0..count).map(|item| (item, 1)).collect());
            }
        }

        #[test]
        fn an_ordered_queue_sends_no_item_before_a_failed_one(
            script in prop::collection::vec((0_usize..6, 0_u8..255), 0..12),
            pushes in prop::collection::vec(0_u32..5, 1..8),
        ) {
            let (_, sent) = run::<true>(script, 3, &pushes);
            for (at, request) in sent.iter().enumerate() {
                let is_sent_again = |item: &&u32| sent[at + 1..].iter().flatten().any(|later| later == *item);
                let failed: Vec<u32> = request.iter().filter(is_sent_again).copied().collect();
                assert!(failed.is_empty() || sent[at + 1].starts_with(&failed), "{sent:?}");
            }
        }
    }

    #[test]
    fn what_is_held_is_not_sent_and_what_is_not_in_flight_can_be_taken() {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let request = Scripted::<false> { max: 9, script: Arc::default(), sent: sent.clone() };
        let mut queue = RequestQueue::new(request, 7);
        let now = Instant::now();
        queue.push(1);
        queue.retry(vec![Entry { item: 2, failures: 3 }], now);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(queue.poll(&mut cx, now, true).is_pending());
        assert!(sent.lock().unwrap().is_empty());
        assert_eq!(queue.failures(), 4);
        assert!(queue.due().is_some_and(|due| due > now + Duration::from_millis(100)));
        assert_eq!(queue.take_where(|entry| entry.item > 0), [1, 2]);
        assert!(queue.is_empty());
    }
}
