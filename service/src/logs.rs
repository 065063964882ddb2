//! The lines of a service's log: one list, from which the calls and the documented table come.
//!
//! Targets and fields are stable. No line has a payload, a key, a header or a secret. The texts of errors are those of
//! handlers, stores and transports.

use std::borrow::Cow;
use std::time::Duration;

use tidings_core::ErrorKind;
use tracing::{Level, Value, event};

/// A kind of line.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogLine {
    pub(crate) level: Level,
    pub(crate) target: &'static str,
    pub(crate) message: &'static str,
    pub(crate) fields: &'static [&'static str],
}

macro_rules! lines {
    ($($target:literal { $($name:ident $level:ident $message:literal ($($field:ident),*);)* })*) => {
        /// All lines, in the order of the table.
        #[cfg(test)]
        pub(crate) const LINES: &[LogLine] = &[$($(LogLine {
            level: Level::$level,
            target: $target,
            message: $message,
            fields: &[$(stringify!($field)),*],
        }),*),*];

        $($(
            pub(crate) struct $name<'a> {
                $(pub(crate) $field: &'a dyn Value),*
            }

            impl $name<'_> {
                pub(crate) fn log(self) {
                    event!(target: $target, Level::$level, $($field = self.$field,)* $message);
                }
            }
        )*)*
    };
}

