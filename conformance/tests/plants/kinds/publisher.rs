//! A publisher with a bug.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use tidings_core::{
    Admin, Begun, Error, ErrorKind, Guarantees, Header, Headers, Position, Publisher, Record, Result, async_trait,
    partition_for,
};
use tokio::task::coop::unconstrained;
use tokio::task::yield_now;

use super::{Kind, lock};

#[derive(Debug)]
pub(super) struct BentPublisher {
    inner: Arc<dyn Publisher>,
    admin: Arc<dyn Admin>,
    kind: Kind,
    /// Records that were refused in an outage, or the last one that was stored.
    kept: Mutex<Vec<Record>>,
    refused: Mutex<bool>,
}

/// Bytes that the bugs of length cut at.
const SHORT: usize = 256;

impl BentPublisher {
    pub(super) fn new(inner: Arc<dyn Publisher>, admin: Arc<dyn Admin>, kind: Kind) -> Self {
        Self { inner, admin, kind, kept: Mutex::default(), refused: Mutex::default() }
    }

    async fn place(&self, record: &mut Record, hashed: impl Fn(&[u8]) -> Vec<u8>) {
        let described = self.admin.describe_topics(std::slice::from_ref(&record.topic)).await;
        let count = described.ok().and_then(|mut t| t.pop()?.ok()).map_or(0, |t| t.partitions.len() as u32);
        if let (Some(key), None, 1..) = (&record.key, record.partition, count) {
            record.partition = Some(partition_for(&hashed(key), count));
        }
    }

    /// A record as the bug has it.
    async fn bent(&self, mut record: Record) -> Record {
        match self.kind {
            Kind::KeepsKeylessRecordsTogether if record.key.is_none() => {
                record.partition = record.partition.or(Some(0));
            }
            Kind::CutsANamedPartition => record.partition = record.partition.map(|p| p & 0xff),
            Kind::TakesTheHighestPartitionForAny => record.partition = record.partition.filter(|p| *p < u32::MAX),
            Kind::MeasuresValuesAlone => {
                let small = record.value.as_ref().is_none_or(|v| v.len() < 10_000);
                if small && record.key.as_ref().is_some_and(|k| (30_000..60_000).contains(&k.len())) {
                    record.key = None;
                }
                if small && record.headers.iter().any(|h| h.value.as_ref().is_some_and(|v| v.len() == 40_000)) {
                    record.headers = Headers::new();
                }
            }
            Kind::HashesAPrefix => self.place(&mut record, |key| key[..key.len().min(SHORT)].to_vec()).await,
            Kind::HashesText => {
                self.place(&mut record, |key| String::from_utf8_lossy(key).into_owned().into_bytes()).await;
            }
            Kind::CutsLongKeys => {
                self.place(&mut record, <[u8]>::to_vec).await;
                record.key = record.key.map(|key| key.slice(..key.len().min(SHORT)));
            }
            Kind::CutsLongHeaders => {
                let cut = |mut header: Header| {
                    header.value = header.value.map(|value| value.slice(..value.len().min(SHORT)));
                    header
                };
                record.headers = record.headers.into_iter().map(cut).collect();
            }
            Kind::TakesTimeZeroForNone => record.timestamp = record.timestamp.filter(|time| time.millis() != 0),
            Kind::DropsTheSignOfTimes => {
                record.timestamp = record.timestamp.map(|t| tidings_core::Timestamp::from_millis(t.millis().abs()));
            }
            _ => {}
        }
        record
    }

    fn too_large(&self, record: &Record) -> bool {
        self.kind == Kind::RefusesTwoMebibytes && record.size() > 2 << 20
    }

    /// Publishes all but those beyond a limit, which are answered by `refusal`.
    async fn publish_some(
        &self,
        records: Vec<Record>,
        keep: impl Fn(usize, &Record) -> bool,
        refusal: impl Fn(&[Result<Position>]) -> Result<Position>,
    ) -> Vec<Result<Position>> {
        let kept: Vec<bool> = records.iter().enumerate().map(|(n, record)| keep(n, record)).collect();
        let some = records.into_iter().zip(&kept).filter(|(_, kept)| **kept).map(|(record, _)| record).collect();
        let stored = self.inner.publish(some).await;
        let missing: Vec<_> = kept.iter().map(|kept| (!kept).then(|| refusal(&stored))).collect();
        let mut stored = stored.into_iter();
        let lost = || Err(Error::new(ErrorKind::Indeterminate, "a planted bug"));
        missing.into_iter().map(|missing| missing.or_else(|| stored.next()).unwrap_or_else(lost)).collect()
    }

