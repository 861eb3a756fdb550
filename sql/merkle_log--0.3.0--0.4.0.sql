-- From 0.3.0 to 0.4.0.

-- Capture.

-- Entries and their limits.

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

ALTER TABLE @extschema@.merkle_tree_head ADD COLUMN metadata bytea;
ALTER TABLE @extschema@.merkle_leaf_data ADD COLUMN erased_salt bytea;

COMMENT ON COLUMN @extschema@.merkle_leaf_data.erased_salt IS 'Of a redacted entry, what stands for the destroyed salt in the digest of its batch.';

COMMENT ON COLUMN @extschema@.merkle_tree_head.metadata IS 'Digest of the keys, order values, sources, salts and statements of the batch''s entries; NULL before version 0.4.0.';

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

CREATE FUNCTION @extschema@.finding_kinds() RETURNS TABLE (
    kind     text,
    fault_of text,
    meaning  text
)
IMMUTABLE STRICT PARALLEL SAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'finding_kinds_wrapper';

COMMENT ON FUNCTION @extschema@.finding_kinds() IS 'The kinds of findings that verify_log makes, where the fault lies, and what each means.';

-- Sources and what is promised about them.
