//! Names that Postgres has no text for, and what the store forgets by itself.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "only a part of it is needed here")]
mod common;

#[path = "edges/audit.rs"]
mod audit;
#[path = "edges/directory.rs"]
mod directory;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::{LIMIT, TOPIC, TestResult, config, database, handle, record};
use sqlx::AssertSqlSafe;
use tidings_core::{
    BoxError, Claim, DeadLetter, DeadLetterSink, DeadLetterStore, Delivery, DeliveryContext, Error, ErrorKind,
    EventRef, IdempotencyStore, Lease, LetterId, LetterQuery, LetterState, Name, Outcome, RecordBatch, ReleasedClaim,
    Resolution, StoredRecord, Timestamp, TopicPartition, headers,
};
use tidings_postgres::{ActFilter, PostgresConfig, PostgresStore};
use tidings_testbed::Suite;
use uuid::Uuid;

const LONG: Duration = Duration::from_secs(600);
/// Text that no text column accepts unchanged, and text that looks like its escaped form.
const ODD: [&str; 5] = ["a\0b", "\0", "\\0", "\\0a\\0b", "a\\0b"];

fn main() -> ExitCode {
    Suite::new()
        .with_case("names_with_a_nul_are_claimed_completed_and_purged_apart", odd_names)
        .with_case("rows_of_names_with_a_backslash_from_before_are_found", old_rows)
        .with_case("a_delivery_with_a_nul_in_every_name_commits_behind_the_inbox", odd_delivery)
        .with_case("a_letter_with_a_nul_in_every_text_is_found_leased_and_closed", odd_letters)
        .with_case("names_of_any_length_are_claimed_and_commit_behind_the_inbox", long_names)
        .with_case("a_long_event_type_is_cut_to_the_column_of_a_shared_table", long_types)
        .with_case("a_record_of_a_topic_made_anew_is_not_taken_for_the_letter_of_the_old_one", made_anew)
        .with_case("done_events_and_closed_letters_are_forgotten_by_themselves", forgotten)
        .with_case("a_scope_that_cannot_be_purged_keeps_no_other_from_being_purged", forgotten_around_a_failure)
        .with_case("what_is_kept_until_it_is_purged_and_what_others_wrote_stays", kept)
        .with_case("times_beyond_the_servers_calendar_are_taken", far_times)
        .with_case("a_reader_misses_no_audit_record_of_writers_at_the_same_time", audit::followed)
        .with_case("instances_are_listed_and_judged_by_the_servers_clock", directory::entries)
        .with_case("audit_records_are_kept_until_they_are_purged", audit::purged)
        .run()
}

async fn open(change: impl FnOnce(PostgresConfig) -> PostgresConfig) -> TestResult<(PostgresStore, String)> {
    let config = change(config(database().await?));
    let schema = config.schema.clone();
    Ok((PostgresStore::connect_with(config).await?, schema))
}

fn event(event_type: &str) -> EventRef {
    EventRef::new(Uuid::now_v7(), event_type.to_owned())
}

async fn done(store: &PostgresStore, lease: &Lease, event: &EventRef) -> TestResult {
    let events = std::slice::from_ref(event);
    assert!(matches!(store.claim(lease, events).await?[..], [Claim::Granted(_)]));
    store.complete(lease, events).await?.remove(0)?;
    assert_eq!(store.claim(lease, events).await?, [Claim::Done]);
    Ok(())
}

async fn odd_names() -> TestResult {
    let (store, _) = open(|config| config).await?;
    let mut leases = Vec::new();
    let same = event("a\0b");
    for name in ODD {
        let lease = store.acquire_lease(&Name::from(name), LONG).await?;
        // One event in each scope: no two of them are one.
        done(&store, &lease, &EventRef::new(same.id, name)).await?;
        let released = event(name);
        store.claim(&lease, std::slice::from_ref(&released)).await?;
        store.release(&lease, &[ReleasedClaim::new(released.id, 1)]).await?;
        store.renew(&lease).await?;
        leases.push(lease);
    }
    let far = Timestamp::now().saturating_add(LONG);
    assert_eq!(store.purge(&Name::from(ODD[0]), far).await?, 1);
    let again = std::slice::from_ref(&same);
    assert!(matches!(store.claim(&leases[0], again).await?[..], [Claim::Granted(_)]));
    for lease in &leases[1..] {
        assert_eq!(store.claim(lease, again).await?, [Claim::Done], "{:?}", lease.scope);
    }
    Ok(())
}

/// Text that does not compress, so that an index entry has its whole length.
fn random(length: usize) -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(length).collect()
}

