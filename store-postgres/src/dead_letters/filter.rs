//! Queries of dead letters as SQL.

use sqlx::QueryBuilder;
use sqlx::postgres::Postgres;
use tidings_core::{LetterQuery, LetterState};

use super::row::{Ids, to_column};
use crate::sql_names::SqlNames;
use crate::wire::{escape, type_to_column};

/// Builds `SELECT columns FROM letters AS l` with the query's conditions, followed by `tail`; `after` and `limit` apply
/// if `paged`.
pub(super) fn select(
    query: &LetterQuery,
    names: &SqlNames,
    columns: &str,
    tail: &str,
    paged: bool,
) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new("SELECT ");
    sql.push(columns).push(" FROM ").push(names.full("letters")).push(" l WHERE true");
    conditions(query, &mut sql);
    if let Some(after) = query.after.as_ref().filter(|_| paged) {
        // An unknown letter sorts before all others.
        sql.push(" AND l.number > coalesce((SELECT a.number FROM ").push(names.full("letters"));
        sql.push(" a WHERE a.service = ").push_bind(escape(&after.service));
        sql.push(" AND a.topic = ").push_bind(escape(&after.origin.topic));
        sql.push(" AND a.partition = ").push_bind(i64::from(after.origin.partition));
        sql.push(" AND a.record_offset = ").push_bind(to_column(after.offset)).push("), 0)");
    }
    sql.push(tail);
    if paged {
        let limit = query.limit.unwrap_or(LetterQuery::DEFAULT_PAGE);
        sql.push(" LIMIT ").push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
    }
    sql
}

fn conditions(query: &LetterQuery, sql: &mut QueryBuilder<Postgres>) {
    match query.state {
        LetterState::Open => sql.push(" AND l.closed_at IS NULL AND l.parked_at IS NULL"),
        LetterState::Parked => sql.push(" AND l.closed_at IS NULL AND l.parked_at IS NOT NULL"),
        LetterState::Closed => sql.push(" AND l.closed_at IS NOT NULL"),
        _ => sql,
    };
    if let Some(ids) = &query.ids {
        let ids: Ids = ids.iter().collect();
        sql.push(" AND (l.service, l.topic, l.partition, l.record_offset) IN (SELECT * FROM unnest(");
        sql.push_bind(ids.services).push(", ").push_bind(ids.topics).push(", ");
        sql.push_bind(ids.partitions).push(", ").push_bind(ids.offsets).push("))");
    }
    if let Some(service) = &query.service {
        sql.push(" AND l.service = ").push_bind(escape(service));
    }
    if let Some(topic) = &query.topic {
        sql.push(" AND l.topic = ").push_bind(escape(topic));
    }
    if let Some(handler) = &query.handler {
        sql.push(" AND l.handler = ").push_bind(escape(handler));
    }
    if let Some(key) = &query.key {
        sql.push(" AND l.key = ").push_bind(key.to_vec());
    }
    if let Some(event_type) = &query.event_type {
        sql.push(" AND l.event_type = ").push_bind(type_to_column(event_type));
    }
    if let Some(kind) = query.kind {
        sql.push(" AND l.error_kind = ").push_bind(kind.as_str());
    }
    if let Some(text) = &query.error {
        sql.push(" AND strpos(l.error, ").push_bind(escape(text)).push(") > 0");
    }
    if let Some(since) = query.since {
        sql.push(" AND l.failed_at >= ").push_bind(since.millis());
    }
    if let Some(until) = query.until {
        sql.push(" AND l.failed_at < ").push_bind(until.millis());
    }
}
