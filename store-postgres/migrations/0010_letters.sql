-- Records that could not be handled. A letter stays when it is closed: buried again, it must stay closed.
--
-- Text columns hold a backslash and a NUL, which Postgres has no text for, as \\ and \0.
CREATE TABLE tidings.letters (
    -- The order of burying.
    number bigint NOT NULL PRIMARY KEY,
    partition bigint NOT NULL,
    record_offset bigint NOT NULL,
    -- Milliseconds since 1970, as the broker had it and as the service said.
    record_time bigint NOT NULL,
    failed_at bigint NOT NULL,
    attempts bigint NOT NULL,
    buried_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    closed_at timestamptz,
    -- What the record says of itself, for searching; NULL where it can't be read.
    event_id uuid,
    event_type text,
    service text NOT NULL,
    topic text NOT NULL,
    handler text NOT NULL,
    error_kind text NOT NULL,
    error text NOT NULL,
    -- 'redriven' or 'discarded'.
    closed_how text,
    key bytea,
    value bytea,
    -- Name and value by turns, each behind its length as a big-endian int4; -1 is null.
    headers bytea NOT NULL,
    UNIQUE (service, topic, partition, record_offset)
);

CREATE SEQUENCE tidings.letter_numbers OWNED BY tidings.letters.number;

-- Open letters are few beside closed ones.
CREATE INDEX ON tidings.letters (number) WHERE closed_at IS NULL;
CREATE INDEX ON tidings.letters (service, topic, number) WHERE closed_at IS NULL;
CREATE INDEX ON tidings.letters (event_type, number) WHERE closed_at IS NULL;
-- For purges.
CREATE INDEX ON tidings.letters (closed_at) WHERE closed_at IS NOT NULL;

-- What operators did: only ever added to, and kept when the letters are purged.
CREATE TABLE tidings.acts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    acted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Of a letter.
    partition bigint,
    record_offset bigint,
    -- Of a record of the outbox.
    outbox_id bigint,
    -- 'redriven', 'redrive-failed', 'discarded', 'closed', 'outbox-retried', 'outbox-discarded'.
    act text NOT NULL,
    who text NOT NULL,
    why text NOT NULL,
    service text,
    topic text
);

CREATE INDEX ON tidings.acts (service, topic, partition, record_offset);
