//! How a store is opened.

use std::time::Duration;

use tidings_core::{Error, ErrorKind, Result, Secret};

/// Where the store's tables are: [`PostgresConfig::schema`].
pub const DEFAULT_SCHEMA: &str = "tidings";
/// How many connections there are at most: [`PostgresConfig::max_connections`].
pub const DEFAULT_MAX_CONNECTIONS: u32 = 10;
/// How many connections the store keeps to itself: [`PostgresConfig::store_connections`].
pub const DEFAULT_STORE_CONNECTIONS: u32 = 3;
/// How long a call waits for a connection: [`PostgresConfig::acquire_timeout`].
pub const DEFAULT_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server that does not answer is connected to again: [`PostgresConfig::connect_wait`]. Not at all.
pub const DEFAULT_CONNECT_WAIT: Duration = Duration::ZERO;
/// How long a statement may run: [`PostgresConfig::statement_timeout`].
pub const DEFAULT_STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a statement waits for a lock: [`PostgresConfig::lock_timeout`].
pub const DEFAULT_LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a transaction may do nothing: [`PostgresConfig::idle_in_transaction_timeout`].
pub const DEFAULT_IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server that is silent is waited for: [`PostgresConfig::answer_within`].
pub const DEFAULT_ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// How long migrations may take: [`PostgresConfig::migration_timeout`].
pub const DEFAULT_MIGRATION_TIMEOUT: Duration = Duration::from_secs(60);
/// How many rows a step of a purge deletes: [`PostgresConfig::purge_batch`].
pub const DEFAULT_PURGE_BATCH: u32 = 1_000;

/// How long done events and closed letters are kept: [`Retention::Default`].
pub const DEFAULT_RETENTION: Duration = Duration::from_secs(7 * 24 * 3_600);

const SHORTEST_RETENTION: Duration = Duration::from_secs(1);

/// The longest [`PostgresConfig::connect_wait`].
pub(crate) const MAX_CONNECT_WAIT: Duration = Duration::from_secs(24 * 3_600);

/// Names of Postgres are cut off beyond 63 bytes; ours take up to 31 behind the prefix.
const LONGEST_PREFIX: usize = 32;
const LONGEST_SCHEMA: usize = 63;

/// Where events that are done are recorded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DoneTable {
    /// In a table of the store's own.
    #[default]
    Own,
    /// In a table that is there already and that other services use too, with the columns `event_id UUID`,
    /// `event_type VARCHAR`, `service_name VARCHAR`, `processed_at TIMESTAMP` and a unique index on `event_id` and
    /// `service_name`. `processed_at` is taken to be UTC.
    Shared {
        /// The table's name, with its schema where that is not the first of the `search_path`: `public.processed_events`.
        table: String,
    },
}

/// How long done events and closed letters are kept. The store deletes older ones by itself, in steps: of the scopes and
/// services that this process works for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Retention {
    /// [`DEFAULT_RETENTION`]; with a [`DoneTable::Shared`], whose rows others may need, as [`UntilPurged`](Self::UntilPurged).
    #[default]
    Default,
    /// For at least this time, in a shared table too.
    For(Duration),
    /// Until they are purged by hand.
    UntilPurged,
}

/// Settings of a [`PostgresStore`](crate::PostgresStore).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PostgresConfig {
    /// `postgres://user:password@host:5432/database`, with libpq's parameters (`sslmode`, `sslrootcert`, `options` and so
    /// on) and `connect_wait=30s`. What is special in a URL is percent-encoded; an unknown parameter is an error. For what is
    /// not named, libpq's variables (`PGHOST`, `PGUSER` and so on) and its password file are read.
    pub url: Secret,
    /// The schema of the store's tables; created if it is missing.
    pub schema: String,
    /// Stands before the names of the store's tables; empty by default.
    pub table_prefix: String,
    /// Where events that are done are recorded.
    pub done_table: DoneTable,
    /// The certificates (PEM) of the authorities that may have signed the server's; then it is fully verified, whatever
    /// `sslmode` says.
    pub root_certificates: Option<String>,
    /// How many connections handlers and the service itself have at most: a transaction holds one.
    pub max_connections: u32,
    /// How many more the store has for its own calls, at most: were they to wait for handlers, a service with much to do
    /// could not say that it lives.
    pub store_connections: u32,
    /// How long a call waits for a free or new connection, before it fails as [`Unavailable`](ErrorKind::Unavailable).
    pub acquire_timeout: Duration,
    /// How long [`connect_with`](crate::PostgresStore::connect_with) tries again while the server does not answer:
    /// [`DEFAULT_CONNECT_WAIT`]. `connect_wait` in the URL takes precedence.
    pub connect_wait: Duration,
    /// How long a statement may run, handlers' included, before the server cancels it.
    pub statement_timeout: Duration,
    /// How long a statement waits for a lock. In a handler's transaction never longer than its lease lives.
    pub lock_timeout: Duration,
    /// How long a transaction may do nothing before the server ends it. A handler's: never longer than its lease lives.
    pub idle_in_transaction_timeout: Duration,
    /// How long a server that says nothing at all is waited for; then the connection is given up.
    pub answer_within: Duration,
    /// Whether missing migrations are run when the store is opened. Otherwise that is an error.
    pub migrate: bool,
    /// How long migrations may take, waiting for others that run them included.
    pub migration_timeout: Duration,
    /// How many rows one step of a purge deletes: each step is a transaction of its own.
    pub purge_batch: u32,
    /// How long done events and closed letters are kept: longer than a record may come again.
    pub retention: Retention,
}

