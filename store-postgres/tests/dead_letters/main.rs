//! Dead letters on Postgres, beyond core's contract: searching, redriving once and in order, discarding, the audit trail.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod once;

use std::collections::HashSet;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sqlx::AssertSqlSafe;
use tidings_core::{
    DeadLetter, DeadLetterSink, DeadLetterStore, Error, ErrorKind, Guarantees, Headers, LetterId, LetterQuery,
    LetterState, Position, Publisher, Record, ResolutionKind, Result, StoredRecord, Timestamp, TopicPartition, headers,
};
use tidings_postgres::{ActFilter, ActKind, PostgresConfig, PostgresStore};
use tidings_service::{DeadLetters, RedriveOptions};
use tidings_testbed::{BoxError, Postgres, Suite};
use uuid::Uuid;

fn main() -> ExitCode {
    Suite::new()
        .with_case("letters_are_found_by_each_condition", found_by_each_condition)
        .with_case("a_letter_is_shown_with_its_event_and_its_fate", shown)
        .with_case("a_selection_is_redriven_in_order_per_key_and_noted", redriven_in_order)
        .with_case("two_operators_at_once_redrive_each_letter_once", once::two_operators)
        .with_case("discards_and_redrives_of_the_same_letters_wait_and_never_in_a_circle", once::no_circle)
        .with_case("a_letter_whose_record_may_arrive_yet_stays_leased", once::indeterminate)
        .with_case("letters_that_another_redrive_has_leased_are_passed_over", once::leased)
        .with_case("two_processes_redrive_each_letter_once", once::two_processes)
        .with_case("behind_a_refused_letter_those_of_its_key_stay_open_over_batches", refused)
        .with_case("an_outage_ends_a_redrive_and_keeps_what_was_done", outage)
        .with_case("after_a_crash_between_publishing_and_closing_it_is_a_repeat_of_the_same_event", once::crash)
        .with_case("a_redrive_keeps_to_its_rate", rate)
        .with_case("discarding_needs_a_reason_and_leaves_it", discarded)
        .with_case("a_purge_forgets_what_is_closed_and_keeps_the_acts", purged)
        .with_case("an_event_type_too_long_for_an_index_is_found_as_well", long_types)
        .with_case("a_right_that_burying_needs_is_missed_at_the_start", rights)
        .run()
}

async fn store() -> Result<PostgresStore, BoxError> {
    let server = Postgres::shared().await?;
    Ok(PostgresStore::connect(&server.fresh_database().await?).await?)
}

fn headers_of(offset: u64, event_type: &str) -> Headers {
    Headers::new()
        .with(headers::CONTENT_TYPE, "application/x-postcard")
        .with(headers::EVENT_TYPE, event_type.to_owned())
        .with(headers::VERSION, "1.0")
        .with(headers::EVENT_ID, event_id(offset).to_string())
}

/// Of offset 0, too, an id that is not the nil UUID, which no event has.
fn event_id(offset: u64) -> Uuid {
    Uuid::from_u128(u128::from(offset) + 1)
}

fn letter(offset: u64, key: &'static str) -> DeadLetter {
    let headers = headers_of(offset, if offset.is_multiple_of(2) { "even" } else { "odd" });
    let record = StoredRecord::new(offset, Timestamp::from_millis(5)).with_key(key).with_value(offset.to_string());
    DeadLetter::new("svc", TopicPartition::new("t", 0), record.with_headers(headers), ErrorKind::Failed)
        .with_error(format!("no {offset}\0 \\"))
        .with_failed_at(Timestamp::from_millis(offset.cast_signed() * 1_000))
}

async fn bury(store: &PostgresStore, letters: impl IntoIterator<Item = DeadLetter>) {
    for answer in store.bury(letters.into_iter().collect()).await {
        answer.unwrap();
    }
}

fn id(offset: u64) -> LetterId {
    letter(offset, "").id()
}

async fn offsets(store: &PostgresStore, filter: &LetterQuery) -> Vec<u64> {
    store.list(filter).await.unwrap().iter().map(|letter| letter.record.offset).collect()
}

