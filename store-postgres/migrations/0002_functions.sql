-- What the store does in more than one statement, each in one round trip. Functions, because a statement of a volatile
-- function sees what was committed before it began, and the rules below rest on that: a statement alone would judge by
-- what was there when the whole call began.
--
-- The arrays of events are in ascending order and without repeats. Plans must not change with the size of tables that are
-- empty at one moment and full at the next, hence enable_seqscan.

-- Claims events: answer 0 is done, 1 granted, 2 held. No row at all: the holder is dead.
CREATE OR REPLACE FUNCTION {claim}(p_holder uuid, p_scope text, p_events uuid[])
RETURNS TABLE (event uuid, answer smallint, died integer, tried integer, at_most bigint)
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $body$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_done uuid[];
    v_open uuid[] := p_events;
    v_mine uuid[];
    v_others uuid[];
    v_locked uuid[];
    v_taken uuid[];
BEGIN
    IF NOT EXISTS (SELECT FROM tidings.holders h WHERE h.id = p_holder AND NOT h.retired AND h.lives_until > v_now) THEN
        RETURN;
    END IF;

    -- What is done already writes nothing.
    v_done := ARRAY(SELECT d.event_id FROM {done} d WHERE d.{scope} = p_scope AND d.event_id = ANY (p_events));
    IF v_done <> '{}' THEN
        RETURN QUERY SELECT e, 0::smallint, 0, 0, 0::bigint FROM unnest(v_done) e;
        v_open := ARRAY(SELECT unnest(p_events) EXCEPT SELECT unnest(v_done) ORDER BY 1);
    END IF;

    -- Waits for nobody but another call of this function that has just inserted the same events, and both go upwards.
    WITH fresh AS (
        INSERT INTO tidings.claims AS c (scope, event_id, holder, touched_at)
        SELECT p_scope, e, p_holder, v_now FROM unnest(v_open) e ORDER BY e
        ON CONFLICT DO NOTHING
        RETURNING c.event_id
    )
    SELECT coalesce(array_agg(f.event_id), '{}') INTO v_mine FROM fresh f;

    IF cardinality(v_mine) < cardinality(v_open) THEN
        v_others := ARRAY(SELECT unnest(v_open) EXCEPT SELECT unnest(v_mine) ORDER BY 1);
        -- A claim that somebody has locked is in use: it is held, and nobody is waited for.
        v_locked := ARRAY(
            SELECT c.event_id FROM tidings.claims c
            WHERE c.scope = p_scope AND c.event_id = ANY (v_others)
            ORDER BY c.event_id FOR UPDATE SKIP LOCKED
        );
        -- Who seems dead may be about to be renewed, by a transaction that is not over: it is waited for. From then on
        -- a renewal finds the holder dead, or the next statement sees it renewed.
        PERFORM FROM tidings.holders h
        WHERE h.lives_until <= v_now AND h.id IN (
            SELECT c.holder FROM tidings.claims c WHERE c.scope = p_scope AND c.event_id = ANY (v_locked)
        )
        ORDER BY h.id FOR UPDATE;
        WITH free AS (
            SELECT c.event_id, c.holder IS NOT NULL AND NOT coalesce(h.retired, false) AS died
            FROM tidings.claims c LEFT JOIN tidings.holders h ON h.id = c.holder
            WHERE c.scope = p_scope AND c.event_id = ANY (v_locked)
            AND (h.id IS NULL OR h.retired OR h.lives_until <= v_now)
        ), taken AS (
            UPDATE tidings.claims c
            SET holder = p_holder, deaths = c.deaths + free.died::integer, touched_at = v_now
            FROM free WHERE c.scope = p_scope AND c.event_id = free.event_id
            RETURNING c.event_id
        )
        SELECT coalesce(array_agg(t.event_id), '{}') INTO v_taken FROM taken t;
        v_mine := v_mine || v_taken;
    END IF;

    -- Whoever completes an event writes that it is done and gives up the claim at once. So an event whose claim was there
    -- to be had may have been completed since we looked, and only now that the claim is ours does looking tell.
    v_done := ARRAY(SELECT d.event_id FROM {done} d WHERE d.{scope} = p_scope AND d.event_id = ANY (v_mine));
    IF v_done <> '{}' THEN
        DELETE FROM tidings.claims c WHERE c.scope = p_scope AND c.event_id = ANY (v_done);
        RETURN QUERY SELECT e, 0::smallint, 0, 0, 0::bigint FROM unnest(v_done) e;
    END IF;

    RETURN QUERY SELECT c.event_id, 1::smallint, c.deaths, c.attempts, 0::bigint
    FROM tidings.claims c WHERE c.scope = p_scope AND c.event_id = ANY (v_mine);

    IF cardinality(v_mine) < cardinality(v_open) THEN
        -- A claim that was given back or completed meanwhile is asked for again at once.
        RETURN QUERY SELECT o.id, 2::smallint, 0, 0,
            greatest(0, extract(epoch FROM h.lives_until - v_now) * 1000000)::bigint
        FROM (SELECT unnest(v_others) EXCEPT SELECT unnest(v_taken)) AS o (id)
        LEFT JOIN tidings.claims c ON c.scope = p_scope AND c.event_id = o.id
        LEFT JOIN tidings.holders h ON h.id = c.holder AND NOT h.retired;
    END IF;
