//! Core's dead-letter traits on the table of letters.

use std::collections::{BTreeSet, HashSet};

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use tidings_core::{
    DeadLetter, DeadLetterSink, DeadLetterStore, Error, ErrorKind, Guarantees, Leased, LetterId, LetterLease,
    LetterQuery, Name, Resolution, Result, codec,
};

use super::filter::select;
use super::row::{Ids, columns, get, letter};
use crate::PostgresStore;
use crate::error::failed;
use crate::wire::{escape, headers_to_bytes, type_to_column};

/// Numbers follow the order of the call; rows are written in the order of their identities, so that concurrent calls
/// that bury the same letters cannot deadlock.
const BURY: &str = "
INSERT INTO tidings.letters (
    number, service, topic, partition, record_offset, record_time, key, value, headers, handler, error_kind, error,
    attempts, failed_at, event_id, event_type
)
SELECT * FROM (
    SELECT nextval('tidings.letter_numbers') AS number, r.service, r.topic, r.partition, r.record_offset, r.record_time, r.key,
        r.value, r.headers, r.handler, r.error_kind, r.error, r.attempts, r.failed_at, r.event_id, r.event_type
    FROM (
        SELECT * FROM unnest(
            $1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bytea[], $7::bytea[], $8::bytea[],
            $9::text[], $10::text[], $11::text[], $12::bigint[], $13::bigint[], $14::uuid[], $15::text[]
        ) WITH ORDINALITY AS u (
            service, topic, partition, record_offset, record_time, key, value, headers, handler, error_kind, error,
            attempts, failed_at, event_id, event_type, place
        )
        ORDER BY u.place
    ) r
) numbered
ORDER BY service, topic, partition, record_offset, number
ON CONFLICT (service, topic, partition, record_offset) DO NOTHING";

/// Stored letters with the identity of a new one but another record: the topic was recreated in between.
const OTHERS: &str = "
SELECT asked.place, l.number, l.closed_at IS NOT NULL AS closed
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
    WITH ORDINALITY AS asked (service, topic, partition, record_offset, record_time, place)
JOIN tidings.letters l USING (service, topic, partition, record_offset)
WHERE l.record_time <> asked.record_time";
const FORGET_CLOSED: &str = "
WITH locked AS MATERIALIZED (
    SELECT l.number FROM tidings.letters l WHERE l.number = ANY ($1) AND l.closed_at IS NOT NULL
    ORDER BY l.number FOR UPDATE
)
DELETE FROM tidings.letters l USING locked WHERE l.number = locked.number";

// With several rights in one call, `has_table_privilege` would accept any of them.
const CHECK: &str = "SELECT has_table_privilege('tidings.letters', 'INSERT')
    AND has_table_privilege('tidings.letters', 'SELECT') AND has_table_privilege('tidings.letters', 'UPDATE')
    AND has_table_privilege('tidings.acts', 'INSERT') AND has_sequence_privilege('tidings.letter_numbers', 'USAGE')";

const DOING: &str = "bury letters";

/// Maximum number of letters per statement, to keep memory and transactions small.
const MAX_STEP_LETTERS: usize = 500;
const MAX_STEP_BYTES: usize = 8 << 20;
/// The largest record of a letter; escaped, it is far below the limit of a row.
const MAX_LETTER: usize = 128 << 20;
/// The longest names of a service and topic: they must fit into an index entry.
const MAX_NAMES: usize = 2 << 10;

#[async_trait]
impl DeadLetterSink for PostgresStore {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>> {
        let mut answers: Vec<Result<()>> = Vec::with_capacity(letters.len());
        let mut step = Step::default();
        for letter in letters {
            if let Err(error) = fits(&letter) {
                step.write(self, &mut answers).await;
                answers.push(Err(error));
                continue;
            }
            if step.letters > 0
                && (step.letters >= MAX_STEP_LETTERS || step.bytes + letter.record.size() > MAX_STEP_BYTES)
            {
                step.write(self, &mut answers).await;
            }
            step.push(letter);
        }
        step.write(self, &mut answers).await;
        answers
    }

