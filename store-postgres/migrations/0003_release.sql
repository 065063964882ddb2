-- Gives claims back, with the attempts that were made. The events are in ascending order and without repeats.
CREATE OR REPLACE FUNCTION tidings.release(p_holder uuid, p_scope text, p_events uuid[], p_attempts bigint[])
RETURNS void
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $body$
DECLARE
    v_own uuid[];
BEGIN
    v_own := ARRAY(
        SELECT c.event_id FROM tidings.claims c
        WHERE c.scope = p_scope AND c.event_id = ANY (p_events) AND c.holder = p_holder
        ORDER BY c.event_id FOR UPDATE
    );
    UPDATE tidings.claims c
    SET holder = NULL, attempts = least(c.attempts + e.attempts, 2147483647), touched_at = clock_timestamp()
    FROM unnest(p_events, p_attempts) AS e (id, attempts)
    WHERE c.scope = p_scope AND c.event_id = ANY (v_own) AND c.event_id = e.id
    AND (c.deaths > 0 OR c.attempts + e.attempts > 0);
    -- Of the others nothing has to be remembered.
    DELETE FROM tidings.claims c
    WHERE c.scope = p_scope AND c.event_id = ANY (v_own) AND c.holder = p_holder;
END $body$;
