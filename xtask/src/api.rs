//! No public signature shows a client library: a client can then be swapped without a breaking release.
//!
//! Reads what rustdoc writes as JSON, an unstable format, and so knows as little of it as it can: an object with `path`,
//! `id` and `args` names a type or trait, wherever it is. A test runs the rustdoc in use over a planted violation.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::process::{Command, ExitCode};

use serde_json::Value;

use crate::Result;
use crate::process::{cargo, run_gate};
use crate::workspace::{list, packages, root, target_directory, text};

/// Allowed in any crate: a crate, or the full path of an item or module.
const ALLOWED: [&str; 10] =
    ["std", "core", "alloc", "proc_macro", "serde", "serde_core", "bytes", "uuid", "async_trait", "futures_core"];
/// Allowed in single crates in addition.
const ALLOWED_IN: [(&str, &[&str]); 4] = [
    // Its routes are mounted in a server of the user's.
    ("tidings-ops", &["axum::routing::Router"]),
    // It is an adapter to OpenTelemetry's API, whose version its own follows.
    (
        "tidings-otel",
        &[
            "opentelemetry",
            // In the bound of `Unpin` that the macro writes for the futures of its layers.
            "pin_project_lite::__private::PinnedFieldsOf",
            "tower_layer::Layer",
            "tower_service::Service",
        ],
    ),
    ("tidings-service", &["tower_layer::Layer", "tower_service::Service"]),
    (
        "tidings-postgres",
        &[
            "sqlx_core::pool::Pool",
            "sqlx_core::transaction::Transaction",
            "sqlx_postgres::PgPool",
            "sqlx_postgres::connection::PgConnection",
            "sqlx_postgres::database::Postgres",
            // The inbox is a layer around handlers.
            "tower_layer::Layer",
            "tower_service::Service",
        ],
    ),
];
/// Tells this program to be rustdoc; see [`as_rustdoc`].
const AS_RUSTDOC: &str = "TIDINGS_XTASK_RUSTDOC";
const JSON_FLAGS: &str = "-Zunstable-options --output-format=json";

/// Checks all published libraries.
pub(crate) fn run() -> Result {
    let mut command = cargo(["doc", "--quiet", "--workspace", "--lib", "--all-features", "--no-deps"]);
    command.env(AS_RUSTDOC, env::var_os("RUSTDOC").unwrap_or_else(|| "rustdoc".into()));
    command.env("RUSTDOC", env::current_exe()?).env("RUSTDOCFLAGS", JSON_FLAGS).current_dir(root());
    run_gate(&mut command)?;
    let packages = packages()?;
    let ours: Vec<String> = packages.iter().map(|package| package.name.replace('-', "_")).collect();
    let mut found = Vec::new();
    for package in packages.iter().filter(|package| package.published && package.has_library()) {
        let file = target_directory().join("doc").join(package.name.replace('-', "_")).with_extension("json");
        let json = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        let extra = ALLOWED_IN.iter().filter(|(name, _)| *name == package.name).flat_map(|(_, extra)| extra.iter());
        let allowed = ours.iter().map(String::as_str).chain(ALLOWED).chain(extra.copied()).collect();
        let (seen, wrong) = Signatures::check(&serde_json::from_str(&json)?, allowed);
        println!("{}: {seen} public items, {} show a foreign type", package.name, wrong.len());
        found.extend(wrong);
    }
    if found.is_empty() { Ok(()) } else { Err(format!("not on the list:\n{}", found.join("\n")).into()) }
}