/// Returns the letters of a store, for ann.
fn letters(store: &PostgresStore, broker: &Arc<Broker>) -> DeadLetters {
    DeadLetters::new(store.clone(), Arc::clone(broker) as Arc<dyn Publisher>).with_operator("ann")
}

/// A broker that notes what it is given, and refuses what it is told to.
#[derive(Debug)]
struct Broker {
    published: Mutex<Vec<Record>>,
    refused: HashSet<u64>,
    down: AtomicBool,
    in_doubt: AtomicBool,
}

impl Broker {
    fn new() -> Arc<Self> {
        Self::refusing([])
    }

    fn refusing(offsets: impl IntoIterator<Item = u64>) -> Arc<Self> {
        let (published, refused) = (Mutex::default(), offsets.into_iter().collect());
        let (down, in_doubt) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { published, refused, down, in_doubt })
    }

    fn values(&self) -> Vec<u64> {
        self.published.lock().unwrap().iter().map(value).collect()
    }
}

fn value(record: &Record) -> u64 {
    std::str::from_utf8(record.value.as_ref().unwrap()).unwrap().parse().unwrap()
}

#[async_trait]
impl Publisher for Broker {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let mut published = self.published.lock().unwrap();
        let answer = |record: Record| match value(&record) {
            _ if self.down.load(Ordering::SeqCst) => Err(Error::new(ErrorKind::Unavailable, "publish")),
            _ if self.in_doubt.load(Ordering::SeqCst) => Err(Error::new(ErrorKind::Indeterminate, "publish")),
            n if self.refused.contains(&n) => Err(Error::new(ErrorKind::TooLarge, "publish: too large")),
            n => {
                published.push(record);
                Ok(Position::new(0, n))
            }
        };
        records.into_iter().map(answer).collect()
    }
    async fn close(&self, _: Duration) -> Result<()> {
        Ok(())
    }
    fn guarantees(&self) -> Guarantees {
        Guarantees::all()
    }
}

async fn found_by_each_condition() -> Result<(), BoxError> {
    let store = store().await?;
    let mut other = letter(4, "k");
    (other.service, other.origin.topic, other.kind) = ("other".into(), "u".into(), ErrorKind::TooLarge);
    bury(&store, [letter(1, "k"), letter(2, "k"), letter(3, "k"), other]).await;
    let all = LetterQuery::default;
    let time = |n| Some(Timestamp::from_millis(n));
    for (filter, expected) in [
        (all(), vec![1, 2, 3, 4]),
        (all().with_service("other"), vec![4]),
        (all().with_topic("t"), vec![1, 2, 3]),
        (all().with_event_type("even"), vec![2, 4]),
        (all().with_kind(ErrorKind::TooLarge), vec![4]),
        (all().with_error("no 3"), vec![3]),
        (all().with_error("\0 \\"), vec![1, 2, 3, 4]),
        (all().with_times(time(2_000), time(4_000)), vec![2, 3]),
        (all().with_ids([id(1), id(3), id(4)]), vec![1, 3]),
        (all().with_ids([]), vec![]),
        (all().with_topic("t").with_event_type("odd").with_after(id(1)), vec![3]),
        (all().with_limit(2), vec![1, 2]),
        (all().with_state(LetterState::Closed), vec![]),
    ] {
        assert_eq!(offsets(&store, &filter).await, expected, "{filter:?}");
    }
    assert_eq!(store.count(&all().with_topic("t")).await?, 3);
    let letters = letters(&store, &Broker::new());
    assert_eq!(letters.discard(&all().with_ids([]), "nothing is selected").await?, 0);
    assert_eq!(letters.redrive(&all().with_ids([]), &RedriveOptions::default()).await?.redriven, 0);
    Ok(())
}

async fn shown() -> Result<(), BoxError> {
    let store = store().await?;
    let letters = letters(&store, &Broker::new());
    bury(&store, [letter(7, "k")]).await;
    let shown = letters.get(&id(7)).await?.unwrap();
    assert_eq!(shown, letter(7, "k"));
    assert_eq!((shown.event_id(), shown.event_type().as_deref()), (Some(event_id(7)), Some("odd")));
    letters.discard(&LetterQuery::default(), "old").await?;
    let closed = letters.get(&id(7)).await?.unwrap().resolution.unwrap();
    assert_eq!((closed.kind, closed.by.as_str(), closed.reason.as_str()), (ResolutionKind::Discarded, "ann", "old"));
    assert_eq!(letters.get(&id(8)).await?, None);
    Ok(())
}

