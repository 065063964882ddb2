//! Validation of consumer options.
//!
//! Options are checked before the group is joined, so that a mistake is an error of
//! [`consumer`](tidings_core::Transport::consumer) and not a member that joins again and again.

use std::time::Duration;

use tidings_core::{ConsumerOptions, Error, ErrorKind, Result, check_topic_name};

use crate::client::admin::check_group_name;
use crate::config::{INSTANCE_ID_RULE, is_instance_id};

/// Minimum session timeout.
const MIN_SESSION: Duration = Duration::from_millis(100);
/// Maximum of all durations: brokers and clocks have limits, and a longer duration is equivalent to an endless one.
const LONGEST: Duration = Duration::from_secs(10 * 24 * 3_600);

/// How much of a wrong instance id an error shows.
const SHOWN_BYTES: usize = 80;

/// Validates the options and caps endless durations at a finite value.
///
/// # Errors
/// [`Invalid`](ErrorKind::Invalid), naming the field and the expected value.
pub(super) fn checked(mut options: ConsumerOptions) -> Result<ConsumerOptions> {
    let wrong = |field: &str, expected: &str| {
        Err(Error::new(ErrorKind::Invalid, format!("consumer options, {field}: expected {expected}")))
    };
    if options.group.is_empty() {
        return wrong("group", "a name");
    }
    if options.topics.is_empty() {
        return wrong("topics", "one or more");
    }
    check_names(&options)?;
    if options.session_timeout < MIN_SESSION {
        return wrong("session_timeout", "100 ms or more");
    }
    for (field, time) in [("max_idle", options.max_idle), ("revocation_deadline", options.revocation_deadline)] {
        if time.is_zero() {
            return wrong(field, "more than zero");
        }
    }
    for (field, count) in
        [("max_batch_records", options.max_batch_records), ("max_buffered_bytes", options.max_buffered_bytes)]
    {
        if count == 0 {
            return wrong(field, "1 or more");
        }
    }
    for time in [&mut options.session_timeout, &mut options.max_idle, &mut options.revocation_deadline] {
        *time = LONGEST.min(*time);
    }
    Ok(options)
}

/// Checks names before the broker sees them: it refuses some in terms that pass for a rebalance, and the member would
/// join forever.
///
/// A wrong instance id is shown up to a bound: it may be a whole file by mistake.
fn check_names(options: &ConsumerOptions) -> Result<()> {
    let refused =
        |field: &str, error: Error| Error::new(ErrorKind::Invalid, format!("consumer options, {field}: {error}"));
    check_group_name(&options.group).map_err(|e| refused("group", e))?;
    for topic in &options.topics {
        check_topic_name(topic).map_err(|e| refused("topics", e))?;
    }
    match options.instance_id.as_deref() {
        Some(id) if !is_instance_id(id) => {
            let shown = &id[..id.floor_char_boundary(SHOWN_BYTES)];
            let text = format!(
                "consumer options, instance_id: expected {INSTANCE_ID_RULE}, found {shown:?} of {} bytes",
                id.len()
            );
            Err(Error::new(ErrorKind::Invalid, text))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> ConsumerOptions {
        ConsumerOptions::new("g", ["t"])
    }

    #[test]
    fn nonsense_is_named() {
        let none = Duration::ZERO;
        let wrong = [
            (ConsumerOptions::new("", ["t"]), "group"),
            (ConsumerOptions::new("g", Vec::<&str>::new()), "topics"),
            (ConsumerOptions::new("g".repeat(32_768), ["t"]), "group"),
            (ConsumerOptions::new("g", ["t", "a b"]), "\"a b\""),
            (ConsumerOptions::new("g", ["t", ""]), "topics"),
            (ConsumerOptions::new("g", [".."]), "topics"),
            (ConsumerOptions::new("g", ["t".repeat(250)]), "topics"),
            (options().with_instance_id(""), "instance_id"),
            (options().with_instance_id("a b"), "\"a b\""),
            (options().with_instance_id("."), "instance_id"),
            (options().with_instance_id("é".repeat(200)), "instance_id"),
            (options().with_instance_id("i".repeat(250)), "instance_id"),
            (options().with_session_timeout(none), "session_timeout"),
            (options().with_max_idle(none), "max_idle"),
            (options().with_revocation_deadline(none), "revocation_deadline"),
            (options().with_max_batch_records(0), "max_batch_records"),
            (options().with_max_buffered_bytes(0), "max_buffered_bytes"),
        ];
        for (options, field) in wrong {
            let error = checked(options).expect_err(field);
            assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains(field), "{field}: {error}");
        }
    }

    #[test]
    fn longest_names_are_taken() {
        let long = ConsumerOptions::new("g".repeat(32_767), ["t".repeat(249)]);
        assert!(checked(long.with_instance_id("i".repeat(249))).is_ok());
    }

    #[test]
    fn endless_times_can_be_reckoned_with() {
        let endless = options().with_session_timeout(Duration::MAX).with_max_idle(Duration::MAX);
        let checked = checked(endless.with_revocation_deadline(Duration::MAX)).unwrap();
        assert!(checked.revocation_deadline * 2 + Duration::from_secs(60) < Duration::from_millis(i32::MAX as u64));
        assert_eq!((checked.session_timeout, checked.max_idle), (LONGEST, LONGEST));
    }
}
