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
    let rooms: BTreeSet<String> = all.iter().map(room).filter(|room| !room.is_empty()).collect();
    let map = mapped(&fs::read_to_string(root().join(MAP))?);
    wrong.extend(rooms.difference(&map).map(|room| format!("{room}/ is missing in the map in {MAP}")));
    // Rooms without a package of their own, such as examples/, are folders.
    let missing = map.difference(&rooms).filter(|room| !root().join(room).is_dir());
    missing.for_each(|room| println!("{MAP} has a room {room}/ that is not there yet"));
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// The directory of a package, as seen from the root.
fn room(package: &Package) -> String {
    package.root.strip_prefix(root()).unwrap_or(&package.root).to_string_lossy().into_owned()
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
    fn the_map_is_made_of_the_rows_that_begin_with_a_room() {
        let map = mapped("| Room | What |\n| `core/` | words |\n| `cli/` | tools |\n| `cargo xtask` | chores |\n");
        assert_eq!(map, ["core", "cli"].map(String::from).into());
    }
}
