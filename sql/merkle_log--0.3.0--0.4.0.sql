-- From 0.3.0 to 0.4.0.

-- Capture.

-- A transaction writes one row of queue a log. Rows that 0.3.0 wrote are logged as they are.
ALTER TABLE @extschema@.merkle_pending
    ALTER COLUMN source_id DROP NOT NULL,
    ALTER COLUMN kind DROP NOT NULL,
    ALTER COLUMN user_name DROP NOT NULL,
    ALTER COLUMN application_name DROP NOT NULL,
    ALTER COLUMN statement_at DROP NOT NULL,
    ALTER COLUMN keys DROP NOT NULL,
    ALTER COLUMN whole DROP NOT NULL,
    ALTER COLUMN leaves DROP NOT NULL,
    ADD COLUMN part integer NOT NULL DEFAULT 0,
    ADD COLUMN changes integer,
    ADD COLUMN taken integer NOT NULL DEFAULT 0,
    ADD COLUMN early boolean NOT NULL DEFAULT false,
    ADD COLUMN ordered boolean NOT NULL DEFAULT true,
    ADD COLUMN payload bytea;

ALTER TABLE @extschema@.merkle_pending ALTER COLUMN payload SET STORAGE EXTERNAL;

CREATE INDEX merkle_pending_order ON @extschema@.merkle_pending (log_id, pending_id, part);

COMMENT ON COLUMN @extschema@.merkle_pending.pending_id IS 'Where the transaction stands in the queue; of rows that it wrote early, before that was known, its negated number.';
COMMENT ON COLUMN @extschema@.merkle_pending.part IS 'The number of the row among those of its transaction.';
COMMENT ON COLUMN @extschema@.merkle_pending.statement_at IS 'When the first statement began whose changes the row holds.';
COMMENT ON COLUMN @extschema@.merkle_pending.changes IS 'How many changes the row holds.';
COMMENT ON COLUMN @extschema@.merkle_pending.taken IS 'How many of the changes are logged.';
COMMENT ON COLUMN @extschema@.merkle_pending.early IS 'The transaction has written rows early, whose changes come first.';
COMMENT ON COLUMN @extschema@.merkle_pending.ordered IS 'False where the changes in the transaction''s rows, taken together, have to be put in the order in which they were made.';
COMMENT ON COLUMN @extschema@.merkle_pending.payload IS 'The changes: keys, leaves, and what they were captured with.';

-- Row triggers take the place of statement triggers. A table that is gone has none.
DO $$
DECLARE
    source record;
    partition record;
    name text;
BEGIN
    FOR source IN SELECT s.source_id, s.relation FROM @extschema@.verification_sources s
                    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) s.relation::pg_catalog.oid
                   WHERE s.capture OPERATOR(pg_catalog.=) 'trigger' AND s.removed_at IS NULL
    LOOP
        FOR partition IN SELECT t.tgrelid::pg_catalog.regclass AS relation, t.tgname AS name FROM pg_catalog.pg_trigger t
                          WHERE t.tgname OPERATOR(pg_catalog.=) ANY (ARRAY[
                                    pg_catalog.format('merkle_log_%s_insert', source.source_id),
                                    pg_catalog.format('merkle_log_%s_update', source.source_id),
                                    pg_catalog.format('merkle_log_%s_delete', source.source_id),
                                    pg_catalog.format('merkle_log_%s_applied', source.source_id)]::pg_catalog.name[])
                            AND t.tgfoid OPERATOR(pg_catalog.=) '@extschema@.capture_change()'::pg_catalog.regprocedure
                            AND t.tgparentid OPERATOR(pg_catalog.=) 0
        LOOP
            EXECUTE pg_catalog.format('DROP TRIGGER %I ON %s', partition.name, partition.relation);
        END LOOP;
        name := pg_catalog.format('merkle_log_%s_change', source.source_id);
        EXECUTE pg_catalog.format(
            'CREATE TRIGGER %I AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION @extschema@.capture_change(%L)',
            name, source.relation, source.source_id);
        EXECUTE pg_catalog.format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', source.relation, name);
    END LOOP;
END
$$;

-- Entries and their limits.

-- A key is found by a hash of fixed size, so that its length does not matter. Here every key is hashed as
-- it is written; where equal keys can be written in several ways, the next batch hashes them again.
ALTER TABLE @extschema@.merkle_log ADD COLUMN key_hash bigint;
ALTER TABLE @extschema@.verification_sources ADD COLUMN key_equality text;
DROP INDEX @extschema@.merkle_log_source_key;
UPDATE @extschema@.merkle_log
   SET key_hash = ('x' OPERATOR(pg_catalog.||) pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(
                       pg_catalog.int4send(source_id) OPERATOR(pg_catalog.||) pg_catalog.convert_to(source_key, 'UTF8')
                   ), 'hex'), 16))::pg_catalog.bit(64)::pg_catalog.int8
 WHERE order_value IS NOT NULL;
UPDATE @extschema@.verification_sources SET key_equality = '';
CREATE INDEX merkle_log_key_hash ON @extschema@.merkle_log (key_hash)
    WHERE key_hash IS NOT NULL;
COMMENT ON COLUMN @extschema@.merkle_log.key_hash IS 'Hash of source_id and source_key that all spellings of the key share; NULL where order_value is.';
COMMENT ON COLUMN @extschema@.verification_sources.key_equality IS 'What merkle_log.key_hash depends on for this source; where that changes, the next batch computes the hashes anew.';

-- Privileges and views.

-- Administration log and verification.

-- A log may have the name that is reserved now. Its name is no part of its entries.
DO $$
BEGIN
    UPDATE @extschema@.verification_logs SET log_name = 'merkle_log_administration of 0.3.0'
     WHERE log_name OPERATOR(pg_catalog.=) 'merkle_log_administration';
    IF FOUND THEN
        RAISE WARNING 'the log "merkle_log_administration" is now called "merkle_log_administration of 0.3.0"'
            USING HINT = 'The name is that of the administration log; alter_log gives yours another one.';
    END IF;
END
$$;

-- What is configured is put on record, as adopted, by the first batch or act.
INSERT INTO @extschema@.verification_logs (log_id, log_name, order_domain, settle)
    OVERRIDING SYSTEM VALUE VALUES (0, 'merkle_log_administration', 'arrival', '0');

SELECT pg_catalog.pg_extension_config_dump('@extschema@.verification_logs', 'WHERE log_id OPERATOR(pg_catalog.<>) 0');

CREATE FUNCTION @extschema@.administration(
    log text DEFAULT NULL
) RETURNS TABLE (
    leaf_index       bigint,
    acted_at         timestamptz,
    user_name        text,
    application_name text,
    act              text,
    log_name         text,
    source_table     text,
    content          jsonb
)
STABLE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'administration_wrapper';

REVOKE ALL ON FUNCTION @extschema@.administration(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.administration(text) TO pg_monitor;

COMMENT ON FUNCTION @extschema@.administration(text) IS 'What was done to a log, or to all of them, and by whom: the entries of the administration log.';

-- Sources and what is promised about them.
