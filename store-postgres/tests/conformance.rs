//! The suites of an idempotency store, on Postgres: with a table of the store's own and with one that is shared with
//! other services, and of a dead-letter store. They run through a proxy that can cut the way to the server, and over
//! restarts of the process. That a lease's time passes by itself is in `crash.rs`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tidings_conformance::{Setup, Suites};
use tidings_core::audit::{AuditPage, AuditPosition, AuditSink, StoredAudit};
use tidings_core::{
    Claim, DeadLetter, DeadLetterSink, DeadLetterStore, Error, ErrorKind, EventRef, Guarantees, IdempotencyStore,
    Lease, Leased, LetterId, LetterLease, LetterQuery, Name, ReleasedClaim, Resolution, Result, Timestamp, async_trait,
};
use tidings_postgres::{PostgresConfig, PostgresStore};
use tidings_testbed::{Framing, Postgres, Proxy};
use tokio::sync::OnceCell;
use uuid::Uuid;

const SHARED: &str = "CREATE TABLE processed_events (
    event_id UUID, event_type VARCHAR(100), service_name VARCHAR(50), processed_at TIMESTAMP,
    UNIQUE (event_id, service_name)
)";

/// Far longer than a busy machine takes from a lease to its claims. That it ends is up to the hook of passing time.
const LIFETIME: Duration = Duration::from_secs(60);
/// The store looks for older entries about every 10 s; the hook of passing time makes all entries older.
const RETENTION: Duration = Duration::from_secs(70);
/// A new connection goes through the proxy, and what waits for one is called within the suite's patience.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    Suites::new()
        .with_idempotency(setup("own", false).with_retention(RETENTION, || open(false, Some(RETENTION))))
        .with_idempotency(setup("shared", true))
        .with_dead_letters(setup("letters", false))
        .with_audit(setup("audit", false))
        .run()
}

fn setup(name: &str, shared: bool) -> Setup<Proxied> {
    Setup::new(name, move || open(shared, None))
        .with_lifetime(LIFETIME)
        .with_passing_time(move |proxied, time| async move {
            pass(&proxied.config.schema, shared, time).await.map_err(testbed)
        })
        .with_reopen(reopen)
        .with_outage(|proxied, down| async move {
            if down {
                proxied.proxy.refuse()
            } else {
                proxied.proxy.resume()
            }
            Ok(())
        })
}

/// The server's clock is not to be set: instead, all that is dated becomes older, and all leases' ends come nearer.
async fn pass(schema: &str, shared: bool, time: Duration) -> std::result::Result<(), tidings_core::BoxError> {
    let mut direct = PgConnection::connect(DATABASE.get().ok_or("a database is open")?).await?;
    let done = if shared { ("processed_events", "processed_at") } else { ("done", "done_at") };
    for (table, column) in [("holders", "lives_until"), ("claims", "touched_at"), done, ("letters", "leased_until")] {
        let sql = format!("UPDATE {schema}.{table} SET {column} = {column} - $1 * interval '1 second'");
        sqlx::query(AssertSqlSafe(sql)).bind(time.as_secs_f64()).execute(&mut direct).await?;
    }
    Ok(direct.close().await?)
}

static DATABASE: OnceCell<String> = OnceCell::const_new();

/// A store with the proxy that it talks through.
#[derive(Debug)]
struct Proxied {
    store: PostgresStore,
    config: PostgresConfig,
    proxy: Proxy,
}

/// A store in a schema of its own: to make a database takes far longer.
async fn open(shared: bool, retention: Option<Duration>) -> Result<Proxied> {
    let url = DATABASE.get_or_try_init(fresh_database).await?;
    let schema = format!("case_{}", Uuid::now_v7().simple());
    if shared {
        let mut direct = PgConnection::connect(url).await.map_err(testbed)?;
        let sql = format!(
            "CREATE SCHEMA {schema}; {}",
            SHARED.replace("processed_events", &format!("{schema}.processed_events"))
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut direct).await.map_err(testbed)?;
        direct.close().await.map_err(testbed)?;
    }
    let (before, rest) = url.split_once('@').ok_or_else(|| testbed("a URL without a user"))?;
    let (target, database) = rest.split_once('/').ok_or_else(|| testbed("a URL without a database"))?;
    let proxy = Proxy::start(target, Framing::Chunks).map_err(testbed)?;
    let config = PostgresConfig::new(format!("{before}@{}/{database}", proxy.addr()))
        .with_acquire_timeout(ACQUIRE_TIMEOUT)
        .with_schema(schema.clone());
    let config = if shared { config.with_shared_done_table(format!("{schema}.processed_events")) } else { config };
    let config = match retention {
        Some(retention) => config.with_retention(retention),
        None => config,
    };
    let store = PostgresStore::connect_with(config.clone()).await?;
    Ok(Proxied { store, config, proxy })
}

