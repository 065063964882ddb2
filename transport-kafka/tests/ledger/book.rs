//! The ledger: results reported to publishers, and the effects of events, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidings_core::{ErrorKind, Name, Publisher, Record, Transport};
use tidings_kafka::KafkaTransport;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::common::TestResult;

/// Number of publishing tasks, each with its own keys.
const WRITERS: usize = 4;
/// Number of keys of a writer. Each of its calls has one record per key.
const KEYS: usize = 8;
/// Pause between two calls of a writer.
const PACE: Duration = Duration::from_millis(20);
/// Maximum number of mistakes shown.
const SHOWN: usize = 5;

/// An event: its key, and its number among those of the key.
pub(crate) type Entry = (String, u64);

/// Result of an event, as the publisher reported it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Stored,
    Unknown,
    /// It is not stored.
    Failed(ErrorKind),
}

#[derive(Debug, Default)]
pub(crate) struct Book(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    said: BTreeMap<Entry, Said>,
    effects: Vec<Entry>,
}

impl Book {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the effect of an event, given as its record's value.
    pub(crate) fn effect(&self, value: &str) -> TestResult {
        self.pages().effects.push(entry(value)?);
        Ok(())
    }

    /// Returns the acknowledged events.
    pub(crate) fn stored(&self) -> BTreeSet<Entry> {
        let pages = self.pages();
        pages.said.iter().filter(|(_, said)| **said == Said::Stored).map(|(entry, _)| entry.clone()).collect()
    }

    fn said(&self, entry: Entry, answer: &tidings_core::Result<tidings_core::Position>) {
        let said = match answer {
            Ok(_) => Said::Stored,
            Err(error) if error.kind() == ErrorKind::Indeterminate => Said::Unknown,
            Err(error) => Said::Failed(error.kind()),
        };
        self.pages().said.insert(entry, said);
    }

    pub(crate) fn summary(&self) -> String {
        let pages = self.pages();
        let count = |wanted: fn(&Said) -> bool| pages.said.values().filter(|said| wanted(said)).count();
        format!(
            "{} published: {} acknowledged, {} unknown, {} failed; {} effects",
            pages.said.len(),
            count(|s| *s == Said::Stored),
            count(|s| *s == Said::Unknown),
            count(|s| matches!(s, Said::Failed(_))),
            pages.effects.len(),
        )
    }

    /// Checks that no acknowledged event is lost, none has two effects, none reported as failed has an effect, and
    /// the effects of a key's acknowledged events came in order.
    pub(crate) fn check(&self) -> TestResult {
        let pages = self.pages();
        let mut times: BTreeMap<&Entry, usize> = BTreeMap::new();
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        let mut wrong = Vec::new();
        for entry in &pages.effects {
            *times.entry(entry).or_default() += 1;
            match pages.said.get(entry) {
                Some(Said::Stored) => {
                    let before = last.insert(&entry.0, entry.1);
                    if before.is_some_and(|before| before >= entry.1) {
                        wrong.push(format!("{entry:?} came after number {before:?}"));
                    }
                }
                Some(Said::Unknown) => {}
                said => wrong.push(format!("{entry:?} had an effect, though it was said: {said:?}")),
            }
        }
        wrong.extend(times.iter().filter(|(_, n)| **n > 1).map(|(entry, n)| format!("{entry:?} had {n} effects")));
        let lost = pages.said.iter().filter(|(entry, said)| **said == Said::Stored && !times.contains_key(entry));
        wrong.extend(lost.map(|(entry, _)| format!("{entry:?} is lost")));
        none(&wrong)
    }
}

/// Parses an event from its record's value.
pub(crate) fn entry(value: &str) -> TestResult<Entry> {
    let (key, number) = value.split_once(':').ok_or("a value that nobody wrote")?;
    Ok((key.to_owned(), number.parse()?))
}

/// Returns an error that shows some of the mistakes, if there are any.
pub(crate) fn none(wrong: &[String]) -> TestResult {
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("{} mistakes: {:?}", wrong.len(), &wrong[..wrong.len().min(SHOWN)]).into())
}

/// Tasks that publish until they are stopped.
pub(crate) struct Writers {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Writers {
    pub(crate) async fn start(transport: &KafkaTransport, topic: &Name, book: &Arc<Book>) -> TestResult<Self> {
        let (stop, mut tasks) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        let publisher = transport.publisher().await?;
        for writer in 0..WRITERS {
            tasks.spawn(write(Arc::clone(&publisher), topic.clone(), Arc::clone(book), Arc::clone(&stop), writer));
        }
        Ok(Self { stop, tasks })
    }

    /// Stops the tasks and waits until all published records are answered.
    pub(crate) async fn stop(mut self) -> TestResult {
        self.stop.store(true, Ordering::Release);
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        Ok(())
    }
}

async fn write(publisher: Arc<dyn Publisher>, topic: Name, book: Arc<Book>, stop: Arc<AtomicBool>, writer: usize) {
    for number in 0_u64.. {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let entries: Vec<Entry> = (0..KEYS).map(|key| (format!("{writer}-{key}"), number)).collect();
        let record =
            |(key, number): &Entry| Record::new(topic.clone(), format!("{key}:{number}")).with_key(key.clone());
        let answers = publisher.publish(entries.iter().map(record).collect()).await;
        for (entry, answer) in entries.into_iter().zip(answers) {
            book.said(entry, &answer);
        }
        sleep(PACE).await;
    }
}
