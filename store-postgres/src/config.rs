//! Configuration of the Postgres store.

use std::time::Duration;

use tidings_core::{Error, ErrorKind, Result, Secret};

impl PostgresConfig {
    /// Default of [`PostgresConfig::schema`].
    pub const DEFAULT_SCHEMA: &str = "tidings";

    /// Default of [`PostgresConfig::max_connections`].
    pub const DEFAULT_MAX_CONNECTIONS: u32 = 10;

    /// Default of [`PostgresConfig::store_connections`].
    pub const DEFAULT_STORE_CONNECTIONS: u32 = 3;

    /// Default of [`PostgresConfig::acquire_timeout`].
    pub const DEFAULT_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

    /// Default of [`PostgresConfig::connect_wait`]: connecting is not retried.
    pub const DEFAULT_CONNECT_WAIT: Duration = Duration::ZERO;

    /// Default of [`PostgresConfig::statement_timeout`].
    pub const DEFAULT_STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

    /// Default of [`PostgresConfig::lock_timeout`].
    pub const DEFAULT_LOCK_TIMEOUT: Duration = Duration::from_secs(5);

    /// Default of [`PostgresConfig::idle_in_transaction_timeout`].
    pub const DEFAULT_IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

    /// Default of [`PostgresConfig::answer_within`].
    pub const DEFAULT_ANSWER_WITHIN: Duration = Duration::from_secs(15);

    /// Default of [`PostgresConfig::migration_timeout`].
    pub const DEFAULT_MIGRATION_TIMEOUT: Duration = Duration::from_secs(60);

    /// Default of [`PostgresConfig::purge_batch`].
    pub const DEFAULT_PURGE_BATCH: u32 = 1_000;
}

impl Retention {
    /// Default retention of done events and closed letters: [`Retention::Default`].
    pub const DEFAULT_RETENTION: Duration = Duration::from_secs(7 * 24 * 3_600);
}

const SHORTEST_RETENTION: Duration = Duration::from_secs(1);

/// Upper limit of [`PostgresConfig::connect_wait`].
pub(crate) const MAX_CONNECT_WAIT: Duration = Duration::from_secs(24 * 3_600);

/// Postgres truncates names beyond 63 bytes; our names take up to 31 after the prefix.
const LONGEST_PREFIX: usize = 32;
const LONGEST_SCHEMA: usize = 63;

/// Selects the table that records done events.
///
/// ```
/// # use tidings_postgres::{DoneTable, PostgresConfig};
/// let config = PostgresConfig::new("postgres://localhost/orders").with_shared_done_table("public.processed_events");
/// assert!(matches!(config.done_table, DoneTable::Shared { .. }));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DoneTable {
    /// A table owned by the store.
    #[default]
    Own,
    /// An existing table shared with other services, with the columns `event_id UUID`, `event_type VARCHAR`,
    /// `service_name VARCHAR`, `processed_at TIMESTAMP` and a unique index on `event_id` and `service_name`.
    /// `processed_at` is read as UTC.
    Shared {
        /// The table's name, schema-qualified unless it is found by the `search_path`: `public.processed_events`.
        table: String,
    },
}

/// How long done events and closed letters are kept. The store deletes older ones in the background, in steps, for
/// the scopes and services that this process works for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Retention {
    /// [`Retention::DEFAULT_RETENTION`]; with a [`DoneTable::Shared`], whose rows other services may need,
    /// [`UntilPurged`](Self::UntilPurged).
    #[default]
    Default,
    /// At least this duration, in a shared table too.
    For(Duration),
    /// Until an operator purges them.
    UntilPurged,
}

