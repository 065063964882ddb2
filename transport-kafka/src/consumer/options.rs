//! Validation of consumer options.
//!
//! Options are checked before the group is joined, so that a mistake is an error of
//! [`consumer`](tidings_core::Transport::consumer) and not a member that joins again and again.

use std::time::Duration;

use tidings_core::{ConsumerOptions, Error, ErrorKind, Result};

use crate::client::admin::check_group_name;

/// Minimum session timeout.
const MIN_SESSION: Duration = Duration::from_millis(100);
/// Maximum of all durations: brokers and clocks have limits, and a longer duration is equivalent to an endless one.
const LONGEST: Duration = Duration::from_secs(10 * 24 * 3_600);

/// Validates the options and caps endless durations at a finite value.
///
/// Names are checked before the broker sees them: it refuses some in terms that pass for a rebalance, and the member
/// would join forever.
///
/// # Errors
/// [`Invalid`](ErrorKind::Invalid), naming the field and the expected value.
pub(super) fn checked(mut options: ConsumerOptions) -> Result<ConsumerOptions> {
    options.check()?;
    check_group_name(&options.group).map_err(|e| e.in_context("consumer options, group"))?;
    if options.session_timeout < MIN_SESSION {
        let text = format!("consumer options, session_timeout: expected {MIN_SESSION:?} or more");
        return Err(Error::new(ErrorKind::Invalid, text));
    }
    for time in [&mut options.session_timeout, &mut options.max_idle, &mut options.revocation_deadline] {
        *time = LONGEST.min(*time);
    }
    Ok(options)
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
