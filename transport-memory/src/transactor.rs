//! The transactor: publishes in transactions, one at a time.
//!
//! The broker's part is the [`Session`]; this is the client's. Records are stored in the first poll, also with delayed
//! answers. A commit waits for delayed answers, since it has the gate alone. Once its request may have been sent it is
//! in [`Client::ending`]: if its future is dropped then, the next call ends it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_core::{
    Error, ErrorKind, Guarantees, Position, Record, Result, TransactionOffsets, Transactor, TransactorOptions,
    async_trait,
};
use tokio::sync::{RwLock, RwLockWriteGuard};

use crate::broker::Broker;
use crate::error::{closed, injected, lock};
use crate::place::place;
use crate::publisher::Last;
use crate::transactions::{Session, fenced};

/// Number of lost answers after which the end of a transaction stays unknown.
const LOST_ANSWERS: u32 = 5;
/// Time before a request whose answer was lost is repeated.
const REPEAT_AFTER: Duration = Duration::from_millis(10);

/// A publisher with transactions.
#[derive(Debug)]
pub(crate) struct MemoryTransactor {
    broker: Arc<Broker>,
    session: Arc<Session>,
    client: Mutex<Client>,
    /// Shared by calls of `publish`, until their delayed answers; an end has it alone. It is fair.
    gate: RwLock<()>,
}

#[derive(Debug, Default)]
struct Client {
    closed: bool,
    /// The number of the transaction that was begun.
    number: Option<u64>,
    /// The first record that was not stored: the transaction can only be aborted.
    failed: Option<(ErrorKind, String)>,
    ending: Option<Ending>,
    last: Last,
}

/// A commit whose request may have been sent.
#[derive(Debug)]
struct Ending {
    /// The transaction: another one may be open once the transactor is closed.
    number: u64,
    offsets: Option<TransactionOffsets>,
    lost_answers: u32,
}

/// Result of asking the broker to commit.
enum Asked {
    /// No commit was under way.
    Nothing,
    Answered(Result<()>),
    Lost,
}

impl MemoryTransactor {
    /// Opens a transactor, which ends the earlier one of the same id.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid), [`Unavailable`](ErrorKind::Unavailable) while the broker is down.
    pub(crate) fn open(broker: &Arc<Broker>, options: &TransactorOptions) -> Result<Self> {
        options.check()?;
        broker.faults.reach("open a transactor")?;
        let session = broker.transactions.open(broker, options);
        Ok(Self { broker: Arc::clone(broker), session, client: Mutex::default(), gate: RwLock::default() })
    }

    /// # Errors
    /// [`Closed`](ErrorKind::Closed), [`Fenced`](ErrorKind::Fenced).
    fn check(&self, verb: &str, client: &Client) -> Result<()> {
        match (client.closed, self.session.is_fenced()) {
            (true, _) => Err(closed(verb, "transactor")),
            (_, true) => Err(fenced(verb)),
            _ => Ok(()),
        }
    }

    /// Stores records in the open transaction, or in a new one.
    fn store(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let mut client = lock(&self.client);
        records.into_iter().map(|record| self.store_one(&mut client, record)).collect()
    }

    fn store_one(&self, client: &mut Client, record: Record) -> Result<Position> {
        let stored = self.append(client, record);
        if let Err(error) = &stored
            && client.failed.is_none()
        {
            // As the error of a commit, it would say that the end is unknown.
            let known = if error.kind() == ErrorKind::Indeterminate { ErrorKind::Unavailable } else { error.kind() };
            client.failed = Some((known, error.report()));
        }
        stored
    }

    fn append(&self, client: &mut Client, record: Record) -> Result<Position> {
        self.check("publish in", client)?;
        self.broker.faults.reach("publish")?;
        let number = match client.number {
            Some(number) => number,
            None => *client.number.insert(self.session.begin(&self.broker)?),
        };
        let hit = self.broker.faults.publish(&record);
        if let Some(hit) = hit.filter(|hit| !hit.stored) {
            return Err(injected("publish", hit.kind));
        }
        let (topic, logs) = client.last.topic(&self.broker, &record.topic)?;
        let (partition, size) = place(topic, logs.len(), &record)?;
        let offset = self.session.append(&self.broker, number, &logs[partition as usize], record, size)?;
        match hit {
            Some(hit) => Err(injected("publish", hit.kind)),
            None => Ok(Position::new(partition, offset)),
        }
    }

    /// Waits until no commit is under way, and ends one whose future was dropped. If that one fails, its caller does not
    /// learn of it, so the next transaction fails, too.
    async fn settled(&self) {
        while lock(&self.client).ending.is_some() {
            let alone = self.gate.write().await;
            if let Some(Err(error)) = self.end(&alone).await {
                lock(&self.client).failed.get_or_insert((error.kind(), error.report()));
            }
        }
    }

    /// Ends the commit that is under way, and returns its result; `None` if there is none.
    async fn end(&self, _alone: &RwLockWriteGuard<'_, ()>) -> Option<Result<()>> {
        let delay = self.broker.faults.commit_delay();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        loop {
            match self.ask() {
                Asked::Nothing => return None,
                Asked::Answered(answer) => return Some(answer),
                Asked::Lost => tokio::time::sleep(REPEAT_AFTER).await,
            }
        }
    }