/// Runs rustdoc in this program's stead, if cargo called it as rustdoc.
///
/// rustdoc needs `RUSTC_BOOTSTRAP` for JSON. Set for the whole of cargo, it would turn on nightly features in build
/// scripts and build all dependencies anew.
pub(crate) fn as_rustdoc() -> Option<ExitCode> {
    let rustdoc = env::var_os(AS_RUSTDOC)?;
    let mut command = Command::new(rustdoc);
    let status = command.args(env::args_os().skip(1)).env("RUSTC_BOOTSTRAP", "1").env_remove(AS_RUSTDOC).status();
    Some(if status.is_ok_and(|status| status.success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A walk over all that users of a crate can name.
#[derive(Debug)]
struct Signatures<'a> {
    doc: &'a Value,
    allowed: Vec<&'a str>,
    seen: BTreeSet<String>,
    wrong: BTreeSet<String>,
}

impl<'a> Signatures<'a> {
    /// How many items `doc`, a crate in rustdoc's JSON, shows, and a sentence for each that shows something else than
    /// what is `allowed`.
    fn check(doc: &'a Value, allowed: Vec<&'a str>) -> (usize, Vec<String>) {
        let mut walk = Self { doc, allowed, seen: BTreeSet::new(), wrong: BTreeSet::new() };
        walk.visit(&doc["root"], "");
        (walk.seen.len(), walk.wrong.into_iter().collect())
    }

    fn visit(&mut self, id: &Value, parent: &str) {
        let doc = self.doc;
        let item = &doc["index"][key(id)];
        let Some((kind, inner)) = item["inner"].as_object().and_then(|inner| inner.iter().next()) else { return };
        if !self.seen.insert(key(id)) {
            return;
        }
        let path = match item["name"].as_str() {
            Some(name) if parent.is_empty() => name.to_owned(),
            Some(name) => format!("{parent}::{name}"),
            None => parent.to_owned(),
        };
        match kind.as_str() {
            "use" => self.re_export(inner, parent),
            "impl" => self.implementation(inner, &path),
            _ => {
                self.scan(inner, &path);
                for child in children(inner) {
                    self.visit(child, &path);
                }
            }
        }
    }

    fn re_export(&mut self, inner: &Value, parent: &str) {
        if self.doc["index"].get(key(&inner["id"])).is_some() {
            self.visit(&inner["id"], parent);
        } else {
            let source = text(&inner["source"]);
            let shown = self.full_path(&inner["id"]).unwrap_or(source);
            self.judge(&shown, &format!("{parent}::{}", text(&inner["name"])));
        }
    }

    /// The trait itself may be any: what its implementation says with its arguments and associated types may not.
    fn implementation(&mut self, inner: &Value, path: &str) {
        if inner["is_synthetic"] == true || !inner["blanket_impl"].is_null() {
            return;
        }
        let of = text(&inner["trait"]["path"]);
        let path = if of.is_empty() { path.to_owned() } else { format!("impl {of} for {path}") };
        self.scan(&inner["trait"]["args"], &path);
        self.scan(&inner["generics"], &path);
        self.scan(&inner["for"], &path);
        for item in list(&inner["items"]) {
            // The signatures of a trait's functions are the trait's.
            let is_function = self.doc["index"][key(item)]["inner"].get("function").is_some();
            if of.is_empty() || !is_function {
                self.visit(item, &path);
            }
        }
    }

    /// Judges every type and trait named anywhere in `value`.
    fn scan(&mut self, value: &Value, path: &str) {
        match value {
            Value::Object(fields) => {
                if fields.contains_key("path") && fields.contains_key("id") && fields.contains_key("args") {
                    let shown = self.full_path(&value["id"]).unwrap_or_else(|| text(&value["path"]));
                    self.judge(&shown, path);
                }
                fields.values().for_each(|field| self.scan(field, path));
            }
            Value::Array(elements) => elements.iter().for_each(|element| self.scan(element, path)),
            _ => {}
        }
    }

    /// The path under which an item is defined; of an item of this crate, its name alone.
    fn full_path(&self, id: &Value) -> Option<String> {
        let summary = self.doc["paths"].get(key(id))?;
        let mut parts: Vec<String> = list(&summary["path"]).iter().map(text).collect();
        let owner = &self.doc["external_crates"][key(&summary["crate_id"])]["name"];
        if let (Some(name), Some(first)) = (owner.as_str(), parts.first_mut()) {
            name.clone_into(first);
        }
        Some(parts.join("::"))
    }

    fn judge(&mut self, shown: &str, path: &str) {
        let this = text(&self.doc["index"][key(&self.doc["root"])]["name"]);
        let is =
            |allowed: &str| shown.strip_prefix(allowed).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        // `Self`, a generic parameter or a private item of this crate: written without a crate.
        let is_ours = is(&this) || is("crate") || is("self") || !shown.contains("::");
        if !is_ours && !self.allowed.iter().copied().any(is) {
            self.wrong.insert(format!("{path} shows {shown}"));
        }
    }
}

/// The items within an item: their ids stand in lists under these names, and nowhere else.
fn children(inner: &Value) -> Vec<&Value> {
    let kind = &inner["kind"];
    let fields = [&kind["struct"]["fields"], &kind["plain"]["fields"], &kind["tuple"]];
    let lists = ["items", "impls", "implementations", "variants", "fields"].map(|name| &inner[name]);
    lists.into_iter().chain(fields).flat_map(list).filter(|id| id.is_u64()).collect()
}

/// The key of an id in rustdoc's maps.
fn key(id: &Value) -> String {
    id.as_u64().map(|id| id.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const FOREIGN: &str = "pub struct Client; pub trait Plug {}";
    const SHOWN: &str = "
        extern crate foreign;
        mod private {
            pub struct Inner { pub client: foreign::Client, hidden: foreign::Client }
            pub fn unreachable(_: foreign::Client) {}
        }
        pub use private::Inner;
        pub use foreign::Client as Renamed;
        pub enum Choice { Named { client: Option<foreign::Client> }, Tuple(foreign::Client), None(u8) }
        pub struct Fine(foreign::Client);
        impl Fine { pub fn client(&self) -> &[foreign::Client] { &[] } }
        impl foreign::Plug for Fine {}
        impl From<foreign::Client> for Fine { fn from(c: foreign::Client) -> Self { Self(c) } }
        pub fn bound<T: foreign::Plug>(_: T) -> impl Fn(u8) -> String { |_| String::new() }
        pub trait Local { type Out; fn boxed(&self, _: Box<dyn foreign::Plug>) {} }
        impl Local for foreign::Client { type Out = (); }
    ";

    fn rustc(program: &str, directory: &Path, arguments: &[&str]) {
        let mut command = Command::new(program);
        command.args(["--edition=2024"]).args(arguments).env("RUSTC_BOOTSTRAP", "1").current_dir(directory);
        assert!(command.status().expect("the toolchain is there").success());
    }

    #[test]
    fn every_place_in_which_a_foreign_type_can_show_is_found() {
        let directory = target_directory().join("xtask-api-test");
        fs::create_dir_all(&directory).expect("the target directory can be written");
        fs::write(directory.join("foreign.rs"), FOREIGN).expect("as above");
        fs::write(directory.join("shown.rs"), SHOWN).expect("as above");
        rustc("rustc", &directory, &["--crate-type=lib", "--emit=metadata", "foreign.rs"]);
        let flags = ["--extern=foreign=libforeign.rmeta", "-Zunstable-options", "--output-format=json", "--out-dir=."];
        rustc("rustdoc", &directory, &[&flags[..], &["shown.rs"]].concat());
        let json = fs::read_to_string(directory.join("shown.json")).expect("rustdoc wrote it");
        let doc = serde_json::from_str(&json).expect("it is JSON");

        let (_, wrong) = Signatures::check(&doc, ALLOWED.to_vec());
        assert_eq!(
            wrong,
            [
                "impl From for shown::Fine shows foreign::Client",
                "impl Local for shown::Local shows foreign::Client",
                "shown::Choice::Named::client shows foreign::Client",
                "shown::Choice::Tuple::0 shows foreign::Client",
                "shown::Fine::client shows foreign::Client",
                "shown::Inner::client shows foreign::Client",
                "shown::Local::boxed shows foreign::Plug",
                "shown::Renamed shows foreign::Client",
                "shown::bound shows foreign::Plug",
            ]
        );
        let (seen, wrong) = Signatures::check(&doc, ALLOWED.into_iter().chain(["foreign"]).collect());
        assert!(seen > 10, "the walk saw {seen} items alone");
        assert_eq!(wrong, [""; 0], "a crate on the list may show");
    }

    #[test]
    fn a_listed_path_allows_what_it_names_and_no_namesake() {
        let doc = serde_json::json!({ "root": 0, "index": { "0": { "name": "ours", "inner": {} } } });
        let mut walk = Signatures { doc: &doc, allowed: vec!["a::B"], seen: [].into(), wrong: [].into() };
        for shown in ["a::B", "a::B::C", "ours::D", "T", "a::Bee"] {
            walk.judge(shown, "f");
        }
        assert_eq!(walk.wrong.into_iter().collect::<Vec<_>>(), ["f shows a::Bee"]);
    }
}
