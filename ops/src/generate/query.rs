//! Queries of panels, made from what the table says of a metric.

use crate::metrics::{Metric, metrics};

/// How the series of a metric are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The sum of a gauge.
    Sum,
    /// The maximum of a gauge.
    Max,
    /// A gauge of 0 or 1 that should be 1; the minimum.
    Flag,
    /// The increase of a counter per second.
    Rate,
    /// The median, and the 95th and 99th percentile of a histogram.
    Quantiles,
}

/// A query, and the legend of its series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) expression: String,
    pub(super) legend: String,
}

/// Returns the metric of a name.
pub(super) fn metric(name: &str) -> Option<&'static Metric> {
    metrics().find(|metric| metric.name == name)
}

/// Returns the queries for a metric, grouped by some of its labels, or by those of the scrape.
pub(super) fn queries(metric: &Metric, form: Form, by: &[&str]) -> Vec<Query> {
    let (labels, legend) = (by.join(", "), legend(by));
    let one = |expression| vec![Query { expression, legend: legend.clone() }];
    let gauge = || filtered(metric, metric.name.to_owned() + &selector(metric));
    let rate = |suffix: &str| {
        let range = format!("rate({}{suffix}{}[$__rate_interval])", metric.name, selector(metric));
        filtered(metric, range)
    };
    match form {
        Form::Sum => one(format!("sum by ({labels}) ({})", gauge())),
        Form::Max => one(format!("max by ({labels}) ({})", gauge())),
        Form::Flag => one(format!("min by ({labels}) ({})", gauge())),
        Form::Rate => one(format!("sum by ({labels}) ({})", rate(""))),
        Form::Quantiles => [("0.5", "p50"), ("0.95", "p95"), ("0.99", "p99")]
            .into_iter()
            .map(|(quantile, name)| Query {
                expression: format!("histogram_quantile({quantile}, sum by (le, {labels}) ({}))", rate("_bucket")),
                legend: format!("{legend} {name}"),
            })
            .collect(),
    }
}

fn legend(by: &[&str]) -> String {
    by.iter().map(|label| format!("{{{{{label}}}}}")).collect::<Vec<_>>().join(" ")
}

/// Selects by those variables of the dashboard that the metric has a label for.
fn selector(metric: &Metric) -> String {
    let own = ["group", "topic"].into_iter().filter(|name| metric.labels.contains(name));
    let all: Vec<String> =
        ["job", "instance"].into_iter().chain(own).map(|name| format!("{name}=~\"${name}\"")).collect();
    format!("{{{}}}", all.join(","))
}

/// Restricts series that have a service, and no group, to the services of the selected groups.
fn filtered(metric: &Metric, expression: String) -> String {
    if !metric.labels.contains(&"service") || metric.labels.contains(&"group") {
        return expression;
    }
    let groups = r#"tidings_service_info{job=~"$job",instance=~"$instance",group=~"$group"}"#;
    format!("{expression} and on (job, instance, service) {groups}")
}

/// Returns the unit of a panel, as Grafana names it.
pub(super) fn unit(metric: &Metric, form: Form) -> &'static str {
    let is_rate = form == Form::Rate;
    match (metric.unit, is_rate) {
        ("seconds", _) => "s",
        ("bytes", false) => "bytes",
        ("bytes", true) => "binBps",
        (_, true) => "cps",
        (_, false) => "short",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_selects_by_the_labels_of_its_metric() {
        let of = |name, form, by: &[&str]| queries(metric(name).expect("it exists"), form, by).remove(0);
        let lag = of("tidings_group_lag_seconds", Form::Max, &["group", "topic"]);
        let selected = r#"{job=~"$job",instance=~"$instance",group=~"$group",topic=~"$topic"}"#;
        assert_eq!(lag.expression, format!("max by (group, topic) (tidings_group_lag_seconds{selected})"));
        assert_eq!(lag.legend, "{{group}} {{topic}}");
        let calls = of("tidings_publish_calls_total", Form::Rate, &["publisher"]).expression;
        let selected = r#"{job=~"$job",instance=~"$instance"}"#;
        let rate = format!("rate(tidings_publish_calls_total{selected}[$__rate_interval])");
        assert_eq!(calls, format!("sum by (publisher) ({rate})"));
        let commits = of("tidings_commits_total", Form::Rate, &["service"]).expression;
        assert!(commits.contains("and on (job, instance, service) tidings_service_info{"), "{commits}");
    }
}