lines! {
    "tidings::service" {
        Started INFO "the service has started"
            (service, version, group, transport, topics, handlers, store, dead_letters);
        StoreNotShared WARN "the idempotency store belongs to this process: an event that another instance has handled \
            is handled again when its partition moves here; use a shared store if there are several instances" (service);
        LettersNotShared WARN "the dead-letter store belongs to this process: each instance keeps the letters of its own \
            deliveries; use a shared store or the dead-letter topics if there are several instances" (service);
        RetryTopics INFO "records that use up their retries wait in retry topics: later records of their keys are handled \
            meanwhile, so the order of a failing key is given up" (service, delays);
        TopicDiffers WARN "the topic differs from its configuration and is left unchanged" (topic, what, wanted, found);
        Paused INFO "paused by an operator: no delivery starts" (service);
        Resumed INFO "resumed by an operator" (service);
        CircuitOpened ERROR "most deliveries fail: the circuit breaker is open, and one delivery is tried after the wait"
            (service, wait_ms);
        CircuitClosed INFO "deliveries succeed again: the circuit breaker is closed" (service, open_ms);
        ThreadBlocked ERROR "a handler blocks its thread: other deliveries of the worker wait; use spawn_blocking"
            (service, handler, seconds);
        FuturePanicked ERROR "a handler's future panicked while it was dropped" (service);
        Signalled INFO "a signal arrived: the service shuts down; a second signal stops it at once" (service, timeout_ms);
        Draining INFO "the service shuts down: deliveries that have begun may finish" (service, partitions, records, timeout_ms);
        Cancelled WARN "deliveries were cancelled at the deadline of the shutdown; their records are delivered again"
            (service, topic, partition, records);
        PublisherNotClosed WARN "the publisher was closed with records unanswered" (service, error);
        Drained INFO "the service has shut down" (service, handled, dead_lettered, returned, took_ms);
        Failed ERROR "the service failed" (service, error);
    }
    "tidings::group" {
        Assigned INFO "partitions are assigned" (service, group, count, partitions);
        Revoking INFO "partitions are revoked: their deliveries that have begun may finish"
            (service, group, count, partitions, deadline_ms);
        Revoked INFO "a partition was given back" (service, topic, partition, committed, records);
        Lost WARN "partitions are lost: other members may own them already" (service, group, count, partitions);
        Standby INFO "this instance has no partition: the group's members have them; a member that has died keeps its \
            share until its session times out; add partitions if there are more instances than partitions"
            (service, group, members, session_timeout_ms);
        Unassigned WARN "this instance has no partition, and is the only member of its group: check that its topics exist, \
            and that it may read them" (service, group);
        ClockDiffers WARN "the clock of this host and the timestamps of new records differ: time lags are wrong; check the \
            time synchronisation of this host, of the producers, and of the brokers" (service, topic, partition, ahead_seconds);
        ReadFailed WARN "reading from the group failed; it is tried again" (service, error, held_back);
        ReadAgain INFO "reading from the group works again" (service, failed_ms);
        RecordsMissing ERROR "records were deleted before they were read; reading goes on at the oldest one left"
            (service, topic, partition, from, to);
        CommittedBeyondEnd ERROR "the committed offset lies beyond the end of the log, which was truncated or recreated; \
            reading goes on at its oldest record, and commits begin there" (service, topic, partition, committed, start);
        LogRewound ERROR "records come below those that were read: the log was truncated or recreated; commits begin \
            there" (service, topic, partition, position, committed, start);
        NotCommitted WARN "an offset was not committed" (service, topic, partition, next_offset, error, held_back);
        DeliveriesCancelled WARN "deliveries are cancelled: the time to give their partition back is over" (service);
        ReleaseFailed WARN "partitions could not be released; they go at the deadline" (service, error);
        PauseFailed WARN "partitions could not be paused or resumed" (service, error);
        LeaveFailed WARN "the group could not be left; its partitions move after the session timeout" (service, error);
    }
    "tidings::delivery" {
        AttemptFailed WARN "an attempt failed"
            (service, handler, topic, partition, offset, records, event_id, attempt, kind, error, next, next_ms, held_back);
        DeadLettered WARN "a record is given up: it goes to the dead letters; fix the cause, then redrive it"
            (service, handler, topic, partition, offset, event_id, attempts, kind, error);
        LetterNotWritten WARN "a dead letter could not be written; its partition waits"
            (service, topic, partition, offset, error, held_back);
        OddRetryRecord WARN "a record of a retry topic is not as this service forwards it"
            (service, topic, partition, offset, fault, held_back);
        HeldBack WARN "further lines of this kind were held back" (service, handler, kind, held_back);
        Skipped WARN "skipped by an operator: these records are not handled"
            (service, topic, partition, offset, next_offset, error);
        Sought WARN "an operator moved the position of a partition; reading goes on there"
            (service, topic, partition, from, to);
        NotReturned WARN "a seek failed, and so does the return to the old position: nothing of the partition is read \
            meanwhile; it is tried again" (service, topic, partition, offset, error);
    }
    "tidings::partition" {
        PartitionPaused WARN "the partition is paused" (service, topic, partition, reason, error);
        PartitionResumed INFO "the partition is resumed" (service, topic, partition, reason, lasted_ms);
        Stalled ERROR "the partition is stalled: its lowest unsettled record has not moved"
            (service, topic, partition, offset, handler, attempt, cause, error, seconds);
        Moving INFO "the partition was stalled, and moves again" (service, topic, partition, stalled_ms);
        Unreadable ERROR "records cannot be read; the partition is held there until the range is skipped, others go on"
            (service, topic, partition, offset, next_offset, error);
    }
    "tidings::dead_letters" {
        Redriven INFO "letters are redriven" (redriven, skipped, refused);
        RedriveStopped WARN "a redrive stopped; its letters stay, call it again" (redriven, skipped, refused, error);
        LetterRefused WARN "a letter is not redriven; it stays, and so do later letters of its key"
            (service, topic, partition, offset, error);
        RefusalsNotKept WARN "refused letters are not in the store's audit trail" (error);
        LettersUnreadable WARN "records cannot be read, and are skipped" (topic, partition, offset, next_offset, error);
        LettersReread INFO "the dead-letter topics have changed, and are read again" (topics);
        LetterReaderReopened INFO "the reader of dead letters failed, and is opened again" (error);
        LettersNotRead WARN "letters cannot be read, and stay" (error);
        NoLetterOf WARN "no letter is of this service; its name may be misspelt, and nothing was done" (service, known);
        LetterReaderNotLeft WARN "the reader of dead letters could not leave its group" (error);
        InterruptedRedrive INFO "letters of an interrupted redrive were looked up in their topics"
            (doubtful, published, lease);
    }
    "tidings::store" {
        LeaseExpired WARN "the lease of this service expired; a new one is acquired" (scope);
        LeaseNotRenewed WARN "the lease could not be renewed; it is tried again" (service, error);
        GroupNotPolled WARN "the group was not polled before a new lease was registered" (service, limit_ms);
        ClaimsNotReleased WARN "claims could not be released; it is tried again" (service, claims, error);
        AttemptsNotKept WARN "some attempt counts were not persisted" (service);
        LeaseNotRetired WARN "the lease was not retired; it ends with its ttl" (service, error);
        ClaimsKept ERROR "a handler blocks its thread at the end; its claims end with their ttl" (service);
    }
}

