//! The finding of a check, in the formats of monitoring.

use schemars::JsonSchema;
use serde::Serialize;

use crate::exit::Exit;
use crate::output::{Table, View, or_dash};

/// The finding of a check.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CheckView {
    /// The check, with its subject.
    check: String,
    /// The status.
    status: Status,
    /// The reason.
    message: String,
    /// What was measured.
    values: Vec<Value>,
}

/// The status of a check, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Below all thresholds.
    Ok,
    /// At or above the threshold of a warning.
    Warning,
    /// It could not be measured.
    Unknown,
    /// At or above the critical threshold, or broken.
    Critical,
}

/// A measured value with its thresholds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Value {
    /// The name, such as lag.
    name: String,
    /// The value.
    value: u64,
    /// The threshold of a warning.
    warning: Option<u64>,
    /// The critical threshold.
    critical: Option<u64>,
}

impl Value {
    pub(super) fn new(name: &str, value: u64, warning: Option<u64>, critical: Option<u64>) -> Self {
        Self { name: name.to_owned(), value, warning, critical }
    }

    /// Returns the status by the thresholds.
    pub(super) fn status(&self) -> Status {
        let reaches = |limit: Option<u64>| limit.is_some_and(|limit| self.value >= limit);
        match (reaches(self.critical), reaches(self.warning)) {
            (true, _) => Status::Critical,
            (false, true) => Status::Warning,
            (false, false) => Status::Ok,
        }
    }
}

impl CheckView {
    pub(super) fn new(status: Status, message: impl Into<String>) -> Self {
        Self { check: String::new(), status, message: message.into(), values: Vec::new() }
    }

    /// Adds a value; the status becomes as bad as its thresholds say.
    pub(super) fn with_value(mut self, value: Value) -> Self {
        self.status = self.status.max(value.status());
        self.values.push(value);
        self
    }

    /// Adds what cannot be read: it may be more than was counted, so the status is unknown at best.
    pub(super) fn with_unreadable(mut self, errors: &[tidings_core::Error], records: u64) -> Self {
        if let Some(first) = errors.first() {
            self.status = self.status.max(Status::Unknown);
            let text = format!("; there may be more, since {records} records cannot be read: {}", first.report());
            self.message.push_str(&text);
        }
        self
    }

    pub(super) fn named(mut self, check: &str) -> Self {
        check.clone_into(&mut self.check);
        self
    }

    fn word(&self) -> &'static str {
        match self.status {
            Status::Ok => "OK",
            Status::Warning => "WARNING",
            Status::Unknown => "UNKNOWN",
            Status::Critical => "CRITICAL",
        }
    }
}

impl View for CheckView {
    const ITEMS: Option<&'static str> = None;

    fn tables(&self) -> Vec<Table> {
        let row = vec![self.check.clone(), self.word().to_owned(), self.message.clone()];
        let mut tables = vec![Table::new(&["CHECK", "STATUS", "MESSAGE"]).with_rows([row])];
        if !self.values.is_empty() {
            let row = |value: &Value| {
                vec![value.name.clone(), value.value.to_string(), or_dash(value.warning), or_dash(value.critical)]
            };
            tables.push(Table::new(&["VALUE", ">NOW", ">WARNING", ">CRITICAL"]).with_rows(self.values.iter().map(row)));
        }
        tables
    }

    fn exit(&self) -> Exit {
        if self.status == Status::Ok { Exit::Ok } else { Exit::CheckFailed }
    }

    /// By the guidelines of Nagios' plugins: a line, and behind the bar `name=value;warning;critical`.
    fn nagios(&self) -> Option<(String, Exit)> {
        let number = |limit: Option<u64>| limit.map_or(String::new(), |limit| limit.to_string());
        let value = |value: &Value| {
            format!("{}={};{};{}", value.name, value.value, number(value.warning), number(value.critical))
        };
        let values: Vec<String> = self.values.iter().map(value).collect();
        // A bar in the message would begin the values.
        let message = self.message.replace('|', "/");
        let bar = if values.is_empty() { String::new() } else { format!(" | {}", values.join(" ")) };
        let exit = match self.status {
            Status::Ok => Exit::Ok,
            Status::Warning => Exit::NagiosWarning,
            Status::Critical => Exit::NagiosCritical,
            Status::Unknown => Exit::NagiosUnknown,
        };
        Some((format!("{} - {}: {message}{bar}", self.word(), self.check), exit))
    }

    fn prometheus(&self) -> Option<String> {
        let label = self.check.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " ");
        let status = self.status as u8;
        let mut text = format!(
            "# HELP tidings_check_status Status of a check: 0 ok, 1 warning, 2 unknown, 3 critical.\n\
             # TYPE tidings_check_status gauge\n\
             tidings_check_status{{check=\"{label}\"}} {status}\n"
        );
        if !self.values.is_empty() {
            text.push_str("# HELP tidings_check_value What a check measured.\n# TYPE tidings_check_value gauge\n");
        }
        for value in &self.values {
            let line = format!("tidings_check_value{{check=\"{label}\",value=\"{}\"}} {}\n", value.name, value.value);
            text.push_str(&line);
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag(value: u64) -> CheckView {
        CheckView::new(Status::Ok, "a|b").with_value(Value::new("lag", value, Some(10), Some(100))).named("group g")
    }

    #[test]
    fn the_status_follows_the_thresholds() {
        assert_eq!(
            [lag(9), lag(10), lag(100)].map(|view| view.status),
            [Status::Ok, Status::Warning, Status::Critical]
        );
        assert_eq!([lag(9), lag(10)].map(|view| view.exit()), [Exit::Ok, Exit::CheckFailed]);
    }

    #[test]
    fn monitoring_reads_its_own_formats() {
        let line = "WARNING - group g: a/b | lag=10;10;100".to_owned();
        assert_eq!(lag(10).nagios(), Some((line, Exit::NagiosWarning)));
        let text = lag(100).prometheus().unwrap_or_default();
        assert!(text.contains("tidings_check_status{check=\"group g\"} 3\n"), "{text}");
        assert!(text.contains("tidings_check_value{check=\"group g\",value=\"lag\"} 100\n"), "{text}");
    }
}