async fn long_names() -> TestResult {
    let (store, _) = open(|config| config).await?;
    for length in [2_000, 2_700, 10_000, 1 << 20] {
        let lease = store.acquire_lease(&Name::from(random(length)), LONG).await?;
        done(&store, &lease, &event(&random(length))).await?;
        let stored = StoredRecord::from_record(record(Uuid::now_v7(), 1), 0, Timestamp::now());
        let events = [EventRef::new(tidings_core::codec::peek(&stored)?.id, "order.placed")];
        let mut context = DeliveryContext::new(lease.scope.clone(), random(length));
        context.group = random(length).into();
        let batch = RecordBatch::new(TopicPartition::new(TOPIC, 0), vec![stored]);
        let delivery = Delivery::new(batch, context).with_lease(std::sync::Arc::new(lease.clone()));
        store.claim(&lease, &events).await?;
        handle(&store, delivery, |_| async { Ok::<_, BoxError>(Outcome::handled()) }).await?;
        assert_eq!(store.claim(&lease, &events).await?, [Claim::Done], "{length}");
    }
    // Backslashes count twice: the letter is refused by itself, and not with its neighbours.
    let odd: String =
        std::iter::repeat_with(|| if fastrand::bool() { '\\' } else { fastrand::alphanumeric() }).take(2_000).collect();
    let letter = |service: String| {
        DeadLetter::new(
            service,
            TopicPartition::new(TOPIC, 0),
            StoredRecord::new(1, Timestamp::now()),
            ErrorKind::Failed,
        )
    };
    let answers = store.bury(vec![letter("good".into()), letter(odd)]).await;
    let kinds: Vec<_> = answers.iter().map(|answer| answer.as_ref().err().map(Error::kind)).collect();
    assert_eq!(kinds, [None, Some(ErrorKind::TooLarge)]);
    Ok(())
}

async fn long_types() -> TestResult {
    let table = format!("short_{}", Uuid::now_v7().simple());
    let columns = "event_id UUID, event_type VARCHAR(5), service_name VARCHAR(50), processed_at TIMESTAMP";
    let sql = format!("CREATE TABLE {table} ({columns}, UNIQUE (event_id, service_name))");
    let (plain, _) = open(|config| config).await?;
    sqlx::query(AssertSqlSafe(sql)).execute(plain.pool()).await?;
    let (store, _) = open(|config| config.with_shared_done_table(table.clone())).await?;
    let lease = store.acquire_lease(&Name::from("orders"), LONG).await?;
    for event_type in ["größer", "order", "", "a\0bcdefg"] {
        done(&store, &lease, &event(event_type)).await?;
    }
    assert_eq!(count(&store, &format!("{table} WHERE event_type IN ('größe', 'order')")).await?, 2);
    Ok(())
}

async fn made_anew() -> TestResult {
    let (store, _) = open(|config| config).await?;
    let letter = |offset, time, value: &'static str| {
        let record = StoredRecord::new(offset, Timestamp::from_millis(time)).with_value(value);
        DeadLetter::new("svc", TopicPartition::new(TOPIC, 0), record, ErrorKind::Failed)
    };
    store.bury(vec![letter(1, 1, "old"), letter(2, 1, "old")]).await.into_iter().try_for_each(|answer| answer)?;
    assert!(store.resolve(&[letter(1, 1, "").id()], &Resolution::redriven("ann")).await?[0]);
    // Again, it stays closed.
    store.bury(vec![letter(1, 1, "old")]).await.remove(0)?;
    let answers = store.bury(vec![letter(1, 9, "new"), letter(2, 9, "new"), letter(3, 9, "new")]).await;
    let kinds: Vec<_> = answers.iter().map(|answer| answer.as_ref().err().map(Error::kind)).collect();
    assert_eq!(kinds, [None, Some(ErrorKind::Conflict), None]);
    let mut open: Vec<_> = store.list(&LetterQuery::default()).await?;
    open.sort_by_key(|letter| letter.record.offset);
    assert_eq!(
        open,
        [letter(1, 9, "new"), letter(2, 1, "old"), letter(3, 9, "new")].map(|l| {
            let at = open.iter().find(|o| o.record.offset == l.record.offset).map(|o| o.failed_at);
            l.with_failed_at(at.unwrap())
        })
    );
    Ok(())
}

async fn old_rows() -> TestResult {
    let (store, schema) = open(|config| config).await?;
    let id = Uuid::now_v7();
    let insert = format!("INSERT INTO {schema}.done VALUES ($1, $2, $3, now())");
    let scope = r"team\orders\0";
    sqlx::query(AssertSqlSafe(insert)).bind(scope).bind(id).bind(r"order\placed").execute(store.pool()).await?;
    let lease = store.acquire_lease(&Name::from(scope), LONG).await?;
    assert_eq!(store.claim(&lease, &[EventRef::new(id, r"order\placed")]).await?, [Claim::Done]);
    Ok(())
}

