//! The wrapper with the bugs.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidings_core::{
    DeadLetter, DeadLetterSink, DeadLetterStore, ErrorKind, Guarantees, Header, Leased, LetterId, LetterLease,
    LetterQuery, LetterState, Name, Resolution, ResolutionKind, Result, Timestamp, async_trait,
};
use tidings_memory::MemoryDeadLetters;

use super::Bug;

/// The state that the wrapper keeps of the letters.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The times of the records of letters.
    times: HashMap<LetterId, Timestamp>,
    /// The timestamps of the records of later letters with the same identity.
    later: HashMap<LetterId, HashSet<Timestamp>>,
    /// The leases of each letter, the last one last.
    leases: HashMap<LetterId, Vec<LetterLease>>,
    given_back: HashSet<(LetterId, uuid::Uuid)>,
    parked: Vec<LetterId>,
    discarded: Vec<DeadLetter>,
    pub(super) buried: usize,
}

#[derive(Debug)]
pub(super) struct Planted {
    pub(super) inner: MemoryDeadLetters,
    pub(super) bug: Bug,
    pub(super) known: Arc<Mutex<Known>>,
}

/// Selects all letters of a query, without its page.
fn all(query: &LetterQuery) -> LetterQuery {
    let mut query = query.clone();
    (query.after, query.limit) = (None, Some(usize::MAX));
    query
}

/// Calls the store for the letters in the order of their identities, as one that answers by its index does.
async fn sorted<T>(ids: &[LetterId], call: impl AsyncFnOnce(&[LetterId]) -> Result<Vec<T>>) -> Result<Vec<T>> {
    let mut ids = ids.to_vec();
    ids.sort();
    call(&ids).await
}

