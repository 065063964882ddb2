//! The public handle of the Postgres store.
//!
//! There are two pools: one for handlers' transactions and the service, one for the store's own
//! calls. Lease renewals and claims thus never wait for handlers that hold all connections.

use std::sync::{Arc, Weak};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, PgPool, Postgres};
use tidings_core::{Error, ErrorKind, Result};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout};

use crate::config::{DoneTable, PostgresConfig};
use crate::error::{failed, failed_write, not_connected};
use crate::idempotency::Texts;
use crate::migrate::migrate;
use crate::retention::{Keeper, Known};
use crate::shared::prepare_shared;
use crate::sql_names::{Done, SqlNames};
use crate::url::Server;

/// Idle time after which a connection is tested before use, since the server may be gone.
const TRIED_AFTER: Duration = Duration::from_secs(1);

/// Backoff after the first failed attempt to connect; doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Upper bound of that backoff.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const OPEN: &str = "open the Postgres store";

const SYNCHRONOUS: &str = "SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') IN ('off', 'local')";
/// Session settings of the store's own calls. Their functions read twice, and the second read must see intermediate
/// commits.
const SYNCHRONOUS_AND_FRESH: &str = "SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') IN ('off', 'local');
    SET default_transaction_isolation = 'read committed'";

/// A store of done events, claims, dead letters and an outbox in a Postgres database that services share.
///
/// Cheap to clone; clones share the connections.
///
/// A store is shared: all instances of a service that use the same schema and prefix see each
/// other's claims. See [`connect_with`](Self::connect_with) for how it is opened, and
/// [`inbox`](Self::inbox) and [`outbox`](Self::outbox) for its parts. Its dead letters are those of a
/// [`DeadLetterStore`](tidings_core::DeadLetterStore).
///
/// ```no_run
/// use tidings_core::DeadLetterSink;
/// use tidings_postgres::PostgresStore;
///
/// # async fn example() -> tidings_core::Result<()> {
/// let store = PostgresStore::connect("postgres://localhost/orders?connect_wait=30s").await?;
/// store.check(&["orders".into()]).await?; // the user may write dead letters
/// store.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct PostgresStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pool: PgPool,
    /// Connections for the store's own calls.
    own: PgPool,
    names: SqlNames,
    /// Statements with the names of this store's tables filled in.
    texts: Texts,
    done: Done,
    config: PostgresConfig,
    /// Names whose old rows this process deletes.
    known: Known,
    /// Enforces the retention; `None` if nothing expires.
    keeper: Option<Keeper>,
}

impl PostgresStore {
    /// Opens the store in the database at `url` with the defaults: see [`connect_with`](Self::connect_with).
    ///
    /// # Errors
    /// Those of [`connect_with`](Self::connect_with).
    pub async fn connect(url: &str) -> Result<Self> {
        Self::connect_with(PostgresConfig::new(url)).await
    }

    /// Opens the store and migrates its tables. Several instances may do so concurrently: one migrates, the others
    /// wait for it. Cancel-safe: either all migrations are applied or none.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid): a setting is wrong, or a table is not as expected; the message names it.
    /// [`Denied`](ErrorKind::Denied): the password or the certificate is wrong, or a right is missing.
    /// [`NotFound`](ErrorKind::NotFound): there is no such database, or migrations are missing and may not be run.
    /// [`Conflict`](ErrorKind::Conflict): the tables are of a newer program.
    /// [`Unavailable`](ErrorKind::Unavailable): the server does not answer, for as long as
    /// [`connect_wait`](PostgresConfig::connect_wait) says.
    /// The error's text names the server and the cause.
    pub async fn connect_with(config: PostgresConfig) -> Result<Self> {
        config.check()?;
        let names = SqlNames::new(&config);
        let server = Server::read(config.url.expose()).map_err(|e| e.in_context(OPEN))?;
        let options = connect_options(&config, &server);
        // A separate connection: unlike the pool, it reports at once why it can't be opened.
        let mut connection = connect(&config, &server, &options).await?;
        let context = format!("{OPEN} at {}", server.shown());
        let explained = |e: Error| Error::explained(e.kind(), &context, &e);
        let limit = config.migration_timeout;
        migrate(&mut connection, &names, config.migrate, limit).await.map_err(explained)?;
        let done = match &config.done_table {
            DoneTable::Own => Done::default(),
            DoneTable::Shared { table } => {
                prepare_shared(&mut connection, &names, table, &config).await.map_err(explained)?
            }
        };
        let _closed = timeout(config.acquire_timeout, connection.close()).await;
        let texts = Texts::new(&names, &done);
        let own = pool(&config, config.store_connections, options.clone(), SYNCHRONOUS_AND_FRESH);
        let pool = pool(&config, config.max_connections, options, SYNCHRONOUS);
        let inner = Arc::new_cyclic(|inner: &Weak<Inner>| {
            let keeper = config.kept_for().map(|retention| Keeper::start(Weak::clone(inner), retention));
            Inner { pool, own, names, texts, done, config, known: Known::default(), keeper }
        });
        Ok(Self { inner })
    }

