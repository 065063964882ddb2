//! `DeadLetters` on the dead-letter topics of the memory transport, and on a store.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "only a part of it is needed here")]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::records;
use tidings_core::{
    Commit, ConsumerOptions, DeadLetter, DeadLetterSink, ErrorKind, Guarantees, LetterId, LetterQuery, LetterState,
    Position, Publisher, Record, ResolutionKind, Result, Step, StoredRecord, Timestamp, Topic, TopicPartition,
    Transport, async_trait, headers,
};
use tidings_memory::{Faults, MemoryConfig, MemoryDeadLetters, MemoryTransport, PublishFault};
use tidings_service::{DeadLetters, RedriveOptions, RedriveReport};
use tokio::time::{Instant, sleep, timeout};

const LEASE: Duration = Duration::from_secs(30);

/// A topic `t` of one partition, whose letters lie in `partitions` partitions.
async fn memory(partitions: u32) -> MemoryTransport {
    let transport = MemoryTransport::new();
    let topics = [("t", 1), ("t-dlq", partitions), ("t-dlq-state", partitions)];
    let topics = topics.map(|(name, partitions)| Topic::new(name).with_partitions(partitions));
    for answer in transport.admin().await.unwrap().create_topics(&topics).await.unwrap() {
        answer.unwrap();
    }
    transport
}

fn letter(offset: u64, key: Option<String>) -> DeadLetter {
    let mut record = StoredRecord::new(offset, Timestamp::from_millis(1)).with_value(offset.to_string());
    record.key = key.map(Into::into);
    DeadLetter::new("s", TopicPartition::new("t", 0), record, ErrorKind::Failed).with_error(format!("no {offset}."))
}

/// Three keys in turn.
fn keyed(offset: u64) -> DeadLetter {
    letter(offset, Some((offset % 3).to_string()))
}

fn id(offset: u64) -> LetterId {
    keyed(offset).id()
}

async fn bury(transport: &MemoryTransport, letters: impl IntoIterator<Item = DeadLetter>) {
    for answer in transport.dead_letters().await.unwrap().bury(letters.into_iter().collect()).await {
        answer.unwrap();
    }
}

async fn open(transport: &MemoryTransport) -> DeadLetters {
    DeadLetters::open(transport, ["t"]).await.unwrap().with_operator("ann")
}

async fn redrive(transport: &MemoryTransport) -> RedriveReport {
    let options = RedriveOptions::default().with_lease(LEASE);
    open(transport).await.redrive(&LetterQuery::default(), &options).await.unwrap()
}

fn number(record: &StoredRecord) -> u64 {
    std::str::from_utf8(record.value.as_ref().unwrap()).unwrap().parse().unwrap()
}

/// Returns the offsets of the letters that are back in their topic.
async fn back(transport: &MemoryTransport) -> Vec<u64> {
    records(transport, "t").await.iter().map(number).collect()
}

async fn offsets(letters: &DeadLetters, query: &LetterQuery) -> Vec<u64> {
    letters.list(query).await.unwrap().iter().map(|letter| letter.record.offset).collect()
}

/// Publishes the first `whole` calls; of the next, half of its records, and never answers.
#[derive(Debug)]
struct Cut {
    inner: Arc<dyn Publisher>,
    whole: AtomicUsize,
}