async fn redriven_in_order() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    // Buried out of order, as after a rebalance.
    let keys = ["a", "b", "c"];
    bury(&store, (0..30).rev().map(|n| letter(n, keys[n as usize % 3]))).await;
    let options = RedriveOptions::default().with_reason("fixed").with_batch(7);
    let filter = LetterQuery::default().with_event_type("even");
    let report = letters(&store, &broker).redrive(&filter, &options).await?;
    assert_eq!((report.redriven, report.refused.len()), (15, 0));
    for key in 0..3 {
        let of_key: Vec<u64> = broker.values().into_iter().filter(|n| n % 3 == key).collect();
        assert!(of_key.is_sorted() && of_key.len() == 5, "{of_key:?}");
    }
    assert!(broker.published.lock().unwrap().iter().all(|r| r.headers.get_str(headers::REDRIVE_FOR) == Some("svc")));
    assert_eq!(store.count(&LetterQuery::default()).await?, 15);
    let acts = store.acts(&ActFilter::default().with_letter(id(4))).await?;
    let [act] = &acts[..] else { panic!("{acts:?}") };
    assert_eq!((act.kind, act.by.as_str(), act.why.as_str()), (ActKind::Redriven, "ann", "fixed"));
    assert_eq!(act.letter, Some(id(4)));
    Ok(())
}

async fn refused() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::refusing([2]));
    bury(&store, (0..10).map(|n| letter(n, ["a", "b"][n as usize % 2]))).await;
    let options = RedriveOptions::default().with_batch(3);
    let report = letters(&store, &broker).redrive(&LetterQuery::default(), &options).await?;
    assert_eq!(report.redriven, 6);
    let refused: Vec<_> = report.refused.iter().map(|(id, e)| (id.offset, e.kind())).collect();
    assert_eq!((refused, report.behind), (vec![(2, ErrorKind::TooLarge)], 3));
    assert_eq!(offsets(&store, &LetterQuery::default()).await, [2, 4, 6, 8]);
    let acts = store.acts(&ActFilter::default().with_kind(ActKind::RedriveFailed)).await?;
    assert_eq!(acts.iter().map(|act| act.letter.clone().unwrap().offset).collect::<Vec<_>>(), [2]);
    assert!(acts[0].by == "ann" && acts[0].why.contains("too large"), "{acts:?}");
    Ok(())
}

async fn outage() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    bury(&store, (0..10).map(|n| letter(n, "k"))).await;
    let options = RedriveOptions::default().with_batch(4);
    broker.down.store(true, Ordering::SeqCst);
    let error = letters(&store, &broker).redrive(&LetterQuery::default(), &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    broker.down.store(false, Ordering::SeqCst);
    assert_eq!(letters(&store, &broker).redrive(&LetterQuery::default(), &options).await?.redriven, 10);
    assert_eq!(broker.values(), (0..10).collect::<Vec<_>>());
    Ok(())
}

async fn rate() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    bury(&store, (0..30).map(|n| letter(n, "k"))).await;
    let started = Instant::now();
    let options = RedriveOptions::default().with_per_second(20);
    let report = letters(&store, &broker).redrive(&LetterQuery::default(), &options).await?;
    assert_eq!(report.redriven, 30);
    // 20 in the first second, 10 in the next half.
    assert!(started.elapsed() >= Duration::from_millis(1_400), "{:?}", started.elapsed());
    Ok(())
}