    pub(crate) fn from_inner(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Returns the connection pool of handlers, which the service's own statements may use too. The store's own calls
    /// use a separate pool.
    pub fn pool(&self) -> &PgPool {
        &self.inner.pool
    }

    /// Closes all connections; those in use close when they are returned. Later calls on any clone fail as
    /// [`Closed`](ErrorKind::Closed). Dropping the future does not stop the close.
    pub async fn close(&self) {
        if let Some(keeper) = &self.inner.keeper {
            keeper.stop();
        }
        // A connection that is in use for longer closes when it is returned.
        let _in_time = timeout(self.config().answer_within, async {
            self.pool().close().await;
            self.inner.own.close().await;
        })
        .await;
    }

    pub(crate) fn names(&self) -> &SqlNames {
        &self.inner.names
    }

    pub(crate) fn texts(&self) -> &Texts {
        &self.inner.texts
    }

    pub(crate) fn done(&self) -> &Done {
        &self.inner.done
    }

    pub(crate) fn known(&self) -> &Known {
        &self.inner.known
    }

    pub(crate) fn config(&self) -> &PostgresConfig {
        &self.inner.config
    }

    /// Acquires a connection for one of the store's own calls.
    pub(crate) async fn acquire(&self, doing: &str) -> Result<PoolConnection<Postgres>> {
        self.inner.own.acquire().await.map_err(|e| failed(doing, e))
    }

    /// Runs `work`, bounded by the time a silent server is waited for.
    pub(crate) async fn bounded<F: Future>(&self, work: F) -> Result<F::Output, Elapsed> {
        timeout(self.config().answer_within, work).await
    }

    /// Returns the result of a write on `connection`, and gives the connection up if the server did not answer.
    ///
    /// # Errors
    /// [`Indeterminate`](ErrorKind::Indeterminate): the answer was lost on the way.
    pub(crate) fn judge<T>(
        &self,
        doing: &str,
        connection: &mut PoolConnection<Postgres>,
        answered: Result<sqlx::Result<T>, Elapsed>,
    ) -> Result<T> {
        match answered {
            Ok(answer) => answer.map_err(|e| failed_write(doing, e)),
            Err(_) => {
                connection.close_on_drop();
                Err(Error::new(ErrorKind::Indeterminate, format!("{doing}: no answer in time")))
            }
        }
    }
}

/// Connects, retrying while the server does not answer, for up to [`connect_wait`](PostgresConfig::connect_wait).
///
/// Only errors that a wait can heal are retried: a wrong password is reported at once.
async fn connect(config: &PostgresConfig, server: &Server, options: &PgConnectOptions) -> Result<PgConnection> {
    let (begin, mut pause) = (Instant::now(), FIRST_PAUSE);
    let wait = server.wait.unwrap_or(config.connect_wait);
    let limit = server.timeout.unwrap_or(config.acquire_timeout);
    loop {
        let error = match timeout(limit, options.connect()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => not_connected(&server.shown(), server.socket().is_some(), &error),
            Err(_) => {
                let text = format!("connect to Postgres at {}: no answer within {limit:?}", server.shown());
                Error::new(ErrorKind::Unavailable, text)
            }
        };
        let left = wait.saturating_sub(begin.elapsed());
        if !error.is_retryable() || left.is_zero() {
            return Err(error);
        }
        tracing::warn!(%error, ?left, "cannot connect to Postgres; the attempt is repeated until connect_wait has passed");
        sleep(pause.min(left)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The store's timeouts follow a URL's own `options`.
fn connect_options(config: &PostgresConfig, server: &Server) -> PgConnectOptions {
    let mut options = server.options.clone();
    if options.get_application_name().is_none() {
        options = options.application_name("tidings");
    }
    if let Some(pem) = &config.root_certificates {
        options = options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert_from_pem(pem.as_bytes().to_vec());
    }
    let milliseconds = |time: Duration| time.as_millis().to_string();
    // A client that vanished without closing its connection is detected well within a lease's ttl.
    let idle = config.idle_in_transaction_timeout;
    let seconds = |time: Duration| time.as_secs().max(1).to_string();
    options.options([
        ("statement_timeout", milliseconds(config.statement_timeout)),
        ("lock_timeout", milliseconds(config.lock_timeout)),
        ("idle_in_transaction_session_timeout", milliseconds(idle)),
        ("tcp_user_timeout", milliseconds(idle)),
        ("tcp_keepalives_idle", seconds(idle / 2)),
        ("tcp_keepalives_interval", seconds(idle / 6)),
        ("tcp_keepalives_count", "3".to_owned()),
    ])
}

/// Builds a pool that connects when first used and tests connections that were idle.
fn pool(config: &PostgresConfig, connections: u32, options: PgConnectOptions, settings: &'static str) -> PgPool {
    let limit = config.answer_within;
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(config.acquire_timeout)
        .test_before_acquire(false)
        .before_acquire(move |connection, meta| {
            Box::pin(async move {
                if meta.idle_for < TRIED_AFTER {
                    return Ok(true);
                }
                Ok(timeout(limit, connection.ping()).await.is_ok_and(|answer| answer.is_ok()))
            })
        })
        // The pool itself tests each returned connection, but without a timeout: one whose server is silent would be
        // missing for as long as the operating system keeps it.
        .after_release(move |connection, _| {
            Box::pin(async move { Ok(timeout(limit, connection.ping()).await.is_ok_and(|answer| answer.is_ok())) })
        })
        // Acknowledged writes are on disk, whatever the server's or the user's default is. `on` is not set in other
        // cases: it may be weaker than the configured level.
        .after_connect(move |connection, _| {
            Box::pin(async move { sqlx::raw_sql(settings).execute(connection).await.map(drop) })
        })
        .connect_lazy_with(options)
}
