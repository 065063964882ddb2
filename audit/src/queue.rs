//! The chain of a writer and its records that are not stored yet.
//!
//! A record is linked when it is written, so its number and hash are final before the sink has it. A sink that fails
//! must get the same records again, in their order: otherwise the chain would have a hole. So records wait here until
//! the sink has acknowledged them, and one call at a time sends them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidings_core::audit::{AuditRecord, AuditSink, StoredAudit};
use tidings_core::{Error, ErrorKind, Name, Result};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::chain::{BATCH, Chain, Checkpoint};
use crate::cloud_event::{checkpoint_record, encode, is_checkpoint};
use crate::options::AuditorOptions;

/// Room for the result of each intent, and for checkpoints, beyond the bound of what waits.
const RESERVE: usize = 2;

/// The chain and what waits.
#[derive(Debug)]
pub(crate) struct Queue {
    sink: Arc<dyn AuditSink>,
    options: AuditorOptions,
    state: Mutex<State>,
    /// Held while records are sent.
    sending: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    chain: Chain,
    waiting: VecDeque<StoredAudit>,
    /// Numbers of records that were ever accepted, and that wait no more.
    accepted: u64,
    settled: u64,
    /// The most records of the next append.
    batch: usize,
    lost: u64,
    since_checkpoint: u64,
    checkpointed: Instant,
    stored: Option<Checkpoint>,
    failure: Option<String>,
}

/// A place in the queue: everything up to it has been sent when [`Queue::send`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// A snapshot for the status.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) chain: Name,
    pub(crate) waiting: usize,
    pub(crate) lost: u64,
    pub(crate) stored: Option<Checkpoint>,
    pub(crate) since_checkpoint: u64,
    pub(crate) checkpoint_age: Duration,
    pub(crate) failure: Option<String>,
}

