//! Output: one value of a verb, as a table for people or in a format for programs.

mod render;
mod table;
mod yaml;

pub(crate) use self::render::{render, schema};
pub(crate) use self::table::{Table, list, or_dash};
pub(crate) use self::yaml::yaml;

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::Serialize;

use crate::exit::Exit;

/// A format of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// Tables for people.
    #[default]
    Table,
    /// Tables with all columns.
    Wide,
    /// One JSON document.
    Json,
    /// The same as YAML.
    Yaml,
    /// One JSON document per line and item.
    Jsonl,
    /// The JSON Schema of the JSON output; no broker is called.
    Schema,
    /// For `check`: one line for Nagios and its kin.
    Nagios,
    /// For `check`: metrics in Prometheus' text format.
    Prometheus,
}

impl Format {
    /// Returns whether people read it.
    pub(crate) fn is_for_people(self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }
}

/// The output of a verb.
///
/// JSON and its schema come from the type itself, so that they agree.
pub(crate) trait View: Serialize + JsonSchema {
    /// The field whose elements are the lines of `-o jsonl`; `None` prints the whole value in one line.
    const ITEMS: Option<&'static str>;

    /// Returns the tables for people.
    fn tables(&self) -> Vec<Table>;

    /// Returns lines for people that follow the tables, on standard error.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns the exit code.
    fn exit(&self) -> Exit {
        Exit::Ok
    }

    /// Returns the line and the exit code of `-o nagios`; `None` if the verb is not a check.
    fn nagios(&self) -> Option<(String, Exit)> {
        None
    }

    /// Returns the metrics of `-o prometheus`; `None` if the verb is not a check.
    fn prometheus(&self) -> Option<String> {
        None
    }
}
