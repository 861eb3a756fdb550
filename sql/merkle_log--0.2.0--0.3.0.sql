-- From 0.2.0 to 0.3.0: entries whose key is their order value are found without an index of every key;
-- many proofs in one call; verification by several processes; functions that look up no name pin no
-- search_path.

-- Entries from before stay in the index on the key.
ALTER TABLE @extschema@.merkle_log ALTER COLUMN order_value DROP NOT NULL;

DROP INDEX @extschema@.merkle_log_source_key;

-- Entries whose key is their order value are found through merkle_order_index.
CREATE INDEX merkle_log_source_key ON @extschema@.merkle_log (source_key, source_id)
    WHERE order_value IS NOT NULL;

CREATE TABLE @extschema@.merkle_order_index (
    source_id  integer NOT NULL,
    order_key  bytea   NOT NULL,
    leaf_index bigint  NOT NULL,
    PRIMARY KEY (source_id, order_key)
) USING heap;

SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_order_index', '');

REVOKE ALL ON @extschema@.merkle_order_index FROM PUBLIC;

ALTER FUNCTION @extschema@.merkle_root(text, bigint) RESET search_path;
ALTER FUNCTION @extschema@.merkle_size(text) RESET search_path;
ALTER FUNCTION @extschema@.tree_head(text) RESET search_path;
ALTER FUNCTION @extschema@.inclusion_proof(text, bigint, bigint) RESET search_path;
ALTER FUNCTION @extschema@.inclusion_proof(text, regclass, text, bigint) RESET search_path;
ALTER FUNCTION @extschema@.consistency_proof(text, bigint, bigint) RESET search_path;

CREATE FUNCTION @extschema@.inclusion_proofs(
    log          text,
    leaf_indexes bigint[],
    tree_size    bigint DEFAULT NULL
) RETURNS TABLE (
    leaf_index bigint,
    tree_size  bigint,
    leaf_hash  bytea,
    root_hash  bytea,
    path       bytea[]
)
STABLE PARALLEL RESTRICTED
LANGUAGE c
AS 'MODULE_PATHNAME', 'inclusion_proofs_wrapper';

CREATE FUNCTION @extschema@.verify_log(
    log        text,
    from_index bigint  DEFAULT 0,
    to_index   bigint  DEFAULT NULL,
    workers    integer DEFAULT 1
) RETURNS TABLE (
    kind         text,
    source_table text,
    source_key   text,
    leaf_index   bigint,
    expected     bytea,
    actual       bytea,
    detail       text
)
STABLE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'verify_log_v3_wrapper';

-- The function that has got one more argument keeps the privileges that were granted on it.
DO $$
DECLARE
    replaced constant pg_catalog.regprocedure := '@extschema@.verify_log(text, bigint, bigint)';
    new      constant pg_catalog.regprocedure := '@extschema@.verify_log(text, bigint, bigint, integer)';
    granted  record;
BEGIN
    IF (SELECT f.proacl IS NOT NULL FROM pg_catalog.pg_proc f WHERE f.oid OPERATOR(pg_catalog.=) replaced) THEN
        EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', new);
        FOR granted IN
            SELECT a.grantee, a.is_grantable
              FROM pg_catalog.pg_proc f, pg_catalog.aclexplode(f.proacl) a
             WHERE f.oid OPERATOR(pg_catalog.=) replaced AND a.grantee OPERATOR(pg_catalog.<>) f.proowner
        LOOP
            EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %s%s', new,
                CASE WHEN granted.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
                     ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(granted.grantee)) END,
                CASE WHEN granted.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
        END LOOP;
    END IF;
    EXECUTE pg_catalog.format('DROP FUNCTION %s', replaced);
END
$$;

COMMENT ON COLUMN @extschema@.merkle_log.order_value IS 'Text form of the row''s order value; NULL where the key is the order value, and the entry is found through merkle_order_index.';
COMMENT ON TABLE @extschema@.merkle_order_index IS 'Of entries that stand in the order of their keys, the first in each tile of 256.';
COMMENT ON FUNCTION @extschema@.inclusion_proofs(text, bigint[], bigint) IS 'The proofs that entries are in the log, in order of leaf index: faster than one by one.';
COMMENT ON FUNCTION @extschema@.verify_log(text, bigint, bigint, integer) IS 'Recomputes everything from the source rows up; one row a finding, none if the log is intact.';
