//! Builds all examples and runs those that need no server.
//!
//! Their output is shown only if they fail. An example runs without arguments, unless its package says otherwise:
//!
//! ```toml
//! [package.metadata.tidings.examples]
//! interview_platform = ["--limit", "2000"]
//! needs_a_server = false # built only
//! ```

use std::process::Command;

use serde_json::Value;

use crate::Result;
use crate::process::{cargo, run_gate, run_quietly};
use crate::workspace::{list, packages, root, target_directory, text};

/// Builds, then runs.
pub(crate) fn run() -> Result {
    run_gate(cargo(["build", "--quiet", "--workspace", "--all-features", "--bins", "--examples"]).current_dir(root()))?;
    for package in packages()? {
        // Programs of packages in the room examples are examples, too.
        let kinds: &[&str] =
            if package.root.starts_with(root().join("examples")) { &["example", "bin"] } else { &["example"] };
        for kind in kinds {
            for name in package.targets_of(kind) {
                let Some(arguments) = arguments(&package.settings["examples"][name]) else { continue };
                // Not by `cargo run`: without the rest of the workspace, it would choose other features, and build anew.
                let directory = target_directory().join(if *kind == "bin" { "debug" } else { "debug/examples" });
                run_quietly(Command::new(directory.join(name)).args(arguments).current_dir(root()))?;
            }
        }
    }
    Ok(())
}

/// The arguments to run an example with; `None` if it is not to run.
fn arguments(setting: &Value) -> Option<Vec<String>> {
    (*setting != Value::Bool(false)).then(|| list(setting).iter().map(text).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_example_runs_unless_its_package_says_no() {
        assert_eq!(arguments(&Value::Null), Some(Vec::new()));
        assert_eq!(arguments(&json!(["--limit", "10"])), Some(vec!["--limit".to_owned(), "10".to_owned()]));
        assert_eq!(arguments(&json!(false)), None);
    }
}
