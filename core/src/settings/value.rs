//! Values of settings: parameters of a URL and environment variables.
//!
//! Both ways of configuration use the same parsers, so that `linger=5ms` in a URL and `TIDINGS_..LINGER=5ms` mean the
//! same, and their errors read alike.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::{Error, ErrorKind};

/// A setting by name and value. The value is never shown, neither by `Debug` nor by an error.
///
/// ```
/// use std::time::Duration;
/// use tidings_core::settings::Setting;
///
/// let setting = |value| Setting::new("limit", value);
/// assert_eq!(setting("12").number(), Ok(12_u32));
/// assert_eq!(setting("1m 30s").duration(), Ok(Duration::from_secs(90)));
/// assert_eq!(setting("64KiB").bytes(), Ok(65_536_usize));
/// assert_eq!(setting("lz4").choice(&[("none", 0), ("lz4", 3)]), Ok(3));
///
/// let error = setting("s3cr3t").boolean().unwrap_err();
/// assert_eq!(error.to_string(), "limit: expected true or false");
/// ```
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    name: &'a str,
    value: &'a str,
}

impl<'a> Setting<'a> {
    /// Creates the setting `name` with this value.
    pub fn new(name: &'a str, value: &'a str) -> Self {
        Self { name, value }
    }

    /// Returns the name.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Returns the value as text.
    pub fn text(&self) -> &'a str {
        self.value
    }

    /// Parses a whole number.
    ///
    /// # Errors
    /// If the value is not a number, or out of range.
    pub fn number<N: FromStr>(&self) -> Result<N, SettingError> {
        self.value.parse().map_err(|_| self.expected("a number"))
    }

    /// Parses `true` or `false`.
    ///
    /// # Errors
    /// If the value is neither.
    pub fn boolean(&self) -> Result<bool, SettingError> {
        self.value.parse().map_err(|_| self.expected("true or false"))
    }

    /// Parses a duration with its unit: `5ms`, `30s`, `2m`, `12h`, `7d`, `1h 30m`.
    ///
    /// # Errors
    /// If the value is not a duration.
    ///
    /// The unit is required, since `30` could be seconds or milliseconds.
    ///
    /// ```
    /// use tidings_core::settings::Setting;
    ///
    /// assert_eq!(Setting::new("linger", "5ms").duration().unwrap().as_millis(), 5);
    /// assert!(Setting::new("linger", "5").duration().is_err());
    /// ```
    pub fn duration(&self) -> Result<Duration, SettingError> {
        humantime::parse_duration(self.value).map_err(|_| self.expected("a duration such as 500ms, 30s, 5m, 12h or 7d"))
    }

    /// Parses a size in bytes: `65536`, `64KiB`, `1MiB`, `2GiB`.
    ///
    /// # Errors
    /// If the value is not a size.
    pub fn bytes<N: TryFrom<u64>>(&self) -> Result<N, SettingError> {
        let digits = self.value.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.value.len());
        let (count, unit) = self.value.split_at(digits);
        let shift = match unit {
            "" => Some(0),
            "KiB" => Some(10),
            "MiB" => Some(20),
            "GiB" => Some(30),
            _ => None,
        };
        let count = count.parse::<u64>().ok();
        let bytes = shift.and_then(|shift| count?.checked_mul(1 << shift)).and_then(|bytes| N::try_from(bytes).ok());
        bytes.ok_or_else(|| self.expected("bytes such as 65536, 64KiB or 1MiB"))
    }

    /// Returns the value of the choice with this name.
    ///
    /// # Errors
    /// If there is no such choice; the error lists the choices.
    ///
    /// ```
    /// use tidings_core::settings::Setting;
    ///
    /// let choices = [("none", false), ("all", true)];
    /// assert_eq!(Setting::new("acks", "all").choice(&choices), Ok(true));
    /// assert_eq!(Setting::new("acks", "some").choice(&choices).unwrap_err().to_string(), "acks: expected none, all");
    /// ```
    pub fn choice<T: Clone>(&self, choices: &[(&str, T)]) -> Result<T, SettingError> {
        let found = choices.iter().find(|(name, _)| *name == self.value);
        found.map(|(_, value)| value.clone()).ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            self.expected(names.join(", "))
        })
    }

    /// Creates an error about this setting with the expected form.
    pub fn expected(&self, expected: impl fmt::Display) -> SettingError {
        SettingError::expected(self.name, expected)
    }
}