    async fn check(&self, _: &[Name]) -> Result<()> {
        let doing = "check that letters can be buried";
        let query = sqlx::query_scalar(self.names().fill(CHECK));
        match query.fetch_one(self.pool()).await.map_err(|e| failed(doing, e))? {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Denied, format!("{doing}: no right to write to the table letters"))),
        }
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees::all().with_shared(true)
    }
}

#[async_trait]
impl DeadLetterStore for PostgresStore {
    async fn list(&self, query: &LetterQuery) -> Result<Vec<DeadLetter>> {
        let select = select(query, self.names(), &columns(self.names()), " ORDER BY l.number", true);
        self.fetch("list letters", select).await?.iter().map(letter).collect()
    }

    async fn count(&self, query: &LetterQuery) -> Result<u64> {
        let rows = self.fetch("count letters", select(query, self.names(), "count(*)", "", false)).await?;
        let count: i64 = rows.first().map_or(Ok(0), |row| get(row, 0))?;
        Ok(count.unsigned_abs())
    }

    async fn resolve(&self, letters: &[LetterId], resolution: &Resolution) -> Result<Vec<bool>> {
        self.resolve_letters(letters, None, resolution).await
    }

    async fn lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<Vec<Leased>> {
        self.lease_letters(letters, lease).await
    }

    async fn resolve_leased(
        &self,
        letters: &[LetterId],
        lease: &LetterLease,
        resolution: &Resolution,
    ) -> Result<Vec<bool>> {
        resolution.check_closes()?;
        self.resolve_letters(letters, Some(lease), resolution).await
    }

    async fn end_lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<()> {
        self.end_lease_of_letters(letters, lease).await
    }

    async fn note_refused(&self, refused: &[(LetterId, String)], by: &str) -> Result<()> {
        self.note_refused_letters(refused, by).await
    }
}

fn fits(letter: &DeadLetter) -> Result<()> {
    let names = escape(&letter.service).len() + escape(&letter.origin.topic).len();
    if names > MAX_NAMES {
        return Err(Error::new(ErrorKind::TooLarge, "bury a letter: the names of its service and topic are too long"));
    }
    if letter.record.size() > MAX_LETTER {
        return Err(Error::new(ErrorKind::TooLarge, format!("bury a letter: it is larger than {MAX_LETTER} bytes")));
    }
    Ok(())
}

/// Letters of one statement, by columns.
#[derive(Debug, Default)]
struct Step {
    letters: usize,
    bytes: usize,
    ids: Ids,
    services: BTreeSet<Name>,
    times: Vec<i64>,
    keys: Vec<Option<Vec<u8>>>,
    values: Vec<Option<Vec<u8>>>,
    headers: Vec<Vec<u8>>,
    handlers: Vec<String>,
    kinds: Vec<&'static str>,
    errors: Vec<String>,
    attempts: Vec<i64>,
    failed_at: Vec<i64>,
    event_ids: Vec<Option<uuid::Uuid>>,
    event_types: Vec<Option<String>>,
}

impl Step {
    fn push(&mut self, letter: DeadLetter) {
        self.letters += 1;
        self.bytes += letter.record.size();
        self.ids.push(&letter.id());
        self.services.insert(letter.service.clone());
        let head = codec::peek(&letter.record).ok();
        self.event_ids.push(head.as_ref().map(|head| head.id));
        // For searching only.
        self.event_types.push(head.map(|head| type_to_column(&head.event_type)));
        self.times.push(letter.record.timestamp.millis());
        self.headers.push(headers_to_bytes(&letter.record.headers));
        self.keys.push(letter.record.key.map(Into::into));
        self.values.push(letter.record.value.map(Into::into));
        self.handlers.push(escape(&letter.handler));
        self.kinds.push(letter.kind.as_str());
        self.errors.push(escape(&letter.error));
        self.attempts.push(letter.attempts.into());
        self.failed_at.push(letter.failed_at.millis());
    }

