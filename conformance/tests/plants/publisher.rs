//! A publisher with a bug.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tidings_core::{
    Admin, Begun, ErrorKind, Guarantees, Header, Headers, Position, Publisher, Record, Result, async_trait, murmur2,
};
use tokio::task::yield_now;

use crate::transport::{BOUND, Bug, error};

/// Calls that the publisher which refuses at its bound has room for.
const ROOM: usize = 20;

#[derive(Debug)]
pub(crate) struct PlantedPublisher {
    inner: Arc<dyn Publisher>,
    /// Another publisher, with its own bound.
    second: Arc<dyn Publisher>,
    admin: Arc<dyn Admin>,
    bug: Bug,
    calls: AtomicUsize,
    open: AtomicUsize,
    closed: AtomicBool,
}

impl PlantedPublisher {
    pub(crate) fn new(inner: Arc<dyn Publisher>, second: Arc<dyn Publisher>, admin: Arc<dyn Admin>, bug: Bug) -> Self {
        let (calls, open, closed) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        Self { inner, second, admin, bug, calls, open, closed }
    }

    async fn by_the_absolute_hash(&self, records: &mut [Record]) {
        for record in records.iter_mut().filter(|record| record.partition.is_none()) {
            let topics = self.admin.describe_topics(std::slice::from_ref(&record.topic)).await;
            let count = topics.ok().and_then(|mut t| t.pop()?.ok()).map_or(1, |t| t.partitions.len() as u32);
            let hash = record.key.as_ref().map(|key| (murmur2(key) as i32).unsigned_abs());
            record.partition = hash.map(|hash| hash % count);
        }
    }

    /// A record as the bug has it.
    fn mangled(&self, mut record: Record) -> Record {
        match self.bug {
            Bug::IgnoresTheNamedPartition if record.key.is_some() => record.partition = None,
            Bug::ReadsTombstonesAsEmpty => record.value = Some(record.value.unwrap_or_default()),
            Bug::DropsDuplicateHeaders => {
                let mut kept = Headers::new();
                for header in record.headers {
                    if !kept.iter().any(|k| k.name == header.name) {
                        kept.push(header);
                    }
                }
                record.headers = kept;
            }
            Bug::ReadsNullHeadersAsEmpty => {
                let filled = |h: Header| Header::new(h.name, h.value.unwrap_or_default());
                record.headers = record.headers.into_iter().map(filled).collect();
            }
            _ => {}
        }
        record
    }

    /// Publishes but those that `lost` names, and answers as if they were stored, too.
    async fn without(&self, records: Vec<Record>, lost: impl Fn(usize, &Record) -> bool) -> Vec<Result<Position>> {
        let count = records.len();
        let kept = records.into_iter().enumerate().filter(|(i, r)| !lost(*i, r)).map(|(_, r)| r).collect();
        let mut answers = self.inner.publish(kept).await;
        answers.resize_with(count, || Ok(Position::new(0, 0)));
        answers
    }

    fn answered(&self, answers: Vec<Result<Position>>) -> Vec<Result<Position>> {
        let as_failed = |answer: Result<Position>| match answer {
            Err(e) if e.kind() == ErrorKind::Indeterminate => Err(error(ErrorKind::Unavailable)),
            other => other,
        };
        match self.bug {
            Bug::ReportsUnknownAsFailed | Bug::StoresWhatAnOutageRefused => {
                answers.into_iter().map(as_failed).collect()
            }
            Bug::OneFailureFailsAll => match answers.iter().find_map(|a| a.as_ref().err().map(|e| e.kind())) {
                Some(kind) => answers.iter().map(|_| Err(error(kind))).collect(),
                None => answers,
            },
            _ => answers,
        }
    }
}

#[async_trait]
impl Publisher for PlantedPublisher {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let mut records: Vec<Record> = records.into_iter().map(|record| self.mangled(record)).collect();
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        match self.bug {
            Bug::NegatesTheHash => self.by_the_absolute_hash(&mut records).await,
            Bug::HoldsBackTheLarge if records.iter().any(|record| record.size() > 500_000) => {
                return std::future::pending().await;
            }
            Bug::DropsATombstone => return self.without(records, |_, record| record.value.is_none()).await,
            Bug::AcknowledgesWhatIsNotStored if call % 7 == 6 => return self.without(records, |_, _| true).await,
            Bug::LosesWhatIsBufferedAtClose => {
                yield_now().await;
                if self.closed.load(Ordering::Relaxed) {
                    return records.iter().map(|_| Ok(Position::new(0, 0))).collect();
                }
            }
            Bug::ReordersConcurrentCalls if call.is_multiple_of(2) => yield_now().await,
            Bug::StoresTwice if call % 4 == 3 => drop(self.inner.publish(records.clone()).await),
            Bug::SendsALargeCallAtOnce if records.len() > BOUND => {
                let rest = records.split_off(records.len() / 2);
                let (mut answers, others) = tokio::join!(self.inner.publish(records), self.second.publish(rest));
                answers.extend(others);
                return answers;
            }
            Bug::RefusesAtTheBound => {
                if self.open.fetch_add(1, Ordering::Relaxed) >= ROOM {
                    self.open.fetch_sub(1, Ordering::Relaxed);
                    return records.iter().map(|_| Err(error(ErrorKind::Unavailable))).collect();
                }
                yield_now().await;
                self.open.fetch_sub(1, Ordering::Relaxed);
            }
            _ => {}
        }
        self.answered(self.inner.publish(records).await)
    }

    fn begin_one(&self, record: Record) -> Begun<'_> {
        Begun::Pending(Box::pin(async move {
            if self.bug == Bug::StoresOneTwice {
                drop(self.publish(vec![record.clone()]).await);
            }
            self.publish(vec![record]).await.remove(0)
        }))
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        self.closed.store(true, Ordering::Relaxed);
        match self.bug {
            Bug::PublishesAfterClose => Ok(()),
            _ => self.inner.close(deadline).await,
        }
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}
