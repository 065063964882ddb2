//! Delayed events: they wait in a table of their own, and relays move them to the outbox when they are due.
//!
//! So the outbox stays small, and its reads stay cheap. Events of a key are ordered by their due times.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use tidings_core::{Due, EnvelopeRef, Error, ErrorKind, Event, PublishOptions, Record, Result, Timestamp};
use uuid::Uuid;

use super::{Outbox, Step, check, lane};
use crate::error::failed_write;

/// Payload of the notification that a delayed event was written. Relays that do not know it look for records.
pub(super) const NOTICE: &str = "delayed";
/// The largest number of milliseconds of a delay, or since 1970: the end of the year 9999.
const MAX_MILLIS: i64 = 253_402_300_799_999;

/// Takes no lock: the record gets its place in its lane when it is moved.
const PUT: &str = "
WITH told AS MATERIALIZED (
    SELECT pg_notify($1, $2) WHERE EXISTS (SELECT FROM tidings.outbox_sleepers)
)
INSERT INTO tidings.outbox_delayed (
    not_before, event_id, lane, shard, topic, partition, record_time, key, value, headers
)
SELECT
    GREATEST(
        clock_timestamp(),
        (CASE WHEN $3::boolean THEN clock_timestamp() ELSE timestamptz 'epoch' END) + $4::bigint * interval '1 millisecond'
    ),
    $5::uuid, r.lane, r.shard, r.topic, r.partition, r.record_time, r.key, r.value, r.headers
FROM unnest(
    $6::bigint[], $7::smallint[], $8::text[], $9::bigint[], $10::bigint[], $11::bytea[], $12::bytea[], $13::bytea[]
) AS r (lane, shard, topic, partition, record_time, key, value, headers)
WHERE (SELECT count(*) FROM told) >= 0";

/// If a relay is moving the record, waits for the relay and then finds no row.
const CANCEL: &str = "DELETE FROM tidings.outbox_delayed WHERE event_id = $1";

/// Milliseconds until the first record of these shards is due, rounded up.
pub(super) const NEXT: &str = "
SELECT ceil(extract(epoch FROM min(first.not_before) - statement_timestamp()) * 1000)::bigint
FROM unnest($1::smallint[]) AS s (shard) CROSS JOIN LATERAL (
    SELECT d.not_before FROM tidings.outbox_delayed d WHERE d.shard = s.shard ORDER BY d.not_before LIMIT 1
) first";

/// Moves due records of these shards to the outbox. The lock of a lane comes before the ids, as for a transaction that
/// publishes, but is not waited for: records of a lane that a transaction holds are moved later, and so are those that a
/// transaction cancels. The upper bound is stable, for the index.
pub(super) const MOVE: &str = "
WITH due AS MATERIALIZED (
    SELECT r.id, (r.lane & 1023)::integer AS slot FROM unnest($2::smallint[]) AS s (shard) CROSS JOIN LATERAL (
        SELECT d.id, d.lane FROM tidings.outbox_delayed d
        WHERE d.shard = s.shard AND d.not_before <= statement_timestamp()
        ORDER BY d.not_before, d.id LIMIT $3 FOR UPDATE SKIP LOCKED
    ) r
), locked AS MATERIALIZED (
    SELECT slot FROM (SELECT DISTINCT slot FROM due) AS slots WHERE pg_try_advisory_xact_lock($1, slot)
), gone AS (
    DELETE FROM tidings.outbox_delayed d USING due
    WHERE d.id = due.id AND due.slot IN (SELECT slot FROM locked)
    RETURNING d.*
)
INSERT INTO tidings.outbox (lane, created_at, shard, topic, partition, record_time, key, value, headers)
SELECT lane, not_before, shard, topic, partition, record_time, key, value, headers FROM gone ORDER BY not_before, id";