impl PostgresConfig {
    /// The store at `url`, with the defaults.
    pub fn new(url: impl Into<Secret>) -> Self {
        Self {
            url: url.into(),
            schema: DEFAULT_SCHEMA.to_owned(),
            table_prefix: String::new(),
            done_table: DoneTable::default(),
            root_certificates: None,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            store_connections: DEFAULT_STORE_CONNECTIONS,
            acquire_timeout: DEFAULT_ACQUIRE_TIMEOUT,
            connect_wait: DEFAULT_CONNECT_WAIT,
            statement_timeout: DEFAULT_STATEMENT_TIMEOUT,
            lock_timeout: DEFAULT_LOCK_TIMEOUT,
            idle_in_transaction_timeout: DEFAULT_IDLE_IN_TRANSACTION_TIMEOUT,
            answer_within: DEFAULT_ANSWER_WITHIN,
            migrate: true,
            migration_timeout: DEFAULT_MIGRATION_TIMEOUT,
            purge_batch: DEFAULT_PURGE_BATCH,
            retention: Retention::default(),
        }
    }

    /// Puts the tables into this schema; by default [`DEFAULT_SCHEMA`].
    #[must_use]
    pub fn with_schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// Puts this before the names of the tables: several stores in one schema.
    #[must_use]
    pub fn with_table_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.table_prefix = prefix.into();
        self
    }

    /// Records what is done in a table that other services use too: see [`DoneTable::Shared`].
    #[must_use]
    pub fn with_shared_done_table(mut self, table: impl Into<String>) -> Self {
        self.done_table = DoneTable::Shared { table: table.into() };
        self
    }

    /// Trusts these authorities (PEM) alone, and verifies the server's certificate and name.
    #[must_use]
    pub fn with_root_certificates(mut self, pem: impl Into<String>) -> Self {
        self.root_certificates = Some(pem.into());
        self
    }

    /// Keeps so many connections for the store's own calls; by default [`DEFAULT_STORE_CONNECTIONS`].
    #[must_use]
    pub fn with_store_connections(mut self, connections: u32) -> Self {
        self.store_connections = connections;
        self
    }

    /// Opens so many connections for handlers at most; by default [`DEFAULT_MAX_CONNECTIONS`].
    #[must_use]
    pub fn with_max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections;
        self
    }

    /// Waits so long for a connection; by default [`DEFAULT_ACQUIRE_TIMEOUT`].
    #[must_use]
    pub fn with_acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// Tries again for this long while the server does not answer; by default [`DEFAULT_CONNECT_WAIT`].
    #[must_use]
    pub fn with_connect_wait(mut self, wait: Duration) -> Self {
        self.connect_wait = wait;
        self
    }

    /// Lets a statement run so long; by default [`DEFAULT_STATEMENT_TIMEOUT`].
    #[must_use]
    pub fn with_statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// Waits so long for locks; by default [`DEFAULT_LOCK_TIMEOUT`].
    #[must_use]
    pub fn with_lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Lets a transaction do nothing for so long; by default [`DEFAULT_IDLE_IN_TRANSACTION_TIMEOUT`].
    #[must_use]
    pub fn with_idle_in_transaction_timeout(mut self, timeout: Duration) -> Self {
        self.idle_in_transaction_timeout = timeout;
        self
    }

    /// Waits so long for a silent server; by default [`DEFAULT_ANSWER_WITHIN`].
    #[must_use]
    pub fn with_answer_within(mut self, limit: Duration) -> Self {
        self.answer_within = limit;
        self
    }

    /// Whether missing migrations are run; by default they are. A service whose user may not create tables says `false`.
    #[must_use]
    pub fn with_migrate(mut self, migrate: bool) -> Self {
        self.migrate = migrate;
        self
    }

    /// Lets migrations take so long; by default [`DEFAULT_MIGRATION_TIMEOUT`].
    #[must_use]
    pub fn with_migration_timeout(mut self, timeout: Duration) -> Self {
        self.migration_timeout = timeout;
        self
    }

    /// Deletes so many rows at once when purging; by default [`DEFAULT_PURGE_BATCH`].
    #[must_use]
    pub fn with_purge_batch(mut self, rows: u32) -> Self {
        self.purge_batch = rows;
        self
    }

    /// Keeps done events and closed letters for at least this time; by default [`DEFAULT_RETENTION`].
    #[must_use]
    pub fn with_retention(mut self, retention: Duration) -> Self {
        self.retention = Retention::For(retention);
        self
    }

    /// Keeps done events and closed letters until they are purged by hand.
    #[must_use]
    pub fn without_retention(mut self) -> Self {
        self.retention = Retention::UntilPurged;
        self
    }

    /// After which time rows are deleted; `None`: never.
    pub(crate) fn kept_for(&self) -> Option<Duration> {
        match (self.retention, &self.done_table) {
            (Retention::For(retention), _) => Some(retention),
            (Retention::Default, DoneTable::Own) => Some(DEFAULT_RETENTION),
            (Retention::Default, DoneTable::Shared { .. }) | (Retention::UntilPurged, _) => None,
        }
    }

    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid), naming the field.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::new(ErrorKind::Invalid, format!("open a Postgres store: {what}")));
        if self.schema.is_empty() || self.schema.len() > LONGEST_SCHEMA || !is_name(&self.schema) {
            return wrong(format!("schema {:?} is not a name of lower-case letters, digits and _", self.schema));
        }
        if self.table_prefix.len() > LONGEST_PREFIX || !is_name(&self.table_prefix) {
            return wrong(format!(
                "table_prefix {:?} is not of up to {LONGEST_PREFIX} lower-case letters, digits and _",
                self.table_prefix
            ));
        }
        if let DoneTable::Shared { table } = &self.done_table
            && table.is_empty()
        {
            return wrong("done_table has no name".to_owned());
        }
        if self.max_connections == 0 || self.store_connections == 0 || self.purge_batch == 0 {
            return wrong("max_connections, store_connections and purge_batch must be above 0".to_owned());
        }
        if let Retention::For(retention) = self.retention
            && retention < SHORTEST_RETENTION
        {
            return wrong(format!("retention is {retention:?}: it must be at least {SHORTEST_RETENTION:?}"));
        }
        let times = [
            ("acquire_timeout", self.acquire_timeout),
            ("statement_timeout", self.statement_timeout),
            ("lock_timeout", self.lock_timeout),
            ("idle_in_transaction_timeout", self.idle_in_transaction_timeout),
            ("answer_within", self.answer_within),
            ("migration_timeout", self.migration_timeout),
        ];
        if self.connect_wait > MAX_CONNECT_WAIT {
            return wrong(format!("connect_wait is {:?}: it must be at most 24 hours", self.connect_wait));
        }
        // To the server zero means forever; what it takes at most is an i32 of milliseconds.
        let fits = |time: Duration| (1..=i32::MAX as u128).contains(&time.as_millis());
        if let Some((name, time)) = times.into_iter().find(|(_, time)| !fits(*time)) {
            return wrong(format!("{name} is {time:?}: it must be from 1 ms to 24 days"));
        }
        Ok(())
    }
}

fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    text.bytes().all(plain) && !text.starts_with(|first: char| first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_setting_is_named() {
        let config = || PostgresConfig::new("postgres://localhost");
        for (wrong, name) in [
            (config().with_schema("a\"b"), "schema"),
            (config().with_schema(""), "schema"),
            (config().with_table_prefix("1x"), "table_prefix"),
            (config().with_table_prefix("x".repeat(40)), "table_prefix"),
            (config().with_max_connections(0), "max_connections"),
            (config().with_lock_timeout(Duration::ZERO), "lock_timeout"),
            (config().with_shared_done_table(""), "done_table"),
            (config().with_connect_wait(Duration::MAX), "connect_wait"),
            (config().with_retention(Duration::from_millis(999)), "retention"),
            (config().with_answer_within(Duration::MAX), "answer_within"),
        ] {
            let error = wrong.check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(name), "{error}");
        }
        config().check().unwrap();
    }

    #[test]
    fn rows_of_a_table_that_others_use_are_deleted_only_where_that_is_asked_for() {
        let config = || PostgresConfig::new("postgres://localhost");
        let shared = || config().with_shared_done_table("processed_events");
        let day = Duration::from_secs(24 * 3_600);
        assert_eq!(config().kept_for(), Some(DEFAULT_RETENTION));
        assert_eq!(config().without_retention().kept_for(), None);
        assert_eq!(shared().kept_for(), None);
        assert_eq!(shared().with_retention(day).kept_for(), Some(day));
        config().with_retention(Duration::MAX).check().unwrap();
    }

    #[test]
    fn the_url_with_its_password_is_not_shown() {
        let config = PostgresConfig::new("postgres://user:hunter2@localhost");
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