    /// Keeps what an outage refused, or what was stored last, and stores it once the broker is back.
    async fn remembering(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let answers = self.inner.publish(records.clone()).await;
        let down = answers.iter().any(|a| a.as_ref().is_err_and(|e| e.kind() == ErrorKind::Unavailable));
        let again = {
            let (mut kept, mut refused) = (lock(&self.kept), lock(&self.refused));
            let again = if *refused && !down { std::mem::take(&mut *kept) } else { Vec::new() };
            match self.kind {
                Kind::StoresWhatItRefusedLater if down => kept.extend(records),
                Kind::RepeatsTheLastRecordAfterAnOutage if !down => *kept = records,
                _ => {}
            }
            *refused = down;
            again
        };
        if !again.is_empty() {
            drop(self.inner.publish(again).await);
        }
        answers
    }
}

#[async_trait]
impl Publisher for BentPublisher {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let mut bent = Vec::new();
        for record in records {
            bent.push(self.bent(record).await);
        }
        let first =
            |stored: &[Result<Position>]| Ok(stored.iter().flatten().next().copied().unwrap_or(Position::new(0, 0)));
        match self.kind {
            Kind::StoresWhatItRefusedLater | Kind::RepeatsTheLastRecordAfterAnOutage => self.remembering(bent).await,
            Kind::PublishesToADeletedTopic => {
                let answers = self.inner.publish(bent.clone()).await;
                let known = !lock(&self.kept).is_empty();
                lock(&self.kept).extend(bent);
                let pretend = |answer: Result<Position>| match answer {
                    Err(error) if known && error.kind() == ErrorKind::NotFound => Ok(Position::new(0, 1)),
                    other => other,
                };
                answers.into_iter().map(pretend).collect()
            }
            Kind::NeverYieldsToOthers => unconstrained(self.inner.publish(bent)).await,
            Kind::StoresFourThousandOfACall => self.publish_some(bent, |n, _| n < 4_000, first).await,
            Kind::StoresEqualRecordsOnce => {
                let all = bent.clone();
                self.publish_some(bent, |n, record| !all[..n].contains(record), first).await
            }
            Kind::RefusesTwoMebibytes => {
                let refusal = |_: &[Result<Position>]| Err(Error::new(ErrorKind::TooLarge, "a planted bug"));
                self.publish_some(bent, |_, record| !self.too_large(record), refusal).await
            }
            Kind::SendsLargeRecordsLater if bent.iter().any(|record| record.size() > 100_000) => {
                yield_now().await;
                self.inner.publish(bent).await
            }
            Kind::TakesANullKeyForItsEmptyNeighbour => {
                for n in 1..bent.len() {
                    if bent[n].key.is_none() && bent[n - 1].key.as_ref().is_some_and(bytes_are_empty) {
                        bent[n].key = bent[n - 1].key.clone();
                    }
                }
                self.inner.publish(bent).await
            }
            Kind::SwapsAnswersOfALargeCall if bent.len() > 4_096 => {
                let mut answers = self.inner.publish(bent).await;
                answers.swap(100, 101);
                answers
            }
            _ => self.inner.publish(bent).await,
        }
    }

    fn begin_one(&self, mut record: Record) -> Begun<'_> {
        if self.kind == Kind::IgnoresTheNamedPartitionOfOne && record.key.is_some() {
            record.partition = None;
        }
        Begun::Pending(Box::pin(async move { self.publish(vec![record]).await.remove(0) }))
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        if self.kind == Kind::FailsAtAnEndlessDeadline && deadline > Duration::from_secs(1 << 40) {
            return Err(Error::new(ErrorKind::Indeterminate, "a planted bug"));
        }
        self.inner.close(deadline).await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

fn bytes_are_empty<B: AsRef<[u8]>>(bytes: &B) -> bool {
    bytes.as_ref().is_empty()
}
