//! Reads what an exporter in memory has collected.

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, Metric, MetricData};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, SdkMeterProvider};
use tidings_otel::{Metrics, SCOPE_NAME};

/// The checked-in table.
const TABLE: &str = include_str!("../../conventions-1.44.0.tsv");

/// The metrics of one provider.
#[derive(Debug)]
pub(crate) struct Reader {
    exporter: InMemoryMetricExporter,
    provider: SdkMeterProvider,
    pub(crate) metrics: Metrics,
}

/// A value of a metric with its attributes.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    pub(crate) name: String,
    pub(crate) attributes: BTreeMap<String, String>,
    /// Of a histogram: the number of values.
    pub(crate) value: f64,
    /// Of a histogram: the bounds of its buckets.
    pub(crate) bounds: Vec<f64>,
}

impl Reader {
    pub(crate) fn new() -> Self {
        let exporter = InMemoryMetricExporter::default();
        let provider = SdkMeterProvider::builder().with_periodic_exporter(exporter.clone()).build();
        let metrics = Metrics::new(&provider);
        Self { exporter, provider, metrics }
    }

    /// Collects all metrics, and compares them with the table.
    pub(crate) fn collect(&self) -> Vec<Point> {
        self.exporter.reset();
        self.provider.force_flush().expect("collected");
        let collected = self.exporter.get_finished_metrics().expect("metrics");
        let scopes = collected.iter().flat_map(|all| all.scope_metrics());
        let scopes = scopes.inspect(|scope| assert_eq!(scope.scope().name(), SCOPE_NAME));
        scopes.flat_map(|scope| scope.metrics()).flat_map(points).collect()
    }

    /// Returns the value of the only point of this name with these attributes.
    pub(crate) fn value(&self, name: &str, attributes: &[(&str, &str)]) -> Option<f64> {
        let all = self.collect();
        let mut found = all.iter().filter(|point| point.name == name && point.has(attributes));
        let value = found.next().map(|point| point.value);
        assert!(found.next().is_none(), "several points of {name} with {attributes:?}: {all:#?}");
        value
    }
}

impl Point {
    pub(crate) fn has(&self, attributes: &[(&str, &str)]) -> bool {
        attributes.iter().all(|(name, value)| self.attributes.get(*name).map(String::as_str) == Some(*value))
    }
}

fn points(metric: &Metric) -> Vec<Point> {
    let point = |attributes: Vec<KeyValue>, value: f64, bounds: Vec<f64>| {
        let text = |pair: &KeyValue| (pair.key.to_string(), pair.value.to_string());
        let point =
            Point { name: metric.name().to_owned(), attributes: attributes.iter().map(text).collect(), value, bounds };
        check(metric, &attributes);
        point
    };
    macro_rules! of {
        ($data:expr) => {
            match $data {
                MetricData::Gauge(gauge) => gauge
                    .data_points()
                    .map(|p| point(p.attributes().cloned().collect(), p.value() as f64, Vec::new()))
                    .collect(),
                MetricData::Sum(sum) => sum
                    .data_points()
                    .map(|p| point(p.attributes().cloned().collect(), p.value() as f64, Vec::new()))
                    .collect(),
                MetricData::Histogram(histogram) => histogram
                    .data_points()
                    .map(|p| point(p.attributes().cloned().collect(), p.count() as f64, p.bounds().collect()))
                    .collect(),
                other => panic!("{}: {other:?}", metric.name()),
            }
        };
    }
    match metric.data() {
        AggregatedMetrics::F64(data) => of!(data),
        AggregatedMetrics::U64(data) => of!(data),
        AggregatedMetrics::I64(data) => of!(data),
    }
}

/// Returns the names of all metrics in the table, in order.
pub(crate) fn metrics() -> BTreeSet<&'static str> {
    let rows = TABLE.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect::<Vec<_>>());
    rows.filter(|row| row[1].contains(' ')).map(|row| row[0]).collect()
}

/// Compares a point with the table: its instrument, unit, and attributes with their types.
fn check(metric: &Metric, attributes: &[KeyValue]) {
    let kind = match metric.data() {
        AggregatedMetrics::F64(data) => kind_of(data),
        AggregatedMetrics::U64(data) => kind_of(data),
        AggregatedMetrics::I64(data) => kind_of(data),
    };
    let rows: Vec<Vec<&str>> = TABLE.lines().map(|line| line.split('\t').collect()).collect();
    let rows: Vec<_> = rows.iter().filter(|row| row[0] == metric.name()).collect();
    assert!(!rows.is_empty(), "{} is not in the table", metric.name());
    assert_eq!(rows[0][1], format!("{kind} {}", metric.unit()), "{}", metric.name());
    assert!(metric.description().ends_with('.'), "{} has no description", metric.name());
    let mut seen = BTreeSet::new();
    for pair in attributes {
        assert!(matches!(pair.value, Value::String(_)), "{pair:?}");
        let row = rows.iter().find(|row| row[2] == pair.key.as_str());
        assert!(row.is_some_and(|row| row[3] == "string"), "{} of {} is not in the table", pair.key, metric.name());
        assert!(seen.insert(pair.key.as_str()), "{} is there twice", pair.key);
    }
    for row in rows.iter().filter(|row| row[4] == "required") {
        assert!(seen.contains(row[2]), "{} of {} is required", row[2], metric.name());
    }
}

fn kind_of<T>(data: &MetricData<T>) -> &'static str {
    match data {
        MetricData::Sum(sum) if sum.is_monotonic() => "counter",
        MetricData::Gauge(_) => "gauge",
        MetricData::Histogram(_) => "histogram",
        _ => "other",
    }
}
