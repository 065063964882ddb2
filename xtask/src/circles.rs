//! Circles of files: none of `service/`, so that each of its files can be read, and changed, after those that it uses.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::Result;
use crate::workspace::root;

/// The source of the crate whose files form no circles.
const CHECKED: &str = "service/src";

/// Modules by their path, each with those that it uses.
type Uses = BTreeMap<String, BTreeSet<String>>;

/// Returns each file that uses another one that uses it, directly or through others.
pub(crate) fn found() -> Result<Vec<String>> {
    let mut texts = BTreeMap::new();
    read(&root().join(CHECKED), "", &mut texts)?;
    Ok(circles(&uses(&texts)).iter().map(|circle| format!("{CHECKED}: a circle of files: {circle}")).collect())
}

/// Reads the code of all modules below `directory`, without their tests and comments.
fn read(directory: &Path, module: &str, texts: &mut BTreeMap<String, String>) -> Result {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        let inner = if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") };
        if path.is_dir() {
            read(&path, &inner, texts)?;
        } else if path.extension().is_some_and(|end| end == "rs") {
            let own = if name == "lib" || name == "mod" { module.to_owned() } else { inner };
            texts.insert(own, code(&fs::read_to_string(&path)?));
        }
    }
    Ok(())
}

fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn uses(texts: &BTreeMap<String, String>) -> Uses {
    let exports: BTreeMap<String, String> = texts
        .get("")
        .into_iter()
        .flat_map(|text| paths(text))
        .filter_map(|path| Some((path.last()?.clone(), path.get(1..path.len() - 1)?.join("::"))))
        .collect();
    let of = |(module, text): (&String, &String)| {
        let used = paths(text).into_iter().filter_map(|path| target(module, &path, texts, &exports));
        (module.clone(), used.filter(|used| used != module).collect())
    };
    texts.iter().filter(|(module, _)| !module.is_empty()).map(of).collect()
}

/// Returns all paths of the crate's own items, with the trees of `use` expanded.
fn paths(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for start in ["crate", "super", "self"] {
        for (at, _) in text.match_indices(&format!("{start}::")) {
            if !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                expand(&mut Vec::new(), &mut &text[at..], &mut found);
            }
        }
    }
    found
}

/// Reads one path of a tree from `rest`, which then begins behind it.
fn expand(prefix: &mut Vec<String>, rest: &mut &str, found: &mut Vec<Vec<String>>) {
    let depth = prefix.len();
    loop {
        *rest = rest.trim_start();
        if let Some(inner) = rest.strip_prefix('{') {
            *rest = inner;
            // Text that is no tree, such as a format string, ends where nothing more can be read.
            let mut left = usize::MAX;
            while !rest.trim_start().starts_with('}') && rest.len() < left {
                left = rest.len();
                expand(prefix, rest, found);
                *rest = rest.trim_start().trim_start_matches(',');
            }
            *rest = rest.trim_start().strip_prefix('}').unwrap_or_default();
            break;
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        prefix.push(rest[..end].to_owned());
        *rest = &rest[end..];
        match rest.strip_prefix("::") {
            Some(behind) => *rest = behind,
            None => {
                found.push(prefix.clone());
                // Up to the end of ` as name`, or of whatever is no path.
                let end = rest.find([',', '}', ';', '\n']).unwrap_or(rest.len());
                *rest = &rest[end..];
                break;
            }
        }
    }
    prefix.truncate(depth);
}

/// Returns the module that `path`, as written in `module`, leads into.
fn target(
    module: &str,
    path: &[String],
    texts: &BTreeMap<String, String>,
    exports: &BTreeMap<String, String>,
) -> Option<String> {
    let mut at: Vec<&str> = if path[0] == "crate" { Vec::new() } else { module.split("::").collect() };
    for part in path {
        match part.as_str() {
            "crate" | "self" => {}
            "super" => drop(at.pop()),
            part => {
                at.push(part);
                if !texts.contains_key(&at.join("::")) {
                    at.pop();
                    break;
                }
            }
        }
    }
    let found = at.join("::");
    if found.is_empty() { exports.get(path.last()?).cloned() } else { Some(found) }
}

/// Returns each module that reaches itself, with a path that does.
fn circles(uses: &Uses) -> Vec<String> {
    let mut found = Vec::new();
    for start in uses.keys() {
        let mut from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut open = vec![start.as_str()];
        while let Some(module) = open.pop() {
            for used in uses.get(module).into_iter().flatten() {
                if let Entry::Vacant(entry) = from.entry(used) {
                    entry.insert(module);
                    open.push(used);
                }
            }
        }
        if from.contains_key(start.as_str()) {
            let mut circle = vec![start.as_str(), from[start.as_str()]];
            while circle.last() != Some(&start.as_str()) {
                circle.push(from[circle[circle.len() - 1]]);
            }
            circle.reverse();
            found.push(circle.join(" uses "));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        circles(&uses(&files.iter().map(|(name, text)| ((*name).to_owned(), code(text))).collect()))
    }

    #[test]
    fn a_circle_is_found_through_trees_re_exports_and_paths() {
        let files = [
            ("", "mod a;\nmod b;\npub use self::b::{B, C};\n"),
            ("a", "use crate::{B, x::{y as z}};\n"),
            ("b", "mod c;\nuse self::c::C;\n"),
            ("b::c", "fn f() { super::super::a::g() }\n"),
        ];
        assert_eq!(found(&files)[0], "a uses b uses b::c uses a");
        let files =
            [("a", "use super::b::B;\n"), ("b", "// use crate::a::A;\n#[cfg(test)]\nmod tests { use crate::a::A; }\n")];
        assert!(found(&files).is_empty());
    }
}