async fn odd_delivery() -> TestResult {
    let (store, _) = open(|config| config).await?;
    for name in ODD {
        let lease = store.acquire_lease(&Name::from(name), LONG).await?;
        let mut placed = record(Uuid::now_v7(), 1);
        let json = String::from_utf8(placed.value.take().unwrap().to_vec())?;
        let event_type = serde_json::to_string(name)?;
        placed.value = Some(json.replace("\"order.placed\"", &event_type).into());
        let stored = StoredRecord::from_record(placed, 0, Timestamp::now());
        let id = tidings_core::codec::peek(&stored)?.id;
        let batch = RecordBatch::new(TopicPartition::new(name, 0), vec![stored]);
        let mut context = DeliveryContext::new(lease.scope.clone(), name);
        context.group = name.into();
        let delivery = Delivery::new(batch, context).with_lease(std::sync::Arc::new(lease.clone()));
        let events = [EventRef::new(id, name)];
        assert!(matches!(store.claim(&lease, &events).await?[..], [Claim::Granted(_)]));
        handle(&store, delivery, |_| async { Ok::<_, BoxError>(Outcome::handled()) }).await?;
        assert_eq!(store.claim(&lease, &events).await?, [Claim::Done], "{name:?}");
    }
    Ok(())
}

fn odd_letter(name: &'static str, offset: u64) -> DeadLetter {
    let headers = tidings_core::Headers::new()
        .with(headers::CONTENT_TYPE, "application/x-postcard")
        .with(headers::EVENT_TYPE, name)
        .with(headers::VERSION, "1.0")
        .with(headers::EVENT_ID, Uuid::from_u128(offset.into()).to_string());
    let record = StoredRecord::new(offset, Timestamp::from_millis(5)).with_key(name).with_value(name);
    DeadLetter::new(name, TopicPartition::new(name, 0), record.with_headers(headers), ErrorKind::Failed)
        .with_handler(name)
        .with_error(name)
}

async fn odd_letters() -> TestResult {
    let (store, _) = open(|config| config).await?;
    for name in ODD {
        let buried = odd_letter(name, 1);
        store.bury(vec![buried.clone()]).await.remove(0)?;
        let query = LetterQuery::default().with_service(name).with_topic(name);
        assert_eq!(store.list(&query).await?, std::slice::from_ref(&buried), "{name:?}");
        let filter = LetterQuery::default().with_service(name).with_event_type(name).with_error(name);
        assert_eq!(store.count(&filter).await?, 1, "{name:?}");
        let lease = tidings_core::LetterLease::new(LONG);
        assert_eq!(store.lease(&[buried.id()], &lease).await?, [tidings_core::Leased::Granted]);
        let resolution = Resolution::discarded(name, name);
        assert_eq!(store.resolve_leased(&[buried.id()], &lease, &resolution).await?, [true]);
        let acts = store.acts(&ActFilter::default().with_letter(buried.id()).with_by(name)).await?;
        assert_eq!((acts.len(), acts[0].by.as_str(), acts[0].why.as_str()), (1, name, name));
    }
    Ok(())
}