impl Outbox {
    /// Publishes `event` once `delay` has passed since this call, if the transaction of `connection` commits, and returns
    /// its id, by which it can be [cancelled](Self::cancel).
    ///
    /// By the server's clock, a relay moves it to the outbox when the delay has passed, never before, and at most about
    /// [`RelayConfig::poll_interval`](crate::RelayConfig::poll_interval) later, unless a transaction that publishes to
    /// its key is open. Then the event takes its place in the order of its key. Its envelope has the time of this call.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), and [`Invalid`](ErrorKind::Invalid) for a delay of more than 8,000 years.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use tidings_core::Event;
    /// # use tidings_postgres::{Outbox, PostgresStore};
    /// # async fn example<E: Event>(
    /// #     store: PostgresStore, outbox: Outbox, reminder: E,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut transaction = store.pool().begin().await?;
    /// let day = Duration::from_secs(24 * 3_600);
    /// let id = outbox.publish_after(&mut transaction, &reminder, day).await?;
    /// transaction.commit().await?;
    ///
    /// // The customer has paid meanwhile:
    /// let mut transaction = store.pool().begin().await?;
    /// let was_waiting = outbox.cancel(&mut transaction, id).await?;
    /// transaction.commit().await?;
    /// # let _ = was_waiting;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish_after<E: Event>(
        &self,
        connection: &mut PgConnection,
        event: &E,
        delay: Duration,
    ) -> Result<Uuid> {
        self.publish_later(connection, event, delay, &PublishOptions::default()).await
    }

    /// Publishes `event` at `time` by the server's clock, or at once if it has passed; otherwise as
    /// [`publish_after`](Self::publish_after).
    ///
    /// # Errors
    /// As [`publish`](Self::publish), and [`Invalid`](ErrorKind::Invalid) for a time after the year 9999.
    pub async fn publish_at<E: Event>(
        &self,
        connection: &mut PgConnection,
        event: &E,
        time: Timestamp,
    ) -> Result<Uuid> {
        self.publish_later(connection, event, time, &PublishOptions::default()).await
    }

    /// Publishes `event` when it is due, with options, such as those of an event that [follows from a
    /// delivery](PublishOptions::following); otherwise as [`publish_after`](Self::publish_after).
    ///
    /// # Errors
    /// As [`publish_after`](Self::publish_after) and [`publish_with`](Self::publish_with).
    pub async fn publish_later<E: Event>(
        &self,
        connection: &mut PgConnection,
        event: &E,
        due: impl Into<Due>,
        options: &PublishOptions,
    ) -> Result<Uuid> {
        let due = due.into();
        let id = options.id.unwrap_or_else(Uuid::now_v7);
        let time = options.timestamp.unwrap_or_else(Timestamp::now);
        let record = self.record(EnvelopeRef::new(id, time, &self.source, event), options)?;
        self.hold(connection, id, record, due).await?;
        Ok(id)
    }

    /// Cancels the delayed event `id` if the transaction of `connection` commits, and returns whether it was waiting.
    /// `false` means that the event was due, and is published or about to be, or is unknown.
    ///
    /// While the transaction is open, the event is not published.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) and the like: the database failed, and the transaction must be rolled
    /// back.
    pub async fn cancel(&self, connection: &mut PgConnection, id: Uuid) -> Result<bool> {
        let query = sqlx::query(self.store.names().fill(CANCEL)).bind(id);
        let done = query.execute(connection).await;
        done.map(|done| done.rows_affected() > 0).map_err(|e| failed_write("cancel a delayed event of the outbox", e))
    }

    /// Writes a record that waits until it is due.
    async fn hold(&self, connection: &mut PgConnection, id: Uuid, record: Record, due: Due) -> Result<()> {
        check(&record)?;
        let (is_delay, millis) = millis(due)?;
        let mut step = Step::default();
        step.push(record);
        let names = self.store.names();
        let query = sqlx::query(names.fill(PUT))
            .bind(lane::channel(names))
            .bind(NOTICE)
            .bind(is_delay)
            .bind(millis)
            .bind(id)
            .bind(step.lanes)
            .bind(step.shards)
            .bind(step.topics)
            .bind(step.partitions)
            .bind(step.times)
            .bind(step.keys)
            .bind(step.values)
            .bind(step.headers);
        query.execute(connection).await.map(drop).map_err(|e| failed_write("write a delayed event to the outbox", e))
    }
}

/// Returns whether the time is a delay, and its milliseconds, or those since 1970. A delay is rounded up.
fn millis(due: Due) -> Result<(bool, i64)> {
    let (is_delay, millis) = match due {
        Due::After(delay) => (true, i64::try_from(delay.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)),
        Due::At(time) => (false, time.millis().max(0)),
        _ => (false, i64::MAX),
    };
    if millis > MAX_MILLIS {
        let what = "write a delayed event to the outbox: its time is out of range, the year 9999 at the latest";
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    Ok((is_delay, millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_rounded_up_and_a_time_that_no_server_has_is_refused() {
        assert_eq!(millis(Due::After(Duration::from_nanos(1))).unwrap(), (true, 1));
        assert_eq!(millis(Due::At(Timestamp::from_millis(-7))).unwrap(), (false, 0));
        for due in [Due::After(Duration::MAX), Due::At(Timestamp::from_millis(i64::MAX))] {
            assert_eq!(millis(due).unwrap_err().kind(), ErrorKind::Invalid);
        }
    }
}
