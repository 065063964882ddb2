//! The idempotent producer (KIP-98), as a state machine without I/O.
//!
//! [`SendQueue`] decides which batch is sent to which broker, under which identity, and interprets
//! answers. It has no clock and no connection: its caller passes the time and the answers. So tests
//! can simulate brokers that lose, delay, repeat and refuse requests, by seed.
//!
//! # Guarantees
//!
//! - A batch that is reported as stored is in the log once.
//! - A batch that is reported as not stored is not in the log, and never will be.
//! - Stored batches of a partition are in the order in which they were queued.
//! - Each batch ends, at the latest when its delivery timeout has passed. If it may be stored, its
//!   result is unknown.
//!
//! # Rules
//!
//! - A broker appends a batch only if its sequence follows that of the last one, and recognises one
//!   of the last five that is repeated. So up to five batches of a partition may be in flight to one
//!   broker, and a retry is stored once.
//! - A broker without state of a producer accepts any sequence. So the first batch under an
//!   identity, after a failure, or after a pause is sent alone.
//! - A batch whose answer was lost is *open*: it may be stored, or a copy of it may still be in
//!   flight. So is a batch whose broker no longer leads the partition, because it may have appended
//!   the batch before. An open batch is repeated only under the same epoch and sequence.
//! - A batch that ends without being stored leaves a gap in the sequences. The partition's epoch is
//!   then raised, which fences copies in flight, and sequences restart at zero (KIP-360). This waits
//!   until no batch of the partition is in flight and its first batch is not open. A copy of a later
//!   batch cannot be appended, because the first one is missing. Batches after a refused one are
//!   no longer open, because its sequence is never used again.
//! - Without transactions no broker assigns epochs, and brokers check them for each partition. So
//!   each partition has its own epoch, and its gap does not delay other partitions.

mod answer;
mod broker;
mod partition;
mod send_queue;

#[cfg(test)]
mod play;
#[cfg(test)]
mod simulated_log;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub(crate) use self::answer::Answer;
pub(crate) use self::broker::{BatchToSend, Report, ToSend, identity, run};
pub(crate) use self::partition::{Fate, Identity, Payload};
pub(crate) use self::send_queue::{Completion, SendQueue, SendSettings};