#[async_trait]
impl Publisher for Cut {
    async fn publish(&self, mut records: Vec<Record>) -> Vec<Result<Position>> {
        let whole = self.whole.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if whole {
            return self.inner.publish(records).await;
        }
        records.truncate(records.len().div_ceil(2));
        self.inner.publish(records).await;
        std::future::pending().await
    }
    async fn close(&self, deadline: Duration) -> Result<()> {
        self.inner.close(deadline).await
    }
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

#[tokio::test(start_paused = true)]
async fn letters_go_back_once_in_the_order_of_their_keys_and_stay_closed_for_others() {
    let transport = memory(3).await;
    bury(&transport, (0..30).rev().map(keyed)).await;
    // As after a crash between burying and committing; a letter of another topic; and a note.
    bury(&transport, (5..15).map(keyed)).await;
    let note = Record::new("t-dlq", "a note");
    transport.publisher().await.unwrap().publish(vec![note]).await.remove(0).unwrap();
    let report = redrive(&transport).await;
    assert_eq!((report.redriven, report.skipped, report.refused.len()), (30, 0, 0), "{report:?}");
    let found = back(&transport).await;
    assert_eq!(found.len(), 30);
    for key in 0..3 {
        assert!(found.iter().filter(|n| *n % 3 == key).is_sorted(), "{found:?}");
    }
    let record = records(&transport, "t").await.remove(0);
    assert_eq!(record.headers.get_str(headers::REDRIVE_FOR), Some("s"));
    assert_eq!(redrive(&transport).await.redriven, 0, "another handle sees that they are closed");
    bury(&transport, (28..33).map(keyed)).await;
    assert_eq!(redrive(&transport).await.redriven, 3);
}

#[tokio::test(start_paused = true)]
async fn a_selection_is_listed_by_pages_discarded_parked_and_shown() {
    let transport = memory(3).await;
    bury(&transport, (0..3_000).map(keyed)).await;
    let letters = open(&transport).await;
    let all = LetterQuery::default();
    assert_eq!(letters.count(&all).await.unwrap(), 3_000);
    let (mut query, mut seen) = (all.clone().with_limit(700), Vec::new());
    loop {
        let page = letters.list(&query).await.unwrap();
        let Some(last) = page.last() else { break };
        query = query.with_after(last.id());
        seen.extend(page.iter().map(|letter| letter.record.offset));
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..3_000).collect::<Vec<_>>());
    assert_eq!(letters.discard(&all.clone().with_error("no 7."), "old").await.unwrap(), 1);
    assert_eq!(letters.park(&all.clone().with_ids([id(8), id(9)]), "later").await.unwrap(), 2);
    assert_eq!(offsets(&letters, &all.clone().with_state(LetterState::Parked).with_error("8")).await, [8]);
    let other = open(&transport).await;
    assert_eq!(other.count(&all).await.unwrap(), 2_997);
    let shown = other.get(&id(7)).await.unwrap().unwrap().resolution.unwrap();
    assert_eq!((shown.kind, shown.by.as_str(), shown.reason.as_str()), (ResolutionKind::Discarded, "ann", "old"));
    assert_eq!(other.get(&id(9_999)).await.unwrap(), None);
    for bad in [letters.discard(&all, " ").await, letters.park(&all.with_state(LetterState::Any), "why").await] {
        assert_eq!(bad.unwrap_err().kind(), ErrorKind::Invalid);
    }
    other.close().await.unwrap();
    // Letters are read by position.
    let groups = transport.admin().await.unwrap().list_groups().await.unwrap();
    assert!(!groups.iter().any(|group| group.starts_with("dead-letters")), "{groups:?}");
    letters.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn two_redrives_at_once_publish_each_letter_once() {
    let transport = memory(2).await;
    bury(&transport, (0..60).map(keyed)).await;
    bury(&transport, (60..90).map(|offset| letter(offset, None))).await;
    let run = || {
        let transport = transport.clone();
        tokio::spawn(async move {
            let letters = open(&transport).await;
            letters.redrive(&LetterQuery::default(), &RedriveOptions::default().with_batch(7)).await.unwrap()
        })
    };
    let (one, other) = (run(), run());
    let (one, other) = (one.await.unwrap(), other.await.unwrap());
    assert_eq!(one.redriven + other.redriven, 90, "{one:?} {other:?}");
    let mut found = back(&transport).await;
    for key in 0..3 {
        assert!(found.iter().filter(|n| **n < 60 && *n % 3 == key).is_sorted(), "{found:?}");
    }
    found.sort_unstable();
    assert_eq!(found, (0..90).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn what_an_interrupted_run_published_is_found_and_not_published_again() {
    for whole in [0, 2] {
        let transport = memory(2).await;
        // Keyless ones, so that a round has many letters; and two that are the same but for their offsets.
        bury(&transport, (0..20).map(|offset| letter(offset, None))).await;
        let mut twin = letter(20, None);
        twin.record.value = Some("0".into());
        bury(&transport, [twin]).await;
        let publisher = Cut { inner: transport.publisher().await.unwrap(), whole: AtomicUsize::new(whole) };
        let store = Arc::clone(open(&transport).await.store());
        let interrupted = DeadLetters::new(store, Arc::new(publisher));
        let options = RedriveOptions::default().with_lease(LEASE).with_batch(8);
        let run = timeout(Duration::from_secs(5), interrupted.redrive(&LetterQuery::default(), &options)).await;
        assert!(run.is_err(), "it was interrupted");
        let published = back(&transport).await.len();
        assert!((2..21).contains(&published), "{published}");
        // The letters in doubt are leased, and the others go.
        let report = redrive(&transport).await;
        assert_eq!(report.skipped, if whole == 2 { 5 } else { 8 }, "{report:?}");
        sleep(LEASE).await;
        let report = redrive(&transport).await;
        assert!(report.skipped > 0 && report.redriven > 0, "{report:?}");
        let mut found = back(&transport).await;
        found.sort_unstable();
        let mut expected: Vec<u64> = (0..20).collect();
        expected.insert(0, 0);
        assert_eq!(found, expected);
        assert_eq!(redrive(&transport).await.redriven, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_letter_whose_answer_was_lost_is_published_once_whether_its_record_arrived_or_not() {
    for stored in [true, false] {
        let transport = memory(1).await;
        bury(&transport, (0..4).map(|offset| letter(offset, None))).await;
        transport.faults().publish(PublishFault::unknown(stored).with_topic("t"));
        let letters = open(&transport).await;
        let options = RedriveOptions::default().with_lease(LEASE);
        let error = letters.redrive(&LetterQuery::default(), &options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Indeterminate, "{error}");
        assert_eq!(redrive(&transport).await.skipped, 1, "it stays leased");
        sleep(LEASE).await;
        let report = redrive(&transport).await;
        assert_eq!((report.redriven, report.skipped), (u64::from(!stored), u64::from(stored)));
        let mut found = back(&transport).await;
        found.sort_unstable();
        assert_eq!(found, [0, 1, 2, 3]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_state_that_could_not_be_recorded_leaves_the_letter_leased_and_found() {
    let transport = memory(1).await;
    bury(&transport, [keyed(1)]).await;
    let closing = |record: &Record| record.value.as_deref() == Some(b"redriven");
    transport.faults().publish(PublishFault::new(ErrorKind::Unavailable).with_matching(closing));
    let options = RedriveOptions::default().with_lease(LEASE);
    let error = open(&transport).await.redrive(&LetterQuery::default(), &options).await.unwrap_err();
    assert!(error.to_string().contains("published, but could not be closed"), "{error}");
    sleep(LEASE).await;
    assert_eq!(redrive(&transport).await.skipped, 1);
    assert_eq!(back(&transport).await, [1]);
    let shown = open(&transport).await.get(&id(1)).await.unwrap().unwrap().resolution.unwrap();
    assert_eq!((shown.kind, shown.by.as_str()), (ResolutionKind::Redriven, "an interrupted redrive"));
}

#[tokio::test(start_paused = true)]
async fn a_refused_letter_is_reported_and_holds_back_its_key_alone() {
    // Refuses the second letter of each key in turn, as keys may or may not share a partition of the letters.
    for (refused, kind) in [(3, ErrorKind::Invalid), (4, ErrorKind::TooLarge), (5, ErrorKind::Invalid)] {
        let transport = memory(2).await;
        bury(&transport, (0..12).map(keyed)).await;
        let value = refused.to_string();
        let one = move |record: &Record| record.topic == "t" && record.value.as_deref() == Some(value.as_bytes());
        transport.faults().publish(PublishFault::new(kind).with_matching(one).with_times(Faults::UNTIL_HEALED));
        for expected in [9, 0] {
            let report = redrive(&transport).await;
            let named: Vec<_> = report.refused.iter().map(|(id, error)| (id.offset, error.kind())).collect();
            assert_eq!((report.redriven, report.behind, named), (expected, 2, vec![(refused, kind)]));
        }
        transport.faults().heal();
        assert_eq!(redrive(&transport).await.redriven, 3);
        let found = back(&transport).await;
        assert!((0..3).all(|key| found.iter().filter(|n| *n % 3 == key).is_sorted()), "{found:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn letters_that_an_older_version_redrove_are_closed() {
    let transport = memory(1).await;
    bury(&transport, (0..5).map(keyed)).await;
    let options = ConsumerOptions::new("s-redrive", ["t-dlq"]);
    let consumer = transport.consumer(options).await.unwrap();
    let epoch = loop {
        if let Step::Assigned(given) = consumer.next().await.unwrap() {
            break given[0].epoch;
        }
    };
    let commit = Commit::new(TopicPartition::new("t-dlq", 0), epoch, 3).with_metadata("redrive 17 3");
    consumer.commit(vec![commit]).await.remove(0).unwrap();
    consumer.close().await.unwrap();
    let letters = open(&transport).await;
    assert_eq!(offsets(&letters, &LetterQuery::default()).await, [3, 4]);
    assert_eq!(offsets(&letters, &LetterQuery::default().with_state(LetterState::Closed)).await, [0, 1, 2]);
    assert_eq!(redrive(&transport).await.redriven, 2);
    assert_eq!(back(&transport).await, [3, 4]);
}

#[tokio::test(start_paused = true)]
async fn missing_topics_are_named_with_what_to_do() {
    let transport = MemoryTransport::open(MemoryConfig::new().with_auto_create(false)).unwrap();
    let error = DeadLetters::open(&transport, ["t"]).await.unwrap_err();
    assert_eq!((error.kind(), error.report().contains("t-dlq")), (ErrorKind::NotFound, true), "{error}");
    let topics = [Topic::new("t"), Topic::new("t-dlq")];
    transport.admin().await.unwrap().create_topics(&topics).await.unwrap();
    let error = DeadLetters::open(&transport, ["t"]).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(text.contains("t-dlq-state") && text.contains("ensure_topics"), "{text}");
    tidings_core::ensure_topics(&*transport.admin().await.unwrap(), &topics).await.unwrap();
    assert_eq!(open(&transport).await.count(&LetterQuery::default()).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn letters_of_a_topic_made_anew_are_redriven() {
    let transport = memory(1).await;
    bury(&transport, (0..20).map(keyed)).await;
    let letters = open(&transport).await;
    let redrive = async || letters.redrive(&LetterQuery::default(), &RedriveOptions::default()).await.unwrap().redriven;
    assert_eq!(redrive().await, 20);
    transport.faults().truncate(&TopicPartition::new("t-dlq", 0), 0);
    bury(&transport, (100..104).map(keyed)).await;
    assert_eq!(redrive().await, 4);
    bury(&transport, (104..120).map(keyed)).await;
    assert_eq!(redrive().await, 16);
    // The same offset, of a record of another time.
    let mut anew = keyed(100);
    anew.record.timestamp = Timestamp::from_millis(2);
    bury(&transport, [anew]).await;
    assert_eq!(redrive().await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_cannot_be_read_is_named_and_the_others_are_redriven() {
    let transport = memory(2).await;
    bury(&transport, (0..30).map(keyed)).await;
    transport.faults().unreadable(&TopicPartition::new("t-dlq", 0), 3..4);
    let report = redrive(&transport).await;
    let named = report.unreadable.iter().all(|error| error.to_string().contains("t-dlq[0]: offset 3 cannot be read"));
    assert!(named && report.redriven < 30, "{report:?}");
    assert!(report.redriven > 3, "those of the other partition are redriven: {report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_lost_its_partitions_is_opened_again() {
    let transport = memory(1).await;
    bury(&transport, (0..5).map(keyed)).await;
    let letters = open(&transport).await;
    let all = LetterQuery::default();
    assert_eq!(letters.count(&all).await.unwrap(), 5);
    // Longer than a member may be silent.
    sleep(Duration::from_secs(3_600)).await;
    bury(&transport, (5..8).map(keyed)).await;
    assert_eq!(letters.count(&all).await.unwrap(), 8);
    assert_eq!(letters.redrive(&all, &RedriveOptions::default()).await.unwrap().redriven, 8);
}

#[tokio::test(start_paused = true)]
async fn a_limit_a_dry_run_and_a_rate_are_kept() {
    let transport = memory(1).await;
    bury(&transport, (0..30).map(keyed)).await;
    let letters = open(&transport).await;
    let all = LetterQuery::default();
    let options = RedriveOptions::default;
    let report = letters.redrive(&all, &options().with_dry_run(true)).await.unwrap();
    assert_eq!((report.redriven, report.more, back(&transport).await.len()), (30, false, 0));
    let report = letters.redrive(&all, &options().with_limit(7)).await.unwrap();
    assert_eq!((report.redriven, report.more), (7, true));
    let started = Instant::now();
    let report = letters.redrive(&all, &options().with_per_second(10)).await.unwrap();
    assert_eq!((report.redriven, report.more), (23, false));
    assert!(started.elapsed() >= Duration::from_millis(2_300), "{:?}", started.elapsed());
    assert_eq!(back(&transport).await.len(), 30);
}

/// The same verbs on a store.
#[tokio::test(start_paused = true)]
async fn a_store_is_used_alike() {
    let (transport, store) = (MemoryTransport::new(), MemoryDeadLetters::new());
    store.bury((0..2_500).map(keyed).collect()).await.into_iter().for_each(|answer| answer.unwrap());
    let letters = DeadLetters::new(store.clone(), transport.publisher().await.unwrap()).with_operator("ann");
    let all = LetterQuery::default();
    assert_eq!(letters.park(&all.clone().with_ids([id(1)]), "later").await.unwrap(), 1);
    assert_eq!(letters.discard(&all.clone().with_error("no 2."), "old").await.unwrap(), 1);
    let report = letters.redrive(&all, &RedriveOptions::default()).await.unwrap();
    assert_eq!((report.redriven, report.more), (2_498, false));
    let parked = LetterQuery::default().with_state(LetterState::Parked);
    assert_eq!(letters.redrive(&parked, &RedriveOptions::default()).await.unwrap().redriven, 1);
    let shown = letters.get(&id(1)).await.unwrap().unwrap().resolution.unwrap();
    assert_eq!((shown.kind, shown.by.as_str()), (ResolutionKind::Redriven, "ann"));
    assert_eq!(letters.count(&all).await.unwrap(), 0);
}