/// Returns the text of an error without values of the record. Those of a record that cannot be decoded are quoted: its
/// text ends before the first of them. The dead letter, which has the record, has the whole text.
pub(crate) fn without_values(kind: ErrorKind, text: &str) -> Cow<'_, str> {
    match value_in(text) {
        Some(quote) if kind == ErrorKind::Undecodable => format!("{} ..", text[..quote].trim_end()).into(),
        _ => text.into(),
    }
}

/// Returns where the first quote begins that is not the name of a field of the Rust type.
fn value_in(text: &str) -> Option<usize> {
    let quote = text.find(['"', '`'])?;
    let is_field = ["missing field ", "duplicate field "].iter().any(|before| text[..quote].ends_with(before));
    match text[quote + 1..].find('`') {
        Some(length) if is_field => {
            let rest = quote + length + 2;
            value_in(&text[rest..]).map(|at| rest + at)
        }
        _ => Some(quote),
    }
}

/// Returns milliseconds as logged.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    const GUIDE: &str = include_str!("../../docs/guides/logs.md");

    /// The table of the guide, as the list says.
    fn table() -> String {
        let mut table = String::from("| target | level | message | fields |\n|---|---|---|---|\n");
        for line in LINES {
            let fields: Vec<_> = line.fields.iter().map(|field| format!("`{field}`")).collect();
            let LogLine { target, level, message, .. } = line;
            table += &format!("| `{target}` | {level} | {message} | {} |\n", fields.join(", "));
        }
        table
    }

    #[test]
    fn the_guide_has_the_table_of_all_lines() {
        let table = table();
        assert!(GUIDE.contains(&table), "put this table into docs/guides/logs.md:\n{table}");
    }

    #[test]
    fn the_engine_logs_only_what_is_in_the_list() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut found = Vec::new();
        let mut open = vec![source.join("engine"), source.join("dead_letters"), source.join("run.rs")];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                let text = fs::read_to_string(&path).unwrap();
                let calls = ["info!(", "warn!(", "error!(", "event!("];
                found.extend(calls.iter().filter(|call| text.contains(*call)).map(|call| format!("{path:?}: {call}")));
            }
        }
        assert!(found.is_empty(), "{found:#?}");
    }

    #[test]
    fn the_error_of_a_record_that_cannot_be_decoded_ends_before_its_values() {
        let text = "read user from JSON: payload.age: invalid type: string \"s3cr3t\", expected u8";
        let shown = without_values(ErrorKind::Undecodable, text);
        assert_eq!(shown, "read user from JSON: payload.age: invalid type: string ..");
        assert_eq!(without_values(ErrorKind::Undecodable, "unknown variant `s3cr3t`"), "unknown variant ..");
        let missing = "read user from JSON: at line 1 column 9: missing field `age`";
        assert_eq!(without_values(ErrorKind::Undecodable, missing), missing, "a name of the program's own");
        assert_eq!(without_values(ErrorKind::Undecodable, "missing field `age`: \"x\""), "missing field `age`: ..");
        assert_eq!(without_values(ErrorKind::Failed, "no \"a\""), "no \"a\"", "a handler's own text");
    }

    #[test]
    fn targets_and_fields_are_stable_names() {
        for line in LINES {
            let is_name = |name: &&str| name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            assert!(line.fields.iter().all(is_name), "{line:?}");
            let secret = ["payload", "value", "key", "header", "password", "url"];
            assert!(!line.fields.iter().any(|field| secret.contains(field)), "{line:?}");
            assert!(line.target.starts_with("tidings::"));
        }
    }
}
