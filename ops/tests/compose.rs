//! `compose.yaml` can be read, mounts files that exist, and provisions the generated board and rules, and the data source
//! that they need.

use std::fs;
use std::path::{Path, PathBuf};

use tidings_ops::generate;
use yaml_rust2::{Yaml, YamlLoader};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Reads a file of one YAML document.
#[track_caller]
fn yaml(path: &Path) -> Yaml {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut documents = YamlLoader::load_from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(documents.len(), 1, "{}", path.display());
    documents.remove(0)
}

/// The mounts of a service: a path in the repository, and where the container sees it.
fn mounts(service: &Yaml) -> Vec<(PathBuf, PathBuf)> {
    let volumes = service["volumes"].as_vec().into_iter().flatten();
    let mounts = volumes.filter_map(Yaml::as_str).filter(|volume| volume.starts_with("./"));
    let parts = mounts.filter_map(|volume| volume.split_once(':'));
    parts.map(|(from, to)| (root().join(from), to.split(':').next().unwrap_or(to).into())).collect()
}

/// Returns the file in the repository that a container sees as `path`.
#[track_caller]
fn mounted(service: &Yaml, path: &str) -> PathBuf {
    let found = mounts(service).into_iter().find_map(|(from, to)| {
        let rest = Path::new(path).strip_prefix(&to).ok()?;
        Some(if rest.as_os_str().is_empty() { from } else { from.join(rest) })
    });
    found.unwrap_or_else(|| panic!("nothing is mounted at {path}"))
}

/// The value of an argument of a service's command.
fn argument<'a>(service: &'a Yaml, name: &str) -> Option<&'a str> {
    service["command"].as_vec()?.iter().filter_map(Yaml::as_str).find_map(|argument| argument.strip_prefix(name))
}

#[test]
fn each_file_that_is_mounted_exists() {
    let compose = yaml(&root().join("compose.yaml"));
    let services = compose["services"].as_hash().expect("services");
    let names: Vec<_> = services.keys().filter_map(Yaml::as_str).collect();
    assert_eq!(names, ["kafka", "prometheus", "grafana"]);
    let all: Vec<_> = services.values().flat_map(mounts).collect();
    assert_eq!(all.len(), 3, "{all:?}");
    for (from, to) in all {
        assert!(from.exists() && to.is_absolute(), "{from:?} at {to:?}");
        // Docker would mount a directory in the place of a file.
        assert_eq!(from.is_file(), to.extension().is_some(), "{from:?} at {to:?}");
    }
    for volume in compose["volumes"].as_hash().expect("volumes").keys().filter_map(Yaml::as_str) {
        assert_eq!(volume, "kafka");
    }
}

#[test]
fn prometheus_loads_the_generated_rules() {
    let compose = yaml(&root().join("compose.yaml"));
    let prometheus = &compose["services"]["prometheus"];
    let config = mounted(prometheus, argument(prometheus, "--config.file=").expect("a configuration"));
    let rules = yaml(&config)["rule_files"][0].as_str().expect("rules").to_owned();
    let rules = fs::read_to_string(config.with_file_name(rules)).expect("rules");
    assert!(rules == generate::alerts(), "another file than the generated one");
}

#[test]
fn grafana_provisions_the_generated_board_and_its_data_source() {
    let compose = yaml(&root().join("compose.yaml"));
    let (grafana, prometheus) = (&compose["services"]["grafana"], &compose["services"]["prometheus"]);
    let provisioning = mounted(grafana, "/etc/grafana/provisioning");
    let source = &yaml(&provisioning.join("datasources/prometheus.yaml"))["datasources"][0];
    let address = argument(prometheus, "--web.listen-address=").expect("an address");
    assert_eq!(source["url"].as_str(), Some(format!("http://{address}").as_str()));
    let config = yaml(&mounted(prometheus, argument(prometheus, "--config.file=").expect("a configuration")));
    assert_eq!(source["jsonData"]["timeInterval"], config["global"]["scrape_interval"], "$__rate_interval");

    let provider = &yaml(&provisioning.join("dashboards/tidings.yaml"))["providers"][0];
    let boards = provider["options"]["path"].as_str().expect("a path");
    let board = mounted(grafana, &format!("{boards}/tidings.json"));
    assert!(fs::read_to_string(board).expect("the board") == generate::dashboard(), "another board");
    let board: serde_json::Value = serde_json::from_str(&generate::dashboard()).expect("JSON");
    assert_eq!(board["uid"], "tidings", "compose.yaml names the board's address");
    let variables = board["templating"]["list"].as_array().expect("variables");
    let source_type = &variables.iter().find(|variable| variable["name"] == "datasource").expect("a variable")["query"];
    assert_eq!(source_type.as_str(), source["type"].as_str());
}
