//! Values of arguments: durations, sizes, times, `name=value`.

use std::time::{Duration, UNIX_EPOCH};

use tidings_core::Timestamp;
use tidings_core::settings::{Setting, SettingError};

/// Parses a duration such as `500ms`, `30s` or `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    Setting::new("value", text).duration().map_err(problem)
}

/// Parses a time of retention: a duration, or `forever`.
pub(crate) fn retention(text: &str) -> Result<Duration, String> {
    match text {
        "forever" => Ok(Duration::MAX),
        text => Setting::new("value", text)
            .duration()
            .map_err(|_| "expected a duration such as 12h or 7d, or forever".into()),
    }
}

/// Parses a size such as `65536`, `64KiB` or `1MiB`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    Setting::new("value", text).bytes().map_err(problem)
}

/// Parses `name=value`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("expected name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Parses a time: RFC 3339 in UTC, or a duration before now such as `2h`.
pub(crate) fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(Timestamp::now().saturating_sub(ago));
    }
    let expected = "expected a time such as 2026-11-23T10:00:00Z, or a duration before now such as 2h";
    let time = humantime::parse_rfc3339_weak(text).map_err(|_| expected)?;
    let since = time.duration_since(UNIX_EPOCH).map_err(|_| expected)?;
    i64::try_from(since.as_millis()).map(Timestamp::from_millis).map_err(|_| expected.into())
}

/// Formats a time as RFC 3339 in UTC; a time that no calendar has is shown in milliseconds.
pub(crate) fn show_time(time: Timestamp) -> String {
    let at = u64::try_from(time.millis()).ok().and_then(|millis| UNIX_EPOCH.checked_add(Duration::from_millis(millis)));
    // The last second of the year 9999: the formatter knows no later one.
    let last = UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    match at.filter(|at| *at <= last) {
        Some(at) => humantime::format_rfc3339_millis(at).to_string(),
        None => format!("{} ms", time.millis()),
    }
}

/// Returns how long ago a time was; zero for one that is ahead.
pub(crate) fn since(time: Timestamp) -> Duration {
    let ago = Timestamp::now().millis().saturating_sub(time.millis());
    Duration::from_millis(u64::try_from(ago).unwrap_or(0))
}

fn problem(error: SettingError) -> String {
    error.to_string().trim_start_matches("value: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_absolute_or_before_now() {
        assert_eq!(time("2026-11-23T10:00:00Z").map(Timestamp::millis), Ok(1_795_428_000_000));
        assert_eq!(show_time(Timestamp::from_millis(1_795_428_000_000)), "2026-11-23T10:00:00.000Z");
        let hour = Timestamp::now().saturating_sub(Duration::from_secs(3_600)).millis();
        assert!(time("1h").is_ok_and(|time| (time.millis() - hour).abs() < 10_000));
        assert!(time("yesterday").is_err());
        assert_eq!(show_time(Timestamp::from_millis(i64::MAX)), "9223372036854775807 ms");
        assert_eq!(show_time(Timestamp::from_millis(-1)), "-1 ms");
    }

    #[test]
    fn a_value_without_its_form_is_refused() {
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(pair("=b").is_err() && pair("a").is_err() && bytes("1 kg").is_err() && duration("5").is_err());
        assert_eq!(retention("forever"), Ok(Duration::MAX));
    }
}
