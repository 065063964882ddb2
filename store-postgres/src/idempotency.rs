//! Claims and done events: [`IdempotencyStore`] for the store. The rules are in `migrations/0002_functions.sql`.
//!
//! Each call is one statement, so that it is atomic and takes one round trip. Events are passed in
//! ascending order of their ids, and locked in it, so that two calls with the same events cannot
//! deadlock. All times are the server's: clocks of services never meet.
//!
//! In SQL, `died` and `tried` are the crashes and attempts of an event's history, and `holders` are
//! leases: stored names do not change with ours.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{Row, SqlStr};
use tidings_core::{
    Claim, Error, ErrorKind, EventRef, Guarantees, History, IdempotencyStore, Lease, Name, ReleasedClaim, Result,
    Timestamp, async_trait,
};
use uuid::Uuid;

use crate::error::{failed, is_lock_timeout};
use crate::retention::Pace;
use crate::sql_names::{Done, SqlNames};
use crate::store::PostgresStore;
use crate::wire::storable;

/// Upper limit of a ttl, because the server's dates are limited.
const LONGEST_TTL: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// Latest time of a purge, and negated the earliest, because the server's dates are limited.
const LATEST: i64 = 200_000_000_000_000;

/// Registers a lease under an id that the client has made.
const REGISTER: &str = "INSERT INTO tidings.holders (id, scope, ttl, lives_until)
    VALUES ($1, $2, $3::bigint * interval '1 microsecond', clock_timestamp() + $3::bigint * interval '1 microsecond')";
/// Renews a lease that is live by the server's clock; an expired one is not revived.
const RENEW: &str = "UPDATE tidings.holders SET lives_until = clock_timestamp() + ttl
    WHERE id = $1 AND NOT retired AND lives_until > clock_timestamp()";
/// Retires a lease. Its claims stay: their lease shows that they have expired.
const RETIRE: &str = "UPDATE tidings.holders SET retired = true
    WHERE id = $1 AND NOT retired AND lives_until > clock_timestamp()";
const CLAIM: &str = "SELECT event, answer, died, tried, at_most FROM {claim}($1, $2, $3)";
const COMPLETE: &str = "SELECT {complete}($1, $2, $3, $4)";
const SETTLE: &str = "SELECT verdict, xid FROM {settle}($1, $2, $3, $4, $5, $6, $7, $8)";
const COUNT_DONE: &str = "SELECT count(*) FROM {done} WHERE {scope} = $1 AND event_id = ANY ($2)";
const WHICH_DONE: &str = "SELECT DISTINCT event_id FROM {done} WHERE {scope} = $1 AND event_id = ANY ($2)";
const RELEASE: &str = "SELECT tidings.release($1, $2, $3, $4)";
/// Skips rows that another transaction is deleting.
const PURGE: &str = "DELETE FROM {done} WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM {done} WHERE {scope} = $1 AND {done_at} < {before} LIMIT $3 FOR UPDATE SKIP LOCKED
    ))";
/// Deletes remaining claims without a live lease.
const PURGE_CLAIMS: &str = "DELETE FROM tidings.claims WHERE ctid = ANY (ARRAY(
        SELECT c.ctid FROM tidings.claims c
        WHERE c.scope = $1 AND c.touched_at < {before} AND NOT EXISTS (
            SELECT FROM tidings.holders h WHERE h.id = c.holder AND NOT h.retired AND h.lives_until > clock_timestamp()
        ) LIMIT $3 FOR UPDATE OF c SKIP LOCKED
    ))";
/// Deletes long-expired leases that no claim refers to: a claim must still be able to tell its lease's end.
const PURGE_LEASES: &str = "DELETE FROM tidings.holders WHERE ctid = ANY (ARRAY(
        SELECT h.ctid FROM tidings.holders h
        WHERE h.scope = $1 AND h.lives_until < least({before}, clock_timestamp())
        AND NOT EXISTS (SELECT FROM tidings.claims c WHERE c.holder = h.id) LIMIT $3 FOR UPDATE OF h SKIP LOCKED
    ))";
