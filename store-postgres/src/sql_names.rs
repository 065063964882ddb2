//! SqlNames of tables and functions, with the configured schema and prefix.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use crate::config::PostgresConfig;

/// In our SQL, tables and functions are written as `tidings.leases`: with the default schema it runs as it stands.
const PLACEHOLDER: &str = "tidings.";

/// Replacement of the placeholder.
#[derive(Debug, Clone)]
pub(crate) struct SqlNames {
    schema: Arc<str>,
    /// The quoted schema, a dot, and the prefix.
    before: Arc<str>,
}

impl SqlNames {
    /// `config` has been checked: neither name holds a quote, and only a schema can be a word of SQL.
    pub(crate) fn new(config: &PostgresConfig) -> Self {
        let before = format!("\"{}\".{}", config.schema, config.table_prefix);
        Self { schema: config.schema.as_str().into(), before: before.into() }
    }

    /// Returns the schema's name without quotes.
    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    /// Returns the full name of one of our tables or functions, quoted where needed.
    pub(crate) fn full(&self, name: &str) -> String {
        format!("{}{name}", self.before)
    }

    /// Like [`fill`](Self::fill), for SQL that refers to done events: `{done}` is their table, `{scope}` and so on
    /// its columns, `{claim}` and so on the functions made for that table.
    pub(crate) fn fill_done(&self, sql: &str, done: &Done) -> SqlStr {
        // Before foreign names are inserted, which may look like the placeholder.
        let mut text = sql.replace(PLACEHOLDER, &self.before);
        let (table, suffix) = match &done.table {
            Some(table) => (table.clone(), done.suffix()),
            None => (self.full("done"), String::new()),
        };
        for function in ["claim", "complete", "settle"] {
            text = text.replace(&format!("{{{function}}}"), &self.full(&format!("{function}{suffix}")));
        }
        text = text.replace("{done}", &table);
        let columns = if done.table.is_none() { OWN } else { SHARED };
        for (placeholder, column) in columns {
            text = text.replace(placeholder, column);
        }
        AssertSqlSafe(Arc::<str>::from(text)).into_sql_str()
    }

    /// Returns `sql` with the real names. The same text always gives the same statement, prepared once per
    /// connection.
    pub(crate) fn fill(&self, sql: &str) -> SqlStr {
        AssertSqlSafe(Arc::<str>::from(sql.replace(PLACEHOLDER, &self.before))).into_sql_str()
    }
}

/// The table of done events.
#[derive(Debug, Clone, Default)]
pub(crate) struct Done {
    /// Full name of a shared table, quoted where needed; `None` for our own.
    pub(crate) table: Option<String>,
    /// Maximum characters of a scope.
    pub(crate) longest_scope: Option<usize>,
    /// Maximum characters of an event type.
    pub(crate) longest_type: Option<usize>,
}

/// Columns of our own table, and its format of times.
const OWN: [(&str, &str); 4] = [
    ("{scope}", "scope"),
    ("{done_at}", "done_at"),
    ("{now}", "statement_timestamp()"),
    ("{before}", "(timestamptz 'epoch' + $2::bigint * interval '1 millisecond')"),
];
/// Columns of a shared table, whose times are UTC without a time zone.
const SHARED: [(&str, &str); 4] = [
    ("{scope}", "service_name"),
    ("{done_at}", "processed_at"),
    ("{now}", "(statement_timestamp() AT TIME ZONE 'UTC')"),
    ("{before}", "(timestamp 'epoch' + $2::bigint * interval '1 millisecond')"),
];

impl Done {
    /// Returns the suffix of functions made for a shared table: FNV-1a of its name.
    pub(crate) fn suffix(&self) -> String {
        let Some(table) = &self.table else { return String::new() };
        let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        format!("_shared_{:08x}", table.bytes().fold(0x811c_9dc5, step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_quoted_and_the_prefix_put_before_the_name() {
        let config = PostgresConfig::new("x").with_schema("user").with_table_prefix("shop_");
        let names = SqlNames::new(&config);
        assert_eq!(names.fill("SELECT FROM tidings.done").as_str(), "SELECT FROM \"user\".shop_done");
        assert_eq!(names.full("done"), "\"user\".shop_done");
    }
}
