-- Running services. A holder lives until lives_until, by this server's clock_timestamp().
CREATE TABLE tidings.holders (
    id uuid PRIMARY KEY,
    scope text NOT NULL,
    ttl interval NOT NULL,
    lives_until timestamptz NOT NULL,
    -- It ended in good order: its claims are free, and that is no death.
    retired boolean NOT NULL DEFAULT false
)
-- Renewals change a row in place.
WITH (fillfactor = 50);

-- Claims, and what is left of them: how often an event was tried, and how many holders died with it.
CREATE TABLE tidings.claims (
    scope text NOT NULL,
    event_id uuid NOT NULL,
    -- NULL: given back.
    holder uuid,
    deaths integer NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    touched_at timestamptz NOT NULL,
    PRIMARY KEY (scope, event_id)
)
-- Small, and each row lives for moments: what is dead must go soon, however few rows there are.
WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000);

-- The newest assignment of a partition that has written anything.
CREATE TABLE tidings.epochs (
    consumer_group text NOT NULL,
    topic text NOT NULL,
    partition bigint NOT NULL,
    epoch bigint NOT NULL,
    PRIMARY KEY (consumer_group, topic, partition)
);

-- Events that are done.
CREATE TABLE tidings.done (
    scope text NOT NULL,
    event_id uuid NOT NULL,
    event_type text NOT NULL,
    done_at timestamptz NOT NULL,
    PRIMARY KEY (scope, event_id)
)
-- Rows are only added and purged: a purge must not leave a fifth of a large table dead.
WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);

-- For purges. The events of a batch share their time, so that this index stores it once for many rows.
CREATE INDEX ON tidings.done (scope, done_at);
