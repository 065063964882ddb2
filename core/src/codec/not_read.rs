//! The error of reading JSON: where, in which field, and why, with everything that comes from the record in quotes.
//!
//! A log may show such a text up to its first quote: the position, the names of the program's own fields, and what
//! was expected come before, or stand alone.

use std::fmt;

use serde::Deserialize;
use serde_json::error::Category;
use serde_path_to_error::Segment;

use super::fields::{Collecting, Names};
use crate::event::shortened;

/// What `serde` calls the values that it did not expect. Another word is one of a `Deserialize` of the user's.
const UNEXPECTED: [&str; 15] = [
    "boolean",
    "integer",
    "floating point",
    "character",
    "string",
    "byte array",
    "unit value",
    "Option value",
    "newtype struct",
    "sequence",
    "map",
    "enum",
    "unit variant",
    "newtype variant",
    "null",
];

/// The error of parsing JSON, with the field.
#[derive(Debug)]
pub(super) struct NotRead(String);

impl fmt::Display for NotRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotRead {}

impl NotRead {
    /// Describes the error of reading a `T`. The path is computed only here: tracking it while parsing costs as much as
    /// parsing.
    pub(super) fn of<'a, T: Deserialize<'a>>(bytes: &'a [u8], error: &serde_json::Error) -> Self {
        let names = Names::default();
        let path = path_of::<T>(bytes, &names);
        let text = error.to_string();
        let position = format!(" at line {} column {}", error.line(), error.column());
        let (why, at) = match text.strip_suffix(&position) {
            Some(why) => (why, format!("{}: ", position.trim_start())),
            None => (text.as_str(), String::new()),
        };
        let field = if path.is_empty() { path } else { path + ": " };
        let is_known = error.classify() != Category::Data || is_of_serde(why, &names);
        Self(if is_known { format!("{at}{field}{why}") } else { format!("{at}{field}{why:?}") })
    }
}

/// Returns whether a message is one of `serde`'s, which quote what they repeat of the record.
fn is_of_serde(why: &str, names: &Names) -> bool {
    if let Some(name) = ["missing field `", "duplicate field `"].iter().find_map(|begin| why.strip_prefix(begin)) {
        return name.strip_suffix('`').is_some_and(|name| names.contains(name));
    }
    if let Some(rest) = ["invalid type: ", "invalid value: "].iter().find_map(|begin| why.strip_prefix(begin)) {
        let ends = [" `", " \"", ", expected "];
        let follows = |rest: &str| ends.iter().any(|end| rest.starts_with(end));
        return UNEXPECTED.iter().any(|kind| rest.strip_prefix(kind).is_some_and(follows));
    }
    if let Some(rest) = why.strip_prefix("invalid length ") {
        return rest.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(", expected ");
    }
    ["unknown field `", "unknown variant `"].iter().any(|begin| why.starts_with(begin))
}

/// Returns the path of the field that could not be read, with keys of maps in quotes.
fn path_of<'a, T: Deserialize<'a>>(bytes: &'a [u8], names: &Names) -> String {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read: Result<T, _> = serde_path_to_error::deserialize(Collecting::new(&mut json, names));
    let Err(error) = read else { return String::new() };
    let mut path = String::new();
    for segment in error.path().iter() {
        let name = match segment {
            Segment::Seq { index } => {
                path.push_str(&format!("[{index}]"));
                continue;
            }
            Segment::Map { key } => key,
            Segment::Enum { variant } => variant,
            Segment::Unknown => continue,
        };
        if !path.is_empty() {
            path.push('.');
        }
        match names.contains(name) {
            true => path.push_str(name),
            false => path.push_str(&format!("{:?}", shortened(name))),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::de::Error;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    #[expect(dead_code, reason = "only their names and types matter")]
    struct User {
        full_name: String,
        ages: BTreeMap<String, Vec<u8>>,
        #[serde(default)]
        plan: Option<Plan>,
        #[serde(default, deserialize_with = "never")]
        odd: u8,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only their names and types matter")]
    enum Plan {
        Paid { cents: u32 },
    }

    /// A reader of the user's, which puts the value into its error.
    fn never<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
        let text = String::deserialize(deserializer)?;
        Err(D::Error::custom(format!("{text} is no age")))
    }

    fn text(json: &str) -> String {
        let error = serde_json::from_str::<User>(json).expect_err("it cannot be read");
        NotRead::of::<User>(json.as_bytes(), &error).to_string()
    }

    /// What a log shows of it.
    fn shown(json: &str) -> String {
        let text = text(json);
        text.split(['"', '`']).next().unwrap_or_default().to_owned()
    }

    #[test]
    fn the_position_and_the_names_of_fields_come_before_what_is_data() {
        let wrong_age = r#"{"fullName": "s3cr3t", "ages": {"s3cr3t": [1, "s3cr3t"]}}"#;
        assert_eq!(
            text(wrong_age),
            "at line 1 column 54: ages.\"s3cr3t\"[1]: invalid type: string \"s3cr3t\", expected u8"
        );
        assert_eq!(shown(wrong_age), "at line 1 column 54: ages.");
        let wrong_plan = r#"{"fullName": "s3cr3t", "ages": {}, "plan": {"Paid": {"cents": []}}}"#;
        assert_eq!(shown(wrong_plan), "at line 1 column 62: plan.Paid.cents: invalid type: sequence, expected u32");
        assert_eq!(shown(r#"{"fullName": 77, "ages": {}}"#), "at line 1 column 15: fullName: invalid type: integer ");
        assert_eq!(text(r#"{"fullName": "s3cr3t"}"#), "at line 1 column 22: missing field `ages`");
        assert!(text("{\"fullName\": s3cr3t}").starts_with("at line 1 column 14: "));
    }

    #[test]
    fn the_text_of_a_reader_of_ones_own_is_quoted() {
        let custom = r#"{"fullName": "x", "ages": {}, "odd": "s3cr3t"}"#;
        assert_eq!(text(custom), "at line 1 column 46: odd: \"s3cr3t is no age\"");
        for message in [
            "s3cr3t",
            "missing field `s3cr3t`",
            "invalid value: s3cr3t, expected text",
            "invalid type: string s3cr3t, expected u8",
            "invalid length s3cr3t, expected u8",
        ] {
            assert!(!is_of_serde(message, &Names::default()), "{message}");
        }
    }
}
