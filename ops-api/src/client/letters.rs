//! Dead letters of an endpoint.

use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;
use tidings_core::{
    DeadLetter, DeadLetterSink, DeadLetterStore, Error, ErrorKind, Guarantees, Leased, LetterId, LetterLease,
    LetterQuery, Name, Resolution, Result, async_trait,
};

use super::admin::miscounted;
use super::call::Client;
use crate::wire::{
    Answers, Buried, Checked, Count, Each, Grants, Id, Leasing, Letter, Letters, LettersIn, Nothing, Refusal, Refused,
    Resolve,
};
use crate::{ErrorBody, MAX_BODY_BYTES, MAX_NAMES, Route};

/// The size of a request's letters, encoded.
const REQUEST_BYTES: usize = 2 << 20;

/// A [`DeadLetterStore`] that asks an endpoint.
#[derive(Debug)]
pub(super) struct RemoteLetters {
    client: Arc<Client>,
    store: String,
    guarantees: Guarantees,
    /// The causes, and the number of unreadable records, as of the last list or count.
    unreadable: Mutex<(Vec<ErrorBody>, u64)>,
}

impl RemoteLetters {
    pub(super) fn new(client: Arc<Client>, store: &str, guarantees: Guarantees) -> Self {
        Self { client, store: store.to_owned(), guarantees, unreadable: Mutex::default() }
    }

    fn keep(&self, unreadable: Vec<ErrorBody>, records: u64) {
        *self.unreadable.lock().unwrap_or_else(PoisonError::into_inner) = (unreadable, records);
    }

    async fn resolved(
        &self,
        route: Route,
        letters: &[LetterId],
        lease: Option<&LetterLease>,
        resolution: &Resolution,
    ) -> Result<Vec<bool>> {
        let mut all = Vec::with_capacity(letters.len());
        for letters in letters.chunks(MAX_NAMES) {
            let (store, lease, resolution) = (self.store.clone(), lease.map(Into::into), resolution.into());
            let resolve = Resolve { store, ids: ids(letters), lease, resolution };
            let answers = self.client.post::<Answers<bool>>(route, &resolve).await?.answers;
            counted(route, letters.len(), answers.len())?;
            for answer in answers {
                all.push(answer.into_result()?);
            }
        }
        Ok(all)
    }

    async fn leasing<T: DeserializeOwned>(&self, route: Route, letters: &[LetterId], lease: &LetterLease) -> Result<T> {
        let leasing = Leasing { store: self.store.clone(), ids: ids(letters), lease: lease.into() };
        self.client.post(route, &leasing).await
    }

    /// Buries the letters of one request.
    async fn bury_some(&self, letters: Vec<Letter>) -> Vec<Result<()>> {
        let count = letters.len();
        if count == 0 {
            return Vec::new();
        }
        let all = |error: &Error| (0..count).map(|_| Err(Error::new(error.kind(), error.report()))).collect();
        let buried = Buried { store: self.store.clone(), letters };
        match self.client.post::<Answers<Nothing>>(Route::LettersBury, &buried).await {
            Err(error) => all(&error),
            Ok(Answers { answers }) => match counted(Route::LettersBury, count, answers.len()) {
                Err(error) => all(&error),
                Ok(()) => answers.into_iter().map(Each::into_result).map(|answer| answer.map(drop)).collect(),
            },
        }
    }
}

fn ids(letters: &[LetterId]) -> Vec<Id> {
    letters.iter().map(Id::from).collect()
}

