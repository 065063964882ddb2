//! `/metrics`: the readings as Prometheus reads them.

mod encode;
mod read;
mod table;

pub(crate) use self::encode::{Format, encode};

/// A metric of the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// The name as queries use it, with its unit and, of counters, `_total`. A histogram has `_bucket`, `_sum` and
    /// `_count` after it.
    pub name: &'static str,
    /// The kind.
    pub kind: MetricKind,
    /// The unit, such as `"seconds"`; empty if there is none.
    pub unit: &'static str,
    /// The names of the labels. Their values are names of services, handlers, topics and publishers, numbers of
    /// partitions, and texts of closed lists: never keys, event ids, error texts or member ids.
    pub labels: &'static [&'static str],
    /// The meaning, in one sentence.
    pub help: &'static str,
}

/// The kind of a [`Metric`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// A number that only grows, from zero at the start of the service.
    Counter,
    /// A number that rises and falls.
    Gauge,
    /// A distribution in fixed buckets.
    Histogram,
}

impl MetricKind {
    /// Returns the name in the text format, such as `"counter"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Returns all metrics of the endpoint, in the order of its answer. Dashboards, alerts and the guide's table are made
/// from them.
///
/// ```
/// let lag = tidings_ops::metrics().find(|metric| metric.name == "tidings_group_lag_seconds").expect("it exists");
/// assert_eq!((lag.unit, lag.labels), ("seconds", &["service", "group", "topic", "partition"][..]));
/// ```
pub fn metrics() -> impl Iterator<Item = &'static Metric> {
    table::ROWS.iter().map(|row| &row.metric)
}

/// Returns the table of all metrics as Markdown, as `docs/metrics.md` has it.
pub fn metrics_table() -> String {
    let mut table = String::from("| metric | kind | unit | labels | meaning |\n|---|---|---|---|---|\n");
    for Metric { name, kind, unit, labels, help } in metrics() {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        table += &format!("| `{name}` | {} | {unit} | {} | {help} |\n", kind.as_str(), labels.join(", "));
    }
    table
}
