-- From 0.3.0 to 0.4.0.

-- Capture.

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