/// Settings of a [`PostgresStore`](crate::PostgresStore).
///
/// ```
/// use std::time::Duration;
/// use tidings_postgres::{PostgresConfig, Retention};
///
/// let config = PostgresConfig::new("postgres://orders:pa55word@localhost/orders")
///     .with_schema("billing")
///     .with_retention(Duration::from_secs(30 * 24 * 3_600));
/// assert_eq!(config.schema, "billing");
/// assert_eq!(config.retention, Retention::For(Duration::from_secs(30 * 24 * 3_600)));
/// assert!(!format!("{config:?}").contains("pa55word"));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PostgresConfig {
    /// `postgres://user:password@host:5432/database`, with libpq's parameters (`sslmode`, `sslrootcert`, `options`
    /// and so on) and `connect_wait=30s`. Special characters must be percent-encoded; an unknown parameter is an
    /// error. Missing parts are read from libpq's variables (`PGHOST`, `PGUSER` and so on) and its password file.
    pub url: Secret,
    /// The schema of the store's tables; created if it is missing.
    pub schema: String,
    /// Prefix of the store's table names; empty by default.
    pub table_prefix: String,
    /// The table that records done events.
    pub done_table: DoneTable,
    /// Root certificates (PEM) that may sign the server's certificate. If set, the server is fully verified
    /// regardless of `sslmode`.
    pub root_certificates: Option<String>,
    /// Maximum number of connections for handlers and the service itself; each transaction uses one.
    pub max_connections: u32,
    /// Maximum number of additional connections for the store's own calls. Without them, a busy service's lease
    /// renewals would wait for its handlers.
    pub store_connections: u32,
    /// How long a call waits for a free or new connection before it fails as [`Unavailable`](ErrorKind::Unavailable).
    pub acquire_timeout: Duration,
    /// How long [`connect_with`](crate::PostgresStore::connect_with) retries while the server does not answer:
    /// [`PostgresConfig::DEFAULT_CONNECT_WAIT`]. `connect_wait` in the URL takes precedence.
    pub connect_wait: Duration,
    /// How long a statement, a handler's included, may run before the server cancels it.
    pub statement_timeout: Duration,
    /// How long a statement waits for a lock; in a handler's transaction, never longer than its lease's ttl.
    pub lock_timeout: Duration,
    /// How long a transaction may be idle before the server ends it; for a handler's transaction, never longer than
    /// its lease's ttl.
    pub idle_in_transaction_timeout: Duration,
    /// How long a call waits for a silent server before it gives up the connection.
    pub answer_within: Duration,
    /// Whether opening the store runs missing migrations. If `false`, missing migrations are an error.
    pub migrate: bool,
    /// How long migrations may take, including the wait for other instances that run them.
    pub migration_timeout: Duration,
    /// Number of rows that one step of a purge deletes; each step is a separate transaction.
    pub purge_batch: u32,
    /// How long done events and closed letters are kept. Must exceed the time within which a record may be
    /// redelivered.
    pub retention: Retention,
}

impl PostgresConfig {
    /// Creates a configuration for the store at `url`, with the defaults.
    pub fn new(url: impl Into<Secret>) -> Self {
        Self {
            url: url.into(),
            schema: PostgresConfig::DEFAULT_SCHEMA.to_owned(),
            table_prefix: String::new(),
            done_table: DoneTable::default(),
            root_certificates: None,
            max_connections: PostgresConfig::DEFAULT_MAX_CONNECTIONS,
            store_connections: PostgresConfig::DEFAULT_STORE_CONNECTIONS,
            acquire_timeout: PostgresConfig::DEFAULT_ACQUIRE_TIMEOUT,
            connect_wait: PostgresConfig::DEFAULT_CONNECT_WAIT,
            statement_timeout: PostgresConfig::DEFAULT_STATEMENT_TIMEOUT,
            lock_timeout: PostgresConfig::DEFAULT_LOCK_TIMEOUT,
            idle_in_transaction_timeout: PostgresConfig::DEFAULT_IDLE_IN_TRANSACTION_TIMEOUT,
            answer_within: PostgresConfig::DEFAULT_ANSWER_WITHIN,
            migrate: true,
            migration_timeout: PostgresConfig::DEFAULT_MIGRATION_TIMEOUT,
            purge_batch: PostgresConfig::DEFAULT_PURGE_BATCH,
            retention: Retention::default(),
        }
    }

