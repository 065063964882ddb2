//! Encoding of readings in the text formats.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use tidings_service::telemetry::Histogram;

use super::table::{ROWS, Row};
use super::{Metric, MetricKind};
use crate::sources::Reading;

/// The text formats that Prometheus reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Version 0.0.4.
    Prometheus,
    /// OpenMetrics, which a scraper asks for.
    OpenMetrics,
}

impl Format {
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The value of a series.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value {
    Integer(u64),
    Float(f64),
    Histogram(Histogram),
}

/// Encodes a reading. It fails only if the library does.
pub(crate) fn encode(reading: Reading, format: Format) -> Result<String, fmt::Error> {
    let (mut registry, mut out) = (Registry::default(), String::new());
    registry.register_collector(Box::new(Families(reading)));
    match format {
        Format::Prometheus => prometheus_text::encode(&mut out, &registry)?,
        Format::OpenMetrics => text::encode(&mut out, &registry)?,
    }
    Ok(out)
}

#[derive(Debug)]
struct Families(Reading);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        ROWS.iter().try_for_each(|row| family(row, &self.0, &mut encoder))
    }
}

/// Encodes the series of a metric, if there are any.
fn family(row: &Row, reading: &Reading, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut series: Vec<(Vec<(&'static str, String)>, Value)> = Vec::new();
    (row.read)(reading, &mut |values, value| {
        let labels = row.metric.labels.iter().zip(values).map(|(label, value)| (*label, (*value).to_owned()));
        series.push((labels.collect(), value));
    });
    if series.is_empty() {
        return Ok(());
    }
    let Metric { kind, unit, help, .. } = row.metric;
    let unit = (!unit.is_empty()).then(|| Unit::Other(unit.to_owned()));
    let mut encoder = encoder.encode_descriptor(family_name(&row.metric), help, unit.as_ref(), metric_type(kind))?;
    series.iter().try_for_each(|(labels, value)| sample(encoder.encode_family(labels)?, kind, *value))
}

/// Returns the name to which the library adds the unit and, of counters, `_total`.
fn family_name(metric: &Metric) -> &'static str {
    let Metric { name, kind, unit, .. } = *metric;
    let name = match kind {
        MetricKind::Counter => name.strip_suffix("_total").unwrap_or(name),
        MetricKind::Gauge | MetricKind::Histogram => name,
    };
    let stem = name.strip_suffix(unit).and_then(|name| name.strip_suffix('_'));
    if unit.is_empty() { name } else { stem.unwrap_or(name) }
}

const fn metric_type(kind: MetricKind) -> MetricType {
    match kind {
        MetricKind::Counter => MetricType::Counter,
        MetricKind::Gauge => MetricType::Gauge,
        MetricKind::Histogram => MetricType::Histogram,
    }
}

fn sample(mut encoder: MetricEncoder<'_>, kind: MetricKind, value: Value) -> fmt::Result {
    match (kind, value) {
        (MetricKind::Counter, Value::Integer(count)) => encoder.encode_counter::<NoLabelSet, _, f64>(&count, None),
        (MetricKind::Counter, Value::Float(count)) => encoder.encode_counter::<NoLabelSet, _, f64>(&count, None),
        (_, Value::Integer(value)) => encoder.encode_gauge(&value),
        (_, Value::Float(value)) => encoder.encode_gauge(&value),
        (_, Value::Histogram(histogram)) => {
            let bounds = Histogram::BOUNDS.into_iter().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(histogram.counts().iter().copied()).collect();
            encoder.encode_histogram::<NoLabelSet>(histogram.sum().as_secs_f64(), histogram.count(), &buckets, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rules of `promtool check metrics` and of OpenMetrics for names and help.
    #[test]
    fn names_and_help_follow_the_conventions() {
        for Row { metric, .. } in ROWS {
            let Metric { name, kind, unit, labels, help } = *metric;
            assert_eq!(name.ends_with("_total"), kind == MetricKind::Counter, "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert!(["_bucket", "_count", "_sum", "_info_total"].iter().all(|end| !name.ends_with(end)), "{name}");
            assert!(name.starts_with("tidings_") || name.starts_with("messaging_"), "{name}");
            assert!(help.ends_with('.') && !help.contains('|') && help.len() < 200, "{name}: {help}");
            assert!(labels.iter().all(|label| *label != "le" && *label != "quantile"), "{name}");
            let stem = family_name(metric);
            let whole = [stem, unit].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_");
            let total = if kind == MetricKind::Counter { "_total" } else { "" };
            assert_eq!(format!("{whole}{total}"), name);
        }
        let names: std::collections::HashSet<_> = ROWS.iter().map(|row| row.metric.name).collect();
        assert_eq!(names.len(), ROWS.len(), "a name occurs once");
    }
}