END $body$;

-- Marks what the holder has claimed as done, and returns the events that are not done after it: their claim is not the
-- holder's. Nobody has to be alive for that: what nobody has taken over is still the holder's.
CREATE OR REPLACE FUNCTION {complete}(p_holder uuid, p_scope text, p_events uuid[], p_types text[])
RETURNS uuid[]
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $body$
DECLARE
    v_own uuid[];
    v_left uuid[];
BEGIN
    v_own := ARRAY(
        SELECT c.event_id FROM tidings.claims c
        WHERE c.scope = p_scope AND c.event_id = ANY (p_events) AND c.holder = p_holder
        AND EXISTS (SELECT FROM tidings.holders h WHERE h.id = p_holder AND NOT h.retired)
        ORDER BY c.event_id FOR UPDATE OF c
    );
    INSERT INTO {done} ({scope}, event_id, event_type, {done_at})
    SELECT p_scope, e.id, e.kind, {now}
    FROM unnest(p_events, p_types) AS e (id, kind) JOIN unnest(v_own) AS own (id) ON own.id = e.id
    ORDER BY e.id
    ON CONFLICT ({scope}, event_id) DO NOTHING;
    DELETE FROM tidings.claims c WHERE c.scope = p_scope AND c.event_id = ANY (v_own);
    IF cardinality(v_own) = cardinality(p_events) THEN
        RETURN '{}';
    END IF;
    v_left := ARRAY(SELECT unnest(p_events) EXCEPT SELECT unnest(v_own));
    RETURN ARRAY(
        SELECT unnest(v_left)
        EXCEPT SELECT d.event_id FROM {done} d WHERE d.{scope} = p_scope AND d.event_id = ANY (v_left)
    );
END $body$;

-- The last statement of a handler's transaction: marks its events as done, and says whether it may commit. Anything but
-- 'settled' has to be rolled back: 'done' (by somebody else), 'claim' (not the holder's any more), 'epoch' (a later
-- assignment of the partition has written), 'holder' (dead).
CREATE OR REPLACE FUNCTION {settle}(
    p_holder uuid, p_scope text, p_events uuid[], p_types text[],
    p_group text, p_topic text, p_partition bigint, p_epoch bigint,
    OUT verdict text, OUT xid text
)
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET enable_bitmapscan = off AS $body$
DECLARE
    v_count bigint;
    v_epoch bigint;
BEGIN
    -- By this it is found out later how a commit without an answer has ended.
    xid := pg_current_xact_id()::text;
    INSERT INTO {done} ({scope}, event_id, event_type, {done_at})
    SELECT p_scope, e.id, e.kind, {now} FROM unnest(p_events, p_types) AS e (id, kind) ORDER BY e.id
    ON CONFLICT ({scope}, event_id) DO NOTHING;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    IF v_count < cardinality(p_events) THEN
        verdict := 'done';
        RETURN;
    END IF;

    -- Deleted, the claims can't be taken by anybody up to the commit. Along the index, which is in the order of the ids, so
    -- that two batches that cross do not wait for each other in a circle.
    DELETE FROM tidings.claims c WHERE c.scope = p_scope AND c.event_id = ANY (p_events) AND c.holder = p_holder;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    IF v_count < cardinality(p_events) THEN
        verdict := 'claim';
        RETURN;
    END IF;
    SELECT p.epoch INTO v_epoch FROM tidings.epochs p
    WHERE p.consumer_group = p_group AND p.topic = p_topic AND p.partition = p_partition;
    IF v_epoch IS NULL OR v_epoch < p_epoch THEN
        -- Once per assignment.
        INSERT INTO tidings.epochs AS p (consumer_group, topic, partition, epoch)
        VALUES (p_group, p_topic, p_partition, p_epoch)
        ON CONFLICT (consumer_group, topic, partition) DO UPDATE SET epoch = greatest(p.epoch, excluded.epoch)
        RETURNING p.epoch INTO v_epoch;
    END IF;
    IF v_epoch > p_epoch THEN
        verdict := 'epoch';
        RETURN;
    END IF;

    IF NOT EXISTS (
        SELECT FROM tidings.holders h WHERE h.id = p_holder AND NOT h.retired AND h.lives_until > clock_timestamp()
    ) THEN
        verdict := 'holder';
        RETURN;
    END IF;
    verdict := 'settled';
END $body$;
