//! The meaning of each reason, and its remedy.

use serde::Serialize;
use tidings_service::telemetry::{HealthReason, Snapshot};

/// A fact that is no reason to be degraded, and may need an operator.
#[derive(Debug, Serialize)]
pub(crate) struct Note {
    note: &'static str,
    meaning: &'static str,
    remedy: &'static str,
}

const DEAD_LETTERS: Note = Note {
    note: "dead_letters",
    meaning: "records were given up since the start: they are dead letters",
    remedy: "fix the cause that the log and the letters name, then redrive them",
};
const STANDBY: Note = Note {
    note: "standby",
    meaning: "this instance has no partition: other members of the group have them",
    remedy: "nothing if it is a spare; otherwise add partitions, or run fewer instances",
};
const NO_PARTITION: Note = Note {
    note: "no_partition",
    meaning: "this instance is the only member of its group, and has no partition",
    remedy: "check that the topics of the service exist, and that it may read them; it reads them once they are there",
};
const CLOCK: Note = Note {
    note: "clock",
    meaning: "the clock of this host and the timestamps of new records differ: time lags are wrong",
    remedy: "see `clock_ahead_seconds`; check the time synchronisation of this host, of the producers, and of the brokers",
};

/// Returns the notes on a service.
pub(crate) fn notes(snapshot: &Snapshot, is_standby: bool) -> Vec<Note> {
    // Not known until the group was asked.
    let is_alone = snapshot.members.map(|members| members <= 1);
    let all = [
        (snapshot.totals().dead_lettered > 0, DEAD_LETTERS),
        (is_standby && is_alone == Some(false), STANDBY),
        (is_standby && is_alone == Some(true), NO_PARTITION),
        (snapshot.partitions.iter().any(|partition| partition.clock_gap.is_some()), CLOCK),
    ];
    all.into_iter().filter_map(|(applies, note)| applies.then_some(note)).collect()
}

/// Returns the meaning and the remedy of a reason, a sentence each.
pub(crate) const fn advice(reason: HealthReason) -> (&'static str, &'static str) {
    match reason {
        HealthReason::EngineFailed => (
            "the service has ended with an error that a retry cannot fix",
            "read the last error in the log, fix its cause (such as credentials, permissions or a setting), and restart the process",
        ),
        HealthReason::EngineBlocked => (
            "the engine does not run, although it has a thread to run on",
            "restart the process, and report its last log lines",
        ),
        HealthReason::Starting => (
            "the service has not joined its group yet",
            "if it lasts, look for warnings about the broker, its address and its credentials",
        ),
        HealthReason::Draining => ("the service is shutting down", "wait"),
        HealthReason::Stopped => ("the service has been shut down", "restart the process if that was not wanted"),
        HealthReason::BrokerUnreachable => (
            "reading from the group fails",
            "check that the broker runs and is reachable, and that the credentials and permissions are right",
        ),
        HealthReason::StoreUnavailable => (
            "the idempotency store does not answer",
            "check that the store runs, its disk, and the credentials; deliveries resume by themselves",
        ),
        HealthReason::PartitionStalled => (
            "a partition makes no progress",
            "see `holding` of the stalled partition: its offset, handler, attempt and cause",
        ),
        HealthReason::PartitionSlow => (
            "the lag of a partition does not fall",
            "add instances or workers, or make the handler faster: see the durations by handler",
        ),
        HealthReason::PartitionUnreadable => (
            "the records of a partition cannot be read from an offset on",
            "see the log for the cause; raise the limit that it names, or skip the range",
        ),
        HealthReason::CircuitOpen => (
            "most deliveries failed, and one at a time is tried",
            "fix the cause that the errors of the handlers in the log name; the service resumes by itself",
        ),
        HealthReason::DeadLettersUnwritable => (
            "a dead letter cannot be written, and its partition waits",
            "check that the dead-letter topic exists, has room, and may be written to",
        ),
        HealthReason::PublisherUnavailable => (
            "events that handlers returned cannot be published, and their partitions wait",
            "check the broker, its limits, and the permission to write to the events' topics",
        ),
        HealthReason::DependencyUnavailable => (
            "a handler reported that a dependency is down, and its partition waits",
            "check the dependency that the handler's error in the log names; the partition resumes by itself",
        ),
        HealthReason::HandlerBlocked => (
            "a handler blocks its thread, or the service waits for a thread that others block",
            "see `blocked` of all services: move blocking work of these handlers to `spawn_blocking`",
        ),
        HealthReason::LagHigh => ("the lag is above its limit", "see the partitions with the largest lag"),
        HealthReason::Paused => ("an operator paused the service or a partition", "resume it when the work is done"),
        _ => ("see the documentation of this reason", "see the log"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_advice() {
        let unknown = "see the documentation of this reason";
        assert!(HealthReason::ALL.into_iter().all(|reason| advice(reason).0 != unknown));
    }
}