    fn ask(&self) -> Asked {
        let mut client = lock(&self.client);
        let Some(mut ending) = client.ending.take() else { return Asked::Nothing };
        let Some(answer) = self.request(&mut client, &mut ending) else {
            client.ending = Some(ending);
            return Asked::Lost;
        };
        drop(client);
        if let Some(offsets) = ending.offsets.filter(|_| answer.is_ok()) {
            offsets.committed();
        }
        Asked::Answered(answer)
    }

    /// Asks the broker once to commit; returns `None` if the answer was lost and is to be asked for again.
    fn request(&self, client: &mut Client, ending: &mut Ending) -> Option<Result<()>> {
        if client.closed {
            // The close has aborted a transaction that was not committed before.
            let is_committed = self.session.is_committed(ending.number);
            return Some(if is_committed { Ok(()) } else { Err(closed("commit", "transactor")) });
        }
        let fault = self.broker.faults.transaction();
        let reached = match fault {
            Some(fault) if fault.kind != ErrorKind::Indeterminate => Err(injected("commit a transaction", fault.kind)),
            _ => self.broker.faults.reach("commit a transaction"),
        };
        // After a lost answer, only the broker itself tells the end.
        let lost = if reached.is_ok() { fault.is_some() } else { ending.lost_answers > 0 };
        let answer = match fault {
            Some(fault) if lost && !fault.committed => Ok(()),
            _ => reached.and_then(|()| self.commit_once(ending)),
        };
        if !lost {
            self.ended(client, answer.is_err());
            return Some(answer);
        }
        ending.lost_answers += 1;
        if ending.lost_answers < LOST_ANSWERS {
            return None;
        }
        client.closed = true;
        let text = "commit a transaction: no answer came; it may be committed, and the transactor is closed";
        Some(Err(Error::new(ErrorKind::Indeterminate, text)))
    }

    /// Commits at the broker; a repeated request commits once.
    fn commit_once(&self, ending: &Ending) -> Result<()> {
        let number = ending.number;
        if self.session.is_committed(number) {
            return Ok(());
        }
        let Some(offsets) = &ending.offsets else { return self.session.commit(&self.broker, number) };
        let unknown = || {
            let text = format!("commit a transaction: group {:?} has no member {}", offsets.group, offsets.member_id);
            Error::new(ErrorKind::Conflict, text)
        };
        let group = self.broker.group(&offsets.group).ok_or_else(unknown)?;
        group.commit_with(&self.broker, offsets, || self.session.commit(&self.broker, number))
    }

    /// Forgets the transaction, which is aborted where it was not committed.
    ///
    /// An unreachable broker aborts it when the next one begins, or after its timeout.
    fn ended(&self, client: &mut Client, abort: bool) {
        (client.number, client.failed) = (None, None);
        if abort && self.broker.faults.reach("abort").is_ok() {
            self.session.abort(&self.broker);
        }
    }

    /// Starts a commit; `None` if there is nothing to commit.
    fn begin_commit(&self, offsets: Option<TransactionOffsets>) -> Result<bool> {
        let mut client = lock(&self.client);
        if client.ending.is_some() {
            return Ok(true);
        }
        self.check("commit", &client)?;
        if let Some((kind, text)) = client.failed.take() {
            self.ended(&mut client, true);
            let text = format!("commit a transaction: it is aborted, since a record was not stored: {text}");
            return Err(Error::new(kind, text));
        }
        let number = match client.number {
            Some(number) => number,
            None if offsets.is_none() => return Ok(false),
            None => *client.number.insert(self.session.begin(&self.broker)?),
        };
        client.ending = Some(Ending { number, offsets, lost_answers: 0 });
        Ok(true)
    }

    /// Aborts at once.
    fn abort_now(&self) -> Result<()> {
        let mut client = lock(&self.client);
        let begun = client.number.is_some();
        self.ended(&mut client, true);
        if begun { self.broker.faults.reach("abort a transaction") } else { Ok(()) }
    }
}

#[async_trait]
impl Transactor for MemoryTransactor {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let delay = self.broker.faults.publish_delay();
        let shared = loop {
            // Not budgeted: records are stored in the order of the first polls (P3).
            let shared = tokio::task::unconstrained(self.gate.read()).await;
            if lock(&self.client).ending.is_none() {
                break shared;
            }
            drop(shared);
            self.settled().await;
        };
        let answers = self.store(records);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        drop(shared);
        tokio::task::coop::consume_budget().await;
        answers
    }

    async fn commit(&self, offsets: Option<TransactionOffsets>) -> Result<()> {
        let alone = self.gate.write().await;
        if !self.begin_commit(offsets)? {
            return Ok(());
        }
        self.end(&alone).await.unwrap_or_else(|| Err(closed("commit", "transactor")))
    }

    async fn abort(&self) -> Result<()> {
        let alone = self.gate.write().await;
        if let Some(Ok(())) = self.end(&alone).await {
            let text = "abort a transaction: it is committed, by the commit before, which was not awaited";
            return Err(Error::new(ErrorKind::Conflict, text));
        }
        self.check("abort", &lock(&self.client))?;
        self.abort_now()
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        let settled = async {
            let alone = self.gate.write().await;
            self.end(&alone).await
        };
        let settled = tokio::time::timeout(deadline, settled).await.map(drop);
        lock(&self.client).closed = true;
        self.abort_now()?;
        let late = |_| Error::new(ErrorKind::Unavailable, "close the transactor: its commit has not ended in time");
        settled.map_err(late)
    }

    fn guarantees(&self) -> Guarantees {
        crate::transport::guarantees()
    }
}
