//! Influences from outside the inbox: the isolation level of a database, a handler's own row, a shared table's name.

use sqlx::{AssertSqlSafe, PgPool};
use tidings_core::{Claim, Failure, IdempotencyStore, Name, Outcome};
use tidings_postgres::PostgresStore;
use tidings_testbed::Postgres;
use uuid::Uuid;

use crate::common::{TestResult, config, database, delivery, handle, number, patient, written};
use crate::{LONG, Sums, claimed, refs, schema, shared, tx};

pub(crate) async fn isolation() -> TestResult {
    for level in ["repeatable read", "serializable"] {
        completed_meanwhile(level).await.map_err(|error| format!("{level}: {error}"))?;
    }
    Ok(())
}

/// While a claim waits for another that is not over, its event is completed.
async fn completed_meanwhile(level: &str) -> TestResult {
    let url = Postgres::shared().await?.fresh_database().await?;
    let name = url.rsplit('/').next().unwrap();
    let set = format!("ALTER DATABASE {name} SET default_transaction_isolation = '{level}'");
    sqlx::query(AssertSqlSafe(set)).execute(&PgPool::connect(&url).await?).await?;
    let store = PostgresStore::connect_with(patient(config(&url))).await?;
    let watch = PgPool::connect(&url).await?;
    let isolation: String = sqlx::query_scalar("SHOW transaction_isolation").fetch_one(store.pool()).await?;
    assert_eq!(isolation, level, "handlers have what the database sets");
    let (event, schema) = (Uuid::now_v7(), schema(&store));
    let lease = store.acquire_lease(&Name::from("orders"), LONG).await?;
    let run = |sql: &str| AssertSqlSafe(sql.replace("tidings.", &format!("{schema}.")));
    let mut other = store.pool().begin().await?;
    let claim = "INSERT INTO tidings.claims (scope, event_id, holder, touched_at) VALUES ('orders', $1, $2, now())";
    sqlx::query(run(claim)).bind(event).bind(Uuid::now_v7()).execute(&mut *other).await?;
    let claiming = {
        let (store, lease) = (store.clone(), lease.clone());
        tokio::spawn(async move { store.claim(&lease, &refs(&[(event, 1)])).await })
    };
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND datname = current_database() AND query LIKE '%claim%'";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&watch).await? == 0 {
        assert!(!claiming.is_finished(), "it waited for nobody: {:?}", claiming.await);
        tokio::task::yield_now().await;
    }
    sqlx::query(run("INSERT INTO tidings.done VALUES ('orders', $1, 'order.placed', now())"))
        .bind(event)
        .execute(&mut *other)
        .await?;
    sqlx::query(run("DELETE FROM tidings.claims WHERE event_id = $1")).bind(event).execute(&mut *other).await?;
    other.commit().await?;
    let claims = claiming.await??;
    assert!(matches!(claims[..], [Claim::Done]), "{claims:?}");
    Ok(())
}

/// By mistake, as a service does that had no inbox before.
pub(crate) async fn own_row() -> TestResult {
    let (store, table) = shared().await?;
    let sums = Sums::new(store.pool()).await?;
    let events = [(Uuid::now_v7(), 1)];
    let lease = claimed(&store, LONG, &events).await?;
    let handled = async |writes_row: bool| {
        let (sums, table) = (sums.clone(), table.clone());
        handle(&store, delivery(&lease, &events), move |delivery| {
            let (sums, table) = (sums.clone(), table.clone());
            async move {
                let mut tx = tx(&delivery).await?;
                sums.write(&mut tx, number(delivery.record())).await?;
                if writes_row {
                    let row = format!("INSERT INTO {table} VALUES ($1, 'order.placed', 'orders', now())");
                    sqlx::query(AssertSqlSafe(row)).bind(events[0].0).execute(&mut **tx).await?;
                }
                Ok(Outcome::handled())
            }
        })
        .await
    };
    let error = handled(true).await.unwrap_err();
    assert_eq!(Failure::of(error.as_ref()), Failure::Unavailable, "{error}");
    assert!(format!("{error:?}").contains("the inbox alone may write that"), "{error:?}");
    assert!(written(store.pool(), &sums.table).await?.is_empty());
    // Nothing is lost: it is handled once the handler is mended.
    assert!(handled(false).await?.is_completed());
    assert_eq!(written(store.pool(), &sums.table).await?, [1]);
    Ok(())
}

/// The schema that our own SQL names.
pub(crate) async fn name_like_ours() -> TestResult {
    let pool = PgPool::connect(database().await?).await?;
    let table = format!("tidings.processed_{}", Uuid::now_v7().simple());
    let create = format!(
        "CREATE SCHEMA IF NOT EXISTS tidings;
         CREATE TABLE {table} (event_id UUID, event_type VARCHAR(100), service_name VARCHAR(50),
         processed_at TIMESTAMP, UNIQUE (event_id, service_name))"
    );
    sqlx::raw_sql(AssertSqlSafe(create)).execute(&pool).await?;
    let config = config(database().await?).with_shared_done_table(table.clone());
    let store = PostgresStore::connect_with(config).await?;
    let events = [(Uuid::now_v7(), 1)];
    let lease = claimed(&store, LONG, &events).await?;
    store.complete(&lease, &refs(&events)).await?;
    let count = AssertSqlSafe(format!("SELECT count(*) FROM {table} WHERE service_name = 'orders'"));
    assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&pool).await?, 1);
    assert!(matches!(store.claim(&lease, &refs(&events)).await?[..], [Claim::Done]));
    Ok(())
}