async fn reopen(proxied: Arc<Proxied>) -> Result<Proxied> {
    let Proxied { store, config, proxy } = Arc::into_inner(proxied).expect("the suite holds nothing else of it");
    store.close().await;
    Ok(Proxied { store: PostgresStore::connect_with(config.clone()).await?, config, proxy })
}

async fn fresh_database() -> Result<String> {
    let postgres = Postgres::shared().await.map_err(unavailable)?;
    postgres.fresh_database().await.map_err(unavailable)
}

/// Where there is no server, cases are reported as ignored.
fn unavailable(error: tidings_testbed::Error) -> Error {
    let kind = if error.is_unavailable() { ErrorKind::Unavailable } else { ErrorKind::Failed };
    Error::caused_by(kind, "find a Postgres", error)
}

fn testbed(error: impl Into<tidings_core::BoxError>) -> Error {
    Error::caused_by(ErrorKind::Failed, "prepare a database", error)
}

#[async_trait]
impl IdempotencyStore for Proxied {
    async fn acquire_lease(&self, scope: &Name, ttl: Duration) -> Result<Lease> {
        self.store.acquire_lease(scope, ttl).await
    }

    async fn claim(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Claim>> {
        self.store.claim(lease, events).await
    }

    async fn renew(&self, lease: &Lease) -> Result<()> {
        self.store.renew(lease).await
    }

    async fn complete(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Result<()>>> {
        self.store.complete(lease, events).await
    }

    async fn release(&self, lease: &Lease, events: &[ReleasedClaim]) -> Result<()> {
        self.store.release(lease, events).await
    }

    async fn retire(&self, lease: &Lease) -> Result<()> {
        self.store.retire(lease).await
    }

    async fn purge(&self, scope: &Name, completed_before: Timestamp) -> Result<u64> {
        self.store.purge(scope, completed_before).await
    }

    async fn done(&self, scope: &Name, events: &[EventRef]) -> Result<Vec<bool>> {
        self.store.done(scope, events).await
    }

    fn guarantees(&self) -> Guarantees {
        IdempotencyStore::guarantees(&self.store)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl AuditSink for Proxied {
    async fn append(&self, records: Vec<StoredAudit>) -> Vec<Result<()>> {
        self.store.append(records).await
    }

    async fn read(&self, after: Option<&AuditPosition>, limit: usize) -> Result<AuditPage> {
        self.store.read(after, limit).await
    }

    fn guarantees(&self) -> Guarantees {
        AuditSink::guarantees(&self.store)
    }
}

#[async_trait]
impl DeadLetterSink for Proxied {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>> {
        self.store.bury(letters).await
    }

    async fn check(&self, topics: &[Name]) -> Result<()> {
        self.store.check(topics).await
    }

    fn guarantees(&self) -> Guarantees {
        DeadLetterSink::guarantees(&self.store)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl DeadLetterStore for Proxied {
    async fn list(&self, query: &LetterQuery) -> Result<Vec<DeadLetter>> {
        self.store.list(query).await
    }

    async fn count(&self, query: &LetterQuery) -> Result<u64> {
        self.store.count(query).await
    }

    async fn resolve(&self, letters: &[LetterId], resolution: &Resolution) -> Result<Vec<bool>> {
        self.store.resolve(letters, resolution).await
    }

    async fn lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<Vec<Leased>> {
        self.store.lease(letters, lease).await
    }

    async fn resolve_leased(
        &self,
        letters: &[LetterId],
        lease: &LetterLease,
        resolution: &Resolution,
    ) -> Result<Vec<bool>> {
        self.store.resolve_leased(letters, lease, resolution).await
    }

    async fn end_lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<()> {
        self.store.end_lease(letters, lease).await
    }

    async fn note_refused(&self, refused: &[(LetterId, String)], by: &str) -> Result<()> {
        self.store.note_refused(refused, by).await
    }

    fn unreadable(&self) -> Vec<Error> {
        self.store.unreadable()
    }

    fn unreadable_records(&self) -> u64 {
        self.store.unreadable_records()
    }
}
