//! `deploy/` has the dashboard and the alerts of the code.

use std::path::Path;

use tidings_ops::generate;

/// Compares a file with its text. Set `TIDINGS_BLESS=1` to write it.
fn assert_generated(file: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file);
    if std::env::var_os("TIDINGS_BLESS").is_some() {
        std::fs::write(&path, wanted).expect(file);
    }
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let is_same = text == wanted;
    assert!(
        is_same,
        "deploy/{file} is not as generated: write it by `TIDINGS_BLESS=1 cargo test -p tidings-ops --test generated`"
    );
}

#[test]
fn the_dashboard_is_that_of_the_code() {
    assert_generated("grafana/tidings.json", &generate::dashboard());
}

#[test]
fn the_alerts_are_those_of_the_code() {
    assert_generated("prometheus/tidings.rules.yaml", &generate::alerts());
}

/// The rules that Grafana Labs' linter has for dashboards.
#[test]
fn each_panel_has_a_title_a_description_a_unit_and_rates_over_the_right_range() {
    let board: serde_json::Value = serde_json::from_str(&generate::dashboard()).unwrap();
    let variables = board["templating"]["list"].as_array().unwrap().iter();
    let variables: Vec<&str> = variables.filter_map(|variable| variable["name"].as_str()).collect();
    assert_eq!(variables, ["datasource", "job", "instance", "group", "topic"]);
    let panels = board["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
    assert!(panels.clone().count() > 30);
    for panel in panels {
        let text = |value: &serde_json::Value| value.as_str().is_some_and(|text| !text.is_empty());
        assert!(text(&panel["title"]) && text(&panel["description"]), "{panel:#}");
        assert!(text(&panel["fieldConfig"]["defaults"]["unit"]), "{panel:#}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}");
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            assert!(query.contains(r#"job=~"$job",instance=~"$instance""#), "{query}");
            assert_eq!(query.matches("rate(").count(), query.matches("[$__rate_interval]").count(), "{query}");
        }
    }
}
