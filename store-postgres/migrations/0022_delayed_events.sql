-- Records of the outbox that are not due yet. A relay moves them to the outbox when they are: there they get their
-- numbers, and with them their places in the order of their lanes.
CREATE TABLE tidings.outbox_delayed (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    not_before timestamptz NOT NULL,
    -- The event's id, to cancel it by.
    event_id uuid NOT NULL,
    -- As in tidings.outbox.
    lane bigint NOT NULL,
    record_time bigint,
    partition bigint,
    shard smallint NOT NULL,
    topic text NOT NULL,
    key bytea,
    value bytea,
    headers bytea NOT NULL
)
-- As of tidings.outbox: dead rows at the front of the index go by their number.
WITH (
    autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0.0, autovacuum_vacuum_insert_threshold = 50000,
    toast.autovacuum_vacuum_scale_factor = 0.0, toast.autovacuum_vacuum_threshold = 5000
);

CREATE INDEX ON tidings.outbox_delayed (shard, not_before, id);
CREATE INDEX ON tidings.outbox_delayed (event_id);
