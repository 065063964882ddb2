//! `cargo xtask soak`: the tests that take as long as they are given.
//!
//! A soak test has `soak` in its name or module, is `#[ignore = "soak"]`, and works for `TIDINGS_SOAK_SECONDS`.

use std::time::Duration;

use crate::Result;
use crate::test;

const DEFAULT_TIME: Duration = Duration::from_secs(600);

/// Runs all soak tests, one after the other.
pub(crate) fn run(args: Vec<String>) -> Result {
    let (time, rest) = parse(args)?;
    println!("each soak test runs for {} s", time.as_secs());
    let variables = [("TIDINGS_SOAK_SECONDS".to_owned(), time.as_secs().to_string())];
    test::run_one_by_one(&arguments(rest), &variables)
}

/// Takes `--for TIME` out of the arguments.
fn parse(args: Vec<String>) -> Result<(Duration, Vec<String>)> {
    let (mut time, mut rest) = (DEFAULT_TIME, Vec::new());
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if arg == "--for" {
            time = duration(&args.next().ok_or("--for needs a time, such as 10m")?)?;
        } else {
            rest.push(arg);
        }
    }
    Ok((time, rest))
}

/// Optimised, only tests with `soak` in their names, one at a time so that each has the machine for itself.
fn arguments(rest: Vec<String>) -> Vec<String> {
    let (cargo, harness) = match rest.iter().position(|arg| arg == "--") {
        Some(at) => (rest[..at].to_vec(), rest[at + 1..].to_vec()),
        None => (rest, Vec::new()),
    };
    let fixed = ["--", "soak", "--ignored", "--test-threads=1", "--nocapture"];
    ["--release", "--tests"]
        .map(String::from)
        .into_iter()
        .chain(cargo)
        .chain(fixed.map(String::from))
        .chain(harness)
        .collect()
}

/// Reads `90s`, `10m` or `2h`.
fn duration(text: &str) -> Result<Duration> {
    let wrong = || format!("{text:?} is no time: write 90s, 10m or 2h");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        _ => return Err(wrong().into()),
    };
    let number: u64 = text.trim_end_matches(unit).parse().map_err(|_| wrong())?;
    Ok(Duration::from_secs(number.checked_mul(seconds).ok_or_else(wrong)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn times_are_read_in_seconds_minutes_and_hours() {
        assert_eq!(duration("90s").ok(), Some(Duration::from_secs(90)));
        assert_eq!(duration("10m").ok(), Some(Duration::from_secs(600)));
        assert_eq!(duration("2h").ok(), Some(Duration::from_secs(7_200)));
        for wrong in ["", "10", "m", "-1s", "99999999999999999999h", "1é"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_ours_goes_to_cargo_test_and_to_its_programs() {
        let (time, rest) = parse(words("-p tidings-service --for 5s -- engine")).expect("it parses");
        assert_eq!(time, Duration::from_secs(5));
        assert_eq!(
            arguments(rest).join(" "),
            "--release --tests -p tidings-service -- soak --ignored --test-threads=1 --nocapture engine"
        );
    }
}