    /// Sets the schema of the tables; [`PostgresConfig::DEFAULT_SCHEMA`] by default.
    ///
    /// Lower-case letters, digits and `_`, 63 at most.
    #[must_use]
    pub fn with_schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// Sets a prefix of the table names, so that several stores can share a schema.
    ///
    /// Up to 32 lower-case letters, digits and `_`; empty by default.
    #[must_use]
    pub fn with_table_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.table_prefix = prefix.into();
        self
    }

    /// Records done events in a table shared with other services: see [`DoneTable::Shared`].
    #[must_use]
    pub fn with_shared_done_table(mut self, table: impl Into<String>) -> Self {
        self.done_table = DoneTable::Shared { table: table.into() };
        self
    }

    /// Trusts only these root certificates (PEM), and verifies the server's certificate and name.
    #[must_use]
    pub fn with_root_certificates(mut self, pem: impl Into<String>) -> Self {
        self.root_certificates = Some(pem.into());
        self
    }

    /// Sets the maximum number of connections for the store's own calls;
    /// [`PostgresConfig::DEFAULT_STORE_CONNECTIONS`] by default.
    #[must_use]
    pub fn with_store_connections(mut self, connections: u32) -> Self {
        self.store_connections = connections;
        self
    }

    /// Sets the maximum number of connections for handlers; [`PostgresConfig::DEFAULT_MAX_CONNECTIONS`] by default.
    #[must_use]
    pub fn with_max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections;
        self
    }

    /// Sets how long a call waits for a connection; [`PostgresConfig::DEFAULT_ACQUIRE_TIMEOUT`] by default.
    #[must_use]
    pub fn with_acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// Sets how long connecting is retried while the server does not answer; [`PostgresConfig::DEFAULT_CONNECT_WAIT`]
    /// by default.
    #[must_use]
    pub fn with_connect_wait(mut self, wait: Duration) -> Self {
        self.connect_wait = wait;
        self
    }

    /// Sets the statement timeout; [`PostgresConfig::DEFAULT_STATEMENT_TIMEOUT`] by default.
    #[must_use]
    pub fn with_statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// Sets the lock timeout; [`PostgresConfig::DEFAULT_LOCK_TIMEOUT`] by default.
    #[must_use]
    pub fn with_lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Sets how long a transaction may be idle; [`PostgresConfig::DEFAULT_IDLE_IN_TRANSACTION_TIMEOUT`] by default.
    #[must_use]
    pub fn with_idle_in_transaction_timeout(mut self, timeout: Duration) -> Self {
        self.idle_in_transaction_timeout = timeout;
        self
    }

    /// Sets how long a call waits for a silent server; [`PostgresConfig::DEFAULT_ANSWER_WITHIN`] by default.
    #[must_use]
    pub fn with_answer_within(mut self, limit: Duration) -> Self {
        self.answer_within = limit;
        self
    }

    /// Sets whether missing migrations are run; `true` by default. Use `false` for a database user that may not
    /// create tables.
    #[must_use]
    pub fn with_migrate(mut self, migrate: bool) -> Self {
        self.migrate = migrate;
        self
    }

    /// Sets how long migrations may take; [`PostgresConfig::DEFAULT_MIGRATION_TIMEOUT`] by default.
    #[must_use]
    pub fn with_migration_timeout(mut self, timeout: Duration) -> Self {
        self.migration_timeout = timeout;
        self
    }

    /// Sets the number of rows that one step of a purge deletes; [`PostgresConfig::DEFAULT_PURGE_BATCH`] by default.
    #[must_use]
    pub fn with_purge_batch(mut self, rows: u32) -> Self {
        self.purge_batch = rows;
        self
    }

    /// Keeps done events and closed letters for at least this duration; [`Retention::DEFAULT_RETENTION`] by default.
    ///
    /// At least one second.
    #[must_use]
    pub fn with_retention(mut self, retention: Duration) -> Self {
        self.retention = Retention::For(retention);
        self
    }

    /// Keeps done events and closed letters until an operator purges them.
    #[must_use]
    pub fn without_retention(mut self) -> Self {
        self.retention = Retention::UntilPurged;
        self
    }

    /// Returns the age at which rows are deleted; `None` means never.
    pub(crate) fn kept_for(&self) -> Option<Duration> {
        match (self.retention, &self.done_table) {
            (Retention::For(retention), _) => Some(retention),
            (Retention::Default, DoneTable::Own) => Some(Retention::DEFAULT_RETENTION),
            (Retention::Default, DoneTable::Shared { .. }) | (Retention::UntilPurged, _) => None,
        }
    }

    /// Checks all settings before anything is opened. Names are limited to what needs no quoting.
    ///
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
        // Zero means forever to the server; its limit is an i32 of milliseconds.
        let fits = |time: Duration| (1..=i32::MAX as u128).contains(&time.as_millis());
        if let Some((name, time)) = times.into_iter().find(|(_, time)| !fits(*time)) {
            return wrong(format!("{name} is {time:?}: it must be from 1 ms to 24 days"));
        }
        Ok(())
    }
}

/// Checks that a name needs no quotes; an empty one passes.
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
        assert_eq!(config().kept_for(), Some(Retention::DEFAULT_RETENTION));
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