async fn count(store: &PostgresStore, what: &str) -> TestResult<i64> {
    Ok(sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {what}"))).fetch_one(store.pool()).await?)
}

/// Makes all rows of a schema older by an hour.
async fn age(store: &PostgresStore, schema: &str) -> TestResult {
    let sql = format!(
        "UPDATE {schema}.done SET done_at = done_at - interval '1 hour';
        UPDATE {schema}.claims SET touched_at = touched_at - interval '1 hour';
        UPDATE {schema}.letters SET closed_at = closed_at - interval '1 hour';"
    );
    Ok(sqlx::raw_sql(AssertSqlSafe(sql)).execute(store.pool()).await.map(drop)?)
}

/// Done events, what is left of a claim, a closed letter and an open one, of this scope.
async fn fill(store: &PostgresStore, scope: &str) -> TestResult {
    let lease = store.acquire_lease(&Name::from(scope.to_owned()), LONG).await?;
    for _ in 0..5 {
        done(store, &lease, &event("e")).await?;
    }
    let released = event("e");
    store.claim(&lease, std::slice::from_ref(&released)).await?;
    store.release(&lease, &[ReleasedClaim::new(released.id, 1)]).await?;
    let letter = |offset| {
        let record = StoredRecord::new(offset, Timestamp::from_millis(1));
        DeadLetter::new(scope.to_owned(), TopicPartition::new(TOPIC, 0), record, ErrorKind::Failed)
    };
    for answer in store.bury(vec![letter(1), letter(2)]).await {
        answer?;
    }
    let id: LetterId = letter(1).id();
    assert!(store.resolve(&[id], &Resolution::redriven("ann")).await?[0]);
    Ok(())
}

async fn forgotten() -> TestResult {
    let (store, schema) = open(|config| config.with_retention(Duration::from_secs(1_800)).with_purge_batch(2)).await?;
    fill(&store, "orders").await?;
    age(&store, &schema).await?;
    let lease = store.acquire_lease(&Name::from("orders"), LONG).await?;
    done(&store, &lease, &event("e")).await?;
    drop(store);
    // With a retention that is looked after every second; another instance has the same scope.
    let config = config(database().await?).with_schema(schema.clone()).with_purge_batch(2);
    let store = PostgresStore::connect_with(config.with_retention(Duration::from_secs(7))).await?;
    store.acquire_lease(&Name::from("orders"), LONG).await?;
    let deadline = Instant::now() + LIMIT;
    let left = || async {
        let rows = ["done", "claims", "letters"].map(|table| format!("{schema}.{table}"));
        Ok::<_, BoxError>((
            count(&store, &rows[0]).await?,
            count(&store, &rows[1]).await?,
            count(&store, &rows[2]).await?,
        ))
    };
    loop {
        let left = left().await?;
        // The last done event goes too, when its time has come: the open letter alone stays.
        if left == (0, 0, 1) {
            break;
        }
        assert!(Instant::now() < deadline, "not forgotten: {left:?}");
        tokio::task::yield_now().await;
    }
    let open = LetterQuery::default().with_state(LetterState::Open);
    assert_eq!(store.count(&open).await?, 1);
    Ok(())
}

async fn forgotten_around_a_failure() -> TestResult {
    let (store, schema) = open(PostgresConfig::without_retention).await?;
    for scope in ["a-broken", "orders"] {
        fill(&store, scope).await?;
    }
    age(&store, &schema).await?;
    let refuse = format!(
        "CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'kept'; END $$;
        CREATE TRIGGER refuse BEFORE DELETE ON {schema}.done FOR EACH ROW WHEN (OLD.scope = 'a-broken')
            EXECUTE FUNCTION {schema}.refuse();"
    );
    sqlx::raw_sql(AssertSqlSafe(refuse)).execute(store.pool()).await?;
    let config = config(database().await?).with_schema(schema.clone()).with_retention(Duration::from_secs(7));
    let forgetting = PostgresStore::connect_with(config).await?;
    for scope in ["a-broken", "orders"] {
        forgetting.acquire_lease(&Name::from(scope), LONG).await?;
    }
    let deadline = Instant::now() + LIMIT;
    loop {
        let done = count(&store, &format!("{schema}.done WHERE scope = 'orders'")).await?;
        let letters = count(&store, &format!("{schema}.letters WHERE closed_at IS NOT NULL")).await?;
        if (done, letters) == (0, 0) {
            break;
        }
        assert!(Instant::now() < deadline, "not forgotten: {done} events, {letters} letters");
        tokio::task::yield_now().await;
    }
    assert_eq!(count(&store, &format!("{schema}.done WHERE scope = 'a-broken'")).await?, 5);
    Ok(())
}

async fn kept() -> TestResult {
    let (keeping, schema) = open(PostgresConfig::without_retention).await?;
    fill(&keeping, "orders").await?;
    fill(&keeping, "theirs").await?;
    age(&keeping, &schema).await?;
    // This one forgets its own, and looks twice.
    let config = config(database().await?).with_schema(schema.clone()).with_retention(Duration::from_secs(1));
    let forgetting = PostgresStore::connect_with(config).await?;
    let lease = forgetting.acquire_lease(&Name::from("mine"), LONG).await?;
    for _ in 0..2 {
        let mine = [event("e")];
        forgetting.claim(&lease, &mine).await?;
        forgetting.complete(&lease, &mine).await?.remove(0)?;
        let deadline = Instant::now() + LIMIT;
        while count(&keeping, &format!("{schema}.done WHERE scope = 'mine'")).await? > 0 {
            assert!(Instant::now() < deadline, "not forgotten");
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(count(&keeping, &format!("{schema}.done")).await?, 10);
    assert_eq!(count(&keeping, &format!("{schema}.letters WHERE closed_at IS NOT NULL")).await?, 2);
    Ok(())
}

async fn far_times() -> TestResult {
    let (store, _) = open(|config| config.with_retention(Duration::MAX)).await?;
    fill(&store, "orders").await?;
    let scope = Name::from("orders");
    assert_eq!(store.purge_closed_letters(Duration::MAX).await?, 0);
    assert_eq!(store.purge(&scope, Timestamp::from_millis(i64::MIN)).await?, 0);
    assert_eq!(store.purge(&scope, Timestamp::from_millis(i64::MAX)).await?, 5);
    let lease = store.acquire_lease(&scope, Duration::MAX).await?;
    store.renew(&lease).await?;
    assert_eq!(store.acquire_lease(&scope, Duration::from_nanos(1)).await.unwrap_err().kind(), ErrorKind::Invalid);
    Ok(())
}
