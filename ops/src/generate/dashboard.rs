//! The dashboard for Grafana.

use serde_json::{Value, json};

use super::panels::{Panel, ROWS};
use super::query::{Form, Query, metric, queries, unit};

const COLUMNS: usize = 3;
const WIDTH: usize = 8;
const HEIGHT: usize = 8;

/// Returns a dashboard for Grafana 10 or newer, as JSON: `deploy/grafana/tidings.json` has it.
///
/// Its variables are the data source (Prometheus), `job`, `instance`, `group` and `topic`. Each metric of the table has
/// a panel, with the unit and the meaning of the table.
///
/// ```
/// let board: serde_json::Value = serde_json::from_str(&tidings_ops::generate::dashboard()).expect("JSON");
/// assert_eq!(board["uid"], "tidings");
/// ```
pub fn dashboard() -> String {
    let board = json!({
        "uid": "tidings",
        "title": "tidings",
        "description": "Services, publishers and outbox relays on tidings",
        "tags": ["tidings"],
        "schemaVersion": 39,
        "editable": true,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": { "from": "now-1h", "to": "now" },
        "templating": { "list": variables() },
        "panels": panels(),
    });
    format!("{board:#}\n")
}

fn variables() -> Vec<Value> {
    let source = json!({
        "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
    });
    let labels = [
        ("job", "label_values(tidings_build_info, job)"),
        ("instance", r#"label_values(tidings_build_info{job=~"$job"}, instance)"#),
        ("group", r#"label_values(tidings_service_info{job=~"$job",instance=~"$instance"}, group)"#),
        (
            "topic",
            r#"label_values(tidings_group_lag_messages{job=~"$job",instance=~"$instance",group=~"$group"}, topic)"#,
        ),
    ];
    std::iter::once(source).chain(labels.map(|(name, query)| variable(name, query))).collect()
}

fn variable(name: &str, query: &str) -> Value {
    json!({
        "name": name,
        "label": name,
        "type": "query",
        "datasource": source(),
        "definition": query,
        "query": { "query": query, "refId": name },
        // On each change of the time range, as instances come and go.
        "refresh": 2,
        "sort": 1,
        "multi": true,
        "includeAll": true,
        "allValue": ".*",
        "current": { "text": "All", "value": "$__all" },
    })
}

fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

fn panels() -> Vec<Value> {
    let (mut out, mut top) = (Vec::new(), 0);
    for (title, panels) in ROWS {
        let id = out.len() + 1;
        let place = json!({ "x": 0, "y": top, "w": WIDTH * COLUMNS, "h": 1 });
        out.push(
            json!({ "id": id, "type": "row", "title": title, "collapsed": false, "gridPos": place, "panels": [] }),
        );
        top += 1;
        for (number, panel) in panels.iter().enumerate() {
            let (row, column) = (number / COLUMNS, number % COLUMNS);
            let place = json!({ "x": WIDTH * column, "y": top + HEIGHT * row, "w": WIDTH, "h": HEIGHT });
            out.extend(drawn(panel, out.len() + 1, &place));
        }
        top += HEIGHT * panels.len().div_ceil(COLUMNS);
    }
    out
}

/// Returns a panel, if its metric exists, as a test checks.
fn drawn(panel: &Panel, id: usize, place: &Value) -> Option<Value> {
    let metric = metric(panel.metric)?;
    let description = match panel.form {
        Form::Rate => format!("{} Per second.", metric.help),
        Form::Quantiles => format!("{} Median, 95th and 99th percentile.", metric.help),
        Form::Sum | Form::Max | Form::Flag => metric.help.to_owned(),
    };
    Some(json!({
        "id": id,
        "type": if panel.form == Form::Flag { "stat" } else { "timeseries" },
        "title": panel.title,
        "description": description,
        "datasource": source(),
        "gridPos": place,
        "fieldConfig": { "defaults": defaults(panel.form, unit(metric, panel.form)), "overrides": [] },
        "options": options(panel.form),
        "targets": targets(queries(metric, panel.form, panel.by)),
    }))
}

fn defaults(form: Form, unit: &str) -> Value {
    if form == Form::Flag {
        let colours = json!([{ "color": "red", "value": null }, { "color": "green", "value": 1 }]);
        let texts = json!([{ "type": "value", "options": { "0": { "text": "no" }, "1": { "text": "yes" } } }]);
        return json!({ "unit": unit, "thresholds": { "mode": "absolute", "steps": colours }, "mappings": texts });
    }
    json!({ "unit": unit, "min": 0, "custom": { "fillOpacity": 10, "showPoints": "never" } })
}

fn options(form: Form) -> Value {
    if form == Form::Flag {
        return json!({ "colorMode": "background", "reduceOptions": { "calcs": ["lastNotNull"] } });
    }
    json!({
        "legend": { "displayMode": "list", "placement": "bottom" },
        "tooltip": { "mode": "multi", "sort": "desc" },
    })
}

fn targets(queries: Vec<Query>) -> Vec<Value> {
    let target = |(id, query): (char, Query)| {
        json!({
            "refId": id.to_string(),
            "datasource": source(),
            "editorMode": "code",
            "expr": query.expression,
            "legendFormat": query.legend,
            "range": true,
        })
    };
    ('A'..='Z').zip(queries).map(target).collect()
}