impl Planted {
    pub(super) fn new(inner: MemoryDeadLetters, bug: Bug) -> Self {
        Self { inner, bug, known: Arc::default() }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The letter as the store keeps it.
    fn kept(&self, mut letter: DeadLetter) -> DeadLetter {
        let record = &mut letter.record;
        let cut = |bytes: &mut Option<bytes::Bytes>, size| {
            bytes.iter_mut().for_each(|bytes| bytes.truncate(size));
        };
        match self.bug {
            Bug::CutsTheKey => cut(&mut record.key, 256),
            Bug::CutsTheValue => cut(&mut record.value, 2 << 20),
            Bug::KeepsAHundredHeaders => record.headers = record.headers.iter().take(100).cloned().collect(),
            Bug::CutsHeaders | Bug::ReadsNullHeadersAsEmpty => {
                let changed = record.headers.iter().cloned().map(|mut header| {
                    cut(&mut header.value, if self.bug == Bug::CutsHeaders { 65_535 } else { usize::MAX });
                    if self.bug == Bug::ReadsNullHeadersAsEmpty && header.name == "a" {
                        header = Header::new(header.name, header.value.unwrap_or_default());
                    }
                    header
                });
                record.headers = changed.collect();
            }
            Bug::KeepsOneNullForBoth if record.key.is_none() || record.value.is_none() => {
                (record.key, record.value) = (None, None);
            }
            Bug::KeepsTimesWithoutSign => letter.failed_at = letter.failed_at.max(Timestamp::from_millis(0)),
            Bug::KeepsOffsetsIn32Bits => record.offset &= u64::from(u32::MAX),
            Bug::KeepsOffsetsAsFloats => record.offset = record.offset as f64 as u64,
            Bug::KeepsPartitionsInAByte => letter.origin.partition &= 0xff,
            Bug::KeepsFourKinds => {
                let kinds = [ErrorKind::Failed, ErrorKind::TooLarge, ErrorKind::Invalid, ErrorKind::Undecodable];
                letter.kind = if kinds.contains(&letter.kind) { letter.kind } else { ErrorKind::Failed };
            }
            Bug::KeepsAttemptsWithASign => letter.attempts = letter.attempts.min(i32::MAX.unsigned_abs()),
            Bug::UnescapesTexts => letter.error = letter.error.replace("\\0", "\0").replace("\\\\", "\\"),
            _ => {}
        }
        letter
    }

    /// Does what burying a letter must not do; returns the letter, unless it is taken for a repeat.
    async fn before_burying(&self, mut letter: DeadLetter) -> Option<DeadLetter> {
        let (id, time) = (letter.id(), letter.record.timestamp);
        let is_other = *self.known().times.entry(id.clone()).or_insert(time) != time;
        let is_third_again = is_other && {
            let mut known = self.known();
            let later = known.later.entry(id.clone()).or_default();
            !later.insert(time) && later.len() > 1
        };
        let was_discarded = self.known().discarded.iter().any(|letter| letter.id() == id);
        match self.bug {
            Bug::IgnoresTheTimeOfRecords if is_other => return None,
            Bug::ReplacesTheLetterOfAnOldTopic if is_other => {
                drop(self.inner.resolve(&[id], &Resolution::discarded("", "")).await);
            }
            Bug::OpensALetterOfATopicRecreatedTwice if is_third_again => {
                letter.record.timestamp = Timestamp::from_millis(1);
            }
            Bug::OpensADiscardedLetter if was_discarded => letter.record.timestamp = Timestamp::from_millis(1),
            Bug::EndsLeasesByBurying => self.end_leases(&id).await,
            _ => {}
        }
        Some(letter)
    }

    /// Ends the lease that a letter has, whichever it is.
    async fn end_leases(&self, id: &LetterId) {
        let last = self.known().leases.get(id).and_then(|leases| leases.last()).cloned();
        if let Some(last) = last {
            drop(self.inner.end_lease(std::slice::from_ref(id), &last).await);
        }
    }

    /// Returns the letters with the offsets of these, in any topic.
    async fn in_all_topics(&self, ids: &[LetterId]) -> Vec<LetterId> {
        let listed = self.inner.list(&all(&LetterQuery::default())).await.unwrap_or_default();
        let of = |id: &LetterId| ids.iter().any(|one| one.service == id.service && one.offset == id.offset);
        listed.iter().map(DeadLetter::id).filter(of).filter(|id| !ids.contains(id)).collect()
    }

    /// Restarts the process that uses the store.
    pub(super) async fn restarted(self) -> Self {
        if self.bug == Bug::OpensADiscardedLetterAtRestart {
            let mut discarded = std::mem::take(&mut self.known().discarded);
            discarded.iter_mut().for_each(|letter| letter.record.timestamp = Timestamp::from_millis(1));
            drop(self.inner.bury(discarded).await);
        }
        self
    }

    async fn is_closed(&self, id: &LetterId) -> bool {
        let query = LetterQuery::default().with_state(LetterState::Closed).with_ids([id.clone()]);
        self.inner.list(&query).await.is_ok_and(|listed| !listed.is_empty())
    }

    /// Lists without a condition that the bug checks by itself; `None` for another bug.
    async fn listed_loosely(&self, query: &LetterQuery) -> Option<Result<Vec<DeadLetter>>> {
        let mut loose = query.clone();
        let wanted: Box<dyn Fn(&DeadLetter) -> bool + Send> = match (self.bug, query) {
            (Bug::SelectsServicesByPrefix, LetterQuery { service: Some(service), .. }) => {
                loose.service = None;
                Box::new(move |letter| letter.service.starts_with(service.as_str()))
            }
            (Bug::FoldsTheCaseOfServices, LetterQuery { service: Some(service), .. }) => {
                loose.service = None;
                Box::new(move |letter| letter.service.eq_ignore_ascii_case(service))
            }
            (Bug::SelectsTopicsByPrefix, LetterQuery { topic: Some(topic), .. }) => {
                loose.topic = None;
                Box::new(move |letter| letter.origin.topic.starts_with(topic.as_str()))
            }
            (Bug::SelectsTypesByPrefix, LetterQuery { event_type: Some(wanted), .. }) => {
                loose.event_type = None;
                Box::new(move |letter| letter.event_type().is_some_and(|found| found.starts_with(wanted)))
            }
            (Bug::SelectsHandlersByPrefix, LetterQuery { handler: Some(wanted), .. }) => {
                loose.handler = None;
                Box::new(move |letter| letter.handler.starts_with(wanted.as_str()))
            }
            (Bug::SelectsKeysByPrefix, LetterQuery { key: Some(wanted), .. }) => {
                loose.key = None;
                Box::new(move |letter| letter.record.key.as_ref().is_some_and(|key| key.starts_with(wanted)))
            }
            (Bug::FindsNoEmptyKey, LetterQuery { key: Some(wanted), .. }) => Box::new(move |_| !wanted.is_empty()),
            (Bug::FindsNoLongTypes, LetterQuery { event_type: Some(wanted), .. }) => {
                Box::new(move |_| wanted.len() <= 512)
            }
            _ => return None,
        };
        let listed = self.inner.list(&loose).await;
        Some(listed.map(|listed| listed.into_iter().filter(|letter| wanted(letter)).collect()))
    }

    async fn changed(&self, query: &LetterQuery) -> LetterQuery {
        let mut query = query.clone();
        match self.bug {
            Bug::ListsAThousand => query.limit = query.limit.map(|limit| limit.min(1_000)),
            Bug::IgnoresTheDefaultPage => query.limit = query.limit.or(Some(usize::MAX)),
            Bug::ReadsZeroAsAll => query.limit = query.limit.filter(|limit| *limit > 0),
            Bug::IgnoresNegativeTimes => query.since = query.since.filter(|since| since.millis() >= 0),
            Bug::BeginsAgainBehindAClosedLetter => {
                if let Some(after) = query.after.take_if(|_| true)
                    && !self.is_closed(&after).await
                {
                    query.after = Some(after);
                }
            }
            Bug::ListsNothingBehindAnUnknownLetter => {
                let unknown = |after: &LetterId| !self.known().times.contains_key(after);
                if query.after.as_ref().is_some_and(unknown) {
                    query.limit = Some(0);
                }
            }
            _ => {}
        }
        query
    }

    fn shown(&self, mut letter: DeadLetter) -> DeadLetter {
        if let Some(resolution) = &mut letter.resolution {
            match self.bug {
                Bug::CutsTheReason => resolution.reason.truncate(resolution.reason.floor_char_boundary(255)),
                Bug::ForgetsWhenItWasDecided => resolution.at = Timestamp::from_millis(0),
                Bug::ForgetsClosedRecords if resolution.kind.closes() => letter.record.value = None,
                _ => {}
            }
        }
        letter
    }
}

#[async_trait]
impl DeadLetterSink for Planted {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>> {
        let mut answers = Vec::new();
        for letter in letters {
            let (id, resolution) = (letter.id(), letter.resolution.clone());
            let Some(letter) = self.before_burying(self.kept(letter)).await else {
                answers.push(Ok(()));
                continue;
            };
            let answer = self.inner.bury(vec![letter.clone()]).await.remove(0);
            answers.push(self.in_a_full_store(letter, answer).await);
            if let Some(resolution) = resolution.filter(|_| self.bug == Bug::ResolvesAsTheWriterSays) {
                drop(self.inner.resolve(&[id], &resolution).await);
            }
        }
        answers
    }