const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// The statements, with the names of this store's tables.
///
/// Built once: the same text is prepared once per connection.
#[derive(Debug)]
pub(crate) struct Texts {
    register: SqlStr,
    renew: SqlStr,
    retire: SqlStr,
    claim: SqlStr,
    complete: SqlStr,
    release: SqlStr,
    purge: SqlStr,
    purge_claims: SqlStr,
    purge_leases: SqlStr,
    pub(crate) settle: SqlStr,
    pub(crate) count_done: SqlStr,
    which_done: SqlStr,
}

impl Texts {
    /// Fills the names in; those that concern done events depend on their table.
    pub(crate) fn new(names: &SqlNames, done: &Done) -> Self {
        // Times in our own tables have the format of our own table of done events.
        let ours = Done::default();
        Self {
            register: names.fill(REGISTER),
            renew: names.fill(RENEW),
            retire: names.fill(RETIRE),
            claim: names.fill_done(CLAIM, done),
            complete: names.fill_done(COMPLETE, done),
            release: names.fill(RELEASE),
            purge: names.fill_done(PURGE, done),
            purge_claims: names.fill_done(PURGE_CLAIMS, &ours),
            purge_leases: names.fill_done(PURGE_LEASES, &ours),
            settle: names.fill_done(SETTLE, done),
            count_done: names.fill_done(COUNT_DONE, done),
            which_done: names.fill_done(WHICH_DONE, done),
        }
    }
}

/// Returns the events of a call as the functions expect them: in ascending order, without duplicates. Types, which
/// only help to inspect the table, are truncated to their column.
///
/// Duplicates keep the type of their first mention.
pub(crate) fn in_order<'e>(events: &'e [EventRef], done: &Done) -> (Vec<Uuid>, Vec<Cow<'e, str>>) {
    let stored = events.iter().rev().map(|event| (event.id, cut(storable(&event.event_type), done.longest_type)));
    let by_id: BTreeMap<Uuid, Cow<'_, str>> = stored.collect();
    by_id.into_iter().unzip()
}

