//! Transactions as the broker keeps them: who may use an id, which transaction is open, and when it is aborted.
//!
//! As a group, the coordinator is passive: no task runs for it. Calls that look at logs first abort the transactions
//! whose timeout has passed ([`Transactions::expire`]), and waiting readers sleep no longer than until the next one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_core::{Error, ErrorKind, Name, Record, Result, TransactorOptions};
use tokio::time::Instant;

use crate::broker::Broker;
use crate::error::lock;
use crate::log::PartitionLog;

/// All transactions of a broker.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    /// The latest session of each id, while its transactor exists or its transaction is open.
    sessions: Mutex<BTreeMap<Name, Arc<Session>>>,
    /// Number of open transactions: without any, readers look no further.
    open: AtomicUsize,
}

/// The right of one transactor to use its id, until another one is opened.
#[derive(Debug)]
pub(crate) struct Session {
    /// Identifies its transactions in the logs.
    serial: u64,
    timeout: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    fenced: bool,
    /// The number of transactions that were begun. The last one may be open.
    count: u64,
    open: Option<Open>,
    /// The last transaction that was committed, so that a repeated request is answered alike.
    committed: Option<u64>,
}

/// An open transaction.
#[derive(Debug)]
struct Open {
    /// `None` if it is beyond the clock's range.
    deadline: Option<Instant>,
    /// Logs that hold its records.
    logs: Vec<Arc<PartitionLog>>,
}

impl Transactions {
    /// Opens a session, which ends the earlier one of the same id.
    pub(crate) fn open(&self, broker: &Broker, options: &TransactorOptions) -> Arc<Session> {
        let (serial, timeout) = (broker.next_serial(), options.timeout);
        let session = Arc::new(Session { serial, timeout, state: Mutex::default() });
        let mut sessions = lock(&self.sessions);
        if let Some(earlier) = sessions.insert(options.id.clone(), Arc::clone(&session)) {
            earlier.fence(broker);
        }
        forget_unused(&mut sessions);
        session
    }

    /// Aborts the transactions whose timeout has passed.
    pub(crate) fn expire(&self, broker: &Broker) {
        if self.open.load(Ordering::Acquire) == 0 || broker.faults.down_since().is_some() {
            return;
        }
        let now = Instant::now();
        let mut sessions = lock(&self.sessions);
        sessions.values().for_each(|session| session.expire(broker, now));
        forget_unused(&mut sessions);
    }

    /// Returns when the next transaction is aborted by its timeout.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        if self.open.load(Ordering::Acquire) == 0 {
            return None;
        }
        lock(&self.sessions).values().filter_map(|session| session.deadline()).min()
    }
}

/// Forgets sessions of dropped transactors without an open transaction.
fn forget_unused(sessions: &mut BTreeMap<Name, Arc<Session>>) {
    sessions.retain(|_, session| Arc::strong_count(session) > 1 || lock(&session.state).open.is_some());
}

impl Session {
    /// Begins a transaction and returns its number. An earlier one that could not be aborted is aborted first.
    ///
    /// # Errors
    /// [`Fenced`](ErrorKind::Fenced).
    pub(crate) fn begin(&self, broker: &Broker) -> Result<u64> {
        let mut state = lock(&self.state);
        state.check_fence("begin")?;
        self.finish(&mut state, broker, false);
        state.count += 1;
        state.open = Some(Open { deadline: Instant::now().checked_add(self.timeout), logs: Vec::new() });
        broker.transactions.open.fetch_add(1, Ordering::AcqRel);
        Ok(state.count)
    }

    /// Stores a record, of `size` bytes, in the transaction `number`; returns its offset.
    ///
    /// # Errors
    /// [`Fenced`](ErrorKind::Fenced), [`Unavailable`](ErrorKind::Unavailable) if the transaction was aborted.
    pub(crate) fn append(
        &self,
        broker: &Broker,
        number: u64,
        log: &Arc<PartitionLog>,
        record: Record,
        size: usize,
    ) -> Result<u64> {
        let mut state = lock(&self.state);
        state.check_fence("publish in")?;
        self.expire_in(&mut state, broker, Instant::now());
        let open = state.open_of("publish in", number)?;
        let (offset, first) = log.appender(broker.clock.now()).push_open(record, size, self.serial);
        if first {
            open.logs.push(Arc::clone(log));
        }
        Ok(offset)
    }

    /// Returns whether the transaction `number` is known to be committed.
    pub(crate) fn is_committed(&self, number: u64) -> bool {
        lock(&self.state).committed == Some(number)
    }

    /// Returns whether another session has the id.
    pub(crate) fn is_fenced(&self) -> bool {
        lock(&self.state).fenced
    }

    /// Commits the transaction `number`.
    ///
    /// # Errors
    /// [`Fenced`](ErrorKind::Fenced), [`Unavailable`](ErrorKind::Unavailable) if its timeout has passed.
    pub(crate) fn commit(&self, broker: &Broker, number: u64) -> Result<()> {
        let mut state = lock(&self.state);
        state.check_fence("commit")?;
        self.expire_in(&mut state, broker, Instant::now());
        state.open_of("commit", number)?;
        self.finish(&mut state, broker, true);
        state.committed = Some(number);
        Ok(())
    }

    /// Aborts the open transaction, if there is one.
    pub(crate) fn abort(&self, broker: &Broker) {
        self.finish(&mut lock(&self.state), broker, false);
    }

    fn fence(&self, broker: &Broker) {
        let mut state = lock(&self.state);
        self.finish(&mut state, broker, false);
        state.fenced = true;
    }

    fn expire(&self, broker: &Broker, now: Instant) {
        self.expire_in(&mut lock(&self.state), broker, now);
    }

    fn expire_in(&self, state: &mut State, broker: &Broker, now: Instant) {
        if state.open.as_ref().and_then(|open| open.deadline).is_some_and(|deadline| deadline <= now) {
            self.finish(state, broker, false);
        }
    }

    fn finish(&self, state: &mut State, broker: &Broker, committed: bool) {
        let Some(open) = state.open.take() else { return };
        let now = broker.clock.now();
        open.logs.iter().for_each(|log| log.appender(now).end_transaction(self.serial, committed));
        broker.transactions.open.fetch_sub(1, Ordering::AcqRel);
    }

    fn deadline(&self) -> Option<Instant> {
        lock(&self.state).open.as_ref().and_then(|open| open.deadline)
    }
}

impl State {
    fn check_fence(&self, verb: &str) -> Result<()> {
        if self.fenced { Err(fenced(verb)) } else { Ok(()) }
    }

    /// Returns the open transaction, if it is `number`.
    fn open_of(&mut self, verb: &str, number: u64) -> Result<&mut Open> {
        let current = self.count == number;
        let aborted = || {
            let text = format!("{verb} a transaction: it was open for longer than its timeout and is aborted");
            Error::new(ErrorKind::Unavailable, text)
        };
        self.open.as_mut().filter(|_| current).ok_or_else(aborted)
    }
}

/// Returns the error of a transactor whose id another one has taken.
pub(crate) fn fenced(verb: &str) -> Error {
    Error::new(ErrorKind::Fenced, format!("{verb} a transaction: another transactor of the same id was opened"))
}