fn counted(route: Route, asked: usize, answered: usize) -> Result<()> {
    if asked == answered { Ok(()) } else { Err(miscounted(route, asked, answered)) }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl DeadLetterSink for RemoteLetters {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>> {
        let mut answers = Vec::with_capacity(letters.len());
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for letter in &letters {
            let letter = Letter::of(letter, true);
            let size = serde_json::to_vec(&letter).map_or(usize::MAX, |json| json.len() + 1);
            let too_large = size > MAX_BODY_BYTES / 2;
            if too_large || bytes + size > REQUEST_BYTES || batch.len() == MAX_NAMES {
                answers.extend(self.bury_some(std::mem::take(&mut batch)).await);
                bytes = 0;
            }
            if too_large {
                let text = format!("bury a letter: {size} bytes of JSON, at most {}", MAX_BODY_BYTES / 2);
                answers.push(Err(Error::new(ErrorKind::TooLarge, text)));
                continue;
            }
            bytes += size;
            batch.push(letter);
        }
        answers.extend(self.bury_some(batch).await);
        answers
    }

    async fn check(&self, topics: &[Name]) -> Result<()> {
        let topics = topics.iter().map(Name::to_string).collect();
        let checked = Checked { store: self.store.clone(), topics };
        self.client.post::<Nothing>(Route::LettersCheck, &checked).await.map(drop)
    }

    fn guarantees(&self) -> Guarantees {
        self.guarantees.clone()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl DeadLetterStore for RemoteLetters {
    async fn list(&self, query: &LetterQuery) -> Result<Vec<DeadLetter>> {
        let wanted = query.limit.unwrap_or(LetterQuery::DEFAULT_PAGE);
        let (mut query, mut found) = (query.clone(), Vec::new());
        loop {
            query.limit = Some(wanted - found.len());
            let asked = LettersIn { store: self.store.clone(), query: (&query).into() };
            let Letters { letters, more, unreadable, unreadable_records } =
                self.client.post(Route::LettersRead, &asked).await?;
            self.keep(unreadable, unreadable_records);
            let is_empty = letters.is_empty();
            for letter in letters {
                found.push(DeadLetter::try_from(letter)?);
            }
            query.after = found.last().map(DeadLetter::id).or(query.after);
            if !more || is_empty || found.len() >= wanted {
                return Ok(found);
            }
        }
    }

    async fn count(&self, query: &LetterQuery) -> Result<u64> {
        let asked = LettersIn { store: self.store.clone(), query: query.into() };
        let Count { count, unreadable, unreadable_records } = self.client.post(Route::LettersCount, &asked).await?;
        self.keep(unreadable, unreadable_records);
        Ok(count)
    }

    async fn resolve(&self, letters: &[LetterId], resolution: &Resolution) -> Result<Vec<bool>> {
        self.resolved(Route::LettersResolve, letters, None, resolution).await
    }

    async fn lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<Vec<Leased>> {
        let mut all = Vec::with_capacity(letters.len());
        for letters in letters.chunks(MAX_NAMES) {
            let grants = self.leasing::<Grants>(Route::LettersLease, letters, lease).await?.into_leased();
            counted(Route::LettersLease, letters.len(), grants.len())?;
            all.extend(grants);
        }
        Ok(all)
    }

    async fn resolve_leased(
        &self,
        letters: &[LetterId],
        lease: &LetterLease,
        resolution: &Resolution,
    ) -> Result<Vec<bool>> {
        self.resolved(Route::LettersResolveLeased, letters, Some(lease), resolution).await
    }

    async fn end_lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<()> {
        for letters in letters.chunks(MAX_NAMES) {
            self.leasing::<Nothing>(Route::LettersEndLease, letters, lease).await?;
        }
        Ok(())
    }

    async fn note_refused(&self, refused: &[(LetterId, String)], by: &str) -> Result<()> {
        for refused in refused.chunks(MAX_NAMES) {
            let refusal = |(id, error): &(LetterId, String)| Refusal { id: id.into(), error: error.clone() };
            let letters = refused.iter().map(refusal).collect();
            let body = Refused { store: self.store.clone(), letters, by: by.to_owned() };
            self.client.post::<Nothing>(Route::LettersNoteRefused, &body).await?;
        }
        Ok(())
    }

    fn unreadable(&self) -> Vec<Error> {
        let unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        unreadable.0.iter().cloned().map(Error::from).collect()
    }

    fn unreadable_records(&self) -> u64 {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}
