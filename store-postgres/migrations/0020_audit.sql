-- Audit records: only ever added to. A text column holds a backslash and a NUL as \\ and \0.
CREATE TABLE tidings.audit (
    -- The order of commits: appends wait for one another.
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The number in the chain, its bits as a signed number.
    seq bigint NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    chain text NOT NULL,
    prev bytea NOT NULL,
    hash bytea NOT NULL,
    body bytea NOT NULL,
    UNIQUE (chain, seq)
);

-- For purges.
CREATE INDEX ON tidings.audit (stored_at);

-- Appends records in their order. Answer i is 0 for a record that is stored, also if it was stored before; 1 if another
-- one has its number; 2 if an earlier record of its chain in the call is not stored.
--
-- The lock makes the order of numbers that of commits: a reader that has seen a number misses none below it.
CREATE FUNCTION tidings.append_audit(
    p_chains text[], p_seqs bigint[], p_prevs bytea[], p_hashes bytea[], p_bodies bytea[]
)
RETURNS smallint[]
LANGUAGE plpgsql VOLATILE AS $body$
DECLARE
    v_answers smallint[] := '{}';
    v_failed text[] := '{}';
    v_known boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('tidings.audit', 0));
    FOR i IN 1 .. coalesce(array_length(p_chains, 1), 0) LOOP
        IF p_chains[i] = ANY (v_failed) THEN
            v_answers := v_answers || 2::smallint;
            CONTINUE;
        END IF;
        INSERT INTO tidings.audit (chain, seq, prev, hash, body)
        VALUES (p_chains[i], p_seqs[i], p_prevs[i], p_hashes[i], p_bodies[i])
        ON CONFLICT (chain, seq) DO NOTHING;
        IF FOUND THEN
            v_answers := v_answers || 0::smallint;
            CONTINUE;
        END IF;
        SELECT a.prev = p_prevs[i] AND a.hash = p_hashes[i] AND a.body = p_bodies[i] INTO v_known
        FROM tidings.audit a WHERE a.chain = p_chains[i] AND a.seq = p_seqs[i];
        IF v_known THEN
            v_answers := v_answers || 0::smallint;
        ELSE
            v_answers := v_answers || 1::smallint;
            v_failed := v_failed || p_chains[i];
        END IF;
    END LOOP;
    RETURN v_answers;
END
$body$;
