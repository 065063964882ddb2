//! Every package that a published crate links or builds with has a licence that its users can live with.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use spdx::{Expression, ParseMode};

use crate::Result;
use crate::workspace::{is_published, list, resolved, text};

const ALLOWED: [&str; 11] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0", // webpki-roots: Mozilla's list of certificates, data and no code
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];
/// Additions that only grant more.
const EXCEPTIONS: [&str; 1] = ["LLVM-exception"];
/// Packages that are used in spite of their licence: name, licence, reason.
const IN_SPITE: [(&str, &str, &str); 0] = [];

/// Checks the normal and build dependencies of all published crates, on all platforms, with all features.
pub(crate) fn run() -> Result {
    let metadata = resolved()?;
    let packages: BTreeMap<String, &Value> =
        list(&metadata["packages"]).iter().map(|package| (text(&package["id"]), package)).collect();
    let reached = reached(&metadata, &packages);
    let wrong: Vec<String> = reached.iter().filter_map(|id| refusal(packages.get(id)?)).collect();
    if wrong.is_empty() {
        println!("{} packages, all with an allowed licence", reached.len());
        return Ok(());
    }
    Err(wrong.join("\n").into())
}

/// The ids of the published crates and of everything they need but for tests.
fn reached(metadata: &Value, packages: &BTreeMap<String, &Value>) -> BTreeSet<String> {
    let nodes: BTreeMap<String, &Value> =
        list(&metadata["resolve"]["nodes"]).iter().map(|node| (text(&node["id"]), node)).collect();
    let members = list(&metadata["workspace_members"]).iter().map(text);
    let mut open: Vec<String> = members.filter(|id| packages.get(id).is_some_and(|p| is_published(p))).collect();
    let mut reached = BTreeSet::new();
    while let Some(id) = open.pop() {
        if let Some(node) = nodes.get(&id).filter(|_| reached.insert(id.clone())) {
            let needed = list(&node["deps"]).iter().filter(|dependency| is_shipped(dependency));
            open.extend(needed.map(|dependency| text(&dependency["pkg"])));
        }
    }
    reached
}

fn is_shipped(dependency: &Value) -> bool {
    list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev")
}

/// Why a package can't be used; `None` if it can.
fn refusal(package: &Value) -> Option<String> {
    let (name, licence) = (text(&package["name"]), text(&package["license"]));
    if IN_SPITE.iter().any(|(used, of, _)| *used == name && *of == licence) {
        return None;
    }
    match is_allowed(&licence) {
        Ok(true) => None,
        Ok(false) => Some(format!("{name}: its licence {licence:?} is not on the list")),
        Err(why) => Some(format!("{name}: its licence {licence:?} can't be read: {why}")),
    }
}

/// Whether `ALLOWED` is enough to satisfy an SPDX expression.
fn is_allowed(licence: &str) -> Result<bool> {
    // Lax: older packages write MIT/Apache-2.0.
    let expression = Expression::parse_mode(licence, ParseMode::LAX).map_err(|e| e.reason.to_string())?;
    Ok(expression.evaluate(|needed| {
        let exception = needed.addition.as_ref().map(ToString::to_string);
        needed.license.id().is_some_and(|id| ALLOWED.contains(&id.name))
            && exception.is_none_or(|exception| EXCEPTIONS.contains(&exception.as_str()))
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_side_of_an_or_is_enough_and_both_of_an_and_are_needed() {
        for allowed in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0-only OR MIT",
            "Apache-2.0 WITH LLVM-exception",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 AND (GPL-2.0-only OR ISC)",
        ] {
            assert!(is_allowed(allowed).expect("it parses"), "{allowed}");
        }
        for refused in ["GPL-3.0-only", "MIT AND MPL-2.0", "Apache-2.0 WITH Classpath-exception-2.0"] {
            assert!(!is_allowed(refused).expect("it parses"), "{refused}");
        }
    }

    #[test]
    fn a_package_that_names_no_licence_is_refused() {
        assert!(refusal(&json!({ "name": "a", "license": null })).is_some());
        assert!(refusal(&json!({ "name": "a", "license": "do what you like" })).is_some());
    }

    #[test]
    fn what_only_tests_and_unpublished_crates_need_is_not_looked_at() {
        let dependency = |id: &str, kind: Value| json!({ "pkg": id, "dep_kinds": [{ "kind": kind }] });
        let metadata = json!({
            "workspace_members": ["ours", "chores"],
            "packages": [{ "id": "ours", "publish": null }, { "id": "chores", "publish": [] }],
            "resolve": { "nodes": [
                { "id": "ours", "deps": [dependency("a", Value::Null), dependency("t", json!("dev"))] },
                { "id": "a", "deps": [dependency("b", json!("build"))] },
                { "id": "b", "deps": [] },
                { "id": "chores", "deps": [dependency("c", Value::Null)] },
            ] },
        });
        let packages = list(&metadata["packages"]).iter().map(|p| (text(&p["id"]), p)).collect();
        assert_eq!(reached(&metadata, &packages), ["a", "b", "ours"].map(String::from).into());
    }
}
