//! YAML of a JSON value.
//!
//! Block style for maps and lists; texts are plain where that is safe, and else quoted as in JSON, which YAML reads.

use serde_json::Value;

/// Formats a value as a YAML document.
pub(crate) fn yaml(value: &Value) -> String {
    let mut text = String::new();
    write(value, 0, &mut text);
    text.trim_start_matches('\n').trim_start_matches(' ').to_owned()
}

/// Writes a value after `key:` or `-`.
fn write(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                text.push_str(&format!("\n{indent}{}:", scalar(name)));
                write(value, depth + 1, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                text.push_str(&format!("\n{indent}-"));
                let mut inner = String::new();
                write(item, depth + 1, &mut inner);
                // The first field of an item follows its dash.
                let inner = inner
                    .strip_prefix(&format!("\n{}", "  ".repeat(depth + 1)))
                    .map_or(inner.clone(), |rest| format!(" {rest}"));
                text.push_str(&inner);
            }
        }
        Value::String(plain) => text.push_str(&format!(" {}", scalar(plain))),
        // Numbers, true, false and null are the same in YAML, and so are an empty map and an empty list.
        other => text.push_str(&format!(" {other}")),
    }
    if depth == 0 {
        text.push('\n');
    }
}

/// Formats a text, quoted unless YAML reads it as the same text.
fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    // Words that some version of YAML reads as true, false, null or a number.
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf"];
    let is_plain = starts && text.chars().all(plain) && !words.contains(&text.to_ascii_lowercase().as_str());
    if is_plain { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn maps_and_lists_are_blocks() {
        let value = json!({
            "topics": [{ "name": "orders", "ends": [1, 2], "settings": {} }, { "name": "no", "at": null }],
            "none": [],
            "nested": [[1], []],
        });
        let expected = [
            "nested:",
            "  - - 1",
            "  - []",
            "none: []",
            "topics:",
            "  - ends:",
            "      - 1",
            "      - 2",
            "    name: orders",
            "    settings: {}",
            "  - at: null",
            "    name: \"no\"",
            "",
        ]
        .join("\n");
        assert_eq!(yaml(&value), expected);
    }

    #[test]
    fn texts_that_yaml_would_read_otherwise_are_quoted() {
        for text in
            ["", "yes", "Null", "1", "1e3", "a: b", "#a", "- a", "a\nb", "2026-11-30", "~", "\u{e4}", "NO", " a"]
        {
            assert!(scalar(text).starts_with('"'), "{text:?}: {}", scalar(text));
        }
        for text in ["orders", "user-events.v1", "/var/run"] {
            assert_eq!(scalar(text), text);
        }
        assert_eq!(yaml(&json!("a b")), "\"a b\"\n");
        assert_eq!(yaml(&json!({})), "{}\n");
    }
}
