//! Renders a [`View`] in a [`Format`].

use schemars::JsonSchema;
use serde_json::Value;

use super::yaml::yaml;
use super::{Format, View};
use crate::exit::Failure;

/// Formats the output of a verb for standard output.
pub(crate) fn render<V: View>(view: &V, format: Format) -> Result<String, Failure> {
    let value = || serde_json::to_value(view).map_err(|e| Failure::failed(format!("write the output: {e}")));
    Ok(match format {
        Format::Table | Format::Wide => {
            let tables: Vec<String> = view.tables().iter().map(|table| table.show(format == Format::Wide)).collect();
            tables.join("\n")
        }
        Format::Json => format!("{:#}\n", value()?),
        Format::Yaml => yaml(&value()?),
        Format::Jsonl => lines(value()?, V::ITEMS),
        Format::Schema => schema::<V>(),
        Format::Nagios => format!("{}\n", view.nagios().ok_or_else(|| only_checks("nagios"))?.0),
        Format::Prometheus => view.prometheus().ok_or_else(|| only_checks("prometheus"))?,
    })
}

/// Formats the JSON Schema of a type.
pub(crate) fn schema<T: JsonSchema>() -> String {
    format!("{:#}\n", schemars::schema_for!(T).to_value())
}

/// Formats each item in a line of its own.
fn lines(value: Value, items: Option<&str>) -> String {
    match items.and_then(|items| value.get(items)).and_then(Value::as_array) {
        Some(items) => items.iter().map(|item| format!("{item}\n")).collect(),
        None => format!("{value}\n"),
    }
}

fn only_checks(format: &str) -> Failure {
    Failure::usage(format!("-o {format}: only the verbs of `check` have this format"))
        .with_hint("use table, wide, json, yaml, jsonl or schema")
}
