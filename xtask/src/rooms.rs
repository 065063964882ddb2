//! The map of the rooms shows what is there, and the rules for their arrows miss no room. The arrows themselves are
//! checked by cargo-deny.

use std::collections::BTreeSet;
use std::fs;

use crate::Result;
use crate::process::{cargo, output};
use crate::workspace::{Package, packages, root};

const MAP: &str = "CONTRIBUTING.md";
const RULES: &str = "deny.toml";
/// Packages that no rule is about: every room may depend on the one, and the other sees everything.
const FREE: [&str; 2] = ["tidings-core", "tidings"];

/// Features of the facade, and what must not be built without them.
const OPTIONAL: [(&str, &str); 1] = [("otel", "opentelemetry")];

/// Checks the map and the rules.
pub(crate) fn run() -> Result {
    let all = packages()?;
    let rules = fs::read_to_string(root().join(RULES))?;
    let mut wrong: Vec<String> = all.iter().filter_map(|package| unruled(package, &rules)).collect();
    wrong.extend(all.iter().filter_map(slow_example));
    for (feature, dependency) in OPTIONAL {
        let facade = all.iter().filter(|package| package.name == "tidings");
        for features in facade.map(|facade| others(&facade.features, feature)) {
            wrong.extend(leaked(&tree(&features)?, feature, dependency));
        }
    }
    let rooms: BTreeSet<String> = all.iter().map(room).filter(|room| !room.is_empty()).collect();
    let map = mapped(&fs::read_to_string(root().join(MAP))?);
    wrong.extend(rooms.difference(&map).map(|room| format!("{room}/ is missing in the map in {MAP}")));
    // Rooms without a package of their own, such as examples/, are folders.
    let missing = map.difference(&rooms).filter(|room| !root().join(room).is_dir());
    missing.for_each(|room| println!("{MAP} has a room {room}/ that is not there yet"));
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// The directory of the root that a package is in, of its own or with others; empty for the root's own package.
fn room(package: &Package) -> String {
    let path = package.root.strip_prefix(root()).unwrap_or(&package.root);
    path.iter().next().map(|first| first.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Says that the facade needs the testbed, if it does: cargo would build it before the README's first example.
fn slow_example(package: &Package) -> Option<String> {
    let is_facade = room(package).is_empty() && package.published;
    let wrong =
        || "the facade's tests on real servers belong in integration/: examples build all dev-dependencies".into();
    (is_facade && package.uses_testbed).then(wrong)
}

/// All features but this one and those that contain it, for cargo.
fn others(features: &[String], feature: &str) -> String {
    let other = |name: &&str| ![feature, "default", "full"].contains(name);
    features.iter().map(String::as_str).filter(other).collect::<Vec<_>>().join(",")
}

/// Returns the crates that the facade is built of with these features, one per line.
fn tree(features: &str) -> Result<String> {
    let arguments = ["tree", "--package=tidings", "--edges=normal,build", "--prefix=none", "--no-default-features"];
    output(cargo(arguments).args(["--features", features]).current_dir(root()))
}

/// Says that a crate is built without the feature that it belongs to, if so.
fn leaked(tree: &str, feature: &str, dependency: &str) -> Option<String> {
    let is_there = tree.lines().any(|line| line.split(' ').next() == Some(dependency));
    is_there.then(|| format!("the facade needs {dependency} without its feature {feature}"))
}

/// The rooms in the map: rows that begin with a directory.
fn mapped(map: &str) -> BTreeSet<String> {
    let directory = |line: &str| line.strip_prefix("| `")?.split_once("/`").map(|(room, _)| room.to_owned());
    map.lines().filter_map(directory).collect()
}

/// Says that `rules` do not tell who may depend on a published package, if so.
fn unruled(package: &Package, rules: &str) -> Option<String> {
    let name = package.name.as_str();
    let is_ruled = || FREE.contains(&name) || rules.contains(&format!("crate = \"{name}\""));
    let wrong = || format!("{RULES} does not say which rooms may depend on {name}");
    (package.published && !is_ruled()).then(wrong)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::workspace::package;

    fn in_room(room: &str, name: &str, dependencies: &[&str]) -> Package {
        let dependencies: Vec<_> = dependencies.iter().map(|name| json!({ "name": name, "kind": null })).collect();
        let manifest = root().join(room).join("Cargo.toml");
        package(&json!({ "name": name, "manifest_path": manifest, "dependencies": dependencies }))
    }

    #[test]
    fn a_new_room_needs_a_rule() {
        let rules = "{ crate = \"tidings-sled\", wrappers = [\"tidings\"] }";
        assert_eq!(unruled(&in_room("store-sled", "tidings-sled", &[]), rules), None);
        assert_eq!(unruled(&in_room("core", "tidings-core", &[]), rules), None);
        let wrong = unruled(&in_room("store-x", "tidings-x", &[]), rules);
        assert!(wrong.is_some_and(|why| why.contains("tidings-x")));
    }

    #[test]
    fn a_crate_belongs_to_its_feature() {
        let features = ["default", "full", "json", "otel"].map(String::from);
        assert_eq!(others(&features, "otel"), "json");
        assert_eq!(leaked("tidings v0.1.0\ntidings-otel v0.1.0\n", "otel", "opentelemetry"), None);
        assert!(leaked("tidings v0.1.0\nopentelemetry v0.33.1\n", "otel", "opentelemetry").is_some());
    }

    #[test]
    fn examples_do_not_wait_for_the_testbed() {
        let facade = |dependencies: &[&str]| in_room("", "tidings", dependencies);
        assert_eq!(slow_example(&facade(&["serde"])), None);
        assert!(slow_example(&facade(&["serde", "tidings-testbed"])).is_some_and(|why| why.contains("integration/")));
        assert_eq!(slow_example(&in_room("integration", "tidings-integration", &["tidings-testbed"])), None);
    }

    #[test]
    fn packages_share_the_room_that_they_are_in() {
        assert_eq!(room(&in_room("examples/orders", "orders", &[])), "examples");
        assert_eq!(room(&in_room("", "tidings", &[])), "");
    }

    #[test]
    fn the_map_is_made_of_the_rows_that_begin_with_a_room() {
        let map = mapped("| Room | What |\n| `core/` | words |\n| `cli/` | tools |\n| `cargo xtask` | chores |\n");
        assert_eq!(map, ["core", "cli"].map(String::from).into());
    }
}
