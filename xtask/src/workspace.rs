//! This workspace, as `cargo metadata` describes it.

use std::env;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::Result;
use crate::process::{cargo, output};

/// The package that starts servers.
const TESTBED: &str = "tidings-testbed";

/// A package of this workspace.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) published: bool,
    /// The package's directory.
    pub(crate) root: PathBuf,
    pub(crate) targets: Vec<Target>,
    pub(crate) features: Vec<String>,
    /// Whether its tests can use real servers.
    pub(crate) uses_testbed: bool,
    /// Its `[package.metadata.tidings]` table.
    pub(crate) settings: Value,
}

/// A target of a package: a library, an example and so on.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: String,
}

impl Package {
    /// Whether it has a library that others can document and link (a procedural macro has no types to show).
    pub(crate) fn has_library(&self) -> bool {
        self.targets.iter().any(|target| target.kind == "lib")
    }

    /// Whether it has a library, of whatever kind, in whose documentation there may be tests.
    pub(crate) fn has_doc_tests(&self) -> bool {
        self.targets.iter().any(|target| target.kind == "lib" || target.kind == "proc-macro")
    }

    /// The names of its targets of `kind`.
    pub(crate) fn targets_of(&self, kind: &str) -> impl Iterator<Item = &str> {
        self.targets.iter().filter(move |target| target.kind == kind).map(|target| target.name.as_str())
    }
}

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where cargo puts what it builds.
pub(crate) fn target_directory() -> PathBuf {
    let directory = env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    root().join(directory)
}

/// The packages of this workspace.
///
/// # Errors
/// When `cargo metadata` fails or is not understood.
pub(crate) fn packages() -> Result<Vec<Package>> {
    let text = output(cargo(["metadata", "--format-version=1", "--no-deps"]).current_dir(root()))?;
    let metadata: Value = serde_json::from_str(&text)?;
    Ok(list(&metadata["packages"]).iter().map(package).collect())
}

/// The package that `cargo metadata` describes by `value`.
pub(crate) fn package(value: &Value) -> Package {
    Package {
        name: text(&value["name"]),
        published: is_published(value),
        root: Path::new(&text(&value["manifest_path"])).parent().map(PathBuf::from).unwrap_or_default(),
        targets: list(&value["targets"])
            .iter()
            .map(|target| Target { name: text(&target["name"]), kind: text(&target["kind"][0]) })
            .collect(),
        features: value["features"].as_object().map(|features| features.keys().cloned().collect()).unwrap_or_default(),
        uses_testbed: list(&value["dependencies"]).iter().any(|dependency| dependency["name"] == TESTBED),
        settings: value["metadata"]["tidings"].clone(),
    }
}

/// `publish = false` is an empty list of registries; no limit is null.
fn is_published(package: &Value) -> bool {
    package["publish"].as_array().is_none_or(|registries| !registries.is_empty())
}

/// The elements of an array; none where there is no array.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A string; empty where there is none.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
