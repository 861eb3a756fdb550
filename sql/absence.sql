-- A row's key as the application has it, as in by_key.sql.

CREATE FUNCTION @extschema@.absence_proof_of(
    log          text,
    source_table regclass,
    VARIADIC key "any"
) RETURNS TABLE (
    "json" text,
    cbor   bytea
)
STABLE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'absence_proof_of_wrapper';

CREATE FUNCTION @extschema@.absence_proof_of(
    log          text,
    source_table regclass,
    VARIADIC key text[]
) RETURNS TABLE (
    "json" text,
    cbor   bytea
)
STABLE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'absence_proof_of_wrapper';