    /// Writes the collected letters and appends one result per letter.
    async fn write(&mut self, store: &PostgresStore, answers: &mut Vec<Result<()>>) {
        let step = std::mem::take(self);
        if step.letters == 0 {
            return;
        }
        match step.bury(store).await {
            Ok(others) => {
                answers.extend((0..step.letters).map(|at| if others.contains(&at) { Err(other()) } else { Ok(()) }))
            }
            Err(error) => {
                let text = error.report();
                answers.extend((0..step.letters).map(|_| Err(Error::new(error.kind(), text.clone()))));
            }
        }
    }

    /// Returns the indexes of letters that can't be buried because a letter about another record is open under their
    /// identity.
    async fn bury(&self, store: &PostgresStore) -> Result<HashSet<usize>> {
        self.services.iter().for_each(|service| store.known().add_service(service));
        if self.insert(store).await? == self.letters {
            return Ok(HashSet::new());
        }
        let (closed, open) = self.others(store).await?;
        if !closed.is_empty() {
            // A closed letter is not needed any more: its record can't be read again.
            let query = sqlx::query(store.names().fill(FORGET_CLOSED)).bind(closed);
            let mut connection = store.acquire(DOING).await?;
            let work = store.bounded(query.execute(&mut *connection)).await;
            store.judge(DOING, &mut connection, work)?;
            self.insert(store).await?;
        }
        Ok(open)
    }

    /// Finds letters about other records under the same identities: the numbers of closed ones, and the indexes in
    /// this step of open ones.
    async fn others(&self, store: &PostgresStore) -> Result<(Vec<i64>, HashSet<usize>)> {
        let ids = &self.ids;
        let query = sqlx::query(store.names().fill(OTHERS)).bind(&ids.services).bind(&ids.topics);
        let query = query.bind(&ids.partitions).bind(&ids.offsets).bind(&self.times);
        let mut connection = store.acquire(DOING).await?;
        let work = store.bounded(query.fetch_all(&mut *connection)).await;
        let (mut closed, mut open) = (Vec::new(), HashSet::new());
        for row in store.judge(DOING, &mut connection, work)? {
            if get(&row, "closed")? {
                closed.push(get(&row, "number")?);
            } else {
                let place: i64 = get(&row, "place")?;
                open.extend(usize::try_from(place - 1).ok());
            }
        }
        Ok((closed, open))
    }

    /// Inserts the letters and returns how many were new.
    async fn insert(&self, store: &PostgresStore) -> Result<usize> {
        let mut connection = store.acquire(DOING).await?;
        let query = sqlx::query(store.names().fill(BURY))
            .bind(&self.ids.services)
            .bind(&self.ids.topics)
            .bind(&self.ids.partitions)
            .bind(&self.ids.offsets)
            .bind(&self.times)
            .bind(&self.keys)
            .bind(&self.values)
            .bind(&self.headers)
            .bind(&self.handlers)
            .bind(&self.kinds)
            .bind(&self.errors)
            .bind(&self.attempts)
            .bind(&self.failed_at)
            .bind(&self.event_ids)
            .bind(&self.event_types);
        let work = store.bounded(query.execute(&mut *connection)).await;
        let done = store.judge(DOING, &mut connection, work)?;
        Ok(usize::try_from(done.rows_affected()).unwrap_or_default())
    }
}

/// Retryable, so that the letter waits; treating it as buried would lose it.
fn other() -> Error {
    let what = "another letter of its service, topic, partition and offset is open, of a topic that was made anew since; \
                redrive or discard that one";
    Error::new(ErrorKind::Conflict, format!("{DOING}: {what}"))
}

impl PostgresStore {
    /// Runs a built query and returns its rows.
    pub(crate) async fn fetch(&self, doing: &str, mut query: sqlx::QueryBuilder<sqlx::Postgres>) -> Result<Vec<PgRow>> {
        let mut connection = self.acquire(doing).await?;
        let work = self.bounded(query.build().fetch_all(&mut *connection)).await;
        self.judge(doing, &mut connection, work)
    }
}
