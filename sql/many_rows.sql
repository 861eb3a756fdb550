-- The functions that take the keys of many rows: an array for each column of the key, as unnest takes them. An array
-- says of which type its elements are, so that one signature is enough.

CREATE FUNCTION @extschema@.inclusion_proofs_of_rows(
    log           text,
    source_table  regclass,
    VARIADIC keys "any"
) RETURNS TABLE (
    key_number bigint,
    leaf_index bigint,
    tree_size  bigint,
    leaf_hash  bytea,
    root_hash  bytea,
    path       bytea[]
)
STABLE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'inclusion_proofs_of_rows_wrapper';

CREATE FUNCTION @extschema@.multiproof_of_rows(
    log           text,
    source_table  regclass,
    VARIADIC keys "any"
) RETURNS TABLE (
    tree_size    bigint,
    root_hash    bytea,
    leaf_indexes bigint[],
    leaf_hashes  bytea[],
    nodes        bytea[]
)
STABLE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'multiproof_of_rows_wrapper';

CREATE FUNCTION @extschema@.proof_bundle_of_rows(
    log           text,
    source_table  regclass,
    VARIADIC keys "any"
) RETURNS TABLE (
    "json"     text,
    cbor       bytea,
    tlog_proof text
)
STABLE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'proof_bundle_of_rows_wrapper';