    async fn check(&self, topics: &[Name]) -> Result<()> {
        match self.bug {
            Bug::PassesTheCheckWhenDown => Ok(()),
            _ => self.inner.check(topics).await,
        }
    }

    fn guarantees(&self) -> Guarantees {
        // The reopen hook of these tests keeps the store, as a disk would.
        Guarantees::all()
    }
}

#[async_trait]
impl DeadLetterStore for Planted {
    async fn list(&self, query: &LetterQuery) -> Result<Vec<DeadLetter>> {
        if let Some(listed) = self.listed_loosely(query).await {
            return listed;
        }
        if self.bug == Bug::ListsInTheOrderOfParking && query.state == LetterState::Parked {
            let parked = self.known().parked.clone();
            let mut listed = self.inner.list(&all(query)).await?;
            listed.sort_by_key(|letter| parked.iter().position(|id| *id == letter.id()));
            let after = query.after.as_ref().and_then(|after| parked.iter().position(|id| id == after));
            let page = listed.into_iter().skip(after.map_or(0, |after| after + 1));
            return Ok(page.take(query.limit.unwrap_or(LetterQuery::DEFAULT_PAGE)).collect());
        }
        let listed = match self.inner.list(&self.changed(query).await).await {
            Err(_) if self.bug == Bug::ListsNothingWhenDown => Vec::new(),
            listed => listed?,
        };
        let mut room = if self.bug == Bug::ListsFourMebibytes { 4 << 20 } else { usize::MAX };
        let fits = |letter: &DeadLetter| {
            room = room.saturating_sub(letter.record.size());
            room > 0
        };
        let listed: Vec<_> = listed.into_iter().take_while(fits).collect();
        Ok(listed.into_iter().map(|letter| self.shown(letter)).collect())
    }

    async fn count(&self, query: &LetterQuery) -> Result<u64> {
        match self.bug {
            Bug::CountsOpenLetters => self.inner.count(&query.clone().with_state(LetterState::Open)).await,
            _ => self.inner.count(query).await,
        }
    }

