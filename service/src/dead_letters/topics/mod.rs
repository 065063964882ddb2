//! The dead letters in topics as a store: what became of each letter is recorded in `<topic>-dlq-state`.

mod index;
mod lookup;
mod reader;
mod session;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use tidings_core::{
    DeadLetter, DeadLetterSink, DeadLetterStore, Error, ErrorKind, Guarantees, Leased, LetterEntry, LetterId,
    LetterKey, LetterLease, LetterQuery, Name, Resolution, Result, Timestamp, Transport, async_trait,
};
use tokio::sync::Mutex;

use self::index::MAX_LETTERS;
pub use self::session::REDRIVE_GROUP_SUFFIX;
use self::session::{Broker, Session};
use super::late::{LatePublisher, LateSink};
use crate::logs;

/// The ttl of the leases under which letters are discarded and parked.
const RESOLVE_LEASE: Duration = Duration::from_secs(60);

/// The letters in the dead-letter topics of some topics, on any transport.
///
/// The resolution of a letter is recorded in `<topic>-dlq-state`, a compacted topic that
/// [`ensure_topics`](tidings_core::ensure_topics) creates: its records have the letter's identity as their key, and
/// state who redrove, discarded or parked it, when and why. Leases are records of that topic as well; of two redrives
/// that lease a letter, the one whose record comes first has it. They expire by the timestamps of these records, so the
/// clocks of the hosts that redrive must agree to well within a lease.
///
/// A redrive that takes over a letter from one that was interrupted looks for its record in the letter's topic, and
/// closes the letter if it is there. Letters that an older version redrove, up to the committed offset of the group
/// `<service>-redrive`, are closed.
///
/// # Cost
/// The first call reads the dead-letter topics and their states from their beginnings, and keeps an index of about 300
/// bytes a letter, of at most [`MAX_LETTERS`](Self::MAX_LETTERS); later calls read what was appended since. A listing reads the
/// selected letters again, page by page. On a transport without a [`LogReader`](tidings_core::LogReader), readers form a
/// group of their own, named `dead-letters-<uuid>`, and a lookup after a crash one named `dead-letters-lookup-<uuid>`;
/// both are deleted at the end.
#[derive(Debug)]
pub struct TopicDeadLetters {
    topics: Vec<Name>,
    broker: Broker,
    sink: LateSink,
    guarantees: Guarantees,
    /// `None` until the first call, and after a failed or dropped one.
    session: Mutex<Option<Session>>,
    unreadable: StdMutex<Unread>,
}

/// The causes, and the number of unreadable records, as of the last call.
#[derive(Debug, Default)]
struct Unread {
    causes: Vec<(ErrorKind, String)>,
    records: u64,
}

impl TopicDeadLetters {
    /// The limit of letters that a handle holds: call it for fewer topics, or delete old records, beyond it.
    pub const MAX_LETTERS: usize = MAX_LETTERS;
    /// The limit of a lease's ttl: the records of a lease are kept uncompacted for longer.
    pub const MAX_LEASE: Duration = LetterLease::MAX_TTL;

