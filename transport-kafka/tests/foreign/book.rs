//! The records delivered to a service's handler.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidings_core::{BoxError, Delivery, reject};

use crate::common::TestResult;

/// Records of this key are rejected.
pub(crate) const BURY: &[u8] = b"bury";
/// Prefix of the values of good events.
pub(crate) const GOOD: &[u8] = b"good";
/// Number of bytes kept of each value.
const KEPT: usize = 32;

/// Values by partition and offset.
type Values = BTreeMap<(u32, u64), Vec<Vec<u8>>>;

/// The delivered values.
#[derive(Debug, Default)]
pub(crate) struct Book(Mutex<Values>);

impl Book {
    fn lock(&self) -> MutexGuard<'_, Values> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a delivery; rejects one that is to be buried.
    pub(crate) fn handle(&self, delivery: &Delivery) -> Result<(), BoxError> {
        let record = delivery.record();
        let value = record.value.as_deref().unwrap_or_default();
        let value = value[..value.len().min(KEPT)].to_vec();
        self.lock().entry((delivery.partition(), record.offset)).or_default().push(value);
        if record.key.as_deref() == Some(BURY) { Err(reject("a record to bury").into()) } else { Ok(()) }
    }

    /// Returns how many good events, with values that begin so, came from a partition.
    pub(crate) fn good(&self, partition: u32, begin: &str) -> usize {
        let book = self.lock();
        let of = book.iter().filter(|((p, _), _)| *p == partition);
        of.flat_map(|(_, values)| values).filter(|value| value.starts_with(begin.as_bytes())).count()
    }

    /// Returns how many records of a partition are not good events.
    pub(crate) fn foreign(&self, partition: u32) -> usize {
        let book = self.lock();
        let of = book.iter().filter(|((p, _), _)| *p == partition);
        of.flat_map(|(_, values)| values).filter(|value| !value.starts_with(GOOD)).count()
    }

    /// Fails if a good event came twice, or an offset of the partition below `end` was neither delivered nor skipped.
    pub(crate) fn check(&self, partition: u32, end: u64, skipped: &[Range<u64>]) -> TestResult {
        let book = self.lock();
        let mut values = BTreeMap::new();
        for ((p, offset), value) in book.iter().flat_map(|(at, values)| values.iter().map(move |value| (at, value))) {
            if let Some(before) = values.insert(value, (p, offset)).filter(|_| value.starts_with(GOOD)) {
                let value = String::from_utf8_lossy(value);
                return Err(format!("{value} came twice: from {before:?} and {:?}", (p, offset)).into());
            }
        }
        let told = |offset: &u64| {
            book.contains_key(&(partition, *offset)) || skipped.iter().any(|range| range.contains(offset))
        };
        match (0..end).find(|offset| !told(offset)) {
            Some(lost) => Err(format!("offset {lost} of {end} was neither handled nor skipped, of {skipped:?}").into()),
            None => Ok(()),
        }
    }
}