/// Truncates text to a number of characters, the unit of Postgres' column lengths.
fn cut(text: Cow<'_, str>, longest: Option<usize>) -> Cow<'_, str> {
    match longest.and_then(|longest| text.char_indices().nth(longest)) {
        Some((end, _)) => Cow::Owned(text[..end].to_owned()),
        None => text,
    }
}

/// The error of a call under an expired lease.
fn dead(doing: &str, lease: &Lease) -> Error {
    Error::new(ErrorKind::Fenced, format!("{doing}: the lease of {:?} expired", lease.scope))
}

/// Converts a duration for an interval; a longer one than the server's dates allow is capped.
pub(crate) fn microseconds(time: Duration) -> i64 {
    i64::try_from(time.min(LONGEST_TTL).as_micros()).unwrap_or(i64::MAX)
}

impl PostgresStore {
    /// Runs a statement on a lease; returns `false` if it changed nothing.
    async fn change_lease(&self, doing: &str, text: &SqlStr, lease: &Lease) -> Result<bool> {
        let mut connection = self.acquire(doing).await?;
        let query = sqlx::query(text.clone()).bind(lease.id);
        let answered = self.bounded(query.execute(&mut *connection)).await;
        Ok(self.judge(doing, &mut connection, answered)?.rows_affected() > 0)
    }

    /// Refuses a scope that a shared table cannot hold: truncated, it could be another service's.
    fn too_long(&self, column: &str, name: &str, longest: usize) -> Error {
        let table = self.done().table.clone().unwrap_or_else(|| self.names().full("done"));
        let what =
            format!("record events: {name:?} does not fit into the column {column} of {table}, which takes {longest}");
        Error::new(ErrorKind::Invalid, what)
    }

    /// Runs a statement that deletes rows of a scope, in steps.
    async fn purge_all(&self, text: &SqlStr, scope: &Name, before: Timestamp, pace: Pace) -> Result<u64> {
        let before = before.millis().clamp(-LATEST, LATEST);
        let query = |step| sqlx::query(text.clone()).bind(storable(scope)).bind(before).bind(step);
        self.delete_in_steps("purge", pace, query).await
    }

    /// Deletes events of `scope`, their remaining claims, and expired leases.
    ///
    /// Events come first: a claim of a done event is not needed, a claim of another may be.
    pub(crate) async fn purge_scope(&self, scope: &Name, before: Timestamp, pace: Pace) -> Result<u64> {
        let texts = self.texts();
        let purged = self.purge_all(&texts.purge, scope, before, pace).await?;
        self.purge_all(&texts.purge_claims, scope, before, pace).await?;
        self.purge_all(&texts.purge_leases, scope, before, pace).await?;
        Ok(purged)
    }

    /// Returns the server's time, which dates done events.
    pub(crate) async fn server_time(&self) -> Result<Timestamp> {
        let doing = "ask for the server's time";
        let mut connection = self.acquire(doing).await?;
        let answered = self.bounded(sqlx::query_scalar(NOW).fetch_one(&mut *connection)).await;
        self.judge(doing, &mut connection, answered).map(Timestamp::from_millis)
    }
}

#[async_trait]
impl IdempotencyStore for PostgresStore {
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for a scope that does not fit a shared table.
    async fn acquire_lease(&self, scope: &Name, ttl: Duration) -> Result<Lease> {
        let doing = "acquire a lease";
        let lease = Lease::checked(scope.clone(), ttl)?;
        if let Some(longest) = self.done().longest_scope.filter(|longest| storable(scope).chars().count() > *longest) {
            return Err(self.too_long("service_name", scope, longest));
        }
        let mut connection = self.acquire(doing).await?;
        let query = sqlx::query(self.texts().register.clone()).bind(lease.id).bind(storable(scope));
        let answered = self.bounded(query.bind(microseconds(ttl)).execute(&mut *connection)).await;
        self.judge(doing, &mut connection, answered)?;
        self.known().add_scope(scope);
        Ok(lease)
    }

    /// A lock timeout is answered as held by another: the claims that block it belong to
    /// transactions that have not ended.
    async fn claim(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Claim>> {
        let doing = "claim events";
        let (ids, _) = in_order(events, self.done());
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.acquire(doing).await?;
        let query = sqlx::query(self.texts().claim.clone()).bind(lease.id).bind(storable(&lease.scope)).bind(&ids);
        let answered = self.bounded(query.fetch_all(&mut *connection)).await;
        if matches!(&answered, Ok(Err(error)) if is_lock_timeout(error)) {
            // Concurrent transactions claim the same events and have not ended.
            return Ok(vec![Claim::Held { at_most: self.config().lock_timeout }; events.len()]);
        }
        let rows = self.judge(doing, &mut connection, answered)?;
        if rows.is_empty() {
            return Err(dead(doing, lease));
        }
        let claims =
            rows.iter().map(claim_of).collect::<sqlx::Result<HashMap<_, _>>>().map_err(|e| failed(doing, e))?;
        in_turn(events, &claims, lease.ttl)
    }

    async fn renew(&self, lease: &Lease) -> Result<()> {
        let doing = "renew the lease";
        let lives = self.change_lease(doing, &self.texts().renew, lease).await?;
        if lives { Ok(()) } else { Err(dead(doing, lease)) }
    }

    /// An event that this lease does not hold is [`Fenced`](ErrorKind::Fenced), unless it is done.
    async fn complete(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Result<()>>> {
        let doing = "complete events";
        let (ids, types) = in_order(events, self.done());
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.acquire(doing).await?;
        let query = sqlx::query_scalar(self.texts().complete.clone()).bind(lease.id).bind(storable(&lease.scope));
        let answered = self.bounded(query.bind(&ids).bind(&types).fetch_one(&mut *connection)).await;
        let not_done: Vec<Uuid> = self.judge(doing, &mut connection, answered)?;
        let not_done: HashSet<Uuid> = not_done.into_iter().collect();
        let answer = |event: &EventRef| {
            if not_done.contains(&event.id) {
                let what = format!("complete events: the claim of event {} is not held by this lease", event.id);
                return Err(Error::new(ErrorKind::Fenced, what));
            }
            Ok(())
        };
        Ok(events.iter().map(answer).collect())
    }

    async fn release(&self, lease: &Lease, events: &[ReleasedClaim]) -> Result<()> {
        let doing = "release claims";
        // If an event is released twice, the first release counts: after it, the lease no longer has the claim.
        let by_id: BTreeMap<Uuid, i64> =
            events.iter().rev().map(|event| (event.id, i64::from(event.attempts))).collect();
        if by_id.is_empty() {
            return Ok(());
        }
        let (ids, attempts): (Vec<_>, Vec<_>) = by_id.into_iter().unzip();
        let mut connection = self.acquire(doing).await?;
        let query = sqlx::query(self.texts().release.clone()).bind(lease.id).bind(storable(&lease.scope));
        let answered = self.bounded(query.bind(&ids).bind(&attempts).execute(&mut *connection)).await;
        self.judge(doing, &mut connection, answered).map(drop)
    }

    /// Retiring an expired lease changes nothing: its claims count a crash.
    async fn retire(&self, lease: &Lease) -> Result<()> {
        // A lease that has already expired counts as crashed.
        self.change_lease("retire the lease", &self.texts().retire, lease).await.map(drop)
    }

    /// Purges in steps of [`PostgresConfig::purge_batch`](crate::PostgresConfig::purge_batch) rows, each a separate
    /// transaction. Cancel-safe: completed steps stay done.
    async fn purge(&self, scope: &Name, completed_before: Timestamp) -> Result<u64> {
        self.purge_scope(scope, completed_before, Pace::Full).await
    }

    /// Reads the table of done events, which is a shared one if it is configured.
    async fn done(&self, scope: &Name, events: &[EventRef]) -> Result<Vec<bool>> {
        let doing = "query done events";
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
        let mut connection = self.acquire(doing).await?;
        let query = sqlx::query_scalar(self.texts().which_done.clone()).bind(storable(scope)).bind(&ids);
        let answered = self.bounded(query.fetch_all(&mut *connection)).await;
        let done: HashSet<Uuid> = self.judge(doing, &mut connection, answered)?.into_iter().collect();
        Ok(ids.iter().map(|id| done.contains(id)).collect())
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees::all().with_shared(true)
    }
}

/// Reads an answer of the function.
fn claim_of(row: &PgRow) -> sqlx::Result<(Uuid, Claim)> {
    let count = |value: i32| u32::try_from(value).unwrap_or_default();
    let claim = match row.try_get::<i16, _>("answer")? {
        0 => Claim::Done,
        1 => Claim::Granted(History::new(count(row.try_get("died")?), count(row.try_get("tried")?))),
        _ => {
            let at_most: Option<i64> = row.try_get("at_most")?;
            Claim::Held { at_most: Duration::from_micros(at_most.unwrap_or_default().max(0).cast_unsigned()) }
        }
    };
    Ok((row.try_get("event")?, claim))
}

/// Returns the answers in the order of the events. A duplicate of a granted event is held, by this very call.
fn in_turn(events: &[EventRef], claims: &HashMap<Uuid, Claim>, ttl: Duration) -> Result<Vec<Claim>> {
    let mut seen = HashSet::with_capacity(events.len());
    let answer = |event: &EventRef| {
        let first = seen.insert(event.id);
        match claims.get(&event.id) {
            Some(Claim::Granted(_)) if !first => Ok(Claim::Held { at_most: ttl }),
            Some(claim) => Ok(*claim),
            None => Err(Error::new(ErrorKind::Unavailable, format!("claim events: no answer for event {}", event.id))),
        }
    };
    events.iter().map(answer).collect()
}