    /// Opens the letters of these topics. Reading them needs no right to write: publishers are opened on first use.
    ///
    /// # Errors
    /// [`NotFound`](tidings_core::ErrorKind::NotFound) for a `<topic>-dlq` or `<topic>-dlq-state` that does not exist:
    /// a deployment that was set up by an older version has no states yet. Those of [`Transport::admin`].
    pub async fn open<T, N>(transport: &T, topics: impl IntoIterator<Item = N>) -> Result<Self>
    where
        T: Transport + Clone,
        N: Into<Name>,
    {
        let topics: Vec<Name> = topics.into_iter().map(Into::into).collect();
        let (transport, admin): (Arc<dyn Transport>, _) = (Arc::new(transport.clone()), transport.admin().await?);
        let guarantees = transport.guarantees();
        let publisher = Arc::new(LatePublisher::new(Arc::clone(&transport)));
        let sink = LateSink::new(Arc::clone(&transport));
        let broker = Broker { transport, admin, publisher };
        let letters =
            Self { topics, broker, sink, guarantees, session: Mutex::default(), unreadable: StdMutex::default() };
        match letters.run(async |_| Ok(())).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // In memory, the check creates missing topics where that is allowed.
                letters.sink.check(&letters.topics).await?;
                letters.run(async |_| Ok(())).await?;
            }
            opened => opened?,
        }
        Ok(letters)
    }

    /// Leaves the readers' group. A later call opens another one.
    ///
    /// # Errors
    /// [`Unavailable`](tidings_core::ErrorKind::Unavailable): the group is left after its session timeout.
    pub async fn close(&self) -> Result<()> {
        match self.session.lock().await.take() {
            Some(session) => session.close(&*self.broker.admin).await,
            None => Ok(()),
        }
    }

    /// Runs `work` on a session that has read all there is. After an error, or if the future is dropped, the next call
    /// opens another session.
    async fn run<R>(&self, work: impl AsyncFnOnce(&mut Session) -> Result<R>) -> Result<R> {
        let mut kept = self.session.lock().await;
        let mut session = match kept.take() {
            Some(session) => self.caught_up(session).await?,
            None => self.open_session().await?,
        };
        let done = work(&mut session).await;
        let (causes, records) = session.unreadable();
        let causes = causes.iter().map(|error| (error.kind(), error.report())).collect();
        *self.unreadable.lock().unwrap_or_else(PoisonError::into_inner) = Unread { causes, records };
        match &done {
            Ok(_) => *kept = Some(session),
            Err(_) => self.leave(&session).await,
        }
        done
    }

    async fn caught_up(&self, mut session: Session) -> Result<Session> {
        match session.catch_up(&*self.broker.admin).await {
            Ok(true) => return Ok(session),
            Ok(false) => logs::LettersReread { topics: &self.topics.len() }.log(),
            Err(error) => logs::LetterReaderReopened { error: &error.report() }.log(),
        }
        self.leave(&session).await;
        self.open_session().await
    }

    async fn open_session(&self) -> Result<Session> {
        let Broker { transport, admin, .. } = &self.broker;
        let mut session = Session::open(&**transport, &**admin, &self.topics).await?;
        match session.catch_up(&**admin).await {
            Ok(_) => Ok(session),
            Err(error) => {
                self.leave(&session).await;
                Err(error)
            }
        }
    }

    async fn leave(&self, session: &Session) {
        if let Err(error) = session.close(&*self.broker.admin).await {
            logs::LetterReaderNotLeft { error: &error.report() }.log();
        }
    }

    /// Appends leases and returns, for each letter, its key and the answer; `None` for one that is unknown or closed.
    async fn take(
        &self,
        session: &mut Session,
        letters: &[LetterId],
        lease: &LetterLease,
    ) -> Result<Vec<(Option<LetterKey>, Leased)>> {
        let ttl = lease.ttl.min(Self::MAX_LEASE);
        let keys: Vec<Option<LetterKey>> = letters.iter().map(|id| session.index.find(id).cloned()).collect();
        let distinct: HashSet<&LetterKey> = keys.iter().flatten().collect();
        let leased = |key: &LetterKey| (key.clone(), LetterEntry::Leased { lease: lease.id, ttl });
        let entries: Vec<_> = distinct.into_iter().map(leased).collect();
        session.append(&*self.broker.publisher, &entries).await?;
        let answer = |key: Option<LetterKey>| {
            let answer = match key.as_ref().filter(|key| !session.index.is_closed(key)) {
                None => Leased::Closed,
                Some(key) => match session.index.lease_of(key) {
                    Some(held) if held.id == lease.id => Leased::Granted,
                    Some(held) => Leased::Held { at_most: session.index.time_left(held) },
                    // Ended by itself since: it can be leased again.
                    None => Leased::Held { at_most: Duration::ZERO },
                },
            };
            (key, answer)
        };
        Ok(keys.into_iter().map(answer).collect())
    }

    /// Closes the letters among `taken` that an interrupted redrive has published already.
    async fn close_published(
        &self,
        session: &mut Session,
        taken: &mut [(Option<LetterKey>, Leased)],
        lease: &LetterLease,
    ) -> Result<()> {
        let granted = taken.iter().filter(|(_, answer)| *answer == Leased::Granted);
        let since = |key: &LetterKey| session.index.lease_of(key).and_then(|lease| lease.orphan_since);
        let doubtful: HashMap<LetterKey, Timestamp> =
            granted.filter_map(|(key, _)| key.as_ref().and_then(|key| Some((key.clone(), since(key)?)))).collect();
        if doubtful.is_empty() {
            return Ok(());
        }
        let doubtful: Vec<_> = doubtful.into_iter().collect();
        let published = lookup::published(&self.broker, &doubtful).await?;
        let found = Resolution::redriven("an interrupted redrive").with_reason("its record is in the topic");
        let entries: Vec<_> = published.iter().map(|key| (key.clone(), LetterEntry::Resolved(found.clone()))).collect();
        session.append(&*self.broker.publisher, &entries).await?;
        let (doubtful, published_count, lease) = (doubtful.len(), published.len(), lease.id.to_string());
        logs::InterruptedRedrive { doubtful: &doubtful, published: &published_count, lease: &lease }.log();
        for (key, answer) in taken {
            if key.as_ref().is_some_and(|key| published.contains(key)) {
                *answer = Leased::Closed;
            }
        }
        Ok(())
    }

    /// Resolves the letters that `lease` has; returns whether each was.
    async fn settle(
        &self,
        session: &mut Session,
        keys: &[Option<LetterKey>],
        lease: &LetterLease,
        resolution: &Resolution,
    ) -> Result<Vec<bool>> {
        let mut seen = HashSet::new();
        let mut may = |key: &Option<LetterKey>| {
            let key = key.clone()?;
            let held = session.index.lease_of(&key).is_some_and(|held| held.id == lease.id);
            let parks = !resolution.kind.closes();
            let again = parks && session.index.is_parked(&key);
            (held && !again && seen.insert(key.clone())).then_some(key)
        };
        let settled: Vec<Option<LetterKey>> = keys.iter().map(&mut may).collect();
        let mut entries = Vec::new();
        for key in settled.iter().flatten() {
            entries.push((key.clone(), LetterEntry::Resolved(resolution.clone())));
        }
        session.append(&*self.broker.publisher, &entries).await?;
        Ok(settled.iter().map(Option::is_some).collect())
    }

    /// Gives back what `lease` still has of these letters.
    async fn end(&self, session: &mut Session, keys: &[Option<LetterKey>], lease: &LetterLease) -> Result<()> {
        let keys: HashSet<&LetterKey> = keys.iter().flatten().collect();
        let held = keys.into_iter().filter(|key| session.index.lease_of(key).is_some_and(|held| held.id == lease.id));
        let entries: Vec<_> = held.map(|key| (key.clone(), LetterEntry::Ended { lease: lease.id })).collect();
        session.append(&*self.broker.publisher, &entries).await
    }
}