async fn discarded() -> Result<(), BoxError> {
    let store = store().await?;
    bury(&store, (0..1_200).map(|n| letter(n, "k"))).await;
    let letters = letters(&store, &Broker::new());
    let odd = LetterQuery::default().with_event_type("odd");
    assert_eq!(letters.discard(&odd, "  ").await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(letters.discard(&odd, "test data").await?, 600);
    assert_eq!(letters.clone().with_operator("bob").discard(&odd, "again").await?, 0);
    assert_eq!(store.count(&LetterQuery::default()).await?, 600);
    let acts = store.acts(&ActFilter::default().with_by("ann").with_limit(5_000)).await?;
    assert_eq!(acts.len(), 600);
    assert!(acts.iter().all(|act| act.kind == ActKind::Discarded && act.why == "test data"));
    assert_eq!(store.acts(&ActFilter::default().with_by("bob")).await?, []);
    Ok(())
}

async fn purged() -> Result<(), BoxError> {
    let store = store().await?;
    bury(&store, (0..10).map(|n| letter(n, "k"))).await;
    let letters = letters(&store, &Broker::refusing([5]));
    letters.discard(&LetterQuery::default().with_ids((0..4).map(id)), "test data").await?;
    assert_eq!(store.purge_closed_letters(Duration::from_secs(3_600)).await?, 0);
    assert_eq!(store.purge_closed_letters(Duration::ZERO).await?, 4);
    assert_eq!(store.count(&LetterQuery::default().with_state(LetterState::Any)).await?, 6);
    assert_eq!(store.acts(&ActFilter::default()).await?.len(), 4);
    assert_eq!(store.purge_acts(Duration::from_secs(3_600)).await?, 0);
    assert_eq!(store.purge_acts(Duration::MAX).await?, 0);
    assert_eq!(store.purge_acts(Duration::ZERO).await?, 4);
    // The attempts to redrive an open letter stay recorded.
    let options = RedriveOptions::default();
    letters.redrive(&LetterQuery::default().with_ids([id(5)]), &options).await?;
    assert_eq!(store.purge_acts(Duration::ZERO).await?, 0);
    Ok(())
}

async fn long_types() -> Result<(), BoxError> {
    let store = store().await?;
    // Of random letters, as an index makes repeats small; and of what takes most room once it is escaped.
    let mut random = fastrand::Rng::with_seed(1);
    let mut noise = |length| (0..length).map(|_| random.alphanumeric()).collect::<String>();
    let types = [noise(512), "\\".repeat(512), noise(513), noise(9_000)];
    bury(&store, types.iter().zip(0..).map(|(name, n)| typed(n, name))).await;
    for (name, n) in types.iter().zip(0..) {
        let shown = letters(&store, &Broker::new()).get(&id(n)).await?.unwrap();
        assert_eq!(shown, typed(n, name));
        let found = offsets(&store, &LetterQuery::default().with_event_type(name.as_str())).await;
        assert_eq!(found, [n], "of {} bytes", name.len());
    }
    Ok(())
}

/// A letter of an event of this type.
fn typed(offset: u64, name: &str) -> DeadLetter {
    let mut letter = letter(offset, "k");
    letter.record.headers = headers_of(offset, name);
    letter
}

async fn rights() -> Result<(), BoxError> {
    let url = Postgres::shared().await?.fresh_database().await?;
    let owner = PostgresStore::connect(&url).await?;
    let run = async |sql: String| sqlx::raw_sql(AssertSqlSafe(sql)).execute(owner.pool()).await.map(drop);
    let role = format!("role_{}", Uuid::now_v7().simple());
    run(format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'pw'; GRANT USAGE ON SCHEMA tidings TO {role};
        GRANT SELECT ON tidings.migrations TO {role}"
    ))
    .await?;
    let (_, place) = url.split_once('@').unwrap();
    let config = PostgresConfig::new(format!("postgres://{role}:pw@{place}")).with_migrate(false);
    let store = PostgresStore::connect_with(config).await?;
    let rights = [
        "INSERT ON tidings.letters",
        "SELECT ON tidings.letters",
        "UPDATE ON tidings.letters",
        "INSERT ON tidings.acts",
        "USAGE ON SEQUENCE tidings.letter_numbers",
    ];
    for missing in rights {
        for right in rights.iter().filter(|right| **right != missing) {
            run(format!("GRANT {right} TO {role}")).await?;
        }
        assert_eq!(store.check(&[]).await.unwrap_err().kind(), ErrorKind::Denied, "without {missing}");
        run(format!("GRANT {missing} TO {role}")).await?;
        store.check(&[]).await?;
        for right in rights {
            run(format!("REVOKE {right} FROM {role}")).await?;
        }
    }
    Ok(())
}