    async fn resolve(&self, letters: &[LetterId], resolution: &Resolution) -> Result<Vec<bool>> {
        if resolution.kind == ResolutionKind::Discarded {
            let listed = self.inner.list(&LetterQuery::default().with_ids(letters.iter().cloned())).await?;
            self.known().discarded.extend(listed);
        }
        if resolution.kind == ResolutionKind::Parked {
            self.known().parked.extend(letters.iter().cloned());
        }
        match self.bug {
            Bug::ResolvesAThousand => {
                let mut resolved = self.inner.resolve(&letters[..letters.len().min(1_000)], resolution).await?;
                resolved.resize(letters.len(), false);
                Ok(resolved)
            }
            Bug::ResolvesInTheOrderOfIds => {
                sorted(letters, async |ids| self.inner.resolve(ids, resolution).await).await
            }
            Bug::ResolvesInAllTopics => {
                self.inner.resolve(&self.in_all_topics(letters).await, resolution).await?;
                self.inner.resolve(letters, resolution).await
            }
            _ => self.inner.resolve(letters, resolution).await,
        }
    }

    async fn lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<Vec<Leased>> {
        let has = |id: &LetterId| {
            self.known().leases.get(id).and_then(|leases| leases.last()).is_some_and(|last| last.id == lease.id)
        };
        if self.bug == Bug::RenewsNoLease && letters.iter().all(has) {
            return Ok(vec![Leased::Granted; letters.len()]);
        }
        let leased = match self.bug {
            Bug::LeasesAThousand => {
                let mut leased = self.inner.lease(&letters[..letters.len().min(1_000)], lease).await?;
                leased.resize(letters.len(), Leased::Closed);
                Ok(leased)
            }
            Bug::LeasesInTheOrderOfIds => sorted(letters, async |ids| self.inner.lease(ids, lease).await).await,
            Bug::LeasesInAllTopics => {
                self.inner.lease(&self.in_all_topics(letters).await, lease).await?;
                self.inner.lease(letters, lease).await
            }
            _ => self.inner.lease(letters, lease).await,
        };
        let mut leased = match leased {
            Err(_) if self.bug == Bug::LeasesNothingWhenDown => vec![Leased::Closed; letters.len()],
            leased => leased?,
        };
        let mut seen = HashSet::new();
        for (id, answer) in letters.iter().zip(&mut leased).filter(|(_, answer)| **answer == Leased::Granted) {
            let mut known = self.known();
            known.given_back.remove(&(id.clone(), lease.id));
            known.leases.entry(id.clone()).or_default().push(lease.clone());
            if !seen.insert(id) && self.bug == Bug::HoldsATwin {
                *answer = Leased::Held { at_most: lease.ttl };
            }
        }
        Ok(leased)
    }

    async fn resolve_leased(
        &self,
        letters: &[LetterId],
        lease: &LetterLease,
        resolution: &Resolution,
    ) -> Result<Vec<bool>> {
        let mut closed = self.inner.resolve_leased(letters, lease, resolution).await?;
        for (at, id) in letters.iter().enumerate() {
            let (one, given) = (std::slice::from_ref(id), self.known().given_back.contains(&(id.clone(), lease.id)));
            let leased = self.known().leases.contains_key(id);
            closed[at] |= match self.bug {
                Bug::ClosesWhatIsFree if !leased => self.inner.resolve(one, resolution).await?[0],
                Bug::ClosesWhatWasGivenBack if given => self.inner.resolve(one, resolution).await?[0],
                Bug::ClosesATwin => letters[..at].iter().zip(&closed).any(|(before, closed)| before == id && *closed),
                _ => false,
            };
        }
        Ok(closed)
    }

    async fn end_lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<()> {
        for id in letters {
            let had = self.known().leases.get(id).is_some_and(|leases| leases.iter().any(|one| one.id == lease.id));
            if had && self.bug == Bug::EndsTheNextLease {
                self.end_leases(id).await;
            }
            self.known().given_back.insert((id.clone(), lease.id));
        }
        self.inner.end_lease(letters, lease).await
    }

    async fn note_refused(&self, refused: &[(LetterId, String)], by: &str) -> Result<()> {
        for (id, why) in refused {
            match self.bug {
                Bug::ClosesByNoting => {
                    drop(self.inner.resolve(std::slice::from_ref(id), &Resolution::discarded(by, why)).await)
                }
                Bug::EndsLeasesByNoting => self.end_leases(id).await,
                _ => {}
            }
        }
        self.inner.note_refused(refused, by).await
    }
}