#[async_trait]
impl DeadLetterSink for TopicDeadLetters {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>> {
        self.sink.bury(letters).await
    }

    async fn check(&self, topics: &[Name]) -> Result<()> {
        self.sink.check(topics).await
    }

    fn guarantees(&self) -> Guarantees {
        self.guarantees.clone()
    }
}

#[async_trait]
impl DeadLetterStore for TopicDeadLetters {
    async fn list(&self, query: &LetterQuery) -> Result<Vec<DeadLetter>> {
        let limit = query.limit.unwrap_or(LetterQuery::DEFAULT_PAGE);
        self.run(async |session| session.list(query, limit, |letter| letter).await).await
    }

    /// Reads no letter if the query selects by state, service, topic and identity alone.
    async fn count(&self, query: &LetterQuery) -> Result<u64> {
        let mut query = query.clone();
        query.after = None;
        self.run(async |session| match query.selects_by_place_alone() {
            true => Ok(session.count(&query)),
            false => Ok(session.list(&query, usize::MAX, |_| ()).await?.len() as u64),
        })
        .await
    }

    async fn resolve(&self, letters: &[LetterId], resolution: &Resolution) -> Result<Vec<bool>> {
        let lease = LetterLease::new(RESOLVE_LEASE);
        self.run(async |session| {
            let taken = self.take(session, letters, &lease).await?;
            let keys: Vec<_> = taken.into_iter().map(|(key, _)| key).collect();
            let settled = self.settle(session, &keys, &lease, resolution).await?;
            // A closed letter has no lease any more.
            self.end(session, &keys, &lease).await?;
            Ok(settled)
        })
        .await
    }

    async fn lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<Vec<Leased>> {
        self.run(async |session| {
            let mut taken = self.take(session, letters, lease).await?;
            self.close_published(session, &mut taken, lease).await?;
            Ok(taken.into_iter().map(|(_, answer)| answer).collect())
        })
        .await
    }

    async fn resolve_leased(
        &self,
        letters: &[LetterId],
        lease: &LetterLease,
        resolution: &Resolution,
    ) -> Result<Vec<bool>> {
        resolution.check_closes()?;
        self.run(async |session| {
            let keys: Vec<_> = letters.iter().map(|id| session.index.find(id).cloned()).collect();
            self.settle(session, &keys, lease, resolution).await
        })
        .await
    }

    async fn end_lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<()> {
        self.run(async |session| {
            let keys: Vec<_> = letters.iter().map(|id| session.index.find(id).cloned()).collect();
            self.end(session, &keys, lease).await
        })
        .await
    }

    fn unreadable(&self) -> Vec<Error> {
        let unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        unreadable.causes.iter().map(|(kind, text)| Error::new(*kind, text.clone())).collect()
    }

    fn unreadable_records(&self) -> u64 {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).records
    }
}
