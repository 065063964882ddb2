//! Compares the code of a guide with the test that runs it.

/// Checks that `page` shows each part of `source` between `// begin: name` and `// end: name`, as it is; returns how many
/// there are.
pub(crate) fn shows(page: &str, source: &str) -> usize {
    let parts = source.split("// begin: ").skip(1).filter_map(|part| part.split("\n// end: ").next());
    let parts: Vec<_> = parts.filter_map(|part| part.split_once('\n')).collect();
    for (name, part) in &parts {
        assert!(page.contains(&format!("```rust\n{part}\n```")), "the page does not show the part {name:?} as it is");
    }
    parts.len()
}
