//! Dead letters of any backend: list, redrive, discard and park them.

mod groups;
mod late;
mod options;
mod redrive;
mod topics;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use crate::logs;
use tidings_core::{
    DeadLetter, DeadLetterStore, Error, ErrorKind, LetterId, LetterQuery, LetterState, Name, Publisher, Resolution,
    Result, Transport,
};

pub use self::groups::{GroupBy, LetterGroup, LetterGroups};
use self::late::LatePublisher;
pub use self::options::{RedriveOptions, RedriveReport};
pub use self::topics::{REDRIVE_GROUP_SUFFIX, TopicDeadLetters};

/// The number of letters that one call closes or parks.
const STEP: usize = 500;
/// The number of pages of letters in which known services are searched.
const SEARCHED_PAGES: usize = 10;
/// The limit of letters that one call of [`DeadLetters::discard`] or [`DeadLetters::park`] selects.
const MAX_SELECTED: usize = 1_000_000;

/// The dead letters of topics or of a store: lists, redrives, discards and parks them by the same code.
///
/// [`open`](Self::open) opens the letters in `<topic>-dlq`, on any transport; [`new`](Self::new) those in a
/// [`DeadLetterStore`]: sled's, Postgres' or memory's. What a backend cannot do it disclaims in its
/// [`guarantees`](tidings_core::DeadLetterSink::guarantees), and answers as
/// [`Unsupported`](ErrorKind::Unsupported).
///
/// ```
/// use tidings_core::{LetterQuery, Transport};
/// use tidings_memory::MemoryTransport;
/// use tidings_service::{DeadLetters, RedriveOptions};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidings_core::Result<()> {
/// let transport = MemoryTransport::new();
/// let letters = DeadLetters::open(&transport, ["orders"]).await?.with_operator("ann");
/// let query = LetterQuery::default().with_service("billing").with_error("no such account");
/// for letter in letters.list(&query).await? {
///     println!("{} at {}: {}", letter.handler, letter.origin, letter.error);
/// }
/// let report = letters.redrive(&query, &RedriveOptions::default().with_reason("accounts are back")).await?;
/// assert_eq!(report.redriven, 0, "there was none");
/// letters.close().await
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct DeadLetters {
    store: Arc<dyn DeadLetterStore>,
    publisher: Arc<dyn Publisher>,
    operator: String,
    topics: Option<Arc<TopicDeadLetters>>,
}

impl DeadLetters {
    /// The default of [`with_operator`](Self::with_operator).
    pub const DEFAULT_OPERATOR: &str = "unknown";

    /// Creates a handle to the letters of `store`, which redrives through `publisher`.
    pub fn new(store: impl DeadLetterStore, publisher: Arc<dyn Publisher>) -> Self {
        Self { store: Arc::new(store), publisher, operator: Self::DEFAULT_OPERATOR.to_owned(), topics: None }
    }

