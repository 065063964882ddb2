//! The suites, run against the memory transport and the memory stores.

use std::process::ExitCode;
use std::time::Duration;

use tidings_conformance::{Setup, Suites};
use tidings_core::{Error, ErrorKind, PublisherExt, Record, Timestamp, Transport};
use tidings_memory::{
    Faults, MemoryConfig, MemoryDeadLetters, MemoryStore, MemoryTransport, PublishFault, TransactionFault,
};

/// Records that a publisher takes unanswered.
const BOUND: usize = 100;
/// Bytes that it takes unanswered.
const BYTES: usize = 256 << 10;

/// Sets the options that the URL does not set.
fn limited(config: MemoryConfig) -> MemoryConfig {
    let (records, bytes) = (config.retention_records, config.retention_bytes);
    config
        .with_max_unanswered_bytes(BYTES)
        .with_partitions(2)
        .with_retention(Duration::MAX)
        .with_retention_records(records)
        .with_retention_bytes(bytes)
        .with_max_record_bytes(MemoryConfig::DEFAULT_MAX_RECORD_BYTES)
        .with_start_time(Timestamp::now())
}

fn transport() -> Setup<MemoryTransport> {
    // As brokers are run: a missing topic is an error, and not created by a typing mistake.
    let url = format!("memory://?auto_create=false&max_unanswered_records={BOUND}&retention=3650d");
    let open = move || std::future::ready(MemoryConfig::from_url(&url).map(limited).and_then(MemoryTransport::open));
    Setup::new("memory", open)
        .with_paused_clock()
        .with_outage(|memory, down| async move {
            if down {
                memory.faults().down()
            } else {
                memory.faults().up()
            }
            Ok(())
        })
        .with_lost_answers(|memory, lost| async move {
            let unknown = PublishFault::unknown(true).with_times(Faults::UNTIL_HEALED);
            if lost {
                memory.faults().publish(unknown)
            } else {
                memory.faults().heal()
            }
            Ok(())
        })
        .with_slow_answers(BOUND, |memory, slow| async move {
            memory.faults().delay_publishes(if slow { Duration::from_secs(5) } else { Duration::ZERO });
            Ok(())
        })
        .with_unanswered_bytes(BYTES)
        .with_deleted_records(|memory, partition, range| async move {
            if range.start > 0 {
                return Err(Error::new(ErrorKind::Unsupported, "the memory transport does not compact"));
            }
            memory.faults().drop_records(&partition, range.end);
            Ok(())
        })
        .with_truncated_records(|memory, partition, end| async move {
            memory.faults().truncate(&partition, end);
            Ok(())
        })
        .with_advanced_log(|memory, partition, offset| async move {
            let advanced = memory.faults().advance(&partition, offset);
            advanced.then_some(()).ok_or_else(|| Error::new(ErrorKind::Failed, "advance a log that is not empty"))
        })
        .with_unreadable_records(|memory, partition| async move {
            let bytes = Record::new(&partition.topic, "bytes").with_partition(partition.partition);
            let at = memory.publisher().await?.publish_one(bytes).await?.offset;
            memory.faults().unreadable(&partition, at..at + 1);
            Ok(())
        })
        .with_session_loss(|memory, group| async move {
            memory.faults().lose_all(&group);
            Ok(())
        })
}

/// Adds the hooks of consumers.
fn consuming(setup: Setup<MemoryTransport>) -> Setup<MemoryTransport> {
    setup
        .with_failed_reads(|memory, times| async move {
            memory.faults().fail_fetches(times, ErrorKind::Unavailable);
            Ok(())
        })
        .with_lost_commits(|memory, lost| async move {
            let times = if lost { Faults::UNTIL_HEALED } else { 0 };
            memory.faults().fail_commits(times, ErrorKind::Indeterminate);
            memory.faults().commit_transactions(TransactionFault::unknown(true).with_times(times));
            Ok(())
        })
        .with_rebalance(|memory, group| async move {
            memory.faults().rebalance(&group);
            Ok(())
        })
}

fn store() -> Setup<MemoryStore> {
    Setup::new("memory-store", || async { Ok(MemoryStore::new()) })
        .with_paused_clock()
        .with_outage(|store, down| async move {
            if down {
                store.faults().down()
            } else {
                store.faults().up()
            }
            Ok(())
        })
        .with_lost_answers(|store, lost| async move {
            store.faults().lose_answers(if lost { Faults::UNTIL_HEALED } else { 0 });
            Ok(())
        })
}

fn dead_letters() -> Setup<MemoryDeadLetters> {
    Setup::new("memory-dead-letters", || async { Ok(MemoryDeadLetters::new()) })
        .with_paused_clock()
        .with_outage(|letters, down| async move {
            if down {
                letters.faults().down()
            } else {
                letters.faults().up()
            }
            Ok(())
        })
        .with_max_letters(4, || async { Ok(MemoryDeadLetters::new().with_max_letters(4)) })
}

fn main() -> ExitCode {
    Suites::new()
        .with_transport(consuming(transport()))
        .with_idempotency(store())
        .with_dead_letters(dead_letters())
        .run()
}