impl Queue {
    pub(crate) fn new(sink: Arc<dyn AuditSink>, options: AuditorOptions) -> Self {
        let state = State {
            chain: Chain::new(chain_name(&options.source)),
            waiting: VecDeque::new(),
            accepted: 0,
            settled: 0,
            batch: BATCH,
            lost: 0,
            since_checkpoint: 0,
            checkpointed: Instant::now(),
            stored: None,
            failure: None,
        };
        Self { sink, options, state: Mutex::new(state), sending: tokio::sync::Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn sink(&self) -> Arc<dyn AuditSink> {
        Arc::clone(&self.sink)
    }

    /// Returns how many records there is room for.
    pub(crate) fn room(&self) -> usize {
        self.options.max_waiting.saturating_sub(self.state().waiting.len())
    }

    /// Links intents; refused if too many records wait.
    pub(crate) fn accept(&self, records: &[AuditRecord]) -> Result<Ticket> {
        self.link(records, self.options.max_waiting)
    }

    /// Links records of reads and of refusals. They use half of the room: what anyone may send must not take that of
    /// changes.
    pub(crate) fn accept_minor(&self, records: &[AuditRecord]) -> Result<Ticket> {
        let most = self.options.max_waiting;
        self.link(records, (most / 2).max(records.len()).min(most))
    }

    /// Links results, for which room is kept.
    pub(crate) fn accept_result(&self, record: &AuditRecord) -> Result<Ticket> {
        self.link(std::slice::from_ref(record), self.options.max_waiting.saturating_mul(RESERVE))
    }

    fn link(&self, records: &[AuditRecord], bound: usize) -> Result<Ticket> {
        let encoded = records.iter().map(|record| encode(&self.options.source, record)).collect::<Result<Vec<_>>>()?;
        let mut state = self.state();
        if state.waiting.len() + encoded.len() > bound {
            state.lost += encoded.len() as u64;
            let text = format!("write an audit record: {} records wait for the sink", state.waiting.len());
            return Err(Error::new(ErrorKind::Unavailable, text));
        }
        for bytes in encoded {
            state.push(bytes);
        }
        if state.is_due(&self.options) {
            self.link_checkpoint(&mut state)?;
        }
        Ok(Ticket(state.accepted))
    }

    /// Links a checkpoint, unless nothing was written since the last one.
    pub(crate) fn checkpoint(&self) -> Result<Ticket> {
        let mut state = self.state();
        if state.since_checkpoint > 0 {
            self.link_checkpoint(&mut state)?;
        }
        Ok(Ticket(state.accepted))
    }

    fn link_checkpoint(&self, state: &mut State) -> Result<()> {
        let Some(head) = state.chain.head() else { return Ok(()) };
        let mut record = checkpoint_record(&self.options.source, &head);
        if state.lost > 0 {
            record.counts.insert("lost".to_owned(), state.lost);
        }
        let bytes = encode(&self.options.source, &record)?;
        state.push(bytes);
        (state.since_checkpoint, state.checkpointed) = (0, Instant::now());
        Ok(())
    }

    /// Returns when a checkpoint is due although no further record comes; `None` if nothing was written since the last.
    pub(crate) fn checkpoint_due(&self) -> Option<Instant> {
        let state = self.state();
        state.checkpointed.checked_add(self.options.checkpoint_interval).filter(|_| state.since_checkpoint > 0)
    }

    /// Sends what waits, up to a ticket. Gives up after the options' time, or after twice that time if an append is
    /// under way then: the caller must not wait for everything that is before its record.
    ///
    /// # Cancel safety
    /// Records that were sent without an answer are sent again by the next call.
    pub(crate) async fn send(&self, until: Ticket) -> Result<()> {
        let (started, limit) = (Instant::now(), self.options.answer_within);
        let late = || Error::new(ErrorKind::Unavailable, "write an audit record: many records are before it");
        let _one_at_a_time = timeout(limit, self.sending.lock()).await.map_err(|_| late())?;
        while self.send_batch(until).await? {
            if started.elapsed() >= limit && self.state().is_waiting(until) {
                return Err(late());
            }
        }
        Ok(())
    }

    /// Sends everything that waits now.
    ///
    /// # Cancel safety
    /// As for [`send`](Self::send).
    pub(crate) async fn send_waiting(&self) -> Result<()> {
        let until = Ticket(self.state().accepted);
        let _one_at_a_time = self.sending.lock().await;
        while self.send_batch(until).await? {}
        Ok(())
    }

    /// Sends the next records, and returns whether there were any.
    async fn send_batch(&self, until: Ticket) -> Result<bool> {
        let batch = self.state().batch(until);
        if batch.is_empty() {
            return Ok(false);
        }
        let (started, limit) = (Instant::now(), self.options.answer_within);
        if let Ok(answers) = timeout(limit, self.sink.append(batch.clone())).await {
            self.settle(&batch, answers)?;
            self.state().batch_took(started.elapsed(), limit);
            return Ok(true);
        }
        let error = Error::new(ErrorKind::Indeterminate, "write an audit record: the sink gave no answer in time");
        let mut state = self.state();
        state.batch = (batch.len() / 2).max(1);
        state.fail(&error);
        Err(error)
    }

    /// Removes records that the sink has, up to the first that it does not have.
    fn settle(&self, batch: &[StoredAudit], answers: Vec<Result<()>>) -> Result<()> {
        let mut state = self.state();
        let mut answers = answers.into_iter();
        for record in batch {
            let no_answer = || Err(Error::new(ErrorKind::Indeterminate, "append: the audit sink gave no answer"));
            if let Err(error) = answers.next().unwrap_or_else(no_answer) {
                state.fail(&error);
                if let Some(break_off) = BreakOff::of(error.kind()) {
                    self.begin_chain(&mut state, break_off)?;
                }
                return Err(error);
            }
            state.waiting.pop_front();
            state.settled += 1;
            let head = Checkpoint::new(record.chain.clone(), record.seq, record.hash);
            if is_checkpoint(record) {
                tracing::info!(target: "tidings::audit", checkpoint = %head, "checkpoint of the audit trail");
            }
            state.stored = Some(head);
        }
        if state.failure.take().is_some() {
            tracing::info!(target: "tidings::audit", "the audit sink takes records again");
        }
        Ok(())
    }

    /// Continues in a new chain, where the sink will never take the next record of this one.
    fn begin_chain(&self, state: &mut State, break_off: BreakOff) -> Result<()> {
        let name = chain_name(&self.options.source);
        let text = "the audit sink does not take the next record of this chain; a new chain is begun";
        tracing::warn!(target: "tidings::audit", chain = %state.chain.name(), %name, "{text}");
        let mut old = std::mem::take(&mut state.waiting);
        if break_off == BreakOff::WithoutTheRecord && old.pop_front().is_some() {
            state.lost += 1;
            state.settled += 1;
        }
        state.chain = Chain::new(name);
        for record in old {
            if is_checkpoint(&record) {
                // It states the end of the old chain.
                state.settled += 1;
            } else {
                let linked = state.chain.link(record.bytes);
                state.waiting.push_back(linked);
            }
        }
        state.since_checkpoint = state.waiting.len() as u64;
        Ok(())
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.state().waiting.is_empty()
    }

    /// Returns the end of the chain, as far as the sink has acknowledged it.
    pub(crate) fn stored(&self) -> Option<Checkpoint> {
        self.state().stored.clone()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let state = self.state();
        Snapshot {
            chain: state.chain.name().clone(),
            waiting: state.waiting.len(),
            lost: state.lost,
            stored: state.stored.clone(),
            since_checkpoint: state.since_checkpoint,
            checkpoint_age: state.checkpointed.elapsed(),
            failure: state.failure.clone(),
        }
    }
}

/// Returns the error of an operation that is refused because it cannot be recorded. It was not performed.
pub(crate) fn refusal(verb: &Name, error: Error) -> Error {
    let kind = if error.kind() == ErrorKind::Indeterminate { ErrorKind::Unavailable } else { error.kind() };
    Error::caused_by(kind, format!("{verb} is refused, because it cannot be recorded in the audit trail"), error)
}

impl State {
    fn push(&mut self, bytes: bytes::Bytes) {
        let linked = self.chain.link(bytes);
        self.waiting.push_back(linked);
        self.accepted += 1;
        self.since_checkpoint += 1;
    }

    fn is_due(&self, options: &AuditorOptions) -> bool {
        self.since_checkpoint >= options.checkpoint_every.max(1)
            || self.checkpointed.elapsed() >= options.checkpoint_interval
    }

    fn is_waiting(&self, until: Ticket) -> bool {
        self.settled < until.0
    }

    /// Returns the next records to send.
    fn batch(&self, until: Ticket) -> Vec<StoredAudit> {
        // A checkpoint behind the last record goes with it.
        let wanted = if self.is_waiting(until) { self.batch } else { 0 };
        self.waiting.iter().take(wanted).cloned().collect()
    }

    /// Makes batches larger again after a time-out, as long as one of twice the size is in time.
    fn batch_took(&mut self, time: Duration, limit: Duration) {
        if time.saturating_mul(2) <= limit {
            self.batch = self.batch.saturating_mul(2).min(BATCH);
        }
    }

    fn fail(&mut self, error: &Error) {
        let report = error.report();
        if self.failure.is_none() {
            tracing::error!(
                target: "tidings::audit",
                error = %report,
                "cannot write audit records; they wait, and changes that must be recorded are refused"
            );
        }
        self.failure = Some(report);
    }
}

/// How to continue after an error that repeating does not heal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BreakOff {
    /// The number is taken in the sink: the record goes to a new chain.
    WithTheRecord,
    /// The sink takes no such record.
    WithoutTheRecord,
}

impl BreakOff {
    fn of(kind: ErrorKind) -> Option<Self> {
        match kind {
            ErrorKind::Conflict => Some(Self::WithTheRecord),
            ErrorKind::TooLarge => Some(Self::WithoutTheRecord),
            _ => None,
        }
    }
}

fn chain_name(source: &str) -> String {
    format!("{source}-{}", Uuid::now_v7())
}