    /// Creates a handle to the letters of `store`, which redrives through a publisher of `transport`. The first redrive
    /// opens the publisher, so listing letters needs no right to write.
    ///
    /// ```
    /// use tidings_core::LetterQuery;
    /// use tidings_memory::{MemoryDeadLetters, MemoryTransport};
    /// use tidings_service::DeadLetters;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> tidings_core::Result<()> {
    /// let letters = DeadLetters::through(MemoryDeadLetters::new(), MemoryTransport::new());
    /// assert_eq!(letters.count(&LetterQuery::default()).await?, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn through(store: impl DeadLetterStore, transport: impl Transport) -> Self {
        Self::new(store, Arc::new(LatePublisher::new(Arc::new(transport))))
    }

    /// Opens the letters of these topics, in their dead-letter topics. See [`TopicDeadLetters`] for its cost.
    ///
    /// # Errors
    /// Those of [`TopicDeadLetters::open`].
    pub async fn open<T, N>(transport: &T, topics: impl IntoIterator<Item = N>) -> Result<Self>
    where
        T: Transport + Clone,
        N: Into<Name>,
    {
        let publisher = Arc::new(LatePublisher::new(Arc::new(transport.clone())));
        let store = Arc::new(TopicDeadLetters::open(transport, topics).await?);
        let operator = Self::DEFAULT_OPERATOR.to_owned();
        Ok(Self { store: Arc::clone(&store) as Arc<dyn DeadLetterStore>, publisher, operator, topics: Some(store) })
    }

    /// Sets the person or program that decides, for the records of who did what: [`Self::DEFAULT_OPERATOR`] by default.
    #[must_use]
    pub fn with_operator(mut self, operator: impl Into<String>) -> Self {
        self.operator = operator.into();
        self
    }

    /// Returns the store of the letters.
    pub fn store(&self) -> &Arc<dyn DeadLetterStore> {
        &self.store
    }

    /// Returns the publisher that redrives letters.
    pub fn publisher(&self) -> &Arc<dyn Publisher> {
        &self.publisher
    }

    /// Lists letters: see [`DeadLetterStore::list`].
    ///
    /// # Errors
    /// Those of [`DeadLetterStore::list`].
    pub async fn list(&self, query: &LetterQuery) -> Result<Vec<DeadLetter>> {
        self.store.list(query).await
    }

    /// Counts letters, without the query's paging.
    ///
    /// # Errors
    /// Those of [`DeadLetterStore::count`].
    pub async fn count(&self, query: &LetterQuery) -> Result<u64> {
        self.store.count(query).await
    }

    /// Groups letters by what they have in common, without the query's paging: with no property, all are one group.
    ///
    /// Reads every selected letter, a page at a time; holds at most [`LetterGroups::MAX_GROUPS`] groups. Cancel-safe.
    ///
    /// ```
    /// use tidings_core::{LetterQuery, Transport};
    /// use tidings_memory::{MemoryDeadLetters, MemoryTransport};
    /// use tidings_service::{DeadLetters, GroupBy};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> tidings_core::Result<()> {
    /// let publisher = MemoryTransport::new().publisher().await?;
    /// let letters = DeadLetters::new(MemoryDeadLetters::new(), publisher);
    /// let found = letters.groups(&LetterQuery::default(), &[GroupBy::Service, GroupBy::Cause]).await?;
    /// for group in found.groups {
    ///     println!("{:>6} {} {}", group.letters, group.service, group.cause);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`DeadLetterStore::list`].
    pub async fn groups(&self, query: &LetterQuery, by: &[GroupBy]) -> Result<LetterGroups> {
        groups::groups(&*self.store, query, by).await
    }

    /// Returns a letter in any state that the backend keeps; `None` if there is none.
    ///
    /// # Errors
    /// Those of [`DeadLetterStore::list`].
    pub async fn get(&self, letter: &LetterId) -> Result<Option<DeadLetter>> {
        let query = LetterQuery::default().with_ids([letter.clone()]);
        for state in [LetterState::Any, LetterState::Open, LetterState::Parked] {
            match self.store.list(&query.clone().with_state(state)).await {
                Ok(found) if state == LetterState::Any || !found.is_empty() => {
                    return Ok(found.into_iter().next_back());
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Unsupported => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Publishes the selected letters to their topics again, and closes each once the broker holds it.
    ///
    /// Takes the letters that match when the run begins, at most [`RedriveOptions::limit`]: a record that fails again
    /// meanwhile is not redriven twice. Letters of one topic and key are published in the order of their partition and
    /// offset, each after the broker holds the one before; behind one that stays, the later ones of its key stay. A redriven
    /// record carries `redrive-for`, so that no other service handles it again.
    ///
    /// A letter is redriven once, also by several runs at once: see [`Redrive`](tidings_core::Redrive), which also
    /// states when a letter is published as a repeat, with the same event id. Letters in topics are not repeated after
    /// a crash: the next run finds them in their topic.
    ///
    /// Not cancel-safe: a dropped future leaves up to a batch leased, for [`RedriveOptions::lease`].
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for a query of closed letters or a batch, limit or rate of zero.
    /// [`Unavailable`](ErrorKind::Unavailable) or [`Indeterminate`](ErrorKind::Indeterminate): the broker or the store
    /// failed; letters that were redriven stay redriven, so call again. Letters that the broker refuses are no error:
    /// they are in the report.
    pub async fn redrive(&self, query: &LetterQuery, options: &RedriveOptions) -> Result<RedriveReport> {
        options.check()?;
        check_state("redrive letters", query)?;
        redrive::run(self, query, options).await
    }

    /// Closes the selected letters, which are not needed any more, and returns how many it closed. Letters that a
    /// redrive has leased stay.
    ///
    /// Works in steps: a dropped or failed call may have closed some letters.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) if no reason is given, or for a query of closed letters.
    /// [`Unavailable`](ErrorKind::Unavailable).
    pub async fn discard(&self, query: &LetterQuery, reason: &str) -> Result<u64> {
        Ok(self.discard_up_to(query, reason, MAX_SELECTED).await?.0)
    }

    /// Discards at most `limit` letters, as [`discard`](Self::discard) does. Returns their number, and whether more may
    /// match. For callers whose requests must end in time.
    ///
    /// # Errors
    /// As [`discard`](Self::discard).
    pub async fn discard_up_to(&self, query: &LetterQuery, reason: &str, limit: usize) -> Result<(u64, bool)> {
        let resolution = Resolution::discarded(&*self.operator, reason);
        self.resolve("discard letters", query, reason, resolution, limit).await
    }

    /// Sets the selected letters aside, and returns how many. A parked letter is selected only by a query for
    /// [parked](LetterState::Parked) ones, and stays until it is redriven or discarded.
    ///
    /// # Errors
    /// As [`discard`](Self::discard), and [`Unsupported`](ErrorKind::Unsupported) where the backend cannot park.
    pub async fn park(&self, query: &LetterQuery, reason: &str) -> Result<u64> {
        let resolution = Resolution::parked(&*self.operator, reason);
        Ok(self.resolve("park letters", query, reason, resolution, MAX_SELECTED).await?.0)
    }

    /// Closes the readers of dead-letter topics. A store stays open.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable): the readers' group could not be left, and is left after its session
    /// timeout.
    pub async fn close(self) -> Result<()> {
        match &self.topics {
            Some(topics) => topics.close().await,
            None => Ok(()),
        }
    }

    async fn resolve(
        &self,
        doing: &str,
        query: &LetterQuery,
        why: &str,
        resolution: Resolution,
        limit: usize,
    ) -> Result<(u64, bool)> {
        if why.trim().is_empty() {
            return Err(Error::new(ErrorKind::Invalid, format!("{doing}: a reason must be given")));
        }
        check_state(doing, query)?;
        let (selected, more) = self.select(query, limit.min(MAX_SELECTED), |letter| Some(letter.id())).await?;
        if selected.is_empty() {
            self.known_services(query).await?;
        }
        let mut resolved = 0;
        for step in selected.chunks(STEP) {
            let total = selected.len();
            let stopped = |error: Error| {
                error.in_context(format_args!("{doing}: {resolved} of {total} are done, the others stay"))
            };
            let answers = self.store.resolve(step, &resolution).await.map_err(stopped)?;
            resolved += answers.into_iter().filter(|resolved| *resolved).count() as u64;
        }
        Ok((resolved, more))
    }

    /// Selects letters page by page, without the query's paging; returns what `keep` keeps of them, and whether there
    /// may be more than `limit`. Of letters that share an identity only the first is selected: the other belongs to a
    /// topic that was recreated, and is next.
    async fn select<K>(
        &self,
        query: &LetterQuery,
        limit: usize,
        mut keep: impl FnMut(DeadLetter) -> Option<K>,
    ) -> Result<(Vec<K>, bool)> {
        let mut query = unpaged(query.clone());
        let (mut kept, mut seen) = (Vec::new(), HashSet::<LetterId>::new());
        loop {
            let page = LetterQuery::DEFAULT_PAGE.min(limit - kept.len());
            let letters = self.store.list(&query.clone().with_limit(page)).await?;
            let Some(last) = letters.last().filter(|_| page > 0).map(DeadLetter::id) else {
                return Ok((kept, page == 0));
            };
            let is_last = letters.len() < page;
            kept.extend(letters.into_iter().filter(|letter| seen.insert(letter.id())).filter_map(&mut keep));
            if is_last {
                return Ok((kept, false));
            }
            query.after = Some(last);
        }
    }

    /// Returns and logs the services that have letters in the query's state, if it names a service that has none in any
    /// state: a misspelt name would go unnoticed.
    async fn known_services(&self, query: &LetterQuery) -> Result<Vec<Name>> {
        let Some(service) = &query.service else { return Ok(Vec::new()) };
        let one = LetterQuery::default().with_service(service).with_limit(1);
        for state in [LetterState::Any, LetterState::Open, LetterState::Parked] {
            match self.store.list(&one.clone().with_state(state)).await {
                Ok(found) if !found.is_empty() => return Ok(Vec::new()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Unsupported => {}
                Err(error) => return Err(error),
            }
        }
        let mut known = BTreeSet::new();
        let mut page = LetterQuery::default().with_state(query.state);
        for _ in 0..SEARCHED_PAGES {
            let letters = self.store.list(&page).await?;
            page.after = letters.last().map(DeadLetter::id);
            let is_last = letters.len() < LetterQuery::DEFAULT_PAGE;
            known.extend(letters.into_iter().map(|letter| letter.service));
            if is_last {
                break;
            }
        }
        let known: Vec<Name> = known.into_iter().collect();
        logs::NoLetterOf { service: &service.as_str(), known: &format!("{known:?}") }.log();
        Ok(known)
    }

    /// Logs the letters that a listing could not read.
    fn warn_unreadable(&self) -> Vec<Error> {
        let unreadable = self.store.unreadable();
        for error in &unreadable {
            logs::LettersNotRead { error: &error.report() }.log();
        }
        unreadable
    }
}

/// Removes the start of the page from a query.
fn unpaged(mut query: LetterQuery) -> LetterQuery {
    query.after = None;
    query
}

fn check_state(doing: &str, query: &LetterQuery) -> Result<()> {
    match query.state {
        LetterState::Open | LetterState::Parked => Ok(()),
        _ => Err(Error::new(ErrorKind::Invalid, format!("{doing}: select open or parked letters"))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tidings_core::{
        DeadLetterSink, Guarantees, Leased, LetterLease, StoredRecord, Timestamp, TopicPartition, async_trait,
    };
    use tidings_memory::{MemoryDeadLetters, MemoryTransport};

    use super::*;

    /// A store that fails from its third decision on.
    #[derive(Debug, Default)]
    struct Failing {
        inner: MemoryDeadLetters,
        decisions: AtomicU32,
    }

    #[async_trait]
    impl DeadLetterSink for Failing {
        async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>> {
            self.inner.bury(letters).await
        }

        async fn check(&self, topics: &[Name]) -> Result<()> {
            self.inner.check(topics).await
        }

        fn guarantees(&self) -> Guarantees {
            self.inner.guarantees()
        }
    }

    #[async_trait]
    impl DeadLetterStore for Failing {
        async fn list(&self, query: &LetterQuery) -> Result<Vec<DeadLetter>> {
            self.inner.list(query).await
        }

        async fn resolve(&self, letters: &[LetterId], resolution: &Resolution) -> Result<Vec<bool>> {
            if self.decisions.fetch_add(1, Ordering::Relaxed) >= 2 {
                return Err(Error::new(ErrorKind::Unavailable, "the store is down"));
            }
            self.inner.resolve(letters, resolution).await
        }

        async fn lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<Vec<Leased>> {
            self.inner.lease(letters, lease).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_discard_that_stops_says_how_far_it_came() {
        let letter = |offset| {
            let record = StoredRecord::new(offset, Timestamp::from_millis(1));
            DeadLetter::new("svc", TopicPartition::new("t", 0), record, ErrorKind::Failed)
        };
        let store = Failing::default();
        for buried in store.bury((0..1_200).map(letter).collect()).await {
            buried.unwrap();
        }
        let letters = DeadLetters::new(store, MemoryTransport::new().publisher().await.unwrap());
        let error = letters.discard(&LetterQuery::default(), "old").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("1000 of 1200 are done"), "{error}");
        assert_eq!(letters.count(&LetterQuery::default()).await.unwrap(), 200);
    }
}
