-- Records to be published, by the order of their ids within a lane. A lane is a topic and key, as a hash; of a record
-- without a key it is random. Rows live for moments: an empty table is the good state.
CREATE TABLE tidings.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY,
    lane bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- NULL: the broker's time of publishing.
    record_time bigint,
    -- NULL: by the key.
    partition bigint,
    -- The upper six bits of the lane. A relay that has locked a shard is alone in publishing its rows.
    shard smallint NOT NULL,
    topic text NOT NULL,
    key bytea,
    value bytea,
    -- As in tidings.letters.
    headers bytea NOT NULL,
    PRIMARY KEY (shard, id)
)
-- A fifth of an empty table is nothing, and of a table that was full once it is too much: dead rows go by their number.
WITH (
    autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0.0, autovacuum_vacuum_insert_threshold = 50000,
    toast.autovacuum_vacuum_scale_factor = 0.0, toast.autovacuum_vacuum_threshold = 5000
);

-- Records that the broker will not take. Unless it is parked, one holds back the later ones of its lane.
CREATE TABLE tidings.outbox_failed (
    id bigint PRIMARY KEY,
    lane bigint NOT NULL,
    created_at timestamptz NOT NULL,
    failed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    record_time bigint,
    partition bigint,
    shard smallint NOT NULL,
    parked boolean NOT NULL,
    error_kind text NOT NULL,
    error text NOT NULL,
    topic text NOT NULL,
    key bytea,
    value bytea,
    headers bytea NOT NULL
);

CREATE INDEX ON tidings.outbox_failed (lane) WHERE NOT parked;

-- Relays that wait for a notification. Where none does, none is sent: to commit with one, a transaction waits for all
-- others of the server that do.
CREATE TABLE tidings.outbox_sleepers (
    relay uuid PRIMARY KEY,
    since timestamptz NOT NULL
)
WITH (fillfactor = 50);
