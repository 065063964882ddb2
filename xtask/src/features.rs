//! Features only add items: each crate must build with none, with each alone, and with all.

use crate::Result;
use crate::process::{cargo, run as run_command};
use crate::workspace::{Package, packages, root};

/// Checks each published crate under each of its [`combinations`].
pub(crate) fn run() -> Result {
    let mut failed = Vec::new();
    for package in packages()?.iter().filter(|package| package.published) {
        for features in combinations(package) {
            // Clippy instead of check, as it can deny warnings in our crates alone: RUSTFLAGS would rebuild all others.
            let mut command = cargo(["clippy", "--quiet", "--no-default-features", "--package", &package.name]);
            command.args(&features).args(["--", "--deny=warnings"]).current_dir(root());
            if let Err(failure) = run_command(&mut command) {
                failed.push(failure.to_string());
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n").into()) }
}

/// The arguments for each combination of features to check: none, each alone, all.
fn combinations(package: &Package) -> Vec<Vec<String>> {
    let alone = package.features.iter().map(|feature| vec![format!("--features={feature}")]);
    let all = (package.features.len() > 1).then(|| vec!["--all-features".to_owned()]);
    std::iter::once(Vec::new()).chain(alone).chain(all).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::workspace::package;

    fn with_features(features: &serde_json::Value) -> Vec<String> {
        let package = package(&json!({ "name": "a", "features": features }));
        combinations(&package).into_iter().map(|args| args.join(" ")).collect()
    }

    #[test]
    fn a_crate_without_features_is_checked_once() {
        assert_eq!(with_features(&json!({})), [""]);
    }

    #[test]
    fn each_feature_is_checked_alone_and_default_is_not_one() {
        let features = json!({ "default": ["json"], "json": [], "postcard": ["dep:postcard"] });
        assert_eq!(with_features(&features), ["", "--features=json", "--features=postcard", "--all-features"]);
    }

    #[test]
    fn a_single_feature_is_not_checked_twice() {
        assert_eq!(with_features(&json!({ "json": [] })), ["", "--features=json"]);
    }
}