impl fmt::Debug for Setting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting").field("name", &self.name).finish_non_exhaustive()
    }
}

/// An invalid setting: its name and the expected form, never its value.
///
/// ```
/// use tidings_core::settings::SettingError;
///
/// let error = SettingError::unknown("lingr", &["acks", "linger"]);
/// assert_eq!(error.to_string(), "lingr: no such setting, did you mean linger?");
/// assert_eq!(error.in_variable("APP_LINGR").to_string(), "APP_LINGR: lingr: no such setting, did you mean linger?");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingError {
    kind: ErrorKind,
    field: String,
    problem: String,
}

impl SettingError {
    /// Creates an [`Invalid`](ErrorKind::Invalid) error of the setting `field`, with `problem` as the text after its
    /// name.
    pub fn new(field: impl Into<String>, problem: impl fmt::Display) -> Self {
        Self { kind: ErrorKind::Invalid, field: field.into(), problem: problem.to_string() }
    }

    /// Creates an error of a setting without the `expected` form: `"linger: expected a duration"`.
    pub fn expected(field: impl Into<String>, expected: impl fmt::Display) -> Self {
        Self::new(field, format_args!("expected {expected}"))
    }

    /// Creates an error of the unknown setting `name`, with the similar one of `known`, or all of them.
    pub fn unknown(name: &str, known: &[&str]) -> Self {
        match closest(name, known) {
            Some(meant) => Self::new(name, format_args!("no such setting, did you mean {meant}?")),
            None => Self::new(name, format_args!("no such setting, expected {}", known.join(", "))),
        }
    }

    /// Sets the kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// Returns the setting's name.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// Returns the text after the name.
    pub(super) fn problem(&self) -> &str {
        &self.problem
    }

    /// Converts this into an error that names the environment variable `name`.
    #[must_use]
    pub fn in_variable(self, name: &str) -> Error {
        Error::from(self).in_context(name)
    }
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl std::error::Error for SettingError {}

impl From<SettingError> for Error {
    fn from(error: SettingError) -> Self {
        Self::new(error.kind, error.to_string())
    }
}

/// Returns the one of `known` that `name` may be a typo of: at most a third of its letters differ.
pub(super) fn closest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let name = name.to_lowercase().replace('-', "_");
    let distance = |known: &str| strsim::osa_distance(&name, known);
    let closest = known.iter().copied().min_by_key(|known| distance(known))?;
    let allowed = (name.chars().count().min(closest.len()) / 3).max(1);
    (distance(closest) <= allowed).then_some(closest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_by_their_form() {
        let duration = |text| Setting::new("x", text).duration().ok();
        assert_eq!(duration("5ms"), Some(Duration::from_millis(5)));
        assert_eq!(duration("7d"), Some(Duration::from_secs(7 * 86_400)));
        assert_eq!(duration("1h 30m"), Some(Duration::from_secs(5_400)));
        for wrong in ["5", "", "-1s", "5 lightyears", "99999999999999999999s", "99999999999999999d"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
        let bytes = |text| Setting::new("x", text).bytes::<usize>().ok();
        assert_eq!((bytes("65536"), bytes("64KiB"), bytes("1MiB")), (Some(65_536), Some(65_536), Some(1 << 20)));
        for wrong in ["", "1KB", "-1", "KiB", "99999999999999999999", "18446744073709551615KiB"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
        assert_eq!(Setting::new("x", "b").choice(&[("a", 1), ("b", 2)]), Ok(2));
        let error = Setting::new("x", "s3cr3t").choice(&[("a", 1), ("b", 2)]).unwrap_err();
        assert_eq!(error.to_string(), "x: expected a, b");
    }

    #[test]
    fn a_slip_is_told_from_another_word() {
        let known = ["linger", "rack", "tls_ca", "batch_bytes", "fetch_max_wait"];
        for (slip, meant) in [
            ("lingr", Some("linger")),
            ("lniger", Some("linger")),
            ("Linger", Some("linger")),
            ("batch-bytes", Some("batch_bytes")),
            ("batchbytes", Some("batch_bytes")),
            ("fetch_max_wiat", Some("fetch_max_wait")),
            ("rak", Some("rack")),
            ("hunter2", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(closest(slip, &known), meant, "{slip}");
        }
    }
}
