//! Arrows point inward (docs/design/0001-rooms-and-dependencies.md), and the map of the rooms shows what is there.

use std::collections::BTreeSet;
use std::fs;

use crate::Result;
use crate::workspace::{Package, packages, root};

const MAP: &str = "CONTRIBUTING.md";

/// Checks the normal dependencies of each published package, and the map.
pub(crate) fn run() -> Result {
    let all = packages()?;
    let mut wrong: Vec<String> =
        all.iter().filter(|package| package.published).flat_map(|package| outward(package, &all)).collect();
    wrong.extend(all.iter().filter_map(slow_example));
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

/// The rooms in the map: rows that begin with a directory.
fn mapped(map: &str) -> BTreeSet<String> {
    let directory = |line: &str| line.strip_prefix("| `")?.split_once("/`").map(|(room, _)| room.to_owned());
    map.lines().filter_map(directory).collect()
}

/// The arrows of `package` that point outward, as sentences.
fn outward(package: &Package, all: &[Package]) -> Vec<String> {
    let room = room(package);
    let Some(allowed) = allowed(&room) else { return Vec::new() };
    let ours = |name: &&String| all.iter().any(|other| other.name == **name);
    let wrong = package.dependencies.iter().filter(ours).filter(|name| !allowed.contains(&name.as_str()));
    wrong.map(|name| format!("{room}/ must not depend on {name}: arrows point inward")).collect()
}

/// Our own packages that a room may depend on; `None` for those that see everything (facade, cli).
fn allowed(room: &str) -> Option<&'static [&'static str]> {
    match room {
        "core" | "macros" => Some(&[]),
        "conformance" => Some(&["tidings-core"]),
        "service" => Some(&["tidings-core", "tidings-macros"]),
        "testkit" => Some(&["tidings-core", "tidings-service", "tidings-memory"]),
        // Its `Tx` is an argument of handlers: docs/design/0005-postgres.md.
        "store-postgres" => Some(&["tidings-core", "tidings-service"]),
        backend if backend.starts_with("transport-") || backend.starts_with("store-") => Some(&["tidings-core"]),
        _ => None,
    }
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
    fn a_backend_must_not_see_the_service() {
        let all = [
            in_room("core", "tidings-core", &["bytes"]),
            in_room("service", "tidings-service", &["tidings-core"]),
            in_room("store-sled", "tidings-sled", &["sled", "tidings-core", "tidings-service"]),
            in_room("", "tidings", &["tidings-core", "tidings-service", "tidings-sled"]),
        ];
        let wrong: Vec<String> = all.iter().flat_map(|package| outward(package, &all)).collect();
        assert_eq!(wrong, ["store-sled/ must not depend on tidings-service: arrows point inward"]);
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
